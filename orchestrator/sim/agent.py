"""The shell around one simulated device: it performs effects and brings events, and decides nothing.

Rules:
- Every change goes through `device.step`; the shell keeps connections, never state of the device.
- One task keeps the time, one fetches while there is something to fetch; `push` and `poll` bring the rest.
- An error of ours ends the whole fleet loudly; an error of a peer becomes an event or is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import httpx2
from msgspec import structs

from orchestrator.sim.credentials import Credential
from orchestrator.sim.device import step
from orchestrator.sim.download import Downloader, DownloadError
from orchestrator.sim.events import (
    Command,
    Down,
    Effect,
    Event,
    Fetch,
    FetchFailed,
    Note,
    PowerOn,
    Say,
    StopFetch,
    Tick,
    Up,
)
from orchestrator.sim.outbox import Outbox, Parcel
from orchestrator.sim.unit import Phase, Unit
from orchestrator.wire.report import Hello


class Observer(Protocol):
    """Is told what every device sees and does."""

    def __call__(self, device: str, event: str, *, code: str = "", att: str = "", parcel: Parcel | None = None) -> None:
        """Take one event in: an agent's own, or the name of a `Note`."""
        ...


@dataclass(frozen=True, slots=True)
class Links:
    """What all agents of a fleet share.

    Attributes:
        server: origin of the HTTP side, `http://host:port`, or "" where none polls.
        http: shared client; it follows no redirects.
        permits: how many downloads may run at once.
        observe: is told what happens.
        clock: returns epoch seconds.
    """

    server: str
    http: httpx2.AsyncClient
    permits: asyncio.Semaphore
    observe: Observer
    clock: Callable[[], float]


class Agent:
    """One device on the network.

    Attributes:
        unit: the device as it is now.
        outbox: reports not yet acknowledged.
        hello: what it says when it connects, None before the first boot.
        ups: how often it came up, or began to go by other addresses; each time it connects anew.
        powered: whether it has power.
        misses: how often no HTTP server answered; each time the next one is asked.
        connected: whether its MQTT session is open; kept by `push`.
        credential: what it logs in with.
        links: what it shares with the fleet.
    """

    def __init__(self, unit: Unit, credential: Credential, links: Links) -> None:
        self.unit = unit
        self.credential = credential
        self.links = links
        self.outbox = Outbox(unit.profile)
        self.hello: Hello | None = None
        self.ups = 0
        self.misses = 0
        self.powered = False
        self.connected = False
        self._changed = asyncio.Event()
        self._downloader = Downloader(links.http, credential.token, links.server)
        self._fetching: asyncio.Task[None] | None = None
        self._group = asyncio.TaskGroup()

    @property
    def device(self) -> str:
        """Identifier of the device."""
        return self.unit.profile.device

    async def run(self, *doors: Door) -> None:
        """Switch the device on and keep it alive until cancelled.

        Args:
            doors: coroutine functions that connect it to the world, such as `push` and `poll`.
        """
        async with self._group:
            self.feed(PowerOn())
            self._group.create_task(self._keep_time())
            for door in doors:
                self._group.create_task(door(self))

    def feed(self, event: Event) -> None:
        """Let an event happen to the device, and perform what it wants done."""
        if isinstance(event, Command):
            self.observe("triggered")
        self.unit, effects = step(self.unit, event, self.links.clock())
        for effect in effects:
            self._perform(effect)
        self.stir()

    def greeting(self) -> Hello | None:
        """Return the hello of its last boot with its condition as it is now, None before the first boot."""
        return None if self.hello is None else structs.replace(self.hello, facts=self.unit.facts(self.links.clock()))

    def choices(self, kind: Literal["mqtt", "http"]) -> tuple[str, ...] | None:
        """Return the addresses that its document names and its network reaches, None if it goes by the first ones."""
        named = self.unit.way.endpoints
        if named is None:
            return None
        return () if self.unit.profile.has("unreachable") else getattr(named, kind)

    @property
    def servers(self) -> tuple[str, ...]:
        """Origins of the HTTP side, the one to ask now first."""
        named = self.choices("http")
        origins = named if named is not None else (self.links.server,)
        turned = self.misses % max(1, len(origins))
        return origins[turned:] + origins[:turned]

    def lose_server(self) -> None:
        """Ask the next server from now on: this one did not answer."""
        self.misses += 1
        self.observe("link_lost", code="server_unreachable")

    def observe(self, event: str, *, code: str = "", att: str = "", parcel: Parcel | None = None) -> None:
        """Tell the observer."""
        self.links.observe(self.device, event, code=code, att=att, parcel=parcel)

    def stir(self) -> None:
        """Wake everyone who waits in `until`."""
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on this agent holds; leaves if the caller was cancelled."""
        if is_cancelled():
            raise asyncio.CancelledError
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Say(report):
                self.outbox.put(report)
            case Note(event, code, att):
                self.observe(event, code=code, att=att)
            case Up(hello):
                self.hello, self.powered = hello, True
                self.ups += 1
            case Down(sudden):
                self.powered = False
                if sudden:
                    self.outbox.lose()
            case Fetch():
                self._fetching = self._group.create_task(self._fetch(effect))
            case StopFetch():
                self._stop_fetch()

    async def _keep_time(self) -> None:
        while True:
            wake_at = self.unit.wake_at
            rest_s = None if wake_at is None else max(0.0, wake_at - self.links.clock())
            try:
                async with asyncio.timeout(rest_s):
                    await self.until(partial(self._wakes_not_at, wake_at))
            except TimeoutError:
                if self.unit.phase is Phase.OFF:
                    # However short the reboot: the next boot begins after the last words of this one.
                    await self.until(lambda: not self.connected)
                self.feed(Tick())

    def _wakes_not_at(self, wake_at: float | None) -> bool:
        return self.unit.wake_at != wake_at

    async def _fetch(self, wish: Fetch) -> None:
        try:
            self._downloader.homes = self.servers
            async with self.links.permits, aclosing(self._downloader.fetch(wish, self.unit.identity)) as parts:
                async for part in parts:
                    self.feed(part)
                    if self.unit.phase is not Phase.DOWNLOADING:
                        return
            self.feed(FetchFailed("link_lost", final=False))
        except DownloadError as error:
            self.feed(FetchFailed(error.code, final=error.final))

    def _stop_fetch(self) -> None:
        # The fetch that feeds the last byte sees by the phase that it is over; all others are cut off.
        if self._fetching is not None and self._fetching is not asyncio.current_task():
            self._fetching.cancel()
        self._fetching = None


def is_cancelled() -> bool:
    """Say whether the running task was told to end.

    Before Python 3.12 `asyncio.wait_for` swallows a cancellation that comes in the moment its result does,
    and the MQTT client waits for each acknowledgement that way: a loop must ask.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


Door = Callable[[Agent], Coroutine[Any, Any, None]]
