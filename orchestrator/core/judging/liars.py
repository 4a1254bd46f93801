"""How many lies a gate rests on: devices that say they are healthy and are not.

Rules:
- A lie is a confirmation that is in truth a failure: it is put to the other side, and the gate judged again.
- Exact: the numbers are the least ones, by the same arithmetic that decides; the rest is what nobody can know.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.judging import diversity, evidence, gate
from orchestrator.core.judging.diversity import LEAST_HEALTHY, Stratum
from orchestrator.core.judging.evidence import Bound
from orchestrator.core.model import Rollout, Tally


@dataclass(frozen=True, slots=True)
class Liars:
    """What it takes to be deceived.

    Attributes:
        confirmed: confirmations that count in this evidence epoch.
        unpass: so many of them must be lies for a stage that may pass to be one that may not; None if its bound does
            not hold now or too few strata are green, or if it would pass all the same.
        unhalt: so many of them must be lies for a rollout that goes on to be one that should have halted by evidence;
            None if it would go on all the same.
    """

    confirmed: int
    unpass: int | None
    unhalt: int | None


def liars(rollout: Rollout, tally: Tally) -> Liars:
    """Return how many lies would flip the gate of the current stage, and the halt.

    Args:
        rollout: a rollout whose cohort is known.
        tally: all its tallies.
    """
    confirmed = evidence.confirmed(rollout, tally)
    return Liars(confirmed, _to_unpass(rollout, tally, confirmed), _to_unhalt(rollout, tally))


def _to_unpass(rollout: Rollout, tally: Tally, confirmed: int) -> int | None:
    bound = evidence.stage_bound(rollout, tally)
    if not bound.holds or diversity.lacking(rollout, tally) is not None:
        return None
    counts = (_to_break(bound, rollout.plan.confidence, confirmed), _to_discolour(rollout, tally))
    return min((count for count in counts if count is not None), default=None)


def _to_break(bound: Bound, confidence: float, confirmed: int) -> int | None:
    """Return with how many lies a bound that holds would not hold."""
    if gate.upper_bound(bound.failures + confirmed, bound.exposed, confidence) <= bound.limit:
        return None
    holds, breaks = 0, confirmed
    while breaks - holds > 1:
        middle = (holds + breaks) // 2
        if gate.upper_bound(bound.failures + middle, bound.exposed, confidence) <= bound.limit:
            holds = middle
        else:
            breaks = middle
    return breaks


def _to_discolour(rollout: Rollout, tally: Tally) -> int | None:
    """Return with how many lies too few strata would be green: the cheapest ones are lied about, each by itself."""
    wanted = diversity.needed(rollout)
    if not wanted:
        return None
    costs = sorted(_cost(item) for item in diversity.strata(rollout, tally) if item.is_green)
    return sum(costs[: len(costs) - wanted + 1])


def _cost(green: Stratum) -> int:
    return min(green.healthy - LEAST_HEALTHY, green.allowed - green.failures) + 1


def _to_unhalt(rollout: Rollout, tally: Tally) -> int | None:
    found = evidence.halt_evidence(rollout, tally)
    if any(item.halts for item in found):
        return None
    needed = [
        _lies(item, rollout.plan.halt.tolerated, evidence.confirmed(rollout, tally, item.stratum)) for item in found
    ]
    return min((count for count in needed if count is not None), default=None)


def _lies(item: evidence.Evidence, tolerated: float, confirmed: int) -> int | None:
    least = gate.least_failures_to_halt(item.exposed, tolerated, item.threshold)
    return None if least is None or least - item.failures > confirmed else least - item.failures


def sentences(found: Liars) -> list[str]:
    """Return in words what it takes to be deceived."""
    said = []
    if found.unpass is not None:
        said.append(f"its stage would not pass if {_of(found.unpass, found.confirmed)} were lies")
    if found.unhalt is not None:
        said.append(f"it would have halted if {_of(found.unhalt, found.confirmed)} were lies")
    return said


def _of(count: int, confirmed: int) -> str:
    return f"{count} of the {confirmed} confirmations"
