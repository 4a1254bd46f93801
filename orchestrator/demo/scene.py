"""A whole deployment on loopback: keys, bucket, broker, daemon and fleet, each a real process.

Rules:
- Everything is done as a user would do it, through the command `ota` and the operator API.
- Random free ports, one folder for all files, and nothing outlives the scene.
- The demo and the end-to-end tests stand on the same scene.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import yaml

from orchestrator.demo import bucket
from orchestrator.demo.broker import DAEMON_USER, BrokerInfo, broker, free_port
from orchestrator.errors import UnavailableError
from orchestrator.sim.image import make_image

MODEL = "sim-a"
BUCKET = "releases"
DEPLOYMENT = "rehearsal"
IMAGE_BYTES = 64 * 1024
_START_S = 30.0
_STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a scene shall be like.

    Attributes:
        devices: number of simulated devices.
        seed: decides which devices are bad.
        bad_share: devices on which a bad image crashes.
        speed: divides all durations of the devices.
        guarded: whether the broker asks for passwords and keeps its access rules.
        behaviour: further keys of the fleet's behaviour.
        config: sections that go over the daemon's configuration.
    """

    devices: int = 200
    seed: int = 0
    bad_share: float = 0.3
    speed: float = 20.0
    guarded: bool = True
    behaviour: Mapping[str, object] = field(default_factory=dict)
    config: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


