"""The admin socket: who is at its other end, as the kernel says, on a real Unix socket."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvloop
from starlette.types import ASGIApp

from orchestrator.core.trust.roles import Role
from orchestrator.engine.trust.approvals import Rules
from orchestrator.errors import UnavailableError
from orchestrator.web import access
from orchestrator.web.server import PEER, AdminSocket
from tests.web.site import PLAN, TOKEN, Site, problem, site

LOOPS: dict[str, Callable[[Coroutine[Any, Any, None]], None]] = {"asyncio": asyncio.run, "uvloop": uvloop.run}


@asynccontextmanager
async def served(app: ASGIApp, path: Path, **options: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """Serve on a Unix socket; gives a client without a token that calls there."""
    server = AdminSocket(app, path, **options)
    task = asyncio.create_task(server.run())
    while not server._server.started:
        await asyncio.sleep(0.001)
    try:
        async with httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=str(path)), base_url="http://a") as http:
            yield http
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def admin_site(folder: Path, **changes: Any) -> AsyncIterator[tuple[Site, httpx2.AsyncClient]]:
    async with site(folder, **changes) as web, served(web.app, folder / "admin.sock") as http:
        yield web, http


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "admin.sock"


@pytest.mark.parametrize("loop", LOOPS)
def test_our_own_user_is_admin_without_any_token(tmp_path: Path, loop: str) -> None:
    async def run() -> None:
        async with admin_site(tmp_path, operator_token="") as (web, http):
            assert (await http.get("/api/v1/operators")).json() == []
            made = await http.post("/api/v1/operators", json={"name": "ann", "person": "ann", "roles": ["admin"]})
            assert made.status_code == 201
            (entry, _) = await web.plant.store.read(lambda tx: tx.audit_entries(0, 10))
            assert (entry.actor, entry.action) == ("root@local", "operator.added")

    LOOPS[loop](run())


async def test_its_mode_lets_nobody_else_in_unless_users_are_named(path: Path, tmp_path: Path) -> None:
    async with site(tmp_path) as web:
        for shared, mode in ((False, 0o600), (True, 0o666)):
            async with served(web.app, path, shared=shared):
                assert stat.S_IMODE(path.stat().st_mode) == mode
            assert not path.exists()


async def test_other_users_are_who_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller of another user is one whose number the application does not take for its own."""
    real = os.getuid()
    monkeypatch.setattr(access, "OURS", frozenset())
    async with admin_site(tmp_path) as (_, http):
        assert problem(await http.get("/api/v1/operators")) == (401, "unauthorised")
        answer = await http.get("/api/v1/operators", headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 200
    (tmp_path / "listed").mkdir()
    async with admin_site(tmp_path / "listed", admin_uids=frozenset({real})) as (web, http):
        await http.post("/api/v1/operators", json={"name": "ann", "person": "ann", "roles": ["admin"]})
        (entry, _) = await web.plant.store.read(lambda tx: tx.audit_entries(0, 10))
        assert entry.actor == f"uid-{real}@local"


async def test_over_the_network_nobody_is_local(tmp_path: Path) -> None:
    async with site(tmp_path, admin_uids=frozenset({os.getuid()})) as web:
        answer = await web.http.get("/api/v1/operators", headers={PEER: "0", "X-Peer-Uid": "0"})
        assert problem(answer) == (401, "unauthorised")


async def test_a_token_that_is_sent_counts_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    async with admin_site(tmp_path) as (web, http):
        token = await web.operator("ann", Role.VIEWER)
        answer = await http.get("/api/v1/operators", headers={"Authorization": f"Bearer {token}"})
        assert problem(answer) == (403, "not_permitted")
        for wrong in ("Bearer wrong", "Bearer " + "x" * 200, "Bearer", "Basic eA==", ""):
            answer = await http.get("/api/v1/operators", headers={"Authorization": wrong})
            assert problem(answer) == (401, "unauthorised")


async def test_the_glass_is_broken_here_and_another_person_must_look(tmp_path: Path) -> None:
    async with admin_site(tmp_path, rules=Rules(always=True, approve_above=0.0)) as (web, http):
        await web.release()
        await web.enrol("d1")
        ann, ben = await web.operator("ann", Role.ADMIN), await web.operator("ben", Role.APPROVER)
        await web.ops("POST", "/rollouts", PLAN)
        start = "/api/v1/rollouts/spring/start"
        assert problem(await http.post(start, json={})) == (409, "approval_needed")
        viewer = await web.operator("vic", Role.OPERATOR)
        refused = await http.post(start, json={"break_glass": "x"}, headers={"Authorization": f"Bearer {viewer}"})
        assert problem(refused) == (403, "not_local")
        assert problem(await http.post(start, json={"break_glass": " "})) == (409, "approval_needed")
        waiting = (await web.ops("GET", "/approvals")).json()["proposals"]
        done = await http.post(start, json={"break_glass": "the bridge burns"})
        assert (done.status_code, done.json()["phase"]) == (200, "preparing")
        found = (await web.ops("GET", "/approvals")).json()
        assert [item["state"] for item in waiting] == ["proposed"] * len(waiting) != []
        assert [item["state"] for item in found["proposals"]] == ["void"] * len(waiting)
        (review,) = found["reviews"]
        assert done.json()["review"] == review["id"]
        assert (review["actor"], review["reason"], review["object"]) == ("root@local", "the bridge burns", "spring")
        close = f"/reviews/{review['id']}/close"
        assert problem(await web.ops("POST", close, {"reason": "mine"})) == (403, "own_review")
        closed = await web.ops("POST", close, {"reason": "it did burn"}, token=ben)
        assert (closed.status_code, closed.json()["closed_by"]) == (200, "ben")
        assert (await web.ops("GET", "/approvals")).json()["reviews"] == []
        assert problem(await web.ops("POST", close, {"reason": "again"}, token=ann)) == (409, "conflict")


async def test_who_broke_it_with_a_token_of_their_own_cannot_close_it(tmp_path: Path) -> None:
    async with admin_site(tmp_path, rules=Rules(always=True, approve_above=0.0)) as (web, http):
        await web.release()
        await web.enrol("d1")
        boss = await web.operator("boss", Role.ADMIN, Role.OPERATOR)
        headers = {"Authorization": f"Bearer {boss}"}
        await web.ops("POST", "/rollouts", PLAN)
        done = await http.post("/api/v1/rollouts/spring/start", json={"break_glass": "fire"}, headers=headers)
        assert done.status_code == 200
        assert problem(await web.ops("POST", "/reviews/1/close", {"reason": "fine"}, token=boss)) == (403, "own_review")


async def test_a_socket_that_a_dead_daemon_left_is_replaced(path: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with site(tmp_path) as web, served(web.app, path) as http:
        assert (await http.get("/healthz")).text == "ok\n"


async def test_a_living_daemon_and_what_is_no_socket_are_left_alone(path: Path, tmp_path: Path) -> None:
    async with site(tmp_path) as web:
        async with served(web.app, path) as http:
            with pytest.raises(UnavailableError, match=r"Address already in use; change operators\.socket"):
                AdminSocket(web.app, path)
            assert (await http.get("/healthz")).status_code == 200
        path.write_text("precious")
        with pytest.raises(UnavailableError):
            AdminSocket(web.app, path)
        assert path.read_text() == "precious"
