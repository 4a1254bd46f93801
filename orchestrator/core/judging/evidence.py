"""Who counts as what: from tallies to the numbers that the gate judges.

Rules:
- Only tallies are read, never devices; the cost depends on stages and strata, not on the fleet.
- For the halt: n is every exposed device of this evidence epoch, pending ones as successes; k its failures.
- For passing: everything unresolved counts as failed.
- Devices that never began (`unreached`, `refused`, `recalled`, `superseded`), or will try again, are no evidence.
- A failure after which a person gave the device another attempt stays a failure, whatever comes of it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from orchestrator.core.judging import gate
from orchestrator.core.model import MET, RELAPSED, RETRIED, Rollout, Tally, UpdateState
from orchestrator.core.update import FAILURES, IN_FLIGHT, NEUTRAL, RESOLVED, RETRIABLE, TRY_AGAIN

S = UpdateState

AGAIN = frozenset({RELAPSED, RETRIED})
"""Tally words for a failure beside the state that its device is counted in."""

EVENTS = AGAIN | {MET}
"""Tally words that stand beside the state that a device is counted in; no device is counted by them."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known for the halt, in total or in one stratum.

    Attributes:
        stratum: hardware model, or "" for the total.
        failures: k.
        exposed: n.
        e_value: e-value of k in n.
        threshold: e-value at which the rollout halts.
    """

    stratum: str
    failures: int
    exposed: int
    e_value: float
    threshold: float

    @property
    def halts(self) -> bool:
        """Whether this evidence halts the rollout."""
        return self.e_value >= self.threshold


@dataclass(frozen=True, slots=True)
class StageCounts:
    """The devices of one stage.

    Attributes:
        opened: devices taken into the stage.
        in_flight: holding a slot.
        reached: exposed devices, the basis of the resolved share.
        resolved: reached devices that gave their evidence.
        confirmed: of these, healthy.
        failures: of these, failed.
        unreached: never accepted.
    """

    opened: int
    in_flight: int
    reached: int
    resolved: int
    confirmed: int
    failures: int
    unreached: int


@dataclass(frozen=True, slots=True)
class Bound:
    """What is known for passing the current stage.

    Attributes:
        failures: k, unresolved devices included.
        exposed: n.
        upper: upper bound of the failure rate.
        limit: what the stage allows.
    """

    failures: int
    exposed: int
    upper: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the stage may pass."""
        return self.upper <= self.limit


def halt_evidence(rollout: Rollout, tally: Tally) -> tuple[Evidence, ...]:
    """Return the evidence in total, then per stratum where there is more than one.

    With one stratum both tests would be the same test, so the total takes the whole alpha; otherwise
    half of it goes to the total and half is shared by the strata. Each resume after a halt halves it.
    """
    rule = rollout.plan.halt
    alpha = rule.alpha / 2**rollout.epoch
    failures: defaultdict[str, int] = defaultdict(int)
    exposed: defaultdict[str, int] = defaultdict(int)
    for (epoch, _, stratum, state), count in tally.items():
        if epoch != rollout.epoch or state in NEUTRAL:
            continue
        if state in AGAIN or state in FAILURES:
            failures[stratum] += count
        if state not in AGAIN:
            exposed[stratum] += count
    split = rollout.strata > 1
    total = _evidence("", sum(failures.values()), sum(exposed.values()), rule.tolerated, (2 if split else 1) / alpha)
    if not split:
        return (total,)
    return (
        total,
        *(
            _evidence(stratum, failures[stratum], exposed[stratum], rule.tolerated, 2 * rollout.strata / alpha)
            for stratum in sorted(failures.keys() | exposed.keys())
        ),
    )


