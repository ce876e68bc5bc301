"""Draw training batches: parts of pictures at one size, with their labels and teachers' answers.

Most tiles are drawn nearly whole, as the teachers saw them, so that student and teachers look at
the same thing; the others in smaller random crops, which only the labels judge.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, softmax

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
FRESH = 0.3  # share of tiles drawn in a small random crop
REPEATED = 2  # times an epoch shows a photograph, which holds more detail than a tile
SHARED = 0.7  # least share of a picture in a crop that is still what the teachers saw


def normalise(pixels: Tensor) -> Tensor:
    """Return pixels of 0 to 1, (n, 3, h, w), with the mean and spread of photographs removed."""
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Batch:
    """Images (n, 3, s, s) and their targets; where `labelled` or `taught` is 0 a target is void."""

    images: Tensor
    labels: Tensor
    labelled: Tensor
    taught: Tensor
    probabilities: Tensor
    features: dict[str, Tensor]


class View:
    """What the teachers said about one part of every picture of one array."""

    def __init__(self, folder: Path, pictures: np.ndarray) -> None:
        self.pictures = pictures
        self.boxes = np.load(folder / "boxes.npy").astype(np.float32) / pictures.shape[1]
        self.logits = [np.load(p, mmap_mode="r") for p in sorted(folder.glob("*_logits.npy"))]
        self.features = {
            p.stem.removesuffix("_features"): np.load(p, mmap_mode="r")
            for p in sorted(folder.glob("*_features.npy"))
        }

    def probabilities(self, rows: np.ndarray) -> Tensor:
        """Return the mean of the teachers' probabilities, (n, 1000)."""
        each = [softmax(torch.from_numpy(a[rows]).float(), dim=1) for a in self.logits]
        return torch.stack(each).mean(0)


def random_boxes(count: int, generator: np.random.Generator, *, smallest: float) -> np.ndarray:
    """Return boxes (top, left, height, width as shares) of `smallest` to 1 of the area, (n, 4)."""
    area = generator.uniform(smallest, 1.0, count)
    aspect = np.exp(generator.uniform(-np.log(4 / 3), np.log(4 / 3), count))
    size = np.minimum(np.stack([(area / aspect) ** 0.5, (area * aspect) ** 0.5], axis=1), 1.0)
    corner = generator.random((count, 2)) * (1 - size)
    return np.concatenate([corner, size], axis=1).astype(np.float32)


def sample(pictures: np.ndarray, boxes: np.ndarray, flip: np.ndarray, size: int) -> Tensor:
    """Return the parts `boxes` of pictures (n, h, w, 3) as (n, 3, size, size), 0 to 1."""
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(255)
    if pixels.shape[-1] >= 2 * size:  # sampling alone would skip pixels
        pixels = avg_pool2d(pixels, 2)
    top, left, height, width = torch.from_numpy(boxes).unbind(1)
    sign = 1 - 2 * torch.from_numpy(flip).float()
    transform = torch.zeros(len(boxes), 2, 3)
    transform[:, 0, 0], transform[:, 0, 2] = width * sign, 2 * left + width - 1
    transform[:, 1, 1], transform[:, 1, 2] = height, 2 * top + height - 1
    shape = [len(boxes), 3, size, size]
    grid = torch.nn.functional.affine_grid(transform, shape, align_corners=False)
    return grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


