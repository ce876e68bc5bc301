"""Ranking networks on own images: what is compared, what is said, and what is left alone."""

import json

import numpy as np
import pytest

from regraft.backbones.backbone import build
from regraft.backbones.checkpoint_files import write_state
from regraft.backbones.sources import import_weights
from regraft.backbones.spec import BackboneSpec, Compute, Preprocessing
from regraft.backbones.weights import find_weights, store
from regraft.data.synthetic import make_flowers
from regraft.errors import BackboneError, WeightsError
from regraft.experiment import rank as ranks
from regraft.experiment.config import DataConfig
from regraft.experiment.prepare import prepare
from regraft.experiment.probes import (
    MISTAKES,
    NEIGHBOURS,
    PROBE,
    Bench,
    Outcome,
    mistakes_for,
    with_preprocessing,
)
from regraft.experiment.rank import (
    NO_WEIGHTS,
    NOT_HERE,
    Here,
    LeftOut,
    Ranking,
    find_here,
    rank_backbones,
    ranked,
)
from regraft.features.extractor import FeatureExtractor
from regraft.files import home

OWN = Preprocessing.tf(48, mode="squash", resize=64)


def random_network(seed):
    return BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),), seed=seed)


def keep(name, *, seed=0, preprocessing=OWN):
    """Put a small random network into the store under a name."""
    file = home() / f"{name}.safetensors"
    write_state(file, build(random_network(seed)).module.state_dict())
    return import_weights(file, name=name, backbone="simple_cnn", preprocessing=preprocessing)


def rank(flowers, backbones=None, *, cache="default", **options):
    compute = Compute(engine="torch", cache=cache)
    data = DataConfig(flowers.root)
    return rank_backbones(data, backbones, **{"folds": 3, "compute": compute, **options})


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    return make_flowers(tmp_path_factory.mktemp("flowers"), species=3, per_class=15, size=48)


@pytest.fixture(scope="module")
def two(flowers, tmp_path_factory):
    """Return the ranking of two random networks, with wrong preprocessings."""
    cache = tmp_path_factory.mktemp("cache")
    networks = [random_network(1), random_network(2)]
    return rank(flowers, networks, ablate=True, cache=cache)


def test_the_test_part_is_not_looked_at(flowers, monkeypatch):
    seen = set()
    stream = FeatureExtractor.stream

    def watched(self, paths):
        seen.update(paths)
        return stream(self, paths)

    monkeypatch.setattr(FeatureExtractor, "stream", watched)
    ranking = rank(flowers, [random_network(1)], ablate=True)
    split = prepare(DataConfig(flowers.root)).split

    assert seen == {*split.train.paths, *split.val.paths}
    assert ranking.images == len(seen)
    assert ranking.split_hash == split.hash


def test_a_second_call_computes_nothing_and_says_the_same(flowers, two, tmp_path):
    networks = [random_network(1), random_network(2)]

    first = rank(flowers, networks, ablate=True, cache=tmp_path)
    second = rank(flowers, networks, ablate=True, cache=tmp_path)

    assert [row.outcome.embedded for row in first.rows] == [first.images] * 2
    assert {row.outcome.embedded for row in second.rows} == {0}
    assert {mistake.embedded for mistake in second.mistakes} == {0}
    assert all(row.outcome.milliseconds > 0 for row in first.rows)
    figures = [sorted(str(row[:6]) for row in both.table().rows) for both in (first, second)]
    assert figures[0] == figures[1]
    assert set(second.ablation_table().rows) == set(first.ablation_table().rows)


def test_the_features_are_those_that_a_fit_uses(flowers):
    rank(flowers, [random_network(1)])

    extractor = FeatureExtractor(random_network(1), compute=Compute(engine="torch"))
    extractor.transform(prepare(DataConfig(flowers.root)).split.train.paths)

    assert extractor.stats_.embedded == 0


