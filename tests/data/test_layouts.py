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
from regraft.errors import DataError, RegraftError

FILES = {"set/rose/1.jpg": b"one" * 100, "set/rose/2.jpg": b"two", "set/lily/1.jpg": b""}
PACKERS = {"tar": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def zipped(files, compression=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return stream.getvalue()


def tarred(members):
    """Return a tar of members: (name, data) or a ready TarInfo."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            file.addfile(info, io.BytesIO(member[1]))
    return stream.getvalue()


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


def refused(tmp_path, data, code):
    """Check that an archive is refused and that nothing is left of it; return the error."""
    path = archive(tmp_path, data)
    with pytest.raises(DataError) as refusal:
        unpack(path, tmp_path / "out")
    assert refusal.value.code == code
    assert sorted(tmp_path.iterdir()) == [tmp_path / "in"]
    return refusal.value


@pytest.mark.parametrize("packer", ["zip", *PACKERS])
def test_files_but_what_systems_leave_come_out_whatever_the_kind_of_the_archive(packer, tmp_path):
    junk = {"__MACOSX/set/rose/._1.jpg": b"x", "set/rose/Thumbs.db": b"x", "set/.DS_Store": b"x"}
    files = {**FILES, **junk}
    data = zipped(files) if packer == "zip" else PACKERS[packer](tarred(files.items()))

    left_out = unpack(archive(tmp_path, data, "no-telling-name"), tmp_path / "out")

    assert contents(tmp_path / "out") == FILES
    assert left_out == 3


OUTWARDS = [
    *("../evil.jpg", "a/../../evil.jpg", "/evil.jpg", "C:/evil.jpg", "c:evil.jpg"),
    *("a/c:evil.jpg", "a\\..\\b"),
]


@pytest.mark.parametrize("name", OUTWARDS)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_one_name_that_leads_out_refuses_the_whole_archive(kind, name, tmp_path):
    files = {**FILES, name: b"evil"}

    error = refused(
        tmp_path, zipped(files) if kind == "zip" else tarred(files.items()), "ARCHIVE-UNSAFE"
    )

    assert "evil" in error.what or "b" in error.what


@pytest.mark.parametrize(
    "member",
    [
        special("set/link", tarfile.SYMTYPE, "/etc/passwd"),
        special("set/hard", tarfile.LNKTYPE, "set/rose/1.jpg"),
        special("set/device", tarfile.CHRTYPE),
        special("set/pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda member: member.name,
)
def test_links_devices_and_pipes_in_a_tar_refuse_the_whole_archive(member, tmp_path):
    error = refused(tmp_path, tarred([*FILES.items(), member]), "ARCHIVE-UNSAFE")

    assert member.name in error.what


def test_a_link_in_a_zip_and_a_tar_that_is_cut_between_two_members_are_refused(tmp_path):
    info = zipfile.ZipInfo("set/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16

    refused(tmp_path, zipped({**FILES, info: b"/etc/passwd"}), "ARCHIVE-UNSAFE")
    refused(tmp_path, tarred(FILES.items())[: 2 * 1024], "ARCHIVE-DAMAGED")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("set/a.jpg", "set/A.JPG"),
        ("Rose/1.jpg", "rose/2.jpg"),
        ("caf\u00e9.jpg", "cafe\u0301.jpg"),
        ("a.jpg", "a.jpg."),
        ("a", "a/b"),
        ("a/b", "a"),
    ],
)
def test_two_names_that_are_one_on_another_system_refuse_the_whole_archive(one, other, tmp_path):
    refused(tmp_path, tarred([(one, b"1"), (other, b"2")]), "ARCHIVE-UNSAFE")


@pytest.mark.parametrize("packer", ["zip", "gz", "xz"])
def test_a_bomb_is_refused(packer, tmp_path):
    zeros = bytes(32 << 20)
    data = zipped({"a.bmp": zeros}) if packer == "zip" else PACKERS[packer](tarred([("a", zeros)]))

    refused(tmp_path, data, "ARCHIVE-TOO-LARGE")


def test_a_header_that_claims_less_than_comes_does_not_let_more_out(tmp_path):
    data = bytearray(zipped({"a.bmp": bytes(1 << 20)}))
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        directory = file.start_dir
    for place in (22, directory + 24):  # the size as it is announced, in both headers
        data[place : place + 4] = (1000).to_bytes(4, "little")

    refused(tmp_path, bytes(data), "ARCHIVE-DAMAGED")


def test_overlapping_members_are_refused(tmp_path):
    data = bytearray(zipped({"a.jpg": os.urandom(900), "b.jpg": os.urandom(900)}))
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        second = bytes(data).index(b"PK\x01\x02", file.start_dir + 4)
    data[second + 42 : second + 46] = bytes(4)  # the second member begins where the first does

    refused(tmp_path, bytes(data), "ARCHIVE-DAMAGED")


def test_a_disk_that_is_too_small_is_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("regraft.data.layouts.free_bytes", lambda _folder: 50)

    refused(tmp_path, zipped(FILES), "ARCHIVE-TOO-LARGE")


@pytest.mark.parametrize("packer", ["zip", *PACKERS])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_a_cut_archive_is_refused(share, packer, tmp_path):
    files = {f"{number}.jpg": os.urandom(3000) for number in range(8)}
    data = zipped(files) if packer == "zip" else PACKERS[packer](tarred(files.items()))
    # The zeros that fill up a tar may go, as long as its end mark stays.
    whole = len(data) if packer != "tar" else 8 * 3584 + 512

    refused(tmp_path, data[: int(whole * share)], "ARCHIVE-DAMAGED")


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"<html>sign in</html>", b"PK\x03\x04"),
        zipped({"a.jpg": bytes(range(250)) * 9}, zipfile.ZIP_STORED).replace(b"\x55", b"\x54"),
        gzip.compress(tarred({"a.jpg": bytes(range(250)) * 9}.items()), 0).replace(b"U", b"T"),
    ],
)
def test_what_is_no_archive_or_has_other_bytes_than_its_checksum_is_named(data, tmp_path):
    assert "set.zip" in str(refused(tmp_path, data, "ARCHIVE-DAMAGED"))


def test_an_archive_with_a_password_is_named(tmp_path):
    data = bytearray(zipped({"a.jpg": b"a"}))
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        place = file.start_dir + 8
    data[6] |= 1
    data[place] |= 1

    refused(tmp_path, bytes(data), "ARCHIVE-ENCRYPTED")


names = st.text(st.sampled_from("aA.é\u0301/\\: ~-"), min_size=1, max_size=12)


@settings(max_examples=150)
@given(st.lists(names, min_size=1, max_size=5, unique=True), st.booleans())
def test_whatever_the_names_files_are_inside_or_nothing_is_there(tmp_path_factory, given, as_zip):
    root = tmp_path_factory.mktemp("fuzz")
    data = {name: name.encode() for name in given}
    path = archive(root, zipped(data) if as_zip else tarred(data.items()))

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


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG + name.encode())
    return root


def class_folders(*names, **options):
    return Layout("class_folders", names, **options)


@pytest.fixture
def placed(tmp_path):
    """Return a function that arranges a folder and returns what came about and where."""

    def arranged(layout, *names):
        touch(tmp_path / "source", *names)
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
    with pytest.raises(DataError) as refusal:
        placed(layout, "only/image.jpg")

    assert refusal.value.code == "DATA-LAYOUT"
    assert refusal.value.path == str(tmp_path / "source")


def test_two_images_of_one_class_with_the_same_name_are_refused(placed):
    with pytest.raises(DataError, match="the same name"):
        placed(class_folders("a", "b"), "train/a/1.jpg", "train/a/1.JPG", "train/b/1.jpg")
