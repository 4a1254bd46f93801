"""One rollout: its phases as a table, what a person may do to it, and the words of every decision.

Rules:
- `operate` (a person) and `judgement.step` (evidence and time) both answer with a `Decision`; an automatic halt
  and an operator's halt are the same move and have the same effects.
- No function sees the fleet: decisions read the rollout, its tallies and `now`.
- Every decision says why, also the decision to wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from orchestrator.core.judging import evidence
from orchestrator.core.model import DAEMON, Phase, Plan, Reason, Rollout, Tally
from orchestrator.core.reason import counted
from orchestrator.core.targeting import cohort
from orchestrator.errors import ConflictError, RequestError


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
UNFINISHED = frozenset(P) - FINISHED
BEGUN = UNFINISHED - {P.DRAFT}
"""Phases of a rollout that was started and is not over."""

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
        return Decision(move(rollout, P.DRAFT, why, DAEMON, now), (), why)
    if rollout.plan.stratify and strata > cohort.MAX_STRATA:
        why = Reason("too_many_strata", too_many_strata(rollout.plan))
        return Decision(move(rollout, P.DRAFT, why, DAEMON, now), (), why)
    why = Reason("prepared", f"{counted(cohort_size, 'device')} in {counted(len(rollout.plan.stages), 'stage')}")
    known = replace(
        rollout,
        stages=cohort.stages_for(rollout.plan, cohort_size, groups),
        cohort_size=cohort_size,
        cohort_at=now,
        strata=max(strata, 1),
    )
    return Decision(move(known, P.RUNNING, why, DAEMON, now), (), why)


def too_many_strata(plan: Plan) -> str:
    """Return why a plan with more strata than can be told apart does not begin."""
    return (
        f"stratify: {plan.stratify} has more than {cohort.MAX_STRATA} values in the cohort; stratify by something "
        "coarser, or select fewer devices"
    )


def exhausted(rollout: Rollout, tally: Tally, late: int = 0) -> Rollout:
    """Correct the cohort when fewer devices than expected were left to open, or only the stage if it is of a group.

    Args:
        rollout: a rollout whose current stage wanted more devices than there were.
        tally: all its tallies.
        late: devices that were left all the same, and wait for the last stage; the cohort keeps them, and the stage
            has to show what it was planned to show.
    """
    found = evidence.stage_counts(tally, rollout.stage).opened
    stage = replace(rollout.current, target=found)
    if late:
        return rollout.with_current(replace(stage, drained=True))
    if rollout.plan.stages[rollout.stage].group:
        return rollout.with_current(replace(stage, base=min(stage.base, found)))
    return replace(rollout.with_current(stage), cohort_size=evidence.opened(tally))


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
    if not rollout.is_in_last_stage or not takes_all:
        return larger
    wider = replace(stage, base=stage.base + more, target=stage.target + more, resolved_at=None)
    return larger.with_current(wider)


def move(rollout: Rollout, phase: Phase, reason: Reason, actor: str, now: float) -> Rollout:
    """Return the rollout in another phase; every sealed trigger of the old version is void."""
    return replace(rollout, phase=phase, reason=reason, actor=actor, moved_at=now, version=rollout.version + 1)


def _resume(rollout: Rollout, actor: str, reason: str, now: float) -> Decision:
    why = Reason("operator_resume", reason.strip() or f"resume by {actor}")
    if rollout.cohort_size is None:
        return Decision(move(rollout, P.PREPARING, why, actor, now), (Prepare(),), why)
    resumed = move(rollout, P.RUNNING, why, actor, now)
    if rollout.phase is P.HALTED:  # what a person said in the place of evidence was said before there was this halt
        resumed = resumed.with_current(replace(resumed.current, waived=False, hurried=False))
        return Decision(replace(resumed, epoch=rollout.epoch + 1), (Carry(), Return()), why)
    if rollout.phase is P.INCONCLUSIVE:
        resumed = resumed.with_current(replace(resumed.current, waived=True))
    return Decision(resumed, (Return(),), why)


def _retry(rollout: Rollout, tally: Tally, why: Reason, actor: str, now: float) -> Decision:
    failed = evidence.retriable(tally)
    if not failed:
        return Decision(rollout, (), Reason("unchanged", "no device failed that could try again"))
    noted = Reason(why.code, f"another attempt for {counted(failed, 'device')}: {why.text}")
    return Decision(replace(rollout, reason=noted, actor=actor, moved_at=now), (Again(),), noted)


def _hurry(rollout: Rollout, tally: Tally, command: Command, why: Reason, actor: str, now: float) -> Decision:
    """Pass the current stage on a person's word, `skip` also without offering it to the rest of its devices."""
    stage = rollout.current
    counts = evidence.stage_counts(tally, rollout.stage)
    waiting = stage.target - counts.opened + evidence.pending(tally) + evidence.retrying(tally)
    if stage.hurried:
        return Decision(rollout, (), Reason("unchanged", "the stage passes already"))
    if command is C.ADVANCE and waiting:
        text = f"{counted(waiting, 'device')} of this stage waiting for an offer; `skip` leaves them to the next stage"
        raise ConflictError(text, code="stage_not_offered")
    if command is C.SKIP and rollout.is_in_last_stage:
        raise ConflictError("this is the last stage; there is none that could take its devices", code="last_stage")
    target = counts.opened if command is C.SKIP else stage.target
    hurried = rollout.with_current(replace(stage, target=target, waived=True, hurried=True))
    return Decision(replace(hurried, reason=why, actor=actor, moved_at=now), (), why)
