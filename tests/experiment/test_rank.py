"""Ranking networks on own pictures: what is compared, what is said, and what is left alone."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from regraft.experiment.ablation import MISTAKES, mistakes_for, with_preprocessing
from regraft.experiment.bench import NEIGHBOURS, PROBE, Budget, Outcome
from regraft.experiment.candidates import (
    NO_WEIGHTS,
    NOT_HERE,
    Candidate,
    LeftOut,
    find_candidates,
)
from regraft.experiment.preparation import DataPlan
from regraft.experiment.ranking import rank_backbones
from regraft.experiment.standings import Ranking, compared, in_order

from regraft.backbones.backbone import build
from regraft.backbones.checkpoint_files import write_state
from regraft.backbones.sources import import_weights
from regraft.backbones.spec import BackboneSpec, Compute, Preprocessing
from regraft.backbones.weights import find_weights, store
from regraft.data.dataset import Dataset
from regraft.data.synthetic import make_flowers
from regraft.errors import BackboneError, DataError, UsageError, WeightsError
from regraft.experiment import bench as benches
from regraft.experiment import candidates
from regraft.experiment.probes import make_folds, predict_out_of_fold
from regraft.features.extractor import FeatureExtractor
from regraft.files import home

OWN = Preprocessing.tf(32, mode="squash", resize=48)


def random_network(seed):
    return BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),), seed=seed)


def keep(name, *, seed=0, preprocessing=OWN):
    """Put a small random network into the store under a name."""
    file = home() / f"{name}.safetensors"
    write_state(file, build(random_network(seed)).module.state_dict())
    return import_weights(file, name=name, backbone="simple_cnn", preprocessing=preprocessing)


def rank(plan, backbones=None, **options):
    return rank_backbones(plan, backbones, **{"folds": 3, "engine": "torch", **options})


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    return make_flowers(tmp_path_factory.mktemp("flowers"), species=3, per_class=15, size=48)


@pytest.fixture(scope="module")
def two(flowers, tmp_path_factory):
    """Return the ranking of two random networks, with wrong preprocessings."""
    cache = tmp_path_factory.mktemp("cache")
    networks = [random_network(1), random_network(2)]
    return rank(DataPlan(flowers.root), networks, ablate=True, cache=cache)


def test_the_test_part_is_not_looked_at(flowers, monkeypatch):
    seen = set()
    stream = FeatureExtractor.stream

    def watched(self, paths):
        seen.update(paths)
        return stream(self, paths)

    monkeypatch.setattr(FeatureExtractor, "stream", watched)
    plan = DataPlan(flowers.root)

    ranking = rank(plan, [random_network(1)], ablate=True)
    split = plan.prepare().split

    assert seen == {*split.train.paths, *split.val.paths}
    assert ranking.images == len(seen)
    assert ranking.split_hash == split.hash


def test_a_second_call_computes_nothing_and_says_the_same(flowers, two, tmp_path):
    plan, networks = DataPlan(flowers.root), [random_network(1), random_network(2)]

    first = rank(plan, networks, ablate=True, cache=tmp_path)
    second = rank(plan, networks, ablate=True, cache=tmp_path)

    assert [row.embedded for row in first.rows] == [first.images] * 2
    assert {one.embedded for one in (*second.rows, *second.mistakes)} == {0}
    assert second.table().rows == first.table().rows
    assert second.ablation_table().rows == first.ablation_table().rows
    assert all(row.milliseconds > 0 for row in second.rows)


def test_the_features_are_those_that_a_fit_uses(flowers):
    plan = DataPlan(flowers.root)
    rank(plan, [random_network(1)])

    extractor = FeatureExtractor(random_network(1), compute=Compute(engine="torch"))
    extractor.transform(plan.prepare().split.train.paths)

    assert extractor.stats_.embedded == 0


def test_rows_stand_by_their_linear_probe_and_carry_an_interval_over_all_pictures(two):
    values = [row.linear_probe.value for row in two.rows]

    assert values == sorted(values, reverse=True)
    for row in two.rows:
        assert row.linear_probe.n == row.knn.n == two.images == 33
        assert row.linear_probe.low < row.linear_probe.value <= row.linear_probe.high
        assert row.input_size == 32
        assert row.parameters > 100_000


def test_the_ablation_stands_in_a_table_of_its_own(two):
    assert len(two.table().rows) == 2
    assert len(two.mistakes) == 2 * 4
    assert "\N{MINUS SIGN}1 to 1" not in {mistake.preprocessing for mistake in two.mistakes}
    assert all(str(row[3]).count("points [") == 1 for row in two.ablation_table().rows)


def test_everything_becomes_one_json_object(two):
    shown = json.loads(json.dumps(two.to_json()))

    assert {"rows", "ablation", "left_out", "seconds"} <= set(shown)
    assert set(shown["rows"][0]["linear_probe"]) == {"accuracy", "n", "interval"}
    assert shown["rows"][0]["difference"] is None
    assert shown["ablation"][0]["linear_probe"]["n"] == 33


@pytest.fixture
def without_the_packaged_one(monkeypatch):
    """Leave out the one network whose building takes longer than all else here."""
    listed = candidates.list_backbones
    monkeypatch.setattr(
        candidates,
        "list_backbones",
        lambda: tuple(entry for entry in listed() if entry.name != "efficientnet_lite0"),
    )


def test_without_names_every_network_whose_weights_are_here_is_a_candidate():
    keep("mine")

    here, others = find_candidates()
    left_out = {one.backbone: one.why for one in others}

    assert {one.name for one in here} >= {"efficientnet_lite0", "mine"}
    assert all(one.bytes > 10_000 for one in here if one.name in {"efficientnet_lite0", "mine"})
    assert left_out["vgg16"] == NOT_HERE
    assert left_out["simple_cnn"] == NO_WEIGHTS
    assert find_weights("vgg16") is None


def test_what_is_left_out_is_said_reason_by_reason(flowers, without_the_packaged_one):
    keep("mine")

    text = rank(DataPlan(flowers.root, per_class=4)).table().to_text()

    assert text.count(NOT_HERE) == text.count(NO_WEIGHTS) == 1
    assert "Left out: alexnet, vgg16" in text


def test_a_named_network_without_weights_is_left_out_and_never_fetched(flowers):
    here, others = find_candidates(["vgg16", random_network(0), random_network(0)])

    assert [one.spec for one in here] == [random_network(0)]
    assert others == [LeftOut("vgg16", NOT_HERE)]
    with pytest.raises(WeightsError) as refused:
        rank(DataPlan(flowers.root), ["vgg16"])
    assert refused.value.code == "WEIGHTS-MISSING"


def test_an_unknown_name_is_an_error_that_names_the_nearest(flowers):
    with pytest.raises(BackboneError) as refused:
        rank(DataPlan(flowers.root), ["vgg61"])

    assert "vgg16" in refused.value.hint


def test_damaged_weights_are_left_out_of_a_ranking_of_everything(flowers, without_the_packaged_one):
    keep("sound")
    file = keep("damaged").path
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    plan = DataPlan(flowers.root, per_class=4)

    ranking = rank(plan)

    assert "sound" in {row.backbone for row in ranking.rows}
    assert "damaged" in {one.backbone for one in ranking.left_out}


def test_a_spent_budget_leaves_one_network_and_says_what_is_missing(flowers):
    networks = [random_network(1), random_network(2)]

    ranking = rank(DataPlan(flowers.root), networks, budget=1e-6, ablate=True)

    assert len(ranking.rows) == 1
    reasons = {one.backbone: one.why for one in ranking.left_out}
    assert "budget" in reasons["simple_cnn"]
    assert len(ranking.left_out) == 1 + 4
    assert "budget" in ranking.table().to_text()
    assert "simple_cnn (0 to 1)" in ranking.ablation_table().to_text()
    assert "simple_cnn (0 to 1)" not in ranking.table().to_text()


def test_the_quickest_networks_are_measured_first(flowers, monkeypatch):
    seconds = {1: 5.0, 2: 0.5, 3: 50.0}
    measured = []
    measure = benches.Bench.measure

    def watched(self, spec, classifiers):
        measured.append(spec.seed)
        return measure(self, spec, classifiers)

    monkeypatch.setattr(benches.Bench, "expect", lambda _, spec: seconds[spec.seed])
    monkeypatch.setattr(benches.Bench, "measure", watched)
    networks = [random_network(seed) for seed in seconds]

    ranking = rank(DataPlan(flowers.root), networks, budget=40.0)

    assert measured == [2, 1]
    assert [one.why[:17] for one in ranking.left_out] == ["it needs about 50"]


def test_pictures_per_class_are_taken_from_training_and_validation_together(flowers):
    ranking = rank(DataPlan(flowers.root, per_class=10), [random_network(1)])

    assert ranking.images == 30


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
def test_folds_hold_every_picture_once_and_the_classes_in_proportion(folds, sizes, seed):
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


def test_every_picture_is_predicted_by_a_classifier_of_the_other_folds():
    # Two pictures of opposite classes at one place: who has seen only one names the other like it.
    rows = np.repeat(np.eye(6, dtype=np.float32), 2, axis=0)
    labels = np.tile([0, 1], 6)
    folds = np.tile([0, 1, 1, 0], 3)

    named = predict_out_of_fold(rows, labels, folds, classifier="knn")

    assert (named == 1 - labels).all()


def test_pictures_in_no_fold_are_learned_from_but_not_predicted():
    rows = np.array([[0.0], [0.1], [1.0], [1.1], [9.0]], dtype=np.float32)
    labels = np.array([0, 0, 1, 1, 2])

    named = predict_out_of_fold(rows, labels, np.array([0, 1, 0, 1, -1]))

    assert named.tolist() == [0, 0, 1, 1, -1]


def outcome(right, *, milliseconds=1.0):
    flags = np.zeros(200, dtype=bool)
    flags[:right] = True
    return Outcome(OWN, 10, "mit", {PROBE: flags, NEIGHBOURS: flags}, milliseconds, 0)


def standing(*networks):
    measured = [
        (Candidate(BackboneSpec(name, weights=None), 8_000_000), found) for name, found in networks
    ]
    return Ranking(compared(in_order(measured)), (), (), 5, 200, "ab" * 32, 1.0)


def test_a_clear_winner_is_marked_as_best():
    ranking = standing(("weak", outcome(120)), ("strong", outcome(190)))

    assert ranking.table().best == 0
    assert [row.tie for row in ranking.rows] == [True, False]
    assert "* strong is better than every other one here" in ranking.table().to_text()
    assert "\N{MINUS SIGN}35.0 points [" in str(ranking.table().rows[1][-1])


def test_networks_that_cannot_be_told_apart_are_ties_and_none_is_best():
    ranking = standing(
        ("slow", outcome(180, milliseconds=30.0)),
        ("quick", outcome(178, milliseconds=3.0)),
        ("weak", outcome(100)),
    )
    text = ranking.table().to_text()

    assert ranking.table().best is None
    assert [row.backbone for row in ranking.ties] == ["slow", "quick"]
    assert "quick cannot be told from slow" in text
    assert "Of these the quickest is quick." in text


def test_of_equals_the_quicker_stands_first():
    ranking = standing(
        ("slow", outcome(180, milliseconds=30.0)), ("quick", outcome(180, milliseconds=3.0))
    )

    assert [row.backbone for row in ranking.rows] == ["quick", "slow"]


def test_many_pairs_make_the_test_stricter():
    six_apart = outcome(174)  # p = 0.03 alone
    alone = standing(("first", outcome(180)), ("second", six_apart))
    among = standing(
        ("first", outcome(180)), ("second", six_apart), ("third", six_apart), ("fourth", six_apart)
    )

    assert not alone.rows[1].tie
    assert all(row.tie for row in among.rows)


def test_of_many_equally_good_networks_none_is_called_worse():
    random = np.random.default_rng(0)
    told_apart = 0
    for _ in range(100):
        rights = random.random((30, 500)) < 0.8
        networks = [
            (f"n{place}", Outcome(OWN, 10, "mit", {PROBE: right, NEIGHBOURS: right}, 1.0, 0))
            for place, right in enumerate(rights)
        ]
        told_apart += len(standing(*networks).ties) < 30

    assert told_apart < 8


@pytest.mark.parametrize(
    ("own", "name"),
    [
        (Preprocessing.tf(), "\N{MINUS SIGN}1 to 1"),
        (Preprocessing.torch(), "ImageNet mean and deviation"),
        (Preprocessing.caffe(mean=(104.0, 117.0, 123.0)), "Caffe: BGR, mean subtracted"),
        (Preprocessing.torch(mean=(0, 0, 0), std=(1, 1, 1)), "0 to 1"),
        (Preprocessing.torch(mean=(127.5,) * 3, std=(127.5,) * 3, scale=1), "\N{MINUS SIGN}1 to 1"),
    ],
)
def test_what_a_network_needs_is_no_mistake_for_it(own, name):
    wrong = mistakes_for(own)

    assert set(wrong) == set(MISTAKES) - {name}
    assert {(one.size, one.resize, one.mode) for one in wrong.values()} == {
        (own.size, own.resize, own.mode)
    }


def test_imported_weights_take_a_wrong_preprocessing_only_for_the_ablation():
    keep("mine")
    wrong = mistakes_for(OWN)["0 to 1"]

    built = build(with_preprocessing(BackboneSpec("mine"), wrong))

    assert built.preprocessing == wrong
    assert built.weights.sha256 == build("mine").weights.sha256
    assert build("mine").preprocessing == OWN
    with pytest.raises(BackboneError):
        build(BackboneSpec("mine", preprocessing=wrong))


def test_a_ranking_leaves_the_store_of_weights_as_it_was(flowers):
    keep("mine")
    before = {file: file.read_bytes() for file in store().rglob("*") if file.is_file()}

    rank(DataPlan(flowers.root, per_class=4), ["mine"], ablate=True)

    assert {f: f.read_bytes() for f in store().rglob("*") if f.is_file()} == before


def test_a_budget_runs_down():
    assert Budget(5.0).left <= 5.0
    assert Budget(0.0).left <= 0.0
