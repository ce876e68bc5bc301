"""One run as plain values: what is read, what is refused, and what tells two of them apart."""

import dataclasses

import pytest

from regraft.backbones.spec import Preprocessing
from regraft.errors import UsageError
from regraft.experiment.config import (
    PANELS,
    DataConfig,
    MethodConfig,
    RunConfig,
    read_minutes,
    read_unfreeze,
)
from regraft.settings import field_help, from_json, to_json
from regraft.training.augment import AUGMENTATIONS, Augmentation
from regraft.training.heads import HEADS, LinearHead, MLPHead
from regraft.training.phases import Phase, fine_tune, from_scratch, frozen, two_stage
from regraft.training.regularize import Regularization


def of(**method):
    return RunConfig(DataConfig("flowers"), MethodConfig(**method))


def read(**method):
    """Return the method that JSON or TOML values describe."""
    return from_json(MethodConfig, method)


def test_tables_texts_and_values_are_one_configuration():
    value = MethodConfig(
        strategy="fine_tune",
        phases=[Phase(unfreeze=0.5, epochs=3)],
        head=MLPHead(widths=(256, 64)),
        augment=Augmentation(rotation=30, flip=True),
        regularize=Regularization(dropout=0.3),
        preprocessing=Preprocessing(size=64, resize=64),
        time_budget=1.5,
        arguments={"pad_type": "same"},
    )
    table = read(
        strategy="fine_tune",
        phases=[{"unfreeze": 0.5, "epochs": 3}],
        head={"kind": "mlp", "widths": [256, 64]},
        augment={"rotation": 30, "flip": True},
        regularize={"dropout": 0.3},
        preprocessing={"size": 64, "resize": 64},
        time_budget="90s",
        arguments={"pad_type": "same"},
    )
    text = dataclasses.replace(
        value, augment="rotation=30,flip=true", regularize="dropout=0.3", time_budget="1.5m"
    )

    assert value == table == text


def test_names_stay_names_and_none_is_nothing():
    method = MethodConfig(strategy="frozen", augment="standard", regularize="none", head="mlp_256")

    assert (method.augment, method.regularize, method.head) == ("standard", None, "mlp_256")
    assert read(preprocessing={}).preprocessing is None
    changed = MethodConfig(strategy="frozen", augment="standard,rotation=90").augment
    assert changed == dataclasses.replace(AUGMENTATIONS["standard"], rotation=90)


@pytest.mark.parametrize("strategy", [frozen, fine_tune, two_stage, from_scratch])
def test_a_strategy_without_options_is_that_of_the_library(strategy):
    assert MethodConfig(strategy=strategy.__name__).all_phases() == tuple(strategy())
    assert MethodConfig().all_phases() == ()


def test_options_of_a_strategy_change_its_phases():
    method = MethodConfig(strategy="two_stage", unfreeze="last:3", epochs=4, head_epochs=2, lr=0.1)

    first, second = method.all_phases()

    assert (first.epochs, second.epochs, second.lr) == (2, 4, 0.1)
    assert (second.unfreeze, second.unfreeze_last) == (0.0, 3)
    assert MethodConfig(strategy="frozen", phases=[Phase()]).all_phases() == (Phase(),)