def recolour(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return images with brightness, contrast and saturation changed, some of them grey."""

    def factor(spread: float) -> Tensor:
        shape = (len(images), 1, 1, 1)
        return 1 + spread * (2 * torch.rand(shape, generator=generator) - 1)

    grey = images.mean(1, keepdim=True)
    saturation, contrast, brightness = factor(0.25), factor(0.25), factor(0.25)
    saturation[torch.rand(len(images), generator=generator) < 0.05] = 0
    # contrast * (grey + saturation * (images - grey) - mean) + brightness * mean, in two passes
    mean = grey.mean((2, 3), keepdim=True)
    offset = grey * (contrast * (1 - saturation)) + mean * (brightness - contrast)
    return torch.addcmul(offset, images, contrast * saturation).clamp_(0, 1)


class Pictures:
    """All pictures of the training with their targets; draws batches by picture number.

    Numbers below the count of labelled tiles are tiles, the others photographs. The last sheet of
    tiles is held out.
    """

    def __init__(self, folder: Path, *, held_out: int = 1024, seed: int = 0) -> None:
        self.tiles = np.load(folder / "tiles.npy", mmap_mode="r")
        self.labels = np.load(folder / "labels.npy").astype(np.int64)
        photographs = np.load(folder / "photographs.npy", mmap_mode="r")
        self.labelled = len(self.tiles) - held_out
        self.whole = View(folder / "tiles_whole", self.tiles)
        self.photographs = View(folder / "photographs", photographs)
        self.generator = np.random.default_rng(seed)
        self.colours = torch.Generator().manual_seed(seed)
        self.scale = {
            key: (
                torch.from_numpy(value.astype(np.float32).mean(0)),
                torch.from_numpy(value.astype(np.float32).std(0)) + 1e-3,
            )
            for key, value in self.whole.features.items()
        }

    def __len__(self) -> int:
        return self.labelled + len(self.photographs.pictures)

    def epoch(self, size: int) -> list[np.ndarray]:
        """Return all picture numbers in random order, cut into batches of `size`."""
        photographs = np.tile(np.arange(self.labelled, len(self)), REPEATED)
        numbers = np.concatenate([np.arange(self.labelled), photographs])
        order = self.generator.permutation(numbers)
        return [order[i : i + size] for i in range(0, len(order) - size + 1, size)]

    def batch(self, numbers: np.ndarray, size: int) -> Batch:
        """Return these pictures at `size` pixels with their targets."""
        tiles = numbers[numbers < self.labelled]
        fresh = self.generator.random(len(tiles)) < FRESH
        rest = numbers[numbers >= self.labelled] - self.labelled
        groups = [
            (view, rows, random_boxes(len(rows), self.generator, smallest=smallest))
            for view, rows, smallest in (
                (self.whole, tiles[~fresh], SHARED),
                (self.whole, tiles[fresh], 0.3),
                (self.photographs, rest, SHARED),
            )
        ]
        return self._join(groups, [len(group[1]) for group in groups], size)

    def _join(
        self, groups: list[tuple[View, np.ndarray, np.ndarray]], counts: list[int], size: int
    ) -> Batch:
        flips = [self.generator.random(count) < 0.5 for count in counts]
        images = torch.cat(
            [
                sample(np.ascontiguousarray(view.pictures[rows]), boxes, flip, size)
                for (view, rows, boxes), flip in zip(groups, flips, strict=True)
            ]
        )
        labels = [self.labels[rows] for _, rows, _ in groups]
        labels[2] = np.zeros(counts[2], np.int64)
        position = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
        features = {
            key: torch.cat(
                [torch.from_numpy(view.features[key][rows]) for view, rows, _ in groups]
            ).sub(mean).div(std)
            for key, (mean, std) in self.scale.items()
        }  # fmt: skip
        return Batch(
            images=normalise(recolour(images, self.colours)),
            labels=torch.from_numpy(np.concatenate(labels)),
            labelled=(position != 2).float(),
            taught=(position != 1).float(),
            probabilities=torch.cat([view.probabilities(rows) for view, rows, _ in groups]),
            features=features,
        )

    def held_out(self, size: int) -> tuple[Tensor, Tensor]:
        """Return the held-out tiles, whole and unchanged, and their labels."""
        tiles = self.tiles[self.labelled :]
        boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (len(tiles), 1))
        images = sample(tiles, boxes, np.zeros(len(tiles), bool), size)
        return normalise(images), torch.from_numpy(self.labels[self.labelled :])
