"""One pass of images through a network: threads decode ahead, and rows go to the cache."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from regraft.backbones.backbone import Backbone
from regraft.backbones.engines import Engine, expected_engine
from regraft.backbones.spec import Compute
from regraft.data.images import DECODER_VERSION, Decoding, ImageLike, decode, read_image
from regraft.errors import BackboneError, ImageError, UsageError
from regraft.features.cache import FeatureCache, FeatureRows, Matrix
from regraft.settings import to_json
from regraft.system import choose_device, progress_bar, threads

Pixels = npt.NDArray[np.uint8]
# Name, SHA-256, and the pixels unless the row is there already or on its way.
_Loaded = tuple[str, str, Pixels | None]


@dataclass(frozen=True)
class EmbeddingStats:
    """What a pass cost.

    Attributes:
        images: Images asked for.
        embedded: Images that went through the network; the others were cached or repeated.
        seconds: Seconds for all of them.
    """

    images: int
    embedded: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Embedded:
    """Features of images, on disk until they are asked for."""

    names: tuple[str, ...]
    sha256s: tuple[str, ...]
    stats: EmbeddingStats
    about: Mapping[str, str]
    rows: FeatureRows

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return self.stats.images, self.rows.width

    def blocks(self, size: int = 1000) -> Iterator[Matrix]:
        """Yield the rows in the order of the images, (at most ``size``, d) at a time."""
        for start in range(0, len(self.sha256s), size):
            yield self.rows.read(self.sha256s[start : start + size])

    def matrix(self) -> Matrix:
        """Return all rows in the order of the images, (n, d)."""
        return self.rows.read(self.sha256s)


def as_list(images: Sequence[ImageLike]) -> list[ImageLike]:
    """Return images as a list, in the order in which they are iterated over.

    A column of a table looks ``images[0]`` up by its label, not by its position; a list does not.

    Raises:
        UsageError: It is a single image.

    Example:
        >>> as_list(("a.jpg", "b.jpg"))
        ['a.jpg', 'b.jpg']
    """
    single = isinstance(images, str | os.PathLike | Image.Image)
    if single or (isinstance(images, np.ndarray) and images.ndim not in {1, 4}):
        hint = "pass a list of paths, of Pillow images or of H×W×3 uint8 arrays"
        raise UsageError("not a list of images", why=f"found {type(images).__name__}", hint=hint)
    return list(images)


def embed(
    backbone: Backbone,
    images: Sequence[ImageLike],
    *,
    cache: FeatureCache,
    width: int,
    pooling: str,
    build_engine: Callable[[], Engine],
    compute: Compute = Compute(),
    batch_size: int = 32,
    verbose: bool = False,
) -> Embedded:
    """Make sure that every image has its row; each content passes the network at most once.

    Args:
        backbone: The network; its preprocessing is used.
        images: Paths, Pillow images or H×W×3 uint8 arrays.
        cache: Where rows are looked for and added.
        width: Numbers per row.
        pooling: What becomes a row, as part of the key.
        build_engine: Called if an image is not cached.
        compute: Engine, device, precision and decoding.
        batch_size: Images per pass.
        verbose: Whether to show progress.

    Raises:
        ImageError: An image cannot be used; what was computed before stays cached.
        RegraftError: The rows cannot be stored.
    """

    def attempt(name: str) -> Embedded:
        device = choose_device(compute.device) if name == "torch" else "cpu"
        about = key_facts(backbone, pooling, compute, engine=name, device=device)

        def build() -> Engine:
            built = build_engine()
            if built.name != name:
                raise _AnotherEngineError(built.name)
            return built

        start, rows = time.perf_counter(), cache.rows(about, width)
        filling = _Filling(rows, backbone, build, batch_size, compute.decoding)
        found = filling.run(images, verbose=verbose)
        stats = EmbeddingStats(len(images), filling.embedded, time.perf_counter() - start)
        texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in about.items()}
        texts |= {"backbone": backbone.spec.name, "fingerprint": backbone.fingerprint}
        names, sha256s = zip(*found, strict=True) if found else ((), ())
        return Embedded(names, sha256s, stats, texts, rows)

    try:  # a wrong guess costs time only: the engine that is built has the last word
        return attempt(expected_engine(compute.engine))
    except _AnotherEngineError as other:
        return attempt(other.args[0])


def key_facts(
    backbone: Backbone,
    pooling: str,
    compute: Compute,
    *,
    engine: str,
    device: str = "cpu",
    view: Any = None,
) -> dict[str, Any]:
    """Return everything that shapes the numbers of a row, apart from the image."""
    return {
        "backbone": backbone.fingerprint_of(pooling),
        "name": backbone.spec.name,
        "pooling": pooling,
        "preprocessing": to_json(backbone.preprocessing),
        "engine": engine,
        "device": device.partition(":")[0],
        "precision": compute.precision,
        "view": view,
        "decoding": to_json(compute.decoding),
        "decoder": DECODER_VERSION,
    }


class _AnotherEngineError(Exception):
    """The engine that could be built, whose name it holds, is not the one that was expected."""


@dataclass(eq=False)
class _Filling:
    """Reads images in threads and runs those without a row through the network, in batches.

    Each file is read once: the same bytes are hashed and decoded. Memory holds about two batches,
    however many images there are. What was computed before an error or Ctrl-C is kept.
    """

    rows: FeatureRows
    backbone: Backbone
    build_engine: Callable[[], Engine]
    batch_size: int
    decoding: Decoding
    embedded: int = 0
    engine: Engine | None = None
    claimed: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, images: Sequence[ImageLike], *, verbose: bool) -> list[tuple[str, str]]:
        """Return the name and the SHA-256 of each image when all have a row."""
        found: list[tuple[str, str]] = []
        waiting: dict[str, Pixels] = {}
        with (
            progress_bar("Embedding", len(images), visible=verbose) as advance,
            self.rows.writer() as add,
            contextlib.closing(self._in_order(images)) as stream,
        ):
            for name, sha256, pixels in stream:
                found.append((name, sha256))
                advance(1)
                if pixels is not None:
                    waiting[sha256] = pixels
                if len(waiting) == self.batch_size or (waiting and len(found) == len(images)):
                    add(list(waiting), self._features(np.stack(list(waiting.values()))))
                    waiting.clear()
        return found

    def _in_order(self, images: Sequence[ImageLike]) -> Generator[_Loaded, None, None]:
        """Yield what `_load` returns, in order, while threads work on the next two batches."""
        workers = threads()
        waiting: deque[Future[_Loaded]] = deque()
        pool = ThreadPoolExecutor(workers, thread_name_prefix="regraft-load")
        try:
            for image in images:
                waiting.append(pool.submit(self._load, image))
                if len(waiting) >= 2 * self.batch_size + workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _load(self, image: ImageLike) -> _Loaded:
        content = read_image(image)
        with self.lock:
            first = content.sha256 not in self.claimed
            self.claimed.add(content.sha256)
        if not first or self.rows.known([content.sha256])[0]:
            return content.name, content.sha256, None
        try:
            pixels = self.backbone.prepare(decode(content, self.decoding))
        except ImageError as error:
            error.path = content.name  # the preparation sees pixels only and cannot name the file
            raise
        return content.name, content.sha256, pixels

    def _features(self, batch: Pixels) -> Matrix:
        if self.engine is None:
            self.rows.prepare()  # a folder that cannot be written is found out before the work
            self.engine = self.build_engine()
        features = self.engine(batch)
        if not np.isfinite(features).all():
            what, why = "the network gives numbers that are not finite", f"in {len(batch)} images"
            hint = 'try precision="fp32", and check the weights and the preprocessing'
            raise BackboneError(what, why=why, hint=hint, code="BACKBONE-NAN")
        self.embedded += len(batch)
        return features
