"""Named data sets from a server on this machine: small archives in the published layouts."""

import dataclasses
import hashlib
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from regraft import Dataset, check
from regraft.data.named import fetch_data, find_data, named_data, read_source
from regraft.download import OFFLINE_SWITCHES, check_address
from regraft.files import home, unfinished_mark
from samples import photograph, refused, saved, tarred, zipped


@pytest.fixture(autouse=True)
def no_switches_and_no_pause(monkeypatch):
    monkeypatch.setattr("regraft.download.PAUSE_SECONDS", 0.0)
    for switch in OFFLINE_SWITCHES:
        monkeypatch.delenv(switch, raising=False)


FLOWERS = ("daisy", "dandelion", "roses", "sunflowers", "tulips")


def image(number):
    """Return the bytes of an image unlike those of other numbers."""
    return saved(photograph(number, (80, 80)), "JPEG")


def flower_photos():
    files = {
        f"flower_photos/{c}/{n}.jpg": image(10 * i + n)
        for i, c in enumerate(FLOWERS)
        for n in range(2)
    }
    return tarred({**files, "flower_photos/LICENSE.txt": b"by Anna"}, "w:gz")


def caltech101():
    folders = ("accordion", "BACKGROUND_Google", "Faces", "Faces_easy")
    inner = {f"101_ObjectCategories/{c}/image_0001.jpg": image(n) for n, c in enumerate(folders)}
    return zipped(
        {
            "caltech-101/101_ObjectCategories.tar.gz": tarred(inner, "w:gz"),
            "caltech-101/Annotations.tar": tarred({"a.mat": b""}),
            "__MACOSX/caltech-101/._Annotations.tar": b"x",
        }
    )


def chest_xray():
    files = {}
    for number, (part, label) in enumerate(
        (part, label) for part in ("train", "val", "test") for label in ("NORMAL", "PNEUMONIA")
    ):
        name = f"chest_xray/{part}/{label}/person{number}_virus_1.jpeg"
        files[name] = image(number)
        files[f"chest_xray/{name}"] = files[name]
        files[f"__MACOSX/chest_xray/{part}/{label}/._person{number}_virus_1.jpeg"] = b"x"
        files[f"chest_xray/{part}/{label}/.DS_Store"] = b"x"
    return zipped(files)


def dogs_vs_cats():
    good = {
        f"PetImages/{c}/{n}.jpg": image(n + 50 * (c == "Dog"))
        for c in ("Cat", "Dog")
        for n in (0, 1)
    }
    return zipped(
        {
            **good,
            "PetImages/Cat/666.jpg": b"",
            "PetImages/Dog/11702.jpg": b"<html>",
            "PetImages/Cat/Thumbs.db": b"x",
            "PetImages/Dog/Thumbs.db": b"x",
            "MSR-LA - 3467.docx": b"x",
            "readme[1].txt": b"x",
        }
    )


ARCHIVES = {
    "flower_photos": flower_photos,
    "caltech101": caltech101,
    "chest_xray": chest_xray,
    "dogs_vs_cats": dogs_vs_cats,
}


@pytest.fixture
def publish(web, monkeypatch):
    """Return a function that serves a small data set under the name of the real one."""

    def served(name, **changes):
        real, data = find_data(name), ARCHIVES[name]()
        small = dataclasses.replace(
            real,
            url=web.serve_ranges(f"/{real.file_name}", data, ETag='"1"'),
            size=len(data) if real.size else 0,
            sha256=hashlib.sha256(data).hexdigest() if real.sha256 else "",
            archive=real.file_name,
            **changes,
        )
        others = tuple(data for data in named_data() if data.name != name)
        monkeypatch.setattr("regraft.data.named.named_data", lambda: (small, *others))
        return data

    return served


def fetch(name, to, **options):
    return fetch_data(name, to, verbose=False, **options)


