"""How open pages hear of changes: each page its own, with few looks, and nobody who may not."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from orchestrator.core.model import UpdateState
from orchestrator.core.trust.roles import Role
from orchestrator.engine.insight import census
from orchestrator.engine.insight.feed import Feed
from orchestrator.engine.rollouts import quarantine
from orchestrator.errors import UnavailableError
from orchestrator.web.context import UnauthorisedError
from orchestrator.web.pages import changes as changes_module
from orchestrator.web.pages import fleet as fleet_module
from orchestrator.web.pages.changes import Changes, print_of
from orchestrator.web.pages.session import IDLE_S
from tests.support.factory import plant
from tests.support.pages import serving
from tests.web.pages.visits import Visit, notice, signed_in, staged
from tests.web.site import Site, site_of

UNASKED = {"hx-request": "true"}


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Site]:
    async with staged(tmp_path) as running:
        yield running


async def confirm(web: Site) -> None:
    updates = await web.plant.store.read(lambda tx: tx.updates_in(1, [UpdateState.OFFERED]))
    await web.plant.confirm(updates[:1])


async def leave_out(web: Site) -> None:
    now = web.plant.clock()
    await web.plant.write(lambda tx: quarantine.enter(tx, ["d6"], "smoke", now, actor="ann"))


async def ask(web: Site) -> None:
    for name in ("ben", "cleo"):
        await web.operator(name, Role.APPROVER)
    ann = await signed_in(web, await web.operator("ann", Role.OPERATOR))
    assert "waits for others" in await ann.send("/rollouts/spring", "/rollouts/spring/skip", reason="hurry")


PAGES: list[tuple[str, Callable[[Site], Awaitable[None]]]] = [
    ("/", leave_out),
    ("/", confirm),
    ("/", ask),
    ("/rollouts", confirm),
    ("/rollouts/spring", confirm),
    ("/rollouts/spring", ask),
    ("/approvals", ask),
    ("/devices/d6", leave_out),
]


async def stream_of(browser: Visit, page: str) -> str:
    found = re.search(r'data-events="([^"]*)"', (await browser.get(page)).text)
    assert found is not None
    return unescape(found[1])


@pytest.mark.parametrize(("page", "act"), PAGES)
async def test_a_page_hears_of_what_it_shows_and_of_nothing_else(
    web: Site, page: str, act: Callable[[Site], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(changes_module, "BEAT_EVERY_S", 0.05)
    monkeypatch.setattr(changes_module, "COSTS_TIMES", 1)
    monkeypatch.setattr(fleet_module, "COSTS_TIMES", 1)
    monkeypatch.setattr(fleet_module, "CENSUS_S", 0.01)
    async with serving(web) as url, httpx2.AsyncClient(base_url=url) as http:
        browser = Visit(http)
        await browser.sign_in()
        async with http.stream("GET", await stream_of(browser, page)) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = answer.aiter_lines()
            assert [await anext(lines) for _ in range(6)] == ["retry: 2000", "", ": still here", "", ": still here", ""]
            await act(web)
            async for line in lines:
                if line.startswith("event"):
                    break
            assert line == "event: changed"
            await http.post("/logout", data=await browser.form(page, "/logout"))
            assert {line async for line in lines} <= {"", ": still here", line, "data: 1"}  # it ends with the session


@pytest.mark.parametrize(("page", "act"), PAGES)
async def test_what_changed_before_a_page_listens_is_said_at_once(
    web: Site, page: str, act: Callable[[Site], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_module, "CENSUS_S", 0.0)
    monkeypatch.setattr(fleet_module, "COSTS_TIMES", 0)
    async with serving(web) as url, httpx2.AsyncClient(base_url=url) as http:
        browser = Visit(http)
        await browser.sign_in()
        place = await stream_of(browser, page)
        await act(web)
        async with http.stream("GET", place) as answer:
            lines = answer.aiter_lines()
            assert [await anext(lines) for _ in range(3)] == ["retry: 2000", "", "event: changed"]


@pytest.mark.parametrize("page", sorted({page for page, _ in PAGES}))
async def test_a_stream_too_many_is_refused_and_who_is_nobody_hears_nothing(
    web: Site, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = await signed_in(web)
    place = await stream_of(browser, page)
    monkeypatch.setattr(changes_module, "MOST_STREAMS", 0)
    assert (await browser.get(place)).status_code == 503
    browser.http.cookies.clear()
    assert (await browser.get(place)).headers["location"].startswith("/login")
    assert (await browser.get(place, accept="text/event-stream")).status_code == 204


@pytest.mark.parametrize("thing", ["rollouts/winter", "devices/nobody"])
async def test_what_is_not_there_has_no_stream(web: Site, thing: str) -> None:
    assert (await (await signed_in(web)).get(f"/changes/{thing}")).status_code == 404


async def test_a_page_asks_again_for_what_its_address_asks_for(web: Site) -> None:
    text = (await (await signed_in(web)).get("/rollouts?sort=name&after=%22x")).text
    assert 'hx-get="/rollouts?sort=name&amp;after=%22x"' in text


async def test_a_page_that_asks_by_itself_takes_no_notice_and_keeps_nobody_signed_in(web: Site) -> None:
    browser = await signed_in(web, await web.operator("ann", Role.OPERATOR))
    fields = await browser.form("/rollouts/spring", "/rollouts/spring/pause")
    await browser.http.post("/rollouts/spring/pause", data=fields | {"reason": "lunch"})
    assert notice((await browser.get("/", **UNASKED)).text) == ""
    assert notice((await browser.get("/rollouts/spring")).text) == "Done. Pause: spring is paused now."
    web.plant.clock.advance(IDLE_S - 1)
    assert (await browser.get("/", **UNASKED)).status_code == 200
    web.plant.clock.advance(2)
    gone = await browser.get("/", **UNASKED)
    assert (gone.status_code, gone.headers["hx-refresh"]) == (204, "true")


@dataclass
class Looks:
    """Something that is looked at.

    Attributes:
        print: what is seen.
        count: how often it was looked at.
        takes_s: how long a look takes, by the clock of the test.
        at: that clock.
    """

    print: str = "new"
    count: int = 0
    takes_s: float = 0.0
    at: float = 100.0
    fault: list[Exception] = field(default_factory=list)

    async def look(self) -> str:
        await asyncio.sleep(0)
        self.count += 1
        self.at += self.takes_s
        if self.fault:
            raise self.fault[0]
        return self.print

    async def ask(self) -> None:
        if self.print == "forbidden":
            raise UnauthorisedError("nobody is signed in")


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """Something to look at, by a clock that moves where the test says so."""
    made = Looks()
    monkeypatch.setattr(changes_module, "time", SimpleNamespace(monotonic=lambda: made.at))
    return made


async def first(stream: AsyncIterator[bytes]) -> list[bytes]:
    return [await anext(stream) for _ in range(2)]


CHANGED = [b"retry: 2000\n\n", b"event: changed\ndata: 1\n\n"]


async def test_many_pages_share_one_look(looks: Looks) -> None:
    changes = Changes()
    streams = [changes.stream("fleet", looks.look, "old", looks.ask) for _ in range(50)]
    assert await asyncio.gather(*map(first, streams)) == [CHANGED] * 50
    other = changes.stream("rollouts", looks.look, "old", looks.ask)
    await first(other)
    assert looks.count == 2
    looks.at += changes_module.LOOK_EVERY_S
    late = changes.stream("fleet", looks.look, "old", looks.ask)
    await first(late)
    assert looks.count == 3
    for stream in (*streams, other, late):
        await stream.aclose()  # type: ignore[attr-defined]
    again = changes.stream("fleet", looks.look, "old", looks.ask)
    await first(again)
    assert looks.count == 4  # nothing is kept of what nobody shows


async def test_a_look_that_takes_long_is_taken_less_often(looks: Looks) -> None:
    looks.takes_s = 2.0
    changes = Changes()
    counts = []
    for pause_s in (0.0, 30.0, 9.0, 2.0):
        looks.at += pause_s
        await first(changes.stream("fleet", looks.look, "old", looks.ask))
        counts.append(looks.count)
    assert counts == [1, 1, 1, 2]


@pytest.mark.parametrize("how", ["signed out", "store away"])
async def test_a_stream_ends_and_makes_room(looks: Looks, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes_module, "MOST_STREAMS", 1)
    changes = Changes()
    changes.check()
    stream = changes.stream("fleet", looks.look, "old", looks.ask)
    assert await anext(stream) == CHANGED[0]
    with pytest.raises(UnavailableError, match="too many pages"):
        changes.check()
    if how == "signed out":
        looks.print = "forbidden"
    else:
        looks.fault.append(UnavailableError("the disk is full"))
    assert [piece async for piece in stream] == []
    changes.check()


async def test_those_who_come_at_once_are_no_more_than_there_is_room_for(
    looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them were told that there is room, while none of them had begun."""
    monkeypatch.setattr(changes_module, "MOST_STREAMS", 2)
    changes = Changes()
    streams = [changes.stream("fleet", looks.look, "old", looks.ask) for _ in range(5)]
    begun = await asyncio.gather(*(anext(stream, b"") for stream in streams))
    assert begun == [CHANGED[0], CHANGED[0], b"", b"", b""]


