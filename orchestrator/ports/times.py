"""Times in the store that were taken by a clock that was set since."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

_ROUNDING_S = 1.0


@dataclass(frozen=True, slots=True)
class Jump:
    """The clock jumped.

    Attributes:
        at: the time at which it was noticed, by the clock as it goes now.
        by_s: by how much; negative for back.
        since_s: how long before at most it happened.
    """

    at: float
    by_s: float
    since_s: float

    @property
    def last(self) -> float:
        """No time that was taken before the jump is later, unless by yet another clock."""
        return self.at - self.by_s + _ROUNDING_S

    def is_older(self, at: float, now: float) -> bool:
        """Say whether a time was taken before the jump; where nobody can know it is taken for later."""
        return not self.at - self.since_s <= at <= now

    def was_before(self, at: float, now: float) -> bool:
        """Say whether a time was taken before the jump, by the clock that jumped."""
        return self.is_older(at, now) and at <= self.last


class Part(StrEnum):
    """What a jump moves, in this order."""

    ROLLOUTS = "rollouts"
    UPDATES = "updates"
    DEVICES = "devices"


class Piece(NamedTuple):
    """Where a jump goes on.

    Attributes:
        part: what it moves next.
        after: number of the update, or identifier of the device, behind which it goes on; "" at the beginning.
    """

    part: Part
    after: str = ""


class Times(Protocol):
    """What moves with the clock, in pieces: each returns where it ended, None once nothing is left."""

    def move_updates(self, jump: Jump, now: float, after: int, limit: int) -> int | None:
        """Move the deadlines of updates after a number, and since when those wait that nothing was offered yet.

        What holds a device is looked at anew after a step back: it would hold until the clock is there again.
        """
        ...

    def move_devices(self, jump: Jump, now: float, after: str, limit: int) -> str | None:
        """Move when devices after an identifier were registered, changed and went away."""
        ...

    def move_outage(self, jump: Jump, now: float) -> None:
        """Move the begin of the outage that goes on."""
        ...

    def keep_jump(self, jump: Jump, following: Piece | None) -> None:
        """Keep how far the jump that is under way has come, in the place of what was kept; None: to its end."""
        ...

    def unfinished_jump(self) -> tuple[Jump, Piece] | None:
        """Return the jump that is under way, and where it goes on; None without one."""
        ...
