"""How a page that is open hears that what it shows has changed.

Rules:
- A look makes a print of what a page shows: another one where the page would be another. There is one look a second at
  most at each thing, however many pages show it, and none while no page does. One that takes long is taken less often.
- A page tells the print that it was made with. So what changed since is told at once, also to who comes back.
- Who listens is asked at each look who it is: who signed out, or lost the role, hears nothing more.
- So many streams at most are open in all. A page that is refused one, or lost it, asks by itself (`pages.js`).
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from orchestrator.errors import OrchestratorError, UnavailableError

LOOK_EVERY_S = 1.0
BEAT_EVERY_S = 15.0
MOST_STREAMS = 100
COSTS_TIMES = 20
"""What took so long to find out is shown for so many times that long."""
_SHARED = 0.9
"""How much of the time between two looks of one page a look holds for all; the rest is for pages that come early."""

Look = Callable[[], Awaitable[str]]
"""Returns the print of what a page shows."""


@dataclass(frozen=True, slots=True)
class Live:
    """What a page needs to follow what happens.

    Attributes:
        place: of the page, with all that its address asks for.
        events: of the stream that says when it would be another.
    """

    place: str
    events: str


@dataclass(slots=True)
class _Watched:
    """What some pages show.

    Attributes:
        look: looks at it.
        pages: how many show it.
        print: what the last look found.
        until: when the next look may be taken.
        turn: of who looks for all.
    """

    look: Look
    pages: int = 0
    print: str = ""
    until: float = 0.0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def seen(self) -> str:
        """Return the print, of a look that is no older than it may be."""
        async with self.turn:
            began = time.monotonic()
            if began >= self.until:
                self.print = await self.look()
                ended = time.monotonic()
                self.until = max(began + _SHARED * LOOK_EVERY_S, ended + COSTS_TIMES * (ended - began))
        return self.print


class Changes:
    """All streams."""

    def __init__(self) -> None:
        self._streams = 0
        self._watched: dict[str, _Watched] = {}

    def check(self) -> None:
        """Make sure that there is room for one more stream.

        Raises:
            UnavailableError: there is none.
        """
        if self._streams >= MOST_STREAMS:
            raise UnavailableError("too many pages are open; this one asks for changes by itself")

    async def stream(
        self, thing: str, look: Look, before: str, ask: Callable[[], Awaitable[object]]
    ) -> AsyncIterator[bytes]:
        """Say `changed` whenever a page would be another, until who listens may not any more.

        Args:
            thing: what the page shows; pages that show the same share their looks.
            look: looks at it.
            before: the print that the page was made with.
            ask: raises if who listens may not look at it any more.
        """
        if self._streams >= MOST_STREAMS:
            return  # others came first, while this one took its first look; who comes again is told
        self._streams += 1
        watched = self._watched.setdefault(thing, _Watched(look))
        watched.pages += 1
        silent_s = 0.0
        try:
            yield b"retry: 2000\n\n"
            while True:
                try:
                    await ask()
                    now = await watched.seen()
                except OrchestratorError:  # signed out, or the store is away: who comes again is told
                    return
                silent_s += LOOK_EVERY_S
                if now != before:
                    yield b"event: changed\ndata: 1\n\n"
                    before, silent_s = now, 0.0
                elif silent_s >= BEAT_EVERY_S:
                    yield b": still here\n\n"
                    silent_s = 0.0
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            self._streams -= 1
            watched.pages -= 1
            if not watched.pages:
                del self._watched[thing]


def print_of(*shown: object) -> str:
    """Return the print of what is shown: numbers, texts, and lists and mappings of such in an order that stays."""
    return hashlib.blake2b(repr(shown).encode(errors="surrogatepass"), digest_size=12).hexdigest()
