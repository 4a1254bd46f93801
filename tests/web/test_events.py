"""The stream of changes: how everything stands, what changes, who comes back, who is slow, and the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from orchestrator.core.trust.roles import Role
from orchestrator.demo.broker import HOST
from orchestrator.engine.insight import feed as feeds
from orchestrator.engine.insight.feed import Change, Feed, Listener
from orchestrator.errors import UnavailableError
from orchestrator.web import events
from orchestrator.web.server import HttpServer
from tests.support.factory import plant
from tests.web.site import PLAN, Site, problem, site_of


class Beat:
    """A pause that lasts until the test says so."""

    def __init__(self) -> None:
        self._go = asyncio.Event()
        self.waiting = asyncio.Event()

    async def __call__(self, _: float) -> None:
        self.waiting.set()
        await self._go.wait()
        self._go.clear()

    async def next(self) -> None:
        """Let one look happen, and wait until it has."""
        await self.waiting.wait()
        self.waiting.clear()
        self._go.set()
        await self.waiting.wait()


@asynccontextmanager
async def fed(folder: Path) -> AsyncIterator[tuple[Site, Feed, Beat]]:
    """Run a site whose changes are told, look by look."""
    async with plant(folder) as engine:
        feed, beat = Feed(engine.store, engine.clock), Beat()
        running = asyncio.create_task(feed.run(beat))
        try:
            async with site_of(engine, folder, feed=feed) as web:
                await asyncio.sleep(0)
                yield web, feed, beat
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


def heard(listener: Listener) -> list[Change]:
    """Return what a listener was told, and take it."""
    return [listener.waiting.get_nowait() for _ in range(listener.waiting.qsize())]


async def test_who_begins_hears_how_everything_stands_and_then_what_changes(tmp_path: Path) -> None:
    async with fed(tmp_path) as (web, feed, beat):
        await web.enrol("d1")
        await web.release()
        await web.ops("POST", "/rollouts", PLAN)
        listener = await feed.begin()
        first = heard(listener)
        assert {item.kind for item in first} == {"rollout", "fleet"}
        told = {item.kind: item.data for item in first}
        assert told["rollout"] == (await web.ops("GET", "/rollouts")).json()[0]
        assert (told["fleet"]["devices"], told["fleet"]["quarantined"]) == (1, 0)
        await beat.next()
        assert heard(listener) == []
        await web.ops("POST", "/rollouts/spring/start", {})
        await beat.next()
        (change,) = heard(listener)
        assert (change.kind, change.data["phase"]) == ("rollout", "preparing")
        await web.ops("POST", "/rollouts/spring/abort", {"reason": "x"})
        await beat.next()
        (change,) = heard(listener)
        assert change.data["phase"] == "aborted"
        await beat.next()
        assert heard(listener) == []
        assert [item.kind for item in heard(await feed.begin())] == ["fleet"]


async def test_devices_are_counted(tmp_path: Path) -> None:
    async with fed(tmp_path) as (web, feed, beat):
        await web.enrol("d1", "d2")
        listener = await feed.begin()
        heard(listener)
        await web.ops("POST", "/devices/quarantine", {"devices": ["d1"], "reason": "x"})
        for _ in range(feeds.FLEET_EVERY):
            await beat.next()
        (change,) = heard(listener)
        assert (change.kind, change.data["quarantined"]) == ("fleet", 1)
        assert "d1" not in json.dumps(change.data)


async def test_who_comes_back_hears_what_it_missed(tmp_path: Path) -> None:
    async with fed(tmp_path) as (web, feed, beat):
        await web.release()
        await web.ops("POST", "/rollouts", PLAN)
        listener = await feed.begin()
        last = heard(listener)[-1].id
        with feed.listening(listener):
            pass
        await web.ops("POST", "/rollouts/spring/abort", {"reason": "x"})
        missed = heard(await feed.begin(last))
        assert [item.data.get("phase") for item in missed] == ["aborted"]
        assert heard(await feed.begin(missed[-1].id)) == []
        assert heard(await feed.begin("of-another-life"))
        del beat


async def test_who_does_not_keep_up_is_dropped_and_told_so_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "MOST_WAITING", 3)
    async with fed(tmp_path) as (web, feed, beat):
        await web.release()
        await web.ops("POST", "/rollouts", PLAN)
        slow, quick = await feed.begin(), await feed.begin()
        for command in ("start", "pause", "resume", "abort"):
            await web.ops("POST", f"/rollouts/spring/{command}", {"reason": "x"})
            await beat.next()
            assert heard(quick)
        assert [item.kind for item in heard(slow)] == ["dropped"]
        assert slow.waiting.maxsize < 1000


async def test_no_more_listen_than_may_and_nobody_while_nobody_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "MOST_LISTENERS", 2)
    async with fed(tmp_path) as (web, feed, _):
        first = await feed.begin()
        await feed.begin()
        assert problem(await web.ops("GET", "/events")) == (503, "no_feed")
        with feed.listening(first):
            pass
        await feed.begin()
        still = Feed(web.plant.store, web.plant.clock)
        with pytest.raises(UnavailableError):
            await still.begin()


async def test_a_store_that_is_away_is_waited_for(tmp_path: Path) -> None:
    async with fed(tmp_path) as (web, feed, beat):
        listener = await feed.begin()
        heard(listener)
        web.plant.store.fails = 1
        await beat.next()
        await web.release()
        await web.ops("POST", "/rollouts", PLAN)
        await beat.next()
        assert [item.kind for item in heard(listener)] == ["rollout"]


async def test_without_a_feed_it_is_said_so(web: Site) -> None:
    assert problem(await web.ops("GET", "/events")) == (503, "no_feed")


async def read(lines: AsyncIterator[str]) -> dict[str, Any]:
    """Return the next event of a stream."""
    said: dict[str, Any] = {}
    async for line in lines:
        name, _, value = line.partition(": ")
        if not line and said:
            return said
        if line:
            said[name] = value
    raise EOFError


async def test_over_http_until_the_daemon_stops(tmp_path: Path) -> None:
    async with fed(tmp_path) as (web, feed, beat):
        await web.release()
        await web.ops("POST", "/rollouts", PLAN)
        server = HttpServer(web.app, HOST, 0, 10)
        serving = asyncio.create_task(server.run())
        headers = {"Authorization": "Bearer operator-token-of-the-test"}
        origin = f"http://{HOST}:{server.port}"
        try:
            async with (
                httpx2.AsyncClient(base_url=origin, trust_env=False, headers=headers) as http,
                http.stream("GET", "/api/v1/events") as answer,
            ):
                assert answer.headers["content-type"].startswith("text/event-stream")
                assert answer.headers["cache-control"] == "no-store"
                lines = answer.aiter_lines()
                first = [await read(lines) for _ in range(2)]
                assert [item["event"] for item in first] == ["rollout", "fleet"]
                assert json.loads(first[0]["data"])["name"] == "spring"
                await web.ops("POST", "/rollouts/spring/abort", {"reason": "x"})
                await beat.next()
                change = await read(lines)
                assert json.loads(change["data"])["phase"] == "aborted"
                feed._end()
                assert (await read(lines))["event"] == "stopping"
                with pytest.raises(EOFError):
                    await read(lines)
        finally:
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving


async def test_a_token_that_was_revoked_hears_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "QUIET_S", 0.02)
    async with fed(tmp_path) as (web, _, __):
        token = await web.operator("bo", Role.VIEWER)
        operators = (await web.ops("GET", "/operators")).json()
        (kept,) = operators[0]["tokens"]
        server = HttpServer(web.app, HOST, 0, 10)
        serving = asyncio.create_task(server.run())
        headers = {"Authorization": f"Bearer {token}"}
        origin = f"http://{HOST}:{server.port}"
        try:
            async with (
                httpx2.AsyncClient(base_url=origin, trust_env=False, headers=headers) as http,
                http.stream("GET", "/api/v1/events") as answer,
            ):
                lines = answer.aiter_lines()
                await read(lines)
                await web.ops("POST", f"/tokens/{kept['id']}/revoke", {})
                async with asyncio.timeout(30):
                    async for _line in lines:
                        pass
        finally:
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving


async def test_who_listens_when_the_daemon_stops_is_told_so(tmp_path: Path) -> None:
    async with plant(tmp_path) as engine:
        feed = Feed(engine.store, engine.clock)
        running = asyncio.create_task(feed.run(Beat()))
        await asyncio.sleep(0)
        listener = await feed.begin()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert [item.kind for item in heard(listener)] == ["stopping"]
        with pytest.raises(UnavailableError):
            await feed.begin()
