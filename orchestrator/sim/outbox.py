"""What a device wants to say and has not been heard on yet; here reports are doubled, swapped and repeated.

Rules:
- A report leaves only when its receiver acknowledged it.
- The faults touch order, number and the retain flag, never a report's bytes.
- A report held back to be overtaken is let go behind the next one; the last one of an attempt is never held.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from orchestrator.sim.profile import Profile
from orchestrator.wire.report import Kind, Report, encode

_LAST = (Kind.CONFIRMED, Kind.FAILED, Kind.ROLLED_BACK, Kind.REFUSED, Kind.RECALLED, Kind.TOO_LATE)


@dataclass(frozen=True, slots=True)
class Parcel:
    """One message on its way.

    Attributes:
        report: what is said.
        payload: its bytes.
        retain: whether the broker is asked to keep and replay it.
    """

    report: Report
    payload: bytes
    retain: bool


class Outbox:
    """The unsent reports of one device, oldest first."""

    __slots__ = ("_duplicate", "_first", "_held", "_queue", "_reorder", "_replay")

    def __init__(self, profile: Profile) -> None:
        self._duplicate = profile.has("duplicate")
        self._reorder = profile.has("reorder")
        self._replay = profile.has("replay")
        self._queue: deque[Parcel] = deque()
        self._held: Parcel | None = None
        self._first: Parcel | None = None

    def put(self, report: Report) -> None:
        """Take a report in."""
        parcel = Parcel(report, encode(report), self._replay)
        self._first = self._first or parcel
        if self._reorder and self._held is None and report.kind not in _LAST:
            self._held = parcel
            return
        self._append(parcel)
        if self._held is not None:
            self._append(self._held)
            self._held = None

    def head(self) -> Parcel | None:
        """Return the next one to send, or None."""
        return self._queue[0] if self._queue else None

    def done(self, parcel: Parcel) -> None:
        """Forget a parcel that was acknowledged; power may have failed since, then it is gone already."""
        if self._queue and self._queue[0] is parcel:
            self._queue.popleft()

    def replay(self) -> None:
        """On a new connection, say the first report again if the device has that fault."""
        if self._replay and self._first is not None:
            self._queue.append(self._first)

    def lose(self) -> None:
        """Lose everything unsent, as power failed."""
        self._queue.clear()
        self._held = None

    def _append(self, parcel: Parcel) -> None:
        self._queue.extend([parcel] * (2 if self._duplicate else 1))
