"""Activations are computed once and shared; both modes train and predict the same."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from regraft.backbones.backbone import build
from regraft.backbones.spec import BackboneSpec, Compute
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.data.images import Decoding
from regraft.settings import to_json
from regraft.training import activations as module
from regraft.training.activations import ActivationCache, ExecutionMode, Runtime, recall_mode
from regraft.training.augment import find_augmentation
from regraft.training.batches import AugmentedImages, Images
from regraft.training.heads import LinearHead, MLPHead
from regraft.training.network import TransferNetwork
from regraft.training.phases import Phase, two_stage
from regraft.training.split_point import named_split_point
from samples import COLOURS, SMALL, coloured, learner

NORMED = BackboneSpec("test_resnet", weights=None, arguments=(("size", 48),))
ONCE = [Phase(epochs=1)]
HALF = [Phase(unfreeze=0.5, epochs=1)]
QUICK = Phase(unfreeze=0.5, epochs=3, optimizer="sgd", lr=0.05, momentum=0.9)


LABELS = [COLOURS[i % 3] for i in range(10)]
IMAGES, OTHERS = coloured(LABELS, side=48), coloured(LABELS[:7], side=48, seed=1)


def open_cache(folder, stage=None, *, seed=0, **changes):
    backbone = build(replace(SMALL, seed=seed))
    network = TransferNetwork(backbone, LinearHead(), outputs=2)
    compute = Compute(**{"engine": "torch", "device": "cpu", "cache": folder, **changes})
    runtime = Runtime.prepare(network, backbone, compute)
    split_point = named_split_point(network, stage or network.stages[1].name)
    return ActivationCache(runtime, split_point)


EVERY = np.arange(10)


def test_rows_that_are_too_many_for_memory_are_read_from_disk(tmp_path, monkeypatch):
    kept = open_cache(tmp_path)
    held, computed_first = kept.plain(IMAGES)
    monkeypatch.setattr(module, "_IN_MEMORY", 0)

    read, computed = kept.plain(IMAGES)

    assert (computed_first, computed) == (10, 0)
    assert held._held is not None
    assert read._held is None
    asked, network = np.array([7, 0, 7, 3]), kept.runtime.network.eval()
    assert torch.equal(held.take(asked, 0), read.take(asked, 0))
    with torch.no_grad():
        exact = kept.split_point.before(network)(network.normalise(torch.tensor(np.stack(IMAGES))))
    assert torch.equal(held.take(EVERY, 0), exact)


@pytest.mark.parametrize(
    "changes",
    [{"stage": "features.0"}, {"precision": "bf16"}, {"decoding": Decoding((0, 0, 0))}],
    ids=str,
)
def test_what_shapes_a_row_is_part_of_its_key(tmp_path, changes, monkeypatch):
    monkeypatch.setattr(module, "has_bf16", lambda _device: True)
    open_cache(tmp_path).plain(IMAGES)

    _, again = open_cache(tmp_path).plain(IMAGES)
    _, other = open_cache(tmp_path, **changes).plain(IMAGES)

    assert again == 0
    assert other == 10


# --- views


def augmented(kept, views, seed=3, augment="standard"):
    plain = Images(IMAGES, kept.runtime.backbone.preprocessing)
    return AugmentedImages(plain, find_augmentation(augment), 48, seed=seed, views=views)


def about(seed=3, augment="standard"):
    return {"augment": to_json(find_augmentation(augment)), "seed": seed}


def test_views_are_those_of_live_augmentation_and_epochs_take_turns(tmp_path):
    kept = open_cache(tmp_path)
    live = augmented(kept, views=None)
    network = kept.runtime.network.eval()

    rows, computed = kept.views(augmented(kept, views=3), 3, about())

    assert (computed, len(rows)) == (30, 10)
    taken = [rows.take(EVERY, epoch) for epoch in range(7)]
    for view in range(3):
        with torch.no_grad():
            images = network.normalise(live.take(EVERY, view))
            wanted = kept.split_point.before(network)(images)
        assert torch.equal(taken[view], wanted)
        assert torch.equal(taken[view], taken[view + 3])
    assert torch.equal(taken[0], taken[6])
    rows = torch.cat(taken[:3])
    assert len(rows.unique(dim=0)) == len(rows)  # each view of each image is another


@pytest.mark.parametrize("changes", [{"seed": 4}, {"augment": "standard,flip=false"}], ids=str)
def test_views_of_another_seed_or_augmentation_are_others(tmp_path, changes):
    kept = open_cache(tmp_path)
    first, _ = kept.views(augmented(kept, views=1), 1, about())

    other, computed = kept.views(augmented(kept, views=1, **changes), 1, about(**changes))

    assert computed == 10
    assert not torch.equal(first.take(EVERY, 0), other.take(EVERY, 0))


# --- the learner


def fitted(**changes):
    return learner(**{"phases": [QUICK], **changes}).fit(IMAGES, LABELS)


def furthest(one, other):
    """Return the largest difference between the weights of two learners."""
    states = [learner.network_.state_dict().values() for learner in (one, other)]
    return max(float((a - b).abs().max()) for a, b in zip(*states, strict=True))


@pytest.mark.parametrize("head", ["linear", "mlp_256"])
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_the_first_learner_reads_what_the_second_has_computed_and_the_other_way_round(head, engine):
    pooling = "avg" if head == "linear" else "flatten"
    features = FeatureClassifier(
        SMALL, pooling=pooling, classifier="knn", compute=Compute(engine=engine)
    )
    second = learner(phases=ONCE, head=head, engine=engine)
    half = slice(0, 4)

    features.fit(IMAGES[half], LABELS[half])
    second.fit(IMAGES[half], LABELS[half])
    assert second.embedding_stats_.images == 4
    assert second.embedding_stats_.embedded == 0

    second.fit(IMAGES, LABELS)
    assert second.embedding_stats_.embedded == 6
    features.fit(IMAGES, LABELS)
    assert features.embedding_stats_.embedded == 0


@pytest.mark.parametrize(
    "changes",
    [{"phases": ONCE}, {"phases": HALF}, {"phases": HALF, "augment": "standard", "views": 2}],
    ids=str,
)
def test_a_second_fit_computes_nothing_where_the_cache_is_a_folder(tmp_path, changes):
    first, second = (fitted(cache=tmp_path, **changes) for _ in range(2))

    assert first.embedding_stats_.embedded == 10 * changes.get("views", 1)
    assert second.embedding_stats_.embedded == 0
    assert np.array_equal(first.predict_proba(OTHERS), second.predict_proba(OTHERS))
    second.predict_proba([*IMAGES, *OTHERS])  # plain images that a fit has seen do not pass again
    assert second.embedding_stats_.embedded == (10 if "views" in changes else 0)


@pytest.mark.parametrize(
    "changes", [{"phases": HALF}, {"phases": ONCE, "augment": "standard", "views": 2}], ids=str
)
def test_activations_that_serve_one_training_do_not_stay_in_the_common_cache(changes, private_home):
    fitted(**changes)

    assert not [path for path in private_home.rglob("*") if path.is_file()]


# --- cached and live training are the same training


@pytest.mark.parametrize(
    "changes",
    [
        {"phases": [Phase(epochs=3, lr=0.01)]},
        {"phases": [Phase(epochs=3, lr=0.01)], "head": "mlp_256"},
        {"phases": [QUICK], "head": MLPHead(widths=(8,), dropout=0.5, batch_norm=True)},
        {"phases": [QUICK], "augment": "standard", "views": 2},
        {"phases": [QUICK], "regularize": "clip=0.5,label_smoothing=0.1"},
        {"phases": two_stage(2, head_epochs=2, unfreeze=0.5, lr=1e-3)},
        {"phases": [QUICK], "sampling": "balanced", "class_weight": "balanced"},
        {"phases": [replace(QUICK, epochs=1)], "backbone": NORMED},
    ],
    ids=str,
)
def test_training_from_activations_ends_with_the_weights_of_training_live(changes):
    kept = fitted(**changes)
    live = fitted(boundary="off", **changes)

    assert {phase["mode"] for phase in kept.history_["phases"]} == {"cached"}
    assert {phase["mode"] for phase in live.history_["phases"]} == {"live"}
    assert furthest(kept, live) <= 1e-5
    start = fitted(**{**changes, "phases": []})
    assert furthest(kept, start) > 1e-3  # something was learned
    assert np.abs(kept.predict_proba(OTHERS) - live.predict_proba(OTHERS)).max() <= 1e-5


# --- live, and why


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"boundary": "off"}, "no activations were to be kept"),
        ({"phases": [Phase(unfreeze=1.0, epochs=1)]}, "the whole trunk is trained"),
        (
            {"phases": [Phase(unfreeze_matching="features.0", epochs=1)]},
            "the whole trunk is trained",
        ),
        ({"regularize": "mixing=mixup"}, "images are mixed in every batch"),
        ({"regularize": "mixing=cutmix"}, "images are mixed in every batch"),
        ({"augment": "standard"}, "images are augmented anew in every epoch"),
        (
            {"backbone": NORMED, "phases": [Phase(batchnorm="batch_statistics", epochs=1)]},
            "frozen batch norm works with the statistics of each batch",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_phase_that_must_run_live_says_why(changes, why):
    found = fitted(**changes)

    record = found.history_["phases"][-1]
    assert (record["mode"], record["boundary"]) == ("live", {"why": why})
    assert found.embedding_stats_.embedded == len(IMAGES)
    assert found.predict_proba(OTHERS).shape == (7, 3)


def test_a_mode_is_recalled_as_its_facts_describe_it(tmp_path):
    kept = open_cache(tmp_path)

    for mode in (ExecutionMode(None, why="too large"), ExecutionMode(kept, size=7)):
        again = recall_mode(mode.facts(), kept.runtime)
        assert again.facts() == mode.facts()


# --- what they take


@pytest.mark.parametrize(("lacking", "mode"), [(0, "cached"), (1, "live")])
def test_activations_take_at_most_half_of_the_free_disk(monkeypatch, lacking, mode):
    chosen = learner(phases=[QUICK], augment="standard", views=3)
    held = SimpleNamespace(paths=IMAGES[:5], labels=LABELS[:5])
    (first,) = chosen.fit(IMAGES, LABELS, validation=held).history_["phases"]
    needed = (3 * 10 + 5) * int(np.prod(first["boundary"]["shape"])) * 4
    monkeypatch.setattr(module, "free_bytes", lambda _cache: 2 * (needed - lacking))

    (found,) = chosen.fit(IMAGES, LABELS, validation=held).history_["phases"]

    assert first["boundary"]["bytes"] == needed
    assert found["mode"] == mode
    why = f"its activations would take {needed:,} bytes, and {needed - 1:,} are allowed"
    assert found["boundary"].get("why", why) == why


def test_a_network_that_cannot_be_cut_runs_live(monkeypatch):
    monkeypatch.setattr("regraft.training.split_point.find_split_point", lambda *_a: None)

    (found,) = fitted(phases=HALF).history_["phases"]

    why = "this network cannot be cut in front of what is trained"
    assert (found["mode"], found["boundary"]) == ("live", {"why": why})


@pytest.mark.parametrize(("device", "engine"), [("cpu", "openvino"), ("cuda", "torch")])
def test_an_accelerator_is_not_left_idle_by_openvino(monkeypatch, device, engine):
    monkeypatch.setattr(module, "choose_device", lambda _device: device)
    monkeypatch.setattr(TransferNetwork, "to", lambda network, *_a, **_k: network)
    backbone = build(SMALL)
    network = TransferNetwork(backbone, LinearHead(), outputs=3)

    found = Runtime.prepare(network, backbone, Compute(engine="openvino"))

    assert (found.compute.device, found.compute.engine) == (device, engine)


# --- predictions

PHASES = {
    "behind the trunk": [Phase(epochs=2, lr=0.01)],
    "in the middle": [Phase(unfreeze=0.5, epochs=2, lr=0.01)],
    "live": [Phase(unfreeze=1.0, epochs=2, lr=0.01)],
}


@pytest.mark.parametrize("mode", PHASES)
def test_probabilities_are_those_of_the_whole_network(mode, tmp_path):
    trained = fitted(phases=PHASES[mode], batch_size=4, cache=tmp_path)

    found = trained.predict_proba(OTHERS)

    with torch.inference_mode():
        logits = trained.network_.eval()(torch.from_numpy(np.stack(OTHERS)))
    assert np.abs(found - logits.double().softmax(1).numpy()).max() < 1e-6
    assert found.dtype == np.float64
    assert found.sum(1) == pytest.approx(1.0, abs=1e-12)
    assert trained.predict_proba([]).shape == (0, 3)
    assert trained.embedding_stats_.images == 0
