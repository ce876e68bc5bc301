"""Archives of strangers: whole in a new folder, or refused with nothing left behind."""

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.data.layouts import Layout, arrange, unpack
from regraft.data.named import find_data
from regraft.errors import RegraftError
from samples import refused, tarred, zipped

FILES = {"set/rose/1.jpg": b"one" * 100, "set/rose/2.jpg": b"two", "set/lily/1.jpg": b""}
UNSAFE = "ARCHIVE-UNSAFE"
PACKERS = {"tar": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def archive(tmp_path, data, name="set.zip"):
    path = tmp_path / "in" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def is_refused(tmp_path, data, code):
    """Check that an archive is refused and that nothing is left of it; return the error."""
    error = refused(unpack, archive(tmp_path, data), tmp_path / "out")
    assert error.code == code
    assert sorted(tmp_path.iterdir()) == [tmp_path / "in"]
    return error


def packed(packer, files):
    return zipped(files) if packer == "zip" else PACKERS[packer](tarred(files))


@pytest.mark.parametrize("packer", ["zip", *PACKERS])
def test_files_but_what_systems_leave_come_out_whatever_the_kind_of_the_archive(packer, tmp_path):
    junk = {"__MACOSX/set/rose/._1.jpg": b"x", "set/rose/Thumbs.db": b"x", "set/.DS_Store": b"x"}
    files = {**FILES, **junk}

    left_out = unpack(archive(tmp_path, packed(packer, files), "no-telling-name"), tmp_path / "out")

    assert contents(tmp_path / "out") == FILES
    assert left_out == 3


OUTWARDS = [
    *("../evil.jpg", "a/../../evil.jpg", "/evil.jpg", "C:/evil.jpg", "c:evil.jpg"),
    *("a/c:evil.jpg", "a\\..\\evil"),
]
LINK = zipfile.ZipInfo("set/evil link")
LINK.external_attr = (stat.S_IFLNK | 0o777) << 16
SPECIAL = [
    special("set/evil", tarfile.SYMTYPE, "/etc/passwd"),
    special("set/evil", tarfile.LNKTYPE, "set/rose/1.jpg"),
    special("set/evil device", tarfile.CHRTYPE),
    special("set/evil pipe", tarfile.FIFOTYPE),
]


@pytest.mark.parametrize(
    ("pack", "member"),
    [(pack, name) for pack in (zipped, tarred) for name in OUTWARDS]
    + [(tarred, member) for member in SPECIAL]
    + [(zipped, LINK)],
)
def test_one_name_that_leads_out_a_link_or_a_device_refuses_the_whole_archive(
    pack, member, tmp_path
):
    error = is_refused(tmp_path, pack({**FILES, member: b"" if pack is tarred else b"x"}), UNSAFE)

    assert "evil" in error.what


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(("set/a.jpg", "set/A.JPG"), ("Rose/1.jpg", "rose/2.jpg"), ("a.jpg", "a.jpg.")),
        *(("caf\u00e9.jpg", "cafe\u0301.jpg"), ("a", "a/b"), ("a/b", "a")),
    ],
)
def test_two_names_that_are_one_on_another_system_refuse_the_whole_archive(one, other, tmp_path):
    is_refused(tmp_path, tarred({one: b"1", other: b"2"}), UNSAFE)


def with_headers(*changes, size=900):
    """Return a zip with other bytes at places of its first header and of its directory."""
    data = bytearray(zipped({"a.bmp": bytes(size), "b.bmp": os.urandom(900)}))
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        directory = file.start_dir
    last = bytes(data).index(b"PK\x01\x02", directory + 4)
    for start, place, content in changes:
        at = {"first": 0, "directory": directory, "last": last}[start] + place
        data[at : at + len(content)] = content
    return bytes(data)


THOUSAND = (1000).to_bytes(4, "little")
HOSTILE = {
    "a bomb": (lambda: zipped({"a.bmp": bytes(32 << 20)}), "TOO-LARGE"),
    "a bomb in gz": (lambda: packed("gz", {"a.bmp": bytes(32 << 20)}), "TOO-LARGE"),
    "a bomb in xz": (lambda: packed("xz", {"a.bmp": bytes(32 << 20)}), "TOO-LARGE"),
    "more than announced": (
        lambda: with_headers(("first", 22, THOUSAND), ("directory", 24, THOUSAND), size=1 << 20),
        "DAMAGED",
    ),
    "members that overlap": (lambda: with_headers(("last", 42, bytes(4))), "DAMAGED"),
    "a password": (lambda: with_headers(("first", 6, b"\1"), ("directory", 8, b"\1")), "ENCRYPTED"),
    "cut between two members": (lambda: tarred(FILES)[: 2 * 1024], "DAMAGED"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bomb_and_what_is_not_as_its_headers_say_are_refused(name, tmp_path):
    make, code = HOSTILE[name]

    is_refused(tmp_path, make(), f"ARCHIVE-{code}")


def test_a_disk_that_is_too_small_is_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("regraft.data.layouts.free_bytes", lambda _folder: 50)

    is_refused(tmp_path, zipped(FILES), "ARCHIVE-TOO-LARGE")


@pytest.mark.parametrize("packer", ["zip", *PACKERS])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_a_cut_archive_is_refused(share, packer, tmp_path):
    files = {f"{number}.jpg": os.urandom(3000) for number in range(8)}
    data = packed(packer, files)
    # The zeros that fill up a tar may go, as long as its end mark stays.
    whole = len(data) if packer != "tar" else 8 * 3584 + 512

    is_refused(tmp_path, data[: int(whole * share)], "ARCHIVE-DAMAGED")


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"<html>sign in</html>", b"PK\x03\x04"),
        zipped({"a.jpg": bytes(range(250)) * 9}, zipfile.ZIP_STORED).replace(b"\x55", b"\x54"),
        gzip.compress(tarred({"a.jpg": bytes(range(250)) * 9}), 0).replace(b"U", b"T"),
    ],
)
def test_what_is_no_archive_or_has_other_bytes_than_its_checksum_is_named(data, tmp_path):
    assert "set.zip" in str(is_refused(tmp_path, data, "ARCHIVE-DAMAGED"))


