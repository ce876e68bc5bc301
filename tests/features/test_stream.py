"""Pictures pass the network once, in bounded memory, and what was computed is kept."""

import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from PIL import Image

from regraft.data import images
from regraft.data.images import Decoding
from regraft.errors import BackboneError, ImageError, RegraftError
from regraft.features import stream
from regraft.features.cache import FeatureCache
from regraft.features.stream import embed

WIDTH = 3


class CountingEngine:
    """The mean colour of each picture, and how many pictures came in which batches."""

    def __init__(self):
        self.batches = []

    def __call__(self, pictures):
        """Return the mean colours, (n, 3)."""
        self.batches.append(len(pictures))
        return pictures.mean(axis=(1, 2), dtype=np.float32)


@pytest.fixture
def engine():
    return CountingEngine()


@pytest.fixture
def rows(tmp_path):
    return FeatureCache(tmp_path / "cache").rows({}, WIDTH)


@pytest.fixture
def pictures(tmp_path):
    paths = []
    for i in range(10):
        paths.append(tmp_path / f"{i}.png")
        Image.new("RGB", (20, 20), (i, 2 * i, 255 - i)).save(paths[-1])
    return paths


def prepare(image):
    return np.asarray(image.resize((8, 8)))


def run(pictures, rows, engine, **changed):
    settings = {
        "prepare": prepare,
        "build_engine": lambda: engine,
        "about": {},
        "batch_size": 4,
        "decoding": Decoding(),
        "verbose": False,
    }
    return embed(pictures, rows, **(settings | changed))


def colours(numbers):
    return np.array([(i, 2 * i, 255 - i) for i in numbers], np.float32)


def test_rows_come_in_the_order_of_the_pictures(pictures, rows, engine):
    embedded = run(pictures, rows, engine)

    assert np.array_equal(embedded.matrix(), colours(range(10)))
    assert embedded.names == tuple(map(str, pictures))
    assert embedded.shape == (10, WIDTH)
    assert engine.batches == [4, 4, 2]


def test_the_same_picture_twice_passes_the_network_once(pictures, rows, engine):
    order = [3, 1, 3, 3, 0, 1]

    embedded = run([pictures[i] for i in order], rows, engine)

    assert np.array_equal(embedded.matrix(), colours(order))
    assert (embedded.images, embedded.embedded) == (6, 3)


def test_the_same_bytes_under_another_name_pass_the_network_once(pictures, rows, engine, tmp_path):
    (tmp_path / "copy.png").write_bytes(pictures[2].read_bytes())

    embedded = run([pictures[2], tmp_path / "copy.png"], rows, engine)

    assert embedded.embedded == 1
    assert np.array_equal(embedded.matrix(), colours([2, 2]))


def test_what_is_known_is_neither_decoded_nor_embedded(pictures, rows, engine, monkeypatch):
    run(pictures, rows, engine)
    monkeypatch.setattr(stream, "decode", None)

    embedded = run(pictures[::-1], rows, None, prepare=None, build_engine=None)

    assert embedded.embedded == 0
    assert np.array_equal(embedded.matrix(), colours(range(9, -1, -1)))


def test_a_file_that_changed_is_embedded_again(pictures, rows, engine):
    before = run(pictures[:1], rows, engine).matrix()
    Image.new("RGB", (20, 20), (200, 0, 0)).save(pictures[0])

    after = run(pictures[:1], rows, engine)

    assert before.tolist() == [[0, 0, 255]]
    assert after.matrix().tolist() == [[200, 0, 0]]


def test_a_file_that_changes_while_it_is_used_is_stored_under_what_was_decoded(
    pictures, rows, engine, monkeypatch
):
    def change_then_decode(content, decoding):
        Image.new("RGB", (20, 20), (200, 0, 0)).save(content.name)
        return images.decode(content, decoding)

    monkeypatch.setattr(stream, "decode", change_then_decode)
    before = run(pictures[:1], rows, engine)
    monkeypatch.setattr(stream, "decode", images.decode)
    after = run(pictures[:1], rows, engine)

    assert before.matrix().tolist() == [[0, 0, 255]]
    assert after.matrix().tolist() == [[200, 0, 0]]


def test_arrays_and_pillow_images_are_pictures_too(pictures, rows, engine):
    with Image.open(pictures[3]) as image:
        image.load()
        array = np.full((9, 5, 3), 7, np.uint8)

        matrix = run([image, array, pictures[4]], rows, engine).matrix()

    assert np.array_equal(matrix, [colours([3])[0], (7, 7, 7), colours([4])[0]])


