"""A phase keeps activations where that changes nothing, and else says why it runs live."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from regraft.training.ways import Way, choose_way, why_live

from regraft.backbones.spec import BackboneSpec, Compute
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.errors import UsageError
from regraft.features.cache import FeatureCache
from regraft.training import ways as module
from regraft.training.activations import Keeper
from regraft.training.heads import LinearHead, MLPHead
from regraft.training.network import TransferNetwork
from regraft.training.phases import Phase, two_stage
from regraft.training.split_point import behind_trunk

SMALL = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))
NORMED = BackboneSpec("mobilenet_v2", weights=None, arguments=(("size", 48),))
HALF = Phase(unfreeze=0.5, epochs=3, optimizer="sgd", lr=0.05, momentum=0.9)
CLASSES = ("a", "b", "c")


def draw(count, seed=0):
    """Return noisy pictures in three colours, and their classes."""
    random = np.random.default_rng(seed)
    pictures = random.integers(0, 90, (count, 32, 32, 3)).astype(np.uint8)
    for i, picture in enumerate(pictures):
        picture[..., i % 3] += np.uint8(100)
    return pictures, [CLASSES[i % 3] for i in range(count)]


PICTURES, LABELS = draw(22)
OTHERS, _ = draw(7, seed=1)


def learner(**changes):
    chosen = {"phases": [HALF], "batch_size": 8, "device": "cpu", "engine": "torch", **changes}
    how = {name: chosen.pop(name) for name in Compute.__dataclass_fields__ if name in chosen}
    return NetworkClassifier(chosen.pop("backbone", SMALL), compute=Compute(**how), **chosen)


def fitted(**changes):
    return learner(**changes).fit(PICTURES, LABELS)


def way_of(learner, phase=-1):
    """Return the way, where it was cut and why."""
    record = learner.history_["phases"][phase]
    return record["way"], record["boundary"]


def weights(learner):
    return learner.network_.state_dict()


def furthest(one, other):
    """Return the largest difference between the weights of two learners."""
    pairs = [(t.double(), weights(other)[n].double()) for n, t in weights(one).items()]
    return max(float((a - b).abs().max()) for a, b in pairs)


# --- cached and live training are the same training


@pytest.mark.parametrize(
    "changes",
    [
        {"phases": [Phase(epochs=3, lr=0.01)]},
        {"phases": [Phase(epochs=3, lr=0.01)], "head": "mlp_256"},
        {"phases": [HALF], "head": MLPHead(widths=(8,), dropout=0.5, batch_norm=True)},
        {"phases": [HALF], "augment": "standard", "views": 2},
        {"phases": [HALF], "regularize": "average=0.9,clip=0.5,label_smoothing=0.1"},
        {"phases": two_stage(2, head_epochs=2, unfreeze=0.5, lr=1e-3)},
        {"phases": [HALF], "sampling": "balanced", "class_weight": "balanced"},
        {"phases": [replace(HALF, epochs=1)], "backbone": NORMED},
    ],
    ids=str,
)
def test_training_from_activations_ends_with_the_weights_of_training_live(changes):
    kept = fitted(boundary="float32", **changes)
    live = fitted(boundary="off", **changes)

    assert {phase["way"] for phase in kept.history_["phases"]} == {"cached"}
    assert {phase["way"] for phase in live.history_["phases"]} == {"live"}
    assert furthest(kept, live) <= 1e-5
    start = learner(**{**changes, "phases": []}).fit(PICTURES, LABELS)
    assert furthest(kept, start) > 1e-3  # something was learned
    assert np.abs(kept.predict_proba(OTHERS) - live.predict_proba(OTHERS)).max() <= 1e-5


def test_what_validation_says_is_the_same_on_both_ways(monkeypatch):
    class Held:
        paths, labels = PICTURES[:5], LABELS[:5]

    kept, live = (
        learner(boundary=choice).fit(PICTURES, LABELS, validation=Held)
        for choice in ("float32", "off")
    )

    for one, other in zip(kept.history_["epochs"], live.history_["epochs"], strict=True):
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=1e-5)
        assert one["val_accuracy"] == other["val_accuracy"]


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
        ({"regularize": "mixing=mixup"}, "pictures are mixed in every batch"),
        ({"regularize": "mixing=cutmix"}, "pictures are mixed in every batch"),
        ({"augment": "standard"}, "pictures are augmented anew in every epoch"),
        (
            {"backbone": NORMED, "phases": [Phase(batchnorm="batch_statistics", epochs=1)]},
            "frozen batch norm works with the statistics of each batch",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_phase_that_must_run_live_says_why(changes, why):
    found = fitted(**changes)

    assert way_of(found) == ("live", {"why": why})
    assert found.embedding_stats_.embedded == len(PICTURES)
    assert found.predict_proba(OTHERS).shape == (7, 3)


def test_batch_statistics_do_not_matter_to_a_network_without_batch_norm():
    plain = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 64),))
    phase = Phase(batchnorm="batch_statistics", unfreeze=0.5, epochs=1)

    found = fitted(backbone=plain, phases=[phase])

    assert way_of(found)[0] == "cached"


def test_each_phase_goes_its_own_way():
    found = fitted(phases=two_stage(1, head_epochs=1, unfreeze=1.0))

    assert [way_of(found, phase)[0] for phase in (0, 1)] == ["cached", "live"]
    assert way_of(found, 0)[1]["stage"] == "pooled"


def test_the_second_stage_is_cut_further_in_front():
    found = fitted(phases=two_stage(1, head_epochs=1, unfreeze=0.5))

    stages = [way_of(found, phase)[1]["stage"] for phase in (0, 1)]
    assert stages == ["pooled", found.backbone_.stages[1].name]


def test_an_unknown_choice_is_refused():
    with pytest.raises(UsageError, match="boundary cannot be 'half'"):
        fitted(boundary="half")


# --- in how many bits, and what they take


def test_behind_the_whole_trunk_rows_are_float32():
    found = fitted(phases=[Phase(epochs=1)])

    assert way_of(found) == (
        "cached",
        {
            "stage": "pooled",
            "shape": [128],
            "dtype": "float32",
            "bytes": 22 * 128 * 4,
            "gradient_error": None,
        },
    )


def test_in_the_middle_sixteen_bits_are_enough_and_the_error_is_told():
    kept = way_of(fitted())[1]

    assert kept["dtype"] == "float16"
    assert 0 < kept["gradient_error"] <= 1e-2
    assert kept["bytes"] == 22 * np.prod(kept["shape"]) * 2


@pytest.mark.parametrize("choice", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("unfreeze", [0.0, 0.5])
def test_a_choice_of_bits_is_obeyed(choice, unfreeze):
    found = fitted(boundary=choice, phases=[Phase(unfreeze=unfreeze, epochs=1)])
    way, kept = way_of(found)

    assert (way, kept["dtype"]) == ("cached", choice)
    assert kept["bytes"] == 22 * np.prod(kept["shape"]) * (4 if choice == "float32" else 2)
    assert kept["gradient_error"] is None
    again = found.predict_proba(PICTURES)
    assert found.embedding_stats_.embedded == 0
    assert np.isfinite(again).all()


@pytest.mark.parametrize("choice", ["auto", "float16"])
def test_a_picture_beyond_float16_makes_it_bfloat16_and_not_infinity(choice, monkeypatch):
    """The pictures that were looked at fit; one of the others does not."""
    with_outlier(monkeypatch, at=13)

    found = fitted(boundary=choice)

    assert way_of(found)[0] == "cached"
    assert way_of(found)[1]["dtype"] == "bfloat16"
    assert all(tensor.isfinite().all() for tensor in weights(found).values())
    assert np.isfinite(found.predict_proba(PICTURES)).all()
    assert found.embedding_stats_.embedded == 0


def with_outlier(monkeypatch, at):
    """Let the activations of one picture of the training part be larger than float16 can hold."""
    built = Keeper.built_engine.func
    marked = PICTURES[at]

    def build(keeper):
        engine = built(keeper)

        def run(pictures):
            rows = engine(pictures)
            rows[[bool((p == marked).all()) for p in pictures], 0] = 70_000.0
            return rows

        run.name, run.precision, run.notes = engine.name, engine.precision, engine.notes
        return run

    monkeypatch.setattr(Keeper, "built_engine", property(build))


def test_activations_that_the_budget_does_not_allow_are_not_kept():
    enough = way_of(fitted())[1]["bytes"]

    assert way_of(fitted(disk_budget=enough))[0] == "cached"
    way, why = way_of(fitted(disk_budget=enough - 1))

    assert way == "live"
    assert why == {
        "why": f"its activations would take {enough:,} bytes, and {enough - 1:,} are allowed"
    }


def test_without_a_budget_half_of_the_free_disk_is_allowed(monkeypatch):
    needed = way_of(fitted())[1]["bytes"]
    monkeypatch.setattr(module, "free_bytes", lambda _cache: 2 * needed - 2)

    way, why = way_of(fitted())

    assert way == "live"
    assert re.search(rf"{needed - 1:,} are allowed", why["why"])


def test_validation_and_views_count_for_the_budget():
    class Held:
        paths, labels = PICTURES[:5], LABELS[:5]

    chosen = learner(augment="standard", views=3)
    chosen.fit(PICTURES, LABELS, validation=Held)

    kept = way_of(chosen)[1]
    assert kept["bytes"] == (3 * 22 + 5) * np.prod(kept["shape"]) * 2


# --- the choice itself


@pytest.fixture
def network():
    return TransferNetwork(SMALL.build(), LinearHead(), outputs=3).to(
        memory_format=torch.channels_last
    )


def test_a_network_that_cannot_be_cut_runs_live(network, monkeypatch):
    monkeypatch.setattr(module, "find_boundary", lambda *_arguments: None)

    way = choose_way(
        network,
        network.freeze(Phase(unfreeze=0.5)),
        few=lambda: (torch.zeros(2, 48, 48, 3, dtype=torch.uint8), torch.eye(3)[:2]),
        loss=torch.nn.functional.cross_entropy,
        samples=2,
        make_keeper=lambda _boundary: pytest.fail("there is nothing to keep"),
    )

    assert way.keeper is None
    assert way.to_json() == {
        "way": "live",
        "boundary": {"why": "this network cannot be cut in front of what is trained"},
    }


def test_pictures_are_not_looked_at_where_the_whole_trunk_is_frozen(network, tmp_path):
    way = choose_way(
        network,
        network.freeze(Phase()),
        few=lambda: pytest.fail("no picture is needed"),
        loss=torch.nn.functional.cross_entropy,
        samples=10,
        make_keeper=lambda boundary: Keeper(
            backbone=SMALL.build(),
            network=network,
            boundary=boundary,
            cache=FeatureCache(tmp_path),
            engine="torch",
            precision="fp32",
            device="cpu",
        ),
    )

    assert way.keeper.boundary == behind_trunk(network)
    assert way.size == 10 * 128 * 4


def test_the_first_reason_is_that_nobody_wants_activations(network):
    trained = network.freeze(Phase(unfreeze=1.0))

    why = why_live(network, Phase(unfreeze=1.0), trained, choice="off", changing="they change")

    assert why == "no activations were to be kept"


def test_nothing_speaks_against_activations_of_a_frozen_trunk(network):
    phase = Phase()

    assert not why_live(network, phase, network.freeze(phase), choice="auto", changing="")


def test_a_live_way_without_a_reason_says_nothing_of_a_boundary():
    assert Way(None).to_json() == {"way": "live", "boundary": None}
