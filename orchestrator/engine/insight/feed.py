"""What changes, told to those who listen: rollouts one by one, devices counted.

Rules:
- One look a second at what is stored, however many listen; none while nobody does.
- Who begins hears how everything stands; who comes back and names the last event that it heard, what came since.
- An event says how a thing stands now. Who misses one and hears the next has missed nothing that still holds.
- Each listener has a bounded queue. Who does not take what it is told is dropped, told so, and begins anew.
- When the daemon stops, all are told, and nobody waits for them.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from orchestrator.core import rollout as machine
from orchestrator.engine.insight import census, views
from orchestrator.errors import UnavailableError
from orchestrator.ports import Store, Tx

EVERY_S = 1.0
FLEET_EVERY = 10
"""Looks after which the fleet is counted again."""
MOST_LISTENERS = 64
MOST_WAITING = 256
"""Events that wait for one listener."""
MOST_KEPT = 2048
"""Events that who comes back may have missed."""

ROLLOUT, FLEET, DROPPED, STOPPING = "rollout", "fleet", "dropped", "stopping"
LAST = frozenset({DROPPED, STOPPING})
"""Events after which nothing comes."""

_FLEET = ("devices", "online", "offline", "unsaid", "silent", "quarantined")
_log = structlog.get_logger(__name__)

View = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """One event.

    Attributes:
        id: by which who comes back names it.
        kind: `rollout`, `fleet`, `dropped` or `stopping`.
        data: how the thing stands now.
    """

    id: str
    kind: str
    data: View


@dataclass(slots=True, eq=False)
class Listener:
    """One who listens.

    Attributes:
        waiting: what it was not told yet.
    """

    waiting: asyncio.Queue[Change] = field(default_factory=lambda: asyncio.Queue(MOST_WAITING + 1))


class Feed:
    """Tells what changes.

    Args:
        store: where it is looked for.
        now: the clock.
    """

    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now
        self._life = secrets.token_hex(4)
        self._count = 0
        self._looks = 0
        self._known: dict[tuple[str, str], View] = {}
        self._kept: deque[Change] = deque(maxlen=MOST_KEPT)
        self._listeners: set[Listener] = set()
        self._one_at_a_time = asyncio.Lock()
        self._running = False
        self._asked = asyncio.Event()

    @property
    def is_running(self) -> bool:
        """Whether anybody can be told; no more when the daemon stops."""
        return self._running

    async def run(self, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Look for changes for ever, while anybody listens."""
        self._running = True
        try:
            while True:
                await self._asked.wait()
                await pause(EVERY_S)
                if not self._listeners:
                    self._asked.clear()
                    continue
                try:
                    await self.look()
                except UnavailableError as error:
                    _log.error("store.unavailable", error=error.message)
        finally:
            self._running = False
            self._end()

    async def look(self) -> None:
        """Look once, and tell all who listen what is different."""
        async with self._one_at_a_time:
            await self._look(anew=self._looks % FLEET_EVERY == 0)
            self._looks += 1

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Keep telling a listener until the block ends."""
        try:
            yield
        finally:
            self._listeners.discard(listener)

    async def begin(self, last_id: str = "") -> Listener:
        """Return a new listener, with what it must hear first.

        Args:
            last_id: the last event that it heard before, "" if it comes for the first time.

        Raises:
            UnavailableError: nobody looks, or too many listen.
        """
        if not self._running:
            raise UnavailableError("changes are not told now; ask for what you need", code="no_feed")
        if len(self._listeners) >= MOST_LISTENERS:
            raise UnavailableError(f"{MOST_LISTENERS} programs listen already; end one of them", code="no_feed")
        async with self._one_at_a_time:
            await self._look(anew=True)
            listener = Listener()
            first = self._since(last_id)
            if first is None or len(first) > MOST_WAITING:
                first = [Change(self._last_id, kind, data) for (kind, _), data in self._known.items()][-MOST_WAITING:]
            for change in first:
                listener.waiting.put_nowait(change)
            self._listeners.add(listener)
            self._asked.set()
            return listener

    @property
    def _last_id(self) -> str:
        return f"{self._life}-{self._count}"

    def _since(self, last_id: str) -> list[Change] | None:
        """Return what came after an event; None if it is not known any more what that was."""
        if last_id == self._last_id:
            return []
        found: list[Change] = []
        for change in reversed(self._kept):
            if change.id == last_id:
                return found[::-1]
            found.append(change)
        return None

    async def _look(self, *, anew: bool) -> None:
        names = frozenset(name for kind, name in self._known if kind == ROLLOUT)
        now = self._now()
        found = await self._store.read(lambda tx: _rollouts(tx, names))
        if anew:
            counts = await self._store.read(lambda tx: census.of_fleet(tx, now))
            found[FLEET, ""] = {name: counts[name] for name in _FLEET}
        elif (FLEET, "") in self._known:
            found[FLEET, ""] = self._known[FLEET, ""]
        for key, data in found.items():
            if self._known.get(key) != data:
                self._tell(key[0], data)
        self._known = {
            key: data for key, data in found.items() if key[0] != ROLLOUT or data["phase"] not in machine.FINISHED
        }

    def _tell(self, kind: str, data: View) -> None:
        self._count += 1
        change = Change(self._last_id, kind, data)
        self._kept.append(change)
        for listener in list(self._listeners):
            if listener.waiting.qsize() >= MOST_WAITING:
                self._leave(listener, DROPPED)
            else:
                listener.waiting.put_nowait(change)

    def _end(self) -> None:
        for listener in list(self._listeners):
            self._leave(listener, STOPPING)

    def _leave(self, listener: Listener, kind: str) -> None:
        """Tell a listener nothing but that this is the end: what waited is told anew when it comes back."""
        self._listeners.discard(listener)
        while not listener.waiting.empty():
            listener.waiting.get_nowait()
        listener.waiting.put_nowait(Change("", kind, {}))


def _rollouts(tx: Tx, known: frozenset[str]) -> dict[tuple[str, str], View]:
    """Return how rollouts stand that are not over, or were not when one last looked; the oldest first."""
    found = [item for item in tx.rollouts() if item.phase in machine.UNFINISHED or item.plan.name in known]
    return {(ROLLOUT, item.plan.name): views.rollout_line(item, tx.tally(item.id)) for item in reversed(found)}
