"""Activations are computed once, kept in few bits, and shared with whoever asks for the same."""

import numpy as np
import pytest
import torch
from PIL import Image

from regraft.backbones.spec import BackboneSpec, Compute
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.classifiers.network_classifier import NetworkClassifier
from regraft.data.images import Decoding
from regraft.features.cache import FeatureCache
from regraft.training import activations as module
from regraft.training.activations import Keeper, KeptRows, needed_bytes
from regraft.training.augment import find_augmentation
from regraft.training.batches import AugmentedPictures, Pictures
from regraft.training.heads import LinearHead
from regraft.training.network import TransferNetwork
from regraft.training.phases import Phase
from regraft.training.split_point import Boundary, named_boundary

SMALL = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))
RANDOM = np.random.default_rng(0)
PICTURES = list(RANDOM.integers(0, 256, (10, 40, 36, 3), dtype=np.uint8))
OTHERS = list(RANDOM.integers(0, 256, (3, 40, 36, 3), dtype=np.uint8))
LABELS = ["a", "b"] * 5
ONCE = [Phase(epochs=1)]
HALF = [Phase(unfreeze=0.5, epochs=1)]


class Calls(list):
    """The number of pictures in each pass through a frozen trunk."""


@pytest.fixture
def passed(monkeypatch):
    """Count what passes the frozen part."""
    seen = Calls()
    before = Boundary.before

    def counting(boundary, network):
        reach = before(boundary, network)

        def run(batch):
            seen.append(len(batch))
            return reach(batch)

        return run

    monkeypatch.setattr(Boundary, "before", counting)
    return seen


def keeper(folder, stage=None, **changes):
    backbone = SMALL.build()
    network = TransferNetwork(backbone, LinearHead(), outputs=2).to(
        memory_format=torch.channels_last
    )
    return Keeper(
        backbone=backbone,
        network=network,
        boundary=named_boundary(network, stage or network.stages[1].name),
        cache=FeatureCache(folder),
        **{"engine": "torch", "precision": "fp32", "device": "cpu", **changes},
    )


def exact(keeper, pictures):
    """Return the activations of pictures as torch computes them."""
    squares = np.stack([keeper.backbone.prepare(Image.fromarray(p)) for p in pictures])
    network = keeper.network.eval()
    with torch.no_grad():
        return keeper.boundary.before(network)(network.normalise(torch.from_numpy(squares)))


EVERY = np.arange(10)


@pytest.mark.parametrize(
    ("stored", "error"), [("float32", 0.0), ("float16", 2**-11), ("bfloat16", 2**-8)]
)
def test_rows_come_back_as_exactly_as_they_are_stored(tmp_path, stored, error):
    kept = keeper(tmp_path, stored=stored)

    rows, computed = kept.plain(PICTURES)

    assert (computed, len(rows)) == (10, 10)
    taken = rows.take(EVERY, epoch=0)
    wanted = exact(kept, PICTURES)
    assert taken.dtype == torch.float32
    assert torch.allclose(taken, wanted, rtol=error, atol=1e-7)
    assert torch.equal(taken, wanted) == (stored == "float32")


def test_samples_are_handed_out_in_the_order_asked_for_in_every_epoch(tmp_path):
    rows, _ = keeper(tmp_path).plain(PICTURES)
    every = rows.take(EVERY, epoch=0)

    asked = np.array([7, 0, 7, 3])

    assert torch.equal(rows.take(asked, epoch=5), every[asked])
    assert rows.take(asked[:0], epoch=0).shape == (0, every.shape[1])


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
def test_rows_that_are_too_many_for_memory_are_read_from_disk(tmp_path, monkeypatch, stored):
    kept = keeper(tmp_path, stored=stored)
    held, _ = kept.plain(PICTURES)
    monkeypatch.setattr(module, "_IN_MEMORY", 0)

    read, computed = kept.plain(PICTURES)

    assert computed == 0
    assert held._held is not None
    assert read._held is None
    asked = np.array([7, 0, 7, 3])
    assert torch.equal(held.take(asked, 0), read.take(asked, 0))


