"""What a device measures of itself against the bounds of the plan: a healthy word with a sick number is a failure.

Rules:
- Each device is judged alone, on each word that carries numbers: with one number out of its bound it has failed.
  So the gate judges sick devices with the same stated error rates as broken ones.
- A bound is strict: what must be below 80 is sick at 80.
- A number that is not said is judged once the device says that it is healthy, and only where the plan demands it.
- A device that is sick after it was healthy relapses, as with any failure after confirmation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

UNHEALTHY = "unhealthy"
METRIC_MISSING = "metric_missing"


class Side(StrEnum):
    """On which side of its bound a number is well."""

    BELOW = "below"
    ABOVE = "above"


class Missing(StrEnum):
    """What follows where a device does not say a number."""

    IGNORE = "ignore"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class HealthRule:
    """What one number of every device must be.

    Attributes:
        metric: its name.
        side: where it is well.
        bound: the number that it must not reach.
        missing: what holds for a device that does not say it.
    """

    metric: str
    side: Side
    bound: float
    missing: Missing = Missing.IGNORE


def fault(rules: Sequence[HealthRule], metrics: Mapping[str, float], *, final: bool) -> str:
    """Return the code with which a device failed, "" if it is well.

    Args:
        rules: what the plan demands.
        metrics: what the device says.
        final: whether it says that it is healthy, so that nothing more is waited for.
    """
    said = [rule for rule in rules if rule.metric in metrics]
    if any(not is_well(rule, metrics[rule.metric]) for rule in said):
        return UNHEALTHY
    unsaid = final and any(rule.missing is Missing.FAIL for rule in rules if rule.metric not in metrics)
    return METRIC_MISSING if unsaid else ""


def is_well(rule: HealthRule, number: float) -> bool:
    """Say whether a number is within its bound."""
    return number < rule.bound if rule.side is Side.BELOW else number > rule.bound