async def test_an_open_page_does_not_hold_up_the_end_of_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "LOOK_EVERY_S", 0.01)
    async with plant(tmp_path) as engine:
        feed = Feed(engine.store, engine.clock)
        running = asyncio.create_task(feed.run())
        async with (
            site_of(engine, tmp_path, feed=feed) as web,
            serving(web) as url,
            httpx2.AsyncClient(base_url=url) as http,
        ):
            browser = Visit(http)
            await browser.sign_in()
            async with http.stream("GET", await stream_of(browser, "/")) as answer:
                lines = answer.aiter_lines()
                assert await anext(lines) == "retry: 2000"
                running.cancel()
                assert {line async for line in lines} == {""}
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_the_fleet_is_counted_for_all_at_once(web: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[float] = []
    clock = SimpleNamespace(at=100.0)

    def of_fleet(tx: Any, now: float, real: Any = census.of_fleet) -> Any:
        counted.append(now)
        return real(tx, now)

    def monotonic() -> float:
        clock.at += 0.001
        return float(clock.at)

    monkeypatch.setattr(census, "of_fleet", of_fleet)
    monkeypatch.setattr(fleet_module, "time", SimpleNamespace(monotonic=monotonic))
    browser = await signed_in(web)
    await asyncio.gather(*(browser.get("/", **UNASKED) for _ in range(20)))
    assert len(counted) == 1
    clock.at += fleet_module.CENSUS_S + 1
    await browser.get("/", **UNASKED)
    assert len(counted) == 2
    await leave_out(web)
    assert ">1</strong>" not in (await browser.get("/", **UNASKED)).text
    assert ">1</strong>" in (await browser.get("/")).text  # who loads the page sees what is
    assert len(counted) == 3


def test_prints_differ_where_what_is_shown_does() -> None:
    assert print_of({"a": 1}, ["x"]) == print_of({"a": 1}, ["x"])
    assert print_of({"a": 1}) != print_of({"a": "1"})
    assert print_of("a", "b") != print_of("ab")
    assert re.fullmatch("[0-9a-f]{24}", print_of("\ud800"))