def stage_counts(tally: Tally, stage: int) -> StageCounts:
    """Return the counts of one stage over all strata and epochs."""
    opened = in_flight = resolved = confirmed = failures = unreached = 0
    for (_, of_stage, _, state), count in tally.items():
        if of_stage != stage or state in EVENTS:
            continue
        opened += count
        if state in IN_FLIGHT:
            in_flight += count
        elif state in RESOLVED:
            resolved += count
            confirmed += count if state == S.CONFIRMED else 0
            failures += count if state in FAILURES else 0
        elif state == S.UNREACHED:
            unreached += count
    return StageCounts(opened, in_flight, resolved + in_flight, resolved, confirmed, failures, unreached)


def lost(rollout: Rollout, tally: Tally) -> int:
    """Return how many devices of the current stage and epoch were lost after the reboot, or relapsed since."""
    epoch, stage = rollout.epoch, rollout.stage
    return sum(
        count
        for key, count in tally.items()
        if key.state in (S.LOST, RELAPSED) and key.epoch == epoch and key.stage == stage
    )


def confirmed(rollout: Rollout, tally: Tally, stratum: str = "") -> int:
    """Return how many devices of the present epoch are healthy, of one stratum or of all."""
    count = 0
    for key, number in tally.items():
        if key.epoch == rollout.epoch and stratum in ("", key.stratum):
            count += number if key.state == S.CONFIRMED else -number if key.state == RELAPSED else 0
    return max(count, 0)


def resolved(rollout: Rollout, tally: Tally) -> int:
    """Return how many devices of the present epoch are healthy or have failed; each once, whatever it was before."""
    shown = {S.CONFIRMED, *FAILURES}
    return sum(count for key, count in tally.items() if key.epoch == rollout.epoch and key.state in shown)


def in_flight(tally: Tally) -> int:
    """Return how many slots are taken, over all stages."""
    return sum(count for key, count in tally.items() if key.state in IN_FLIGHT)


def pending(tally: Tally) -> int:
    """Return how many devices of all opened stages wait for an offer."""
    return sum(count for key, count in tally.items() if key.state == S.PENDING)


def retrying(tally: Tally) -> int:
    """Return how many devices of all opened stages will try again by themselves."""
    return sum(count for key, count in tally.items() if key.state in TRY_AGAIN)


def retriable(tally: Tally) -> int:
    """Return how many devices failed and could be given another attempt by a person."""
    return sum(count for key, count in tally.items() if key.state in RETRIABLE)


def opened(tally: Tally) -> int:
    """Return how many devices all stages took so far."""
    return sum(count for key, count in tally.items() if key.state not in EVENTS)


def opened_by_stratum(tally: Tally) -> Counter[str]:
    """Return how many devices of each stratum all stages took so far."""
    found: Counter[str] = Counter()
    for key, count in tally.items():
        if key.state not in EVENTS:
            found[key.stratum] += count
    return found


def for_passing(rollout: Rollout, tally: Tally) -> tuple[Counter[str], Counter[str]]:
    """Return k and n of this epoch by stratum as passing counts them: everything unresolved has failed."""
    failures: Counter[str] = Counter()
    exposed: Counter[str] = Counter()
    for key, count in tally.items():
        if key.epoch != rollout.epoch or key.state in NEUTRAL:
            continue
        exposed[key.stratum] += count if key.state not in AGAIN else 0
        failures[key.stratum] += count if key.state not in (MET, S.CONFIRMED) else 0
    return failures, exposed


def stage_bound(rollout: Rollout, tally: Tally) -> Bound:
    """Return the bound that the current stage must meet, on all evidence of this epoch."""
    by_stratum = for_passing(rollout, tally)
    failures, exposed = by_stratum[0].total(), by_stratum[1].total()
    limit = rollout.plan.stages[rollout.stage].limit
    confidence = rollout.plan.confidence
    if limit is None:
        planned = sum(stage.base for stage in rollout.stages[: rollout.stage + 1])
        limit = gate.default_limit(planned, confidence)
    return Bound(failures, exposed, gate.upper_bound(failures, exposed, confidence), limit)


def _evidence(stratum: str, failures: int, exposed: int, tolerated: float, threshold: float) -> Evidence:
    return Evidence(stratum, failures, exposed, gate.e_value(failures, exposed, tolerated), threshold)
