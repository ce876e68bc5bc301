"""Pictures pass the network once, in bounded memory, and what was computed is kept."""

import threading
import time

import numpy as np
import pytest
from PIL import Image

from regraft.backbones.spec import BackboneSpec, Compute, Preprocessing
from regraft.data import images as decoding
from regraft.errors import ImageError
from regraft.features import embed as module
from regraft.features.cache import FeatureCache
from regraft.features.embed import as_list, embed
from samples import refused

WIDTH = 3
MANY = [np.full((4, 4, 3), i, np.uint8) for i in range(60)]


class Engine:
    """The mean colour of each image, or what a function says; and how many came in which batch."""

    name = "torch"

    def __init__(self, function=None):
        self.batches = []
        self.function = function or (lambda batch: batch.mean(axis=(1, 2), dtype=np.float32))

    def __call__(self, batch):
        """Return rows, (n, 3)."""
        self.batches.append(len(batch))
        return self.function(batch)


class Backbone:
    """As much of a network as embedding looks at."""

    spec = BackboneSpec("simple_cnn")
    preprocessing = Preprocessing.torch(8)
    fingerprint = "f" * 64

    def __init__(self, prepare=None):
        self.prepare = prepare or prepared

    def fingerprint_of(self, pooling):
        """Return what tells it from others."""
        return self.fingerprint + pooling


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "cache")


@pytest.fixture
def images(tmp_path):
    paths = []
    for i in range(10):
        paths.append(tmp_path / f"{i}.png")
        Image.new("RGB", (20, 20), (i, 2 * i, 255 - i)).save(paths[-1])
    return paths


def prepared(image):
    return np.asarray(image.resize((8, 8)))


def run(images, cache, engine, *, prepare=None, batch_size=4, verbose=False):
    return embed(
        Backbone(prepare),
        images,
        cache=cache,
        width=WIDTH,
        pooling="avg",
        build_engine=lambda: engine,
        compute=Compute(device="cpu", engine="torch"),
        batch_size=batch_size,
        verbose=verbose,
    )


def colours(numbers):
    return np.array([(i, 2 * i, 255 - i) for i in numbers], np.float32)


def test_rows_come_in_the_order_of_the_images(images, cache, engine):
    embedded = run(images, cache, engine)

    assert np.array_equal(embedded.matrix(), colours(range(10)))
    assert embedded.names == tuple(map(str, images))
    assert embedded.shape == (10, WIDTH)
    assert engine.batches == [4, 4, 2]


def test_the_same_image_twice_passes_the_network_once(images, cache, engine):
    order = [3, 1, 3, 3, 0, 1]
    copy = images[0].with_name("copy.png")
    copy.write_bytes(images[3].read_bytes())

    embedded = run([*(images[i] for i in order), copy], cache, engine)

    assert np.array_equal(embedded.matrix(), colours([*order, 3]))
    assert (embedded.stats.images, embedded.stats.embedded) == (7, 3)


def test_what_is_known_is_neither_decoded_nor_embedded(images, cache, engine, monkeypatch):
    run(images, cache, engine)
    monkeypatch.setattr(module, "decode", None)

    embedded = run(images[::-1], cache, None)

    assert embedded.stats.embedded == 0
    assert np.array_equal(embedded.matrix(), colours(range(9, -1, -1)))


def test_a_file_that_changes_while_it_is_used_is_stored_under_what_was_decoded(
    images, cache, engine, monkeypatch
):
    def change_then_decode(content, how):
        Image.new("RGB", (20, 20), (200, 0, 0)).save(content.name)
        return decoding.decode(content, how)

    monkeypatch.setattr(module, "decode", change_then_decode)
    before = run(images[:1], cache, engine)
    monkeypatch.setattr(module, "decode", decoding.decode)
    after = run(images[:1], cache, engine)

    assert before.matrix().tolist() == [[0, 0, 255]]
    assert after.matrix().tolist() == [[200, 0, 0]]


def test_a_bad_image_is_an_error_with_its_name_and_what_was_done_stays(images, cache, engine):
    for i in (9, 8):  # the first in order is the one that is named
        images[i].write_bytes(f"no image {i}".encode())

    def too_thin(_image):
        raise ImageError("too long and thin", path="image", code="IMG-ASPECT")

    unread = refused(run, images, cache, engine, batch_size=3)
    unprepared = refused(run, images[6:], cache, engine, prepare=too_thin)

    assert (unread.path, unprepared.path) == (str(images[8]), str(images[6]))
    assert run(images[:8], cache, engine).stats.embedded == 2
    assert run([], cache, None).matrix().shape == (0, WIDTH)


def test_after_an_error_no_thread_goes_on_decoding(cache):
    def fail(_batch):
        raise MemoryError

    def slow(image):
        time.sleep(0.02)
        return prepared(image)

    with pytest.raises(MemoryError) as caught:  # keeps the traceback, and with it all frames, alive
        run(MANY, cache, Engine(fail), prepare=slow)

    assert caught.value
    assert not [t for t in threading.enumerate() if t.name.startswith("regraft-load")]


def test_numbers_that_are_not_finite_are_refused_and_not_cached(images, cache):
    def broken(batch):
        return np.full((len(batch), WIDTH), np.nan, np.float32)

    error = refused(run, images, cache, Engine(broken))

    assert "not finite" in str(error)
    assert not list(cache.folder.glob("*/*.rows"))


def test_a_folder_that_cannot_be_written_is_found_out_before_the_network_is_built(images, tmp_path):
    (tmp_path / "file").write_text("no folder")
    cache = FeatureCache(tmp_path / "file")

    assert "cannot store features" in str(refused(run, images, cache, None))


def test_the_threads_stay_at_most_two_batches_ahead_of_the_network(images, cache):
    decoded = threading.Semaphore(0)
    ahead = []

    def counting(image):
        decoded.release()
        return prepared(image)

    def slow(batch):
        time.sleep(0.05)
        ahead.append(decoded._value - sum(map(len, done)))
        done.append(batch)
        return batch.mean(axis=(1, 2), dtype=np.float32)

    done = []
    run(MANY, cache, Engine(slow), prepare=counting, batch_size=2)

    assert 2 < max(ahead) <= 2 + 2 * 2 + module.threads() + 1


def test_one_image_is_no_list_and_an_array_of_several_is_one():
    for one in ("a.jpg", np.zeros((4, 4, 3), np.uint8), Image.new("RGB", (4, 4))):
        assert "not a list of images" in str(refused(as_list, one))
    for several in (np.array(["a.jpg", "b.jpg"]), np.zeros((2, 4, 4, 3), np.uint8)):
        assert len(as_list(several)) == 2