def test_rows_stand_by_their_linear_probe_and_carry_an_interval_over_all_images(two):
    values = [row.outcome.accuracy(PROBE).value for row in two.rows]

    assert values == sorted(values, reverse=True)
    for row in two.rows:
        probe, knn = (row.outcome.accuracy(name) for name in (PROBE, NEIGHBOURS))
        assert probe.n == knn.n == two.images == 33
        assert probe.low < probe.value <= probe.high
        assert row.to_json()["input_size"] == 48
        assert row.to_json()["parameters"] > 100_000


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
def without_the_packaged(monkeypatch):
    """Leave out the networks whose building takes longer than all else here."""
    listed = ranks.list_backbones
    monkeypatch.setattr(
        ranks,
        "list_backbones",
        lambda: tuple(
            entry for entry in listed() if not entry.name.startswith("efficientnet_lite")
        ),
    )


def test_without_names_every_network_whose_weights_are_here_is_a_candidate():
    keep("mine")

    here, others = find_here()
    left_out = {one.backbone: one.why for one in others}

    assert {one.spec.name for one in here} >= {"efficientnet_lite0", "mine"}
    assert all(
        one.bytes > 10_000 for one in here if one.spec.name in {"efficientnet_lite0", "mine"}
    )
    assert left_out["vgg16"] == NOT_HERE
    assert left_out["simple_cnn"] == NO_WEIGHTS
    assert find_weights("vgg16") is None


def test_what_is_left_out_is_said_reason_by_reason(flowers, without_the_packaged):
    keep("mine")

    text = rank(flowers, per_class=4).table().to_text()

    assert text.count(NOT_HERE) == text.count(NO_WEIGHTS) == 1
    assert "Left out: alexnet, vgg16" in text


def test_a_named_network_without_weights_is_left_out_and_never_fetched(flowers):
    here, others = find_here(["vgg16", random_network(0), random_network(0)])

    assert [one.spec for one in here] == [random_network(0)]
    assert others == [LeftOut("vgg16", NOT_HERE)]
    with pytest.raises(WeightsError) as refused:
        rank(flowers, ["vgg16"])
    assert refused.value.code == "WEIGHTS-MISSING"


def test_an_unknown_name_is_an_error_that_names_the_nearest(flowers):
    with pytest.raises(BackboneError) as refused:
        rank(flowers, ["vgg61"])

    assert "vgg16" in refused.value.hint


def test_damaged_weights_are_left_out_of_a_ranking_of_everything(flowers, without_the_packaged):
    keep("sound")
    file = keep("damaged").path
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")

    ranking = rank(flowers, per_class=4)

    assert "sound" in {row.backbone for row in ranking.rows}
    assert "damaged" in {one.backbone for one in ranking.left_out}


def test_a_spent_budget_leaves_one_network_and_says_what_is_missing(flowers):
    networks = [random_network(1), random_network(2)]

    ranking = rank(flowers, networks, budget=1e-6, ablate=True)

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
    measure = Bench.measure

    def watched(self, spec, classifiers):
        measured.append(spec.seed)
        return measure(self, spec, classifiers)

    monkeypatch.setattr(Bench, "expect", lambda _, spec: seconds[spec.seed])
    monkeypatch.setattr(Bench, "measure", watched)
    networks = [random_network(seed) for seed in seconds]

    ranking = rank(flowers, networks, budget=40.0)

    assert measured == [2, 1]
    assert [one.why[:17] for one in ranking.left_out] == ["it needs about 50"]


def test_images_per_class_are_taken_from_training_and_validation_together(flowers):
    ranking = rank(flowers, [random_network(1)], per_class=10)

    assert ranking.images == 30


def outcome(right, *, milliseconds=1.0):
    flags = np.zeros(200, dtype=bool)
    flags[:right] = True
    return Outcome(OWN, 10, "mit", {PROBE: flags, NEIGHBOURS: flags}, milliseconds, 0)


def standing(*networks):
    measured = [
        (Here(BackboneSpec(name, weights=None), 8_000_000), found) for name, found in networks
    ]
    return Ranking(ranked(measured), (), (), 5, 200, "ab" * 32, 1.0)


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

    rank(flowers, per_class=4, backbones=["mine"], ablate=True)

    assert {f: f.read_bytes() for f in store().rglob("*") if f.is_file()} == before
