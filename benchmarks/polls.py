"""Polls that bring nothing: how many a second one core answers, beside the same framework answering a constant.

The daemon's application runs on one core, the devices on the other. Each poll is of another of all registered devices,
each of which asked before: what a first poll costs is a figure of its own. The yardstick is in the same process,
with the same protocol class, the same kind of application and the same headers. What is compared is what the server
answers in a second of processor time: its core may have other work, and then only the ratio of the clock would show it.
`python -m benchmarks.polls DEVICES` for another fleet.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from benchmarks.field import SECRET, add_release, made, unplugged
from benchmarks.times import percentile
from orchestrator.adapters.store import SqlStore, open_store
from orchestrator.core.model import Device, Phase, Plan, Reason, Rollout, SizeKind, Stage, StagePlan
from orchestrator.core.pace.ceiling import Ceiling
from orchestrator.core.targeting import cohort
from orchestrator.daemon import tune_interpreter
from orchestrator.engine.offers.known import Known
from orchestrator.engine.reports.contacts import Contacts
from orchestrator.engine.reports.recorder import Recorder, RecorderSettings
from orchestrator.engine.rollouts import effects
from orchestrator.engine.rollouts.conductor import Conductor
from orchestrator.engine.rollouts.operations import token_hash
from orchestrator.engine.trust.keyring import Keyring
from orchestrator.ports import Lane, Tx
from orchestrator.web.app import LimitBody, build_app
from orchestrator.web.context import Context
from orchestrator.web.server import HttpServer

DEVICES = 100_000
CONNECTIONS = 32
LOOK_S = 0.5
LOOKS = 6
"""Looks at ours and at the yardstick by turns in one round, and how long each is: neighbours disturb both alike."""
ROUNDS = 3
COLD = 2000
IN_FLIGHT = 1000
PIECE = 20_000
LEAST = 0.8
MOST_CONNECTIONS = 1000
VERSION, DDI = "version", "ddi"
FIRST = {VERSION: b"HTTP/1.1 204 ", DDI: b"HTTP/1.1 200 "}


class Rate(NamedTuple):
    """What one look found.

    Attributes:
        took_s: how long it was.
        spent_s: processor time of the server meanwhile.
        waits: how long each took, in seconds.
    """

    took_s: float
    spent_s: float
    waits: list[float]


class Server:
    """The server, in a process of its own.

    Attributes:
        app: port of the daemon's application.
        constant: port of the yardstick.
    """

    def __init__(self, process: asyncio.subprocess.Process, app: int, constant: int) -> None:
        self.app = app
        self.constant = constant
        self._process = process

    def spent_s(self) -> float:
        """Return how long it has had a processor."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def tell(self, word: str) -> dict[str, int]:
        """Tell it to do something, and return what it says of that."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(word.encode() + b"\n")
        answer: dict[str, int] = json.loads(await self._process.stdout.readline())
        return answer


class Caller(asyncio.Protocol):
    """One connection after the other, or one for all requests; asks again as soon as it is answered."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._rest = b""
        self._asked_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._rest += data
        head, end, body = self._rest.partition(b"\r\n\r\n")
        if not end or len(body) < _length(head):
            return
        self._load.answered(head, time.perf_counter() - self._asked_at)
        self._rest = b""
        if self._load.is_over:
            self._transport.close()
        elif self._load.keeps:
            self._ask()
        else:
            self._transport.close()
            self._load.connect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.left(self)

    def _ask(self) -> None:
        self._asked_at = time.perf_counter()
        self._transport.write(next(self._load.requests))


