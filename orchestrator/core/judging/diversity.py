"""Which strata are green, healthy by themselves, and whether they are enough for a stage to pass.

Rules:
- A stratum is counted as the stage is: all evidence of this epoch, everything unresolved as failed.
- Green is a stratum with enough healthy devices and no more failures than a stage of its own size may have: by the
  limit of the present stage, or by the default limit of that size where that is what so few devices can show.
- It is asked before a stage passes, and never halts. A stratum too small to be green is missing like any other: whoever
  asked for its witness decides to go without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.judging import evidence, gate
from orchestrator.core.judging.evidence import EVENTS
from orchestrator.core.model import Plan, Reason, Rollout, Tally, UpdateState
from orchestrator.core.update import RESOLVED

LEAST_HEALTHY = 3
"""Healthy devices that a green stratum has at least."""

WITHOUT_THEM = (
    f"a stratum in which fewer than {LEAST_HEALTHY} devices are left to show it stays so: "
    "`ota rollout resume` passes this stage without it, and a smaller evidence.strata (`ota rollout edit`) the others"
)


@dataclass(frozen=True, slots=True)
class Stratum:
    """What is known of one stratum.

    Attributes:
        name: hardware model, or what else the plan stratifies by.
        healthy: devices that are healthy.
        failures: k, unresolved devices included.
        exposed: n.
        allowed: failures that a stage of so many devices may have.
    """

    name: str
    healthy: int
    failures: int
    exposed: int
    allowed: int

    @property
    def is_green(self) -> bool:
        """Whether it is healthy by itself."""
        return self.healthy >= LEAST_HEALTHY and self.failures <= self.allowed


def needed(rollout: Rollout) -> int:
    """Return how many strata must be green before the current stage passes, 0 where the plan does not ask."""
    return min(rollout.plan.evidence.strata, rollout.strata)


def too_few(plan: Plan, strata_known: int, taken: Mapping[str, int]) -> str:
    """Return why a stage must ask a person however healthy its devices are, "" where they may be enough.

    Args:
        plan: the plan.
        strata_known: over how many strata the evidence is split.
        taken: devices that the stage and those before it take, by stratum.
    """
    wanted = min(plan.evidence.strata, strata_known)
    could = sum(count >= LEAST_HEALTHY for count in taken.values())
    if could >= wanted:
        return ""
    small = [f"{name} has {count}" for name, count in sorted(taken.items()) if count < LEAST_HEALTHY]
    lacks = ", ".join(small) or "no device of another is taken"
    return (
        f"{wanted} strata must be healthy by themselves, each with {LEAST_HEALTHY} devices or more, and {could} can "
        f"be: {lacks}; however healthy they are, this stage asks a person unless it is extended"
    )


def hopeless(rollout: Rollout, tally: Tally) -> str:
    """Return why the current stage will ask a person whatever the rest of its devices shows, "" where it may not."""
    if rollout.current.waived or evidence.stage_counts(tally, rollout.stage).opened < rollout.current.target:
        return ""
    left: Counter[str] = Counter()
    for key, count in tally.items():
        shown_before = key.epoch != rollout.epoch and key.state in RESOLVED
        if key.state not in EVENTS and key.state != UpdateState.SUPERSEDED and not shown_before:
            left[key.stratum] += count
    return too_few(rollout.plan, rollout.strata, left)


def strata(rollout: Rollout, tally: Tally) -> tuple[Stratum, ...]:
    """Return what is known of each stratum that devices were taken of. The cohort must be known."""
    failures, exposed = evidence.for_passing(rollout, tally)
    limit, confidence = evidence.stage_bound(rollout, tally).limit, rollout.plan.confidence
    return tuple(
        Stratum(
            name,
            evidence.confirmed(rollout, tally, name),
            failures[name],
            exposed[name],
            _allowed(exposed[name], limit, confidence),
        )
        for name in sorted({key.stratum for key, count in tally.items() if count})
    )


def _allowed(exposed: int, limit: float, confidence: float) -> int:
    return gate.failures_allowed(exposed, max(limit, gate.default_limit(exposed, confidence)), confidence)


def lacking(rollout: Rollout, tally: Tally) -> Reason | None:
    """Return which strata are not green although the current stage needs more of them, None if they are enough."""
    wanted = needed(rollout)
    if not wanted:
        return None
    found = strata(rollout, tally)
    green = sum(item.is_green for item in found)
    if green >= wanted:
        return None
    others = "; ".join(_sentence(item) for item in found if not item.is_green) or "no device of another was taken"
    return Reason(
        "strata", f"of the {wanted} strata that must be healthy by themselves {green} are; {others}; {WITHOUT_THEM}"
    )


def _sentence(item: Stratum) -> str:
    """Return in words what keeps a stratum from being green."""
    healthy = f"{item.name}: {item.healthy} healthy, at least {LEAST_HEALTHY} needed"
    return f"{healthy}, and {item.failures} of {item.exposed} failed or not resolved, at most {item.allowed} allowed"
