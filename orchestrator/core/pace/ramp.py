"""How fast updates may start: a rate that rises step by step, and a spread over devices.

Rules:
- Every start counts, whichever way the device came in: one that joins late waits like the others.
- Within a stage the rate never falls: a clock that is set back holds the ramp where it is.
- Starts are spread: in any span of t seconds there are at most t + `BURST_S` seconds' worth of them, or one.
- A clock that is set back delays a start by at most a burst; it gives away none.
- The spread is no chance: the same device waits the same time for the same attempt, whoever asks and how often.
"""

from __future__ import annotations

import hmac
import math
from dataclasses import dataclass, replace

MINUTE_S = 60.0
BURST_S = 10.0
"""So many seconds' worth of starts may come at once: the conductor looks every few seconds only."""


@dataclass(frozen=True, slots=True)
class Ramp:
    """How many updates may start per minute.

    Attributes:
        base: at the beginning of a stage, at least 1.
        factor: what each step multiplies it by, at least 1.
        cap: rate beyond which it does not rise, at least `base`.
        every_s: time from one step to the next.
    """

    base: int
    factor: float
    cap: int
    every_s: float


@dataclass(frozen=True, slots=True)
class Climb:
    """How far one stage has come on its ramp.

    Attributes:
        began_at: when the stage opened.
        step: steps taken.
        due_at: when all that was started is paid for; no start is allowed while this is a burst ahead.
    """

    began_at: float
    step: int = 0
    due_at: float = 0.0


def climbed(ramp: Ramp, climb: Climb, now: float) -> Climb:
    """Return the climb as of now; what it was before stays in a clock that is set back."""
    step = int(max(now - climb.began_at, 0.0) // ramp.every_s)
    due_at = min(climb.due_at, now + _burst_s(_rate(ramp, max(climb.step, step))))
    return replace(climb, step=max(climb.step, step), due_at=due_at)


def allowed(ramp: Ramp, climb: Climb) -> int:
    """Return how many updates may start per minute."""
    return _rate(ramp, climb.step)


def room(ramp: Ramp, climb: Climb, now: float) -> int:
    """Return how many updates may start now.

    Args:
        ramp: the ramp.
        climb: how far the stage is, as of now.
        now: present time.
    """
    rate = allowed(ramp, climb)
    spare_s = now + _burst_s(rate) - max(climb.due_at, now)
    return max(math.floor((spare_s + _GRAIN_S) * rate / MINUTE_S), 0)


def start(ramp: Ramp, climb: Climb, count: int, now: float) -> Climb:
    """Return the climb after `count` more starts."""
    return replace(climb, due_at=max(climb.due_at, now) + count * MINUTE_S / allowed(ramp, climb))


def opens_at(ramp: Ramp, climb: Climb, now: float) -> float:
    """Return when there is room for at least one start."""
    rate = allowed(ramp, climb)
    return max(climb.due_at + MINUTE_S / rate - _burst_s(rate), now)


def share(key: bytes, device_id: str, attempt: int) -> float:
    """Return a number from 0 (included) to 1 (excluded), drawn from a keyed hash: the place of a device in a spread."""
    digest = hmac.digest(key, f"{device_id}\n{attempt}".encode(), "sha256")
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53  # as many bits as a float holds


def delay_s(key: bytes, device_id: str, attempt: int, spread_s: float) -> float:
    """Return by how much a device's start is put off, less than `spread_s`.

    Args:
        key: secret of the rollout: nobody can choose a place.
        device_id: the device.
        attempt: number of the attempt; another one has another place.
        spread_s: longest delay.
    """
    return share(key, device_id, attempt) * spread_s


_GRAIN_S = 1e-6
"""Finer than this, times of today are not kept; without it a start that is due could be refused for ever."""


def _rate(ramp: Ramp, step: int) -> int:
    growth = min(step * math.log(ramp.factor), math.log(ramp.cap / ramp.base))  # a power could be too large a number
    return min(round(ramp.base * math.exp(growth)), ramp.cap)


def _burst_s(rate: int) -> float:
    return max(BURST_S, MINUTE_S / rate)
