"""Whether a device can begin now: what its trigger asks of it, and what it asks of itself.

Rules:
- It is judged by what is so now, whatever the device told the daemon before.
- What a device cannot know of itself is not asked of it: whoever signed the trigger decided about that.
- The first code found is the answer; the one that never changes comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.wire.report import OwnFacts


def unfit(facts: OwnFacts, policy: Mapping[str, Any], size_bytes: int, least_battery_pct: int = 0) -> str:
    """Return the code of why a device cannot begin, "" if it can.

    Args:
        facts: its condition now.
        policy: `pol` of the verified trigger, empty if it has none.
        size_bytes: size of the artifact.
        least_battery_pct: charge below which the device itself refuses, whatever it is asked for.
    """
    if facts.slot is not None and size_bytes > facts.slot * 9 // 10:
        return "too_large"
    if facts.bat is not None and facts.bat < least_battery_pct:
        return "low_battery"
    return (
        _power(facts, policy) or _room(facts, policy, size_bytes) or _connection(facts, policy) or _age(facts, policy)
    )


def _power(facts: OwnFacts, policy: Mapping[str, Any]) -> str:
    if facts.charging:
        return ""
    if facts.bat is not None and facts.bat < policy.get("bat", 0):
        return "low_battery"
    return "not_charging" if facts.charging is False and "chg" in policy else ""


def _room(facts: OwnFacts, policy: Mapping[str, Any], size_bytes: int) -> str:
    needed = size_bytes + policy.get("free", 0)
    return "no_space" if facts.free is not None and facts.free < needed else ""


def _connection(facts: OwnFacts, policy: Mapping[str, Any]) -> str:
    wrong = facts.link is not None and facts.link not in policy.get("link", (facts.link,))
    return "link_unsuitable" if wrong or (facts.metered and "unm" in policy) else ""


def _age(facts: OwnFacts, policy: Mapping[str, Any]) -> str:
    return "just_booted" if facts.uptime is not None and facts.uptime < policy.get("up", 0) else ""
