"""A training through its phases: interrupted anywhere it ends the same, and errors are told."""

import dataclasses
import json
import math

import numpy as np
import pytest

from regraft.backbones.backbone import build
from regraft.backbones.network import state_sha256
from regraft.backbones.spec import BackboneSpec, Compute
from regraft.data.images import Decoding
from regraft.errors import ImageError
from regraft.training import batches, loop, split_point
from regraft.training.augment import Augmentation
from regraft.training.batches import LabelledImages
from regraft.training.heads import LinearHead, MLPHead
from regraft.training.network import TransferNetwork
from regraft.training.phases import Phase, frozen, two_stage
from regraft.training.regularize import Regularization
from regraft.training.trainer import TrainingConfig, phase_warnings, resume_key
from samples import COLOURS, coloured_files, learner, refused, timeless

SPEC = BackboneSpec("test_resnet", weights=None, arguments=(("size", 32),))
DROPPING = MLPHead(widths=(8,), pooling="avg", dropout=0.5, batch_norm=True)
HALF = two_stage(2, head_epochs=2, unfreeze=0.5, lr=3e-3, head_lr=0.01)
WHOLE = two_stage(2, head_epochs=2, unfreeze=1.0, lr=3e-3, head_lr=0.01)


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    return coloured_files(tmp_path_factory.mktemp("train"), "train", 20)


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    return coloured_files(tmp_path_factory.mktemp("held"), "held", 9, seed=1)


def fit(train, held, folder=None, checkpoint_every=0, **changes):
    return learner(**{"backbone": SPEC, "phases": HALF, "head": DROPPING, **changes}).fit(
        train.paths,
        train.labels,
        validation=held,
        checkpoints=folder and folder / "checkpoints",
        checkpoint_every=checkpoint_every,
    )


class Killed(BaseException):
    """Nothing catches it."""


def killed(monkeypatch, train, held, folder, at, **changes):
    """Fit, and stop at a step as if the process was killed there."""
    taken, step = [], loop.take_step

    def dying(*arguments, **options):
        taken.append(arguments)
        if len(taken) == at:
            raise Killed
        return step(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "take_step", dying)
        with pytest.raises(Killed):
            fit(train, held, folder, **changes)


WAYS_TO_TRAIN = {
    "balanced classes": {"sampling": "balanced", "class_weight": "balanced"},
    "mixing and a focal loss": {"regularize": "mixing=mixup,label_smoothing=0.1", "focal": 2.0},
    "two views": {"augment": "standard", "views": 2},
    "two views of a trained trunk": {"augment": "standard", "views": 2, "phases": WHOLE},
    "a new part of each image in every epoch": {"augment": "standard,crop=40"},
    "clipping and patience": {
        "regularize": "clip=0.5",
        "phases": [
            Phase(epochs=4, schedule="cosine", optimizer="sgd", momentum=0.9),
            Phase(epochs=3, patience=2, watch="val_loss", unfreeze=0.5, optimizer="nadam"),
        ],
    },
    "batch statistics": {
        "phases": [Phase(epochs=2), Phase(epochs=2, unfreeze_last=1, batchnorm="batch_statistics")]
    },
    "nothing kept": {"boundary": "off", "precision": "bf16"},
}
RARER = {"two views", "batch statistics"}


@pytest.mark.parametrize(
    "way", [pytest.param(w, marks=[pytest.mark.slow] if w in RARER else []) for w in WAYS_TO_TRAIN]
)
def test_a_training_interrupted_in_each_phase_ends_with_the_same_bits(
    way, train, held, tmp_path, monkeypatch
):
    changes = WAYS_TO_TRAIN[way]
    if way == "balanced classes":
        train = train.take(range(14))
    whole = fit(train, held, **changes)

    for at in (5, 3, 2):
        killed(monkeypatch, train, held, tmp_path, at, **changes)
    resumed = fit(train, held, tmp_path, **changes)

    assert state_sha256(resumed.network_) == state_sha256(whole.network_)
    assert timeless(resumed.history_) == timeless(whole.history_)
    assert resumed.warnings_ == whole.warnings_
    assert resumed.backbone_.fingerprint == whole.backbone_.fingerprint


