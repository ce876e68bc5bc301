"""Plans: lists become runs, repeats stay together, and mistakes name the row."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import UsageError
from regraft.experiment.plan import plan_from, read_plan

PLAN = """
title = "Flowers"
[data]
source = "pictures"
test = 0.3
[defaults]
backbone = "simple_cnn"
weights = "random"
seed = [0, 1]
[[rows]]
id = "shallow"
classifier = ["knn", "logistic"]
per_class = [5, 10]
[[rows]]
id = "head"
description = "a new head"
strategy = "frozen"
published = {test = 0.75, note = "another split"}
[[rows]]
id = "on"
strategy = "fine_tune"
start = "head"
[small.row]
seed = 0
"""


def written(tmp_path, text=PLAN):
    (tmp_path / "plan.toml").write_text(text)
    return tmp_path / "plan.toml"


def test_lists_stand_for_one_row_each_and_seeds_for_repeats(tmp_path):
    plan = read_plan(written(tmp_path))

    assert [(row.description, len(row.recipes)) for row in plan.rows] == [
        ("simple_cnn + knn, 5 per class", 2),
        ("simple_cnn + knn, 10 per class", 2),
        ("simple_cnn + logistic, 5 per class", 2),
        ("simple_cnn + logistic, 10 per class", 2),
        ("a new head", 2),
        ("simple_cnn + fine_tune (linear)", 2),
    ]
    assert len({recipe.folder for recipe in plan.recipes()}) == 12
    assert plan.rows[4].published == {"test": 0.75, "note": "another split"}


def test_the_pictures_lie_where_the_plan_says(tmp_path):
    assert read_plan(written(tmp_path)).recipes()[0].data["source"] == str(tmp_path / "pictures")
    moved = read_plan(written(tmp_path), data=str(tmp_path / "moved"))
    assert moved.recipes()[0].data["source"] == str(tmp_path / "moved")


def test_a_row_with_data_of_its_own_keeps_the_other_defaults_of_the_data():
    values = {
        "data": {"source": "p", "val": 0.2},
        "defaults": {"data": {"test": 0.3, "seed": 4}, "small": {"epochs": 1, "seed": 5}},
        "rows": [{"strategy": "frozen", "data": {"seed": 7}, "small": {"seed": 9}}],
    }

    (whole,), (small,) = (plan_from(values, small=small).recipes() for small in (False, True))

    assert (whole.data_plan.val, whole.data_plan.test, whole.data_plan.seed) == (0.2, 0.3, 7)
    assert (small.row["epochs"], small.row["seed"]) == (1, 9)


def test_paths_in_a_list_begin_in_the_folder_of_the_plan_too(tmp_path):
    (tmp_path / "one.safetensors").touch()
    (tmp_path / "two.safetensors").touch()
    (tmp_path / "run").mkdir()
    row = {"strategy": "fine_tune", "weights": ["one.safetensors", "two.safetensors", "default"]}
    values = {"data": {"source": "p"}, "rows": [{**row, "start": ["run"]}]}

    plan = plan_from(values, base=tmp_path)

    files = [str(tmp_path / name) for name in ("one.safetensors", "two.safetensors")]
    assert [recipe.row["weights"] for recipe in plan.recipes()] == [*files, "default"]
    assert {recipe.row["start"] for recipe in plan.recipes()} == {str(tmp_path / "run")}
    assert "weights one.safetensors" in plan.rows[0].description


def test_one_folder_cannot_stand_for_two_but_will_do_for_the_small_size(tmp_path):
    file = written(tmp_path, PLAN.replace('id = "head"', 'id = "head"\ndata = {source = "cats"}'))

    with pytest.raises(UsageError, match=r"one folder \(--data\) cannot.*/cats, .*/pictures"):
        read_plan(file, data="mine")
    small = read_plan(file, data=str(tmp_path / "mine"), small=True)
    assert {recipe.data["source"] for recipe in small.recipes()} == {str(tmp_path / "mine")}


def test_a_repeat_starts_from_the_repeat_with_its_own_seed(tmp_path):
    *_, head, on = read_plan(written(tmp_path)).rows

    assert [recipe.row["start"] for recipe in on.recipes] == [r.link for r in head.recipes]


@pytest.mark.parametrize("data", [{"folds": 3}, {"seed": [0, 1]}, {"test": 0.4}])
def test_a_row_cannot_start_from_a_run_on_another_split(data):
    rows = [
        {"id": "head", "strategy": "frozen"},
        {"id": "on", "strategy": "fine_tune", "start": "head", "data": data},
    ]

    with pytest.raises(UsageError, match=r"nothing to start from on this split.*is not measured"):
        plan_from({"data": {"source": "p"}, "rows": rows})


def test_a_row_starts_on_its_own_split_and_from_other_pictures_whatever_their_split():
    rows = [
        {"id": "head", "strategy": "frozen", "epochs": 1, "seed": [0, 1], "description": "head"},
        {"id": "seeds", "strategy": "fine_tune", "start": "head", "seed": [1, 2]},
        {"id": "lenient", "strategy": "two_stage", "start": "head", "data": {"skip_bad": True}},
        {"id": "cats", "strategy": "frozen", "start": "head", "data": {"source": "c", "val": 0}},
    ]

    head, seeds, lenient, cats = plan_from({"data": {"source": "p"}, "rows": rows}).rows

    first, second = (recipe.link for recipe in head.recipes)
    assert [recipe.row["start"] for recipe in seeds.recipes] == [second, first]
    assert lenient.recipes[0].row["start"] == cats.recipes[0].row["start"] == first


def test_rows_can_be_chosen_and_bring_what_they_start_from(tmp_path):
    plan = read_plan(written(tmp_path))

    assert [row.recipes[0].row["id"] for row in plan.only(["on"]).rows] == ["head", "on"]
    assert len(plan.only(["shallow"]).rows) == 4
    with pytest.raises(UsageError, match=r"no row 'onn'.*there are shallow, head, on"):
        plan.only(["onn"])


def test_the_small_size_takes_the_place_of_what_it_names(tmp_path):
    small = read_plan(written(tmp_path), small=True)

    assert [len(row.recipes) for row in small.rows] == [1] * 6


def test_several_splits_and_folds_are_repeats():
    splits = plan_from({"data": {"source": "p", "seed": [0, 1, 2]}, "rows": [{}]})

    assert [recipe.data_plan.seed for recipe in splits.recipes()] == [0, 1, 2]
    assert len(splits.rows) == 1


def test_the_plan_of_one_fold_is_that_fold_alone():
    folds = plan_from({"data": {"source": "p", "folds": 3}, "rows": [{}]}).recipes()

    (again,) = plan_from(folds[1].plan).recipes()

    assert [recipe.data_plan.fold for recipe in folds] == [0, 1, 2]
    assert (again.data_plan.folds, again.data_plan.fold) == (3, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('title = "Flowers"|titel = "Flowers"', "unknown key 'titel'.*did you mean 'title'"),
        ("test = 0.3|tset = 0.3", "unknown key 'tset'.*did you mean 'test'"),
        ('strategy = "frozen"|stragety = "frozen"', "row head.*did you mean 'strategy'"),
        ('strategy = "fine_tune"|strategy = "tune"', "row on.*unknown strategy 'tune'"),
        ("per_class = [5, 10]|per_class = []", "row shallow.*an empty list"),
        ("per_class = [5, 10]|per_class = [5, 5]", "two rows are the same run"),
        ("[data]|[data", "the plan cannot be read"),
        ("per_class = [5, 10]|epochs = 3", "row shallow.*--epochs. does nothing"),
        ("per_class = [5, 10]|per_class = 'all'", "row shallow.*per_class cannot be 'all'"),
        ("per_class = [5, 10]|small = {epoch = 3}", "row shallow.*did you mean 'epochs'"),
        ("test = 0.3|test = [0.3, 0.4]", "test cannot be.*it is a number"),
        ("test = 0.3|folds = '5'", "folds cannot be '5'.*it is a whole number"),
        ("test = 0.3|seed = []", "an empty list"),
        ("seed = [0, 1]|seed = 'first'", "seed cannot be 'first'.*it is a whole number"),
        ('title = "Flowers"|title = 3', "title cannot be 3.*it is a text"),
        ("[data]|[[data]]", "data cannot be.*it is a table"),
    ],
)
def test_a_mistake_names_the_plan_the_row_and_what_was_meant(tmp_path, change, said):
    before, after = change.split("|")

    with pytest.raises(UsageError, match=said) as caught:
        read_plan(written(tmp_path, PLAN.replace(before, after, 1)))

    assert "plan.toml" in str(caught.value)


@pytest.mark.parametrize("rows", [3, ["knn"], []])
def test_what_is_no_list_of_tables_is_no_rows(rows):
    with pytest.raises(UsageError, match="row"):
        plan_from({"data": {"source": "p"}, "rows": rows})


def test_rows_without_a_description_are_told_apart_by_what_their_lists_vary():
    row = {"strategy": "frozen", "lr": [0.1, 0.01], "augment": ["none", "standard"]}

    plan = plan_from({"data": {"source": "p"}, "rows": [row]})

    assert [row.description for row in plan.rows] == [
        "efficientnet_lite0 + frozen (linear), lr 0.1",
        "efficientnet_lite0 + frozen (linear), augment standard, lr 0.1",
        "efficientnet_lite0 + frozen (linear), lr 0.01",
        "efficientnet_lite0 + frozen (linear), augment standard, lr 0.01",
    ]


def test_two_rows_with_one_description_are_refused():
    rows = [{"strategy": "frozen", "epochs": 5}, {"strategy": "frozen", "epochs": 9}]

    with pytest.raises(UsageError, match="two rows have the same description"):
        plan_from({"data": {"source": "p"}, "rows": rows})


def test_a_row_cannot_start_from_several():
    rows = [
        {"id": "head", "strategy": "frozen", "lr": [0.1, 0.01]},
        {"strategy": "fine_tune", "start": "head"},
    ]

    with pytest.raises(UsageError, match="'head' to start from stands for several rows"):
        plan_from({"data": {"source": "p"}, "rows": rows})


def test_a_plan_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UsageError, match="no such plan"):
        read_plan(tmp_path / "nothing.toml")


def test_a_run_of_an_older_version_is_no_plan(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"format": "regraft-run"}))

    with pytest.raises(UsageError, match="it holds no plan"):
        read_plan(tmp_path / "run.json")


@given(
    st.lists(st.sampled_from(["knn", "logistic", "linear_svm"]), min_size=1, unique=True),
    st.lists(st.integers(1, 50), min_size=1, max_size=4, unique=True),
    st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
)
def test_every_combination_of_lists_is_one_run(classifiers, amounts, seeds):
    row = {"classifier": classifiers, "per_class": amounts, "seed": seeds}

    plan = plan_from({"data": {"source": "p"}, "rows": [row]})

    assert len(plan.rows) == len(classifiers) * len(amounts)
    found = {(r.row["classifier"], r.data_plan.per_class, r.options().seed) for r in plan.recipes()}
    assert found == {(c, a, s) for c in classifiers for a in amounts for s in seeds}
