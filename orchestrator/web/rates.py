"""How often an account may ask: one bucket for each, in memory.

Rules:
- A bucket holds `burst` requests and fills by `per_s` a second; who finds it empty is told when to come again.
- To stop is never refused: neither a pause nor a halt is counted.
- A bucket that is full again is forgotten, so that there are no more of them than accounts that ask.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.errors import OrchestratorError

_MOST = 10_000
"""Buckets beyond which those that are full again are looked for."""


class TooManyError(OrchestratorError):
    """The account asks more often than it may.

    Args:
        message: one sentence for a person.
        again_s: when to come again.
    """

    default_code = "too_many"

    def __init__(self, message: str, again_s: int) -> None:
        super().__init__(message)
        self.again_s = again_s


@dataclass(slots=True)
class Rates:
    """The buckets.

    Attributes:
        per_s: requests a second that an account may make for ever; 0 for no limit.
        burst: requests that it may make at once.
        now: a clock that never goes back.
    """

    per_s: float
    burst: int
    now: Callable[[], float]
    _full_at: dict[str, float] = field(default_factory=dict)

    def take(self, account: str) -> None:
        """Count a request.

        Raises:
            TooManyError: the account has made too many.
        """
        if not self.per_s:
            return
        now = self.now()
        full_at = max(self._full_at.get(account, now), now) + 1 / self.per_s
        if (over_s := full_at - now - self.burst / self.per_s) > 1e-9:
            again_s = max(1, math.ceil(over_s))
            text = f"{account} asks more than {self.per_s:g} times a second; come again in {again_s} s"
            raise TooManyError(text, again_s)
        if len(self._full_at) >= _MOST:
            self._full_at = {name: at for name, at in self._full_at.items() if at > now}
        self._full_at[account] = full_at
