"""What the recorder does inside its transaction: reports, hellos and silence become facts.

Rules:
- Everything of one batch is folded together; see `folding`.
- A report about something unknown, or of somebody else, is counted and dropped; it is never an error.
- A report about a move of endpoints says nothing of the firmware, and one about firmware nothing of the endpoints.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from msgspec import structs

from orchestrator.core import rollout as rollout_machine
from orchestrator.core.model import Delivery, Phase, Rollout, Update, UpdateState
from orchestrator.core.pace.hold import Hold
from orchestrator.core.reason import counted
from orchestrator.core.trust.audit import names_hash
from orchestrator.core.update import IN_FLIGHT, Fact, FactKind
from orchestrator.engine.offers import holds
from orchestrator.engine.reports import outage, outcomes, refusals, situations
from orchestrator.engine.reports.doubt import TOO_SOON, Doubt
from orchestrator.engine.reports.folding import Recorded, fold
from orchestrator.engine.reports.outage import STANDARD, Loss
from orchestrator.engine.rollouts import operations, quarantine
from orchestrator.ports import EXPOSED, QUEUED, DeliveryKind, DeliveryState, Parcel, Tx
from orchestrator.wire.report import Hello, Kind, Report, State

NEW_KEYS = "new_keys"
"""With this code a device says that it gave an attempt up because it took a new keyset."""

MOST_OFFERS = 8
"""A device that left so many triggers of one attempt unanswered stays unreached, or it would be offered it for ever."""

REPEAT_AFTER_S = 10.0
"""A device that greets again gets its trigger again, but not more often than this."""

_FACTS = {kind: FactKind(kind.value) for kind in Kind}
_PROOF = frozenset({Kind.RUNNING, Kind.CONFIRMED, Kind.ROLLED_BACK})
_RUNS = (UpdateState.RUNNING, UpdateState.CONFIRMED)
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


_RolloutOf = Callable[[int], Rollout | None]


class _Said(NamedTuple):
    """A report about an update of its sender."""

    update: Update
    attempt: int
    report: Report


def record(tx: Tx, batch: Batch, now: float, *, enrol: bool, loss: Loss = STANDARD) -> Recorded:
    """Store a batch of what devices said and fold it into their updates.

    Args:
        tx: the transaction.
        batch: what arrived.
        now: present time.
        enrol: whether a hello may register a device.
        loss: how many devices that go away together make an outage.
    """
    done = Recorded()
    strangers = _strangers(tx, batch.hellos) if enrol else set()
    known = tx.greet(batch.hellos, now, enrol=enrol)
    if strangers:
        said = {"count": len(strangers), "new": len(strangers), "sha256": names_hash(strangers)}
        tx.audit(operations.HELLO, "devices.enrolled", counted(len(strangers), "device"), said, now)
    done.unknown = {hello.dev for hello in batch.hellos} - known
    outage.watch(tx, batch.states, now, loss)
    tx.mark_online(batch.states, now)
    moving = _record_reports(tx, batch.reports, now, done)
    _judge_outcomes(tx, [hello for hello in batch.hellos if hello.dev in known], now, done)
    _judge_health(tx, [hello for hello in batch.hellos if hello.metrics and hello.dev in known], now, done)
    of_firmware = [structs.replace(item, rel=None) if item.att in moving else item for item in batch.reports]
    done.rollouts |= situations.learn(tx, (*batch.hellos, *of_firmware), now)
    _greet_again(tx, known, now, done)  # by what they say now
    return done


def _strangers(tx: Tx, hellos: Sequence[Hello]) -> set[str]:
    """Return who says hello without being registered."""
    named = {hello.dev for hello in hellos}
    return named - {device.id for device in tx.devices_named(named)}


def record_silence(tx: Tx, now: float, limit: int) -> Recorded:
    """Judge the silence of up to `limit` devices whose deadline has passed; none in an outage."""
    done = Recorded()
    if outage.lasts(tx, now):
        return done
    overdue = tx.overdue(now, limit)
    over = {item.id for item in tx.rollouts(rollout_machine.FINISHED)}
    ended = [item for item in overdue if item.state not in IN_FLIGHT and item.rollout_id in over]
    tx.save_updates([item._replace(deadline_at=None) for item in ended], ())  # nobody tries again what is over
    left = {item.id for item in ended}
    facts = [(item, outcomes.overdue(item)) for item in overdue if item.id not in left]
    changed = fold(tx, facts, now, done)
    quarantine.after_failures(tx, {item.id: item for item in overdue}, changed, now)
    done.judged = len(overdue)
    return done


def _record_reports(tx: Tx, reports: Sequence[Report], now: float, done: Recorded) -> set[str]:
    """Record reports; returns the attempts at a move about which devices said facts of their own."""
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
    rollout_of = cache(tx.rollout)
    believed = _drop_unbelievable(tx, fresh, now, done, rollout_of)
    changed = fold(tx, _facts(tx, believed), now, done)
    quarantine.after_failures(tx, updates, changed, now)
    _return_late_answers(tx, updates, changed, now, done)
    proofs = [said for said in fresh if said.report.kind in _PROOF and said.report.rel is not None]
    moved = {said.report.att for said in proofs if _is_move(said, rollout_of)}
    tx.mark_running([said.report for said in proofs if said.report.att not in moved], now)
    tx.mark_moved([said.report for said in proofs if said.report.att in moved], now)
    return {said.report.att for said in accepted if said.report.facts is not None and _is_move(said, rollout_of)}


def _is_move(said: _Said, rollout_of: _RolloutOf) -> bool:
    rollout = rollout_of(said.update.rollout_id)
    return rollout is not None and rollout.moves


def _drop_repeated(tx: Tx, accepted: Sequence[_Said], now: float) -> list[_Said]:
    """Store the reports and return those that are new. Progress moves a number only; it keeps no line."""
    lasting = [said.report for said in accepted if said.report.kind is not Kind.PROGRESS]
    news = iter(tx.add_reports(lasting, now))
    return [said for said in accepted if said.report.kind is Kind.PROGRESS or next(news)]


def _drop_unbelievable(
    tx: Tx, fresh: Sequence[_Said], now: float, done: Recorded, rollout_of: _RolloutOf
) -> list[_Said]:
    doubt = Doubt(tx, now, rollout_of)
    believed = [said for said in fresh if doubt.believes(*said)]
    if len(believed) < len(fresh):
        done.ignored[TOO_SOON] += len(fresh) - len(believed)
    return believed


def _facts(tx: Tx, fresh: Iterable[_Said]) -> Iterator[tuple[Update, Fact]]:
    for update, attempt, report in fresh:
        if update.state is UpdateState.PENDING and attempt == update.attempt and _was_exposed(tx, update):
            yield update, Fact(FactKind.OFFER)  # it speaks of a trigger that it did get, before it was pending again
        yield update, _fact(report, attempt)


def _was_exposed(tx: Tx, update: Update) -> bool:
    return any(
        item.kind is DeliveryKind.INSTALL and item.state in EXPOSED and item.attempt == update.attempt
        for item in tx.parcels(update.id)
    )


def _return_late_answers(
    tx: Tx, before: Mapping[int, Update], after: Mapping[int, Update], now: float, done: Recorded
) -> None:
    """A device that gave up what its rollout still wants is pending again.

    It answered its recall when the rollout ran again, or it took a new keyset, which ends what older keys had begun.
    """
    recalled = [update for update in after.values() if update.state is UpdateState.RECALLED]
    parcels = {update.id: tx.parcels(update.id) for update in recalled}
    _void_recalls(tx, [parcel for sent in parcels.values() for parcel in sent], now)
    late = [
        update
        for update in recalled
        if _was_recalled(before[update.id], parcels[update.id])
        or (update.code == NEW_KEYS and _keys_are_newer(tx, parcels[update.id]))
    ]
    wanted = [item for item in late if _is_wanted(tx, item)]
    fold(tx, [(item, Fact(FactKind.RETURN)) for item in wanted], now, done)


def _is_wanted(tx: Tx, update: Update) -> bool:
    """Say whether its rollout runs, and the device did not refuse it for good before it answered its recall."""
    rollout = tx.rollout(update.rollout_id)
    return rollout is not None and _is_running(rollout) and not refusals.is_final(tx, rollout, update)


def _was_recalled(update: Update, parcels: Sequence[Parcel]) -> bool:
    """Say whether a recall is the last that was planned for it; else its word would burn offers."""
    last = parcels[-1:]  # who was kept from it before any offer has none
    return update.state is UpdateState.RECALLING or any(item.kind is DeliveryKind.CANCEL for item in last)


def _void_recalls(tx: Tx, parcels: Sequence[Parcel], now: float) -> None:
    """Void recalls that still wait though they were answered: what came back to them would end the next offer."""
    moot = [item.id for item in parcels if item.kind is DeliveryKind.CANCEL and item.state in QUEUED]
    tx.settle(moot, DeliveryState.VOID, now)


def _keys_are_newer(tx: Tx, parcels: Sequence[Parcel]) -> bool:
    """Say whether a keyset was taken since the device was offered the release; else its word would burn offers."""
    planned = [item.planned_at for item in parcels if item.kind is DeliveryKind.INSTALL]
    return bool(planned) and planned[-1] <= tx.keyset_taken_at()


def _is_running(rollout: Rollout | None) -> bool:
    return rollout is not None and rollout.phase is Phase.RUNNING


def _fact(report: Report, attempt: int) -> Fact:
    return Fact(
        kind=_FACTS[report.kind],
        attempt=attempt,
        code=report.code,
        rel=report.rel,
        progress=100 if report.kind is Kind.DOWNLOADED else report.pct or 0,
        metrics=tuple(report.metrics.items()),
    )


def _judge_outcomes(tx: Tx, hellos: Sequence[Hello], now: float, done: Recorded) -> None:
    """What a device runs says what became of its update, where it does not say so itself."""
    facts = outcomes.shown(tx, hellos, now)
    changed = fold(tx, facts, now, done)
    quarantine.after_failures(tx, {item.id: item for item, _ in facts}, changed, now)


def _judge_health(tx: Tx, hellos: Sequence[Hello], now: float, done: Recorded) -> None:
    """A device that runs a release on its way and measures itself as sick has failed, or relapses."""
    if not hellos:
        return
    latest = {hello.dev: hello for hello in hellos}
    measured = [rollout for rollout in tx.rollouts(rollout_machine.UNFINISHED) if rollout.plan.health]
    live, moving = {item.id for item in measured}, {item.id for item in measured if item.moves}
    on_trial = [item for item in tx.updates_of(latest, _RUNS) if item.rollout_id in live] if live else []
    facts = [
        (item, Fact(FactKind.RUNNING, rel=item.rel, metrics=tuple(latest[item.device_id].metrics.items())))
        for item in on_trial
        if outcomes.said_rel(latest[item.device_id], moves=item.rollout_id in moving) == item.rel
    ]
    changed = fold(tx, facts, now, done)
    quarantine.after_failures(tx, {item.id: item for item in on_trial}, changed, now)


def _greet_again(tx: Tx, device_ids: set[str], now: float, done: Recorded) -> None:
    """A device that is back gets a trigger that it may have missed, as a refresh of the same attempt."""
    if not device_ids:
        return
    live = {rollout.id for rollout in tx.rollouts(rollout_machine.UNFINISHED)}
    back = [item for item in tx.updates_of(device_ids, _MAY_RETURN) if item.rollout_id in live]
    held = _held(tx, [item for item in back if item.state is UpdateState.UNREACHED], now)
    free = [item for item, found in held if _is_free(item, found)]
    fold(tx, [(item, Fact(FactKind.RETURN)) for item in free if not _is_offered_enough(tx, item)], now, done)
    kept = [(item, found) for item, found in held if found is not None and not _is_free(item, found)]
    holds.call_back(tx, [(item, found) for item, found in kept if not _is_offered_enough(tx, item)])
    by_rollout: defaultdict[int, list[Update]] = defaultdict(list)
    for item in back:
        if item.state is UpdateState.OFFERED and now - item.state_at >= REPEAT_AFTER_S:
            by_rollout[item.rollout_id].append(item)
    for rollout_id, items in by_rollout.items():
        done.planned |= reissue(tx, rollout_id, items, now)
    done.planned |= _recall_again(tx, device_ids, now)


def may_return(tx: Tx, update: Update, now: float) -> bool:
    """Say whether a device that is back may have the release, which it left unanswered or was kept from before."""
    [(_, found)] = _held(tx, [update], now)
    return _is_free(update, found) and not _is_offered_enough(tx, update)


def _held(tx: Tx, updates: Sequence[Update], now: float) -> list[tuple[Update, Hold | None]]:
    """Return updates with what holds their devices, which is judged once for each rollout."""
    by_rollout: defaultdict[int, list[Update]] = defaultdict(list)
    for item in updates:
        by_rollout[item.rollout_id].append(item)
    found: dict[int, Hold] = {}
    for rollout_id, items in by_rollout.items():
        rollout = tx.rollout(rollout_id)
        assert rollout is not None, "an update always belongs to a rollout"
        found |= holds.judge(tx, rollout, items, now)
    return [(item, found.get(item.id)) for item in updates]


def _is_free(update: Update, found: Hold | None) -> bool:
    """Say whether a device may be pending again; else its polls, or what it says by turns, would hold up its stage."""
    return found is None or not (found.has_no_end or update.code)  # with a code it was kept from it, and waited for


def _is_offered_enough(tx: Tx, update: Update) -> bool:
    offers = [
        item
        for item in tx.parcels(update.id)
        if item.kind is DeliveryKind.INSTALL and item.state in EXPOSED and item.attempt == update.attempt
    ]
    return len(offers) >= MOST_OFFERS


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
    shut = holds.shut(tx, rollout, updates, now)
    missed = [item for item in updates if item.device_id not in shut and _is_missed(tx.parcels(item.id), now)]
    push = rollout.plan.delivery is not Delivery.POLL
    tx.plan(DeliveryKind.INSTALL, missed, rollout.version, now, push=push)
    return bool(missed)


def _is_missed(parcels: Sequence[Parcel], now: float) -> bool:
    if not parcels or now - parcels[-1].planned_at < REPEAT_AFTER_S:
        return False
    last = parcels[-1]
    waits = last.state is DeliveryState.SEALED and (last.expires_at or 0.0) > now
    return not waits and last.state is not DeliveryState.PLANNED