class Load:
    """Many callers for a while.

    Attributes:
        requests: what they ask, one after the other.
        keeps: whether they keep their connections.
        waits: how long the answers took.
    """

    def __init__(
        self, server: Server, port: int, kind: str, requests: Sequence[bytes], *, keeps: bool = True, most: int = 0
    ) -> None:
        self.requests = cycle(requests)
        self.keeps = keeps
        self.waits: list[float] = []
        self._server = server
        self._port = port
        self._first = FIRST[kind]
        self._most = most
        self._until = 0.0
        self._open = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._wrong = b""
        self._done = asyncio.Event()

    @property
    def is_over(self) -> bool:
        return bool(self._wrong) or time.perf_counter() >= self._until or 0 < self._most <= len(self.waits)

    async def run(self, for_s: float) -> Rate:
        """Ask for a while."""
        begun, spent_s = time.perf_counter(), self._server.spent_s()
        self._until = begun + for_s
        for _ in range(CONNECTIONS):
            self.connect()
        await self._done.wait()
        took_s, spent_s = time.perf_counter() - begun, self._server.spent_s() - spent_s
        assert not self._wrong, self._wrong
        return Rate(took_s, spent_s, self.waits)

    def connect(self) -> None:
        """Open one more connection."""
        self._open += 1
        task = asyncio.ensure_future(
            asyncio.get_running_loop().create_connection(partial(Caller, self), "127.0.0.1", self._port)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def answered(self, head: bytes, wait_s: float) -> None:
        """Note an answer."""
        if not head.startswith(self._first):
            self._wrong = head
        self.waits.append(wait_s)

    def left(self, _: Caller) -> None:
        """Note that a connection is gone."""
        self._open -= 1
        if not self._open:
            self._done.set()


def _length(head: bytes) -> int:
    _, found, rest = head.partition(b"content-length: ")
    return int(rest.partition(b"\r\n")[0]) if found else 0


async def run(directory: Path, devices: int, rounds: int) -> None:
    """Print the figures."""
    async with _server(directory, devices) as server:
        asks = {kind: _requests(kind, devices) for kind in (VERSION, DDI)}
        cold = await Load(server, server.app, VERSION, asks[VERSION][:COLD], most=COLD).run(60.0)
        print(f"first polls after a start: {_told([cold])}")
        held = await server.tell("warm")
        print(f"{held['bytes'] / 1e6:.0f} MB hold {devices:,} devices ({held['bytes'] / devices:.0f} bytes each)")
        for keeps in (True, False):
            await _compare(server, asks, rounds, "nothing rolled out", keeps=keeps)
        before = await server.tell("counts")
        await server.tell("open")
        await _compare(server, asks, rounds, f"a rollout open for all, {IN_FLIGHT} in flight", keeps=True)
        after = await server.tell("counts")
        print(f"commits by polls: {before['writes']} before the rollout, {after['writes'] - before['writes']} in it")


async def _compare(server: Server, asks: dict[str, list[bytes]], rounds: int, when: str, *, keeps: bool) -> None:
    connections = "kept connections" if keeps else "a connection for each poll"
    for kind, requests in asks.items():
        found: list[Rate] = []
        constant: list[Rate] = []
        for _ in range(rounds * LOOKS):
            for port, rates in ((server.constant, constant), (server.app, found)):
                rates.append(await Load(server, port, kind, requests, keeps=keeps).run(LOOK_S))
        print(
            f"{kind} polls, {when}, {connections}: {_told(found)}; a constant {_told(constant)}; "
            f"at least {LEAST}: ratio {_per_cpu_s(found) / _per_cpu_s(constant):.2f}"
        )


def _told(rates: Sequence[Rate]) -> str:
    waits = [wait for rate in rates for wait in rate.waits]
    by_clock = len(waits) / sum(rate.took_s for rate in rates)
    p99_ms = 1000 * percentile(waits, 0.99)
    return f"{_per_cpu_s(rates):.0f}/s ({by_clock:.0f}/s by the clock), p99 {p99_ms:.1f} ms"


def _per_cpu_s(rates: Sequence[Rate]) -> float:
    return sum(len(rate.waits) for rate in rates) / sum(rate.spent_s for rate in rates)


def _requests(kind: str, devices: int) -> list[bytes]:
    """Return what devices ask, in scattered order."""
    numbers = [number for number in range(devices) if _speaks_ddi(number) == (kind == DDI)]
    Random(1).shuffle(numbers)
    return [_request(kind, f"dev-{number:06d}") for number in numbers]


def _request(kind: str, name: str) -> bytes:
    path, scheme = ("/DEFAULT/controller/v1/" + name, "TargetToken") if kind == DDI else (VERSION_PATH, "Bearer")
    return f"GET {path} HTTP/1.1\r\nHost: ota\r\nAuthorization: {scheme} {_token(name)}\r\n\r\n".encode()


VERSION_PATH = "/api/v1/firmware/version"


def _token(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=24).hexdigest()[:43]


def _speaks_ddi(number: int) -> bool:
    return number % 2 == 1


def _cores() -> tuple[set[int], set[int]]:
    """Return the core of the server and the one of the devices."""
    cores = sorted(os.sched_getaffinity(0))
    return {cores[0]}, {cores[-1]}


@asynccontextmanager
async def _server(directory: Path, devices: int) -> AsyncIterator[Server]:
    """A server in a process of its own, on another core than ours."""
    ours = os.sched_getaffinity(0)
    words = (sys.executable, "-m", "benchmarks.polls", "serve", str(directory), str(devices))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe)
    assert process.stdout is not None
    assert process.stdin is not None
    os.sched_setaffinity(0, _cores()[1])
    try:
        told = json.loads(await process.stdout.readline())
        yield Server(process, told["app"], told["constant"])
    finally:
        os.sched_setaffinity(0, ours)
        process.stdin.close()
        await process.wait()


