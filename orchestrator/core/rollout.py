"""One rollout: phases as a table, and the decision what to do next.

Rules:
- `operate` (a person) and `step` (evidence and time) both answer with a `Decision`; an automatic halt
  and an operator's halt are the same move and have the same effects.
- No function sees the fleet: decisions read the rollout, its tallies and `now`.
- A phase that is not running offers nothing. Evidence halts a paused rollout as well.
- Missing data holds: nothing here turns silence into progress.
- Every decision says why, also the decision to wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from orchestrator.core import cohort, evidence, gate, ramp
from orchestrator.core import outside as service
from orchestrator.core.evidence import Bound, Evidence, StageCounts
from orchestrator.core.model import Phase, Plan, Reason, Rollout, SizeKind, Stage, Tally, Urgency
from orchestrator.core.outside import CALM, Answer, Outside, ServiceGate
from orchestrator.errors import ConflictError, RequestError

RAMP_START = 10
"""Slots a stage begins with; more are earned by confirmed devices."""

RAMP = "ramp"
"""Code of the reason of a rollout that waits for its ramp."""

LARGEST_EXTENSION = 3
"""A stage is extended to at most this multiple of its planned size."""


class Command(StrEnum):
    """What a person may do to a rollout."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    HALT = "halt"
    ABORT = "abort"
    RETRY = "retry"
    ADVANCE = "advance"
    SKIP = "skip"


P = Phase
C = Command

TABLE: dict[Phase, dict[Command, Phase]] = {
    P.DRAFT: {C.START: P.PREPARING, C.ABORT: P.ABORTED},
    P.PREPARING: {C.PAUSE: P.PAUSED, C.HALT: P.HALTED, C.ABORT: P.ABORTED},
    P.RUNNING: {C.PAUSE: P.PAUSED, C.HALT: P.HALTED, C.ABORT: P.ABORTED},
    P.PAUSED: {C.RESUME: P.RUNNING, C.HALT: P.HALTED, C.ABORT: P.ABORTED},
    P.HALTED: {C.RESUME: P.RUNNING, C.ABORT: P.ABORTED},
    P.INCONCLUSIVE: {C.RESUME: P.RUNNING, C.HALT: P.HALTED, C.ABORT: P.ABORTED},
    P.DONE: {},
    P.ABORTED: {},
}
"""Every legal move; `RUNNING` means `PREPARING` while the cohort is not known."""

WITHIN: dict[Command, frozenset[Phase]] = {
    C.RETRY: frozenset({P.RUNNING, P.PAUSED, P.HALTED, P.INCONCLUSIVE}),
    C.ADVANCE: frozenset({P.RUNNING}),
    C.SKIP: frozenset({P.RUNNING}),
}
"""Commands that change something without a move, and the phases in which they can."""

JUDGED = frozenset({P.RUNNING, P.PAUSED, P.INCONCLUSIVE})
"""Phases in which evidence can halt."""

FINISHED = frozenset({P.DONE, P.ABORTED})
"""Phases that are never left."""

_RESULT = {C.START: (P.PREPARING, P.RUNNING), C.PAUSE: (P.PAUSED,), C.RESUME: (P.RUNNING, P.PREPARING)}
_RESULT |= {C.HALT: (P.HALTED,), C.ABORT: (P.ABORTED,)}

_REASONED = frozenset({C.ADVANCE, C.SKIP})
"""Commands that put a person's word in the place of evidence; they need a reason in every phase."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Offer the release to the next `count` pending devices."""

    count: int


@dataclass(frozen=True, slots=True)
class Open:
    """Take the next `count` devices of the cohort into the current stage."""

    count: int


@dataclass(frozen=True, slots=True)
class Prepare:
    """Find out how large the cohort is."""


@dataclass(frozen=True, slots=True)
class VoidQueued:
    """Withdraw every trigger that is not claimed for sending; its device is pending again."""


@dataclass(frozen=True, slots=True)
class Recall:
    """Recall every device that was offered the release and has not installed it."""


@dataclass(frozen=True, slots=True)
class Return:
    """Make recalled devices pending again, without burning an attempt."""


@dataclass(frozen=True, slots=True)
class Carry:
    """Count devices that are still under way in the new evidence epoch: what they end in is news."""


@dataclass(frozen=True, slots=True)
class Again:
    """Give failed devices another attempt; their failures stay evidence."""


Effect = Offer | Open | Prepare | VoidQueued | Recall | Return | Carry | Again


