"""The small size of a plan: other networks, few epochs, and rows that say what differs for them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from regraft.experiment.small_size import SmallSize

from regraft.errors import UsageError
from regraft.experiment.plan import plan_from

MINI = {"backbone": "efficientnet_lite0", "size": 64, "stages": {"features.17": "blocks.4.0"}}
WRONG = {
    "size": 224,
    "resize": 256,
    "mode": "crop",
    "interpolation": "nearest",
    "scale": 255.0,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "channels": "BGR",
}


def only_row(given, **small):
    """Return the one row of a plan at its small size, as its recipe has it."""
    values = {"data": {"source": "p"}, "rows": [given], "small": small}
    (recipe,) = plan_from(values, small=True).recipes()
    return recipe


def test_another_network_stands_in_with_its_own_stages_and_size():
    row = {
        "backbone": "vgg16",
        "weights": "some.safetensors",
        "strategy": "fine_tune",
        "phases": [{"unfreeze_from": "features.17", "epochs": 30}],
    }

    recipe = only_row(row, backbones={"vgg16": MINI})

    assert recipe.backbone.name == "efficientnet_lite0"
    assert recipe.backbone.weights == "default"
    assert dict(recipe.backbone.arguments) == {"size": 64}
    assert recipe.learner().phases[0].unfreeze_from == "blocks.4.0"


def test_a_wrong_preprocessing_stays_wrong_at_the_size_of_the_stand_in():
    row = {"backbone": "vgg16", "preprocessing": WRONG}

    preprocessing = only_row(row, backbones={"vgg16": MINI}).backbone.preprocessing

    assert (preprocessing.size, preprocessing.resize) == (64, 73)
    assert (preprocessing.channels, preprocessing.interpolation) == ("BGR", "nearest")


def test_a_preprocessing_without_a_size_has_none_to_change():
    row = {"backbone": "vgg16", "preprocessing": {"mode": "squash"}}

    with pytest.raises(UsageError, match="preprocessing needs size and resize - there are mode"):
        only_row(row, backbones={"vgg16": MINI})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"preprocessing": "squash"}, "preprocessing cannot be 'squash' - it is a table"),
        ({"strategy": "frozen", "epochs": "3"}, "epochs cannot be '3' - it is a whole number"),
        ({"strategy": "frozen", "phases": "two"}, "phases cannot be 'two' - it is a list"),
        ({"strategy": "frozen", "phases": ["one"]}, "a phase cannot be 'one' - it is a table"),
    ],
)
def test_a_value_that_cannot_be_shrunk_is_said_like_any_other(row, said):
    with pytest.raises(UsageError, match=said):
        only_row({"backbone": "vgg16", **row}, epochs=2, backbones={"vgg16": MINI})


def test_random_weights_stay_random():
    row = {"backbone": "vgg16", "weights": "random"}

    assert only_row(row, backbones={"vgg16": MINI}).backbone.weights is None


@given(st.integers(1, 50), st.integers(1, 50), st.none() | st.integers(1, 50))
def test_epochs_and_steps_are_never_more_than_allowed_nor_more_than_asked_for(most, asked, steps):
    phase = {"epochs": asked} | ({} if steps is None else {"steps": steps})
    row = {"strategy": "frozen", "phases": [phase, {}]}

    first, second = only_row(row, epochs=most, steps=most).learner().phases

    assert first.epochs == min(asked, most)
    assert first.steps == (most if steps is None else min(steps, most))
    assert second.epochs == min(most, 30)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"strategy": "frozen"}, [2]),
        ({"strategy": "frozen", "epochs": 1}, [1]),
        ({"strategy": "two_stage", "epochs": 9}, [2, 2]),
    ],
)
def test_strategies_without_phases_are_short_too(row, expected):
    assert [phase.epochs for phase in only_row(row, epochs=2).learner().phases] == expected


def test_a_row_learns_from_the_amount_of_its_small_size_alone():
    given = {"strategy": "frozen", "size": 3917, "small": {"per_class": 4}}
    recipe = only_row(given, row={"batch_size": 4})

    assert (recipe.data_plan.per_class, recipe.data_plan.size) == (4, None)


def test_pictures_of_a_row_give_way_to_those_of_the_small_size_and_of_the_command():
    values = {
        "data": {"source": "chests", "test": 0.3},
        "rows": [{"data": {"source": "cats", "val": 0.4}}, {"classifier": "knn"}],
        "small": {"data": {"test": 0.25}},
    }

    whole = [recipe.data_plan for recipe in plan_from(values).recipes()]
    small = [r.data_plan for r in plan_from(values, small=True, data="/drawn").recipes()]

    assert [(p.source.rpartition("/")[2], p.val, p.test) for p in whole] == [
        ("cats", 0.4, 0.3),
        ("chests", 0.15, 0.3),
    ]
    assert [(plan.source, plan.val, plan.test) for plan in small] == [
        ("/drawn", 0.4, 0.25),
        ("/drawn", 0.15, 0.25),
    ]


def test_the_reader_is_told_that_the_figures_are_those_of_the_small_size():
    values = {"data": {"source": "p"}, "note": "my note", "small": {"backbones": {"vgg16": MINI}}}

    assert plan_from(values).note == "my note"
    assert plan_from(values, small=True).note.startswith("my note; this is the small size, regra")


@pytest.mark.parametrize(
    ("small", "said"),
    [
        ({"epoch": 2}, "unknown key 'epoch' - did you mean 'epochs'"),
        ({"epochs": 0}, "epochs must be a whole number above 0"),
        ({"backbones": {"vgg16": {"backbon": "x"}}}, "did you mean 'backbone'"),
        ({"backbones": {"vgg16": {"size": 64}}}, "nothing stands in for vgg16"),
        ({"backbones": {"vgg16": {**MINI, "size": "64"}}}, "size cannot be '64'"),
        ({"backbones": {"vgg16": 3}}, "small: 3 for vgg16 - it is a table"),
        ({"backbones": "mini"}, "backbones cannot be 'mini' - it is a table"),
        ({"data": 3}, "data cannot be 3 - it is a table"),
        ({"epochs": "2"}, "epochs cannot be '2' - it is a whole number"),
    ],
)
def test_a_mistake_is_said_even_where_the_small_size_is_not_asked_for(small, said):
    with pytest.raises(UsageError, match=said):
        plan_from({"data": {"source": "p"}, "small": small})


def test_the_small_size_is_a_value_with_defaults_that_change_nothing():
    row = {"backbone": "vgg16", "strategy": "frozen", "phases": [{"epochs": 30}]}

    assert SmallSize().shrunk(row) == row
