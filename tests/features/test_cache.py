"""Cached rows are exact or absent, whatever else happens to their folder."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regraft.features import cache as cache_module
from regraft.features.cache import FeatureCache
from regraft.files import read_json, sha256_bytes, sha256_json, unfinished_mark
from samples import refused

ABOUT = {"backbone": "f" * 64, "engine": "torch", "precision": "fp32", "view": None}
DIGESTS = [sha256_bytes(bytes([i])) for i in range(6)]
FEATURES = np.arange(18, dtype=np.float32).reshape(6, 3)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def rows(folder):
    return FeatureCache(folder).rows(ABOUT, 3)


def again(folder, about=ABOUT):
    return FeatureCache(folder).rows(about, 3)


def test_rows_come_back_in_the_order_asked_for_also_in_a_fresh_object(rows, folder):
    rows.append(DIGESTS[:4], FEATURES[:4])
    rows.append(DIGESTS[4:], FEATURES[4:])
    rows.append(DIGESTS[:2] * 2, FEATURES[[0, 1, 0, 1]])  # duplicates are harmless
    fresh = again(folder)
    order = [5, 0, 3, 3]

    known = fresh.known([DIGESTS[i] for i in order])

    assert known.all()
    assert np.array_equal(fresh.read([DIGESTS[i] for i in order]), FEATURES[order])
    with pytest.raises(ValueError, match=r"expected \(6, 3\)"):
        rows.append(DIGESTS, FEATURES.T)


def test_the_default_folder_is_in_the_home_of_regraft(private_home):
    FeatureCache().rows(ABOUT, 3).append(DIGESTS, FEATURES)

    (about,) = private_home.glob("features/*/about.json")

    written = read_json(about)
    assert written == {**ABOUT, "width": 3}
    assert about.parent.name == sha256_json(written)[:16]


@given(
    name=st.sampled_from(sorted(ABOUT)),
    value=st.text(max_size=5) | st.integers() | st.booleans() | st.lists(st.integers()),
)
def test_one_changed_ingredient_is_another_key(name, value):
    rows = FeatureCache("cache").rows(ABOUT, 3)

    other = FeatureCache("cache").rows({**ABOUT, name: value}, 3)

    assert other.key != rows.key
    assert other.folder != rows.folder


def test_a_shard_moved_from_another_key_is_never_served(rows, folder):
    other = again(folder, {**ABOUT, "engine": "openvino"})
    other.append(DIGESTS, FEATURES)
    rows.prepare()
    (shard,) = other.folder.glob("*.rows")
    shard.rename(rows.folder / shard.name)

    assert not rows.known(DIGESTS).any()


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_happens_to_a_shard_no_wrong_row_is_served(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    rows = again(folder)
    rows.append(DIGESTS, FEATURES)
    (shard,) = rows.folder.glob("*.rows")
    content = bytearray(shard.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    change = data.draw(st.sampled_from(["flip", "cut", "insert", "junk"]))
    if change == "flip":
        content[position] ^= data.draw(st.integers(1, 255))
    elif change == "cut":
        del content[position:]
    elif change == "insert":
        content[position:position] = data.draw(st.binary(min_size=1, max_size=100))
    else:
        content[:] = data.draw(st.binary(max_size=300))
    shard.write_bytes(content)
    before = again(folder).known(DIGESTS)

    for _ in range(3):  # the order in which a folder lists its files is not ours to choose
        again(folder).append(DIGESTS[2:3], FEATURES[2:3])

    after = again(folder)
    assert not before.any()
    assert after.known(DIGESTS).tolist() == [False, False, True, False, False, False]
    assert np.array_equal(after.read(DIGESTS[2:3]), FEATURES[2:3])


def test_damage_is_found_by_reading_alone_too(rows, folder):
    rows.append(DIGESTS, FEATURES)
    fresh = again(folder)
    fresh.known([])
    (shard,) = rows.folder.glob("*.rows")
    shard.write_bytes(b"\1" + shard.read_bytes()[1:])

    assert "gone" in str(refused(fresh.read, DIGESTS))


def test_rows_that_vanish_before_they_are_read_are_an_error_that_says_what_to_do(rows, folder):
    rows.append(DIGESTS, FEATURES)
    shutil.rmtree(folder)

    error = refused(rows.read, DIGESTS)

    assert error.code == "CACHE-MISSING"
    assert "run again" in str(error)


def test_a_home_that_cannot_be_made_is_an_error_that_names_regraft_home(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("REGRAFT_HOME", str(tmp_path / "file"))

    error = refused(again(None).prepare)

    assert error.code == "CACHE-WRITE"
    assert "REGRAFT_HOME" in str(error)


def test_a_read_only_cache_still_serves_what_it_has_and_says_that_it_takes_nothing(
    rows, folder, monkeypatch
):
    rows.append(DIGESTS, FEATURES)
    monkeypatch.setattr(os, "access", lambda *_arguments: False)

    assert again(folder).known(DIGESTS).all()
    assert "permission denied" in str(refused(rows.prepare))


def test_a_temporary_cache_goes_with_the_last_rows_that_use_it():
    rows = FeatureCache.temporary().rows(ABOUT, 3)
    rows.append(DIGESTS, FEATURES)
    folder = rows.folder.parent

    there = folder.is_dir()
    del rows

    assert there
    assert not folder.exists()


@pytest.mark.parametrize(("room", "shards"), [(cache_module._FLUSH_BYTES, 1), (2 * 3 * 4, 4)])
def test_the_writer_gathers_batches_into_shards(rows, monkeypatch, room, shards):
    monkeypatch.setattr(cache_module, "_FLUSH_BYTES", room)

    with rows.writer() as add:
        for i in (0, 1, 2, 4):
            add(DIGESTS[i : i + 2], FEATURES[i : i + 2])

    assert len(list(rows.folder.glob("*.rows"))) == shards
    assert np.array_equal(rows.read(DIGESTS), FEATURES)


def test_the_writer_stores_what_it_has_when_the_work_is_interrupted(rows, folder):
    def work():
        with rows.writer() as add:
            add(DIGESTS[:4], FEATURES[:4])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()

    assert again(folder).known(DIGESTS).sum() == 4


WRITE_FOR_EVER = """
    import sys
    import numpy as np
    from regraft.features.cache import FeatureCache
    from regraft.files import sha256_bytes

    worker = int(sys.argv[2])
    rows = FeatureCache(sys.argv[1]).rows({}, 5)
    for i in range(int(sys.argv[3])):
        number = i % 50 if i % 2 else worker * 1_000_000 + i
        digest = sha256_bytes(str(number).encode())
        rows.append([digest], np.full((1, 5), number, np.float32))
        print(number, flush=True)
