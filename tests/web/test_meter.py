"""Requests are counted by the route that answered them, whatever is asked for."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any, cast

import httpx2
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from orchestrator.web.meter import UNKNOWN, Asked, Meter, Metered, edge_of
from tests.support.clock import Clock
from tests.web.site import TOKEN, Site

VERSION = Asked("device", "GET", "/api/v1/firmware/version")


@pytest.fixture
async def metered(web: Site) -> AsyncIterator[tuple[Meter, httpx2.AsyncClient]]:
    meter = Meter()
    transport = httpx2.ASGITransport(Metered(web.app, meter), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://daemon") as http:
        yield meter, http


async def test_requests_are_counted_by_edge_route_and_status(
    web: Site, metered: tuple[Meter, httpx2.AsyncClient]
) -> None:
    meter, http = metered
    await web.enrol("d1", "d2")
    for device in ("d1", "d2", "d1"):
        await http.get("/api/v1/firmware/version", headers={"Authorization": f"Bearer {web.tokens[device]}"})
    await http.get("/api/v1/firmware/version")
    await http.get("/api/v1/devices/d1", headers={"Authorization": f"Bearer {TOKEN}"})
    await http.get("/api/v1/devices/no-such", headers={"Authorization": f"Bearer {TOKEN}"})
    await http.get("/DEFAULT/controller/v1/d1")
    await http.get("/healthz")
    one = Asked("api", "GET", "/api/v1/devices/{device_id}")
    assert meter.answers == {
        (VERSION, 204): 3,
        (VERSION, 401): 1,
        (one, 200): 1,
        (one, 404): 1,
        (Asked("ddi", "GET", "/{tenant}/controller/v1/{device}"), 401): 1,
        (Asked("probe", "GET", "/healthz"), 200): 1,
    }
    assert dict(meter.times[VERSION].below)[math.inf] == 4
    assert meter.open == 0


async def test_what_somebody_asks_for_makes_no_line_of_its_own(
    metered: tuple[Meter, httpx2.AsyncClient],
) -> None:
    meter, http = metered
    for number in range(50):
        await http.request(f"X{number}", f"/wp-admin/{number}")
        await http.get(f"/other/{number}/{number}/{number}")
    assert {asked for asked, _ in meter.answers} == {
        Asked(UNKNOWN, "other", UNKNOWN),
        Asked(UNKNOWN, "GET", UNKNOWN),
    }
    assert meter.answers.total() == 100


async def test_the_time_ends_with_the_head_of_the_answer() -> None:
    clock = Clock(0.0)

    async def slow(_scope: Scope, _receive: Receive, send: Send) -> None:
        clock.advance(2)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        clock.advance(500)
        await send({"type": "http.response.body", "body": b""})

    meter = Meter()
    await called(Metered(slow, meter, clock))
    ((asked, timing),) = meter.times.items()
    assert (asked.route, timing.total_s) == (UNKNOWN, 2)


async def test_a_caller_that_left_before_the_answer_has_no_time() -> None:
    async def gone(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ConnectionResetError

    meter = Meter()
    with pytest.raises(ConnectionResetError):
        await called(Metered(gone, meter))
    assert meter.answers == {(Asked(UNKNOWN, "GET", UNKNOWN), 0): 1}
    assert meter.times[Asked(UNKNOWN, "GET", UNKNOWN)].total_s == 0
    assert meter.open == 0


async def called(app: Any) -> None:
    async def silence(*_: object) -> Any:
        return None

    await app({"type": "http", "method": "GET", "path": "/"}, silence, silence)


async def test_every_route_has_an_edge(web: Site) -> None:
    app = cast(FastAPI, cast(Any, web.app)._app)
    edges = {edge_of(route.path_format) for route in app.routes if hasattr(route, "path_format")}
    assert edges == {"device", "ddi", "arduino", "esp-idf", "api", "probe", "pages"}
