"""How long things took: a histogram that costs a search in a short list and two additions for each of them.

Rules:
- Who measures says how long it took; nothing here has a clock.
- One thread notes, others may read: what they read may lack what is noted meanwhile, but never contradicts itself.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""Bounds of what is counted together, where nothing else is said."""


class Timing:
    """How often something took how long.

    Args:
        bounds_s: upper bounds of what is counted together, rising; what is beyond the last one is counted as well.

    Attributes:
        total_s: all of it together.
    """

    __slots__ = ("_bounds_s", "_counts", "total_s")

    def __init__(self, bounds_s: Sequence[float] = BOUNDS_S) -> None:
        self._bounds_s = tuple(bounds_s)
        self._counts = [0] * (len(self._bounds_s) + 1)
        self.total_s = 0.0

    def note(self, took_s: float) -> None:
        """Count something that took so long; a clock that was set back makes it 0."""
        took_s = max(took_s, 0.0)
        self._counts[bisect_left(self._bounds_s, took_s)] += 1
        self.total_s += took_s

    @property
    def below(self) -> list[tuple[float, int]]:
        """How many took at most so long, for each bound; the last one is infinite and counts all."""
        return list(zip((*self._bounds_s, math.inf), accumulate(list(self._counts)), strict=True))
