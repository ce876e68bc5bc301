"""A shard is whole or ignored, and a damaged row is found out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.features.shards import open_shard, write_shard

KEY = b"k" * 32
DIGESTS = [bytes([i]) * 32 for i in range(3)]
FEATURES = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "shard.npy"
    write_shard(path, KEY, DIGESTS, FEATURES)
    return path


def test_a_shard_is_a_plain_npy_file_that_others_can_map(file):
    mapped = np.load(file, mmap_mode="r")

    assert np.array_equal(mapped, FEATURES)


def test_a_shard_reads_back_as_written(file):
    shard, digests = open_shard(file, KEY, 4)
    result = np.zeros((2, 4), np.float32)

    shard.copy([(2, 0), (0, 1)], result)

    assert digests == DIGESTS
    assert np.array_equal(result, FEATURES[[2, 0]])


def test_a_shard_under_another_key_has_no_intact_row(file):
    shard, digests = open_shard(file, b"x" * 32, 4)

    assert not any(shard.is_intact(row, digest) for row, digest in enumerate(digests))


def test_a_shard_of_another_width_is_refused(file):
    with pytest.raises(ValueError, match="no complete shard of width 5"):
        open_shard(file, KEY, 5)


@settings(max_examples=150)
@given(data=st.data())
def test_whatever_happens_to_the_file_no_wrong_row_counts_as_intact(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "mutated.npy"
    write_shard(path, KEY, DIGESTS, FEATURES)
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    change = data.draw(st.sampled_from(["flip", "cut", "insert", "junk"]))
    if change == "flip":
        content[position] ^= data.draw(st.integers(1, 255))
    elif change == "cut":
        del content[position:]
    elif change == "insert":
        content[position:position] = data.draw(st.binary(min_size=1, max_size=50))
    else:
        content[:] = b"\x93NUMPY\x01\x00" + data.draw(st.binary(max_size=300))
    path.write_bytes(content)

    try:
        shard, digests = open_shard(path, KEY, 4)
    except (ValueError, OSError):
        return
    result = np.zeros((shard.count, 4), np.float32)
    intact = [row for row, digest in enumerate(digests) if shard.is_intact(row, digest)]
    shard.copy([(row, row) for row in intact], result)
    for row in intact:
        assert np.array_equal(result[row], FEATURES[DIGESTS.index(digests[row])])
