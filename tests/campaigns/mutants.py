"""Engines that are broken on purpose: campaigns that do not find each of them would prove nothing.

Rules:
- Each is one function, named after what it makes the engine do.
- `SEEN` says in which campaign each was last seen, where the search for it begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.adapters.store.outbox import SqlOutbox
from orchestrator.adapters.store.updates import SqlUpdates
from orchestrator.core import rollout as machine
from orchestrator.core import update as update_machine
from orchestrator.core.judging import evidence, judgement
from orchestrator.core.judging import outside as service
from orchestrator.core.model import Phase, Rollout, TallyKey, Update, UpdateState
from orchestrator.core.pace import hold, requirement, retry
from orchestrator.engine.offers import allowance, dispatcher, holds, polling
from orchestrator.engine.reports import folding, outage, recorder
from orchestrator.engine.reports.folding import Recorded
from orchestrator.engine.reports.hearing import Hearing
from orchestrator.engine.rollouts import editing, effects, rollback
from orchestrator.ports import DeliveryState, Parcel, Tx

Patch = pytest.MonkeyPatch
Mutant = Callable[[Patch], None]


def claim_without_looking(patch: Patch) -> None:
    """Claim what was read with the batch before, whatever became of its rollout since."""
    claim, ahead = SqlOutbox.claim, list[Parcel]()

    def eager(self: SqlOutbox, limit: int, now: float) -> list[Parcel]:
        if not ahead:
            ahead.extend(claim(self, 3 * limit, now))
            self.settle([item.id for item in ahead[limit:]], DeliveryState.SEALED, now)
        taken = ahead[:limit]
        del ahead[:limit]
        self.settle([item.id for item in taken], DeliveryState.CLAIMED, now)
        return taken

    patch.setattr(SqlOutbox, "claim", eager)


def forget_a_tally(patch: Patch) -> None:
    """Count no change that concerns a single device."""
    change = folding._change_tallies

    def forgetful(tx: Tx, before: Mapping[int, Update], after: Mapping[int, Update], done: Recorded) -> None:
        if len(after) != 1:
            change(tx, before, after, done)

    patch.setattr(folding, "_change_tallies", forgetful)


def offer_beyond_the_slots(patch: Patch) -> None:
    """Offer the release to one device more than was decided."""
    offer = effects.offer

    def generous(tx: Tx, rollout: Rollout, count: int, *others: Any) -> Any:
        return offer(tx, rollout, count + 1, *others)

    patch.setattr(effects, "offer", generous)


def ignore_in_flight(patch: Patch) -> None:
    """Begin with as many slots as there are devices."""
    patch.setattr(judgement, "slots", lambda plan, confirmed: 10_000)


def void_nothing(patch: Patch) -> None:
    """Leave what is queued where it is when a rollout stops."""
    patch.setattr(effects, "withdraw", lambda tx, rollout, now: None)


def recall_nobody(patch: Patch) -> None:
    """Halt and abort without a recall."""
    patch.setattr(effects, "recall", lambda tx, rollout, updates, now: None)


def tell_nobody(patch: Patch) -> None:
    """Note that devices are recalled, and plan no recall for them."""

    def quiet(tx: Tx, rollout: Rollout, updates: Iterable[Update], now: float) -> None:
        facts = [(item, update_machine.Fact(update_machine.FactKind.RECALL)) for item in updates]
        folding.fold(tx, facts, now, Recorded())

    patch.setattr(effects, "recall", quiet)


def forget_the_ceiling(patch: Patch) -> None:
    """Count no offer against the blast ceiling."""
    patch.setattr(allowance, "book", lambda tx, count, now: None)


def store_no_report(patch: Patch) -> None:
    """Acknowledge what was not stored."""

    async def nothing(self: recorder.Recorder, sayings: Iterable[object]) -> None:
        return

    patch.setattr(recorder.Recorder, "_store_surely", nothing)


def acknowledge_before_storing(patch: Patch) -> None:
    """Acknowledge what arrived at once, and store it if all goes well."""
    record = recorder.Recorder._record

    async def hasty(self: recorder.Recorder, sayings: Any) -> None:
        self._bus.ack(list(self._bus._unacked.values()))  # type: ignore[attr-defined]
        await record(self, sayings)

    patch.setattr(recorder.Recorder, "_record", hasty)


def remember_what_was_not_committed(patch: Patch) -> None:
    """Take updates as they were in a transaction that was rolled back."""
    save = SqlUpdates.save_updates

    def saving(self: SqlUpdates, updates_: Iterable[Update], slots: Any = None) -> None:
        changed = list(updates_)
        save(self, changed, slots)
        if self._recent is not None:
            self._recent.commit(changed)

    patch.setattr(SqlUpdates, "save_updates", saving)


def lose_the_last_update(patch: Patch) -> None:
    """Of several updates that one transaction changes, write all but the last."""
    save = SqlUpdates.save_updates

    def losing(self: SqlUpdates, updates_: Iterable[Update], slots: Any = None) -> None:
        changed = list(updates_)
        save(self, changed[: max(1, len(changed) - 1)], slots)

    patch.setattr(SqlUpdates, "save_updates", losing)


def forget_what_was_claimed(patch: Patch) -> None:
    """Begin after a crash as if nothing had been on its way."""
    patch.setattr(dispatcher, "_sort_out", lambda tx, now: [])


def publish_what_was_stopped(patch: Patch) -> None:
    """After a crash, publish again whatever was claimed, whatever became of its rollout."""
    patch.setattr(dispatcher, "_sort_out", lambda tx, now: tx.claimed())


def skip_the_e_process(patch: Patch) -> None:
    """Let no e-value halt anything."""
    patch.setattr(evidence.Evidence, "halts", property(lambda self: False))


def skip_the_lost(patch: Patch) -> None:
    """Let no device that is lost after the reboot halt anything by itself."""
    patch.setattr(judgement, "lost_limit", lambda rollout, tally: None)


def count_retries_twice(patch: Patch) -> None:
    """Count a device that will try again as a failure too."""
    counted = update_machine._counted

    def twice(epoch: int, stage: int, stratum: str, state: UpdateState, *others: Any) -> tuple[TallyKey, ...]:
        more = (TallyKey(epoch, stage, stratum, UpdateState.FAILED),) if state is UpdateState.RETRYING else ()
        return counted(epoch, stage, stratum, state, *others) + more

    patch.setattr(update_machine, "_counted", twice)


def forget_failures_after_a_retry(patch: Patch) -> None:
    """Wipe out what a device did when a person gives it another attempt."""
    apply = update_machine.apply

    def wiping(*given: Any) -> Any:
        result = apply(*given)
        return result._replace(failed_epoch=None) if isinstance(result, Update) else result

    patch.setattr(update_machine, "apply", wiping)


def retry_for_ever(patch: Patch) -> None:
    """Give attempts without end."""
    next_attempt = retry.next_attempt

    def endless(policy: Any, code: str, attempt: int, *others: Any) -> Any:
        return next_attempt(policy, code, 1, *others)

    patch.setattr(update_machine, "next_attempt", endless)


def resume_in_the_same_epoch(patch: Patch) -> None:
    """Go on after a halt with the evidence that halted."""
    resume = machine._resume

    def same(rollout: Rollout, *others: Any) -> machine.Decision:
        decision = resume(rollout, *others)
        return replace(decision, rollout=replace(decision.rollout, epoch=rollout.epoch))

    patch.setattr(machine, "_resume", same)


def resume_by_itself(patch: Patch) -> None:
    """Go on after a pause without a person."""
    step = judgement.step

    def eager(rollout: Rollout, *others: Any, **named: Any) -> Any:
        if rollout.phase is Phase.PAUSED:
            rollout = replace(rollout, phase=Phase.RUNNING, version=rollout.version + 1)
        return step(rollout, *others, **named)

    patch.setattr(judgement, "step", eager)


def ignore_windows(patch: Patch) -> None:
    """Offer at every hour."""
    patch.setattr(hold, "shut", lambda plan, zone, now: None)


def seal_beyond_the_hours(patch: Patch) -> None:
    """Sign triggers that are good when hours are closed."""
    patch.setattr(holds, "closes_at", lambda tx, rollout, device_ids, now: {})


def answer_at_every_hour(patch: Patch) -> None:
    """Answer polls while hours are closed."""
    patch.setattr(polling, "_is_shut", lambda tx, update, now: False)


def ask_no_user(patch: Patch) -> None:
    """Ask nobody for consent."""
    patch.setattr(requirement, "awaits", lambda rule, wish, now: None)


def require_nothing(patch: Patch) -> None:
    """Look at no battery."""
    patch.setattr(requirement, "unmet", lambda require, condition, size_bytes, now: ())


def soak_nothing(patch: Patch) -> None:
    """Pass a stage as soon as it is resolved."""
    patch.setattr(judgement, "soak_s", lambda rollout: 0.0)


def pass_unproven(patch: Patch) -> None:
    """Pass a stage whose evidence is not enough."""
    patch.setattr(evidence.Bound, "holds", property(lambda self: True))


def ask_no_service(patch: Patch) -> None:
    """Pass stages whatever a service says."""
    patch.setattr(service, "holds", lambda gate, answer, stage, since, now: None)


def approve_by_itself(patch: Patch) -> None:
    """Pass stages for which the plan wants a person."""
    passing = judgement._pass

    def alone(rollout: Rollout, why: Any, answer: Any, since: float, now: float) -> Any:
        decision = passing(rollout, why, answer, since, now)
        return judgement._next_stage(rollout, now, why) if decision.reason.code == "manual_gate" else decision

    patch.setattr(judgement, "_pass", alone)


def go_on_in_an_outage(patch: Patch) -> None:
    """Judge silence and offer while half of the fleet is gone."""
    patch.setattr(outage, "lasts", lambda tx, now: False)
    patch.setattr(allowance, "outside_of", lambda tx, rollout: service.Outside())


def judge_silence_while_deaf(patch: Patch) -> None:
    """Take silence for an answer while there is no link."""
    patch.setattr(Hearing, "__call__", lambda self: True)


def overwrite_edits(patch: Patch) -> None:
    """Let the second of two who edit at once win."""
    compare = editing._compare
    patch.setattr(editing, "_compare", lambda tx, wanted: compare(tx, replace(wanted, expect=None)))


def roll_back_what_runs(patch: Patch) -> None:
    """Draft a rollback of a rollout that still brings its release."""
    patch.setattr(rollback, "_STOPPED", frozenset(Phase))


def give_numbers_out_again(patch: Patch) -> None:
    """Take sequence numbers from what is sealed, so that a crash gives them out once more."""
    reserve = SqlOutbox.reserve
    patch.setattr(SqlOutbox, "reserve", lambda self, count: reserve(self, count) - 1)


MUTANTS: list[Mutant] = [
    claim_without_looking,
    forget_a_tally,
    offer_beyond_the_slots,
    ignore_in_flight,
    void_nothing,
    recall_nobody,
    tell_nobody,
    forget_the_ceiling,
    store_no_report,
    remember_what_was_not_committed,
    lose_the_last_update,
    forget_what_was_claimed,
    skip_the_e_process,
    skip_the_lost,
    count_retries_twice,
    forget_failures_after_a_retry,
    retry_for_ever,
    resume_in_the_same_epoch,
    resume_by_itself,
    ignore_windows,
    seal_beyond_the_hours,
    answer_at_every_hour,
    ask_no_user,
    require_nothing,
    soak_nothing,
    pass_unproven,
    ask_no_service,
    approve_by_itself,
    go_on_in_an_outage,
    judge_silence_while_deaf,
    overwrite_edits,
    roll_back_what_runs,
    give_numbers_out_again,
]

SEEN = {
    "answer_at_every_hour": 91,
    "forget_what_was_claimed": 40,
    "approve_by_itself": 46,
    "ask_no_service": 30,
    "judge_silence_while_deaf": 12,
    "require_nothing": 6,
    "go_on_in_an_outage": 4,
}
