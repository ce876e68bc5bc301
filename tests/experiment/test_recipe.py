"""One run as plain values: what is read, what is refused, and what tells two of them apart."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from regraft.experiment.recipe import ROW_KEYS, Recipe, absolute_paths

from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.errors import UsageError
from regraft.experiment.plan import plan_from
from regraft.training.augment import Augmentation
from regraft.training.heads import HEADS
from regraft.training.phases import Phase

DATA = {"source": "flowers"}


def test_a_recipe_without_a_strategy_is_a_classifier_on_features():
    learner = Recipe(DATA, {"backbone": "vgg16", "classifier": "knn", "seed": 3}).learner()

    assert isinstance(learner, FeatureClassifier)
    assert (learner.backbone.name, learner.classifier, learner.seed) == ("vgg16", "knn", 3)


def test_tables_become_the_values_that_python_has():
    row = {
        "backbone": "vgg16",
        "strategy": "fine_tune",
        "phases": [{"unfreeze": 0.5, "epochs": 3, "optimizer": "sgd", "lr": 0.01}],
        "head": {"kind": "mlp", "widths": [512, 512]},
        "augment": {"rotation": 30, "flip": True},
        "regularize": {"dropout": 0.3},
    }

    learner = Recipe(DATA, row).learner()

    assert isinstance(learner, NetworkClassifier)
    assert learner.phases == [Phase(unfreeze=0.5, epochs=3, optimizer="sgd", lr=0.01)]
    assert learner.head.widths == HEADS["mlp_512_512"].widths
    assert learner.augment == Augmentation(rotation=30, flip=True)
    assert learner.regularize.dropout == 0.3


def test_random_weights_are_drawn_from_the_seed_of_the_run():
    spec = Recipe(DATA, {"backbone": "simple_cnn", "weights": "random", "seed": 5}).backbone

    assert (spec.weights, spec.seed) == (None, 5)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"backbon": "vgg16"}, "did you mean 'backbone'"),
        ({"strategy": "finetune"}, "unknown strategy 'finetune'"),
        ({"strategy": "frozen", "classifier": "knn"}, r"\(--classifier\) does nothing"),
        ({"strategy": "frozen", "phases": [{}], "epochs": 3}, "epochs does nothing beside phases"),
        ({"strategy": "frozen", "phases": [{"epoch": 3}]}, "unexpected keyword argument 'epoch'"),
    ],
)
def test_what_nobody_reads_is_refused(row, said):
    with pytest.raises(UsageError, match=said):
        Recipe(DATA, row).learner()


def test_pictures_must_be_named():
    with pytest.raises(UsageError, match="no pictures are named"):
        Recipe({}, {})


def test_what_a_recipe_is_called_does_not_change_what_it_computes():
    plain = Recipe(DATA, {"classifier": "knn"})
    named = Recipe(DATA, {"classifier": "knn", "description": "nearest neighbours", "id": "k"})

    assert plain.digest == named.digest
    assert plain.folder != named.folder


NUMBERS = {"per_class", "size", "fraction", "epochs", "head_epochs", "lr", "views", "batch_size"}
TABLES = {"arguments", "preprocessing"}


def a_value(key):
    """Return a strategy for values of a key that are not the ones of a plain row."""
    if key in NUMBERS | {"seed"}:
        return st.integers(1, 99)
    if key in TABLES:
        return st.dictionaries(st.text("abc", min_size=1), st.integers(), min_size=1)
    if key == "phases":
        return st.just([{"epochs": 2}])
    return st.just("frozen") if key == "strategy" else st.text("abc", min_size=1)


@given(st.sampled_from([key for key in ROW_KEYS if key not in {"published", "cache"}]), st.data())
def test_whatever_changes_the_result_changes_the_digest(key, data):
    base = {"strategy": "features", "seed": 0}
    value = data.draw(a_value(key))

    same = Recipe(DATA, base).digest == Recipe(DATA, {**base, key: value}).digest

    assert same == (key in {"id", "description"})


def test_the_plan_of_a_recipe_is_the_recipe_again_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "net.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    recipe = Recipe(DATA, {"weights": "net.safetensors", "per_class": 10})

    (again,) = plan_from(recipe.plan, base=Path("/elsewhere")).recipes()

    assert again.data_plan.source == str(tmp_path / "flowers")
    assert again.data_plan.per_class == 10
    assert again.backbone.weights == str(tmp_path / "net.safetensors")


def test_weights_that_are_no_file_stay_a_name(tmp_path):
    assert absolute_paths({"weights": "default"}, tmp_path) == {"weights": "default"}


def test_options_of_a_command_are_kept_where_they_differ_from_the_defaults():
    given = {"source": Path("flowers"), "val": 0.15, "test": 0.3, "seed": 0, "lr": None, "junk": 1}

    recipe = Recipe.of({**given, "strategy": "frozen", "epochs": 3})

    assert recipe.data == {"source": Path("flowers"), "test": 0.3}
    assert recipe.row == {"strategy": "frozen", "epochs": 3}


def test_a_fit_of_the_first_fold_is_a_plan_of_that_fold_alone():
    recipe = Recipe.of({"source": "pictures", "folds": 5, "fold": 0})

    assert recipe.plan["data"]["fold"] == 0


def test_a_folder_that_is_called_like_a_word_is_no_weights(tmp_path):
    (tmp_path / "default").mkdir()

    assert absolute_paths({"weights": "default"}, tmp_path) == {"weights": "default"}