def test_a_phase_goes_on_as_it_began_whatever_half_trained_weights_threads_and_cache_say(
    train, held, tmp_path, monkeypatch
):
    whole = fit(train, held)
    killed(monkeypatch, train, held, tmp_path, 9)

    def other(*_arguments, **_options):
        raise AssertionError("it was chosen before")

    monkeypatch.setattr(split_point, "find_split_point", other)
    monkeypatch.setattr(batches, "threads", lambda: 5)
    resumed = fit(train, held, tmp_path, checkpoint_every=10, cache=None, verbose=True)

    assert resumed.warnings_ == ()
    assert resumed.history_["phases"][1]["mode"] == "cached"
    assert timeless(resumed.history_) == timeless(whole.history_)
    assert state_sha256(resumed.network_) == state_sha256(whole.network_)


@pytest.mark.parametrize("phases", [HALF, WHOLE, frozen(2)])
def test_a_training_killed_behind_its_last_step_has_only_the_end_left(
    phases, train, held, tmp_path, monkeypatch
):
    whole = fit(train, held, tmp_path, phases=phases)
    monkeypatch.setattr(loop, "take_step", None)

    again = fit(train, held, tmp_path, phases=phases)

    assert timeless(again.history_) == timeless(whole.history_)
    assert (again._predictor.cache is None) == (whole._predictor.cache is None)
    assert np.abs(again.predict_proba(held.paths) - whole.predict_proba(held.paths)).max() < 1e-6
    assert again.backbone_.fingerprint == whole.backbone_.fingerprint


def test_checkpoints_of_other_work_are_refused_with_what_differs(
    train, held, tmp_path, monkeypatch
):
    killed(monkeypatch, train, held, tmp_path, 3)
    other_labels = dataclasses.replace(train, labels=(*train.labels[1:], train.labels[0]))
    attempts = [
        (train, held, {"head": MLPHead(widths=(9,), pooling="avg")}, "head, weights"),
        (train, held, {"augment": "standard", "views": 2}, "augment, views"),
        (train.take([*range(1, 20), 0]), held, {}, "images"),
        (other_labels, held, {}, "images"),
        (train, held.take(range(8)), {}, "images"),
        (train, None, {}, "images"),
    ]

    for part, validation, changes, named in attempts:
        error = refused(fit, part, validation, tmp_path, **changes)
        assert (error.code, error.why) == ("TRAIN-RESUME", f"different: {named}")


def test_a_loss_that_is_no_number_is_said_with_its_place_and_the_last_good_checkpoint(
    train, held, tmp_path
):
    phases = [Phase(epochs=1), Phase(epochs=3, unfreeze=1.0, optimizer="sgd", lr=1e30)]

    error = refused(fit, train, held, tmp_path, phases=phases)

    last = max((tmp_path / "checkpoints").iterdir())
    assert error.code == "TRAIN-NAN"
    assert error.hint.endswith(f"the last good checkpoint is {last}")


@pytest.mark.parametrize("phases", [frozen(1), WHOLE[1:]], ids=["cached", "live"])
def test_a_image_that_a_thread_cannot_read_is_named(phases, train, held, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(train.paths[0].read_bytes()[:-40])

    error = refused(learner(phases=phases).fit, [*train.paths, broken], [*train.labels, "red"])

    assert isinstance(error, ImageError)
    assert error.path == str(broken)


def test_a_time_budget_that_is_spent_leaves_a_network_that_predicts(train, held):
    fitted = fit(train, held, time_budget=1e-9)

    assert [phase["stopped"] for phase in fitted.history_["phases"]] == ["time budget"] * 2
    assert fitted.history_["epochs"] == []
    assert fitted.warnings_[0] == "phase 1 was ended by the time budget after 0 epochs"
    assert fitted.predict_proba(held.paths).shape == (9, 3)


@pytest.mark.parametrize("epochs", [(0, 0), (0, 1), (1, 0)])
def test_phases_of_no_epochs_are_recorded_and_change_nothing(epochs, train, held, tmp_path):
    head, both = epochs
    phases = two_stage(both, head_epochs=head, unfreeze=0.5)

    fitted = fit(train, held, tmp_path, phases=phases)

    assert [phase["last_epoch"] for phase in fitted.history_["phases"]] == [head, both]
    assert len(fitted.history_["epochs"]) == head + both
    assert fitted.warnings_ == ()


# --- the configuration, and what of it a checkpoint is bound to


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("batch_size", value) for value in (1, 8.5, "8")),
        *(("seed", value) for value in (-1, 2**32, 1.5, None, True)),
        ("views", 0),
        ("sampling", "even"),
        ("time_budget", 0),
        ("focal", -0.5),
        *(("class_weight", {"red": value}) for value in (0.0, math.nan)),
    ],
)
def test_a_setting_out_of_range_is_refused_by_its_name(name, value):
    error = refused(TrainingConfig, augment=Augmentation(), **{name: value})

    assert f"{name} cannot be" in str(error)


