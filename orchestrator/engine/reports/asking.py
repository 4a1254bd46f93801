"""Whether devices that poll can be heard: they say nothing of themselves between two polls, and only by HTTP.

Rules:
- After a start with such devices on their way, and after a time in which nobody listened, they have had no chance to
  speak before the longest pause between two polls has passed, and a quarter more.
- Where fewer than half as many ask as did in the time before, the way to us is broken, not the devices: a proxy, a
  certificate, a name. Nothing is judged until they are back and have had that chance, or for `LONGEST_S`.
- Fewer than `FLOOR` of them prove nothing by their silence; their deadlines alone judge them.
- Time is that of a clock that nobody sets.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

import structlog

from orchestrator.core.model import OTAD, Delivery, Device, Rollout
from orchestrator.core.update import IN_FLIGHT
from orchestrator.engine.reports.hearing import STALL_S
from orchestrator.ports import Tx

PATIENCE = 1.25
"""A chance to speak lasts so many pauses: polls are late now and then."""

FLOOR = 10
"""Polls of a window below which their number says nothing."""

LONGEST_S = 86_400.0
"""After so long without them, whoever does not ask is gone."""

_PARTS = 5
_log = structlog.get_logger(__name__)


class Asking:
    """Counts who polls, window by window.

    Args:
        every_s: longest pause between two polls of one device.
        monotonic: a clock that nobody sets.
    """

    def __init__(self, every_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._window_s = every_s * PATIENCE
        self._asked_at = self._part_at = monotonic()
        self._part: set[str] = set()
        self._counts: deque[int] = deque([0] * (2 * _PARTS), 2 * _PARTS)
        self._quiet_until = self._asked_at
        self._usual: int | None = None
        self._broke_at = 0.0

    def note(self, device_id: str) -> None:
        """Count a poll."""
        self._turn()
        self._part.add(device_id)

    def expect(self, every_s: float) -> None:
        """Wait for devices that ask at this pace, from now on."""
        self._quiet_until = max(self._quiet_until, self._monotonic() + every_s * PATIENCE)

    def ceased(self) -> bool:
        """Say whether so few ask that the way to us must be broken."""
        self()
        return self._usual is not None

    def __call__(self) -> bool:
        """Say whether whoever polls could have been heard."""
        now = self._monotonic()
        if now - self._asked_at > STALL_S and self._recent() + self._older():
            self._quiet_until = max(self._quiet_until, now + self._window_s)
        self._asked_at = now
        self._turn()
        self._look(now)
        return self._usual is None and now >= self._quiet_until

    def _look(self, now: float) -> None:
        if self._usual is None and self._older() >= FLOOR and 2 * self._recent() < self._older():
            self._usual, self._broke_at = self._older(), now
            _log.error("polls.ceased", usual=self._usual, recent=self._recent(), window_s=round(self._window_s))
        elif self._usual is not None and 2 * self._recent() >= self._usual:
            self._usual, self._quiet_until = None, now + self._window_s
            _log.warning("polls.resumed", recent=self._recent(), after_s=round(now - self._broke_at))
        elif self._usual is not None and now - self._broke_at >= LONGEST_S:
            _log.error("polls.given_up", usual=self._usual, recent=self._recent())
            self._usual = None
            self._counts.extend([0] * (2 * _PARTS))

    def _turn(self) -> None:
        """Close the parts of a window that are over."""
        part_s = self._window_s / _PARTS
        over = min(int((self._monotonic() - self._part_at) / part_s), 2 * _PARTS)
        if over:
            self._counts.extend([len(self._part), *[0] * (over - 1)])
            self._part, self._part_at = set(), self._monotonic()

    def _recent(self) -> int:
        return len(self._part) + sum(list(self._counts)[_PARTS:])

    def _older(self) -> int:
        return sum(list(self._counts)[:_PARTS])


def on_their_way(tx: Tx) -> set[str]:
    """Return the dialects of devices that hold a slot and can only speak when they poll."""
    found: set[str] = set()
    for rollout_id in tx.in_flight():
        rollout = tx.rollout(rollout_id)
        assert rollout is not None, "rollouts are never deleted"
        ids = [item.device_id for item in tx.updates_in(rollout_id, IN_FLIGHT)]
        found |= {device.dialect for device in tx.devices_named(ids) if _polls(device, rollout)}
    return found


def longest_s(dialects: set[str], paces: Mapping[str, float], other_s: float) -> float:
    """Return the longest pause between two polls of devices of these dialects, 0 for none.

    Args:
        dialects: the dialects.
        paces: pauses of those that have one of their own.
        other_s: the pause of all others.
    """
    return max((paces.get(dialect, other_s) for dialect in dialects), default=0.0)


def _polls(device: Device, rollout: Rollout) -> bool:
    return device.dialect != OTAD or rollout.plan.delivery is Delivery.POLL
