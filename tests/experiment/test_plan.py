"""Plans: lists become runs, repeats stay together, and mistakes name the row."""

import dataclasses
import json

import pytest

from regraft.backbones.spec import Preprocessing
from regraft.errors import UsageError
from regraft.experiment.config import DataConfig, MethodConfig, RunConfig
from regraft.experiment.plan import plan_from, read_plan
from regraft.settings import to_json

PLAN = """
title = "Flowers"
[data]
source = "images"
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


def plan_of(*rows, **data):
    return plan_from({"data": {"source": "p", **data}, "rows": list(rows)})


def test_lists_stand_for_one_row_each_and_seeds_for_repeats(tmp_path):
    plan = read_plan(written(tmp_path))

    assert [(row.description, len(row.configs)) for row in plan.rows] == [
        ("simple_cnn + knn, 5 per class", 2),
        ("simple_cnn + knn, 10 per class", 2),
        ("simple_cnn + logistic, 5 per class", 2),
        ("simple_cnn + logistic, 10 per class", 2),
        ("a new head", 2),
        ("simple_cnn + fine_tune (linear)", 2),
    ]
    assert len({config.folder for config in plan.configs()}) == 12
    assert plan.rows[4].published == {"test": 0.75, "note": "another split"}


def test_the_images_lie_where_the_plan_says(tmp_path):
    assert read_plan(written(tmp_path)).configs()[0].data.source == tmp_path / "images"
    moved = read_plan(written(tmp_path), data=[str(tmp_path / "moved")])
    assert moved.configs()[0].data.source == tmp_path / "moved"


def test_paths_in_a_list_begin_in_the_folder_of_the_plan_too(tmp_path):
    (tmp_path / "one.safetensors").touch()
    (tmp_path / "two.safetensors").touch()
    (tmp_path / "run").mkdir()
    row = {"strategy": "fine_tune", "weights": ["one.safetensors", "two.safetensors", "default"]}
    values = {"data": {"source": "p"}, "rows": [{**row, "start": ["run"]}]}

    plan = plan_from(values, base=tmp_path)

    files = [str(tmp_path / name) for name in ("one.safetensors", "two.safetensors")]
    assert [config.method.weights for config in plan.configs()] == [*files, "default"]
    assert {config.method.start for config in plan.configs()} == {tmp_path / "run"}
    assert "weights one.safetensors" in plan.rows[0].description


def test_a_grid_of_heads_is_one_row_with_a_list_whose_rows_are_told_apart():
    sizes = [(size, share) for size in (64, 256) for share in (0, 0.5)]
    heads = [{"kind": "mlp", "widths": [size], "dropout": share} for size, share in sizes]
    normed = {"kind": "mlp", "widths": [64], "batch_norm": True}

    plain = plan_of({"strategy": "frozen", "head": [*heads, normed, "linear"]})
    named = plan_of({"description": "grid", "strategy": "frozen", "head": heads})

    labels = ["mlp 64", "mlp 64 dropout=0.5", "mlp 256", "mlp_256"]
    assert [row.description.partition("frozen ")[2] for row in plain.rows] == [
        f"({label})" for label in (*labels, "mlp 64 batch_norm=true", "linear")
    ]
    assert [row.description for row in named.rows] == [f"grid, head {label}" for label in labels]


def test_phases_are_a_list_by_themselves():
    phases = [{"epochs": 1}, {"unfreeze": 1, "epochs": 2}]

    (one,) = plan_of({"strategy": "two_stage", "phases": phases}).configs()
    two = plan_of({"strategy": "two_stage", "phases": [phases, phases[1:]]}).configs()

    assert [phase.epochs for phase in one.method.phases] == [1, 2]
    assert [len(config.method.phases) for config in two] == [2, 1]


def test_one_folder_cannot_stand_for_two_but_will_do_for_the_small_size(tmp_path):
    file = written(tmp_path, PLAN.replace('id = "head"', 'id = "head"\ndata = {source = "cats"}'))

    with pytest.raises(UsageError, match=r"one folder \(--data\) cannot.*cats, .*images"):
        read_plan(file, data=["mine"])
    small = read_plan(file, data=[str(tmp_path / "mine")], small=True)
    assert {config.data.source for config in small.configs()} == {tmp_path / "mine"}


@pytest.mark.parametrize("small", [False, True])
def test_each_folder_of_a_plan_can_be_given_by_its_name(tmp_path, small):
    file = written(tmp_path, PLAN.replace('id = "head"', 'id = "head"\ndata = {source = "cats"}'))

    plan = read_plan(file, data=["/mine", "cats=/a=b"], small=small)

    assert [str(row.configs[0].data.source) for row in plan.rows[3:]] == ["/mine", "/a=b", "/mine"]
    with pytest.raises(UsageError, match=r"no folder 'dogs'.*its images are cats, images"):
        read_plan(file, data=["dogs=/mine"])


def test_a_repeat_starts_from_the_repeat_with_its_own_seed(tmp_path):
    *_, head, on = read_plan(written(tmp_path)).rows

    assert [str(config.method.start) for config in on.configs] == [c.link for c in head.configs]


@pytest.mark.parametrize("data", [{"folds": 3}, {"seed": [0, 1]}, {"test": 0.4}])
def test_a_row_cannot_start_from_a_run_on_another_split(data):
    rows = [
        {"id": "head", "strategy": "frozen"},
        {"id": "on", "strategy": "fine_tune", "start": "head", "data": data},
    ]

    with pytest.raises(UsageError, match=r"nothing to start from on this split.*is not measured"):
        plan_of(*rows)


def test_a_row_starts_on_its_own_split_and_from_other_images_whatever_their_split():
    rows = [
        {"id": "head", "strategy": "frozen", "epochs": 1, "seed": [0, 1], "description": "head"},
        {"id": "seeds", "strategy": "fine_tune", "start": "head", "seed": [1, 2]},
        {"id": "lenient", "strategy": "two_stage", "start": "head", "data": {"skip_bad": True}},
        {"id": "cats", "strategy": "frozen", "start": "head", "data": {"source": "c", "val": 0}},
    ]

    head, seeds, lenient, cats = plan_of(*rows).rows

    first, second = (config.link for config in head.configs)
    assert [str(config.method.start) for config in seeds.configs] == [second, first]
    assert {str(row.configs[0].method.start) for row in (lenient, cats)} == {first}


def test_a_row_cannot_start_from_several():
    head = {"id": "head", "strategy": "frozen", "lr": [0.1, 0.01]}

    with pytest.raises(UsageError, match="'head' to start from stands for several rows"):
        plan_of(head, {"strategy": "fine_tune", "start": "head"})


def test_rows_can_be_chosen_and_bring_what_they_start_from(tmp_path):
    plan = read_plan(written(tmp_path))

    assert [row.id for row in plan.only(["on"]).rows] == ["head", "on"]
    assert len(plan.only(["shallow"]).rows) == 4
    with pytest.raises(UsageError, match=r"no row 'onn'.*there are shallow, head, on"):
        plan.only(["onn"])


def test_several_splits_and_folds_are_repeats():
    splits, folds = plan_of({}, seed=[0, 1, 2]), plan_of({}, folds=3)

    assert [config.data.seed for config in splits.configs()] == [0, 1, 2]
    assert [config.data.fold for config in folds.configs()] == [0, 1, 2]
    assert len(splits.rows) == len(folds.rows) == 1
    assert [config.data.fold for config in plan_of({}, folds=3, fold=1).configs()] == [1]


def test_a_run_is_a_plan_of_itself_alone_from_anywhere(tmp_path):
    method = MethodConfig(strategy="frozen", per_class=5, head="mlp_256", description="mine")
    config = RunConfig(DataConfig("flowers", folds=3, fold=1), method).absolute()
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"config": to_json(config)}))

    (row,) = read_plan(file).rows
    (moved,) = read_plan(file, data=[str(tmp_path)]).configs()

    assert (row.description, row.configs) == ("mine", (config,))
    assert moved == dataclasses.replace(
        config, data=dataclasses.replace(config.data, source=tmp_path)
    )
    with pytest.raises(UsageError, match="no small size"):
        read_plan(file, small=True)


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"config": {"data": {}}}'])
def test_what_is_no_run_is_no_plan(tmp_path, text):
    (tmp_path / "run.json").write_text(text)

    with pytest.raises(UsageError, match=r"plan|missing"):
        read_plan(tmp_path / "run.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('title = "Flowers"|titel = "Flowers"', "unknown key 'titel'.*did you mean 'title'"),
        ("test = 0.3|tset = 0.3", "unknown key 'tset'.*did you mean 'test'"),
        ('strategy = "frozen"|stragety = "frozen"', "row head.*did you mean 'strategy'"),
        ('strategy = "fine_tune"|strategy = "tune"', "row on.*strategy cannot be 'tune'"),
        ("per_class = [5, 10]|per_class = []", "row shallow.*an empty list"),
        ("per_class = [5, 10]|per_class = [5, 5]", "two rows are the same run"),
        ("[data]|[data", "the file is not TOML"),
        ("per_class = [5, 10]|small = {epoch = 3}", "row shallow.*did you mean 'epochs'"),
        ("per_class = [5, 10]|small = 3", "row shallow.*small cannot be 3.*table"),
        ("[small.row]\nseed = 0|[small.row]\nsed = 0", "did you mean 'seed'"),
        ("test = 0.3|test = [0.3, 0.4]", "test cannot be.*a valid number"),
        ("test = 0.3|seed = []", "an empty list"),
        ("[data]|[[data]]", "data cannot be"),
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
    plan = plan_of({"strategy": "frozen", "lr": [0.1, 0.01], "augment": ["none", "standard"]})

    assert [row.description for row in plan.rows] == [
        "efficientnet_lite0 + frozen (linear), lr 0.1",
        "efficientnet_lite0 + frozen (linear), augment standard, lr 0.1",
        "efficientnet_lite0 + frozen (linear), lr 0.01",
        "efficientnet_lite0 + frozen (linear), augment standard, lr 0.01",
    ]
    named = plan_of({"description": "mine", "classifier": ["knn", "logistic"]})
    assert [row.description for row in named.rows] == [
        "mine, classifier knn",
        "mine, classifier logistic",
    ]


# ---- the small size

LITTLE = {"backbone": "efficientnet_lite0", "size": 64, "stages": {"features.17": "blocks.4.0"}}
WRONG = dataclasses.replace(
    Preprocessing.tf(224, channels="BGR", interpolation="nearest"), resize=256
)


def small_of(given, **small):
    """Return the one run of a plan at its small size."""
    values = {"data": {"source": "p"}, "rows": [given], "small": small}
    (config,) = plan_from(values, small=True).configs()
    return config.method


def test_the_small_size_says_what_is_run_and_not_what_is_stood_in_for(tmp_path):
    stand_in = {"backbones": {"simple_cnn": LITTLE}, "row": {"per_class": 3, "seed": 0}}
    values = {"data": {"source": "p"}, "title": "VGG16", "note": "mine", "small": stand_in}
    row = {"id": "1", "description": "simple_cnn, 900 images", "backbone": "simple_cnn"}
    values["rows"] = [{**row, "size": 900, "classifier": ["knn", "logistic"], "seed": [0, 1]}]

    small, whole = plan_from(values, small=True), plan_from(values)

    assert [row.description for row in small.rows] == [
        "1: efficientnet_lite0 + knn, 3 per class",
        "1: efficientnet_lite0 + logistic, 3 per class",
    ]
    assert (whole.title, small.title, whole.note) == ("VGG16", "VGG16, small size", "mine")
    said = "mine; this is the small size, efficientnet_lite0 at 64 pixels for simple_cnn:"
    assert small.note.startswith(said)
    with pytest.raises(UsageError, match="the plan has no small size"):
        plan_from({"data": {"source": "p"}}, small=True)


def test_another_network_stands_in_with_its_own_stages_and_size():
    row = {
        "backbone": "vgg16",
        "weights": "some.safetensors",
        "strategy": "fine_tune",
        "phases": [{"unfreeze_from": "features.17"}, {"unfreeze_from": "features.24"}],
    }

    method = small_of(row, backbones={"vgg16": LITTLE})

    assert (method.backbone, method.weights) == ("efficientnet_lite0", "default")
    assert method.arguments == {"size": 64}
    assert [phase.unfreeze_from for phase in method.phases] == ["blocks.4.0", "features.24"]
    assert (
        small_of({"backbone": "vgg16", "weights": "random"}, backbones={"vgg16": LITTLE}).weights
        == "random"
    )


def test_a_wrong_preprocessing_stays_wrong_at_the_size_of_the_stand_in():
    row = {"backbone": "vgg16", "preprocessing": to_json(WRONG)}

    preprocessing = small_of(row, backbones={"vgg16": LITTLE}).preprocessing

    assert (preprocessing.size, preprocessing.resize) == (64, 73)
    assert (preprocessing.channels, preprocessing.interpolation) == ("BGR", "nearest")


@pytest.mark.parametrize(("most", "asked", "steps"), [(2, 5, None), (5, 2, 9), (3, 0, 1)])
def test_epochs_and_steps_are_never_more_than_allowed_nor_more_than_asked_for(most, asked, steps):
    phase = {"epochs": asked} | ({} if steps is None else {"steps": steps})

    first, second = small_of(
        {"strategy": "frozen", "phases": [phase, {}]}, epochs=most, steps=most
    ).phases

    assert first.epochs == min(asked, most)
    assert first.steps == (most if steps is None else min(steps, most))
    assert second.epochs == most


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"strategy": "frozen"}, [2]),
        ({"strategy": "frozen", "epochs": 1}, [1]),
        ({"strategy": "frozen", "epochs": 0}, [0]),
        ({"strategy": "two_stage", "epochs": 9}, [2, 2]),
        ({"strategy": "two_stage", "head_epochs": 1}, [1, 2]),
        ({"classifier": "knn"}, []),
    ],
)
def test_strategies_without_phases_are_short_too(row, expected):
    assert [phase.epochs for phase in small_of(row, epochs=2).all_phases()] == expected


def test_a_row_learns_from_the_amount_of_its_small_size_alone():
    given_row = {"strategy": "frozen", "size": 3917, "small": {"per_class": 4}}

    method = small_of(given_row, row={"batch_size": 4})

    assert (method.per_class, method.size, method.batch_size) == (4, None, 4)


def test_images_of_a_row_give_way_to_those_of_the_small_size_and_of_the_command():
    values = {
        "data": {"source": "chests", "test": 0.3},
        "rows": [{"data": {"source": "cats", "val": 0.4}}, {"classifier": "knn"}],
        "small": {"data": {"test": 0.25}},
    }

    whole = [config.data for config in plan_from(values).configs()]
    small = [config.data for config in plan_from(values, small=True, data=["/drawn"]).configs()]

    assert [(d.source.name, d.val, d.test) for d in whole] == [
        ("cats", 0.4, 0.3),
        ("chests", 0.15, 0.3),
    ]
    assert [(str(d.source), d.val, d.test) for d in small] == [
        ("/drawn", 0.4, 0.25),
        ("/drawn", 0.15, 0.25),
    ]


@pytest.mark.parametrize(
    ("small", "said"),
    [
        ({"epoch": 2}, "unknown key 'epoch' - did you mean 'epochs'"),
        ({"epochs": 0}, "epochs cannot be 0"),
        ({"backbones": {"vgg16": {"backbon": "x"}}}, "did you mean 'backbone'|backbone is missing"),
        ({"backbones": {"vgg16": 3}}, "cannot be 3"),
        ({"data": 3}, "data cannot be 3"),
    ],
)
def test_a_mistake_is_said_even_where_the_small_size_is_not_asked_for(small, said):
    with pytest.raises(UsageError, match=said):
        plan_from({"data": {"source": "p"}, "small": small})
