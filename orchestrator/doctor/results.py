"""What a look at one thing gave: how bad it is, and what to do about it.

Rules:
- What could not be looked at is never taken for good: it has a level of its own, and says why.
- No text holds a secret.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How bad a result is; a larger number is worse."""

    OK = 0
    UNKNOWN = 1
    WARNING = 2
    FAULT = 3


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one look.

    Attributes:
        name: what was looked at, a stable word for machines.
        level: how bad it is.
        text: what was found.
        remedy: what to do about it, empty if it is well.
    """

    name: str
    level: Level
    text: str
    remedy: str = ""


def well(name: str, text: str) -> Result:
    """Return a result that asks for nothing."""
    return Result(name, Level.OK, text)


def unknown(name: str, text: str, remedy: str = "") -> Result:
    """Return that something could not be looked at, and why."""
    return Result(name, Level.UNKNOWN, text, remedy)


def warning(name: str, text: str, remedy: str) -> Result:
    """Return what works today and should not stay so."""
    return Result(name, Level.WARNING, text, remedy)


def fault(name: str, text: str, remedy: str) -> Result:
    """Return what has to be mended."""
    return Result(name, Level.FAULT, text, remedy)


def worst(results: Iterable[Result]) -> Level:
    """Return the worst level among results."""
    return max((result.level for result in results), default=Level.OK)
