"""Files beside their target: whose they are, who may clear them away, and names of any length."""

import os
import subprocess
import sys
import time

import pytest

from regraft.files import (
    atomic_folder,
    atomic_path,
    remove_leftovers,
    temporary_folder,
    unfinished_mark,
    write_text,
)


@pytest.fixture
def ended():
    """Return the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def aged(path, hours):
    os.utime(path, (time.time() - hours * 3600,) * 2)


def test_what_an_ended_process_was_writing_is_removed_and_what_is_being_written_stays(
    tmp_path, ended
):
    file = tmp_path / f".rows.npy.{unfinished_mark(ended)}.part"
    file.touch()
    folder = tmp_path / f".model.{unfinished_mark(ended)}.part"
    folder.mkdir()
    (folder / "a").touch()

    with atomic_path(tmp_path / "mine.txt") as part:
        part.write_text("half")
        remove_leftovers(tmp_path)
        assert list(tmp_path.iterdir()) == [part]

    assert list(tmp_path.iterdir()) == [tmp_path / "mine.txt"]


def test_a_file_and_the_folder_that_names_it_are_flushed_to_the_disk(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(os.fstat(handle).st_ino))

    write_text(tmp_path / "a.txt", "data")

    assert flushed == [place.stat().st_ino for place in (tmp_path / "a.txt", tmp_path)]


def test_what_another_machine_is_writing_is_left_alone(tmp_path, ended, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("platform.node", lambda: "another machine")
        mark = unfinished_mark(ended)
    for name, hours in (("new", 0), ("late", 23), ("old", 25)):
        (tmp_path / f".{name}.{mark}.part").touch()
        aged(tmp_path / f".{name}.{mark}.part", hours)

    remove_leftovers(tmp_path)

    assert sorted(path.name.split(".")[1] for path in tmp_path.iterdir()) == ["late", "new"]
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"regraft-{unfinished_mark(ended)}").mkdir()
    mine, again = temporary_folder(), temporary_folder()
    assert sorted(tmp_path.glob("regraft-*")) == sorted([mine, again])


@pytest.mark.parametrize("name", ["花" * 80, "x" * 250, "ü" * 120])
def test_any_name_that_the_system_allows_can_be_written(name, tmp_path, ended):
    write_text(tmp_path / name, "text")
    with atomic_folder(tmp_path / "below" / name) as part:
        leftover = part.with_name(part.name.replace(f"-{os.getpid()}-", f"-{ended}-"))
    leftover.mkdir()

    remove_leftovers(tmp_path / "below", name)

    assert (tmp_path / name).read_text() == "text"
    assert [path.name for path in (tmp_path / "below").iterdir()] == [name]