# For each field a value other than its default; a new field needs one, or training would resume
# from the checkpoints of other work.
CHANGED = {
    "phases": (Phase(epochs=1),),
    "augment": Augmentation(flip=True),
    "views": 2,
    "regularize": Regularization(clip=1.0),
    "class_weight": {"red": np.float32(2.0)},
    "focal": 2.0,
    "sampling": "balanced",
    "output": "sigmoid",
    "batch_size": 16,
    "seed": 1,
    "time_budget": 1.0,
    "device": "cuda",
    "engine": "torch",
    "precision": "bf16",
    "cache": None,
    "boundary": "off",
    "decoding": Decoding(background=(0, 0, 0)),
}


def test_every_setting_is_part_of_the_resume_key_or_named_as_one_that_changes_no_result(train):
    of_training, of_compute = (
        {field.name for field in dataclasses.fields(kind)} for kind in (TrainingConfig, Compute)
    )
    assert set(CHANGED) == (of_training | of_compute) - {"compute"}
    backbone = build(SPEC)
    network = TransferNetwork(backbone, LinearHead(), outputs=3)
    part = LabelledImages(train.paths[:2], train.labels[:2], COLOURS, backbone=backbone)
    plain = {"augment": Augmentation()}

    def key(**changes):
        how = {name: changes.pop(name) for name in of_compute & changes.keys()}
        config = TrainingConfig(**{**plain, **changes}, compute=Compute(**how))
        found = resume_key(config, network, part, None)
        assert json.loads(json.dumps(found)) == found
        return found

    same = {name for name, value in CHANGED.items() if key(**{name: value}) == key()}

    assert same == {"time_budget", "device", "cache"}
    assert key(class_weight={"red": 2}) == key(class_weight={"red": np.float64(2.0)})


@pytest.mark.parametrize(
    ("changes", "classes", "said"),
    [
        ({}, ["a"], "two classes or more"),
        ({"views": 2}, ["a", "b"], "need an augmentation"),
        ({"output": "sigmoid"}, ["a", "b", "c"], "there are 3"),
        ({"phases": (Phase(patience=2),)}, ["a", "b"], "patience needs validation images"),
    ],
)
def test_data_that_does_not_fit_the_settings_is_refused(changes, classes, said):
    def check():
        TrainingConfig(**changes).check(classes, validation=False)

    assert said in str(refused(check))


# --- what went otherwise than one would expect


RECORD = {"phase": 1, "stopped": None, "last_epoch": 3, "share_of_stages": 0.5}
RECORD |= {"frozen": {"before": "ab", "after": "ab"}, "trained": {"batchnorm": "frozen"}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"trained": {"batchnorm": "frozen", "steps": 100}, "steps_per_epoch": 3}, "100 steps per"),
        ({"trained": {"batchnorm": "frozen", "steps": 3}, "steps_per_epoch": 3}, ""),
        ({"trained": {"batchnorm": "batch_statistics"}}, "frozen batch norm moved"),
        ({"trained": {"batchnorm": "batch_statistics"}, "share_of_stages": 1.0}, ""),
        ({"frozen": {"before": "ab", "after": "cd"}}, "frozen tensors have changed"),
        ({"stopped": "time budget"}, "was ended by the time budget after 3 epochs"),
    ],
)
def test_what_went_otherwise_than_one_expects_is_told(changes, said):
    found = phase_warnings({**RECORD, **changes}, batchnorm=True)

    assert len(found) == bool(said)
    assert said in "".join(found)
    if "batch_statistics" in str(changes):
        assert phase_warnings({**RECORD, **changes}, batchnorm=False) == []
