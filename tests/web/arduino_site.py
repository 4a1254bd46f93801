"""The application on loopback, with emulated Arduino devices before it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.core.model import Device, UpdateState
from orchestrator.core.trigger import statement_claims
from orchestrator.engine.reports.recording import record_silence
from orchestrator.engine.targeting import unsigned
from orchestrator.ports import Lane
from orchestrator.web.server import HttpServer
from orchestrator.wire.token import TokenType, assemble, encode64, signing_input
from tests.images import forge
from tests.support.emulators.esp32 import Esp32
from tests.support.emulators.esp8266 import Esp8266
from tests.support.emulators.pico import Pico
from tests.support.emulators.updater import Poll, Updater
from tests.support.factory import ARTIFACT_KEY, make_artifact
from tests.web.site import Site, site

HOST = "127.0.0.1"
CORES: dict[str, type[Updater]] = {"esp8266": Esp8266, "esp32": Esp32, "pico": Pico}
OTHER_BOARD = 3
"""Another flash mode than that of the images here."""


def image_of(core: str, rel: int) -> bytes:
    """Return the image of a release for a core."""
    tag = b"rel %03d " % rel
    if core == "esp32":
        return forge.esp32(0, segments=(tag * 8, b"\x05" * 64))
    if core == "pico":
        return forge.rp2040() + tag
    app = forge.esp8266_part(0x40100000, 0x40201010, (bytes(8) + tag * 90, b"data" * 10))
    image = forge.filled(forge.esp8266_part(0x4010F000, 0x4010F000, (b"eboot---" * 8,)), 0x1000, b"\xaa") + app
    crc = len(image).to_bytes(4, "little") + forge.mpeg2(image).to_bytes(4, "little")
    return forge.put(image, 0x1010, crc)


def flashed(core: str, rel: int = 1) -> bytes:
    """Return an image as it lies in the flash of a device of another board than the build's."""
    image = image_of(core, rel)
    return forge.put(image, 2, bytes([OTHER_BOARD])) if core == "esp8266" else image


@dataclass
class House:
    """A running application, and where it listens.

    Attributes:
        web: the application.
        address: host and port.
        server: what listens there.
    """

    web: Site
    address: tuple[str, int]
    server: HttpServer

    async def release(self, core: str, data: bytes | None = None, *, rel: int = 2, declared: str = "") -> None:
        """Import an image and make the release `radio-<rel>`."""
        payload = image_of(core, rel) if data is None else data
        path = self.web.folder / f"fw-{rel}.bin"
        path.write_bytes(payload)
        sha256 = encode64(hashlib.sha256(payload).digest())
        stated = make_artifact(rel, ("m1",), size_bytes=len(payload), sha256=sha256, format=declared or core)
        signed = signing_input(TokenType.ARTIFACT, ARTIFACT_KEY.kid, statement_claims(stated, issued_at=1_700_000_000))
        Path(f"{path}.statement").write_bytes(assemble(signed, ARTIFACT_KEY.sign(signed)))
        imported = await self.web.ops("POST", "/artifacts", {"uri": path.as_uri()})
        assert imported.status_code == 201, imported.text
        body = {"name": f"radio-{rel}", "artifacts": [imported.json()["sha256"]]}
        assert (await self.web.ops("POST", "/releases", body)).status_code == 201

    async def enrol(self, core: str, *names: str, enforces: tuple[str, ...] = (), **more: Any) -> None:
        """Enrol devices that run release 1."""
        known = {"model": "m1", "version": "1.0.0", "rel": 1, "dialect": core, "enforces": enforces}
        body = {"devices": [{"id": name} | known | more for name in names]}
        answer = await self.web.ops("POST", "/devices", body)
        assert answer.status_code == 201, answer.text
        self.web.tokens |= answer.json()["tokens"]

    def device(self, core: str, name: str = "d1", **more: Any) -> Any:
        """Return an emulated device that was enrolled."""
        new = image_of(core, 2)
        known = {"login": (name, self.web.tokens[name]), "flash": flashed(core), "versions": {new: "2.0.0"}}
        known |= {"version": "1.0.0"} if core == "pico" else {}
        return CORES[core](self.address, **known | more)

    async def offered(self, core: str, *names: str, data: bytes | None = None, **plan: Any) -> Any:
        """Offer release 2 to devices, sign the triggers, and return the first of them."""
        await self.allow()
        await self.release(core, data)
        await self.enrol(core, *(names or ("d1",)))
        await self.web.roll_out(**plan)
        await self.web.plant.seal()
        return self.device(core, (names or ("d1",))[0])

    async def allow(self, reason: str = "a test") -> None:
        """Let devices have images that they cannot verify."""
        await self.web.plant.store.transact(Lane.OPERATOR, lambda tx: unsigned.settle(tx, reason, 0.0))

    async def poll(self, device: Updater, mode: str = "sketch") -> Poll:
        """Let a device ask once, and the server end what it does then."""
        poll = await asyncio.to_thread(device.poll, mode)
        await self.idle()
        return poll

    async def idle(self) -> None:
        """Wait until the server is done with every request: a device has its last byte before that is recorded."""
        while self.server._server.server_state.tasks:
            await asyncio.sleep(0.001)

    async def state(self, name: str = "d1") -> tuple[UpdateState, str]:
        """Return where the update of a device stands, and its code."""
        [update] = await self.web.plant.store.read(lambda tx: tx.updates_of([name]))
        return update.state, update.code

    async def registered(self, name: str = "d1") -> Device:
        """Return a device as it is registered."""
        found = await self.web.plant.store.read(lambda tx: tx.device(name))
        assert found is not None
        return found

    async def until_silent(self, seconds: float = 86_400.0) -> None:
        """Let time pass, and judge who said nothing."""
        self.web.plant.clock.advance(seconds)
        now = self.web.plant.clock()
        await self.web.plant.store.transact(Lane.REPORTS, lambda tx: record_silence(tx, now, 100))


@asynccontextmanager
async def house(folder: Path, **changes: Any) -> AsyncIterator[House]:
    """Run the application on a free port; `changes` are of its context."""
    async with site(folder, **changes) as web:
        server = HttpServer(web.app, HOST, 0, 50)
        task = asyncio.create_task(server.run())
        while not server._server.started:
            await asyncio.sleep(0.001)
        try:
            yield House(web, (HOST, server.port), server)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