def test_a_picture_that_occurs_twice_passes_once(tmp_path, passed):
    rows, computed = keeper(tmp_path).plain([PICTURES[0], PICTURES[1], PICTURES[0]])
    passed_pictures = sum(passed[-1:])

    assert computed == passed_pictures == 2
    taken = rows.take(np.arange(3), epoch=0)
    assert torch.equal(taken[0], taken[2])
    assert not torch.equal(taken[0], taken[1])


@pytest.mark.parametrize(
    "changes",
    [
        {"stage": "features.0"},
        {"stored": "bfloat16"},
        {"precision": "bf16"},
        {"decoding": Decoding(background=(0, 0, 0))},
    ],
    ids=str,
)
def test_what_shapes_a_row_is_part_of_its_key(tmp_path, changes):
    keeper(tmp_path, stored="float16").plain(PICTURES)

    _, again = keeper(tmp_path, stored="float16").plain(PICTURES)
    _, other = keeper(tmp_path, **{"stored": "float16", **changes}).plain(PICTURES)

    assert again == 0
    assert other == 10


def test_rows_of_other_weights_are_never_taken_for_these(tmp_path):
    one = keeper(tmp_path)
    one.plain(PICTURES)
    other = Keeper(**{**vars_of(one), "backbone": BackboneSpec(
        "simple_cnn", weights=None, arguments=(("size", 48),), seed=1
    ).build()})  # fmt: skip

    assert other.plain(PICTURES)[1] == 10


def vars_of(keeper):
    return {name: getattr(keeper, name) for name in Keeper.__dataclass_fields__}


# --- views


def augmented(kept, views, seed=3, augment="standard", pictures=PICTURES):
    plain = Pictures(pictures, kept.backbone.prepare, size=48)
    return AugmentedPictures(plain, find_augmentation(augment), seed=seed, views=views)


def about(seed=3, augment="standard"):
    return {"augment": find_augmentation(augment).to_json(), "seed": seed}


def test_views_are_those_of_live_augmentation_and_epochs_take_turns(tmp_path):
    kept = keeper(tmp_path)
    live = augmented(kept, views=None)
    network = kept.network.eval()

    rows, computed = kept.views(augmented(kept, views=3), 3, about())

    assert (computed, len(rows)) == (30, 10)
    taken = [rows.take(EVERY, epoch) for epoch in range(7)]
    for view in range(3):
        with torch.no_grad():
            pictures = network.normalise(live.take(EVERY, view))
            wanted = kept.boundary.before(network)(pictures)
        assert torch.equal(taken[view], wanted)
        assert torch.equal(taken[view], taken[view + 3])
    assert torch.equal(taken[0], taken[6])
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert all(not torch.equal(a, b) for a, b in zip(taken[one], taken[other], strict=True))


def test_more_views_need_only_what_is_new(tmp_path):
    kept = keeper(tmp_path)
    first, _ = kept.views(augmented(kept, views=2), 2, about())

    more, computed = kept.views(augmented(kept, views=3), 3, about())

    assert computed == 10
    assert torch.equal(first.take(EVERY, 1), more.take(EVERY, 1))


@pytest.mark.parametrize("changes", [{"seed": 4}, {"augment": "standard,flip=false"}], ids=str)
def test_views_of_another_seed_or_augmentation_are_others(tmp_path, changes):
    kept = keeper(tmp_path)
    first, _ = kept.views(augmented(kept, views=1), 1, about())

    other, computed = kept.views(augmented(kept, views=1, **changes), 1, about(**changes))

    assert computed == 10
    assert not torch.equal(first.take(EVERY, 0), other.take(EVERY, 0))


def test_equal_pictures_have_views_of_their_own(tmp_path):
    kept = keeper(tmp_path)
    twins = [PICTURES[0], PICTURES[0]]

    rows, computed = kept.views(augmented(kept, views=1, pictures=twins), 1, about())

    assert computed == 2
    taken = rows.take(np.arange(2), 0)
    assert not torch.equal(taken[0], taken[1])


def test_views_and_pictures_as_they_are_do_not_meet_in_the_cache(tmp_path):
    kept = keeper(tmp_path)
    kept.views(augmented(kept, views=1), 1, about())

    assert kept.plain(PICTURES)[1] == 10


