"""Probes: folds without doubles, predictions of what was not learned, and how long it takes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.backbones.spec import BackboneSpec, Compute
from regraft.data.dataset import Dataset
from regraft.data.synthetic import make_flowers
from regraft.errors import DataError, UsageError
from regraft.experiment.probes import PROBE, Bench, Budget, make_folds, predict_out_of_fold
from regraft.features.embed import EmbeddingStats
from regraft.features.extractor import FeatureExtractor

NETWORK = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))
READ, PASS = 0.001, 1.0  # seconds to read a image, and to pass one through the network


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    return make_flowers(tmp_path_factory.mktemp("flowers"), species=2, per_class=100, size=32)


@pytest.fixture
def slow(monkeypatch):
    """Let every pass through the network seem to take a second."""
    stream = FeatureExtractor.stream

    def timed(self, images):
        embedded = stream(self, images)
        images, passed = embedded.stats.images, embedded.stats.embedded
        return replace(
            embedded, stats=EmbeddingStats(images, passed, READ * images + PASS * passed)
        )

    monkeypatch.setattr(FeatureExtractor, "stream", timed)


def bench_on(flowers, cache):
    return Bench(
        flowers, np.arange(len(flowers)) % 2, compute=Compute(engine="torch", cache=str(cache))
    )


def test_images_that_were_only_looked_at_do_not_make_a_network_look_cached(flowers, slow, tmp_path):
    first = bench_on(flowers, tmp_path).expect(NETWORK)
    bench = bench_on(flowers, tmp_path)
    second = bench.expect(NETWORK)
    outcome = bench.measure(NETWORK, (PROBE,))
    hour = 3600.0

    assert second > 0.3 * first
    assert 100 < outcome.embedded < len(flowers)
    assert bench.too_long(hour, Budget(2 * hour)) == ""


def test_images_that_are_all_cached_take_no_time(flowers, slow, tmp_path):
    bench_on(flowers, tmp_path).measure(NETWORK, (PROBE,))

    assert bench_on(flowers, tmp_path).expect(NETWORK) == 0


def test_images_that_are_half_cached_take_half_the_time(flowers, slow, tmp_path):
    whole = bench_on(flowers, tmp_path / "none").expect(NETWORK)
    half = flowers.take(range(0, len(flowers), 2))
    bench_on(half, tmp_path / "half").measure(NETWORK, (PROBE,))

    assert bench_on(flowers, tmp_path / "half").expect(NETWORK) == pytest.approx(whole / 2, rel=0.1)


def test_groups_copies_and_look_alikes_share_a_fold():
    names = [f"{label}/{number}.jpg" for label in ("a", "b") for number in range(12)]
    labels = [name[0] for name in names]
    data = Dataset(tuple(names), tuple(labels), ("a", "b"))
    hashes = {path: f"{place:064x}" for place, path in enumerate(data.paths)}
    hashes[data.paths[1]] = hashes[data.paths[0]]
    groups = ["p" if place in {2, 3} else "" for place in range(24)]
    grouped = Dataset(data.paths, data.labels, data.classes, groups=tuple(groups)).knowing(hashes)

    folds = make_folds(grouped, folds=3, alike=[("b/4.jpg", "b/7.jpg")])

    assert folds[0] == folds[1]
    assert folds[2] == folds[3]
    assert folds[12 + 4] == folds[12 + 7]


@given(
    folds=st.integers(2, 5),
    sizes=st.lists(st.integers(5, 20), min_size=2, max_size=4),
    seed=st.integers(0, 9),
)
def test_folds_hold_every_image_once_and_the_classes_in_proportion(folds, sizes, seed):
    labels = tuple(f"c{label}" for label, size in enumerate(sizes) for _ in range(size))
    names = tuple(f"{label}/{place}.jpg" for place, label in enumerate(labels))
    data = Dataset(names, labels, tuple(f"c{label}" for label in range(len(sizes))))
    data = data.knowing({path: f"{place:064x}" for place, path in enumerate(data.paths)})

    places = make_folds(data, folds=folds, seed=seed)

    for label, size in enumerate(sizes):
        counts = np.bincount(places[np.array(labels) == f"c{label}"], minlength=folds)
        assert counts.sum() == size
        assert counts.max() - counts.min() <= 1


def test_a_class_too_small_for_the_folds_is_refused_or_learned_from_only():
    names = tuple(f"{place}.jpg" for place in range(14))
    data = Dataset(names, tuple("aaaaaabbbbbbcc"), ("a", "b", "c"))
    data = data.knowing({path: f"{place:064x}" for place, path in enumerate(data.paths)})

    with pytest.raises(DataError) as refused:
        make_folds(data, folds=3)

    assert refused.value.code == "SPLIT-TOO-FEW"
    places = make_folds(data, folds=3, small_classes="train")
    assert places[-2:].tolist() == [-1, -1]
    assert (places[:-2] >= 0).all()


def test_one_fold_is_no_cross_validation():
    with pytest.raises(UsageError):
        make_folds(Dataset(("1.jpg",), ("a",), ("a",)), folds=1)


def test_every_image_is_predicted_by_a_classifier_of_the_other_folds():
    # Two images of opposite classes at one place: who has seen only one names the other like it.
    rows = np.repeat(np.eye(6, dtype=np.float32), 2, axis=0)
    labels = np.tile([0, 1], 6)
    folds = np.tile([0, 1, 1, 0], 3)

    predicted = predict_out_of_fold(rows, labels, folds, classifier="knn")

    assert (predicted == 1 - labels).all()


def test_images_in_no_fold_are_learned_from_but_not_predicted():
    rows = np.array([[0.0], [0.1], [1.0], [1.1], [9.0]], dtype=np.float32)
    labels = np.array([0, 0, 1, 1, 2])

    predicted = predict_out_of_fold(rows, labels, np.array([0, 1, 0, 1, -1]))

    assert predicted.tolist() == [0, 0, 1, 1, -1]


def test_a_budget_runs_down():
    assert Budget(5.0).left <= 5.0
    assert Budget(0.0).left <= 0.0
