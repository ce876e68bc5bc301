"""The demonstration: two sets of images, three methods each, and what transfer did."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from regraft.cli.app import app
from regraft.errors import RunError
from regraft.experiment import demo


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "FLOWERS_PER_CLASS", 8)
        patch.setattr(demo, "DIGITS_PER_CLASS", 8)
        patch.setattr(demo, "LEARNED_PER_CLASS", 2)
        patch.setattr(demo, "EPOCHS", {"scratch": 2, "fine": 1})
        patch.setattr(demo, "SIDES", {"flowers": 48, "digits": 48})
        return demo.run_demo(tmp_path_factory.mktemp("demo") / "here")


def test_each_set_of_images_is_learned_by_three_methods_on_one_split(shown):
    assert [each.name for each in shown] == ["flowers", "digits"]
    for each in shown:
        runs = [run for row in each.comparison.rows for run in row.runs]
        strategies = [row.runs[0].record.method["strategy"] for row in each.comparison.rows]
        assert strategies == ["from_scratch", "features", "two_stage"]
        assert len({run.split_hash for run in runs}) == 1
        assert len(each.comparison.verdicts) == 2


def test_the_page_of_each_set_stands_beside_its_images_and_its_plan(shown):
    for each in shown:
        page = each.page.read_text(encoding="utf-8")
        assert each.comparison.title in page
        assert page.count("report.html") >= 3
        assert each.images.is_dir()


def test_the_plan_can_be_run_again_and_is_finished_then(shown):
    for each in shown:
        plan = demo.read_plan(each.plan)
        outcome = demo.PlanRunner(each.plan.parent).run(plan)
        assert (len(outcome.rows), outcome.fitted) == (3, 0)


@pytest.mark.parametrize(
    ("better", "says"),
    [
        ("tuned", "transfer helps"),
        ("scratch", "transfer does harm"),
        (None, "no gain in accuracy from transfer can be seen"),
    ],
)
def test_the_lesson_says_what_the_verdict_says_whichever_way_it_went(shown, better, says):
    flowers = shown[0]
    verdict = replace(
        flowers.comparison.verdicts[0],
        a="fine-tuning the upper half",
        b=demo.SCRATCH,
        better={"tuned": "a", "scratch": "b", None: None}[better],
    )
    rows = [row for row in flowers.comparison.rows if not row.description.startswith("features")]
    comparison = replace(flowers.comparison, verdicts=(verdict,), rows=tuple(rows))
    told = replace(flowers, comparison=comparison).lesson

    assert says in told
    assert verdict.verdict in told


def test_the_lesson_of_runs_that_failed_says_why_there_is_none(shown):
    failed = replace(shown[0].comparison, verdicts=(), failures=("from scratch: disk full",))

    assert "disk full" in replace(shown[0], comparison=failed).lesson


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


def test_the_command_prints_both_tables_each_with_its_lesson(shown, monkeypatch):
    result = command(shown, monkeypatch)

    for each in shown:
        assert each.comparison.title in result.stdout
        assert each.lesson in result.stdout
        assert str(each.page) in result.stderr
    assert result.stdout.count("fine-tuning the upper half") >= 4


@pytest.mark.slow
def test_fine_tuning_is_clearly_better_than_training_from_scratch_on_flowers(tmp_path):
    flowers, _ = demo.run_demo(tmp_path / "demo", jobs=2)

    assert "transfer helps" in flowers.lesson
