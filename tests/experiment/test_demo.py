"""The demonstration: what was learned from some flowers helps with others."""

import pytest

from regraft.experiment import demo


def test_the_demonstration_leaves_pictures_two_runs_and_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SOURCE_PER_CLASS", 4)
    monkeypatch.setattr(demo, "TARGET_PER_CLASS", 8)
    monkeypatch.setattr(demo, "EPOCHS", 1)

    result = demo.run_demo(tmp_path / "demo")

    assert result.page.is_file()
    assert result.transfer.split_hash == result.baseline.split_hash
    assert (result.transfer.folder / "report.html").is_file()
    assert "--weights" in result.backbone_options()


@pytest.mark.slow
def test_transfer_is_clearly_better_than_no_transfer(tmp_path):
    result = demo.run_demo(tmp_path / "demo")

    transfer, baseline = (run.metrics["test"] for run in (result.transfer, result.baseline))
    assert transfer["interval"][0] > baseline["interval"][1]
