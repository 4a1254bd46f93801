"""What would change the verdict: how many more failures halt a rollout, how many more healthy devices let it pass.

Rules:
- The numbers are asked from the functions that judge (`core.judging.gate`), so that nobody is told what does not hold.
- For the halt the exposed devices are those of now: a device that is offered the release later changes the answer.
- For passing, a device that is still under way counts as neither: it may become the failure or the proof.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.judging import evidence, gate
from orchestrator.core.judging.evidence import AGAIN, Evidence
from orchestrator.core.model import MET, Rollout, Tally, UpdateState
from orchestrator.core.update import FAILURES, NEUTRAL


@dataclass(frozen=True, slots=True)
class ToHalt:
    """How far evidence is from halting.

    Attributes:
        evidence: what is known.
        halts_at: failures among these devices that halt; None where so few devices cannot.
        more: failures that are missing until then.
    """

    evidence: Evidence
    halts_at: int | None
    more: int | None


@dataclass(frozen=True, slots=True)
class ToPass:
    """How far the current stage is from a bound within its limit.

    Attributes:
        failures: devices that failed, in this evidence epoch.
        confirmed: devices that are healthy.
        under_way: devices that may become either.
        needed: devices that must have shown how they are, with no further failure; None where none are enough.
        more: healthy devices that are missing until then.
    """

    failures: int
    confirmed: int
    under_way: int
    needed: int | None
    more: int | None


def to_halt(rollout: Rollout, tally: Tally) -> tuple[ToHalt, ...]:
    """Return how far the evidence is from halting, in total, then per stratum where there is more than one."""
    return tuple(_to_halt(item, rollout.plan.halt.tolerated) for item in evidence.halt_evidence(rollout, tally))


def to_pass(rollout: Rollout, tally: Tally) -> ToPass:
    """Return how far the current stage is from a bound within its limit. The cohort must be known."""
    shown = again = confirmed = under_way = 0
    for key, count in tally.items():
        if key.epoch != rollout.epoch or key.state in NEUTRAL:
            continue
        if key.state == MET:
            under_way += count  # like one that holds a slot: it is exposed, and may still become healthy
        elif key.state in AGAIN:
            again += count
        elif key.state in FAILURES:
            shown += count
        elif key.state == UpdateState.CONFIRMED:
            confirmed += count
        else:
            under_way += count
    limit = evidence.stage_bound(rollout, tally).limit
    failures = shown + again
    needed = gate.devices_needed(failures, limit, rollout.plan.confidence)
    more = None if needed is None else max(needed - shown - confirmed, 0)
    return ToPass(failures, confirmed, under_way, needed, more)


def _to_halt(found: Evidence, tolerated: float) -> ToHalt:
    least = gate.least_failures_to_halt(max(found.exposed, 1), tolerated, found.threshold)
    return ToHalt(found, least, None if least is None else max(least - found.failures, 0))
