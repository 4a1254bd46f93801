"""The keysets that were taken."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Footing(NamedTuple):
    """The keyset that the daemon stood on last.

    Attributes:
        epoch: its version.
        digest: hash of what it says.
    """

    epoch: int
    digest: str


class Keysets(Protocol):
    """Keysets, and how each counts.

    Sequence numbers rise for ever; devices count from the beginning with each keyset. So a token says the number less
    the `base` of its epoch: the highest number that was given out before it. In a database that was restored it is a
    lower one, for devices may hold a keyset that the backup does not know, and must not hear a number twice.
    """

    def add_keyset(self, epoch: int, lines: bytes, now: float) -> None:
        """Store a keyset. Raises ConflictError if there is one of that epoch."""
        ...

    def keysets(self) -> list[tuple[int, bytes]]:
        """Return epoch and lines of all keysets, oldest first."""
        ...

    def keyset_taken_at(self) -> float:
        """Return when the last keyset was taken, 0 if none was."""
        ...

    def newest_epoch(self) -> int:
        """Return the epoch of the last keyset that was taken, 0 if none ever was."""
        ...

    def footing(self) -> Footing | None:
        """Return the keyset that the daemon stood on last, None before its first start."""
        ...

    def stand_on(self, footing: Footing, now: float) -> None:
        """Store which keyset the daemon stands on from now on."""
        ...

    def base(self, epoch: int) -> int:
        """Return the sequence number that an epoch counts from, 0 for the one that devices were made with."""
        ...

    def lowest_good_seq(self, now: float) -> int | None:
        """Return the lowest sequence number of a token that a device may still follow, None if there is none.

        Triggers of rollouts that were halted or aborted are not among them, nor is what was signed before the last
        keyset. Tokens that are being signed are: none of theirs is lower than what is returned.
        """
        ...

    def highest_seq(self) -> int:
        """Return the highest sequence number given out, 0 before the first."""
        ...
