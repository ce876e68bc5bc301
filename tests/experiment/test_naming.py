import pytest
from regraft.experiment.naming import learner_name, plain, strategy_name

from regraft.backbones.spec import BackboneSpec
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.training.augment import Augmentation
from regraft.training.heads import MLPHead
from regraft.training.phases import Phase, fine_tune, from_scratch, frozen, two_stage

RANDOM = BackboneSpec("simple_cnn", weights=None)


@pytest.mark.parametrize(
    ("backbone", "changes", "name"),
    [
        ("vgg16", {}, "vgg16 + frozen (linear)"),
        ("vgg16", {"phases": fine_tune(), "head": "mlp_256"}, "vgg16 + fine_tune (mlp_256)"),
        (RANDOM, {"phases": from_scratch()}, "simple_cnn + from_scratch (linear)"),
        (RANDOM, {"phases": from_scratch(), "start": "run"}, "simple_cnn + fine_tune (linear)"),
        ("vgg16", {"head": MLPHead(widths=(7,))}, "vgg16 + frozen (MLPHead)"),
    ],
)
def test_a_network_is_named_after_backbone_strategy_and_head(backbone, changes, name):
    assert learner_name(NetworkClassifier(backbone, **changes)) == name


@pytest.mark.parametrize(
    ("phases", "name"),
    [
        (frozen(), "frozen"),
        (two_stage(), "two_stage"),
        ([Phase(unfreeze_last=2)], "fine_tune"),
        ([Phase(unfreeze_last=0)], "frozen"),
        ([Phase(), Phase(unfreeze_from="a"), Phase(unfreeze_matching="b")], "3 phases"),
        ([], "0 phases"),
    ],
)
def test_a_strategy_is_recognised_by_what_its_phases_train(phases, name):
    assert strategy_name(phases) == name


def test_every_parameter_has_a_plain_form():
    assert plain([Phase(epochs=3)])[0]["epochs"] == 3
    assert plain(Augmentation(flip=True))["flip"] is True
    assert plain(MLPHead(widths=(7,))) == {
        "kind": "MLPHead",
        "widths": [7],
        "pooling": "flatten",
        "activation": "relu",
        "dropout": 0.0,
        "batch_norm": False,
    }
