"""What the evidence and the time ask of a rollout: to halt, to offer, to wait, to extend a stage, to pass it, to ask.

Rules:
- No function sees the fleet: decisions read the rollout, its tallies and `now`.
- A phase that is not running offers nothing. Evidence halts a paused rollout as well.
- Missing data holds: nothing here turns silence into progress.
- What halts is asked before what offers or passes.
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.judging import diversity, evidence, gate
from orchestrator.core.judging import outside as service
from orchestrator.core.judging.evidence import Bound, Evidence, StageCounts
from orchestrator.core.judging.outside import CALM, Answer, Outside, ServiceGate
from orchestrator.core.model import DAEMON, Phase, Plan, Reason, Rollout, SizeKind, Stage, Tally, Urgency
from orchestrator.core.pace import ramp
from orchestrator.core.reason import counted, offered_more
from orchestrator.core.rollout import JUDGED, Decision, Offer, Open, Prepare, Recall, VoidQueued, move

RAMP_START = 10
"""Slots a stage begins with; more are earned by confirmed devices."""

ASKS = "manual_gate"
"""Code of the reason of a rollout whose gate asks a person."""

RAMP = "ramp"
"""Code of the reason of a rollout that waits for its ramp."""

LARGEST_EXTENSION = 3
"""A stage is extended to at most this multiple of its planned size."""


def step(rollout: Rollout, tally: Tally, now: float, *, hearing: bool = True, outside: Outside = CALM) -> Decision:
    """Decide what evidence and time ask for.

    Args:
        rollout: the rollout as it stands.
        tally: all its tallies.
        now: present time.
        hearing: whether devices can reach the daemon; if not, nothing is offered and nothing passes,
            because missing reports would look like health.
        outside: what is known besides: the answer of a service, an outage.
    """
    if rollout.phase is Phase.PREPARING:
        return Decision(rollout, (Prepare(),), Reason("preparing", "the cohort is being counted"))
    if rollout.phase not in JUDGED or not rollout.stages:
        return Decision(rollout, (), rollout.reason)
    counts = evidence.stage_counts(tally, rollout.stage)
    answer = outside.answer
    alarm = _alarm(rollout, tally, counts) or service.alarm(gate_of(rollout), answer, rollout.stage, rollout.moved_at)
    if alarm is not None:
        halted = move(rollout, Phase.HALTED, alarm, DAEMON, now)
        return Decision(halted, (VoidQueued(), Recall()), alarm)
    if rollout.phase is not Phase.RUNNING:
        return Decision(rollout, (), rollout.reason)
    if not hearing:
        return Decision(rollout, (), Reason("deaf", "the way to the devices is broken; the rollout holds"))
    if outside.outage is not None:
        return Decision(rollout, (), outside.outage.reason)
    return _progress(rollout, tally, counts, answer, now)


def slots(plan: Plan, confirmed: int) -> int:
    """Return how many devices may be in flight in a stage with so many confirmed."""
    return min(plan.in_flight, max(RAMP_START, confirmed))


def gate_of(rollout: Rollout) -> ServiceGate | None:
    """Return the service that the current stage asks before it passes, None if it asks none."""
    return rollout.plan.stages[rollout.stage].gate or rollout.plan.gate


def soak_s(rollout: Rollout) -> float:
    """Return how long the current stage must stay healthy once it is resolved; an emergency waits for no soak."""
    return 0.0 if rollout.plan.urgency is Urgency.EMERGENCY else rollout.plan.stages[rollout.stage].soak_s


def lost_limit(rollout: Rollout, counts: StageCounts) -> int | None:
    """Return how many devices lost after the reboot halt the current stage at once; None where no number does."""
    if not rollout.plan.halt.lost_after_reboot:
        return None
    return gate.lost_limit(max(counts.opened, rollout.current.target))


def started(rollout: Rollout, count: int, now: float) -> Rollout:
    """Return the rollout after so many more devices were offered the release."""
    climb = _climb(rollout, now)
    if rollout.plan.ramp is None or climb is None or not count:
        return rollout
    return rollout.with_current(replace(rollout.current, climb=ramp.start(rollout.plan.ramp, climb, count, now)))


def _alarm(rollout: Rollout, tally: Tally, counts: StageCounts) -> Reason | None:
    rule = rollout.plan.halt
    found = evidence.halt_evidence(rollout, tally)
    worst = next((item for item in found if item.halts), None)
    if worst is not None:
        return Reason("evidence", _evidence_text(worst, rule.tolerated))
    limit = lost_limit(rollout, counts)
    lost = evidence.lost(rollout, tally)
    if limit is not None and lost >= limit:
        text = f"{lost} of {counts.opened} devices of this stage were lost after the reboot; {limit} halt it"
        return Reason("lost_after_reboot", text)
    return _plain_alarm(rollout, found[0], tally)


def _plain_alarm(rollout: Rollout, total: Evidence, tally: Tally) -> Reason | None:
    rule = rollout.plan.halt
    if rule.max_failures is not None and total.failures >= rule.max_failures:
        return Reason(
            "max_failures", f"{counted(total.failures, 'failure')}; the plan allows fewer than {rule.max_failures}"
        )
    if rule.max_failure_rate is not None:
        resolved = max(evidence.resolved(rollout, tally), total.failures)  # who failed may be trying again
        if resolved >= rule.min_sample and total.failures >= rule.max_failure_rate * resolved:
            text = f"{total.failures} of {resolved} failed; the plan allows less than {rule.max_failure_rate:.1%}"
            return Reason("max_failure_rate", text)
    return None


def _evidence_text(item: Evidence, tolerated: float) -> str:
    where = f" on {item.stratum}" if item.stratum else ""
    return (
        f"{item.failures} failed of {item.exposed} devices{where}: the evidence against a failure rate of at most "
        f"{tolerated:.2%} is {item.e_value:.3g}, the limit {item.threshold:.3g}"
    )


def _progress(rollout: Rollout, tally: Tally, counts: StageCounts, answer: Answer | None, now: float) -> Decision:
    stage = rollout.current
    if rollout.leaves_stage:
        return _next_stage(rollout, now, rollout.reason)
    if _is_empty(stage) and not rollout.is_in_last_stage:
        return _next_stage(rollout, now, Reason("passed", "no devices are left for this stage"))
    if counts.opened < stage.target:
        missing = stage.target - counts.opened
        return Decision(rollout, (Open(missing),), Reason("opening", f"{counted(missing, 'device')} being taken in"))
    if stage.opened_at is None:
        rollout = rollout.with_current(replace(stage, opened_at=now))
    free = slots(rollout.plan, counts.confirmed) - evidence.in_flight(tally)
    waiting = evidence.pending(tally)
    if waiting and free > 0:
        return _offer(rollout, min(free, waiting), now)
    if waiting:
        text = f"{counted(waiting, 'device')} waiting for a slot; {evidence.in_flight(tally)} in flight"
        return Decision(rollout, (), Reason("slots_taken", text))
    if later := evidence.retrying(tally):
        return Decision(
            rollout,
            (),
            Reason("retrying", f"{counted(later, 'device')} gave up for a passing reason and will try again"),
        )
    return _judge(rollout, tally, counts, answer, now)


def _offer(rollout: Rollout, count: int, now: float) -> Decision:
    """Offer the release to so many devices, or to as many as may start now."""
    limit, climb = rollout.plan.ramp, _climb(rollout, now)
    if limit is not None and climb is not None:
        room = ramp.room(limit, climb, now)
        if not room:
            text = f"{counted(count, 'device')} waiting for the ramp; {ramp.allowed(limit, climb)} may start per minute"
            return Decision(rollout, (), Reason(RAMP, text), ramp.opens_at(limit, climb, now))
        count = min(count, room)
    return Decision(rollout, (Offer(count),), Reason("offering", offered_more(count)))


def _climb(rollout: Rollout, now: float) -> ramp.Climb | None:
    """Return how far the current stage has come on its ramp, None without one."""
    stage = rollout.current
    if rollout.plan.ramp is None:
        return None
    began_at = now if stage.opened_at is None else stage.opened_at
    return ramp.climbed(rollout.plan.ramp, stage.climb or ramp.Climb(began_at), now)


def _judge(rollout: Rollout, tally: Tally, counts: StageCounts, answer: Answer | None, now: float) -> Decision:
    plan, stage = rollout.plan, rollout.current
    if stage.hurried and not evidence.in_flight(tally):
        return _next_stage(rollout, now, rollout.reason)
    if counts.resolved < plan.resolved_share * counts.reached:
        text = f"{counts.reached - counts.resolved} of {counts.reached} devices have not given their evidence yet"
        rollout = rollout if stage.resolved_at is None else rollout.with_current(replace(stage, resolved_at=None))
        return Decision(rollout, (), Reason("unresolved", text))
    if stage.resolved_at is None:
        rollout = rollout.with_current(replace(stage, resolved_at=now))
    resolved_at = rollout.current.resolved_at
    assert resolved_at is not None
    soaked_at = resolved_at + soak_s(rollout)
    if now < soaked_at:
        return Decision(rollout, (), Reason("soaking", "the stage is healthy and soaks"), soaked_at)
    if rollout.is_in_last_stage and evidence.in_flight(tally):
        return Decision(
            rollout, (), Reason("finishing", f"{counted(evidence.in_flight(tally), 'device')} still updating")
        )
    if stage.waived:
        return _pass(rollout, rollout.reason, answer, soaked_at, now)
    if counts.opened and counts.unreached > plan.max_unreached * counts.opened:
        allowed = f"the plan allows {plan.max_unreached:.0%}"
        text = f"{counts.unreached} of {counts.opened} devices were never reached; {allowed}"
        return _ask(rollout, Reason("unreached", text), now)
    bound = evidence.stage_bound(rollout, tally)
    if not bound.holds and not _is_empty(stage):
        return _extend(rollout, tally, bound, now)
    lacking = None if _is_empty(stage) else diversity.lacking(rollout, tally)
    if lacking is not None:
        return _unresolved(rollout, tally) or _ask(rollout, lacking, now)
    return _pass(rollout, Reason("passed", _bound_text(bound)), answer, soaked_at, now)


def _is_empty(stage: Stage) -> bool:
    """Say whether a stage asks for no device, and not only found none that it may take."""
    return stage.target == 0 and not stage.drained


def _pass(rollout: Rollout, why: Reason, answer: Answer | None, since: float, now: float) -> Decision:
    """Pass a stage whose evidence is enough, unless a service or a person has still to say so."""
    held = service.holds(gate_of(rollout), answer, rollout.stage, since, now)
    if held is None and rollout.plan.stages[rollout.stage].approve:
        held = Reason(ASKS, f"{why.text}; the plan wants a person to say so too: `ota rollout advance`")
    return _next_stage(rollout, now, why) if held is None else Decision(rollout, (), held)


def _unresolved(rollout: Rollout, tally: Tally) -> Decision | None:
    """Wait for the devices that may still show how they are, None if there are none."""
    under_way = evidence.in_flight(tally)
    why = Reason("unresolved", f"{counted(under_way, 'device')} still updating")
    return Decision(rollout, (), why) if under_way else None


def _extend(rollout: Rollout, tally: Tally, bound: Bound, now: float) -> Decision:
    if (waits := _unresolved(rollout, tally)) is not None:
        return waits
    stage = rollout.current
    if stage.drained:
        text = f"{_bound_text(bound)}; the devices that are left were registered too late for any but the last stage"
        return _ask(rollout, Reason("inconclusive", text), now)
    needed = gate.devices_needed(bound.failures, bound.limit, rollout.plan.confidence)
    if rollout.plan.stages[rollout.stage].group:
        text = f"{_bound_text(bound)}; a stage of a group is not extended"
        return _ask(rollout, Reason("inconclusive", text), now)
    more = None if needed is None else max(needed - bound.exposed, 1)
    left = (rollout.cohort_size or 0) - evidence.opened(tally)
    if more is None or more > left or stage.target + more > LARGEST_EXTENSION * stage.base:
        text = f"{_bound_text(bound)}; {more if more is not None else 'no number of'} more devices would be needed"
        return _ask(rollout, Reason("inconclusive", text), now)
    longer = replace(stage, target=stage.target + more, resolved_at=None)
    why = Reason("extended", f"{_bound_text(bound)}; {more} more devices can settle it")
    return Decision(rollout.with_current(longer), (Open(more),), why)


def _next_stage(rollout: Rollout, now: float, why: Reason) -> Decision:
    actor = rollout.actor if rollout.current.waived else DAEMON
    passed = replace(rollout.with_current(replace(rollout.current, passed_at=now)), actor=actor)
    if rollout.is_in_last_stage:
        return Decision(move(passed, Phase.DONE, why, actor, now), (VoidQueued(),), why)
    onward = replace(passed, stage=rollout.stage + 1)
    left = (rollout.cohort_size or 0) - sum(stage.target for stage in onward.stages[: onward.stage])
    takes_rest = rollout.plan.stages[onward.stage].kind is SizeKind.REST and not rollout.plan.stages[onward.stage].group
    target = max(left if takes_rest else min(onward.current.base, left), 0)
    return Decision(onward.with_current(replace(onward.current, target=target)), (), why, now)


def _ask(rollout: Rollout, why: Reason, now: float) -> Decision:
    return Decision(move(rollout, Phase.INCONCLUSIVE, why, DAEMON, now), (VoidQueued(),), why)


def _bound_text(bound: Bound) -> str:
    return (
        f"{counted(bound.failures, 'device')} failed or not resolved of {bound.exposed} prove "
        f"a failure rate of at most {bound.upper:.1%}; this stage allows {bound.limit:.1%}"
    )
