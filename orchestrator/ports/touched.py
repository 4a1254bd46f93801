"""What commits changed of what is answered from memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Touched:
    """What one commit changed.

    Attributes:
        devices: those of which something else changed than when they were seen, or what they said of themselves.
        due: those to which a poll may bring something now, and could not before.
        everyone: whether that may hold of any device.
    """

    devices: frozenset[str] = frozenset()
    due: frozenset[str] = frozenset()
    everyone: bool = False


class Watched(Protocol):
    """A store that tells what its commits changed."""

    def watch(self, listener: Callable[[Touched], None]) -> None:
        """Call a function after each commit that touched anything, before whoever asked for it hears of the commit.

        It is called in the writer's thread, and also where nobody knows whether a commit succeeded.
        """
        ...
