"""Counts of what a fleet saw and did, and the journal that keeps each event.

Rules:
- Counted is what truly happened on the devices, not what they claimed.
- The journal has one JSON object per line: `at`, `device`, `event`, and where they apply `code`, `att`,
  `kind`, `boot` and `n`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import IO, Any

import msgspec

from orchestrator.sim.outbox import Parcel

_WITH_CODE = ("refused", "failed", "link_lost", "poll_refused", "report_refused", "keys_refused")
_COUNTED = (
    "triggered",
    "accepted",
    "refreshed",
    "superseded",
    "installed",
    "crashed",
    "rolled_back",
    "confirmed",
    "lied",
    "silent",
    "recalled",
    "too_late",
    "power_cut",
    "rekeyed",
    "trying",
    "moved",
    "moved_back",
)


class Tally:
    """An `Observer` that counts, and writes a journal if it was given one.

    Args:
        clock: returns epoch seconds.
        journal: where lines go, or None.
    """

    def __init__(self, clock: Callable[[], float], journal: IO[bytes] | None = None) -> None:
        self._clock = clock
        self._journal = journal
        self._counts: Counter[str] = Counter()
        self._codes: dict[str, Counter[str]] = {event: Counter() for event in _WITH_CODE}
        self._kinds: Counter[str] = Counter()
        self._connected: set[str] = set()

    def __call__(self, device: str, event: str, *, code: str = "", att: str = "", parcel: Parcel | None = None) -> None:
        """Count one event."""
        self._counts[event] += 1
        if event in self._codes:
            self._codes[event][code] += 1
        if event == "connected":
            self._connected.add(device)
        elif event == "disconnected":
            self._connected.discard(device)
        if parcel is not None:
            self._kinds[str(parcel.report.kind)] += 1
        if self._journal is not None:
            self._journal.write(self._line(device, event, code, att, parcel))

    def line(self) -> str:
        """Return the present state in one line for a person."""
        shown = ("accepted", "installed", "confirmed", "rolled_back", "silent", "recalled")
        counts = "  ".join(f"{event} {self._counts[event]}" for event in shown)
        refused = sum(self._codes["refused"].values())
        return f"connected {len(self._connected)}  {counts}  refused {refused}"

    def summary(self) -> dict[str, Any]:
        """Return all counts, ready for JSON."""
        return {
            "connected": len(self._connected),
            **{event: self._counts[event] for event in _COUNTED},
            **{event: dict(sorted(codes.items())) for event, codes in self._codes.items()},
            "reports_sent": dict(sorted(self._kinds.items())),
        }

    def _line(self, device: str, event: str, code: str, att: str, parcel: Parcel | None) -> bytes:
        entry: dict[str, Any] = {"at": round(self._clock(), 6), "device": device, "event": event}
        if code:
            entry["code"] = code
        if att:
            entry["att"] = att
        if parcel is not None:
            report = parcel.report
            entry.update(kind=str(report.kind), boot=report.boot, n=report.n)
        return msgspec.json.encode(entry) + b"\n"
