"""All methods on drawn flowers with a tiny network: what a budget makes of them."""

import json
from dataclasses import replace

import pytest

from regraft.backbones.backbone import build
from regraft.backbones.checkpoint_files import write_state
from regraft.backbones.spec import BackboneSpec
from regraft.data.synthetic import make_flowers
from regraft.errors import RunError, UsageError
from regraft.experiment.batch import PlanRunner
from regraft.experiment.compare import CompareConfig, candidates, compare
from regraft.experiment.config import DataConfig, MethodConfig
from regraft.experiment.prepare import Clock
from regraft.experiment.run import build as build_learner

NETWORKS = tuple(MethodConfig(backbone=name) for name in ("vgg16", "resnet50"))
BOTH = CompareConfig(data=DataConfig("p"), backbones=NETWORKS, seeds=3)
ONE = replace(BOTH, backbones=NETWORKS[:1])


def method(**given):
    return MethodConfig(backbone="vgg16", **given)


# ---- which methods there are


def test_every_candidate_can_be_run_and_stands_there_once():
    found = candidates(replace(BOTH, per_class=(20,)))

    runs = [run for one in found for run in BOTH.runs(one)]

    assert len({one.title for one in found}) == len(found)
    assert len({run.key for run in runs}) == 3 * len(found)
    for one in found:
        build_learner(one)
    assert [one.title for one in found if one.per_class][::2] == [
        "vgg16 + logistic, 20 per class",
        "vgg16 + frozen (linear), 20 per class",
        "vgg16 + fine_tune (linear), unfreeze 0.5, 20 per class",
    ]


def test_there_is_every_strategy_plain_regularized_and_augmented():
    methods = candidates(ONE)
    found = {(m.strategy, m.regularize is not None, m.augment is not None) for m in methods}

    for strategy in ("frozen", "fine_tune", "two_stage", "from_scratch"):
        assert {(strategy, False, False), (strategy, True, False), (strategy, True, True)} <= found
    views = {m.views for m in methods if m.strategy == "frozen" and m.augment}
    assert (views, {m.views for m in methods if m.strategy != "frozen"}) == ({4}, {None})


def test_fine_tuning_and_a_baseline_that_ends_come_before_any_variant_of_the_head():
    found = candidates(ONE)

    plain = [m.strategy for m in found if not (m.regularize or m.augment)]
    baseline = next(m for m in found if m.strategy == "from_scratch")
    first_variant = next(number for number, m in enumerate(found) if m.regularize)
    assert plain == [
        *("features", "features", "features", "frozen"),
        *("fine_tune", "from_scratch", "two_stage", "fine_tune", "from_scratch"),
    ]
    assert (baseline.backbone, dict(baseline.arguments)) == ("simple_cnn", {"size": 96})
    assert first_variant == len(plain) - 1  # the network itself from random weights is the last


def test_methods_and_variants_can_be_chosen():
    chosen = replace(ONE, methods=("frozen", "from_scratch"), regularize=False)

    found = candidates(chosen)

    assert {m.strategy for m in found} == {"frozen", "from_scratch"}
    assert {(m.augment, m.regularize) for m in found} == {(None, None), ("standard", None)}
    assert all(m.augment is None for m in candidates(replace(chosen, augment=False)))
    with pytest.raises(UsageError, match="methods"):
        replace(ONE, methods=("frozn",))


def test_weights_and_device_go_to_the_methods_that_have_them():
    base = method(weights="net.safetensors", device="cpu", engine="torch")
    found = candidates(replace(ONE, backbones=(base,)))

    assert {m.strategy for m in found if m.weights == "default"} == {"from_scratch"}
    assert {m.strategy for m in found if m.device == "auto"} == {"features"}
    assert {m.engine for m in found} == {"torch"}


def test_splits_and_folds_are_two_ways_to_repeat():
    with pytest.raises(UsageError, match="two ways to repeat"):
        replace(BOTH, splits=2, folds=3)
    for more, field in (({"splits": 3}, "seed"), ({"folds": 3}, "fold")):
        runs = replace(BOTH, seeds=2, **more).runs(method())
        assert sorted(getattr(run.data, field) for run in runs) == [0, 0, 1, 1, 2, 2]


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
        explain=False,
    )
    return CompareConfig(
        data=DataConfig(place / "flowers"),
        backbones=(tiny,),
        methods=("features", "frozen"),
        regularize=False,
        augment=False,
        seeds=2,
    )


