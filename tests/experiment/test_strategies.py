"""From options to learners: what each strategy takes, and what is refused before any work."""

from pathlib import Path

import pytest
from regraft.experiment.strategies import LearnerOptions, build_learner, read_minutes, read_unfreeze

from regraft.backbones.spec import BackboneSpec
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.errors import UsageError
from regraft.training.phases import fine_tune, from_scratch, frozen, two_stage

SPEC = BackboneSpec("vgg16")


def built(**options):
    return build_learner(SPEC, LearnerOptions(**options))


def test_without_a_strategy_a_classifier_learns_from_features():
    learner = built(classifier="knn", pooling="flatten", cache=False, seed=3)

    assert isinstance(learner, FeatureClassifier)
    assert (learner.classifier, learner.pooling, learner.compute.cache, learner.seed) == (
        "knn",
        "flatten",
        None,
        3,
    )
    assert built().get_params() == FeatureClassifier(SPEC).get_params()


@pytest.mark.parametrize(
    ("strategy", "phases"),
    [("frozen", frozen()), ("fine_tune", fine_tune()), ("two_stage", two_stage())],
)
def test_a_strategy_without_options_is_that_of_the_library(strategy, phases):
    learner = built(strategy=strategy)

    assert isinstance(learner, NetworkClassifier)
    assert learner.get_params() == NetworkClassifier(SPEC, phases=phases).get_params()


def test_from_scratch_begins_with_random_weights_of_the_seed():
    learner = built(strategy="from_scratch", epochs=60, lr=0.002, optimizer="adam", seed=7)

    assert learner.backbone == BackboneSpec("vgg16", weights=None, seed=7)
    assert learner.phases == from_scratch(60, lr=0.002, optimizer="adam")


def test_options_reach_the_learner():
    learner = built(
        strategy="two_stage",
        unfreeze="last:3",
        head="mlp_512_512",
        epochs=4,
        head_epochs=2,
        augment="flip=true",
        regularize="label_smoothing=0.1",
        views=8,
        batch_size=16,
        class_weight="balanced",
        output="sigmoid",
        start=Path("run"),
        time_budget="2h",
        device="cpu",
        tensorboard=Path("events"),
        engine="torch",
        precision="bf16",
    )

    assert [(p.epochs, p.unfreeze, p.unfreeze_last) for p in learner.phases] == [
        (2, 0.0, None),
        (4, 0.0, 3),
    ]
    assert (learner.head, learner.augment, learner.regularize, learner.views) == (
        "mlp_512_512",
        "flip=true",
        "label_smoothing=0.1",
        8,
    )
    assert (learner.batch_size, learner.class_weight, learner.output) == (16, "balanced", "sigmoid")
    assert (learner.start, learner.time_budget, learner.compute.device) == (
        Path("run"),
        120.0,
        "cpu",
    )
    assert (learner.compute.engine, learner.compute.precision) == ("torch", "bf16")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epochs": 3}, "epochs (--epochs) does nothing with the strategy features"),
        ({"head": "linear"}, "frozen, fine_tune, two_stage or from_scratch"),
        ({"resume": True}, "resume (--resume) does nothing with the strategy features"),
        ({"strategy": "two_stage", "classifier": "knn"}, "it goes with features"),
        ({"strategy": "fine_tune", "pooling": "flatten"}, "(--pooling) does nothing"),
        ({"strategy": "frozen", "unfreeze": "0.5"}, "fine_tune or two_stage"),
        ({"strategy": "from_scratch", "unfreeze": "0.5"}, "(--unfreeze) does nothing"),
        ({"strategy": "fine_tune", "head_epochs": 3}, "(--head-epochs) does nothing"),
        ({"strategy": "from_scratch", "start": Path("run")}, "start (--from) does nothing"),
        ({"strategy": "frozen", "head": "mlp_513"}, "did you mean"),
        ({"strategy": "frozen", "augment": "no such"}, "no such"),
        ({"strategy": "frozen", "regularize": "no such"}, "no such"),
        ({"strategy": "frozen", "time_budget": "soon"}, "not a time"),
        ({"strategy": "fine_tune", "unfreeze": "3"}, "last:3"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_a_sentence(options, said):
    with pytest.raises(UsageError) as caught:
        built(**options)

    assert said in str(caught.value)


def test_weights_make_no_sense_from_scratch():
    spec = BackboneSpec("vgg16", weights="net.safetensors")

    with pytest.raises(UsageError, match="random weights"):
        build_learner(spec, LearnerOptions(strategy="from_scratch"))


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("0", {"unfreeze": 0.0}),
        ("1", {"unfreeze": 1.0}),
        (".25", {"unfreeze": 0.25}),
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


@pytest.mark.parametrize("text", ["", "0", "-1", "1d", "h", "1e3", "nan"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UsageError, match="not a time"):
        read_minutes(text)
