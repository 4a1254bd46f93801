"""What the recorder does inside its transaction: reports, hellos and silence become facts.

Rules:
- Everything of one batch is folded in order before one row is written per update.
- The tally changes are written in the transaction that caused them.
- A report about something unknown, or of somebody else, is counted and dropped; it is never an error.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestrator.core import rollout as rollout_machine
from orchestrator.core import update as machine
from orchestrator.core.model import Delivery, Phase, Rollout, Update, UpdateState
from orchestrator.core.update import IN_FLIGHT, Context, Fact, FactKind, Ignored
from orchestrator.ports import EXPOSED, DeliveryKind, DeliveryState, Parcel, Tx
from orchestrator.wire.report import Hello, Kind, Report, State

NEW_KEYS = "new_keys"
"""With this code a device says that it gave an attempt up because it took a new keyset."""

REPEAT_AFTER_S = 10.0
"""A device that greets again gets its trigger again, but not more often than this."""

_FACTS = {kind: FactKind(kind.value) for kind in Kind}
_PROOF = frozenset({Kind.RUNNING, Kind.CONFIRMED, Kind.ROLLED_BACK})
_LIVE = frozenset(Phase) - rollout_machine.FINISHED
_MAY_RETURN = (UpdateState.UNREACHED, UpdateState.OFFERED)


@dataclass(frozen=True, slots=True)
class Batch:
    """What arrived since the last transaction.

    Attributes:
        reports: in the order of arrival.
        hellos: in the order of arrival.
        states: in the order of arrival.
    """

    reports: Sequence[Report] = ()
    hellos: Sequence[Hello] = ()
    states: Sequence[State] = ()


@dataclass(slots=True)
class Recorded:
    """What a transaction of the recorder did.

    Attributes:
        rollouts: rollouts whose tallies changed.
        ignored: facts that changed nothing, by reason.
        unknown: identifiers of senders that are not registered.
        planned: whether deliveries were planned.
    """

    rollouts: set[int] = field(default_factory=set)
    ignored: Counter[str] = field(default_factory=Counter)
    unknown: set[str] = field(default_factory=set)
    planned: bool = False


class _Said(NamedTuple):
    """A report about an update of its sender."""

    update: Update
    attempt: int
    report: Report


def record(tx: Tx, batch: Batch, now: float, *, enrol: bool) -> Recorded:
    """Store a batch of what devices said and fold it into their updates.

    Args:
        tx: the transaction.
        batch: what arrived.
        now: present time.
        enrol: whether a hello may register a device.
    """
    done = Recorded()
    known = tx.greet(batch.hellos, now, enrol=enrol)
    done.unknown = {hello.dev for hello in batch.hellos} - known
    tx.mark_online(batch.states, now)
    _record_reports(tx, batch.reports, now, done)
    _greet_again(tx, known, now, done)
    return done


def record_silence(tx: Tx, now: float, limit: int) -> Recorded:
    """Judge the silence of up to `limit` devices whose deadline has passed."""
    done = Recorded()
    overdue = tx.overdue(now, limit)
    fold(tx, [(item, Fact(machine.silence(item))) for item in overdue], now, done)
    return done


def fold(tx: Tx, facts: Iterable[tuple[Update, Fact]], now: float, done: Recorded) -> dict[int, Update]:
    """Fold facts into updates, store what changed and the tally changes.

    Returns:
        The changed updates by number.
    """
    contexts: dict[int, Context] = {}
    before: dict[int, Update] = {}
    after: dict[int, Update] = {}
    for update, fact in facts:
        current = after.get(update.id, update)
        if update.rollout_id not in contexts:
            contexts[update.rollout_id] = context(tx.rollout(update.rollout_id))
        result = machine.apply(current, fact, contexts[update.rollout_id], now)
        if isinstance(result, Ignored):
            done.ignored[result.reason] += 1
            continue
        before.setdefault(update.id, update)
        after[update.id] = result
    slots = [item for item in after.values() if (item.state in IN_FLIGHT) != (before[item.id].state in IN_FLIGHT)]
    tx.save_updates(after.values(), slots)
    _change_tallies(tx, before, after, done)
    return after


def context(rollout: Rollout | None) -> Context:
    """Return what the update machine must know of a rollout."""
    assert rollout is not None, "an update always belongs to a rollout"
    return Context(rollout.plan.deadlines, rollout.stage, rollout.epoch)


def _record_reports(tx: Tx, reports: Sequence[Report], now: float, done: Recorded) -> None:
    numbers = [report.named for report in reports]
    updates = tx.updates({update_id for update_id, _ in numbers})
    accepted = []
    for report, (update_id, attempt) in zip(reports, numbers, strict=True):
        update = updates.get(update_id)
        if update is None or update.device_id != report.dev:
            done.ignored["unknown_attempt"] += 1
        else:
            accepted.append(_Said(update, attempt, report))
    fresh = _drop_repeated(tx, accepted, now)
    done.ignored["repeated"] += len(accepted) - len(fresh)
    changed = fold(tx, _facts(tx, fresh), now, done)
    _return_late_answers(tx, updates, changed, now, done)
    proofs = [said.report for said in fresh if said.report.kind in _PROOF and said.report.rel is not None]
    tx.mark_running(proofs, now)


def _drop_repeated(tx: Tx, accepted: Sequence[_Said], now: float) -> list[_Said]:
    """Store the reports and return those that are new. Progress moves a number only; it keeps no line."""
    lasting = [said.report for said in accepted if said.report.kind is not Kind.PROGRESS]
    news = iter(tx.add_reports(lasting, now))
    return [said for said in accepted if said.report.kind is Kind.PROGRESS or next(news)]


def _facts(tx: Tx, fresh: Iterable[_Said]) -> Iterator[tuple[Update, Fact]]:
    for update, attempt, report in fresh:
        if update.state is UpdateState.PENDING and _was_exposed(tx, update):
            yield update, Fact(FactKind.OFFER)  # it speaks of a trigger that it did get, before it was pending again
        yield update, _fact(report, attempt)


def _was_exposed(tx: Tx, update: Update) -> bool:
    sent = any(item.kind is DeliveryKind.INSTALL and item.state in EXPOSED for item in tx.parcels(update.id))
    return sent and not tx.updates_of([update.device_id], IN_FLIGHT)


def _return_late_answers(
    tx: Tx, before: Mapping[int, Update], after: Mapping[int, Update], now: float, done: Recorded
) -> None:
    """A device that gave up what its rollout still wants is pending again.

    It answered its recall when the rollout ran again, or it took a new keyset, which ends what older keys had begun.
    """
    late = [
        update
        for update_id, update in after.items()
        if update.state is UpdateState.RECALLED
        and (before[update_id].state is UpdateState.RECALLING or update.code == NEW_KEYS)
    ]
    running = {item.rollout_id for item in late if _is_running(tx.rollout(item.rollout_id))}
    fold(tx, [(item, Fact(FactKind.RETURN)) for item in late if item.rollout_id in running], now, done)


def _is_running(rollout: Rollout | None) -> bool:
    return rollout is not None and rollout.phase is Phase.RUNNING


def _fact(report: Report, attempt: int) -> Fact:
    return Fact(
        kind=_FACTS[report.kind],
        attempt=attempt,
        code=report.code,
        rel=report.rel,
        progress=100 if report.kind is Kind.DOWNLOADED else report.pct or 0,
    )


def _greet_again(tx: Tx, device_ids: set[str], now: float, done: Recorded) -> None:
    """A device that is back gets a trigger that it may have missed, as a refresh of the same attempt."""
    if not device_ids:
        return
    live = {rollout.id for rollout in tx.rollouts(_LIVE)}
    back = [item for item in tx.updates_of(device_ids, _MAY_RETURN) if item.rollout_id in live]
    fold(tx, [(item, Fact(FactKind.RETURN)) for item in back if item.state is UpdateState.UNREACHED], now, done)
    by_rollout: defaultdict[int, list[Update]] = defaultdict(list)
    for item in back:
        if item.state is UpdateState.OFFERED and now - item.state_at >= REPEAT_AFTER_S:
            by_rollout[item.rollout_id].append(item)
    for rollout_id, items in by_rollout.items():
        done.planned |= reissue(tx, rollout_id, items, now)
    done.planned |= _recall_again(tx, device_ids, now)


def _recall_again(tx: Tx, device_ids: set[str], now: float) -> bool:
    """A device that is back before it answered its recall gets it again, whatever became of the rollout."""
    missed = [
        item for item in tx.updates_of(device_ids, (UpdateState.RECALLING,)) if _is_missed(tx.parcels(item.id), now)
    ]
    for item in missed:
        rollout = tx.rollout(item.rollout_id)
        assert rollout is not None, "an update always belongs to a rollout"
        tx.plan(DeliveryKind.CANCEL, [item], rollout.version, now, push=True)
    return bool(missed)


def reissue(tx: Tx, rollout_id: int, updates: Sequence[Update], now: float) -> bool:
    """Plan another trigger for attempts that were offered already, if the last one is not still queued.

    Returns:
        Whether anything was planned.
    """
    rollout = tx.rollout(rollout_id)
    if rollout is None or not _is_running(rollout):
        return False
    missed = [item for item in updates if _is_missed(tx.parcels(item.id), now)]
    push = rollout.plan.delivery is not Delivery.POLL
    tx.plan(DeliveryKind.INSTALL, missed, rollout.version, now, push=push)
    return bool(missed)


def _is_missed(parcels: Sequence[Parcel], now: float) -> bool:
    if not parcels or now - parcels[-1].planned_at < REPEAT_AFTER_S:
        return False
    last = parcels[-1]
    waits = last.state is DeliveryState.SEALED and (last.expires_at or 0.0) > now
    return not waits and last.state is not DeliveryState.PLANNED


def _change_tallies(tx: Tx, before: Mapping[int, Update], after: Mapping[int, Update], done: Recorded) -> None:
    changed: defaultdict[int, list[Update]] = defaultdict(list)
    for update in after.values():
        changed[update.rollout_id].append(update)
    for rollout_id, updates in changed.items():
        tx.change_tallies(rollout_id, machine.tally_changes([before[item.id] for item in updates], updates))
        done.rollouts.add(rollout_id)
