"""A broker for the demo and the tests: mosquitto as a child process, or a labelled stand-in.

Rules:
- mosquitto runs on the very files of `deploy/mosquitto`, only ports and paths are replaced: what the demo shows is
  what we ship.
- Loopback only. The child never outlives us, however we die.
- The stand-in (amqtt, in this process) speaks MQTT 3.1.1 only, checks no passwords and may lose queued messages; it is
  taken only where no mosquitto is found, and says so.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from orchestrator.errors import RequestError, UnavailableError

HOST = "127.0.0.1"
DAEMON_USER = "ota-orchestrator"
SHIPPED = Path(__file__).parents[2] / "deploy" / "mosquitto"
_START_TRIES = 3
_START_S = 10.0
_STOP_S = 10.0
_PR_SET_PDEATHSIG = 1

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BrokerInfo:
    """A running broker.

    Attributes:
        host: address it listens on.
        port: port it listens on.
        kind: which program it is.
        pid: its process, or None where it runs in ours.
    """

    host: str
    port: int
    kind: Literal["mosquitto", "amqtt"]
    pid: int | None = None

    @property
    def url(self) -> str:
        """Address as the configuration wants it."""
        return f"mqtt://{self.host}:{self.port}"


def broker(
    *, users: Mapping[str, str] | None, directory: Path, port: int | None = None, conf_extra: str = ""
) -> AbstractAsyncContextManager[BrokerInfo]:
    """Run the best broker there is: mosquitto where it is installed, else the stand-in.

    Args:
        users: password by login, the daemon's included (`DAEMON_USER`); None lets everybody do everything.
        directory: where its files go; a broker started again in the same one has its sessions back.
        port: port to listen on; None takes a free one.
        conf_extra: further lines for mosquitto's configuration.

    Raises:
        UnavailableError: it did not start.
    """
    program = find_mosquitto()
    if program is None:
        _log.warning(
            "broker.stand_in",
            kind="amqtt",
            lacks="MQTT 5, passwords, access rules, reliable queues",
            remedy="install mosquitto (apt-get install mosquitto)",
        )
        return amqtt(port=port)
    return mosquitto(program, users=users, directory=directory, port=port, conf_extra=conf_extra)


def find_mosquitto() -> str | None:
    """Return the path of the mosquitto program, or None; distributions keep it off the PATH of most users."""
    return shutil.which("mosquitto", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))


@asynccontextmanager
async def mosquitto(
    program: str, *, users: Mapping[str, str] | None, directory: Path, port: int | None = None, conf_extra: str = ""
) -> AsyncIterator[BrokerInfo]:
    """Run mosquitto on the shipped configuration; arguments and errors as of `broker`."""
    directory.mkdir(parents=True, exist_ok=True)
    if users is not None:
        await _write_passwords(users, directory / "passwd")
    for tries_left in reversed(range(_START_TRIES)):
        chosen = port or free_port()
        (directory / "mosquitto.conf").write_text(_configuration(users is not None, directory, chosen) + conf_extra)
        process = await _spawn(program, directory)
        try:
            if await _listens(process, chosen, directory / "mosquitto.log"):
                yield BrokerInfo(HOST, chosen, "mosquitto", process.pid)
                return
        finally:
            await _stop(process)
        # Another program may have taken the port that was free a moment ago.
        if port is not None or not tries_left:
            raise UnavailableError(f"mosquitto did not start: {_last_words(directory)}", code="broker_not_started")


@asynccontextmanager
async def amqtt(*, port: int | None = None) -> AsyncIterator[BrokerInfo]:
    """Run the stand-in inside this process."""
    from amqtt.broker import Broker

    chosen = port or free_port()
    server = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{chosen}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    await server.start()
    try:
        yield BrokerInfo(HOST, chosen, "amqtt")
    finally:
        await server.shutdown()


def render(shipped: str, changes: Mapping[str, str | None]) -> str:
    """Return a mosquitto configuration with some of its directives replaced, or dropped where the value is None.

    Raises:
        RequestError: the configuration has no such directive, so the change would be lost.
    """
    lines, left = [], set(changes)
    for line in shipped.splitlines():
        name = line.partition(" ")[0]
        left.discard(name)
        value = changes.get(name, line)
        if value is not None:
            lines.append(f"{name} {value}" if name in changes else line)
    if left:
        raise RequestError(f"the mosquitto configuration has no {', '.join(sorted(left))}", code="bad_broker_config")
    return "\n".join(lines) + "\n"


def free_port() -> int:
    """Return a loopback port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _configuration(guarded: bool, directory: Path, port: int) -> str:
    try:
        shipped = "".join((SHIPPED / name).read_text() for name in ("ota-acl.conf", "ota.conf"))
    except FileNotFoundError:
        raise RequestError(f"{SHIPPED} is missing; run the demo from a checkout", code="no_checkout") from None
    changes: dict[str, str | None] = {"listener": f"{port} {HOST}"}
    if guarded:
        changes |= {"password_file": str(directory / "passwd"), "acl_file": str(SHIPPED / "acl")}
    else:
        changes |= dict.fromkeys(("password_file", "acl_file", "use_username_as_clientid"))
        changes["allow_anonymous"] = "true"
    # Started as root mosquitto would change its user, and the kernel would forget that it is to die with us.
    own = ["user root"] if os.geteuid() == 0 else []
    return "\n".join([*own, f"persistence_location {directory}/", "log_dest stderr", render(shipped, changes)])


async def _write_passwords(users: Mapping[str, str], path: Path) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text("".join(f"{name}:{password}\n" for name, password in users.items()))
    process = await asyncio.create_subprocess_exec("mosquitto_passwd", "-U", str(path))
    if await process.wait() != 0:
        raise UnavailableError("mosquitto_passwd could not hash the passwords", code="broker_not_started")


async def _spawn(program: str, directory: Path) -> asyncio.subprocess.Process:
    prctl = ctypes.CDLL(None).prctl  # looked up here: after the fork as little as possible may happen
    with (directory / "mosquitto.log").open("wb") as log:
        return await asyncio.create_subprocess_exec(
            program,
            "-c",
            str(directory / "mosquitto.conf"),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,  # an interrupt at the terminal is ours to handle, in our order
            preexec_fn=lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
        )


async def _listens(process: asyncio.subprocess.Process, port: int, log: Path) -> bool:
    """Wait until the port answers; False if the program ends first, or takes too long."""
    # On a port that another program holds that one would answer: ours also has to say that it runs.
    deadline = asyncio.get_running_loop().time() + _START_S
    while process.returncode is None and asyncio.get_running_loop().time() < deadline:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
            writer.close()
            await writer.wait_closed()
            if b" running" in log.read_bytes():
                return True
        except OSError:
            pass
        await asyncio.sleep(0.02)
    return False


async def _stop(process: asyncio.subprocess.Process) -> None:
    for stop in (process.terminate, process.kill):
        if process.returncode is not None:
            return
        stop()
        try:
            async with asyncio.timeout(_STOP_S):
                await process.wait()
        except TimeoutError:
            continue


def _last_words(directory: Path) -> str:
    lines = (directory / "mosquitto.log").read_text(errors="replace").splitlines()
    return " ".join(lines[-2:]) or "it said nothing"
