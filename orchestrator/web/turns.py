"""Whose turn it is to download at a site: its line carries only so many at once.

Rules:
- A device has one turn, however many connections it opens, and keeps it while bytes flow through us.
- Bytes that we cannot see, because the device was sent elsewhere, count until it says that it has them, or its turn
  ends with the time. So does a download that broke off: who resumes it finds its turn.
- A device without a site has its line for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from orchestrator.core.model import Device


@dataclass(slots=True)
class _Turn:
    """The turn of one device; it ends with the time where no answer flows."""

    since: float
    until: float
    flowing: int = 0


class Turns:
    """Counts who downloads where.

    Args:
        at_once: devices of one site that may download at once; 0 for no limit.
        lasts_s: how long a turn lasts after the last request where no bytes flow through us.
    """

    def __init__(self, at_once: int = 0, lasts_s: float = 600.0) -> None:
        self._at_once = at_once
        self._lasts_s = lasts_s
        self._sites: dict[str, dict[str, _Turn]] = {}

    def take(self, device: Device, now: float) -> bool:
        """Give a device its turn, or keep it for longer; False if it has to wait."""
        if not self._at_once or not device.site:
            return True
        turns = self._sites.setdefault(device.site, {})
        if device.id not in turns:
            self._end(device.site, [name for name, turn in turns.items() if not turn.flowing and turn.until <= now])
            if len(turns) >= self._at_once:
                return False
            self._sites[device.site] = turns
        turn = turns.setdefault(device.id, _Turn(now, now))
        turn.until = now + self._lasts_s
        return True

    def silent(self, site: str) -> dict[str, float]:
        """Return the devices of a site whose turn it is although no bytes flow through us, and since when it is."""
        return {name: turn.since for name, turn in self._sites.get(site, {}).items() if not turn.flowing}

    def end(self, site: str, devices: Collection[str]) -> None:
        """End the turns of devices that are done, unless bytes flow to them again."""
        self._end(site, [name for name in self.silent(site) if name in devices])

    @contextmanager
    def flowing(self, device: Device, now: Callable[[], float]) -> Iterator[Callable[[], None]]:
        """Keep the turn of a device while its answer flows; what this gives is called when the last byte was sent."""
        turn = self._sites.get(device.site, {}).get(device.id)
        if turn is None:
            yield _nothing
            return
        done: list[bool] = []
        turn.flowing += 1
        try:
            yield lambda: done.append(True)
        finally:
            turn.flowing -= 1
            turn.until = now() + self._lasts_s
            if done:
                self.end(device.site, [device.id])

    def _end(self, site: str, devices: Collection[str]) -> None:
        turns = self._sites.get(site, {})
        for name in devices:
            del turns[name]
        if not turns:
            self._sites.pop(site, None)


def _nothing() -> None:
    """Nobody counts."""
