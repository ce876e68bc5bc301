"""The whole ladder on drawn flowers with a tiny network, in one call and in several."""

import json
import shutil
from dataclasses import replace

import pytest
from regraft.experiment.campaign import Outcome
from regraft.experiment.comparing import Asked, compare
from regraft.experiment.costs import Costs
from regraft.experiment.ladder import Choice, Rung

from regraft.backbones.backbone import build
from regraft.data.synthetic import make_flowers
from regraft.errors import RegraftError, RunError
from regraft.experiment import comparing

NETWORK = {"backbone": "simple_cnn", "arguments": {"size": 48}, "weights": "net.safetensors"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    from regraft.backbones.checkpoint_files import write_state
    from regraft.backbones.spec import BackboneSpec

    folder = tmp_path_factory.mktemp("comparing")
    make_flowers(folder / "flowers", species=2, per_class=12, size=48)
    network = build(BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),)))
    write_state(folder / "net.safetensors", network.module.state_dict())
    return folder


@pytest.fixture(scope="module")
def asked(place):
    return Asked(
        {"source": str(place / "flowers")},
        [{**NETWORK, "weights": str(place / "net.safetensors")}],
        seeds=2,
        budget=0.0,
        options={"engine": "torch", "device": "cpu"},
    )


@pytest.fixture(scope="module")
def compared(asked, place):
    return compare(asked, place / "out")


def test_without_any_time_the_essential_ways_are_run_and_the_others_are_named(compared):
    strategies = [row.strategy for row in compared.rows]

    assert strategies == ["features"] * 3 + ["frozen", "from_scratch"]
    assert [row.seeds for row in compared.rows[:3]] == [2, 2, 2]
    left_out = " ".join(compared.left_out)
    for way in ("two_stage", "fine_tune", "augment standard"):
        assert way in left_out
    assert "from_scratch (linear): 1 of 20 epochs, 1 of 2 seeds" in left_out


def test_all_rows_stand_on_one_split_with_verdicts(compared):
    assert len({run.split_hash for row in compared.rows for run in row.runs}) == 1
    assert len(compared.verdicts) == len(compared.rows) - 1


def test_the_same_call_again_runs_nothing_and_measures_nothing(compared, asked, place, monkeypatch):
    def never(*_arguments, **_options):
        raise AssertionError("this was done before")

    monkeypatch.setattr(comparing, "measure_costs", never)
    monkeypatch.setattr(comparing.Campaign, "fit", never)

    again = compare(asked, place / "out")

    assert again.to_json() == compared.to_json()


def test_a_larger_budget_climbs_on_from_where_it_was(compared, asked, place, monkeypatch):
    cheap = Costs(24, 14, 2, {"simple_cnn": 1e-4}, {"simple_cnn": 1e-4})
    monkeypatch.setattr(comparing, "measure_costs", lambda *_a, **_k: cheap)
    only = {"frozen", "features"}
    ladder = comparing.rungs
    monkeypatch.setattr(
        comparing,
        "rungs",
        lambda *a, **k: [r for r in ladder(*a, **k) if r.row["strategy"] in only],
    )
    said = []

    more = compare(replace(asked, budget=1000.0), place / "out", say=said.append)

    assert len(more.rows) > 4
    assert sum(line.startswith("way ") for line in said) == len(more.rows)


def test_a_baseline_that_was_run_before_a_kill_takes_nothing_of_the_budget(
    compared, asked, place, monkeypatch
):
    shutil.copytree(place / "out", place / "copy")
    told = json.loads((place / "copy" / "compare.json").read_text())
    told["complete"], told["asked"]["budget"] = False, 1000.0
    (place / "copy" / "compare.json").write_text(json.dumps(told))
    slow = Costs(24, 14, 2, {"simple_cnn": 1e-4}, {"simple_cnn": 10.0})
    left = {}

    def nothing_more(rung, costs, *, left: float, lefts=left, **_options):
        lefts[rung.description] = left
        return Choice(None)

    monkeypatch.setattr(comparing, "measure_costs", lambda *_a, **_k: slow)
    monkeypatch.setattr(comparing, "choose", nothing_more)
    compare(replace(asked, budget=1000.0), place / "copy")

    assert left["simple_cnn + two_stage (linear), unfreeze 0.5"] > 900


