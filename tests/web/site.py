"""The HTTP application over a real store and the real engine, called without a network."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
from starlette.types import ASGIApp

from orchestrator.adapters.files import FileSource
from orchestrator.core.trigger import statement_claims
from orchestrator.core.trust.roles import SHARED, Caller, Role
from orchestrator.engine.importer import Importer, Registry
from orchestrator.engine.offers.known import Known
from orchestrator.engine.reports.contacts import Contacts
from orchestrator.engine.rollouts.operations import register_artifact
from orchestrator.engine.trust import operators
from orchestrator.engine.trust.approvals import Rules, Wish
from orchestrator.engine.trust.operators import Issued, NewOperator
from orchestrator.ports import ArtifactSource, Lane, Tx
from orchestrator.web.app import build_app
from orchestrator.web.context import Context
from orchestrator.wire.token import TokenType, assemble, encode64, signing_input
from tests.support.factory import ARTIFACT_KEY, DEPLOYMENT, KEYS, Plant, make_artifact, plant

TOKEN = "operator-token-of-the-test"
PLAN: dict[str, Any] = {"name": "spring", "release": "radio-2", "stages": [{"devices": "rest", "soak": "10s"}]}


@dataclass
class Site:
    """A running application.

    Attributes:
        plant: the engine behind it.
        app: the ASGI application.
        http: a client without a login.
        folder: where artifacts may lie.
        tokens: device tokens by identifier, of those that `enrol` made.
    """

    plant: Plant
    app: ASGIApp
    http: httpx2.AsyncClient
    folder: Path
    tokens: dict[str, str] = field(default_factory=dict)

    async def ops(
        self, method: str, path: str, body: object = None, *, token: str = TOKEN, **more: Any
    ) -> httpx2.Response:
        """Call the operator API as the shared operator, or with another token."""
        headers = {"Authorization": f"Bearer {token}"}
        return await self.http.request(method, f"/api/v1{path}", json=body, headers=headers, **more)

    async def as_device(self, device: str, method: str, path: str, **more: Any) -> httpx2.Response:
        """Call as a device that `enrol` made."""
        headers = {"Authorization": f"Bearer {self.tokens[device]}"} | more.pop("headers", {})
        return await self.http.request(method, path, headers=headers, **more)

    async def operator(self, name: str, *roles: Role, person: str = "", days: int = 90) -> str:
        """Add an operator without asking anybody, and return the token."""
        new = NewOperator(name, person or name, roles, days)
        wish = Wish(Caller("root@local", "", SHARED, local=True), break_glass="a test")

        def work(tx: Tx) -> Issued:
            made = operators.add(tx, new, wish, Rules(), self.plant.clock())
            for review in tx.open_reviews():
                tx.close_review(replace(review, closed_by="test", closed_at=0.0))
            assert isinstance(made, Issued)
            return made

        return (await self.plant.store.transact(Lane.OPERATOR, work)).text

    async def enrol(self, *devices: str, model: str = "m1") -> None:
        """Enrol devices over the API."""
        body = {"devices": [{"id": each, "model": model, "version": "1.0.0", "rel": 1} for each in devices]}
        answer = await self.ops("POST", "/devices", body)
        assert answer.status_code == 201
        self.tokens |= answer.json()["tokens"]

    def put_image(
        self,
        data: bytes,
        *,
        rel: int = 2,
        hardware: tuple[str, ...] = ("m1",),
        name: str = "fw.bin",
        leaves: tuple[int, ...] = (),
    ) -> str:
        """Write an image and its signed statement, and return its address."""
        path = self.folder / name
        path.write_bytes(data)
        Path(f"{path}.statement").write_bytes(statement(data, rel, hardware, leaves))
        return path.as_uri()

    async def release(self, data: bytes = b"image" * 1000, *, rel: int = 2) -> str:
        """Import an image and make the release `radio-<rel>`; returns the image's hash."""
        imported = await self.ops("POST", "/artifacts", {"uri": self.put_image(data, rel=rel)})
        sha256: str = imported.json()["sha256"]
        made = await self.ops("POST", "/releases", {"name": f"radio-{rel}", "artifacts": [sha256]})
        assert made.status_code == 201
        return sha256

    async def roll_out(self, **changes: Any) -> None:
        """Make the rollout `spring`, start it and let the conductor open its stage."""
        assert (await self.ops("POST", "/rollouts", PLAN | changes)).status_code == 201
        started = await self.ops("POST", "/rollouts/spring/start", {})
        assert started.status_code == 200
        self.plant.clock.advance(self.plant.settings.grace_s)
        await self.plant.conductor.advance(started.json()["id"])


def statement(data: bytes, rel: int, hardware: tuple[str, ...], leaves: tuple[int, ...] = ()) -> bytes:
    """Return the signed statement of an image."""
    sha256 = encode64(hashlib.sha256(data).digest())
    artifact = make_artifact(rel, hardware, size_bytes=len(data), sha256=sha256, leaves=leaves)
    signed = signing_input(TokenType.ARTIFACT, ARTIFACT_KEY.kid, statement_claims(artifact, issued_at=1_700_000_000))
    return assemble(signed, ARTIFACT_KEY.sign(signed))


@asynccontextmanager
async def site(folder: Path, *sources: ArtifactSource, **changes: Any) -> AsyncIterator[Site]:
    """Run the application; artifacts come from a folder and from the sources given, `changes` are of its context."""
    async with plant(folder) as engine, site_of(engine, folder, *sources, **changes) as running:
        yield running


@asynccontextmanager
async def site_of(engine: Plant, folder: Path, *sources: ArtifactSource, **changes: Any) -> AsyncIterator[Site]:
    """Run the application over an engine that is there; see `site`."""
    images = folder / "images"
    images.mkdir()
    app = build_app(replace(_context(engine, (FileSource((images,)), *sources)), **changes))
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    serving = asyncio.create_task(engine.recorder.serve())
    try:
        async with httpx2.AsyncClient(transport=transport, base_url="http://daemon") as http:
            yield Site(engine, app, http, images)
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


def _context(engine: Plant, sources: tuple[ArtifactSource, ...]) -> Context:
    importer = Importer(
        sources, lambda: KEYS, _registry(engine), limit_bytes=1 << 20, deployment=DEPLOYMENT, clock=engine.clock
    )
    return Context(
        store=engine.store,
        conductor=engine.conductor,
        recorder=engine.recorder,
        known=Known(engine.store, engine.store),
        contacts=Contacts(engine.store),
        import_artifact=importer.import_one,
        sources=sources,
        now=engine.clock,
        hearing=engine.hearing,
        planned=engine.planned.set,
        keyring=engine.keyring,
        operator_token=TOKEN,
        presign_lifetime_s=900,
        status=lambda: {"recorder": dict(engine.recorder.counts)},
    )


def _registry(engine: Plant) -> Registry:
    async def register(artifact: Any, actor: str) -> bool:
        work = partial(register_artifact, artifact=artifact, now=engine.clock(), actor=actor)
        return await engine.store.transact(Lane.OPERATOR, work)

    async def known(_uri: str, _etag: str) -> bool:
        return False

    async def remember(_uri: str, _etag: str) -> None:
        return None

    return Registry(register, known, remember)


def problem(answer: httpx2.Response) -> tuple[int, str]:
    """Return status and code of an error answer, after checking its shape (RFC 9457)."""
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == "about:blank"
    assert body["status"] == answer.status_code
    assert isinstance(body["detail"], str)
    assert body["detail"]
    return answer.status_code, body["code"]
