"""The daemon as a process, told about by a notify socket as systemd's would be."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import yaml

from orchestrator.adapters.keys import create_keys
from orchestrator.demo.broker import HOST, free_port

TOKEN = "operator-token-of-the-test"
_PATIENCE_S = 20.0


@dataclass
class Deployment:
    """The files of one daemon.

    Attributes:
        folder: where everything lies.
        sections: its configuration.
    """

    folder: Path
    sections: dict[str, Any]

    @classmethod
    def made(cls, folder: Path, broker_port: int | None = None, **changes: Mapping[str, object]) -> Deployment:
        """Make keys, token and configuration; without a broker nobody answers where it should be.

        Args:
            folder: an existing folder.
            broker_port: where the broker listens.
            changes: sections that go over the configuration.
        """
        create_keys(folder / "keys", "my-fleet")
        (folder / "operator-token").write_text(TOKEN)
        sections: dict[str, Any] = {
            "http": {"listen": f"{HOST}:0", "operator_token_file": str(folder / "operator-token")},
            "mqtt": {"url": f"mqtt://{HOST}:{broker_port or free_port()}"},
            "store": {"url": f"sqlite:///{folder / 'state.db'}"},
            "trust": {
                "trigger_key_file": str(folder / "keys" / "trigger.pem"),
                "public_keys_file": str(folder / "keys" / "device-keys.json"),
            },
        }
        sections["mqtt"] |= {"reconnect_min": "20ms", "reconnect_max": "100ms"}
        for name, values in changes.items():
            sections.setdefault(name, {}).update(values)
        return cls(folder, sections)

    def write(self, name: str = "config.yaml") -> Path:
        """Write the configuration and return its path."""
        path = self.folder / name
        path.write_text(yaml.safe_dump(self.sections))
        return path


@dataclass
class Daemon:
    """A running `ota serve`.

    Attributes:
        process: the process.
        told: what it told systemd, in order.
        lines: what it logged so far.
    """

    process: asyncio.subprocess.Process
    notify: socket.socket
    told: list[str] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)

    async def tells(self, start: str) -> str:
        """Wait until it tells systemd something that begins like this, and return it."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                self.told.append((await loop.sock_recv(self.notify, 4096)).decode())
                if self.told[-1].startswith(start):
                    return self.told[-1]

    async def logs(self, event: str) -> dict[str, Any]:
        """Wait until it logs this event, and return the line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(_PATIENCE_S):
            while line := await self.process.stdout.readline():
                self.lines.append(json.loads(line))
                if self.lines[-1]["event"] == event:
                    return self.lines[-1]
        raise AssertionError(f"it ended without {event}: {self.lines}")

    async def origin(self) -> str:
        """Wait until it is ready, and return where it listens."""
        return f"http://{(await self.logs('daemon.ready'))['http']}"

    async def stop(self) -> tuple[int, float]:
        """Send SIGTERM; returns its exit code and how many seconds it took."""
        began = time.monotonic()
        self.process.terminate()
        _, err = await self.process.communicate()
        assert self.process.returncode is not None
        assert err == b"", err.decode()
        return self.process.returncode, time.monotonic() - began


@asynccontextmanager
async def daemon(config: Path, *options: str, **environ: str) -> AsyncIterator[Daemon]:
    """Run `ota serve`; it is killed at the end if it still runs."""
    address = config.parent / f"notify-{config.stem}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.setblocking(False)
        notify.bind(str(address))
        variables = {name: text for name, text in os.environ.items() if not name.startswith("OTA_")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "orchestrator", "serve", "--config", str(config), *options),
            env=variables | {"NOTIFY_SOCKET": str(address)} | environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield Daemon(process, notify)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()
            address.unlink()


def operator(origin: str) -> httpx2.AsyncClient:
    """Return a client with the operators' token."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx2.AsyncClient(base_url=origin, headers=headers, trust_env=False, timeout=10)
