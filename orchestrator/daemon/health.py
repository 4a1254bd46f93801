"""Whether the daemon can do its work, and whether a restart would help it.

Rules:
- Not ready is whoever cannot store, cannot reach devices by the broker, or cannot sign what devices would take.
- Unwell is whoever is stuck: only that starves the watchdog. A broker that is away, or a key that is wrong, no restart
  cures.
- While a person's stop waits for the store, nothing starves it: the stop would be lost with the process, and what was
  stopped would go on.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

STUCK_S = 30.0
"""A piece of work that has kept the writer for so long does not end by itself."""

UNTENDED_S = 15.0
"""The task that keeps the link looks after it every second."""

LAG_S = 60.0
"""A report that was taken from the broker waits so long for its commit at most."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """How the parts are at one moment.

    Attributes:
        store_fault: why the store cannot be written, "" if it can.
        writer_busy_s: how long the writer has been at one piece of work.
        link: number of the present link to the broker, 0 while there is none.
        link_untended_s: how long ago the task that keeps the link looked after it.
        lag_s: how long ago the oldest report arrived that is not stored.
        key_faults: what is wrong with the keys for triggers, nothing if one is good.
        stops: rollouts that are stopped in this process alone.
    """

    store_fault: str
    writer_busy_s: float
    link: int
    link_untended_s: float
    lag_s: float
    key_faults: Collection[str]
    stops: Collection[str]


def unready(pulse: Pulse) -> dict[str, str]:
    """Return what keeps the daemon from its work, by part; nothing if it can do it."""
    faults = _stuck(pulse)
    if not pulse.link:
        faults["broker"] = "not connected; the log says why"
    if pulse.key_faults:
        faults["keys"] = " ".join(pulse.key_faults)
    return faults


def unwell(pulse: Pulse) -> dict[str, str]:
    """Return why the daemon should be restarted, by part; nothing if it should go on."""
    return {} if pulse.stops else _stuck(pulse)


def _stuck(pulse: Pulse) -> dict[str, str]:
    faults = {}
    if pulse.store_fault:
        faults["store"] = pulse.store_fault
    elif pulse.writer_busy_s >= STUCK_S:
        faults["store"] = f"one piece of work has kept the writer for {pulse.writer_busy_s:.0f} s"
    if pulse.link and pulse.link_untended_s >= UNTENDED_S:
        faults["broker"] = f"nobody has looked after the link for {pulse.link_untended_s:.0f} s"
    if pulse.lag_s >= LAG_S:
        faults["recorder"] = f"a report has waited for its commit for {pulse.lag_s:.0f} s"
    return faults