# Classes, parts, and what was left out and why.
LEFT_BEHIND = "files that a system left behind (__MACOSX, Thumbs.db, …)"
EXPECTED = {
    "flower_photos": (dict.fromkeys(FLOWERS, 2), {}, {}),
    "caltech101": ({"Faces": 1, "Faces_easy": 1, "accordion": 1}, {}, {}),
    "chest_xray": (
        {"NORMAL": 3, "PNEUMONIA": 3},
        {"train": 2, "val": 2, "test": 2},
        {"other images, in chest_xray/chest_xray": 6, LEFT_BEHIND: 12},
    ),
    "dogs_vs_cats": (
        {"Cat": 2, "Dog": 2},
        {},
        {".docx: not an image": 1, ".txt: not an image": 1, LEFT_BEHIND: 2},
    ),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_what_was_fetched_is_read_as_a_data_set_without_a_word_about_it(name, publish, tmp_path):
    publish(name)

    fetched = fetch(name, tmp_path / "set")

    classes, parts, removed = EXPECTED[name]
    assert fetched.source.classes == classes
    assert fetched.source.parts == parts
    assert removed.items() <= fetched.source.removed.items()
    broken = ("PetImages/Cat/666.jpg", "PetImages/Dog/11702.jpg")
    assert fetched.source.broken == (broken if name == "dogs_vs_cats" else ())
    data = Dataset.from_folder(tmp_path / "set")
    assert data.counts() == classes
    assert data.notes == ()
    if parts:
        assert {part: data.parts.count(part) for part in parts} == parts
    found = check(data, verbose=False)
    assert found.bad_files == ()
    assert {finding.code for finding in found.findings} <= {"DATA-FEW"}  # they are few on purpose
    assert read_source(tmp_path / "set") == fetched.source
    assert list(tmp_path.iterdir()) == [tmp_path / "set"]


def test_where_images_came_from_is_written_down(web, publish, tmp_path):
    data = publish("chest_xray")

    source = fetch("chest_xray", tmp_path / "a").source

    assert (source.size, source.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert source.checked == "size"  # no checksum is published
    assert source.url == f"{web.url}/ChestXRay2017.zip"
    assert source.notes[0] == "it has 6 images of 2 classes, published are 5,856 of 2"
    publish("chest_xray", images=6)
    assert "published are" not in fetch("chest_xray", tmp_path / "b").source.notes[0]


def test_an_empty_folder_is_filled_and_the_second_time_nothing_is_done(web, publish, tmp_path):
    publish("flower_photos")
    (tmp_path / "set").mkdir()
    first = fetch("flower_photos", tmp_path / "set")
    web.log.clear()

    second = fetch("flower_photos", tmp_path / "set")

    assert (first.already, second.already) == (False, True)
    assert second.source == first.source
    assert web.log == []
    assert (tmp_path / "set" / "SOURCE.LICENSE.txt").read_bytes() == b"by Anna"
    left = [path.name for path in (home() / "downloads").rglob("*") if path.is_file()]
    assert left == [".lock"]  # the archive is not kept


def test_a_folder_that_lost_images_or_has_a_damaged_record_is_named(publish, tmp_path):
    publish("flower_photos")
    fetch("flower_photos", tmp_path / "set")
    (tmp_path / "set" / "daisy" / "0.jpg").unlink()

    error = refused(fetch, "flower_photos", tmp_path / "set")

    assert error.code == "DATA-CHANGED"
    assert "9 images are there, 10 were fetched" in str(error)
    for damage, code in (("{", "FILE-JSON"), ("[]", "DATA-SOURCE"), ('{"name": 1}', "DATA-SOURCE")):
        (tmp_path / "set" / "SOURCE.json").write_text(damage)
        error = refused(fetch, "flower_photos", tmp_path / "set")
        assert (error.code, "SOURCE.json" in str(error)) == (code, True)


def test_a_folder_with_other_things_is_left_alone(web, publish, tmp_path):
    publish("flower_photos")
    (tmp_path / "mine.jpg").write_bytes(b"mine")

    assert refused(fetch, "flower_photos", tmp_path).code == "FILE-EXISTS"
    assert list(tmp_path.iterdir()) == [tmp_path / "mine.jpg"]
    assert web.log == []


@pytest.mark.parametrize("name", ["flower_photos", "chest_xray"])  # with and without a checksum
def test_another_file_than_the_published_one_is_refused_and_not_used(name, web, publish, tmp_path):
    data = publish(name)
    changed = data[:-1] + bytes([data[-1] ^ 1]) if name == "flower_photos" else b"PK other"
    web.serve_ranges(f"/{find_data(name).archive}", changed)

    error = refused(fetch, name, tmp_path / "set")

    assert error.code == "DATA-CHECKSUM"
    for each in (data, changed):
        known = hashlib.sha256(each).hexdigest() if name == "flower_photos" else str(len(each))
        assert known in error.why
    assert not (tmp_path / "set").exists()
    assert [p.name for p in (home() / "downloads" / name).iterdir()] == [".lock"]


@pytest.mark.parametrize("how", ["switch", "closed"])
def test_without_a_network_it_is_said_at_once_where_it_was_looked_for_and_what_to_do(
    how, web, publish, tmp_path, monkeypatch
):
    publish("flower_photos")
    if how == "switch":
        monkeypatch.setenv("REGRAFT_OFFLINE", "1")
    else:
        url = "http://127.0.0.1:1/flower_photos.tgz"
        small = dataclasses.replace(find_data("flower_photos"), url=url)
        monkeypatch.setattr("regraft.data.named.named_data", lambda: (small,))
    start = time.monotonic()

    error = refused(fetch, "flower_photos", tmp_path / "set")

    assert time.monotonic() - start < 2
    assert error.code == "DATA-DOWNLOAD"
    assert str(home() / "downloads" / "flower_photos") in error.why
    assert ("REGRAFT_OFFLINE" if how == "switch" else "does not answer") in error.why
    assert "--from" in error.hint
    assert "flower_photos.tgz" in error.hint
    assert web.log == []


def test_a_server_that_fails_is_named_and_what_came_before_is_not_asked_for_again(
    web, publish, tmp_path
):
    data = publish("flower_photos")
    web.serve("/flower_photos.tgz", b"", status=404)
    error = refused(fetch, "flower_photos", tmp_path / "set")
    assert "flower_photos.tgz: the server answered 404" in str(error)
    assert "--from" in error.hint
    archive = home() / "downloads" / "flower_photos" / "flower_photos.tgz"

    archive.write_bytes(data[:-1])  # not what was published
    web.serve_ranges("/flower_photos.tgz", data)
    fetch("flower_photos", tmp_path / "a")
    web.log.clear()
    archive.write_bytes(data)
    fetch("flower_photos", tmp_path / "b")

    assert web.log == []


def test_a_folder_at_hand_is_copied_and_stays_as_it_is(tmp_path):
    given = tmp_path / "flowers"
    for number, name in enumerate(("daisy", "dandelion", "rose", "sunflower", "tulip")):
        (given / name).mkdir(parents=True)
        (given / name / "1.jpg").write_bytes(image(number))
        (given / "flowers" / name).mkdir(parents=True)
        (given / "flowers" / name / "1.jpg").write_bytes(image(number))
    (given / "dandelion" / "flickr.py").write_text("stray")
    before = sorted(given.rglob("*"))

    fetched = fetch("flowers_recognition", tmp_path / "set", source=given)

    assert fetched.source.images == 5
    assert fetched.source.removed == {
        "other images, in flowers": 5,
        ".py: not an image": 1,
    }
    assert sorted(given.rglob("*")) == before


def test_an_archive_at_hand_is_compared_with_what_is_published(publish, tmp_path):
    data = publish("flower_photos")
    given = tmp_path / "flower_photos.tgz"
    given.write_bytes(data)
    assert fetch("flower_photos", tmp_path / "a", source=given).source.checked == "SHA-256"

    given.write_bytes(zipped({f"{c}/1.jpg": image(n) for n, c in enumerate(FLOWERS)}))
    other = fetch("flower_photos", tmp_path / "b", source=given).source

    assert (other.checked, other.url) == ("nothing", "")
    assert "another edition" in other.notes[0]


def test_what_is_given_must_exist_and_lie_elsewhere(tmp_path):
    absent = refused(fetch, "animals", tmp_path / "set", source=tmp_path / "none.zip")

    assert "nothing is there" in str(absent)
    for to, source in (("a", "a"), ("a/b", "a"), ("a", "a/b")):
        error = refused(fetch, "animals", tmp_path / to, source=tmp_path / source)
        assert "lie one in the other" in str(error)


def test_three_that_fetch_the_same_at_once_make_one_good_folder(web, publish, tmp_path):
    publish("flower_photos")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    killed, stranger = (
        tmp_path / f".{name}.{unfinished_mark(ended.pid)}.part" for name in ("set", "other")
    )
    killed.mkdir()
    stranger.mkdir()

    with ThreadPoolExecutor(3) as pool:
        fetched = list(pool.map(lambda _: fetch("flower_photos", tmp_path / "set"), range(3)))

    assert [each.source.images for each in fetched] == [10] * 3
    assert web.asked("GET") == ["/flower_photos.tgz"]
    assert sorted(tmp_path.iterdir()) == [stranger, tmp_path / "set"]


@pytest.mark.parametrize("data", named_data(), ids=lambda data: data.name)
def test_an_entry_says_all_that_a_reader_needs(data):
    assert re.fullmatch(r"[a-z0-9_]+", data.name)
    assert data.title
    assert data.licence
    assert data.citation
    assert data.page.startswith("https://")
    assert 1 < data.classes < data.images
    assert len(set(data.layout.names)) in {0, data.classes}
    assert find_data(data.name) is data
    if data.url:
        check_address(data.url)
        assert data.sha256 or data.size
        assert re.fullmatch(r"|[0-9a-f]{64}", data.sha256)


@pytest.mark.parametrize(("name", "said"), [("flower17", "flowers17"), ("zzz", "flower_photos")])
def test_an_unknown_name_shows_the_nearest_or_all(name, said):
    error = refused(find_data, name)

    assert error.code == "DATA-UNKNOWN"
    assert said in str(error)
