"""Inspecting very many pictures keeps a few dozen bytes of each and no pixels."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from regraft.data.inspection import Inspection, inspect_all

from regraft.data.images import Decoding, ImageFacts
from regraft.errors import ImageError


def facts(number):
    return ImageFacts(
        path=Path(str(number)),
        sha256=f"{number:064x}",
        width=10,
        height=10,
        mode="RGB",
        format="JPEG",
        frames=1,
        dhash=number * 0x9E3779B97F4A7C15 % 2**64,
        fine_hash=2**255 + number,
        notes=("NOTE-TINY",),
    )


def test_memory_grows_by_less_than_200_bytes_a_picture():
    count = 5000
    paths = tuple(Path(str(number)) for number in range(count))
    tracemalloc.start()

    inspection = inspect_all(paths, Decoding(), examine=lambda path, _: facts(int(path.name) + 1))

    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 200 * count
    assert inspection.notes == {"NOTE-TINY": count}
    assert len(inspection.examples["NOTE-TINY"]) == 3


def test_results_stand_at_the_places_of_their_pictures():
    def examine(path, decoding):
        if path.name == "bad":
            raise ImageError("damaged", path=path)
        return facts(int(path.name))

    inspection = inspect_all((Path("7"), Path("bad"), Path("9")), Decoding(), examine=examine)

    assert list(inspection.bad) == [1]
    assert inspection.usable() == [0, 2]
    assert [int.from_bytes(sha256, "big") for sha256 in inspection.sha256] == [7, 0, 9]
    assert int(inspection.fine_hashes[2, 3]) == 9


def test_an_error_that_is_no_image_error_is_not_hidden():
    def examine(path, decoding):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        inspect_all((Path("1"),), Decoding(), examine=examine)


def test_copies_and_flat_pictures_are_no_near_duplicates():
    inspection = Inspection.empty(4)
    for place, number in enumerate([5, 5, 6]):
        inspection.add(place, facts(number))
    inspection.hashes[:] = 0
    inspection.hashed[2] = False

    assert inspection.duplicates() == [[0, 1]]
    assert inspection.near_duplicates(4) == []
    inspection.hashed[2] = True
    assert inspection.near_duplicates(4) == [[0, 1, 2]]
    assert np.count_nonzero(inspection.hashed) == 3
