"""The watch over what expires, with a clock that moves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from orchestrator.core.trust.expiry import DAY_S, Expiry
from orchestrator.engine.trust.expiry import ExpiryWatch
from orchestrator.errors import UnavailableError
from tests.support.clock import Clock


class _Source:
    """Says what the test says."""

    def __init__(self, *found: Expiry) -> None:
        self.found = list(found)
        self.fault: str | None = None

    def __call__(self) -> Sequence[Expiry]:
        if self.fault is not None:
            raise UnavailableError(self.fault)
        return list(self.found)


async def looked(watch: ExpiryWatch) -> list[tuple[str, str, str]]:
    """Look once, and return what was logged."""
    with capture_logs() as logs:
        await watch.look_once()
    return [(line["log_level"], line["event"], line["what"]) for line in logs]


async def test_it_tells_once_and_shows_always() -> None:
    clock = Clock()
    source = _Source(Expiry("broker", clock() + 40 * DAY_S), Expiry("key k1", clock() + 400 * DAY_S))
    watch = ExpiryWatch({"certificates": source}, clock)
    assert await looked(watch) == []
    clock.advance(10 * DAY_S)
    assert await looked(watch) == [("warning", "expiry.near", "broker")]
    assert await looked(watch) == []
    clock.advance(29.5 * DAY_S)
    assert await looked(watch) == [("error", "expiry.near", "broker")]
    clock.advance(1 * DAY_S)
    assert await looked(watch) == [("error", "expiry.expired", "broker")]
    assert watch.view() == [
        {"name": "broker", "expires_at": clock() - 0.5 * DAY_S, "days_left": -0.5, "threshold_days": 0},
        {"name": "key k1", "expires_at": clock() + 359.5 * DAY_S, "days_left": 359.5, "threshold_days": None},
    ]
    source.found = [Expiry("broker", clock() + 90 * DAY_S)]
    assert await looked(watch) == []
    assert [item["name"] for item in watch.view()] == ["broker"]


async def test_a_source_that_cannot_answer_is_told_once_and_holds_nobody_up() -> None:
    clock = Clock()
    away, other = _Source(Expiry("broker", clock() + DAY_S)), _Source(Expiry("proxy", clock() + DAY_S))
    watch = ExpiryWatch({"broker": away, "files": other}, clock)
    await looked(watch)
    away.fault = "not there"
    other.found = [Expiry("proxy", clock() + 5 * DAY_S)]
    assert await looked(watch) == [("warning", "expiry.unknown", "broker"), ("warning", "expiry.near", "proxy")]
    assert await looked(watch) == []
    assert watch.view()[-1] == {"name": "broker", "error": "not there"}
    assert [item["name"] for item in watch.view()[:-1]] == ["broker", "proxy"]  # what it last said still holds
    away.fault = None
    assert await looked(watch) == []
    assert len(watch.view()) == 2


async def test_it_looks_again_after_every_pause() -> None:
    looks: list[float] = []
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise asyncio.CancelledError

    def source() -> list[Expiry]:
        looks.append(0.0)
        return []

    watch = ExpiryWatch({"none": source}, Clock())
    with pytest.raises(asyncio.CancelledError):
        await watch.run(60.0, sleep)
    assert (len(looks), pauses) == (3, [60.0] * 3)


async def test_what_changed_is_looked_at_alone_and_at_once() -> None:
    clock = Clock()
    keys, broker = _Source(Expiry("key k1", clock() + 400 * DAY_S)), _Source(Expiry("broker", clock() + 90 * DAY_S))
    watch = ExpiryWatch({"keys": keys, "broker": broker}, clock)
    assert await looked(watch) == []
    keys.found, broker.found = [Expiry("key k2", clock() + 6 * DAY_S)], []
    with capture_logs() as logs:
        await watch.look_at("keys")
    assert [(line["event"], line["what"]) for line in logs] == [("expiry.near", "key k2")]
    assert [item.name for item in watch.found] == ["key k2", "broker"]
