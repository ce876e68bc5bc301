"""The ladder: what is on it, and what a budget makes of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from regraft.experiment.costs import Costs
from regraft.experiment.ladder import Rung, choose, ordered, rungs

from regraft.experiment.plan import plan_from

NETWORKS = [{"backbone": "vgg16"}, {"backbone": "resnet50"}]


def costs(step=0.1, embed=0.03, pictures=1000):
    names = ("vgg16", "resnet50")
    return Costs(
        pictures=pictures,
        learned=int(0.6 * pictures),
        classes=5,
        embed=dict.fromkeys(names, embed),
        step=dict.fromkeys(names, step),
    )


def chosen(rung, costs, *, left=1e9, budget=1e9, seeds=(0, 1, 2)):
    return choose(rung, costs, seeds=seeds, repeats=1, left=left, budget=budget)


def test_every_way_of_the_ladder_can_be_run_and_stands_there_once():
    ladder = list(rungs(NETWORKS, per_class=[20]))

    plan = plan_from({"data": {"source": "p"}, "rows": [rung.row for rung in ladder]})

    assert len(plan.rows) == len({recipe.folder for recipe in plan.recipes()}) == len(ladder)
    assert len({rung.description for rung in ladder}) == len(ladder)
    for recipe in plan.recipes():
        recipe.learner()


def test_the_ladder_has_every_strategy_plain_regularised_and_augmented():
    found = {
        (rung.row["strategy"], "regularize" in rung.row, "augment" in rung.row)
        for rung in rungs(NETWORKS[:1])
    }

    for strategy in ("frozen", "fine_tune", "two_stage", "from_scratch"):
        assert {(strategy, False, False), (strategy, True, False), (strategy, True, True)} <= found


def test_shallow_classifiers_one_head_and_one_baseline_are_essential():
    essential = [rung for rung in rungs(NETWORKS) if rung.essential]

    strategies = [rung.row["strategy"] for rung in essential]
    assert strategies == ["features"] * 6 + ["frozen", "from_scratch"]


def test_a_baseline_from_scratch_does_not_get_the_weights_of_the_others():
    ladder = rungs([{"backbone": "vgg16", "weights": "net.safetensors"}])

    with_weights = {rung.row["strategy"] for rung in ladder if "weights" in rung.row}
    assert with_weights == {"features", "frozen", "fine_tune", "two_stage"}


def test_after_the_essential_ways_the_cheapest_comes_first():
    ladder = ordered(list(rungs(NETWORKS)), costs(), cheap=60.0)

    assert [rung.essential for rung in ladder[:7]] == [True] * 7
    estimates = [rung.estimate for rung in ladder if not rung.essential]
    assert estimates == sorted(estimates)
    before = ladder[: [rung.is_baseline for rung in ladder].index(True)]
    assert {rung.essential or rung.estimate <= 60 for rung in before} == {True}
    assert len(before) > 7


def test_a_way_that_does_not_fit_is_tried_with_fewer_epochs_and_then_left_out():
    rung = Rung({"backbone": "vgg16", "strategy": "fine_tune", "unfreeze": 1.0, "epochs": 10})
    whole = chosen(rung, costs())

    halved = chosen(rung, costs(), left=0.7 * whole.estimate)
    none = chosen(rung, costs(), left=0.1 * whole.estimate)

    assert (whole.row["epochs"], halved.row["epochs"], none.row) == (10, 5, None)
    assert halved.note == "5 of 10 epochs"


@given(
    st.sampled_from([rung for rung in rungs(NETWORKS) if rung.essential]),
    st.floats(0, 1e5),
    st.floats(0.001, 10),
)
def test_an_essential_way_is_run_whatever_the_budget(rung, left, step):
    choice = chosen(rung, costs(step=step), left=left, budget=max(left, 1.0))

    assert choice.row is not None
    assert choice.row["seed"][0] == 0
    assert choice.row.get("epochs", 1) >= 1


@given(st.floats(10, 1e5), st.floats(0.001, 10))
def test_no_other_way_is_run_that_would_not_fit(left, step):
    for rung in rungs(NETWORKS, per_class=[20]):
        choice = chosen(rung, costs(step=step), left=left, budget=left)
        if not rung.essential and choice.row is not None:
            assert choice.estimate <= left


@pytest.mark.parametrize("ratio", [0.7, 1.0, 2.0])
def test_estimates_follow_what_runs_really_took(ratio):
    known, row = costs(), {"backbone": "vgg16", "strategy": "from_scratch", "epochs": 10}
    truth = ratio * known.seconds(row)

    for _ in range(8):
        known.learn(row, truth)

    assert known.seconds(row) == pytest.approx(truth, rel=0.1)


def test_a_network_whose_pictures_are_cached_costs_no_pass():
    known, row = costs(embed=1.0), {"backbone": "vgg16", "strategy": "features"}
    before = known.seconds(row)

    known.learn(row, before)

    assert known.seconds(row) < before / 10