def test_cheap_sizes_leave_the_baseline_its_share(asked, place, monkeypatch):
    """Nothing is run here: a clock goes on by what each way is expected to take."""
    costs = Costs(24, 14, 2, {"simple_cnn": 0.0}, {"simple_cnn": 0.1})
    budget, spent = 240.0, []

    def run(_campaign, plan):
        spent.append(sum(costs.seconds(recipe.row) for recipe in plan.recipes()))
        return Outcome((), (), 0)

    monkeypatch.setattr(comparing, "measure_costs", lambda *_a, **_k: costs)
    monkeypatch.setattr(comparing.Campaign, "run", run)
    monkeypatch.setattr(comparing._State, "spent", property(lambda _state: sum(spent)))
    monkeypatch.setattr(comparing.Comparison, "of", lambda _rows, **facts: facts["left_out"])
    sizes = range(2, 60)
    left_out = compare(replace(asked, budget=budget, per_class=sizes), place / "sizes")

    rows = json.loads((place / "sizes" / "compare.json").read_text())["plan"]["rows"]
    baseline = next(row for row in rows if row["strategy"] == "from_scratch")
    share = costs.seconds(baseline) * len(baseline["seed"])
    assert 0.2 * budget < share <= 0.3 * budget
    assert sum(spent) <= budget
    assert any("logistic" in sentence for sentence in left_out)
    assert not any("logistic" in sentence and "epochs" in sentence for sentence in left_out)


def test_what_was_left_out_for_the_baseline_is_run_when_time_is_left(asked, place, monkeypatch):
    """Nothing is run here: every way takes 80 of 100 s by its estimate, and no time at all."""
    ran = []

    def run(_campaign, plan):
        ran.append(plan.rows[0].description)
        return Outcome((), (), 0)

    def affordable(rung, _costs, *, left, **_options):
        return Choice({**rung.row, "seed": [0]} if rung.essential or left >= 80 else None, 80)

    size = {**asked.backbones[0], "strategy": "features", "classifier": "knn", "per_class": 5}
    ways = [r for r in comparing.rungs(asked.backbones) if r.essential]
    monkeypatch.setattr(comparing, "rungs", lambda *_a, **_k: [*ways, Rung(size)])
    monkeypatch.setattr(
        comparing,
        "measure_costs",
        lambda *_a, **_k: Costs(24, 14, 2, {"simple_cnn": 0.0}, {"simple_cnn": 0.1}),
    )
    monkeypatch.setattr(comparing, "choose", affordable)
    monkeypatch.setattr(comparing.Campaign, "run", run)
    monkeypatch.setattr(comparing._State, "spent", property(lambda _state: 0.0))
    monkeypatch.setattr(comparing.Comparison, "of", lambda _rows, **facts: facts["left_out"])

    left_out = compare(replace(asked, budget=100.0), place / "second")

    assert ran[-2:] == ["simple_cnn + from_scratch (linear)", Rung(size).description]
    assert left_out == ()


def test_a_larger_budget_runs_anew_what_was_shortened(compared, asked, place, monkeypatch):
    shutil.copytree(place / "out", place / "larger")
    decided = []

    def nothing_more(rung, costs, **_options):
        decided.append(rung.description)
        return Choice(None)

    monkeypatch.setattr(comparing, "measure_costs", lambda *_a, **_k: Costs(24, 14, 2, {}, {}))
    monkeypatch.setattr(comparing, "choose", nothing_more)
    monkeypatch.setattr(comparing._Climb, "_forecast", lambda *_a: None)
    more = compare(replace(asked, budget=None), place / "larger")

    assert "simple_cnn + from_scratch (linear)" in decided
    assert "simple_cnn + knn" not in decided
    assert not any("the budget allows no more" in sentence for sentence in more.left_out)


def test_what_was_stopped_goes_on_and_names_what_is_left_out_once(asked, place, monkeypatch):
    run = comparing.Campaign.run
    calls = []

    def stopped(*arguments, **options):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return run(*arguments, **options)

    monkeypatch.setattr(comparing.Campaign, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        compare(asked, place / "stopped")
    whole = compare(asked, place / "stopped")

    assert len(whole.rows) == 5
    assert len(whole.left_out) == len(set(whole.left_out))


def test_the_time_before_a_kill_counts(asked, place, monkeypatch):
    def stopped(*_arguments, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(comparing.Campaign, "run", stopped)
        with pytest.raises(KeyboardInterrupt):
            compare(asked, place / "counted")
    file = place / "counted" / "compare.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"spent": 1000.0}))

    compare(asked, place / "counted")

    assert json.loads(file.read_text())["spent"] >= 1000


def test_another_comparison_in_the_same_folder_is_refused(compared, asked, place):
    with pytest.raises(RunError, match="another seeds"):
        compare(replace(asked, seeds=3), place / "out")


def test_what_was_decided_is_a_plan(compared, place):
    told = json.loads((place / "out" / "compare.json").read_text())

    assert told["complete"]
    assert [row["strategy"] for row in told["plan"]["rows"]][:2] == ["features"] * 2


def test_a_folder_that_cannot_be_made_is_an_explained_error(place, tmp_path):
    (tmp_path / "afile").write_text("")
    asked = Asked({"source": str(place / "flowers")}, [NETWORK])

    with pytest.raises(RegraftError, match="choose another folder") as refused:
        compare(asked, tmp_path / "afile" / "compared")

    assert refused.value.code == "FILE-WRITE"
