"""How fast a bad release is stopped: from the evidence to the halt, and to the last trigger that went out after it.

Rules:
- Only what the evidence stopped is measured; a person is not a process that could be slow.
- The evidence counts from when it was on disk and nobody had looked at it yet.
- Triggers that were on the wire when the halt was decided are seen to their end; the first turn of the dispatcher after
  it finds none of that rollout, and so ends the measurement.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from orchestrator.core.timing import Timing


class Reaction:
    """Measures halts.

    Args:
        ticks: a clock that never goes back, in seconds.

    Attributes:
        halts: from the commit of what decided to the commit of the halt.
        triggers: from the commit of what decided to the last trigger of the rollout; 0 where none went out any more.
    """

    def __init__(self, ticks: Callable[[], float] = time.monotonic) -> None:
        self._ticks = ticks
        self._unseen: dict[int, float] = {}
        self._halted: dict[int, float] = {}
        self._last: dict[int, float] = {}
        self.halts = Timing()
        self.triggers = Timing()

    def changed(self, rollout_ids: Collection[int]) -> None:
        """Note that there is evidence on disk that nobody has looked at."""
        if rollout_ids:
            now = self._ticks()
            for rollout_id in rollout_ids:
                self._unseen.setdefault(rollout_id, now)

    def looking(self, rollout_id: int) -> float | None:
        """Note that the evidence of a rollout is looked at now; returns since when it was there, None if it was not."""
        return self._unseen.pop(rollout_id, None)

    def halted(self, rollout_id: int, since: float | None) -> None:
        """Note that what was looked at halted its rollout, and that this is on disk."""
        if since is not None:
            self.halts.note(self._ticks() - since)
            self._halted[rollout_id] = since

    def published(self, rollout_ids: Collection[int]) -> None:
        """Note that triggers of these rollouts went out."""
        if self._halted:
            now = self._ticks()
            self._last.update((item, now) for item in rollout_ids if item in self._halted)

    def turned(self) -> None:
        """Note that nothing is on the wire that was decided before now."""
        for rollout_id, since in self._halted.items():
            self.triggers.note(self._last.get(rollout_id, since) - since)
        self._halted.clear()
        self._last.clear()
