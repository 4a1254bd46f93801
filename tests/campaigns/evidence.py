"""When evidence must halt a rollout, and when a stage may not pass, worked out without the engine's own rules.

Rules:
- Only clear cases are judged: an e-value well beyond the limit, a bound by the definition of its interval.
- A stage that a person lets pass is not judged.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from orchestrator.core.model import RELAPSED, Phase, Rollout, TallyKey, Update, UpdateState
from tests.campaigns.reading import EXPOSED, FLYING, exposed, failures

CLEARLY = 1.5
"""An e-value so many times the limit must halt."""

SMALL_STAGE, MIDDLE_STAGE = 20, 100
_WORD_OF_A_PERSON = ("operator_advance", "operator_skip", "operator_resume")


def alarm(rollout: Rollout, tally: Mapping[TallyKey, int]) -> str | None:
    """Return what must have halted a rollout, None for nothing."""
    rule = rollout.plan.halt
    known = dict(tally)
    failed, seen = failures(known, rollout.epoch), exposed(known, rollout.epoch)
    threshold = (2 if rollout.strata > 1 else 1) * 2**rollout.epoch / rule.alpha
    value = e_value(failed.total(), seen.total(), rule.tolerated)
    if value >= CLEARLY * threshold:
        return f"the e-value of {failed.total()} in {seen.total()} is {value:.3g} of {threshold:.3g}"
    if rule.max_failures is not None and failed.total() >= rule.max_failures:
        return f"{failed.total()} failed of {rule.max_failures} that halt it"
    return _lost(rollout, tally)


def e_value(failed: int, seen: int, tolerated: float) -> float:
    """Return the mean of the likelihood ratios of rates of 2 to 32 times what is tolerated, at most 0.8 each."""
    rates = {min(0.8, tolerated * multiple) for multiple in (2, 4, 8, 16, 32)}
    passed = max(seen - failed, 0)
    ratios: list[float] = [(rate / tolerated) ** failed * ((1 - rate) / (1 - tolerated)) ** passed for rate in rates]
    return sum(ratios) / len(ratios)


def too_soon(
    at: int, rollout: Rollout, mine: Sequence[Update], tally: Mapping[TallyKey, int], asked_at: float | None
) -> str | None:
    """Return why a stage should not have passed, None if it may have.

    Args:
        at: the stage.
        rollout: the rollout after it.
        mine: its updates.
        tally: its tallies.
        asked_at: when the service that the stage asks, if it does, was asked last and said yes.
    """
    stage, plan = rollout.stages[at], rollout.plan
    held = {UpdateState.PENDING, UpdateState.RETRYING}
    if stage.hurried or stage.waived:
        return None
    if any(item.state in held for item in mine):
        return "devices wait"
    states = Counter(item.state for item in mine if item.stage == at)
    reached = sum(states[state] for state in EXPOSED)
    resolved = reached - sum(states[state] for state in FLYING)
    if resolved < plan.resolved_share * reached:
        return f"{resolved} of {reached} are resolved"
    if rollout.phase is Phase.DONE and any(item.state in FLYING for item in mine):
        return "devices are still under way"
    if states[UpdateState.UNREACHED] > plan.max_unreached * states.total():
        return f"{states[UpdateState.UNREACHED]} of {states.total()} were never reached"
    if stage.resolved_at is None or (stage.passed_at or 0.0) < stage.resolved_at + plan.stages[at].soak_s:
        return f"it was resolved at {stage.resolved_at} and soaks for {plan.stages[at].soak_s}"
    if plan.stages[at].approve:
        return "a person has to say so"
    soaked_at = stage.resolved_at + plan.stages[at].soak_s
    if (plan.stages[at].gate or plan.gate) and (asked_at is None or asked_at < soaked_at):
        return f"a service has to say so after {soaked_at}, and did at {asked_at}"
    return _unproven(rollout, at, tally)


def _unproven(rollout: Rollout, at: int, tally: Mapping[TallyKey, int]) -> str | None:
    limit = rollout.plan.stages[at].limit
    if limit is None:
        return None
    known = dict(tally)
    seen = exposed(known, rollout.epoch).total()
    failed = failures(known, rollout.epoch).total()
    failed += sum(count for key, count in tally.items() if key.epoch == rollout.epoch and key.state in FLYING)
    chance = sum(math.comb(seen, k) * limit**k * (1 - limit) ** (seen - k) for k in range(failed + 1))
    if chance > 1 - rollout.plan.confidence + 1e-9:
        return f"{failed} of {seen} do not prove a rate of {limit}"
    return None


def _lost(rollout: Rollout, tally: Mapping[TallyKey, int]) -> str | None:
    here = [(key, count) for key, count in tally.items() if (key.epoch, key.stage) == (rollout.epoch, rollout.stage)]
    lost = sum(count for key, count in here if key.state in (UpdateState.LOST, RELAPSED))
    size = max(
        sum(count for key, count in tally.items() if key.stage == rollout.stage and key.state in set(UpdateState)),
        rollout.current.target,
    )
    most = 1 if size <= SMALL_STAGE else 2 if size <= MIDDLE_STAGE else math.inf
    if rollout.plan.halt.lost_after_reboot and lost >= most:
        return f"{lost} of {size} were lost after the reboot"
    return None
