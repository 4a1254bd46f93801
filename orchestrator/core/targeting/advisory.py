"""What a rollout mends: how bad it is, under which advisories it is known, and which devices still have it.

Rules:
- An advisory is known by its CVE or GHSA number; both have a form that can be checked, and no other is taken.
- Vulnerable is what runs an older release than the one that mends it. What a device never said is not known: it is
  neither vulnerable nor mended.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

MAX_ADVISORIES = 16
ADVISORY = r"^(CVE-[0-9]{4}-[0-9]{4,19}|GHSA(-[23456789cfghjmpqrvwx]{4}){3})$"
_ADVISORY = re.compile(ADVISORY)


class Severity(StrEnum):
    """How bad it is for devices to stay without the release."""

    NONE = "none"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Vulnerable:
    """Which devices are vulnerable.

    Attributes:
        below: release counter by hardware model; a device of it that runs less is vulnerable.
        below_any: the same for every model, None for none.
    """

    below: Mapping[str, int] = field(default_factory=dict)
    below_any: int | None = None


def is_advisory(text: str) -> bool:
    """Say whether a text is the number of an advisory."""
    return _ADVISORY.fullmatch(text) is not None


def told(severity: Severity, advisories: Sequence[str], fixes_below: int | None) -> dict[str, object]:
    """Return what a plan mends, for the record; nothing where it says nothing."""
    said: dict[str, object] = {}
    if severity is not Severity.NONE:
        said["severity"] = severity.value
    if advisories:
        said["advisories"] = list(advisories)
    if fixes_below is not None:
        said["fixes_below"] = fixes_below
    return said
