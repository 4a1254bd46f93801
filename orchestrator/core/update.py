"""One device in one rollout: `(state, fact) -> state`, as a table.

Rules:
- What a device says about one attempt climbs a ladder and never comes down, so that every order and
  every repetition of its reports ends in the same state; failure is the top rung.
- A device that refused, or gave up before it installed anything, for a reason that passes, tries again by itself
  (`pace.retry`), and its stage waits for it; a failure is final until a person gives the device another attempt, and
  stays evidence even then.
- Silence is judged by the daemon: before the device began it is no evidence (`unreached`), after the
  reboot the device is `lost`, in between the update is `expired`.
- Who was kept from an offer for too long and comes back is waited for since it was taken in, not since it came back.
- A pair that is not in the table is ignored with a reason, never an error: devices repeat and reorder.
- `contributions` says what one update adds to the tallies; the recorder writes differences of it and
  the doctor sums it, so the two cannot disagree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from typing import NamedTuple

from orchestrator.core.judging import health
from orchestrator.core.judging.health import HealthRule
from orchestrator.core.model import MET, RELAPSED, RETRIED, Deadlines, TallyKey, Update, UpdateState
from orchestrator.core.pace.retry import Again, FailureClass, RetryPolicy, class_of, next_attempt

S = UpdateState


class FactKind(StrEnum):
    """What a report, a timer or a command means to the table."""

    ACCEPTED = "accepted"
    PROGRESS = "progress"
    DOWNLOADED = "downloaded"
    INSTALLED = "installed"
    RUNNING = "running"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    REFUSED = "refused"
    POSTPONED = "postponed"
    RECALLED = "recalled"
    TOO_LATE = "too_late"
    OFFER = "offer"
    WITHDRAW = "withdraw"
    RECALL = "recall"
    UNANSWERED = "unanswered"
    SILENT = "silent"
    RETURN = "return"
    GAVE_UP = "gave_up"
    AGAIN = "again"
    SUPERSEDE = "supersede"

    __hash__ = str.__hash__  # as in `UpdateState`


F = FactKind

LADDER: tuple[UpdateState, ...] = (
    S.OFFERED,
    S.UNREACHED,
    S.REFUSED,
    S.POSTPONED,
    S.ACCEPTED,
    S.DOWNLOADED,
    S.RECALLING,
    S.RETRYING,
    S.RECALLED,
    S.TOO_LATE,
    S.INSTALLED,
    S.RUNNING,
    S.CONFIRMED,
    S.EXPIRED,
    S.LOST,
    S.FAILED,
    S.ROLLED_BACK,
)

_SAID: dict[FactKind, UpdateState] = {
    F.REFUSED: S.REFUSED,
    F.POSTPONED: S.POSTPONED,
    F.ACCEPTED: S.ACCEPTED,
    F.PROGRESS: S.ACCEPTED,
    F.DOWNLOADED: S.DOWNLOADED,
    F.GAVE_UP: S.RETRYING,
    F.RECALLED: S.RECALLED,
    F.TOO_LATE: S.TOO_LATE,
    F.INSTALLED: S.INSTALLED,
    F.RUNNING: S.RUNNING,
    F.CONFIRMED: S.CONFIRMED,
    F.FAILED: S.FAILED,
    F.ROLLED_BACK: S.ROLLED_BACK,
}

_DECIDED: dict[UpdateState, dict[FactKind, UpdateState]] = {
    S.PENDING: {F.OFFER: S.OFFERED, F.UNANSWERED: S.UNREACHED, F.SUPERSEDE: S.SUPERSEDED},
    S.OFFERED: {
        F.WITHDRAW: S.PENDING,
        F.RECALL: S.RECALLING,
        F.UNANSWERED: S.UNREACHED,
        F.SUPERSEDE: S.SUPERSEDED,
    },
    S.UNREACHED: {F.RETURN: S.PENDING, F.SUPERSEDE: S.SUPERSEDED},
    S.REFUSED: {F.RETURN: S.PENDING, F.SUPERSEDE: S.SUPERSEDED},
    S.POSTPONED: {F.RETURN: S.PENDING, F.SUPERSEDE: S.SUPERSEDED},
    S.RECALLED: {F.RETURN: S.PENDING, F.SUPERSEDE: S.SUPERSEDED},
    S.ACCEPTED: {F.RECALL: S.RECALLING, F.SILENT: S.EXPIRED},
    S.DOWNLOADED: {F.RECALL: S.RECALLING, F.SILENT: S.EXPIRED},
    S.RECALLING: {F.UNANSWERED: S.UNREACHED, F.SILENT: S.EXPIRED},
    S.RETRYING: {F.RETURN: S.PENDING, F.SUPERSEDE: S.SUPERSEDED},
    S.TOO_LATE: {F.SILENT: S.EXPIRED},
    S.INSTALLED: {F.SILENT: S.LOST},
    S.RUNNING: {F.SILENT: S.LOST},
    S.EXPIRED: {F.AGAIN: S.PENDING},
    S.FAILED: {F.AGAIN: S.PENDING},
    S.ROLLED_BACK: {F.AGAIN: S.PENDING},
}


def _build_table() -> dict[UpdateState, dict[FactKind, UpdateState]]:
    rung = {state: height for height, state in enumerate(LADDER)}
    table = {state: dict(_DECIDED.get(state, {})) for state in UpdateState}
    for state in LADDER:
        table[state].update({fact: to for fact, to in _SAID.items() if rung[to] > rung[state]})
    return table


TABLE = _build_table()
"""Every legal move; a pair that is missing is ignored."""

IN_FLIGHT = frozenset({S.OFFERED, S.ACCEPTED, S.DOWNLOADED, S.RECALLING, S.TOO_LATE, S.INSTALLED, S.RUNNING})
"""States that hold an in-flight slot."""

FAILURES = frozenset({S.EXPIRED, S.LOST, S.FAILED, S.ROLLED_BACK})
"""States that count as a failed device; only a person moves one out of them, and then the failure still counts."""

RETRIABLE = frozenset({S.EXPIRED, S.FAILED, S.ROLLED_BACK})
"""Failures after which a person may give a device another attempt; a lost one cannot be asked."""

RESOLVED = FAILURES | {S.CONFIRMED}
"""States in which a reached device has given its evidence."""

NEUTRAL = frozenset({S.PENDING, S.UNREACHED, S.REFUSED, S.POSTPONED, S.RETRYING, S.RECALLED, S.SUPERSEDED})
"""States that are no evidence: the device never ran, or never began, the new release."""

TRY_AGAIN = frozenset({S.POSTPONED, S.RETRYING})
"""States of a device that tries again by itself."""

REFUSALS = frozenset({S.REFUSED, S.POSTPONED})
"""States of a device that did not take its trigger."""

_BEGUN = frozenset(_SAID) - {F.REFUSED, F.POSTPONED, F.RECALLED, F.GAVE_UP}
IDLE = TRY_AGAIN | {S.PENDING}
"""States of a device that waits for an offer."""

_ANEW = TRY_AGAIN | {S.REFUSED}  # an older store holds refused ones that have a time
_COMES_BACK = _ANEW | {S.UNREACHED}

_FAILED = frozenset({F.REFUSED, F.FAILED, F.ROLLED_BACK})
_PASSES = {F.REFUSED: F.POSTPONED, F.FAILED: F.GAVE_UP}


class Fact(NamedTuple):
    """What happened to one update. A tuple, because one is made for every report.

    Attributes:
        kind: what.
        attempt: attempt that a device speaks of; None for facts of the daemon.
        code: reason code, "" if none.
        rel: release counter that the device says it runs, if it says so.
        progress: percent downloaded, if it says so.
        metrics: what it measures of itself, by name.
    """

    kind: FactKind
    attempt: int | None = None
    code: str = ""
    rel: int | None = None
    progress: int = 0
    metrics: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What `apply` must know of the rollout.

    Attributes:
        deadlines: how long each phase may take.
        stage: index of the current stage; earlier ones are judged.
        epoch: present evidence epoch.
        retry: what follows a failed attempt; None for nothing.
        health: what devices must measure of themselves.
    """

    deadlines: Deadlines
    stage: int
    epoch: int
    retry: RetryPolicy | None = None
    health: tuple[HealthRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Ignored:
    """A fact that changes nothing.

    Attributes:
        reason: stable word.
    """

    reason: str


def apply(update: Update, fact: Fact, context: Context, now: float) -> Update | Ignored:
    """Fold one fact into an update.

    Args:
        update: the update as it stands.
        fact: what happened.
        context: the rollout's deadlines, current stage and epoch.
        now: present time.

    Returns:
        The new update, or `Ignored` with `other_attempt`, `repeated` or `not_offered`.
    """
    if fact.attempt is not None and fact.attempt != update.attempt:
        return Ignored("other_attempt")
    fact = _read_health(_read_running_release(update, fact), context)
    again_at = _again_at(update, fact, context, now)
    if again_at is not None and class_of(fact.code) is FailureClass.TRANSIENT:
        fact = fact._replace(kind=_PASSES.get(fact.kind, fact.kind))
    state = TABLE[update.state].get(fact.kind)
    if state is None:
        return _note(update, fact)
    anew = fact.kind is F.AGAIN or (update.state in _ANEW and fact.kind is F.RETURN)
    begun = update.begun or fact.kind in _BEGUN
    moved = Update(
        update.id,
        update.rollout_id,
        update.device_id,
        update.stage,
        update.stratum,
        update.rel,
        state=state,
        state_at=min(update.state_at, now) if _still_waits(update, fact) else now,
        epoch=update.epoch,
        attempt=update.attempt + anew,
        begun=begun and state not in IDLE,
        deadline_at=again_at or _deadline(update, state, context.deadlines, now),
        progress=0 if anew else max(update.progress, fact.progress),
        code=fact.code,
        relapsed_stage=update.relapsed_stage,
        relapsed_epoch=update.relapsed_epoch,
        failed_epoch=update.failed_epoch,
    )
    if fact.kind is F.AGAIN:
        failed_epoch = update.epoch if update.relapsed_stage is None else update.relapsed_epoch
        return moved._replace(failed_epoch=failed_epoch, relapsed_stage=None, relapsed_epoch=0)
    if fact.kind is F.OFFER:
        return moved._replace(epoch=context.epoch, progress=0)
    if update.state is S.CONFIRMED and update.stage < context.stage:
        return moved._replace(relapsed_stage=context.stage, relapsed_epoch=context.epoch)
    return moved


def refuses_for_good(update: Update, code: str, policy: RetryPolicy | None) -> bool:
    """Say whether a refusal of the present attempt with this code is the last word of the device.

    Args:
        update: the update as it stands.
        code: reason code of the refusal.
        policy: what follows a failed attempt; None for nothing.
    """
    return policy is None or _after_refusal(update, code, policy, 0.0) is None


def silence(update: Update) -> FactKind:
    """Return what a passed deadline means for this update."""
    if update.state in _COMES_BACK:
        return F.RETURN
    if update.state in RETRIABLE:
        return F.AGAIN
    if update.state is S.OFFERED or (update.state is S.RECALLING and not update.begun):
        return F.UNANSWERED
    return F.SILENT


def contributions(update: Update) -> tuple[TallyKey, ...]:
    """Return the tallies in which this update counts once each."""
    return _counted(*_PLACE(update))


def tally_changes(before: Iterable[Update], after: Iterable[Update]) -> Counter[TallyKey]:
    """Return what the tallies change by when the updates `before` become those `after`."""
    places = Counter(map(_PLACE, after))  # thousands stand in a handful of places, and this counting runs in C
    places.subtract(Counter(map(_PLACE, before)))
    changes: Counter[TallyKey] = Counter()
    for place, count in places.items():
        if count:
            for key in _counted(*place):
                changes[key] += count
    for key in [key for key, change in changes.items() if not change]:
        del changes[key]
    return changes


_PLACE = attrgetter("epoch", "stage", "stratum", "state", "relapsed_epoch", "relapsed_stage", "failed_epoch")


def _counted(
    epoch: int,
    stage: int,
    stratum: str,
    state: UpdateState,
    relapsed_epoch: int,
    relapsed_stage: int | None,
    failed_epoch: int | None,
) -> tuple[TallyKey, ...]:
    if relapsed_stage is not None:
        return (
            TallyKey(epoch, stage, stratum, S.CONFIRMED),
            TallyKey(relapsed_epoch, relapsed_stage, stratum, RELAPSED),
        )
    if failed_epoch is None or (state in FAILURES and epoch == failed_epoch):
        return (TallyKey(epoch, stage, stratum, state),)  # one device is one failure, however often it failed
    kept = (TallyKey(epoch, stage, stratum, state), TallyKey(failed_epoch, stage, stratum, RETRIED))
    if epoch == failed_epoch and state not in NEUTRAL:
        return kept
    return (*kept, TallyKey(failed_epoch, stage, stratum, MET))


def _read_running_release(update: Update, fact: Fact) -> Fact:
    """A device that says healthy but runs something else has not taken the update."""
    if fact.kind in (F.CONFIRMED, F.RUNNING) and fact.rel != update.rel:
        return fact._replace(kind=F.FAILED, code="wrong_release")
    return fact


def _read_health(fact: Fact, context: Context) -> Fact:
    """A device that runs the release and is sick by the plan's measure has failed, whatever it calls itself."""
    if not context.health or fact.kind not in (F.CONFIRMED, F.RUNNING):
        return fact
    code = health.fault(context.health, dict(fact.metrics), final=fact.kind is F.CONFIRMED)
    return fact._replace(kind=F.FAILED, code=code) if code else fact


def _still_waits(update: Update, fact: Fact) -> bool:
    """Say whether a device is kept from its offer (with a code) or comes back from that, which ends no waiting."""
    if fact.kind is F.UNANSWERED:
        return update.state is S.PENDING
    return fact.kind is F.RETURN and update.state is S.UNREACHED and update.code != ""


def _again_at(update: Update, fact: Fact, context: Context, now: float) -> float | None:
    """Return when the device tries again by itself after this failure or refusal, None if it does not.

    A refusal that passes is one of the token or of its time: a trigger made anew is good.
    """
    if fact.kind not in _FAILED or context.retry is None:
        return None
    if fact.kind is F.REFUSED:
        return _after_refusal(update, fact.code, context.retry, now)
    return _after(update, fact.code, context.retry, now)


def _after_refusal(update: Update, code: str, policy: RetryPolicy, now: float) -> float | None:
    return _after(update, code, policy, now) if class_of(code) is FailureClass.TRANSIENT else None


def _after(update: Update, code: str, policy: RetryPolicy, now: float) -> float | None:
    key = str(update.rollout_id).encode()  # no secret: it only spreads the devices
    after = next_attempt(policy, code, update.attempt, update.device_id, key, now)
    return after.at if isinstance(after, Again) else None


def _note(update: Update, fact: Fact) -> Update | Ignored:
    """Keep what a fact says besides the state: that the device began, and how far it is."""
    if update.state is S.PENDING or update.state not in IN_FLIGHT or fact.kind not in _BEGUN:
        return Ignored("not_offered" if update.state is S.PENDING else "repeated")
    noted = update._replace(begun=True, progress=max(update.progress, fact.progress))
    return Ignored("repeated") if noted == update else noted


def _deadline(update: Update, state: UpdateState, limits: Deadlines, now: float) -> float | None:
    if state is S.RUNNING and update.state is S.INSTALLED:
        return update.deadline_at  # the time to confirm counts from the reboot
    seconds = _TIME_LIMITS.get(state)
    return None if seconds is None else now + seconds(limits)


_TIME_LIMITS: dict[UpdateState, Callable[[Deadlines], float]] = {
    S.OFFERED: lambda limits: limits.accept_s,
    S.ACCEPTED: lambda limits: limits.download_s,
    S.DOWNLOADED: lambda limits: limits.install_s,
    S.RECALLING: lambda limits: limits.accept_s,
    S.TOO_LATE: lambda limits: limits.install_s + limits.confirm_s,
    S.INSTALLED: lambda limits: limits.confirm_s,
    S.RUNNING: lambda limits: limits.confirm_s,
}