@pytest.fixture(scope="module")
def compared(config, place):
    return compare(config, place / "out")


class WorkClock(Clock):
    """Its time goes on by a second at each look, and by what a test says of a fit."""

    now = 0.0

    @property
    def spent(self):  # noqa: D102 - as of Clock
        self.now += 1.0
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """Return a clock of which each fit takes as many seconds as its ``each`` says."""
    clock, fit = WorkClock(600), PlanRunner.fit
    clock.each, clock.limits = 100.0, []

    def timed(runner, config, *, time_budget=None):
        clock.limits.append((time_budget, clock.seconds - clock.now))
        clock.now += clock.each
        return fit(runner, config)

    monkeypatch.setattr(PlanRunner, "fit", timed)
    return clock


def test_every_method_is_run_on_one_split_with_each_seed(compared):
    strategies = [row.runs[0].record.method["strategy"] for row in compared.rows]

    assert strategies == ["features"] * 3 + ["frozen"]
    assert [row.seeds for row in compared.rows] == [2, 2, 2, 2]
    assert len({run.split_hash for row in compared.rows for run in row.runs}) == 1
    assert (compared.left_out, compared.failures) == ((), ())


def test_the_same_call_again_runs_nothing(compared, config, place, monkeypatch):
    def never(*_arguments, **_options):
        raise AssertionError("this was done before")

    monkeypatch.setattr(PlanRunner, "fit", never)

    assert compare(config, place / "out").to_json() == compared.to_json()


def test_what_has_no_time_is_left_out_by_name_and_run_with_a_larger_budget(config, place, clock):
    folder, small = place / "budget", replace(config, seeds=1, budget=600.0)

    some = compare(small, folder, clock=clock)
    more = compare(replace(small, budget=None), folder)

    assert 0 < len(some.rows) < 4
    assert clock.now <= 1.1 * 600
    assert len(some.left_out) == 4 - len(some.rows)
    assert "simple_cnn + frozen (linear)" in some.left_out[-1]
    assert (len(more.rows), more.left_out) == (4, ())


def test_a_training_is_given_no_more_than_the_time_that_is_left(config, place, clock):
    clock.each = 0.0
    frozen = replace(config, methods=("frozen",), seeds=1, budget=600.0)

    compare(frozen, place / "limit", clock=clock)

    minutes, left = clock.limits[0]
    assert 0 < 60 * minutes < left - 5  # what a run and the page take beside is kept free


def test_a_budget_that_is_too_short_for_anything_is_refused_before_any_work(config, place):
    short, said = replace(config, budget=0.5, seeds=1, folds=3), []

    with pytest.raises(UsageError, match="the least that can be done") as refused:
        compare(short, place / "short", say=said.append)

    assert (refused.value.code, said) == ("BUDGET", [])
    assert "--budget 30s or more" in refused.value.hint
    assert not (place / "short" / "runs").exists()


def test_what_was_stopped_resumes(config, place, monkeypatch):
    fit, calls = PlanRunner.fit, []

    def stopped(*arguments, **options):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return fit(*arguments, **options)

    monkeypatch.setattr(PlanRunner, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        compare(config, place / "stopped")

    whole = compare(config, place / "stopped")

    assert (len(whole.rows), len(calls)) == (4, 4 + 8 - 3)


def test_a_method_that_fails_is_named_and_the_others_are_run(config, place, monkeypatch):
    fit = PlanRunner.fit

    def fails(runner, run, **options):
        if run.method.classifier == "linear_svm":
            raise ValueError("no margin")
        return fit(runner, run, **options)

    monkeypatch.setattr(PlanRunner, "fit", fails)

    found = compare(replace(config, methods=("features",), seeds=1), place / "failing")

    assert len(found.rows) == 2
    assert "linear_svm: unexpected error: ValueError - no margin" in found.failures[0]


def test_another_comparison_or_file_in_the_same_folder_is_refused(
    compared, config, place, tmp_path
):
    with pytest.raises(RunError, match="another seeds"):
        compare(replace(config, seeds=3), place / "out")
    (tmp_path / "compare.json").write_text(json.dumps({"format": "mine"}))
    with pytest.raises(RunError, match=r"compare\.json"):
        compare(config, tmp_path)
