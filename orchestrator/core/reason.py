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