"""


def start_writer(folder, worker, count):
    command = [sys.executable, "-c", textwrap.dedent(WRITE_FOR_EVER), folder, worker, count]
    return subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)


def assert_exact(folder, numbers):
    rows = FeatureCache(folder).rows({}, 5)
    digests = [sha256_bytes(str(number).encode()) for number in numbers]

    assert rows.known(digests).all()
    assert np.array_equal(rows.read(digests)[:, 0], np.array(numbers, np.float32))


def test_processes_that_write_and_read_at_the_same_time_lose_nothing(folder):
    writers = [start_writer(folder, worker, 40) for worker in range(3)]
    reader = FeatureCache(folder).rows({}, 5)
    shared = [sha256_bytes(str(number).encode()) for number in range(50)]
    while any(writer.poll() is None for writer in writers):
        known = reader.known(shared)
        numbers = np.flatnonzero(known)
        assert np.array_equal(reader.read([shared[i] for i in numbers])[:, 0], numbers)
    numbers = [int(line) for writer in writers for line in writer.communicate()[0].split()]

    assert len(numbers) == 120
    assert_exact(folder, numbers)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_a_killed_writer_loses_at_most_the_row_at_hand_and_its_leftovers_are_removed(folder):
    for _ in range(3):
        writer = start_writer(folder, 1, 100_000)
        numbers = [int(writer.stdout.readline()) for _ in range(20)]
        writer.send_signal(signal.SIGKILL)
        writer.communicate()

        assert_exact(folder, numbers)

    rows = FeatureCache(folder).rows({}, 5)
    (rows.folder / f".a.rows.{unfinished_mark(writer.pid)}.part").write_bytes(b"half a shard")
    rows.prepare()

    assert not list(rows.folder.glob(".*.part"))
