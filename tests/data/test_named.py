"""The catalogue of named data sets."""

import re

import pytest
from regraft.data.oxford import FLOWERS_17, FLOWERS_102

from regraft.data.named import NAMED, find_data
from regraft.download import check_address
from regraft.errors import UsageError


@pytest.mark.parametrize("data", NAMED, ids=lambda data: data.name)
def test_an_entry_says_all_that_a_reader_needs(data):
    assert re.fullmatch(r"[a-z0-9_]+", data.name)
    assert data.title
    assert data.licence
    assert data.citation
    assert data.page.startswith("https://")
    assert 1 < data.classes < data.pictures


@pytest.mark.parametrize("file", [f for data in NAMED for f in data.files], ids=lambda f: f.name)
def test_a_download_is_encrypted_and_can_be_checked(file):
    check_address(file.url)
    known = file.checksums
    assert known.sha256 or known.size
    assert re.fullmatch(r"|[0-9a-f]{64}", known.sha256)
    assert re.fullmatch(r"|[0-9a-f]{32}", known.md5)


def test_names_are_unique():
    assert len({data.name for data in NAMED}) == len(NAMED)


def test_classes_named_in_a_layout_are_as_many_as_are_promised():
    for data in NAMED:
        names = getattr(data.layout, "names", ())
        assert len(set(names)) in {0, data.classes}
    assert len(set(FLOWERS_17)) * 80 == find_data("flowers17").pictures
    assert len(set(FLOWERS_102)) == 102


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(UsageError, match="flowers17") as refusal:
        find_data("flower17")

    assert refusal.value.code == "DATA-UNKNOWN"


def test_a_name_like_none_shows_all():
    with pytest.raises(UsageError, match="there are flower_photos, flowers17"):
        find_data("zzzzzz")