class Scene:
    """A running deployment. Made by `scene`."""

    def __init__(self, directory: Path, endpoint: str, broker_info: BrokerInfo, wishes: Wishes) -> None:
        self.directory = directory
        self.endpoint = endpoint
        self.broker = broker_info
        self.wishes = wishes
        self.port = free_port()
        self.server = f"http://127.0.0.1:{self.port}"
        self.token_file = directory / "operator-token"
        self.config_file = directory / "config.yaml"
        self.daemon: asyncio.subprocess.Process | None = None
        self.fleet: asyncio.subprocess.Process | None = None
        self._api: httpx2.AsyncClient | None = None

    @property
    def command(self) -> list[str]:
        """The command line that reaches this deployment, without its verb."""
        return [sys.executable, "-m", "orchestrator", "--server", self.server, "--token-file", str(self.token_file)]

    async def ota(self, *words: str | Path) -> str:
        """Run one `ota` command and return what it printed.

        Raises:
            UnavailableError: it failed; the text is what it said.
        """
        process = await asyncio.create_subprocess_exec(
            *self.command, *map(str, words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        if process.returncode:
            raise UnavailableError(f"ota {' '.join(map(str, words))}: {err.decode().strip()}")
        return out.decode()

    async def api(self, method: str, path: str, body: object = None) -> Any:
        """Call the operator API and return its answer.

        Raises:
            UnavailableError: there is no good answer.
        """
        if self._api is None:
            token = self.token_file.read_text().strip()
            headers = {"Authorization": f"Bearer {token}"}
            self._api = httpx2.AsyncClient(base_url=self.server, headers=headers, timeout=30, trust_env=False)
        try:
            answer = await self._api.request(method, f"/api/v1{path}", json=body)
        except httpx2.HTTPError as error:
            raise UnavailableError(f"the daemon does not answer: {error}") from error
        if not answer.is_success:
            raise UnavailableError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json()

    async def start_daemon(self) -> None:
        """Start `ota serve` and wait until it answers."""
        await self.spawn_daemon()
        assert self.daemon is not None
        async with asyncio.timeout(_START_S):
            while True:
                if self.daemon.returncode is not None:
                    ended = f"the daemon did not start (exit code {self.daemon.returncode})"
                    raise UnavailableError(f"{ended}; see {self.directory / 'daemon.log'}")
                with contextlib.suppress(UnavailableError):
                    await self.api("GET", "/status")
                    return
                await asyncio.sleep(0.05)

    async def spawn_daemon(self) -> None:
        """Start `ota serve` and do not wait for anything."""
        with (self.directory / "daemon.log").open("ab") as log:
            self.daemon = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "orchestrator", "serve", "--config", str(self.config_file)),
                stdout=log,
                stderr=log,
            )

    async def kill_daemon(self) -> None:
        """Kill the daemon with SIGKILL."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGKILL)
        await self.daemon.wait()

    async def stop_daemon(self) -> int:
        """Stop the daemon with SIGTERM and return its exit code."""
        assert self.daemon is not None
        return await _stop(self.daemon)

    async def start_fleet(self) -> None:
        """Start `ota simulate` and wait until every device that connects has said hello."""
        wishes = self.wishes
        behaviour: dict[str, object] = {"devices": wishes.devices, "seed": wishes.seed, "speed": wishes.speed}
        behaviour |= {"bad_share": wishes.bad_share, **wishes.behaviour}
        path = self.directory / "fleet.yaml"
        path.write_text(yaml.safe_dump(behaviour))
        with (self.directory / "fleet.log").open("wb") as log, (self.directory / "fleet.json").open("wb") as summary:
            self.fleet = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "orchestrator", "simulate", "--broker", self.broker.url),
                *("--server", self.server, "--keys", str(self.directory / "keys" / "device-keys.json")),
                *("--credentials", str(self.directory / "credentials.jsonl"), "--behaviour", str(path)),
                *("--loopback", "--allow-origin", self.server, "--allow-origin", self.endpoint),
                *("--journal", str(self.directory / "journal.jsonl")),
                stdout=summary,
                stderr=log,
            )
        offline = float(str(self.wishes.behaviour.get("offline_share", 0.0)))
        expected = self.wishes.devices - round(offline * self.wishes.devices)
        async with asyncio.timeout(_START_S + self.wishes.devices / 20):
            while await self._heard() < expected:
                if self.fleet.returncode is not None:
                    raise UnavailableError(f"the fleet did not start; see {self.directory / 'fleet.log'}")
                await asyncio.sleep(0.1)

    async def publish_release(self, name: str, version: str, rel: int, *, bad: bool) -> None:
        """Build, sign and upload an image, import it, and make a release of it."""
        image = self.directory / f"{name}.bin"
        image.write_bytes(make_image(version, rel, IMAGE_BYTES, bad=bad, seed=self.wishes.seed))
        await self.ota(
            *("artifact", "sign", image, "--key", self.directory / "keys" / "artifact.pem", "--name", "sim-firmware"),
            *("--version", version, "--rel", str(rel), "--hw", MODEL),
        )
        for path in (image, Path(f"{image}.statement")):
            await bucket.put(self.endpoint, BUCKET, path.name, path.read_bytes())
        answer = await self.ota("artifact", "import", f"s3://{BUCKET}/{image.name}", "-o", "json")
        await self.ota("release", "create", name, "--artifact", json.loads(answer)["sha256"])

    async def roll_out(self, plan: Mapping[str, object]) -> None:
        """Make a rollout and start it."""
        path = self.directory / f"{plan['name']}.yaml"
        path.write_text(yaml.safe_dump(dict(plan), sort_keys=False))
        await self.ota("rollout", "create", "-f", path)
        await self.ota("rollout", "start", str(plan["name"]))

    async def wait_for(self, name: str, phases: set[str], *, timeout_s: float) -> dict[str, Any]:
        """Wait until a rollout is in one of the phases and return it.

        Raises:
            TimeoutError: it did not come there in time.
        """
        async with asyncio.timeout(timeout_s):
            while True:
                view: dict[str, Any] = await self.api("GET", f"/rollouts/{name}")
                if view["phase"] in phases:
                    return view
                await asyncio.sleep(0.2)

    async def close(self) -> None:
        """Stop what was started."""
        for process in (self.fleet, self.daemon):
            if process is not None and process.returncode is None:
                await _stop(process)
        if self._api is not None:
            await self._api.aclose()

    async def _heard(self) -> int:
        heard, after = 0, ""
        while page := await self.api("GET", f"/devices?limit=1000&after={after}"):
            heard += sum(1 for device in page if device["seen_at"] is not None)
            after = page[-1]["id"]
        return heard


@contextlib.asynccontextmanager
async def scene(directory: Path, wishes: Wishes) -> AsyncIterator[Scene]:
    """Set a scene: keys, bucket, broker and daemon run, devices are enrolled, the fleet is not started.

    Args:
        directory: an existing folder for everything.
        wishes: what it shall be like.
    """
    passwords = {f"sim-{number:05d}": secrets.token_urlsafe(12) for number in range(wishes.devices)}
    daemon_password = secrets.token_urlsafe(24)
    logins = {**passwords, DAEMON_USER: daemon_password}
    async with (
        bucket.bucket_server() as endpoint,
        broker(users=logins if wishes.guarded else None, directory=directory / "broker") as broker_info,
    ):
        await bucket.create(endpoint, BUCKET)
        made = Scene(directory, endpoint, broker_info, wishes)
        try:
            _write_secret(made.token_file, secrets.token_urlsafe(32))
            _write_secret(directory / "mqtt-password", daemon_password)
            _write_secret(directory / "s3-secret", bucket.SECRET_ACCESS_KEY)
            await made.ota("keys", "init", "--dir", directory / "keys", "--deployment", DEPLOYMENT)
            made.config_file.write_text(yaml.safe_dump(_config(made)))
            await made.start_daemon()
            await _enrol(made, passwords)
            yield made
        finally:
            await made.close()


async def _enrol(made: Scene, passwords: Mapping[str, str]) -> None:
    tokens = made.directory / "tokens.jsonl"
    await made.ota(
        *("device", "add", "--model", MODEL, "--count", str(len(passwords)), "--pattern", "sim-{:05d}"),
        *("--credentials", tokens),
    )
    lines = [json.loads(line) for line in tokens.read_text().splitlines()]
    logins = [json.dumps(line | {"mqtt_password": passwords[line["device"]]}) for line in lines]
    _write_secret(made.directory / "credentials.jsonl", "\n".join(logins) + "\n")


def _config(made: Scene) -> dict[str, dict[str, object] | str]:
    directory = made.directory
    sections: dict[str, dict[str, object]] = {
        "http": {"listen": f"127.0.0.1:{made.port}", "public_url": made.server},
        "mqtt": {"url": made.broker.url, "protocol": "5" if made.broker.kind == "mosquitto" else "3.1.1"},
        "store": {"url": f"sqlite:///{directory / 'state.db'}"},
        "s3": {"endpoint_url": made.endpoint, "region": bucket.REGION, "access_key_id": bucket.ACCESS_KEY_ID},
        "trust": {},
        "conductor": {"link_grace": "1s"},
    }
    sections["http"]["operator_token_file"] = str(made.token_file)
    if made.wishes.guarded:
        sections["mqtt"] |= {"username": DAEMON_USER, "password_file": str(directory / "mqtt-password")}
    sections["mqtt"] |= {"reconnect_min": "100ms", "reconnect_max": "1s"}
    sections["s3"] |= {"secret_access_key_file": str(directory / "s3-secret"), "addressing_style": "path"}
    sections["trust"]["trigger_key_file"] = str(directory / "keys" / "trigger.pem")
    sections["trust"]["beat_key_file"] = str(directory / "keys" / "beat.pem")
    sections["audit"] = {"checkpoint_key_file": str(directory / "keys" / "checkpoint.pem")}
    sections["trust"]["public_keys_file"] = str(directory / "keys" / "device-keys.json")
    for name, values in made.wishes.config.items():
        sections.setdefault(name, {}).update(values)
    return {"deployment": DEPLOYMENT, **sections}


def _write_secret(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


async def _stop(process: asyncio.subprocess.Process) -> int:
    process.terminate()
    try:
        async with asyncio.timeout(_STOP_S):
            return await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise UnavailableError(f"process {process.pid} did not stop within {_STOP_S:.0f} s") from None
