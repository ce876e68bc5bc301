"""Decode every picture of the pre-training once, into arrays of bytes that training can map.

Three sources: the labelled tiles (64 px photographs packed in sheets); other photographs, of which
fixed random crops of 128 px are kept; and generated pictures. Among the photographs are the
training parts of the five sets that measure the backbone, without their labels; their test parts
are never opened here.

    python pretrain/prepare.py --assets ASSETS --out WORK
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from generated import generated
from PIL import Image
from sets import read_set

TILE = 64
SHEET = 32  # tiles along one side of a sheet
CROP = 128
# How many random crops of each picture are kept: folders below the assets, then measured sets.
# Below 1 only a share of the pictures is used: the X-rays are all alike and soon learned.
FOLDERS = {"unlabelled": 4, "data/imagenet200": 8}
TRAINING_PARTS = {"hymenoptera": 4, "chest_xray": 0.25, "flowers5": 4, "flowers17": 4, "animals": 8}
GENERATED = 3000


def decode_tiles(folder: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the tiles (n, 64, 64, 3), their labels (n,) and the names of the classes."""
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["wnid"] for row in rows})
    number = {name: index for index, name in enumerate(classes)}
    labels = np.zeros(len(rows), np.int16)
    for row in rows:
        labels[int(row["sheet"]) * SHEET**2 + int(row["tile"])] = number[row["wnid"]]
    sheets = []
    for index in range(len(rows) // SHEET**2):
        pixels = np.asarray(Image.open(folder / f"sheet_{index:03d}.webp").convert("RGB"))
        grid = pixels.reshape(SHEET, TILE, SHEET, TILE, 3).transpose(0, 2, 1, 3, 4)
        sheets.append(grid.reshape(-1, TILE, TILE, 3))
    return np.concatenate(sheets), labels, classes


def random_crop(picture: Image.Image, generator: np.random.Generator) -> np.ndarray:
    """Return a random part (30 to 100 % of the area) of a picture, resized to 128 px."""
    width, height = picture.size
    area = width * height * generator.uniform(0.3, 1.0)
    aspect = np.exp(generator.uniform(-np.log(4 / 3), np.log(4 / 3)))
    w, h = min(width, int((area * aspect) ** 0.5)), min(height, int((area / aspect) ** 0.5))
    left, top = generator.integers(width - w + 1), generator.integers(height - h + 1)
    box = (left, top, left + w, top + h)
    return np.asarray(picture.resize((CROP, CROP), Image.Resampling.BICUBIC, box=box))


def photographs(assets: Path) -> Iterator[tuple[Path, int]]:
    """Yield each photograph that is seen without a label, and how many crops of it to keep."""
    for folder, views in FOLDERS.items():
        for path in sorted(path for path in (assets / folder).rglob("*") if path.is_file()):
            yield path, views
    for name, views in TRAINING_PARTS.items():
        data = read_set(assets, name)
        for row in data.train[:: max(1, round(1 / views))]:
            yield data.paths[row], max(1, int(views))


def decode_photographs(assets: Path, seed: int = 0) -> np.ndarray:
    """Return random crops (n, 128, 128, 3) of the unlabelled photographs, then generated ones."""
    generator = np.random.default_rng(seed)
    crops = []
    for path, views in photographs(assets):
        picture = Image.open(path).convert("RGB")
        crops.extend(random_crop(picture, generator) for _ in range(views))
    return np.stack([*crops, *generated(GENERATED, CROP, generator)])


def main() -> None:
    """Write tiles.npy, labels.npy, classes.txt and photographs.npy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    tiles, labels, classes = decode_tiles(arguments.assets / "tiles")
    np.save(arguments.out / "tiles.npy", tiles)
    np.save(arguments.out / "labels.npy", labels)
    (arguments.out / "classes.txt").write_text("\n".join(classes) + "\n")
    crops = decode_photographs(arguments.assets)
    np.save(arguments.out / "photographs.npy", crops)
    print(f"{len(tiles)} tiles of {len(classes)} classes, {len(crops)} crops and drawn pictures")


if __name__ == "__main__":
    main()
