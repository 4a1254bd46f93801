"""The single writer: who is served, what comes back, and what happens to callers that went away."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from orchestrator.adapters.store.lanes import PATIENCE, Writer
from orchestrator.errors import UnavailableError


async def test_results_and_errors_go_to_their_own_caller() -> None:
    writer = Writer("test-writer")

    def fail() -> None:
        raise KeyError("mine")

    good, bad = await asyncio.gather(writer.submit(0, lambda: 7), writer.submit(0, fail), return_exceptions=True)
    assert good == 7
    assert isinstance(bad, KeyError)
    await asyncio.to_thread(writer.close)


async def test_work_of_a_caller_that_went_away_is_still_done() -> None:
    writer = Writer("test-writer")
    busy, go, done = threading.Event(), threading.Event(), []

    def hold() -> None:
        busy.set()
        go.wait(10)

    def fail() -> None:
        done.append("failed")
        raise KeyError("nobody hears it")

    first = asyncio.ensure_future(writer.submit(0, hold))
    await asyncio.to_thread(busy.wait, 10)
    gone = [asyncio.ensure_future(writer.submit(1, lambda: done.append("worked")))]
    gone.append(asyncio.ensure_future(writer.submit(1, fail)))
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    await asyncio.sleep(0)
    go.set()
    await first
    await asyncio.to_thread(writer.close)
    await asyncio.sleep(0)
    assert done == ["worked", "failed"]
    assert all(task.cancelled() for task in gone)


async def test_a_closed_writer_takes_nothing() -> None:
    writer = Writer("test-writer")
    await asyncio.to_thread(writer.close)
    with pytest.raises(UnavailableError, match="the store is closed"):
        await writer.submit(0, lambda: 1)


async def test_the_last_lane_gets_its_turn_in_a_flood() -> None:
    writer = Writer("test")
    order: list[int] = []
    gate = threading.Event()
    first = asyncio.create_task(writer.submit(0, gate.wait))
    await asyncio.sleep(0)
    jobs = [asyncio.create_task(writer.submit(lane, partial(order.append, lane))) for lane in [2] + [1] * 20]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first, *jobs)
    await asyncio.to_thread(writer.close)
    assert order.index(2) <= PATIENCE
