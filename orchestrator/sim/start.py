"""From what a person typed to a running fleet: reads the files, checks that all fits, runs until a signal.

Rules:
- Everything that is wrong with the request is said before the first device is switched on.
- SIGTERM and SIGINT end a simulation in order: devices disconnect, the summary is still made.
"""

from __future__ import annotations

import asyncio
import resource
import secrets
import signal
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from orchestrator.errors import ConfigError
from orchestrator.sim import behaviour as behaviours
from orchestrator.sim import credentials
from orchestrator.sim.behaviour import Behaviour
from orchestrator.sim.credentials import Credential
from orchestrator.sim.fleet import Fleet, Surroundings
from orchestrator.sim.profile import Profile, Trust, cast
from orchestrator.sim.push import Broker
from orchestrator.sim.tally import Tally
from orchestrator.verifier import Refused, load_keyset


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asked for.

    Attributes:
        keys: document of public keys that devices trust.
        broker: `mqtt://host:port` or `mqtts://host:port`, or None.
        ca_file: certificates that a `mqtts` broker is checked against, or None for the system's.
        server: origin of the HTTP side, or None.
        credentials: what devices log in with, or None.
        behaviour: YAML file, or None for the defaults.
        changes: values that overrule the file.
        allow_origins: origins downloads may come from; none given means the server's.
        loopback: whether plain HTTP to loopback is allowed.
        journal: file for one JSON line per event, or None.
        duration_s: how long to run, or None for until a signal.
    """

    keys: Path
    broker: str | None = None
    ca_file: Path | None = None
    server: str | None = None
    credentials: Path | None = None
    behaviour: Path | None = None
    changes: Mapping[str, Any] | None = None
    allow_origins: tuple[str, ...] = ()
    loopback: bool = False
    journal: Path | None = None
    duration_s: float | None = None


def simulate(request: Request, show: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Run a fleet until its time is over or a signal comes, and return the summary.

    Args:
        request: what was asked for.
        show: is given a line for a person once per second.

    Raises:
        ConfigError: listing what is wrong with the request.
    """
    behaviour = _behaviour(request)
    logins = _logins(request, behaviour)
    models = {each.device: each.model for each in logins}
    profiles = cast(behaviour, models, _trust(request), run=secrets.token_hex(4))
    around = _surroundings(request, profiles)
    _allow_many_files()
    with ExitStack() as stack:
        journal = None if request.journal is None else stack.enter_context(_open_journal(request.journal))
        fleet = Fleet(profiles, {each.device: each for each in logins}, around, Tally(time.time, journal))
        summary = asyncio.run(_until_signal(fleet, request.duration_s, show))
    return {"seed": behaviour.seed, **summary}


async def _until_signal(fleet: Fleet, duration_s: float | None, show: Callable[[str], None] | None) -> dict[str, Any]:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if duration_s is not None:
        loop.call_later(duration_s, stop.set)
    return await fleet.run(stop, show)


def _behaviour(request: Request) -> Behaviour:
    written = Behaviour() if request.behaviour is None else behaviours.load(request.behaviour)
    return behaviours.altered(written, dict(request.changes or {}))


def _logins(request: Request, behaviour: Behaviour) -> list[Credential]:
    if request.credentials is None:
        return [Credential(device) for device in behaviour.device_ids()]
    known = credentials.load(request.credentials)
    asked = behaviour.devices if _names_devices(request) else len(known)
    if asked > len(known):
        raise ConfigError([f"{request.credentials}: has {len(known)} devices, {asked} are asked for; add more to it"])
    return known[:asked]


def _names_devices(request: Request) -> bool:
    return "devices" in (request.changes or {})


def _trust(request: Request) -> Trust:
    try:
        keyset = load_keyset(request.keys.read_bytes())
    except OSError as error:
        raise ConfigError([f"{request.keys}: cannot be read ({error.strerror}); `ota keys init` makes it"]) from None
    except Refused as refusal:
        raise ConfigError([f"{request.keys}: not a document of public keys ({refusal})"]) from None
    own = () if request.server is None else (_origin(request.server),)
    return Trust(keyset, request.allow_origins or own, request.loopback)


def _surroundings(request: Request, profiles: list[Profile]) -> Surroundings:
    channels = {profile.channel for profile in profiles}
    faults = []
    if request.broker is None and channels & {"push", "both"}:
        faults.append("broker: devices of channel push or both need one; give --broker mqtt://host:port")
    if request.server is None and channels & {"poll", "both"}:
        faults.append("server: devices of channel poll or both need one; give --server http://host:port")
    if faults:
        raise ConfigError(faults)
    server = "" if request.server is None else _origin(request.server)
    return Surroundings(None if request.broker is None else _broker(request.broker, request.ca_file), server)


def _broker(address: str, ca_file: Path | None) -> Broker:
    parts = urlsplit(address)
    if parts.scheme not in ("mqtt", "mqtts") or parts.hostname is None:
        raise ConfigError([f"broker: {address!r} must be mqtt://host:port or mqtts://host:port"])
    if parts.scheme == "mqtt":
        return Broker(parts.hostname, parts.port or 1883)
    return Broker(parts.hostname, parts.port or 8883, ssl.create_default_context(cafile=ca_file))


def _origin(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or parts.hostname is None or parts.path not in ("", "/"):
        raise ConfigError([f"server: {address!r} must be http://host:port or https://host:port"])
    return f"{parts.scheme}://{parts.netloc}"


def _open_journal(path: Path) -> IO[bytes]:
    try:
        # Unbuffered: the journal of a simulator that was killed is whole.
        return path.open("wb", buffering=0)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be written ({error.strerror}); name another --journal"]) from None


def _allow_many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
