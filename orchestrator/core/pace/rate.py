"""How often each sender may speak: a bucket of tokens per sender, of which a part is kept for what matters.

Rules:
- A bucket starts full and gains a token every `interval_s`. Anything may be said from its first `burst` tokens; what
  must not be lost may use `RESERVE` times as many on top.
- What is refused costs nothing, so that a sender is heard again as soon as it is calmer.
- A full bucket is not kept: memory is bounded by who spoke lately, and by `MOST`. Beyond that the oldest are
  forgotten, in favour of those who speak.
- `now` never goes back: it is a monotonic clock, for a wall clock that is set would silence everybody.
"""

from __future__ import annotations

from dataclasses import dataclass

RESERVE = 4
"""What must not be lost may use so many bursts on top of the first one."""

MOST = 200_000
"""Senders after which the oldest half is forgotten."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often one sender may speak.

    Attributes:
        burst: messages at once; 0 for no limit at all.
        interval_s: time after which one more is allowed.
    """

    burst: int = 20
    interval_s: float = 5.0


class Buckets:
    """The buckets of all senders.

    Args:
        pace: how often one sender may speak.
    """

    __slots__ = ("_burst_s", "_forget_at", "_interval_s", "_most_s", "_older", "_younger")

    def __init__(self, pace: Pace) -> None:
        # A bucket is the moment at which it will be full again: each token taken moves that moment on.
        self._interval_s = pace.interval_s
        self._burst_s = (pace.burst - 1) * pace.interval_s
        self._most_s = ((1 + RESERVE) * pace.burst - 1) * pace.interval_s
        self._younger: dict[str, float] = {}
        self._older: dict[str, float] = {}
        self._forget_at = 0.0

    def __len__(self) -> int:
        return len(self._younger) + len(self._older)

    def take(self, sender: str, now: float) -> bool:
        """Take a token of the burst; returns whether there was one."""
        full_at = self._younger.get(sender) or self._older.get(sender, now)
        if full_at < now:
            full_at = now
        elif full_at - now > self._burst_s:
            return False
        self._younger[sender] = full_at + self._interval_s
        return True

    def take_reserved(self, sender: str, now: float) -> bool:
        """Take a token of the reserve, after `take` found none; returns whether there was one."""
        full_at = max(self._younger.get(sender) or self._older.get(sender, now), now)
        if full_at - now > self._most_s:
            return False
        self._younger[sender] = full_at + self._interval_s
        return True

    def forget(self, now: float) -> None:
        """Forget who has been silent long enough to have a full bucket. Call it before each batch."""
        if now < self._forget_at and len(self._younger) < MOST:
            return
        self._older, self._younger = self._younger, {}
        self._forget_at = now + self._most_s + self._interval_s
