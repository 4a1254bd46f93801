"""What watchers are told, and who is told why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import httpx2

from orchestrator.core.trust.roles import Role
from orchestrator.web.health import TEXT, health_app
from tests.web.site import Site, _context, problem, site

FAULTS = {"broker": "not connected; the log says why"}


async def scrape() -> bytes:
    return b"ota_devices 3.0\n"


async def test_why_it_is_not_ready_is_for_who_may_read(tmp_path: Path) -> None:
    async with site(tmp_path, unready=lambda: FAULTS) as web:
        await web.enrol("d1")
        token = await web.operator("vic", Role.VIEWER)
        answer = await web.http.get("/readyz", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()) == (503, {"ready": False, "faults": FAULTS})
        for stranger in (await web.http.get("/readyz"), await web.as_device("d1", "GET", "/readyz")):
            assert (stranger.status_code, stranger.text) == (503, "not ready\n")
            assert stranger.headers["cache-control"] == "no-store"


async def test_who_is_ready_says_so(web: Site) -> None:
    token = await web.operator("vic", Role.VIEWER)
    answer = await web.http.get("/readyz", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "faults": {}})


async def test_a_store_that_recognises_nobody_does_not_make_it_fail(tmp_path: Path) -> None:
    async with site(tmp_path, unready=lambda: {"store": "database or disk is full"}) as web:
        token = await web.operator("vic", Role.VIEWER)
        web.plant.store.fails = 1
        answer = await web.http.get("/readyz", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.text) == (503, "not ready\n")


async def test_metrics_are_for_who_may_read_and_for_no_device(tmp_path: Path) -> None:
    async with site(tmp_path, scrape=scrape) as web:
        await web.enrol("d1")
        token = await web.operator("vic", Role.VIEWER)
        answer = await web.http.get("/metrics", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.text, answer.headers["content-type"]) == (200, "ota_devices 3.0\n", TEXT)
        assert problem(await web.http.get("/metrics")) == (401, "unauthorised")
        assert problem(await web.as_device("d1", "GET", "/metrics")) == (401, "unauthorised")


async def test_a_listener_of_its_own_asks_for_no_token_and_serves_nothing_else(tmp_path: Path) -> None:
    async with site(tmp_path) as web:
        app = health_app(replace(_context(web.plant, ()), scrape=scrape, unready=lambda: FAULTS))
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://watched") as http:
            assert (await http.get("/metrics")).text == "ota_devices 3.0\n"
            assert (await http.get("/readyz")).json() == {"ready": False, "faults": FAULTS}
            assert (await http.get("/healthz")).text == "ok\n"
            for path in ("/", "/api/v1/status", "/api/v1/devices", "/openapi.json"):
                assert (await http.get(path)).status_code == 404
            assert (await http.post("/metrics")).status_code == 405
