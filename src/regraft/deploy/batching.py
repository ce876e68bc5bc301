"""Images of many requests answered together, by one worker with a bounded queue.

A model answers a few images at once at less cost than one by one, and two calls at a time would
only wait for each other. While the worker is at work more images arrive; an idle one waits a few
milliseconds, and only if somebody is known to come.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL.Image import Image

from regraft.errors import RequestError

Row = dict[str, Any]
Rows = Callable[[Sequence[Image]], list[Row]]
_AGAIN = 1.0  # seconds between two attempts to bring a failed model back
_DRAINED = 6.0  # seconds within which the queue is empty when the server stops


class Batcher:
    """A model behind a queue; everything but the model itself runs in one event loop.

    Args:
        answer: From images to what is known of each, called in a thread of its own.
        sample: An image that shows whether the model works.
        most: How many images are answered at once.
        room: How many images may be decoded, waiting or at work.
        wait: Seconds that an idle worker waits for images that are being decoded.
        on_batch: Called with the number of images of each batch.

    Attributes:
        ready: Whether the model works: it has answered the last time it was asked.
        taken: How many images are decoded, waiting or at work.
    """

    def __init__(
        self,
        answer: Rows,
        sample: Image,
        *,
        most: int = 8,
        room: int = 128,
        wait: float = 0.004,
        on_batch: Callable[[int], object] = lambda _count: None,
    ) -> None:
        self.ready = False
        self.taken = 0
        self._answer, self._sample, self._on_batch = answer, sample, on_batch
        self._most, self._room, self._wait = most, room, wait
        self._waiting: deque[tuple[Image, asyncio.Future[Row]]] = deque()
        self._arrived, self._stopping = asyncio.Event(), False
        self._idle = asyncio.Event()
        self._idle.set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work; it is ready when the model has answered the sample."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Take no more, answer what has been taken, and end."""
        self._stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAINED):
                await self._idle.wait()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._fail("the server stops")
        self._thread.shutdown(wait=False, cancel_futures=True)

    @contextlib.contextmanager
    def places(self, count: int) -> Iterator[None]:
        """Hold places for images until they are answered, or nobody waits for them any more.

        Raises:
            RequestError: There is no room (``SERVER-BUSY``), or no model (``SERVER-MODEL``).
        """
        if self._stopping or not self.ready:
            raise _failed("the server stops" if self._stopping else "it does not answer")
        if self.taken + count > self._room:
            what, why = "the server is busy", f"{self.taken} of {self._room} places are taken"
            raise RequestError(what, why=why, hint="ask again in a second", code="SERVER-BUSY")
        self.taken += count
        self._idle.clear()
        try:
            yield
        finally:
            self.taken -= count
            if not self.taken:
                self._idle.set()

    async def answer(self, images: Sequence[Image]) -> list[Row]:
        """Return what the model says of images for which places are held.

        Raises:
            RequestError: The model has failed (``SERVER-MODEL``).
        """
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in images]
        self._waiting.extend(zip(images, futures, strict=True))
        self._arrived.set()
        try:
            return list(await asyncio.gather(*futures))
        finally:
            for future in futures:
                future.cancel()  # of a client that has left; what is done stays as it is

    async def _work(self) -> None:
        while True:
            if not self.ready:
                await self._revive()
            batch = await self._next()
            try:
                rows = await self._run([image for image, _ in batch])
            except Exception:  # noqa: BLE001 - of the model, whatever it is
                self.ready = False
                self._waiting.extendleft(reversed(batch))
                self._fail("it failed")
                continue
            self._on_batch(len(batch))
            for (_, future), row in zip(batch, rows, strict=True):
                if not future.done():
                    future.set_result(row)

    async def _next(self) -> list[tuple[Image, asyncio.Future[Row]]]:
        """Return images that somebody still waits for, at least one."""
        while True:
            self._forget()
            if self._waiting:
                break
            await self._arrival()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._wait):
                while len(self._waiting) < min(self._most, self.taken):
                    await self._arrival()
        self._forget()
        count = min(self._most, len(self._waiting))
        batch = [self._waiting.popleft() for _ in range(count)]
        return batch or await self._next()

    async def _arrival(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()

    def _forget(self) -> None:
        """Take images out whose clients have left."""
        if any(future.done() for _, future in self._waiting):
            self._waiting = deque(pair for pair in self._waiting if not pair[1].done())

    async def _run(self, images: list[Image]) -> list[Row]:
        rows = await asyncio.get_running_loop().run_in_executor(self._thread, self._answer, images)
        if len(rows) != len(images):
            raise ValueError(f"{len(rows)} answers to {len(images)} images")
        return rows

    async def _revive(self) -> None:
        while not self.ready:
            try:
                await self._run([self._sample] * self._most)  # all the memory that it will need
                self.ready = True
            except Exception:  # noqa: BLE001 - as in `_work`
                await asyncio.sleep(_AGAIN)

    def _fail(self, why: str) -> None:
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(_failed(why))


def _failed(why: str) -> RequestError:
    what, hint = "the model cannot answer", "ask again in a second"
    return RequestError(what, why=why, hint=hint, code="SERVER-MODEL")
