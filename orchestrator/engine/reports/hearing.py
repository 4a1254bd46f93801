"""Whether silence means anything: it does not while devices cannot reach us.

Rules:
- While the link is down, and for a grace period after it is back, no deadline is judged and nothing
  passes a gate: reports that wait at the broker or in devices must arrive first.
- The same holds after a start of the daemon, and after a time in which it did not run (a paused machine,
  a stuck disk): both are a broken link seen from a device. And after a jump of the clock, see `jumps`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

STALL_S = 5.0
"""Whoever runs asks at least this often; a longer gap means that nobody was listening."""


class Hearing:
    """Knows whether devices could have been heard long enough.

    Args:
        link: number of the present link, 0 while there is none; another number is another link.
        grace_s: how long it must have been up.
        now: the clock.
        monotonic: a clock that runs with the process, for gaps.
        steady: whether the clock goes on as it did.
    """

    def __init__(
        self,
        link: Callable[[], int],
        grace_s: float,
        now: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
        steady: Callable[[], bool] = lambda: True,
    ) -> None:
        self._link = link
        self._grace_s = grace_s
        self._now = now
        self._monotonic = monotonic
        self._steady = steady
        self._known = 0
        self._since = 0.0
        self._asked_at = monotonic()

    def __call__(self) -> bool:
        """Say whether silence may be judged now. Counts from when it first saw the present link."""
        link = self._link()
        stalled = self._monotonic() - self._asked_at > STALL_S
        self._asked_at = self._monotonic()
        steady = self._steady()
        now = self._now()
        if link != self._known or stalled or not steady or now < self._since:  # the last: the clock was set back
            self._known = link
            self._since = now
        return link > 0 and now - self._since >= self._grace_s
