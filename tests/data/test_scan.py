"""Walking folders: junk, links, and folders too large to hold in memory."""

import os
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import pytest
from regraft.data.scan import Walk, is_below, is_junk

from regraft.errors import DataError


@pytest.fixture
def rose(tmp_path):
    """Return a data folder with one class folder, ``rose``, of one picture."""
    folder = tmp_path / "data" / "rose"
    folder.mkdir(parents=True)
    (folder / "1.jpg").write_bytes(b"1")
    return folder


def pictures(folder, **options):
    walk = Walk(folder.parent, **options)
    return [found.path for found in walk.pictures(folder)], walk.ignored


@pytest.mark.parametrize(
    "name", [".DS_Store", "._rose.jpg", "Thumbs.db", "__MACOSX", "@eaDir", ".git", "desktop.ini"]
)
def test_what_systems_leave_behind_is_junk(name):
    assert is_junk(name)


@pytest.mark.parametrize("name", ["-rose.jpg", " rose.jpg", "_rose", "ros\ne.jpg", "🌹.png"])
def test_odd_names_are_no_junk(name):
    assert not is_junk(name)


def test_junk_and_other_files_are_counted_not_silently_dropped(rose):
    for name in ("._1.jpg", "Thumbs.db", "notes.txt", "more.TXT", "README"):
        (rose / name).touch()

    found, ignored = pictures(rose)

    assert found == [str(rose / "1.jpg")]
    assert ignored == {
        "hidden and system files": 2,
        ".txt: not a picture": 2,
        "no suffix: not a picture": 1,
    }


def test_broken_and_odd_files_named_as_pictures_are_kept_for_the_check(rose):
    (rose / "empty.png").touch()
    (rose / "nowhere.jpg").symlink_to(rose / "gone.jpg")
    os.mkfifo(rose / "pipe.jpg")

    found, _ = pictures(rose)

    assert sorted(Path(path).name for path in found) == [
        "1.jpg",
        "empty.png",
        "nowhere.jpg",
        "pipe.jpg",
    ]


@pytest.mark.parametrize("target", ["..", ".", "../../data", "loop"])
def test_links_that_lead_in_a_circle_are_refused(rose, target):
    (rose / "loop").symlink_to(target)

    with pytest.raises(DataError) as caught:
        pictures(rose)

    assert caught.value.code == "DATA-LINK-LOOP"


def test_links_to_each_other_are_refused(rose):
    (rose / "a.jpg").symlink_to("b.jpg")
    (rose / "b.jpg").symlink_to("a.jpg")

    with pytest.raises(DataError) as caught:
        pictures(rose)

    assert caught.value.code == "DATA-LINK-LOOP"


def test_a_circle_through_a_folder_outside_is_refused(rose, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "back").symlink_to(rose.parent)
    (rose / "away").symlink_to(outside)

    with pytest.raises(DataError) as caught:
        pictures(rose, follow_outside=True)

    assert caught.value.code == "DATA-LINK-LOOP"


def test_a_link_that_leads_out_is_refused_unless_asked_for(rose, tmp_path):
    (tmp_path / "secret.jpg").touch()
    (rose / "2.jpg").symlink_to(tmp_path / "secret.jpg")

    with pytest.raises(DataError) as caught:
        pictures(rose)

    assert caught.value.code == "DATA-LINK-OUTSIDE"
    assert len(pictures(rose, follow_outside=True)[0]) == 2


def test_a_folder_beside_with_the_same_beginning_is_outside():
    assert not is_below("/data/rose", "/data/roses/1.jpg")


def test_a_folder_that_cannot_be_read_is_named(rose, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(os, "scandir", refuse)

    with pytest.raises(DataError, match="Permission denied") as caught:
        pictures(rose)

    assert caught.value.code == "DATA-UNREADABLE"


class GeneratedFolder:
    """Stands for ``os.scandir`` of a folder of many files that are made up on the way."""

    def __init__(self, size):
        self.size = size

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def __iter__(self):
        for number in range(self.size):
            name = f"{number}.jpg"
            yield SimpleNamespace(
                name=name, path=f"/d/{name}", is_symlink=lambda: False, is_dir=lambda: False
            )


@pytest.mark.parametrize("size", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_a_huge_folder_streams_through_little_memory(rose, monkeypatch, size):
    walk = Walk(rose.parent)
    monkeypatch.setattr(os, "scandir", lambda _folder: GeneratedFolder(size))
    tracemalloc.start()

    count = sum(1 for _ in walk.pictures(rose))

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == size
    assert peak < 1_000_000


def test_a_broken_link_is_kept_for_the_check_to_report(rose, tmp_path):
    (rose / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")

    names = [Path(found.path).name for found in Walk(rose.parent).pictures(rose)]

    assert "gone.jpg" in names