@pytest.mark.parametrize(
    ("method", "spec"),
    [
        ({"weights": "random", "seed": 5}, (None, 5)),
        ({"strategy": "from_scratch", "seed": 5}, (None, 5)),
        ({"seed": 5}, ("default", 0)),
        ({"weights": "net.safetensors"}, ("net.safetensors", 0)),
    ],
)
def test_random_weights_are_drawn_from_the_seed_of_the_run(method, spec):
    made = MethodConfig(backbone="simple_cnn", **method).spec

    assert (made.weights, made.seed) == spec


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"backbon": "vgg16"}, "did you mean 'backbone'"),
        ({"strategy": "finetune"}, "strategy cannot be 'finetune'.*'frozen'"),
        ({"head": "mlp_256"}, "head does nothing .* features - .* frozen, .*, from_scratch"),
        ({"strategy": "frozen", "classifier": "knn"}, "classifier does nothing.*with features"),
        ({"strategy": "from_scratch", "unfreeze": 0.5}, "it goes with fine_tune, two_stage"),
        ({"strategy": "from_scratch", "start": "run"}, "start does nothing"),
        ({"strategy": "from_scratch", "weights": "net.pth"}, "random weights"),
        ({"strategy": "frozen", "phases": [{}], "epochs": 3}, "epochs does nothing beside phases"),
        (
            {"strategy": "from_scratch", "phases": [{}]},
            "trains the trunk, too, and its phases do not",
        ),
        ({"strategy": "fine_tune", "phases": [{}, {}]}, "and its phases do not"),
        ({"strategy": "frozen", "phases": [{"unfreeze_last": 1}]}, "trains the head alone"),
        ({"strategy": "frozen", "phases": [{"epoch": 3}]}, "did you mean 'epochs'"),
        ({"strategy": "frozen", "head": "mlp_513"}, "did you mean"),
        ({"strategy": "frozen", "head": {"kind": "mlp", "width": 3}}, "did you mean 'widths'"),
        ({"strategy": "frozen", "augment": "no such"}, "no such"),
        ({"strategy": "frozen", "regularize": {"drop": 3}}, "did you mean 'dropout'"),
        ({"strategy": "frozen", "time_budget": "soon"}, "not a time"),
        ({"strategy": "frozen", "time_budget": 0}, "time_budget cannot be 0"),
        ({"strategy": "frozen", "batch_size": 1}, "batch_size cannot be 1"),
        ({"strategy": "fine_tune", "unfreeze": "3"}, "last:3"),
        ({"per_class": 3, "size": 9}, "one of per_class, size and fraction"),
        ({"seed": 2**32}, "seed cannot be"),
        ({"seed": "1"}, "seed cannot be '1'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(method, said):
    with pytest.raises(UsageError, match=said):
        read(**method)


def test_what_a_run_is_called_or_keeps_does_not_change_what_it_computes():
    plain, named = of(classifier="knn"), of(classifier="knn", description="neighbours", id="k")

    assert plain.key == named.key == of(classifier="knn", cache=False, explain=False).key
    assert plain.link == f"run-{plain.key}"
    assert (plain.folder, named.folder) == (
        f"efficientnet-lite0-knn-{plain.key}",
        f"k-neighbours-{plain.key}",
    )


# Another value of each field: of one that every strategy or features alone have, of all others.
CHANGES = {
    **dict.fromkeys(("per_class", "size", "seed"), 3),
    "fraction": 0.5,
    "test_views": 10,
    "backbone": "vgg16",
    "weights": "random",
    "arguments": {"a": 1},
    "preprocessing": Preprocessing.tf(),
    "grid": {"C": [0.1, 1.0]},
    "scale": "none",
    "pooling": "flatten",
    "classifier": "knn",
    "strategy": "frozen",
    "engine": "torch",
    "precision": "bf16",
}
TRAINED = {
    **dict.fromkeys(("epochs", "head_epochs", "views", "batch_size", "time_budget"), 3),
    "unfreeze": 0.25,
    "phases": [Phase(unfreeze=1.0, epochs=2)],
    "optimizer": "sgd",
    "lr": 0.1,
    "head": LinearHead(dropout=0.5),
    "augment": "standard",
    "regularize": "standard",
    **dict.fromkeys(("class_weight", "sampling"), "balanced"),
    "focal": 2.0,
    "patience": 3,
    "watch": "val_loss",
    "output": "sigmoid",
    "start": "run",
    "boundary": "off",
    "device": "cpu",
}


@pytest.mark.parametrize("name", [*CHANGES, *TRAINED])
def test_whatever_changes_the_result_changes_the_key_and_is_read_back(name):
    base = {"strategy": "two_stage"} if name in TRAINED else {}

    changed = of(**base, **{name: {**CHANGES, **TRAINED}[name]})

    assert changed.key != of(**base).key
    assert from_json(RunConfig, to_json(changed)) == changed


def test_patience_and_what_is_watched_hold_for_every_phase():
    method = MethodConfig(strategy="two_stage", unfreeze=0.25, patience=4, watch="val_loss")

    phases = method.all_phases()

    assert [(p.patience, p.watch) for p in phases] == [(4, "val_loss")] * 2
    assert [p.unfreeze for p in phases] == [0.0, 0.25]
    with pytest.raises(UsageError, match="patience does nothing beside phases"):
        MethodConfig(strategy="frozen", phases=[Phase()], patience=4)


def test_every_field_has_a_default_key_help_and_panel():
    told = {field.name for field in dataclasses.fields(MethodConfig)}
    data = {field.name for field in dataclasses.fields(DataConfig)}
    options = {name for names in PANELS.values() for name in names}

    shown = {"id", "description", "published", "cache", "explain"}
    assert told == {*CHANGES, *TRAINED, *shown, "at_most"}
    assert told <= set(field_help(MethodConfig))
    assert data <= set(field_help(DataConfig))
    assert options < told | data
    assert (told | data) - options == {
        *("id", "published", "preprocessing", "grid", "phases", "source")
    }


def test_the_seed_of_the_split_changes_the_key_and_not_the_images():
    data = [DataConfig("p", seed=seed, skip_bad=bad) for seed, bad in ((0, False), (1, True))]

    assert RunConfig(data[0]).key != RunConfig(data[1]).key
    same = DataConfig("p", skip_bad=True)
    assert same.split_key == data[0].split_key != data[1].split_key
    assert same.images_key == data[1].images_key != data[0].images_key


def test_paths_hold_wherever_a_command_is_run(tmp_path):
    (tmp_path / "net.safetensors").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "default").mkdir()
    data = DataConfig("flowers", root="../up")

    there = RunConfig(data, MethodConfig(strategy="frozen", weights="net.safetensors", start="run"))
    found = there.absolute(tmp_path)

    assert (found.data.source, found.data.root) == (tmp_path / "flowers", tmp_path.parent / "up")
    assert found.method.weights == str(tmp_path / "net.safetensors")
    assert found.method.start == tmp_path / "run"
    assert found.absolute("/elsewhere") == found
    word = MethodConfig(strategy="frozen", start="head").absolute(tmp_path)
    assert (word.weights, str(word.start)) == ("default", "head")


