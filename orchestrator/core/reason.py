"""Why something is as it is.

Rules:
- A code is for machines and never changes its meaning; a text is for a person and may.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something stands where it stands.

    Attributes:
        code: stable word.
        text: a sentence for a person.
    """

    code: str
    text: str


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: `1 device`, `2 devices`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def offered_more(count: int) -> str:
    """Return that so many further devices are offered the release, as a sentence without its end."""
    return f"{counted(count, 'more device')} {'is' if count == 1 else 'are'} offered the release"
