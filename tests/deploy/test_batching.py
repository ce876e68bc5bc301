"""Images of many requests share batches, and one that nobody waits for takes no place."""

import asyncio
import contextlib
import threading

import numpy as np
import pytest
from PIL import Image

from regraft.deploy.batching import Batcher
from regraft.errors import RequestError

SAMPLE = Image.new("RGB", (4, 4))


def shade(value):
    return Image.new("RGB", (4, 4), (value, value, value))


class Model:
    """Answers with the shade of each image; it can be held and broken."""

    def __init__(self):
        self.batches, self.open, self.broken = [], threading.Event(), False
        self.begun = threading.Event()
        self.open.set()

    def __call__(self, images):
        """Answer images."""
        self.begun.set()
        assert self.open.wait(20)
        if self.broken:
            raise RuntimeError("broken")
        self.batches.append(len(images))
        return [{"shade": int(np.asarray(image)[0, 0, 0])} for image in images]


async def until(holds):
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - of a thread, which knows no event of asyncio
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def started(model, **options):
    batcher = Batcher(model, SAMPLE, **options)
    batcher.start()
    await until(lambda: batcher.ready)
    model.begun.clear()
    yield batcher
    model.open.set()
    await batcher.stop()


async def ask(batcher, *values):
    with batcher.places(len(values)) as answer:
        rows = await answer([shade(value) for value in values])
    return [row["shade"] for row in rows]


def test_every_request_gets_its_own_answers_and_many_share_a_batch():
    model = Model()

    async def scenario():
        async with started(model, most=4) as batcher:
            asked = (ask(batcher, *range(3 * n, 3 * n + n % 4)) for n in range(20))
            return await asyncio.gather(*asked)

    answers = asyncio.run(scenario())

    assert answers == [list(range(3 * n, 3 * n + n % 4)) for n in range(20)]
    assert max(model.batches) == 4
    assert sum(model.batches) == 4 + sum(n % 4 for n in range(20))  # four were the sample


def test_an_idle_worker_waits_only_for_images_that_are_known_to_come():
    model = Model()

    async def scenario():
        async with started(model, wait=10.0) as batcher:
            async with asyncio.timeout(5):
                alone = await ask(batcher, 1)
            with batcher.places(1) as answer:  # somebody decodes
                first = asyncio.ensure_future(ask(batcher, 2))
                await asyncio.sleep(0.05)
                waited = not first.done()
                second = await answer([shade(3)])
            return alone, waited, await first, second

    alone, waited, first, second = asyncio.run(scenario())

    assert (alone, waited, first, second) == ([1], True, [2], [{"shade": 3}])
    assert model.batches == [8, 1, 2]


def test_several_workers_answer_at_a_time_and_a_failure_of_one_ends_in_no_silence(monkeypatch):
    monkeypatch.setattr("regraft.deploy.batching._AGAIN", 0.02)
    model, together = Model(), threading.Barrier(2)

    def answer(images):
        if len(images) == 1:  # no sample
            together.wait(20)  # nobody passes alone
        return model(images)

    async def scenario():
        batcher = Batcher(answer, SAMPLE, most=2, workers=2, wait=0.0)
        batcher.start()
        await until(lambda: batcher.ready)
        good = await asyncio.gather(ask(batcher, 1), ask(batcher, 2))
        model.broken = True
        bad = await asyncio.gather(ask(batcher, 3), ask(batcher, 4), return_exceptions=True)
        model.broken = False
        await until(lambda: batcher.ready)
        again = await asyncio.gather(ask(batcher, 5), ask(batcher, 6))
        await batcher.stop()
        return good, [each.code for each in bad], again

    async def patiently():
        async with asyncio.timeout(20):
            return await scenario()

    assert asyncio.run(patiently()) == ([[1], [2]], ["SERVER-MODEL"] * 2, [[5], [6]])


def test_a_full_queue_refuses_at_once_and_loses_nothing():
    model = Model()

    async def scenario():
        async with started(model, room=3) as batcher:
            model.open.clear()
            running = [asyncio.ensure_future(ask(batcher, value)) for value in (1, 2, 3)]
            await asyncio.sleep(0)
            with pytest.raises(RequestError) as refused:
                await ask(batcher, 4)
            model.open.set()
            return refused.value, await asyncio.gather(*running), await ask(batcher, 5)

    refused, answers, later = asyncio.run(scenario())

    assert (refused.code, refused.why) == ("SERVER-BUSY", "3 of 3 places are taken")
    assert (answers, later) == ([[1], [2], [3]], [5])


def test_the_place_of_a_client_that_has_left_is_free_and_its_image_is_not_answered():
    model = Model()

    async def scenario():
        async with started(model, room=2) as batcher:
            model.open.clear()
            at_work = asyncio.ensure_future(ask(batcher, 1))
            await until(model.begun.is_set)
            leaving = asyncio.ensure_future(ask(batcher, 2))
            await asyncio.sleep(0.01)
            leaving.cancel()
            await asyncio.wait([leaving])
            third = asyncio.ensure_future(ask(batcher, 3))
            await asyncio.sleep(0.01)
            model.open.set()
            return await at_work, await third, batcher.taken

    assert asyncio.run(scenario()) == ([1], [3], 0)
    assert model.batches[1:] == [1, 1]  # behind the sample


def test_a_model_that_fails_is_said_to_be_out_and_comes_back(monkeypatch):
    monkeypatch.setattr("regraft.deploy.batching._AGAIN", 0.02)
    model = Model()

    async def scenario():
        async with started(model) as batcher:
            model.broken = True
            with pytest.raises(RequestError) as failed:
                await ask(batcher, 1)
            ready = batcher.ready
            with pytest.raises(RequestError) as refused:
                await ask(batcher, 1)
            model.broken = False
            await until(lambda: batcher.ready)
            return failed.value.code, ready, refused.value.code, await ask(batcher, 7)

    assert asyncio.run(scenario()) == ("SERVER-MODEL", False, "SERVER-MODEL", [7])


def test_a_model_that_answers_too_little_has_failed():
    async def scenario():
        batcher = Batcher(lambda images: [{}] * (8 if len(images) == 8 else 1), SAMPLE, wait=0.2)
        batcher.start()
        await until(lambda: batcher.ready)
        with pytest.raises(RequestError) as failed:
            await ask(batcher, 1, 2)
        await batcher.stop()
        return failed.value.code

    assert asyncio.run(scenario()) == "SERVER-MODEL"


def test_what_was_taken_is_answered_before_the_end_and_nothing_more_is_taken():
    model = Model()

    async def scenario():
        async with started(model, most=2) as batcher:
            model.open.clear()
            running = [asyncio.ensure_future(ask(batcher, value)) for value in range(7)]
            await until(model.begun.is_set)
            stopping = asyncio.ensure_future(batcher.stop())
            await asyncio.sleep(0.01)
            with pytest.raises(RequestError, match="the server stops"):
                await ask(batcher, 9)
            model.open.set()
            await stopping
            return await asyncio.gather(*running)

    assert asyncio.run(scenario()) == [[value] for value in range(7)]
