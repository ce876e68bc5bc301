"""Putting pictures into class folders: what is left over is told, and many files cost no more."""

from pathlib import Path, PurePath

from regraft.data.arranging import arrange

from regraft.data.layouts import NamePrefixes

JPEG = b"\xff\xd8\xff"


def write(folder, contents):
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_what_is_left_over_is_counted_by_what_it_is(tmp_path):
    source = write(
        tmp_path / "source",
        {
            "train/cat.0.jpg": JPEG + b"cat",
            "train/dog.0.jpg": JPEG + b"dog",
            "test/1.jpg": JPEG + b"cat",
            "test/2.jpg": JPEG + b"else",
            "notes.txt": b"",
        },
    )

    arranged = arrange(NamePrefixes(("cat", "dog")), source, tmp_path / "into", move=False)

    assert arranged.classes == {"cat": 1, "dog": 1}
    assert arranged.removed == {
        "copies of other pictures, in test": 1,
        "other pictures, in test": 1,
        ".txt: not a picture": 1,
    }


def test_no_file_is_compared_with_every_other_one(tmp_path, monkeypatch):
    number = 60
    names = [f"{kind}.{i}.jpg" for kind in ("cat", "dog") for i in range(3)]
    source = write(tmp_path / "source", {f"train/{name}": JPEG for name in names})
    write(source, {f"test/{i}.{suffix}": JPEG for i in range(number) for suffix in ("jpg", "txt")})
    compared = []
    equal = PurePath.__eq__
    monkeypatch.setattr(PurePath, "__eq__", lambda a, b: compared.append(a) or equal(a, b))

    arrange(NamePrefixes(("cat", "dog")), source, Path(tmp_path / "into"), move=False)

    assert len(compared) < number**2 / 2
