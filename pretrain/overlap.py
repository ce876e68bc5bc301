"""Look for test pictures that training saw, as tiles that correlate with them at 16 × 16 px.

The command line:

    python pretrain/overlap.py --assets ASSETS --data WORK
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sets import SETS, read_set

SIDE = 16
ALIKE = 0.97  # above it the pairs that were looked at showed one photograph, unless nearly empty


def normalise(thumbnails: np.ndarray) -> np.ndarray:
    """Return thumbnails (n, ...) as rows of mean 0 and length 1."""
    rows = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-6)


def thumbnail(path: Path, *, square: bool) -> np.ndarray:
    """Return a picture in grey at 16 x 16, whole or its central square."""
    picture = Image.open(path).convert("L")
    side = min(picture.size)
    left, top = ((length - side) // 2 for length in picture.size)
    box = (left, top, left + side, top + side) if square else None
    small = picture.resize((SIDE, SIDE), Image.Resampling.BOX, box=box)
    return np.asarray(small, np.float32)


def tile_rows(tiles: np.ndarray) -> np.ndarray:
    """Return all tiles as normalised thumbnails."""
    step = tiles.shape[1] // SIDE
    parts = []
    for start in range(0, len(tiles), 1024):
        grey = tiles[start : start + 1024].astype(np.float32).mean(3)
        parts.append(grey.reshape(-1, SIDE, step, SIDE, step).mean((2, 4)))
    return normalise(np.concatenate(parts))


def main() -> None:
    """Print for every set how many test pictures have a tile that looks the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    tiles = tile_rows(np.load(arguments.data / "tiles.npy", mmap_mode="r"))
    for name in SETS:
        data = read_set(arguments.assets, name)
        best = np.zeros(len(data.test))
        for square in (False, True):
            rows = normalise(np.stack([thumbnail(data.paths[i], square=square) for i in data.test]))
            best = np.maximum(best, (rows @ tiles.T).max(axis=1))
        print(f"{name}: {(best > ALIKE).sum()} of {len(best)}, most alike {best.max():.3f}")


if __name__ == "__main__":
    main()