def test_no_pictures_give_no_rows(rows):
    embedded = run([], rows, None, build_engine=None)

    assert embedded.matrix().shape == (0, WIDTH)
    assert list(embedded.blocks()) == []


def test_a_bad_picture_is_an_error_with_its_name_and_what_was_done_stays(pictures, rows, engine):
    pictures[9].write_bytes(b"no picture at all")

    with pytest.raises(ImageError) as caught:
        run(pictures, rows, engine)

    assert caught.value.path == str(pictures[9])
    pictures.pop()
    assert run(pictures, rows, engine).embedded == 1


def test_after_an_error_no_thread_goes_on_decoding(rows):
    def fail(_batch):
        raise MemoryError

    many = [np.full((4, 4, 3), i, np.uint8) for i in range(60)]

    with pytest.raises(MemoryError) as caught:  # keeps the traceback, and with it all frames, alive
        run(many, rows, fail, prepare=lambda image: time.sleep(0.02) or prepare(image))

    assert caught.value
    assert not [t for t in threading.enumerate() if t.name.startswith("regraft-load")]


def test_an_error_of_the_preparation_names_the_file(pictures, rows, engine):
    def refuse(_image):
        raise ImageError("too long and thin", path="picture", code="IMG-ASPECT")

    with pytest.raises(ImageError) as caught:
        run(pictures, rows, engine, prepare=refuse)

    assert caught.value.path == str(pictures[0])


def test_the_first_bad_picture_in_order_is_the_one_named(pictures, rows, engine):
    for i in (9, 5, 7):
        pictures[i].write_bytes(b"no picture at all")

    with pytest.raises(ImageError) as caught:
        run(pictures, rows, engine)

    assert caught.value.path == str(pictures[5])


def test_numbers_that_are_not_finite_are_refused_and_not_cached(pictures, rows):
    def broken(batch):
        return np.full((len(batch), WIDTH), np.nan, np.float32)

    with pytest.raises(BackboneError, match="not finite"):
        run(pictures, rows, broken)

    assert not list(rows.folder.glob("*.npy"))


def test_a_folder_that_cannot_be_written_is_found_out_before_the_network_is_built(
    pictures, tmp_path
):
    (tmp_path / "file").write_text("no folder")
    rows = FeatureCache(tmp_path / "file").rows({}, WIDTH)

    with pytest.raises(RegraftError, match="cannot store features"):
        run(pictures, rows, None, build_engine=None)


def test_the_threads_stay_at_most_two_batches_ahead_of_the_network(pictures, rows):
    decoded = threading.Semaphore(0)
    ahead = []

    def counting(image):
        decoded.release()
        return prepare(image)

    def slow(batch):
        time.sleep(0.05)
        ahead.append(decoded._value - sum(map(len, done)))
        done.append(batch)
        return batch.mean(axis=(1, 2), dtype=np.float32)

    done = []
    many = [np.full((4, 4, 3), i, np.uint8) for i in range(60)]
    run(many, rows, slow, prepare=counting, batch_size=2)

    assert max(ahead) <= 2 + 2 * 2 + stream.threads() + 1


def test_progress_is_shown_on_request(pictures, rows, engine, capsys, monkeypatch):
    monkeypatch.setattr("regraft.progress._LINE_EVERY_SECONDS", 0.0)

    run(pictures, rows, engine, verbose=True)

    assert "Embedding: 10 of 10 images" in capsys.readouterr().err


INTERRUPTED = """
    import sys, time, _thread
    import numpy as np
    from regraft.data.images import Decoding
    from regraft.features.cache import FeatureCache
    from regraft.features.stream import embed

    pictures = [np.full((8, 8, 3), i % 256, np.uint8) + np.uint8(i // 256) for i in range(200)]
    calls = []

    def engine(batch):
        calls.append(len(batch))
        if len(calls) == 3:
            print(time.monotonic(), flush=True)
            _thread.interrupt_main()
        time.sleep(0.01)
        return batch.mean(axis=(1, 2), dtype=np.float32)

    rows = FeatureCache(sys.argv[1]).rows({}, 3)
    try:
        embed(
            pictures, rows, prepare=np.asarray, build_engine=lambda: engine, about={},
            batch_size=4, decoding=Decoding(), verbose=False,
        )
    except KeyboardInterrupt:
        print(time.monotonic())
"""


def test_ctrl_c_keeps_what_was_computed_and_leaves_at_once(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    asked, left = map(float, result.stdout.split())
    (shard,) = tmp_path.glob("*/*.npy")

    assert left - asked < 2
    assert np.load(shard).shape in {(8, 3), (12, 3)}
    assert result.stderr == ""