@pytest.mark.parametrize(
    ("method", "title"),
    [
        ({"classifier": "knn", "per_class": 9}, "vgg16 + knn, 9 per class"),
        ({"strategy": "frozen"}, "vgg16 + frozen (linear)"),
        ({"strategy": "frozen", "head": HEADS["mlp_256"]}, "vgg16 + frozen (mlp_256)"),
        (
            {"strategy": "frozen", "head": MLPHead(widths=(256, 64), dropout=0.5)},
            "vgg16 + frozen (mlp 256-64 dropout=0.5)",
        ),
        (
            {"strategy": "fine_tune", "unfreeze": "0.5", "augment": "zoom=0.2,flip=true"},
            "vgg16 + fine_tune (linear), unfreeze 0.5, augment zoom=0.2,flip=true",
        ),
        ({"description": "mine"}, "mine"),
    ],
)
def test_the_title_tells_methods_apart(method, title):
    assert MethodConfig(backbone="vgg16", **method).title == title


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("0", {"unfreeze": 0.0}),
        (1, {"unfreeze": 1.0}),
        ("last:0", {"unfreeze_last": 0}),
        ("/features[.]2./", {"unfreeze_matching": "features[.]2."}),
        ("layer4", {"unfreeze_from": "layer4"}),
    ],
)
def test_what_to_train_is_read_from_one_text(text, fields):
    assert read_unfreeze(text) == fields


@pytest.mark.parametrize("text", ["", "2", "-0.5", "nan", "last:", "last:-1", "last:two"])
def test_what_to_train_may_be_unreadable(text):
    with pytest.raises(UsageError, match="last:3"):
        read_unfreeze(text)


@pytest.mark.parametrize(
    ("text", "minutes"), [("5", 5), (" 5m ", 5), ("5 min", 5), ("0.5h", 30), ("30s", 0.5)]
)
def test_times_are_read_with_their_units(text, minutes):
    assert read_minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "0", "-1", "1d", "h", "1e3"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UsageError, match="not a time"):
        read_minutes(text)


def test_parts_are_shares_or_whole_numbers_of_each_class():
    assert (DataConfig("x", val=50, test=50).test, DataConfig("x", val=0.2).val) == (50, 0.2)
    with pytest.raises(UsageError, match="whole number of each class"):
        DataConfig("x", val=1.5)


def test_at_most_stands_in_the_title_and_goes_with_per_class():
    assert MethodConfig(per_class=100, at_most=True).title.endswith(", at most 100 per class")
    with pytest.raises(UsageError, match="at_most does nothing without per_class"):
        MethodConfig(at_most=True)
