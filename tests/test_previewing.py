"""The command that shows augmented pictures."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from regraft.cli.app import app
from regraft.data.synthetic import make_flowers
from regraft.errors import ImageError, UsageError
from regraft.training.augment import AUGMENTATIONS


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flowers")
    make_flowers(folder, species=3, per_class=3, size=48)
    return folder


def preview(folder, out, *options):
    arguments = ["data", "preview", str(folder), "--out", str(out), "--size", "32", *options]
    result = CliRunner().invoke(app, arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def test_a_sheet_is_written_and_its_path_printed(flowers, tmp_path):
    out = tmp_path / "sheets" / "sheet.png"

    result = preview(flowers, out)

    assert result.stdout.strip() == str(out)
    with Image.open(out) as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 8 * 96


def test_json_says_what_was_shown(flowers, tmp_path):
    result = preview(flowers, tmp_path / "a.png", "--augment", "trivial,zoom=0.1", "--json")

    shown = json.loads(result.stdout)["augmentation"]
    assert shown == {**AUGMENTATIONS["trivial"].to_json(), "zoom": 0.1}


def test_the_sheet_depends_on_the_seed_alone(flowers, tmp_path):
    files = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    for file, seed in zip(files, "001", strict=True):
        preview(flowers, file, "--seed", seed)
    first, again, other = (file.read_bytes() for file in files)

    assert first == again
    assert first != other


def test_a_row_is_added_for_each_picture_as_far_as_there_are_some(flowers, tmp_path):
    heights = {}
    for count in (1, 2, 9, 40):
        preview(flowers, tmp_path / "s.png", "--pictures", str(count), "--views", "1")
        with Image.open(tmp_path / "s.png") as sheet:
            heights[count] = sheet.height

    row = heights[2] - heights[1]
    assert heights[9] == heights[1] + 8 * row
    assert heights[40] == heights[9]


def test_the_first_pictures_are_of_different_classes(flowers, tmp_path, monkeypatch):
    from regraft.report import gallery as module

    names = []
    drawn = module.preview_sheet

    def record(pictures, *arguments, **options):
        names.extend(name for name, _ in pictures)
        return drawn(pictures, *arguments, **options)

    monkeypatch.setattr(module, "preview_sheet", record)
    preview(flowers, tmp_path / "s.png", "--pictures", "3")

    assert len({name.split(":")[0] for name in names}) == 3


@pytest.mark.parametrize(
    ("out", "augment", "said"),
    [
        ("sheet.jpg", "standard", ".png"),
        ("sheet.png", "standart", "did you mean 'standard'?"),
        ("sheet.png", "rotaton=3", "did you mean 'rotation'?"),
        ("sheet.png", "none", "no augmentation"),
    ],
)
def test_what_cannot_be_shown_is_wrong_usage(flowers, tmp_path, out, augment, said):
    with pytest.raises(UsageError) as refused:
        preview(flowers, tmp_path / out, "--augment", augment)

    assert said in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_picture_is_named(tmp_path):
    make_flowers(tmp_path / "set", species=2, per_class=1, size=32)
    for file in (tmp_path / "set").rglob("*.jpg"):
        file.write_bytes(file.read_bytes()[:200])

    with pytest.raises(ImageError) as refused:
        preview(tmp_path / "set", tmp_path / "s.png")

    assert ".jpg" in str(refused.value)
