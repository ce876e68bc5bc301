"""All methods on drawn flowers with a tiny network: what a budget makes of them."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.backbones.backbone import build
from regraft.backbones.checkpoint_files import write_state
from regraft.backbones.spec import BackboneSpec
from regraft.data.synthetic import make_flowers
from regraft.errors import RegraftError, RunError, UsageError
from regraft.experiment import compare as comparing
from regraft.experiment.batch import Outcome, PlanRunner
from regraft.experiment.compare import (
    Candidate,
    Choice,
    CompareConfig,
    Costs,
    candidates,
    choose,
    compare,
    measure_costs,
    ordered,
)
from regraft.experiment.config import DataConfig, MethodConfig
from regraft.experiment.run import build as build_learner

NETWORKS = tuple(MethodConfig(backbone=name) for name in ("vgg16", "resnet50"))
BOTH = CompareConfig(data=DataConfig("p"), backbones=NETWORKS, seeds=3, budget=1e9)
ONE = replace(BOTH, backbones=NETWORKS[:1])
SIZES = replace(BOTH, per_class=(20,))


def costs(step=0.1, embed=0.03, images=1000):
    each = [dict.fromkeys(("vgg16", "resnet50"), seconds) for seconds in (embed, step)]
    return Costs(images, int(0.6 * images), 5, *each)


def method(**given):
    return MethodConfig(backbone="vgg16", **given)


def test_every_candidate_can_be_run_and_stands_there_once():
    found = candidates(SIZES)

    plan = SIZES.plan([Choice(method=one.method, seeds=2) for one in found])

    assert len({one.description for one in found}) == len(found) == len(plan.rows)
    assert len({config.key for config in plan.configs()}) == 2 * len(found)
    for one in found:
        build_learner(one.method)
    assert [one.description for one in found if one.method.per_class][:2] == [
        "vgg16 + logistic, 20 per class",
        "vgg16 + frozen (linear), 20 per class",
    ]


def test_there_is_every_strategy_plain_regularized_and_augmented():
    methods = [one.method for one in candidates(ONE)]
    found = {(m.strategy, m.regularize is not None, m.augment is not None) for m in methods}

    for strategy in ("frozen", "fine_tune", "two_stage", "from_scratch"):
        assert {(strategy, False, False), (strategy, True, False), (strategy, True, True)} <= found
    views = {m.views for m in methods if m.strategy == "frozen" and m.augment}
    assert (views, {m.views for m in methods if m.strategy != "frozen"}) == ({4}, {None})


def test_shallow_classifiers_one_head_and_one_baseline_are_essential():
    essential = [one.method for one in candidates(BOTH) if one.essential]

    assert [m.strategy for m in essential] == ["features"] * 6 + ["frozen", "from_scratch"]


def test_weights_and_device_go_to_the_methods_that_have_them():
    base = method(weights="net.safetensors", device="cpu", engine="torch")
    found = [one.method for one in candidates(replace(ONE, backbones=(base,)))]

    assert {m.strategy for m in found if m.weights == "default"} == {"from_scratch"}
    assert {m.strategy for m in found if m.device == "auto"} == {"features"}
    assert {m.engine for m in found} == {"torch"}


def test_after_the_essential_methods_the_cheapest_comes_first():
    found = ordered(candidates(BOTH), costs(), cheap=60.0)

    assert [one.essential for one in found[:7]] == [True] * 7
    estimates = [one.estimate for one in found if not one.essential]
    assert estimates == sorted(estimates)
    before = found[: [one.is_baseline for one in found].index(True)]
    assert {one.essential or one.estimate <= 60 for one in before} == {True}
    assert len(before) > 7


def test_a_method_that_does_not_fit_is_tried_with_fewer_epochs_and_then_left_out():
    one = Candidate(method(strategy="fine_tune", unfreeze=1.0, epochs=10))
    whole, needed = choose(one, costs(), BOTH, left=1e9)

    halved, half = choose(one, costs(), BOTH, left=0.7 * needed)
    none, least = choose(one, costs(), BOTH, left=0.1 * needed)

    assert (whole.method.epochs, halved.method.epochs, none) == (10, 5, None)
    assert (halved.note, whole.note, halved.seeds) == ("5 of 10 epochs", "", 3)
    assert least < half < needed
    assert 60 * whole.method.time_budget == pytest.approx(1.25 * needed / 3, abs=5)


@given(
    st.sampled_from([one for one in candidates(BOTH) if one.essential]),
    st.floats(0, 1e5),
    st.floats(0.001, 10),
)
def test_an_essential_method_is_run_whatever_the_budget(one, left, step):
    config = replace(BOTH, budget=max(left, 1.0))

    choice, needed = choose(one, costs(step=step), config, left=left)

    assert choice.seeds in {1, 3}
    assert choice.method.epochs is None or choice.method.epochs >= 1
    if one.is_baseline and (choice.seeds, choice.method.epochs) != (1, 1):
        assert needed <= 0.3 * config.budget


@given(st.floats(10, 1e5), st.floats(0.001, 10))
def test_no_other_method_is_run_that_would_not_fit(left, step):
    for one in candidates(SIZES):
        choice, needed = choose(one, costs(step=step), replace(SIZES, budget=left), left=left)
        if not one.essential and choice is not None:
            assert needed <= left


# ---- what runs cost


def test_the_cost_of_a_network_is_measured_on_a_few_images():
    images = list(np.random.default_rng(0).integers(0, 256, (20, 40, 40, 3), dtype=np.uint8))
    tiny = MethodConfig(backbone="simple_cnn", arguments={"size": 48}, weights="random")

    found = measure_costs(replace(BOTH, backbones=(tiny,)), images, images=100, classes=2)

    assert (found.images, found.learned, found.classes) == (100, 20, 2)
    assert 0 < found.embed["simple_cnn"] < 1
    assert 0 < found.step["simple_cnn"] < 1


HALF = {"strategy": "fine_tune", "unfreeze": 0.5, "epochs": 5}
SCRATCH = {"strategy": "from_scratch", "epochs": 5}
FROZEN = {"strategy": "frozen", "epochs": 30}


@pytest.mark.parametrize(
    ("cheap", "dear"),
    [
        ({}, HALF),
        (HALF, HALF | {"unfreeze": 1.0}),
        (HALF, HALF | {"augment": "standard"}),
        (FROZEN, FROZEN | {"augment": "standard", "views": 4}),
        (SCRATCH | {"per_class": 10}, SCRATCH),
        (SCRATCH, SCRATCH | {"epochs": 6}),
        (HALF | {"strategy": "two_stage"}, HALF | {"strategy": "two_stage", "head_epochs": 9}),
    ],
)
def test_what_does_more_costs_more(cheap, dear):
    assert costs().seconds(method(**cheap)) < costs().seconds(method(**dear))


@pytest.mark.parametrize("ratio", [0.7, 1.0, 2.0])
def test_estimates_follow_what_runs_really_took(ratio):
    known, run = costs(), method(**SCRATCH)
    truth = ratio * known.seconds(run)

    for _ in range(8):
        known.learn(run, truth)

    assert known.seconds(run) == pytest.approx(truth, rel=0.1)
    known.learn(run, 100 * truth)  # one strange measurement does not turn everything
    assert known.seconds(run) <= 2.2 * truth


def test_a_network_whose_images_are_cached_costs_no_pass():
    known = costs(embed=1.0)
    before = known.seconds(method())

    known.learn(method(), before)

    assert known.seconds(method()) < before / 10


# ---- comparisons that are run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparing")
    make_flowers(folder / "flowers", species=2, per_class=12, size=48)
    network = build(BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),)))
    write_state(folder / "net.safetensors", network.module.state_dict())
    return folder


@pytest.fixture(scope="module")
def config(place):
    tiny = MethodConfig(
        backbone="simple_cnn",
        arguments={"size": 48},
        weights=str(place / "net.safetensors"),
        engine="torch",
    )
    data = DataConfig(place / "flowers")
    return CompareConfig(data=data, backbones=(tiny,), seeds=2, budget=0.001)


@pytest.fixture(scope="module")
def compared(config, place):
    return compare(config, place / "out")


@pytest.fixture
def estimated(monkeypatch):
    """Return a function that says what runs cost."""

    def known(embed=1e-4, step=1e-4):
        found = Costs(24, 14, 2, {"simple_cnn": embed}, {"simple_cnn": step})
        monkeypatch.setattr(comparing, "measure_costs", lambda *_a, **_k: found)
        return found

    return known


def state_of(folder):
    return json.loads((folder / "compare.json").read_text())


def test_without_any_time_the_essential_methods_are_run_and_the_others_are_named(compared):
    strategies = [row.runs[0].record.method["strategy"] for row in compared.rows]
    assert strategies == ["features"] * 3 + ["frozen", "from_scratch"]
    assert [row.seeds for row in compared.rows[:3]] == [2, 2, 2]
    left_out = " ".join(compared.left_out)
    for named in ("two_stage", "fine_tune", "augment standard"):
        assert named in left_out
    assert "from_scratch (linear): 1 of 20 epochs, 1 of 2 seeds" in left_out
    assert len({run.split_hash for row in compared.rows for run in row.runs}) == 1
    assert len(compared.verdicts) == len(compared.rows) - 1


def test_what_was_decided_is_written_down(compared, place):
    told = state_of(place / "out")

    assert told["complete"]
    assert [choice["method"]["strategy"] for choice in told["choices"]][:2] == ["features"] * 2


def test_the_same_call_again_runs_nothing_and_measures_nothing(
    compared, config, place, monkeypatch
):
    def never(*_arguments, **_options):
        raise AssertionError("this was done before")

    monkeypatch.setattr(comparing, "measure_costs", never)
    monkeypatch.setattr(PlanRunner, "fit", never)

    assert compare(config, place / "out").to_json() == compared.to_json()


def test_a_larger_budget_goes_on_from_where_it_was(compared, config, place, monkeypatch, estimated):
    estimated()
    every = comparing.candidates
    monkeypatch.setattr(
        comparing,
        "candidates",
        lambda config: [c for c in every(config) if c.method.strategy in {"frozen", "features"}],
    )
    said = []

    more = compare(replace(config, budget=1000.0), place / "out", say=said.append)

    assert len(more.rows) > 4
    assert sum(line.startswith("method ") for line in said) == len(more.rows)


def nothing_more(seen):
    def choose_nothing(one, _costs, _config, *, left):
        seen[one.description] = left
        return None, 0.0

    return choose_nothing


def test_a_baseline_that_was_run_before_a_kill_takes_nothing_of_the_budget(
    compared, config, place, monkeypatch, estimated
):
    shutil.copytree(place / "out", place / "copy")
    told = state_of(place / "copy")
    told["complete"], told["config"]["budget"] = False, 1000.0
    (place / "copy" / "compare.json").write_text(json.dumps(told))
    left = {}
    estimated(step=10.0)
    monkeypatch.setattr(comparing, "choose", nothing_more(left))

    compare(replace(config, budget=1000.0), place / "copy")

    assert left["simple_cnn + two_stage (linear), unfreeze 0.5"] > 900


def test_a_larger_budget_runs_anew_what_was_shortened(
    compared, config, place, monkeypatch, estimated
):
    shutil.copytree(place / "out", place / "larger")
    decided = {}
    estimated()
    monkeypatch.setattr(comparing, "choose", nothing_more(decided))

    more = compare(replace(config, budget=None), place / "larger")

    assert not any("the budget allows no more" in sentence for sentence in more.left_out)
    assert sum("from_scratch (linear): about" in sentence for sentence in more.left_out) == 1
    assert not any("knn" in sentence for sentence in more.left_out)


@pytest.fixture
def unrun(monkeypatch):
    """Run nothing; a clock goes on by what each method is expected to take."""
    clock, ran = [0.0], []

    def run(_runner, plan):
        ran.append(plan.rows[0])
        clock[0] += unrun_seconds(plan)
        return Outcome((), (), 0)

    def unrun_seconds(plan):
        return sum(comparing.measure_costs().seconds(c.method) for c in plan.configs())

    monkeypatch.setattr(comparing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(PlanRunner, "run", run)
    monkeypatch.setattr(comparing.Comparison, "of", lambda _rows, **facts: facts["left_out"])
    return ran


def test_cheap_sizes_leave_the_baseline_its_share(config, place, unrun, estimated):
    known = estimated(embed=0.0, step=0.1)
    budget = 240.0

    left_out = compare(
        replace(config, budget=budget, per_class=tuple(range(2, 60))), place / "sizes"
    )

    (baseline,) = [row for row in unrun if row.description.endswith("from_scratch (linear)")]
    share = sum(known.seconds(c.method) for c in baseline.configs)
    assert 0.2 * budget < share <= 0.3 * budget
    assert comparing.time.perf_counter() <= budget
    assert any("logistic" in sentence for sentence in left_out)
    assert not any("logistic" in sentence and "epochs" in sentence for sentence in left_out)


def test_what_was_left_out_for_the_baseline_is_run_when_time_is_left(
    config, place, monkeypatch, unrun, estimated
):
    """Every method takes 80 of 100 s by its estimate, and no time at all."""
    estimated()
    monkeypatch.setattr(comparing.time, "perf_counter", lambda: 0.0)
    small = Candidate(replace(config.backbones[0], classifier="knn", per_class=5))
    essential = [one for one in candidates(config) if one.essential]
    monkeypatch.setattr(comparing, "candidates", lambda _config: [*essential, small])
    monkeypatch.setattr(
        comparing,
        "choose",
        lambda one, _costs, _config, *, left: (
            Choice(method=one.method) if one.essential or left >= 80 else None,
            80.0,
        ),
    )

    left_out = compare(replace(config, budget=100.0), place / "second")

    last = [row.description for row in unrun][-2:]
    assert last == ["simple_cnn + from_scratch (linear)", small.description]
    assert left_out == ()


def stop_at(call, monkeypatch):
    run, calls = PlanRunner.run, []

    def stopped(*arguments, **options):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return run(*arguments, **options)

    monkeypatch.setattr(PlanRunner, "run", stopped)


def test_what_was_stopped_resumes_with_its_time_and_names_what_is_left_out_once(
    config, place, monkeypatch
):
    folder = place / "stopped"
    with monkeypatch.context() as patch:
        stop_at(4, patch)
        with pytest.raises(KeyboardInterrupt):
            compare(config, folder)
    (folder / "compare.json").write_text(json.dumps(state_of(folder) | {"spent": 1000.0}))

    whole = compare(config, folder)

    assert len(whole.rows) == 5
    assert len(whole.left_out) == len(set(whole.left_out))
    assert state_of(folder)["spent"] >= 1000


def test_another_comparison_or_file_in_the_same_folder_is_refused(
    compared, config, place, tmp_path
):
    with pytest.raises(RunError, match="another seeds"):
        compare(replace(config, seeds=3), place / "out")
    (tmp_path / "compare.json").write_text('{"format": "mine"}')
    with pytest.raises(RunError, match=r"compare\.json"):
        compare(config, tmp_path)


def test_splits_and_folds_are_two_ways_to_repeat(config):
    with pytest.raises(UsageError, match="two ways to repeat"):
        replace(config, splits=2, folds=3)
    choice = [Choice(method=config.backbones[0], seeds=2)]
    for more, field in (({"splits": 3}, "seed"), ({"folds": 3}, "fold")):
        repeated = replace(config, **more)
        found = [getattr(c.data, field) for c in repeated.plan(choice).configs()]
        assert (repeated.repeats, found) == (6, [0, 0, 1, 1, 2, 2])


def test_a_folder_that_cannot_be_made_is_an_explained_error(config, tmp_path):
    (tmp_path / "afile").write_text("")

    with pytest.raises(RegraftError, match="choose a folder that is writable") as refused:
        compare(config, tmp_path / "afile" / "compared")

    assert refused.value.code == "FILE-WRITE"
