"""Ranking networks on own images: what is compared, what is said, and what is left alone."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.backbones.backbone import build
from regraft.backbones.checkpoint_files import write_state
from regraft.backbones.sources import import_weights
from regraft.backbones.spec import BackboneSpec, Compute, Preprocessing
from regraft.backbones.weights import find_weights
from regraft.data.dataset import Dataset
from regraft.data.synthetic import make_flowers
from regraft.errors import BackboneError, DataError, UsageError, WeightsError
from regraft.experiment import prepare as data_steps
from regraft.experiment import rank as ranks
from regraft.experiment.config import DataConfig
from regraft.experiment.prepare import Clock, prepare
from regraft.experiment.rank import (
    NO_TIME,
    NO_WEIGHTS,
    NOT_HERE,
    Ranked,
    Ranking,
    find_here,
    make_folds,
    predict_out_of_fold,
    rank_backbones,
    ranked,
)
from regraft.features.embed import EmbeddingStats
from regraft.features.extractor import FeatureExtractor
from regraft.files import home

OWN = Preprocessing.tf(48, mode="squash", resize=64)


def random_network(seed):
    return BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),), seed=seed)


TWO = [random_network(1), random_network(2)]


def keep(name, *, seed=0):
    """Put a small random network into the store under a name."""
    file = home() / f"{name}.safetensors"
    write_state(file, build(random_network(seed)).module.state_dict())
    return import_weights(file, name=name, backbone="simple_cnn", preprocessing=OWN)


def rank(flowers, backbones=None, *, cache="default", budget=None, **options):
    compute = Compute(engine="torch", cache=cache)
    data = DataConfig(flowers.root)
    options = {"folds": 3, "compute": compute, "clock": Clock(budget), **options}
    return rank_backbones(data, backbones, **options)


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    return make_flowers(tmp_path_factory.mktemp("flowers"), species=3, per_class=15, size=48)


@pytest.fixture(scope="module")
def two(flowers, tmp_path_factory):
    """Return the ranking of two random networks, and of the same two once more."""
    cache = tmp_path_factory.mktemp("cache")
    return [rank(flowers, TWO, cache=cache) for _ in range(2)]


@pytest.mark.parametrize("cache", ["default", None])
def test_each_image_but_those_of_the_test_part_passes_once(flowers, monkeypatch, cache):
    seen, passed = set(), []
    stream = FeatureExtractor.stream

    def watched(self, paths):
        embedded = stream(self, paths)
        seen.update(paths)
        passed.append(embedded.stats.embedded)
        return embedded

    monkeypatch.setattr(FeatureExtractor, "stream", watched)
    ranking = rank(flowers, TWO[:1], cache=cache)
    split = prepare(DataConfig(flowers.root)).split

    assert seen == {*split.train.paths, *split.val.paths}
    assert ranking.images == len(seen) == sum(passed)
    assert ranking.split_hash == split.hash


def test_a_second_call_computes_nothing_and_says_the_same(two):
    first, second = two

    assert all(row.milliseconds > 0 for row in first.rows)
    assert {row.milliseconds for row in second.rows} == {None}
    assert [row.accuracy for row in first.rows] == [row.accuracy for row in second.rows]


def test_rows_stand_by_their_linear_probe_and_carry_an_interval_over_all_images(two):
    first, second = two[0].rows
    share = first.accuracy

    assert share.value >= second.accuracy.value
    assert share.n == second.accuracy.n == two[0].images == 33
    assert share.low < share.value <= share.high
    assert first.difference is None
    assert second.difference.value <= 0
    assert first.parameters > 100_000


@pytest.fixture
def without_the_packaged(monkeypatch):
    """Leave out the networks whose building takes longer than all else here."""
    every = ranks.list_backbones
    monkeypatch.setattr(
        ranks,
        "list_backbones",
        lambda: [entry for entry in every() if "efficientnet_lite" not in entry.name],
    )


def test_without_names_every_network_whose_weights_are_here_is_a_candidate():
    keep("mine")

    here, others = find_here()
    sizes = {spec.name: size for spec, size in here.items()}

    assert sizes["mine"] > 10_000
    assert sizes["efficientnet_lite0"] > 10_000
    assert (others["vgg16"], others["simple_cnn"]) == (NOT_HERE, NO_WEIGHTS)
    assert find_weights("vgg16") is None


def test_what_is_left_out_of_a_ranking_of_everything_is_said_reason_by_reason(
    flowers, without_the_packaged
):
    keep("sound")
    file = keep("damaged", seed=1).path
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")

    ranking = rank(flowers, per_class=4)
    text = ranking.table().to_text()

    assert [row.backbone for row in ranking.rows] == ["sound"]
    assert "damaged" in ranking.left_out
    assert text.count(NOT_HERE) == text.count(NO_WEIGHTS) == 1
    assert "alexnet, vgg16" in text


def test_a_named_network_without_weights_is_left_out_and_never_fetched(flowers):
    here, others = find_here(["vgg16", TWO[0], TWO[0]])

    assert (here, others) == ({TWO[0]: None}, {"vgg16": NOT_HERE})
    with pytest.raises(WeightsError, match="vgg16: the weights are not"):
        rank(flowers, ["vgg16"])


def test_an_unknown_name_is_an_error_that_names_the_nearest(flowers):
    with pytest.raises(BackboneError, match="vgg16"):
        rank(flowers, ["vgg61"])


def test_images_per_class_are_taken_from_training_and_validation_together(flowers):
    assert rank(flowers, TWO[:1], per_class=10).images == 30


# ---- the budget


class Ticking(Clock):
    """A clock that goes on by what passes seem to take."""

    now = 0.0

    @property
    def spent(self):
        """What was counted."""
        return self.now


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return make_flowers(tmp_path_factory.mktemp("many"), species=2, per_class=100, size=32)


@pytest.fixture
def timed(monkeypatch, many):
    """Return a function that ranks networks by their seeds and the seconds of an image."""
    stream = FeatureExtractor.stream
    monkeypatch.setattr(data_steps, "check_seconds", lambda _images: 0.0)

    def call(budget, seconds):
        clock = Ticking(budget)

        def watched(self, paths):
            embedded = stream(self, paths)
            count = embedded.stats.embedded
            took = seconds[self.backbone.seed] * count
            clock.now += took
            return replace(embedded, stats=EmbeddingStats(len(paths), count, took))

        monkeypatch.setattr(FeatureExtractor, "stream", watched)
        ranking = rank(many, [random_network(seed) for seed in seconds], clock=clock)
        assert clock.left > 0
        return ranking

    return call


@pytest.mark.parametrize(("budget", "measured"), [(600.0, {1, 2, 3}), (200.0, {1, 2}), (40.0, {2})])
def test_what_would_take_longer_than_the_budget_is_left_out_and_the_others_are_measured(
    timed, budget, measured
):
    seconds = {1: 1.0, 2: 0.1, 3: 0.5}

    ranking = timed(budget, seconds)

    assert {row.milliseconds for row in ranking.rows} == {1000 * seconds[n] for n in measured}
    assert set(ranking.left_out.values()) == ({NO_TIME} if len(measured) < 3 else set())


def test_what_is_cached_takes_no_time(timed):
    timed(None, {1: 1.0})

    (row,) = timed(1.0, {1: 1.0}).rows

    assert row.milliseconds is None


def test_a_budget_that_is_too_short_is_refused_at_once_with_what_it_takes(timed):
    with pytest.raises(UsageError, match="to rank simple_cnn, takes about 2 min 30 s") as refused:
        timed(40.0, {1: 1.0})

    assert refused.value.code == "BUDGET"
    assert "--budget 180s or more" in refused.value.hint


def test_a_look_at_the_images_that_takes_too_long_is_refused_before_it_begins(flowers):
    with pytest.raises(UsageError, match="a look at the images, takes"):
        rank(flowers, TWO, budget=1e-6)


# ---- verdicts


def network(name, right, *, milliseconds=1.0):
    return Ranked(name, 8_000_000, 10, np.arange(200) < right, milliseconds)


def standing(*networks):
    return Ranking(ranked(networks), {}, 5, "ab" * 32)


def test_a_clear_winner_is_marked_as_best():
    table = standing(network("weak", 120), network("strong", 190)).table()

    assert table.best == 0
    assert [row[0] for row in table.rows] == ["strong", "weak"]
    assert table.rows[0][-1] == "highest"
    assert table.rows[1][-1].startswith("\N{MINUS SIGN}35.0 points [")
    assert standing(network("alone", 120)).table().best is None


def test_networks_that_cannot_be_told_apart_are_ties_and_none_is_best():
    ranking = standing(network("one", 180), network("two", 178), network("weak", 100))

    assert ranking.table().best is None
    assert [row.tie for row in ranking.rows] == [True, True, False]
    assert ranking.table().rows[1][-1].startswith("tie: \N{MINUS SIGN}1.0 points")


def test_of_equals_the_quicker_stands_first():
    ranking = standing(
        network("slow", 180, milliseconds=30.0), network("quick", 180, milliseconds=3.0)
    )

    assert [row.backbone for row in ranking.rows] == ["quick", "slow"]


def test_many_pairs_make_the_test_stricter():
    alone = standing(network("first", 180), network("second", 174))  # p = 0.03 alone
    among = standing(network("first", 180), *(network(f"{place}", 174) for place in range(3)))

    assert not alone.rows[1].tie
    assert all(row.tie for row in among.rows)


def test_of_many_equally_good_networks_none_is_called_worse():
    random = np.random.default_rng(0)
    told_apart = 0
    for _ in range(100):
        rights = random.random((30, 500)) < 0.8
        networks = [replace(network("n", 0), right=right) for right in rights]
        told_apart += any(not row.tie for row in ranked(networks))

    assert told_apart < 8


# ---- folds


def named(labels, copies=0, **more):
    paths = tuple(f"{label}/{place}.jpg" for place, label in enumerate(labels))
    data = Dataset(paths, tuple(labels), tuple(sorted(set(labels))), **more)
    hashes = {path: f"{place:064x}" for place, path in enumerate(data.paths)}
    return data.knowing(hashes | dict.fromkeys(data.paths[:copies], "f" * 64))


def test_groups_copies_and_look_alikes_share_a_fold():
    data = named("a" * 12 + "b" * 12, copies=2, groups=("", "", "p", "p", *[""] * 20))

    folds = make_folds(data, folds=3, alike=[("b/16.jpg", "b/19.jpg")])

    assert folds[0] == folds[1]
    assert folds[2] == folds[3]
    assert folds[16] == folds[19]


@given(
    folds=st.integers(2, 5),
    sizes=st.lists(st.integers(5, 20), min_size=2, max_size=4),
    seed=st.integers(0, 9),
)
def test_folds_hold_every_image_once_and_the_classes_in_proportion(folds, sizes, seed):
    labels = np.repeat(["c0", "c1", "c2", "c3"][: len(sizes)], sizes)

    places = make_folds(named(labels.tolist()), folds=folds, seed=seed)

    for label, size in enumerate(sizes):
        counts = np.bincount(places[labels == f"c{label}"], minlength=folds)
        assert counts.sum() == size
        assert counts.max() - counts.min() <= 1


def test_a_class_too_small_for_the_folds_is_refused_or_learned_from_only():
    data = named("aaaaaabbbbbbcc")

    with pytest.raises(DataError) as refused:
        make_folds(data, folds=3)

    assert refused.value.code == "SPLIT-TOO-FEW"
    places = make_folds(data, folds=3, small_classes="train")
    assert places[-2:].tolist() == [-1, -1]
    assert (places[:-2] >= 0).all()
    with pytest.raises(UsageError, match="at least two folds"):
        make_folds(data, folds=1)


def test_every_image_is_predicted_by_a_classifier_of_the_other_folds():
    # Two images of opposite classes at one place: who has seen only one names the other like it.
    rows = np.repeat(np.eye(6, dtype=np.float32), 2, axis=0)
    labels = np.tile([0, 1], 6)
    folds = np.tile([0, 1, 1, 0], 3)

    predicted = predict_out_of_fold(rows, labels, folds, classifier="knn")

    assert (predicted.argmax(axis=1) == 1 - labels).all()
    assert predicted.sum(axis=1) == pytest.approx(1)


def test_images_in_no_fold_are_learned_from_but_not_predicted():
    rows = np.array([[0.0], [0.1], [1.0], [1.1], [9.0]], dtype=np.float32)
    labels = np.array([0, 0, 1, 1, 2])

    predicted = predict_out_of_fold(rows, labels, np.array([0, 1, 0, 1, -1]))

    assert predicted[:4].argmax(axis=1).tolist() == [0, 0, 1, 1]
    assert predicted[4].tolist() == [-1, -1, -1]