names = st.text(st.sampled_from("aA.é\u0301/\\: ~-"), min_size=1, max_size=12)


@settings(max_examples=150)
@given(st.lists(names, min_size=1, max_size=5, unique=True), st.booleans())
def test_whatever_the_names_files_are_inside_or_nothing_is_there(tmp_path_factory, given, as_zip):
    root = tmp_path_factory.mktemp("fuzz")
    data = {name: name.encode() for name in given}
    path = archive(root, zipped(data) if as_zip else tarred(data))

    try:
        junk = unpack(path, root / "out")
    except RegraftError:
        assert sorted(root.iterdir()) == [root / "in"]
    else:
        inside = contents(root / "out")
        assert len(inside) + junk == sum(not (as_zip and name.endswith("/")) for name in data)
        assert set(inside.values()) <= set(data.values())
    assert sorted((root / "in").iterdir()) == [path]


JPEG = b"\xff\xd8\xff"


def class_folders(*names, **options):
    return Layout("class_folders", names, **options)


@pytest.fixture
def placed(tmp_path):
    """Return a function that arranges a folder and returns what came about and where."""

    def arranged(layout, *names):
        for name in names:
            (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "source" / name).write_bytes(JPEG + name.encode())
        found = arrange(layout, tmp_path / "source", tmp_path / "into", move=False)
        return found, {path for path in contents(tmp_path / "into") if "SOURCE." not in path}

    return arranged


@pytest.mark.parametrize(
    ("layout", "names", "expected"),
    [
        (
            class_folders("lily", "rose"),
            ("a/b/rose/1.jpg", "a/b/lily/2.jpg", "a/b/other/3.jpg"),
            {"lily/2.jpg", "rose/1.jpg"},
        ),
        (
            class_folders("lily", "rose"),
            ("set/rose/1.jpg", "set/lily/2.jpg", "set/set/rose/3.jpg", "set/set/lily/4.jpg"),
            {"lily/2.jpg", "rose/1.jpg"},
        ),
        (
            class_folders("a", "b"),
            [f"x/{part}/{c}/1.jpg" for part in ("train", "valid", "test") for c in "ab"],
            {f"{part}/{c}/1.jpg" for part in ("train", "val", "test") for c in "ab"},
        ),
        (
            Layout("leaf_folders"),
            ("a/Pear/1.png", "a/Fig/1.png", "b/b/Pear/2.png"),
            {"Pear/1.png", "Fig/1.png"},
        ),
        (
            Layout("name_prefixes", ("cat", "dog")),
            ("train/cat.0.jpg", "train/dog.0.jpg", "train/fish.0.jpg", "test1/1.jpg"),
            {"cat/cat.0.jpg", "dog/dog.0.jpg"},
        ),
    ],
)
def test_images_come_to_their_part_and_class(layout, names, expected, placed):
    assert placed(layout, *names)[1] == expected


def test_folders_that_are_no_class_are_named_with_their_images(placed):
    google = ("BACKGROUND_Google",)
    layouts = (
        class_folders(among=("ant",), leave_out=google),
        Layout("leaf_folders", (), (), google),
    )
    names = ("o/ant/1.jpg", "o/bee/1.jpg", "o/BACKGROUND_Google/1.jpg", "o/notes.txt")

    for layout in layouts:
        found, _ = placed(layout, *names)
        assert found.classes == {"ant": 1, "bee": 1}
        assert found.removed == {
            "other images, in o/BACKGROUND_Google": 1,
            ".txt: not an image": 1,
        }


@pytest.mark.parametrize("folder", ["jpg/", "", "sorted/{}/"])
def test_numbers_decide_the_class_however_the_images_are_sorted(folder, placed):
    numbers = {1: "daffodil", 80: "daffodil", 81: "snowdrop", 1280: "windflower", 1360: "pansy"}
    names = [f"{folder.format(name)}image_{n:04}.jpg" for n, name in numbers.items()]

    _, there = placed(find_data("flowers17").layout, *names, "jpg/files.txt", "jpg/image_1361.jpg")

    assert there == {f"{name}/image_{n:04}.jpg" for n, name in numbers.items()}


@pytest.mark.parametrize(
    "layout",
    [
        class_folders("a", "b"),
        class_folders(among=("a",)),
        Layout("leaf_folders", among=("a",)),
        Layout("number_ranges", ("a", "b"), each=2),
        Layout("name_prefixes", ("a", "b")),
    ],
    ids=lambda layout: layout.kind,
)
def test_every_layout_names_a_folder_that_is_laid_out_otherwise(layout, tmp_path, placed):
    error = refused(placed, layout, "only/image.jpg")

    assert (error.code, error.path) == ("DATA-LAYOUT", str(tmp_path / "source"))


def test_two_images_of_one_class_with_the_same_name_are_refused(placed):
    twice = ("train/a/1.jpg", "train/a/1.JPG", "train/b/1.jpg")

    assert "the same name" in str(refused(placed, class_folders("a", "b"), *twice))
