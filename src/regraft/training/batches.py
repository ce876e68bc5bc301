"""What enters the loop: prepared images, in an order that depends on nothing but the seed.

The order of an epoch and the augmentation of an image are functions of (seed, epoch, sample), so
they are the same whatever the threads, the batch in flight or the number of restarts.
"""

from __future__ import annotations

import math
import shutil
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regraft.backbones.backbone import Backbone
from regraft.backbones.spec import Preprocessing
from regraft.backbones.views import prepare
from regraft.data.images import Decoding, ImageLike, decode, open_image, read_image
from regraft.errors import ImageError, RegraftError
from regraft.features.embed import as_list
from regraft.files import free_bytes, sha256_json, temporary_folder
from regraft.system import progress_bar, threads

Pixels = NDArray[np.uint8]
Augment = Callable[[Pixels, np.random.Generator, int], Pixels]


class Inputs(Protocol):
    """The inputs of one part, asked for by sample and epoch."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def take(self, samples: NDArray[np.int64], epoch: int) -> Tensor:
        """Return the inputs of these samples in this epoch, one row each."""
        ...


@dataclass(frozen=True)
class Part:
    """Inputs and targets of one part of the data.

    Attributes:
        inputs: What enters the network, by sample and epoch.
        targets: Soft targets, (n, classes), rows sum to 1.
    """

    inputs: Inputs
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(eq=False)
class LabelledImages:
    """The images of one part and what each of them shows; decoded when they are first needed.

    Args:
        images: Paths, Pillow images or H×W×3 arrays of 8 bits.
        labels: The name of the class of each.
        classes: All classes, in the order of the columns of the targets.
        backbone: Its preprocessing is used.
        decoding: How files become pixels.
        verbose: Whether to show progress.
        preprocessing: How they become ``pixels``, if not as the network wants them.

    Attributes:
        codes: The column of each image's class, (n,).
        targets: One row per image with a one in that column, (n, classes).
    """

    images: Sequence[ImageLike]
    labels: Sequence[str]
    classes: Sequence[str]
    backbone: Backbone
    decoding: Decoding = Decoding()
    verbose: bool = False
    preprocessing: Preprocessing | None = None

    def __post_init__(self) -> None:
        places = {name: index for index, name in enumerate(self.classes)}
        self.images = as_list(self.images)
        self.labels = [str(label) for label in self.labels]
        self.codes = np.array([places[label] for label in self.labels], dtype=np.int64)
        self.targets: Tensor = torch.eye(len(self.classes))[self.codes]

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def pixels(self) -> Images:
        """All images as they enter the network or its augmentation, decoded at the first use."""
        preprocessing = self.preprocessing or self.backbone.preprocessing
        return Images(self.images, preprocessing, decoding=self.decoding, verbose=self.verbose)

    def few(self, count: int = 8) -> tuple[Tensor, Tensor]:
        """Return some images, (count, size, size, 3) in 8 bits, and their targets.

        They are spread over the part, which often stands sorted by class.
        """
        chosen = np.unique(np.linspace(0, len(self) - 1, count).astype(np.int64))
        opened = (open_image(self.images[index], self.decoding) for index in chosen)
        prepared = np.stack([self.backbone.prepare(image) for image in opened])
        return torch.from_numpy(prepared), self.targets[chosen]

    def fingerprint(self) -> str:
        """Return a hash of the content and the label of every image, in their order."""
        contents = [read_image(image).sha256 for image in self.images]
        return sha256_json([contents, self.labels])


class Images:
    """Prepared images, decoded once into a file that is removed with the object.

    Args:
        images: Paths, Pillow images or H×W×3 arrays of 8 bits.
        preprocessing: How they become squares.
        decoding: How files become pixels.
        verbose: Whether to show progress.

    Attributes:
        sha256s: The digest of each image's content.

    Raises:
        ImageError: An image cannot be read.
        RegraftError: There is no space for them (``TRAIN-DISK``).
    """

    def __init__(
        self,
        images: Sequence[ImageLike],
        preprocessing: Preprocessing,
        *,
        decoding: Decoding = Decoding(),
        verbose: bool = False,
    ) -> None:
        size = preprocessing.size
        folder = temporary_folder()
        self._finalizer = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.sha256s = [""] * len(images)
        shape = (len(images), size, size, 3)
        needed, free = math.prod(shape), free_bytes(folder)
        if needed > free:  # a disk that fills up later would end the process at a write
            why = f"they take {needed:,} bytes, {free:,} are free"
            hint = "free some space, or set TMPDIR to a folder with more of it"
            what = "there is no space for the decoded images"
            raise RegraftError(what, path=folder.parent, why=why, hint=hint, code="TRAIN-DISK")
        self._pixels = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, shape)

        def place(position: int) -> None:
            content = read_image(images[position])
            self.sha256s[position] = content.sha256
            try:
                self._pixels[position] = prepare(decode(content, decoding), preprocessing)
            except ImageError as error:
                error.path = content.name  # the preparation sees pixels only
                raise

        with (
            ThreadPoolExecutor(threads()) as pool,
            progress_bar("Reading images", len(images), visible=verbose) as advance,
        ):
            for _ in pool.map(place, range(len(images))):
                advance(1)

    def __len__(self) -> int:
        return len(self._pixels)

    def take(self, samples: NDArray[np.int64], epoch: int) -> Tensor:
        """Return the images as they are, (n, size, size, 3) in 8 bits; every epoch the same."""
        return torch.from_numpy(self._pixels[samples])


@dataclass(frozen=True, eq=False)
class AugmentedImages:
    """Images that look different in every epoch.

    Args:
        images: The images as they are.
        augment: From an image, a random generator and a side in pixels to an image of that side.
        size: The side of the images that enter the network.
        seed: The seed of the whole run.
        views: How many different views of an image there are; None for a new one in every epoch.
        before: Epochs of earlier phases, whose views are not shown again where each is new.
    """

    images: Images
    augment: Augment
    size: int
    seed: int
    views: int | None = None
    before: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def take(self, samples: NDArray[np.int64], epoch: int) -> Tensor:
        """Return the images as they look in this epoch, (n, size, size, 3) in 8 bits."""
        view = self.before + epoch if self.views is None else epoch % self.views
        plain = self.images.take(samples, epoch).numpy()
        changed = [
            self.augment(image, generator(self.seed, "view", view, int(sample)), self.size)
            for image, sample in zip(plain, samples, strict=True)
        ]
        return torch.from_numpy(np.stack(changed))


def generator(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """Return a random generator that depends on its arguments alone."""
    return np.random.default_rng([seed, int.from_bytes(purpose.encode()[:7]), *numbers])


def epoch_batches(
    order: NDArray[np.int64], batch_size: int, steps: int | None
) -> list[NDArray[np.int64]]:
    """Return the samples of each batch of an epoch, in its order; at most so many steps.

    A last batch of one sample joins the one before it: batch norm cannot work on one.

    Example:
        >>> [len(batch) for batch in epoch_batches(np.arange(9), 4, None)]
        [4, 5]
    """
    starts = list(range(0, len(order), batch_size))
    if len(starts) > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    batches = np.split(order, starts[1:]) if starts else []
    return batches if steps is None else batches[:steps]


def balanced_order(codes: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """Return as many samples as there are, drawn with replacement, every class equally likely.

    Example:
        >>> codes = np.array([0] * 90 + [1] * 10)
        >>> drawn = codes[balanced_order(codes, np.random.default_rng(0))]
        >>> 30 < (drawn == 1).sum() < 70
        np.True_
    """
    by_class = np.argsort(codes, kind="stable")
    _, starts, counts = np.unique(codes[by_class], return_index=True, return_counts=True)
    chosen = random.integers(len(counts), size=len(codes)) if len(codes) else codes
    order: NDArray[np.int64] = by_class[starts[chosen] + random.integers(counts[chosen])]
    return order


def prefetched(
    inputs: Inputs, batches: Sequence[NDArray[np.int64]], epoch: int
) -> Iterator[Tensor]:
    """Yield the inputs of each batch; the next ones are made while the loop computes."""
    ahead = 3
    with ThreadPoolExecutor(max(threads(), 2)) as pool:
        waiting = [pool.submit(inputs.take, batch, epoch) for batch in batches[:ahead]]
        for position in range(len(batches)):
            ready = waiting.pop(0).result()
            if position + ahead < len(batches):
                waiting.append(pool.submit(inputs.take, batches[position + ahead], epoch))
            yield ready
