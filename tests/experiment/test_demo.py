"""The demonstration: three methods on drawn flowers, and what transfer did."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from regraft.cli.app import app
from regraft.errors import RunError
from regraft.experiment import demo


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    place = tmp_path_factory.mktemp("demo")
    plan = demo.PLAN.read_text(encoding="utf-8")
    for number, less in (("20", "2"), ("80", "48"), ("30", "2"), ("12", "1")):
        plan = plan.replace(f" = {number}", f" = {less}")
    (place / "small.toml").write_text(plan, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "PER_CLASS", 8)
        patch.setattr(demo, "PLAN", place / "small.toml")
        return demo.run_demo(place / "here")


def test_flowers_are_learned_by_three_methods_on_one_split(shown):
    runs = [run for row in shown.comparison.rows for run in row.runs]
    strategies = [run.record.method["strategy"] for run in runs]

    assert strategies == ["from_scratch", "features", "two_stage"]
    assert len({run.split_hash for run in runs}) == 1
    assert len(shown.comparison.verdicts) == 2


def test_the_page_stands_beside_the_images_and_the_plan(shown):
    page = shown.page.read_text(encoding="utf-8")

    assert shown.comparison.title in page
    assert page.count("report.html") >= 3
    assert shown.images.is_dir()


def test_the_plan_can_be_run_again_and_is_finished_then(shown):
    outcome = demo.PlanRunner(shown.plan.parent).run(demo.read_plan(shown.plan))

    assert (len(outcome.rows), outcome.fitted) == (3, 0)


@pytest.mark.parametrize(
    ("better", "says"),
    [
        ("tuned", "Transfer helps"),
        ("scratch", "Transfer does harm"),
        (None, "No gain in accuracy from transfer can be seen"),
    ],
)
def test_the_lesson_says_what_the_verdict_says_whichever_way_it_went(shown, better, says):
    verdict = replace(
        shown.comparison.verdicts[0],
        a="fine-tuning the upper half",
        b=demo.SCRATCH,
        better={"tuned": "a", "scratch": "b", None: None}[better],
    )
    rows = [row for row in shown.comparison.rows if not row.description.startswith("features")]
    comparison = replace(shown.comparison, verdicts=(verdict,), rows=tuple(rows))
    told = replace(shown, comparison=comparison).lesson

    assert says in told
    assert verdict.verdict in told


def test_the_lesson_of_runs_that_failed_says_why_there_is_none(shown):
    failed = replace(shown.comparison, verdicts=(), failures=("from scratch: disk full",))

    assert "disk full" in replace(shown, comparison=failed).lesson


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")

    with pytest.raises(RunError, match="something stands here already"):
        demo.run_demo(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def command(shown, monkeypatch, *options):
    """Call the command on what was shown before."""
    monkeypatch.setattr(demo, "run_demo", lambda *_folder, **_options: shown)
    result = CliRunner().invoke(app, ["demo", *options])
    assert result.exit_code == 0, result.stderr
    return result


def test_the_command_prints_the_table_with_its_lesson(shown, monkeypatch):
    result = command(shown, monkeypatch)

    assert shown.comparison.title in result.stdout
    assert shown.lesson in result.stdout
    assert str(shown.page) in result.stderr
    assert result.stdout.count("fine-tuning the upper half") >= 2


@pytest.mark.slow
def test_fine_tuning_is_clearly_better_than_training_from_scratch_on_flowers(tmp_path):
    assert "Transfer helps" in demo.run_demo(tmp_path / "demo", jobs=2).lesson