class _Counted:
    """A store that counts its write transactions."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.writes = 0
        self.read, self.watch, self.close = store.read, store.watch, store.close

    async def transact(self, lane: Lane, work: Any) -> Any:
        self.writes += 1
        return await self._store.transact(lane, work)


async def _serve(directory: Path, devices: int) -> None:
    os.sched_setaffinity(0, _cores()[0])
    store = open_store(f"sqlite:///{directory / 'bench.db'}")
    fleet = [_enrolled(device, number) for number, device in enumerate(made(devices, "bench", "dev"))]
    for first in range(0, devices, PIECE):
        await store.transact(Lane.BULK, partial(_enrol, fleet[first : first + PIECE]))
    counted = _Counted(store)
    context = _context(counted)
    app = HttpServer(build_app(context), "127.0.0.1", 0, MOST_CONNECTIONS)
    constant = HttpServer(_constant(), "127.0.0.1", 0, MOST_CONNECTIONS)
    serving = [asyncio.create_task(item.run()) for item in (app, constant)]
    print(json.dumps({"app": app.port, "constant": constant.port}), flush=True)
    while word := (await asyncio.to_thread(sys.stdin.readline)).strip():
        if word == "warm":
            print(json.dumps(await _warm(context, fleet)), flush=True)
        elif word == "open":
            await store.transact(Lane.BULK, partial(_open, fleet))
            await _warm(context, fleet)
            print("{}", flush=True)
        else:
            print(json.dumps({"writes": counted.writes}), flush=True)
    for task in serving:
        task.cancel()
    await asyncio.gather(*serving, return_exceptions=True)
    await store.close()


def _enrolled(device: Device, number: int) -> tuple[Device, str]:
    words = (device.id, device.model, (), device.version, device.rel, 0.0, None, None)
    return Device(*words, dialect="ddi" if _speaks_ddi(number) else "otad"), token_hash(_token(device.id))


def _enrol(piece: Sequence[tuple[Device, str]], tx: Tx) -> None:
    tx.enrol(piece)


async def _warm(context: Context, fleet: Sequence[tuple[Device, str]]) -> dict[str, int]:
    """Ask for each device once; returns what holding them takes."""
    before = _resident_bytes()
    for _, hash_ in fleet:
        await context.known.of_token(hash_)
    return {"bytes": _resident_bytes() - before}


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _open(fleet: Sequence[tuple[Device, str]], tx: Tx) -> None:
    add_release(tx, "bench", "")
    plan = Plan("bench", "bench", (StagePlan(SizeKind.REST, 0),), in_flight=IN_FLIGHT)
    stages, size = (Stage(len(fleet), len(fleet)),), len(fleet)
    draft = Rollout(0, plan, Phase.RUNNING, Reason("", ""), "bench", 0.0, stages=stages, cohort_size=size)
    rollout = tx.add_rollout(draft, SECRET)
    effects.open_members(tx, rollout, sorted(cohort.members(SECRET, [device for device, _ in fleet])), 2, 0.0)
    effects.offer(tx, rollout, IN_FLIGHT, 0.0, Ceiling(share=1.0))


def _context(store: _Counted) -> Context:
    planned = asyncio.Event()
    conductor = Conductor(store, time.time, lambda: True, planned.set)
    recorder = Recorder(store, unplugged(), RecorderSettings(), time.time, lambda: True, conductor.changed)

    async def import_artifact(uri: str, account: str) -> Any:
        raise NotImplementedError(f"{account} cannot import {uri} here")

    return Context(
        store=store,
        conductor=conductor,
        recorder=recorder,
        known=Known(store, store),
        contacts=Contacts(store),
        import_artifact=import_artifact,
        sources=(),
        now=time.time,
        hearing=lambda: True,
        planned=planned.set,
        keyring=cast(Keyring, SimpleNamespace(epoch=1)),
        operator_token="",
        presign_lifetime_s=900,
        status=dict,
    )


def _constant() -> ASGIApp:
    """Return the application that says that there is nothing, whoever asks."""
    app = FastAPI(docs_url=None, redoc_url=None)

    async def nothing(_: Request) -> Response:
        return Response(status_code=204, headers=HEADERS)

    async def document(_: Request) -> Response:
        return Response(DOCUMENT, media_type="application/json", headers=HEADERS)

    app.router.routes.insert(0, Route(VERSION_PATH, nothing, methods=["GET"]))
    app.router.routes.insert(1, Route("/{tenant}/controller/v1/{device}", document, methods=["GET"]))
    return LimitBody(app)


DOCUMENT = b'{"config":{"polling":{"sleep":"00:05:00"}}}'
HEADERS = {"Cache-Control": "no-store", "Ota-Key-Epoch": "1", "Retry-After": "300"}


def main() -> None:
    """Measure with as many devices as the command line says."""
    tune_interpreter()
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(_serve(Path(sys.argv[2]), int(sys.argv[3])))
        return
    devices = int(sys.argv[1]) if len(sys.argv) > 1 else DEVICES
    with tempfile.TemporaryDirectory(prefix="ota-bench-") as folder:
        asyncio.run(run(Path(folder), devices, ROUNDS))


if __name__ == "__main__":
    main()
