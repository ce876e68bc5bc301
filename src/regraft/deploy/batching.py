"""Images of many requests answered together, by a few workers behind one bounded queue.

While workers are at work more images arrive, and the next one to be free takes several of them at
once. One that would take fewer waits a few milliseconds, and only if somebody is known to come.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL.Image import Image

from regraft.errors import RequestError

Row = dict[str, Any]
Rows = Callable[[Sequence[Image]], list[Row]]
Ask = Callable[[Sequence[Image]], Awaitable[list[Row]]]
_Waiting = tuple[Image, asyncio.Future[Row]]
_AGAIN = 1.0  # seconds between two attempts to bring a failed model back
_DRAINED = 6.0  # seconds within which the queue is empty when the server stops


class Batcher:
    """A model behind a queue; everything but the model itself runs in one event loop.

    Args:
        answer: From images to what is known of each, called in threads of its own.
        sample: An image that shows whether the model works.
        most: How many images are answered by one call.
        workers: How many calls there are at a time.
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
        workers: int = 1,
        room: int = 128,
        wait: float = 0.004,
        on_batch: Callable[[int], object] = lambda _count: None,
    ) -> None:
        self.ready = False
        self.taken = 0
        self._answer, self._sample, self._on_batch = answer, sample, on_batch
        self._most, self._workers, self._room, self._wait = most, workers, room, wait
        self._waiting: deque[_Waiting] = deque()
        self._coming = 0  # images that are being decoded
        self._arrived, self._stopping = asyncio.Event(), False
        self._free, self._calls = asyncio.Semaphore(workers), set[asyncio.Task[None]]()
        self._idle = asyncio.Event()
        self._idle.set()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="model")
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
        running = [*self._calls, *([self._task] if self._task else [])]
        for each in running:
            each.cancel()
        if running:
            await asyncio.wait(running)
        self._fail("the server stops")
        self._threads.shutdown(wait=False, cancel_futures=True)

    @contextlib.contextmanager
    def places(self, count: int) -> Iterator[Ask]:
        """Hold places for images until they are answered, or nobody waits for them any more.

        Yields:
            A function to call once with those that could be decoded; it returns what the model says
            of each, or raises RequestError where the model has failed (``SERVER-MODEL``).

        Raises:
            RequestError: There is no room (``SERVER-BUSY``), or no model (``SERVER-MODEL``).
        """
        if self._stopping or not self.ready:
            raise _failed("the server stops" if self._stopping else "it does not answer")
        if self.taken + count > self._room:
            what, why = "the server is busy", f"{self.taken} of {self._room} places are taken"
            raise RequestError(what, why=why, hint="ask again in a second", code="SERVER-BUSY")
        coming = count
        self.taken += count
        self._coming += count
        self._idle.clear()

        async def ask(images: Sequence[Image]) -> list[Row]:
            nonlocal coming
            self._coming -= coming
            coming = 0
            return await self._ask(images)

        try:
            yield ask
        finally:
            self.taken -= count
            self._coming -= coming
            self._arrived.set()
            if not self.taken:
                self._idle.set()

    async def _ask(self, images: Sequence[Image]) -> list[Row]:
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
            await self._free.acquire()
            await self._revive()
            call = asyncio.ensure_future(self._call(await self._next()))
            self._calls.add(call)  # else nobody would hold it
            call.add_done_callback(self._calls.discard)

    async def _call(self, batch: Sequence[_Waiting]) -> None:
        try:
            rows = await self._run([image for image, _ in batch])
        except Exception:  # noqa: BLE001 - of the model, whatever it is
            self.ready = False
            self._waiting.extendleft(reversed(batch))
            self._fail("it failed")
            return
        finally:
            self._free.release()
        self._on_batch(len(batch))
        for (_, future), row in zip(batch, rows, strict=True):
            if not future.done():
                future.set_result(row)

    async def _next(self) -> list[_Waiting]:
        """Return images that somebody still waits for, at least one."""
        while True:
            while not self._forget():
                await self._revive()  # another call may have failed
                await self._arrival()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._wait):
                    while len(self._waiting) < self._most and self._coming:
                        await self._arrival()
            if count := min(self._most, self._forget()):
                return [self._waiting.popleft() for _ in range(count)]

    async def _arrival(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()

    def _forget(self) -> int:
        """Take images out whose clients have left; return how many there are."""
        if any(future.done() for _, future in self._waiting):
            self._waiting = deque(pair for pair in self._waiting if not pair[1].done())
        return len(self._waiting)

    async def _run(self, images: list[Image]) -> list[Row]:
        rows = await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, images)
        if len(rows) != len(images):
            raise ValueError(f"{len(rows)} answers to {len(images)} images")
        return rows

    async def _revive(self) -> None:
        while not self.ready:
            try:
                sample = [self._sample] * self._most  # takes all the memory that it will need
                await asyncio.gather(*(self._run(sample) for _ in range(self._workers)))
                self.ready = True
            except Exception:  # noqa: BLE001 - as in `_work`
                await asyncio.sleep(_AGAIN)

    def _fail(self, why: str) -> None:
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(_failed(why))
        self._arrived.set()


def _failed(why: str) -> RequestError:
    what, hint = "the model cannot answer", "ask again in a second"
    return RequestError(what, why=why, hint=hint, code="SERVER-MODEL")