_EFFECTS: dict[Command, tuple[Effect, ...]] = {
    C.START: (Prepare(),),
    C.PAUSE: (VoidQueued(),),
    C.HALT: (VoidQueued(), Recall()),
    C.ABORT: (VoidQueued(), Recall()),
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from a command, or from evidence and time.

    Attributes:
        rollout: the rollout as it shall be saved; the same object if nothing changed.
        effects: what to do in the same transaction, in this order.
        reason: why, also where nothing changes.
        wake_at: the next time at which time alone could change the answer, or None.
    """

    rollout: Rollout
    effects: tuple[Effect, ...]
    reason: Reason
    wake_at: float | None = None


def operate(rollout: Rollout, tally: Tally, command: Command, *, actor: str, reason: str, now: float) -> Decision:
    """Carry out a command of a person. Repeating one that already holds changes nothing.

    Args:
        rollout: the rollout as it stands.
        tally: all its tallies.
        command: what the person wants.
        actor: who it is.
        reason: why; needed to resume a halted or inconclusive rollout, and to pass a stage without its evidence.
        now: present time.

    Raises:
        ConflictError: the phase does not allow it.
        RequestError: a reason is needed.
    """
    if rollout.phase in _RESULT.get(command, ()):
        return Decision(rollout, (), Reason("unchanged", f"it is {rollout.phase} already"))
    allowed = possible(rollout.phase)
    if command not in allowed:
        answers = ", ".join(allowed) or "nothing"
        raise ConflictError(f"cannot {command} a rollout that is {rollout.phase}; possible: {answers}")
    overrides = command in _REASONED or (command is C.RESUME and rollout.phase in (P.HALTED, P.INCONCLUSIVE))
    if overrides and not reason.strip():
        raise RequestError(
            f"to {command} a rollout that is {rollout.phase}, say why: it needs a reason", code="reason_needed"
        )
    if command is C.RESUME:
        return _resume(rollout, actor, reason, now)
    why = Reason(f"operator_{command}", reason.strip() or f"{command} by {actor}")
    if command is C.RETRY:
        return _retry(rollout, tally, why, actor, now)
    if command in (C.ADVANCE, C.SKIP):
        return _hurry(rollout, tally, command, why, actor, now)
    return Decision(move(rollout, TABLE[rollout.phase][command], why, actor, now), _EFFECTS[command], why)


def possible(phase: Phase) -> tuple[Command, ...]:
    """Return the commands that a person may give in a phase."""
    return (*TABLE[phase], *(command for command, phases in WITHIN.items() if phase in phases))


def prepared(
    rollout: Rollout, cohort_size: int, strata: int, now: float, groups: Mapping[str, int] | None = None
) -> Decision:
    """Begin to run, now that the cohort is known.

    Args:
        rollout: a rollout that is preparing.
        cohort_size: devices in the cohort; none sends the rollout back to draft.
        strata: hardware models among them, or values of what else the plan stratifies by.
        now: present time.
        groups: how many of them are in each group with a stage of its own.
    """
    if cohort_size == 0:
        why = Reason("empty_cohort", "no registered device matches the plan; start again when there are some")
        return Decision(move(rollout, P.DRAFT, why, "orchestrator", now), (), why)
    if rollout.plan.stratify and strata > cohort.MAX_STRATA:
        why = Reason("too_many_strata", too_many_strata(rollout.plan))
        return Decision(move(rollout, P.DRAFT, why, "orchestrator", now), (), why)
    why = Reason("prepared", f"{cohort_size} devices in {len(rollout.plan.stages)} stages")
    known = replace(
        rollout,
        stages=cohort.stages_for(rollout.plan, cohort_size, groups),
        cohort_size=cohort_size,
        cohort_at=now,
        strata=max(strata, 1),
    )
    return Decision(move(known, P.RUNNING, why, "orchestrator", now), (), why)


def too_many_strata(plan: Plan) -> str:
    """Return why a plan with more strata than can be told apart does not begin."""
    return (
        f"stratify: {plan.stratify} has more than {cohort.MAX_STRATA} values in the cohort; stratify by something "
        "coarser, or select fewer devices"
    )


def exhausted(rollout: Rollout, tally: Tally) -> Rollout:
    """Correct the cohort when fewer devices than expected were left to open, or only the stage if it is of a group."""
    found = evidence.stage_counts(tally, rollout.stage).opened
    stage = replace(rollout.current, target=found)
    if rollout.plan.stages[rollout.stage].group:
        return _with_stage(rollout, replace(stage, base=min(stage.base, found)))
    return replace(_with_stage(rollout, stage), cohort_size=evidence.opened(tally))


def joined(rollout: Rollout, cohort_size: int) -> Rollout:
    """Let late joiners in: a later stage takes them, or the last one when all before it are passed.

    Args:
        rollout: a rollout whose cohort is known.
        cohort_size: how large the cohort is by now; a smaller one changes nothing.
    """
    before = rollout.cohort_size or 0
    more = cohort_size - before
    if more <= 0:
        return rollout
    larger = replace(rollout, cohort_size=cohort_size)
    stage = rollout.current
    takes_all = sum(item.target for item in rollout.stages) == before and not rollout.plan.stages[rollout.stage].group
    if not _is_last(rollout) or not takes_all:
        return larger
    wider = replace(stage, base=stage.base + more, target=stage.target + more, resolved_at=None)
    return _with_stage(larger, wider)


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
    if rollout.phase is P.PREPARING:
        return Decision(rollout, (Prepare(),), Reason("preparing", "the cohort is being counted"))
    if rollout.phase not in JUDGED or not rollout.stages:
        return Decision(rollout, (), rollout.reason)
    counts = evidence.stage_counts(tally, rollout.stage)
    answer = outside.answer
    alarm = _alarm(rollout, tally, counts) or service.alarm(gate_of(rollout), answer, rollout.stage, rollout.moved_at)
    if alarm is not None:
        halted = move(rollout, P.HALTED, alarm, "orchestrator", now)
        return Decision(halted, (VoidQueued(), Recall()), alarm)
    if rollout.phase is not P.RUNNING:
        return Decision(rollout, (), rollout.reason)
    if not hearing:
        return Decision(rollout, (), Reason("deaf", "the link to the devices is down; the rollout holds"))
    if outside.outage is not None:
        return Decision(rollout, (), outside.outage.reason)
    return _progress(rollout, tally, counts, answer, now)


def move(rollout: Rollout, phase: Phase, reason: Reason, actor: str, now: float) -> Rollout:
    """Return the rollout in another phase; every sealed trigger of the old version is void."""
    return replace(rollout, phase=phase, reason=reason, actor=actor, moved_at=now, version=rollout.version + 1)


def slots(plan: Plan, confirmed: int) -> int:
    """Return how many devices may be in flight in a stage with so many confirmed."""
    return min(plan.in_flight, max(RAMP_START, confirmed))


def gate_of(rollout: Rollout) -> ServiceGate | None:
    """Return the service that the current stage asks before it passes, None if it asks none."""
    return rollout.plan.stages[rollout.stage].gate or rollout.plan.gate


def soak_s(rollout: Rollout) -> float:
    """Return how long the current stage must stay healthy once it is resolved; an emergency waits for no soak."""
    return 0.0 if rollout.plan.urgency is Urgency.EMERGENCY else rollout.plan.stages[rollout.stage].soak_s


def lost_limit(rollout: Rollout, tally: Tally) -> int | None:
    """Return how many devices lost after the reboot halt the current stage at once; None where no number does."""
    if not rollout.plan.halt.lost_after_reboot:
        return None
    return gate.lost_limit(max(evidence.stage_counts(tally, rollout.stage).opened, rollout.current.target))


def _resume(rollout: Rollout, actor: str, reason: str, now: float) -> Decision:
    why = Reason("operator_resume", reason.strip() or f"resume by {actor}")
    if rollout.cohort_size is None:
        return Decision(move(rollout, P.PREPARING, why, actor, now), (Prepare(),), why)
    resumed = move(rollout, P.RUNNING, why, actor, now)
    if rollout.phase is P.HALTED:
        return Decision(replace(resumed, epoch=rollout.epoch + 1), (Carry(), Return()), why)
    if rollout.phase is P.INCONCLUSIVE:
        resumed = _with_stage(resumed, replace(resumed.current, waived=True))
    return Decision(resumed, (Return(),), why)


def _retry(rollout: Rollout, tally: Tally, why: Reason, actor: str, now: float) -> Decision:
    failed = evidence.retriable(tally)
    if not failed:
        return Decision(rollout, (), Reason("unchanged", "no device failed that could try again"))
    noted = Reason(why.code, f"{failed} devices get another attempt: {why.text}")
    return Decision(replace(rollout, reason=noted, actor=actor, moved_at=now), (Again(),), noted)


def _hurry(rollout: Rollout, tally: Tally, command: Command, why: Reason, actor: str, now: float) -> Decision:
    """Pass the current stage on a person's word, `skip` also without offering it to the rest of its devices."""
    stage = rollout.current
    counts = evidence.stage_counts(tally, rollout.stage)
    waiting = stage.target - counts.opened + evidence.pending(tally) + evidence.retrying(tally)
    if stage.hurried:
        return Decision(rollout, (), Reason("unchanged", "the stage passes already"))
    if command is C.ADVANCE and waiting:
        text = f"{waiting} devices of this stage wait for their offer; `skip` leaves them to the next stage"
        raise ConflictError(text, code="stage_not_offered")
    if command is C.SKIP and _is_last(rollout):
        raise ConflictError("this is the last stage; there is none that could take its devices", code="last_stage")
    target = counts.opened if command is C.SKIP else stage.target
    hurried = _with_stage(rollout, replace(stage, target=target, waived=True, hurried=True))
    return Decision(replace(hurried, reason=why, actor=actor, moved_at=now), (), why)


def _alarm(rollout: Rollout, tally: Tally, counts: StageCounts) -> Reason | None:
    rule = rollout.plan.halt
    found = evidence.halt_evidence(rollout, tally)
    worst = next((item for item in found if item.halts), None)
    if worst is not None:
        return Reason("evidence", _evidence_text(worst, rule.tolerated))
    limit = lost_limit(rollout, tally)
    lost = evidence.lost(rollout, tally)
    if limit is not None and lost >= limit:
        text = f"{lost} of {counts.opened} devices of this stage were lost after the reboot; {limit} halt it"
        return Reason("lost_after_reboot", text)
    return _plain_alarm(rollout, found[0], tally)


def _plain_alarm(rollout: Rollout, total: Evidence, tally: Tally) -> Reason | None:
    rule = rollout.plan.halt
    if rule.max_failures is not None and total.failures >= rule.max_failures:
        return Reason("max_failures", f"{total.failures} failures; the plan allows fewer than {rule.max_failures}")
    if rule.max_failure_rate is not None:
        confirmed = sum(n for key, n in tally.items() if key.epoch == rollout.epoch and key.state == "confirmed")
        resolved = total.failures + confirmed
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
    if stage.hurried and not _is_last(rollout):
        return _next_stage(rollout, now, rollout.reason)
    if stage.target == 0 and not _is_last(rollout):
        return _next_stage(rollout, now, Reason("passed", "no devices are left for this stage"))
    if counts.opened < stage.target:
        missing = stage.target - counts.opened
        return Decision(rollout, (Open(missing),), Reason("opening", f"{missing} devices are being taken in"))
    if stage.opened_at is None:
        rollout = _with_stage(rollout, replace(stage, opened_at=now))
    free = slots(rollout.plan, counts.confirmed) - evidence.in_flight(tally)
    waiting = evidence.pending(tally)
    if waiting and free > 0:
        return _offer(rollout, min(free, waiting), now)
    if waiting:
        text = f"{waiting} devices wait for a slot; {evidence.in_flight(tally)} are in flight"
        return Decision(rollout, (), Reason("slots_taken", text))
    if later := evidence.retrying(tally):
        return Decision(rollout, (), Reason("retrying", f"{later} devices gave up for a passing reason and try again"))
    return _judge(rollout, tally, counts, answer, now)


def _offer(rollout: Rollout, count: int, now: float) -> Decision:
    """Offer the release to so many devices, or to as many as may start now."""
    limit, climb = rollout.plan.ramp, _climb(rollout, now)
    if limit is not None and climb is not None:
        room = ramp.room(limit, climb, now)
        if not room:
            text = f"{count} devices wait for the ramp; {ramp.allowed(limit, climb)} may start per minute"
            return Decision(rollout, (), Reason(RAMP, text), ramp.opens_at(limit, climb, now))
        count = min(count, room)
    return Decision(rollout, (Offer(count),), Reason("offering", f"{count} more devices are offered the release"))


def _climb(rollout: Rollout, now: float) -> ramp.Climb | None:
    """Return how far the current stage has come on its ramp, None without one."""
    stage = rollout.current
    if rollout.plan.ramp is None:
        return None
    began_at = now if stage.opened_at is None else stage.opened_at
    return ramp.climbed(rollout.plan.ramp, stage.climb or ramp.Climb(began_at), now)


def started(rollout: Rollout, count: int, now: float) -> Rollout:
    """Return the rollout after so many more devices were offered the release."""
    climb = _climb(rollout, now)
    if rollout.plan.ramp is None or climb is None or not count:
        return rollout
    return _with_stage(rollout, replace(rollout.current, climb=ramp.start(rollout.plan.ramp, climb, count, now)))


def _judge(rollout: Rollout, tally: Tally, counts: StageCounts, answer: Answer | None, now: float) -> Decision:
    plan, stage = rollout.plan, rollout.current
    if stage.hurried and not evidence.in_flight(tally):
        return _next_stage(rollout, now, rollout.reason)
    if counts.resolved < plan.resolved_share * counts.reached:
        text = f"{counts.reached - counts.resolved} of {counts.reached} devices have not given their evidence yet"
        rollout = rollout if stage.resolved_at is None else _with_stage(rollout, replace(stage, resolved_at=None))
        return Decision(rollout, (), Reason("unresolved", text))
    if stage.resolved_at is None:
        rollout = _with_stage(rollout, replace(stage, resolved_at=now))
    resolved_at = rollout.current.resolved_at
    assert resolved_at is not None
    soaked_at = resolved_at + soak_s(rollout)
    if now < soaked_at:
        return Decision(rollout, (), Reason("soaking", "the stage is healthy and soaks"), soaked_at)
    if _is_last(rollout) and evidence.in_flight(tally):
        return Decision(rollout, (), Reason("finishing", f"{evidence.in_flight(tally)} devices are still updating"))
    if stage.waived:
        return _pass(rollout, rollout.reason, answer, soaked_at, now)
    if counts.opened and counts.unreached > plan.max_unreached * counts.opened:
        allowed = f"the plan allows {plan.max_unreached:.0%}"
        text = f"{counts.unreached} of {counts.opened} devices were never reached; {allowed}"
        return _ask(rollout, Reason("unreached", text), now)
    bound = evidence.stage_bound(rollout, tally)
    if bound.holds or stage.target == 0:
        return _pass(rollout, Reason("passed", _bound_text(bound)), answer, soaked_at, now)
    return _extend(rollout, tally, bound, now)


def _pass(rollout: Rollout, why: Reason, answer: Answer | None, since: float, now: float) -> Decision:
    """Pass a stage whose evidence is enough, unless a service or a person has still to say so."""
    held = service.holds(gate_of(rollout), answer, rollout.stage, since, now)
    if held is None and rollout.plan.stages[rollout.stage].approve:
        held = Reason("manual_gate", f"{why.text}; the plan wants a person to say so too: `ota rollout advance`")
    return _next_stage(rollout, now, why) if held is None else Decision(rollout, (), held)


def _extend(rollout: Rollout, tally: Tally, bound: Bound, now: float) -> Decision:
    if under_way := evidence.in_flight(tally):
        return Decision(rollout, (), Reason("unresolved", f"{under_way} devices are still updating"))
    stage = rollout.current
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
    return Decision(_with_stage(rollout, longer), (Open(more),), why)


def _next_stage(rollout: Rollout, now: float, why: Reason) -> Decision:
    actor = rollout.actor if rollout.current.waived else "orchestrator"
    passed = replace(_with_stage(rollout, replace(rollout.current, passed_at=now)), actor=actor)
    if _is_last(rollout):
        return Decision(move(passed, P.DONE, why, actor, now), (VoidQueued(),), why)
    onward = replace(passed, stage=rollout.stage + 1)
    left = (rollout.cohort_size or 0) - sum(stage.target for stage in onward.stages[: onward.stage])
    takes_rest = rollout.plan.stages[onward.stage].kind is SizeKind.REST and not rollout.plan.stages[onward.stage].group
    target = max(left if takes_rest else min(onward.current.base, left), 0)
    return Decision(_with_stage(onward, replace(onward.current, target=target)), (), why, now)


def _is_last(rollout: Rollout) -> bool:
    return rollout.stage + 1 == len(rollout.stages)


def _ask(rollout: Rollout, why: Reason, now: float) -> Decision:
    return Decision(move(rollout, P.INCONCLUSIVE, why, "orchestrator", now), (VoidQueued(),), why)


def _bound_text(bound: Bound) -> str:
    failed = "1 device" if bound.failures == 1 else f"{bound.failures} devices"
    return (
        f"{failed} failed or not resolved of {bound.exposed} prove a failure rate of at most {bound.upper:.1%}; "
        f"this stage allows {bound.limit:.1%}"
    )


def _with_stage(rollout: Rollout, stage: Stage) -> Rollout:
    stages = list(rollout.stages)
    stages[rollout.stage] = stage
    return replace(rollout, stages=tuple(stages))