# --- the learner


def network(**changes):
    chosen = {"phases": ONCE, "device": "cpu", "engine": "torch", "batch_size": 4, **changes}
    how = {name: chosen.pop(name) for name in Compute.__dataclass_fields__ if name in chosen}
    return NetworkClassifier(SMALL, compute=Compute(**how), **chosen)


@pytest.mark.parametrize("head", ["linear", "mlp_256"])
@pytest.mark.parametrize("engine", ["torch", "auto"])
def test_the_first_learner_reads_what_the_second_has_computed_and_the_other_way_round(head, engine):
    pooling = "avg" if head == "linear" else "flatten"
    features = FeatureClassifier(
        SMALL, pooling=pooling, classifier="knn", compute=Compute(engine=engine)
    )
    second = network(head=head, engine=engine)
    half = slice(0, 4)

    features.fit(PICTURES[half], LABELS[half])
    second.fit(PICTURES[half], LABELS[half])
    assert second.embedding_stats_.images == 4
    assert second.embedding_stats_.embedded == 0

    second.fit(PICTURES, LABELS)
    assert second.embedding_stats_.embedded == 6
    features.fit(PICTURES, LABELS)
    assert features.embedding_stats_.embedded == 0


def test_both_learners_read_the_same_numbers(tmp_path):
    trunk = keeper(tmp_path, stage="pooled")
    rows, _ = trunk.plain(PICTURES)

    features = SMALL.build().engine("torch")(
        np.stack([trunk.backbone.prepare(Image.fromarray(p)) for p in PICTURES])
    )

    assert np.array_equal(rows.take(EVERY, 0).numpy(), features)


def test_pictures_that_were_trained_with_do_not_pass_again_to_be_predicted():
    for phases in (ONCE, HALF):
        fitted = network(phases=phases).fit(PICTURES, LABELS)

        fitted.predict_proba(PICTURES)
        assert (fitted.embedding_stats_.images, fitted.embedding_stats_.embedded) == (10, 0)
        fitted.predict_proba([*PICTURES, *OTHERS])
        assert fitted.embedding_stats_.embedded == 3


@pytest.mark.parametrize(
    "changes", [{}, {"phases": HALF}, {"phases": HALF, "augment": "standard", "views": 2}], ids=str
)
def test_a_second_fit_computes_nothing_where_the_cache_is_a_folder(tmp_path, changes):
    first = network(cache=tmp_path, **changes).fit(PICTURES, LABELS)
    second = network(cache=tmp_path, **changes).fit(PICTURES, LABELS)

    assert first.embedding_stats_.embedded == 10 * changes.get("views", 1)
    assert second.embedding_stats_.embedded == 0
    assert np.array_equal(first.predict_proba(OTHERS), second.predict_proba(OTHERS))


def test_large_activations_do_not_stay_in_the_common_cache(private_home):
    fitted = network(phases=HALF).fit(PICTURES, LABELS)
    fitted.predict_proba(OTHERS)

    assert not list((private_home / "features").rglob("*.npy"))


def test_without_a_cache_nothing_stays(private_home):
    network(cache=None).fit(PICTURES, LABELS)

    assert not (private_home / "features").exists()


def test_needed_bytes_count_what_is_stored():
    boundary = Boundary("blocks.3", (4, 5, 6))

    assert needed_bytes(boundary, "float32", 7) == 2 * needed_bytes(boundary, "bfloat16", 7)
    assert needed_bytes(boundary, "float16", 7) == 7 * 120 * 2


def test_kept_rows_have_the_length_of_one_view(tmp_path):
    rows = FeatureCache(tmp_path).rows({"a": 1}, 2)
    digests = ["ab" * 32, "cd" * 32]
    rows.append(digests, np.array([[1, 2], [3, 4]], np.float32))

    views = KeptRows(rows, [[digests[0]], [digests[1]]])

    assert len(views) == 1
    assert views.take(np.array([0]), 0).tolist() == [[1, 2]]
    assert views.take(np.array([0]), 1).tolist() == [[3, 4]]
