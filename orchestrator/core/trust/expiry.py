"""What expires, and when a person has to hear of it: once per threshold, never every day.

Rules:
- A threshold that was passed is told once; of several that were passed together, the last one.
- Something that was renewed, so that it expires at another time, begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

DAY_S = 86_400.0
THRESHOLDS_DAYS = (30, 14, 7, 1, 0)
"""Days before the end at which it is told; 0 is the end itself."""


class Expiry(NamedTuple):
    """Something that is good until a time.

    Attributes:
        name: what it is, unique among all that is watched.
        expires_at: until when.
    """

    name: str
    expires_at: float


class Warned(NamedTuple):
    """What was told last about one thing.

    Attributes:
        expires_at: when it expired as known then.
        threshold: days of the threshold that was told.
    """

    expires_at: float
    threshold: int


class Notice(NamedTuple):
    """One thing to tell.

    Attributes:
        expiry: what expires.
        threshold: days of the threshold that it passed; 0 if it has expired.
    """

    expiry: Expiry
    threshold: int


def threshold(expires_at: float, now: float) -> int | None:
    """Return the last threshold that was passed, in days; None if even the first is to come."""
    passed = [days for days in THRESHOLDS_DAYS if expires_at - now <= days * DAY_S]
    return min(passed, default=None)


def judge(found: Sequence[Expiry], told: Mapping[str, Warned], now: float) -> tuple[list[Notice], dict[str, Warned]]:
    """Decide what to tell.

    Args:
        found: all that is watched.
        told: what was told before, by name.
        now: present time.

    Returns:
        What to tell now, soonest end first, and what will have been told then.
    """
    news = []
    known = {}
    for expiry in sorted(found, key=lambda item: item.expires_at):
        before = told.get(expiry.name)
        if before is not None and before.expires_at != expiry.expires_at:
            before = None  # it was renewed
        passed = threshold(expiry.expires_at, now)
        if passed is not None and (before is None or passed < before.threshold):
            news.append(Notice(expiry, passed))
            before = Warned(expiry.expires_at, passed)
        if before is not None:
            known[expiry.name] = before
    return news, known
