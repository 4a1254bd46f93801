"""The keysets that were taken."""

from __future__ import annotations

from typing import Protocol


class Keysets(Protocol):
    """Keysets, and how each counts.

    Sequence numbers rise for ever; devices count from the beginning with each keyset. So a token says the number less
    the `base` of its epoch: the highest number that was given out before it.
    """

    def add_keyset(self, epoch: int, lines: bytes, now: float) -> None:
        """Store a keyset. Raises ConflictError if there is one of that epoch."""
        ...

    def keysets(self) -> list[tuple[int, bytes]]:
        """Return epoch and lines of all keysets, oldest first."""
        ...

    def newest_epoch(self) -> int:
        """Return the epoch of the last keyset that was taken, 0 if none ever was."""
        ...

    def base(self, epoch: int) -> int:
        """Return the highest sequence number given out before an epoch, 0 for the one that devices were made with."""
        ...

    def lowest_good_seq(self, now: float) -> int | None:
        """Return the lowest sequence number of a token that a device may still follow, None if there is none.

        Triggers of rollouts that were halted or aborted are not among them.
        """
        ...

    def highest_seq(self) -> int:
        """Return the highest sequence number given out, 0 before the first."""
        ...
