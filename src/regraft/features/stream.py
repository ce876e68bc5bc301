"""One pass of pictures through a network: threads decode ahead, and rows go to the cache."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from regraft.data.images import Decoding, Picture, decode, read_picture
from regraft.errors import BackboneError, ImageError, UsageError
from regraft.features.cache import FeatureRows
from regraft.features.shards import Matrix
from regraft.progress import progress_bar
from regraft.system import threads

Pixels = npt.NDArray[np.uint8]
Engine = Callable[[Pixels], Matrix]


@dataclass(frozen=True)
class EmbeddingStats:
    """What a pass cost.

    Attributes:
        images: Pictures asked for.
        embedded: Pictures that went through the network; the others were cached or repeated.
        seconds: Seconds for all of them.
    """

    images: int
    embedded: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Embedded:
    """Rows of pictures, on disk until they are asked for.

    Attributes:
        names: The path of each picture, or words for one without.
        sha256s: The digest of each picture's content.
        stats: What the pass cost.
        about: What shaped the numbers, as text.
        rows: Where they stand.
    """

    names: tuple[str, ...]
    sha256s: tuple[str, ...]
    stats: EmbeddingStats
    about: Mapping[str, str]
    rows: FeatureRows

    @property
    def images(self) -> int:
        """The number of pictures, n."""
        return self.stats.images

    @property
    def embedded(self) -> int:
        """How many of them went through the network in this pass."""
        return self.stats.embedded

    @property
    def seconds(self) -> float:
        """How long the pass took."""
        return self.stats.seconds

    @property
    def width(self) -> int:
        """Numbers per picture, d."""
        return self.rows.width

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return self.images, self.width

    def blocks(self, size: int = 1000) -> Iterator[Matrix]:
        """Yield the rows in the order of the pictures, (at most ``size``, d) at a time."""
        return self.rows.blocks(self.sha256s, size)

    def matrix(self) -> Matrix:
        """Return all rows in the order of the pictures, (n, d)."""
        return self.rows.read(self.sha256s)


def listed(pictures: Sequence[Picture]) -> list[Picture]:
    """Return pictures as a list, in the order in which they are iterated over.

    A column of a table looks ``pictures[0]`` up by its label, not by its position; a list does not.

    Raises:
        UsageError: It is a single picture.

    Example:
        >>> listed(("a.jpg", "b.jpg"))
        ['a.jpg', 'b.jpg']
    """
    single = isinstance(pictures, str | os.PathLike | Image.Image)
    if single or (isinstance(pictures, np.ndarray) and pictures.ndim not in {1, 4}):
        raise UsageError(
            "not a list of pictures",
            why=f"found {type(pictures).__name__}",
            hint="pass a list of paths, of Pillow images or of H×W×3 uint8 arrays",
        )
    return list(pictures)


def embed(
    pictures: Sequence[Picture],
    rows: FeatureRows,
    *,
    prepare: Callable[[Image.Image], Pixels],
    build_engine: Callable[[], Engine],
    about: Mapping[str, str],
    batch_size: int,
    decoding: Decoding,
    verbose: bool,
) -> Embedded:
    """Make sure that every picture has its row; each content goes through the network at most once.

    Each file is read once: the same bytes are hashed and decoded. Memory holds about two batches,
    however many pictures there are. What was computed before an error or Ctrl-C is kept.

    Args:
        pictures: What to embed.
        rows: Where rows are looked for and added.
        prepare: From an upright RGB picture to what enters the network, (size, size, 3).
        build_engine: Called at the first picture without a row; gives the function from a batch
            (n, size, size, 3) to rows (n, d).
        about: What shaped the numbers, as text.
        batch_size: Pictures per call of the engine.
        decoding: How files become pixels.
        verbose: Whether to show progress.

    Raises:
        ImageError: A picture cannot be used; it is the first such in the order given.
        RegraftError: The rows cannot be stored.
    """
    start = time.perf_counter()
    batches = _Batches(rows, build_engine, batch_size)
    load = _Loader(rows, prepare, decoding)
    names: list[str] = []
    sha256s: list[str] = []
    with (
        progress_bar("Embedding", len(pictures), visible=verbose) as advance,
        rows.writer(len(pictures)) as writer,
        contextlib.closing(_in_order(load, pictures, ahead=2 * batch_size)) as stream,
    ):
        for loaded in stream:
            names.append(loaded.name)
            sha256s.append(loaded.sha256)
            if loaded.pixels is None:
                advance(1)
            elif (done := batches.add(loaded.sha256, loaded.pixels)) is not None:
                writer.add(*done)
                advance(len(done[0]))
        if (done := batches.run()) is not None:
            writer.add(*done)
            advance(len(done[0]))
    stats = EmbeddingStats(len(pictures), batches.embedded, time.perf_counter() - start)
    return Embedded(tuple(names), tuple(sha256s), stats, about, rows)


@dataclass(frozen=True)
class _Loaded:
    name: str
    sha256: str
    pixels: Pixels | None  # None: the row is there already, or on its way


class _Loader:
    """Read a picture and, unless its row is known, decode and prepare it; for several threads."""

    def __init__(
        self,
        rows: FeatureRows,
        prepare: Callable[[Image.Image], Pixels],
        decoding: Decoding,
    ) -> None:
        self._rows = rows
        self._prepare = prepare
        self._decoding = decoding
        self._claimed: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, picture: Picture) -> _Loaded:
        content = read_picture(picture, limits=self._decoding.limits)
        if not self._is_first(content.sha256) or self._rows.known([content.sha256])[0]:
            return _Loaded(content.name, content.sha256, None)
        try:
            pixels = self._prepare(decode(content, self._decoding))
        except ImageError as error:
            error.path = content.name  # the preparation sees pixels only and cannot name the file
            raise
        return _Loaded(content.name, content.sha256, pixels)

    def _is_first(self, sha256: str) -> bool:
        with self._lock:
            first = sha256 not in self._claimed
            self._claimed.add(sha256)
        return first


class _Batches:
    """Gather prepared pictures and run them through the engine, which is built for the first."""

    def __init__(
        self, rows: FeatureRows, build_engine: Callable[[], Engine], batch_size: int
    ) -> None:
        self.embedded = 0
        self._rows = rows
        self._build_engine = build_engine
        self._engine: Engine | None = None
        self._batch_size = batch_size
        self._waiting: list[tuple[str, Pixels]] = []

    def add(self, sha256: str, pixels: Pixels) -> tuple[list[str], Matrix] | None:
        """Return digests and rows when a batch is full."""
        self._waiting.append((sha256, pixels))
        return self.run() if len(self._waiting) == self._batch_size else None

    def run(self) -> tuple[list[str], Matrix] | None:
        """Return digests and rows of what waits, if anything does."""
        if not self._waiting:
            return None
        if self._engine is None:
            self._rows.prepare()  # a folder that cannot be written is found out before the work
            self._engine = self._build_engine()
        sha256s = [sha256 for sha256, _ in self._waiting]
        features = self._engine(np.stack([pixels for _, pixels in self._waiting]))
        self._waiting.clear()
        if not np.isfinite(features).all():
            raise BackboneError(
                "the network gives numbers that are not finite",
                why=f"in {len(sha256s)} pictures",
                hint='try precision="fp32", and check the weights and the preprocessing',
                code="BACKBONE-NAN",
            )
        self.embedded += len(sha256s)
        return sha256s, features


def _in_order(
    load: _Loader, pictures: Sequence[Picture], *, ahead: int
) -> Generator[_Loaded, None, None]:
    """Yield loaded pictures in order while threads work on at most ``ahead`` of the next ones."""
    workers = threads()
    waiting: deque[Future[_Loaded]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="regraft-load")
    try:
        for picture in pictures:
            waiting.append(pool.submit(load, picture))
            if len(waiting) >= ahead + workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
