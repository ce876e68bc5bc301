"""How long a network will take on pictures of which some are cached."""

from dataclasses import replace

import numpy as np
import pytest
from regraft.experiment.bench import PROBE, Bench, Budget

from regraft.backbones.spec import BackboneSpec
from regraft.data.synthetic import make_flowers
from regraft.features.embed import EmbeddingStats
from regraft.features.extractor import FeatureExtractor

NETWORK = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))
READ, PASS = 0.001, 1.0  # seconds to read a picture, and to pass one through the network


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    return make_flowers(tmp_path_factory.mktemp("flowers"), species=2, per_class=100, size=48)


@pytest.fixture
def slow(monkeypatch):
    """Let every pass through the network seem to take a second."""
    stream = FeatureExtractor.stream

    def timed(self, pictures):
        embedded = stream(self, pictures)
        images, passed = embedded.stats.images, embedded.stats.embedded
        return replace(
            embedded, stats=EmbeddingStats(images, passed, READ * images + PASS * passed)
        )

    monkeypatch.setattr(FeatureExtractor, "stream", timed)


def bench_on(flowers, cache):
    return Bench(flowers, np.arange(len(flowers)) % 2, engine="torch", cache=cache)


def test_pictures_that_were_only_looked_at_do_not_make_a_network_look_cached(
    flowers, slow, tmp_path
):
    first = bench_on(flowers, tmp_path).expect(NETWORK)
    bench = bench_on(flowers, tmp_path)
    second = bench.expect(NETWORK)
    outcome = bench.measure(NETWORK, (PROBE,))
    hour = 3600.0

    assert second > 0.3 * first
    assert 100 < outcome.embedded < len(flowers)
    assert bench.too_long(hour, Budget(2 * hour)) == ""


def test_pictures_that_are_all_cached_take_as_long_as_reading_them(flowers, slow, tmp_path):
    bench_on(flowers, tmp_path).measure(NETWORK, (PROBE,))

    assert bench_on(flowers, tmp_path).expect(NETWORK) == pytest.approx(READ * len(flowers))


def test_pictures_that_are_half_cached_take_half_the_time(flowers, slow, tmp_path):
    whole = bench_on(flowers, tmp_path / "none").expect(NETWORK)
    half = flowers.take(range(0, len(flowers), 2))
    bench_on(half, tmp_path / "half").measure(NETWORK, (PROBE,))

    assert bench_on(flowers, tmp_path / "half").expect(NETWORK) == pytest.approx(whole / 2, rel=0.1)
