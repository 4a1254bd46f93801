"""A device that asks: the same trigger as by push, handed over at most where a halt did not have it first."""

from __future__ import annotations

import pytest

from orchestrator import verifier
from orchestrator.core.model import Delivery, Rollout, UpdateState
from orchestrator.core.rollout import Command
from orchestrator.engine.offers.polling import Answer, give
from orchestrator.ports import DeliveryKind, DeliveryState
from orchestrator.wire.report import Kind
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant, claims_of, make_verifier

S, D, C = UpdateState, DeliveryState, Command
SOON = Answer(retry_after_s=2)


async def offered(it: Plant, delivery: Delivery, count: int = 2) -> Rollout:
    """Return a rollout whose first triggers are planned."""
    await it.enrol(count)
    return await it.running(make_plan((REST,), delivery=delivery))


async def ends(it: Plant, rollout: Rollout) -> list[DeliveryState]:
    return [item.state for item in await it.parcels(rollout)]


async def test_who_has_nothing_to_get_gets_nothing_and_nothing_is_written(it: Plant) -> None:
    await it.enrol(1)
    it.store.transactions = 0
    assert await it.poll("d000") == Answer()
    await offered(it, Delivery.PUSH, 1)
    await it.seal()
    it.store.transactions = 0
    assert await it.poll("d000") == Answer()
    assert it.store.transactions == 0


async def test_a_trigger_that_is_being_made_is_asked_for_again_soon(it: Plant) -> None:
    await offered(it, Delivery.HYBRID)
    it.store.transactions = 0
    assert await it.poll("d000") == SOON
    assert it.store.transactions == 0


async def test_a_poll_only_trigger_is_handed_over_and_never_published(it: Plant) -> None:
    rollout = await offered(it, Delivery.POLL)
    assert await it.send() == []
    answer = await it.poll("d000")
    [mine, other] = sorted(await it.parcels(rollout), key=lambda item: item.device_id)
    assert (answer.token, mine.state, other.state) == (mine.token, D.SENT, D.SEALED)
    assert answer.brings is not None
    assert (answer.brings.update.id, answer.brings.model, answer.brings.recall) == (mine.update_id, "m1", False)
    verdict = verifier.verify(answer.token.encode(), make_verifier("d000"), int(it.clock()))
    assert verdict.kind == "install"
    it.store.transactions = 0
    assert await it.poll("d000") == answer
    assert it.store.transactions == 0


async def test_both_ways_bring_the_same_token_and_the_device_counts_once(it: Plant) -> None:
    rollout = await offered(it, Delivery.HYBRID, 1)
    await it.seal()
    polled = (await it.poll("d000")).token
    assert await it.dispatch() == []  # the poll had it first
    [update] = await it.updates(rollout)
    await it.say([update], Kind.ACCEPTED)
    await it.say([update], Kind.ACCEPTED)
    assert (await it.poll("d000")).token == polled
    await it.confirm([update])
    rollout = await it.advance(rollout)
    tally = await it.store.read(lambda tx: tx.tally(rollout.id))
    assert {(key.state, count) for key, count in tally.items()} == {("confirmed", 1)}
    assert await it.poll("d000") == Answer()


async def test_what_was_pushed_is_the_answer_to_a_poll(it: Plant) -> None:
    await offered(it, Delivery.HYBRID, 1)
    [(_, pushed, _)] = await it.send()
    assert (await it.poll("d000")).token == pushed.decode()


async def test_what_a_halt_withdrew_is_not_handed_over(it: Plant) -> None:
    rollout = await offered(it, Delivery.POLL)
    await it.seal()
    assert (await it.poll("d000")).token
    await it.command(rollout, C.PAUSE)
    assert sorted(await ends(it, rollout)) == [D.SENT, D.VOID]
    assert await it.states(rollout) == {"offered": 1, "pending": 1}
    assert (await it.poll("d000")).token
    assert await it.poll("d001") == Answer()


async def test_a_recall_is_the_answer_while_one_is_under_way(it: Plant) -> None:
    rollout = await offered(it, Delivery.POLL, 1)
    await it.seal()
    install = (await it.poll("d000")).token
    await it.command(rollout, C.HALT)
    assert await it.poll("d000") == SOON
    await it.seal()
    recall = (await it.poll("d000")).token
    assert claims_of(recall)["tok"] == verifier.token_hash(install.split("\n")[0].encode())
    device = make_verifier("d000", seq=claims_of(install)["seq"])
    assert verifier.verify(recall.encode(), device, int(it.clock())).kind == "recall"
    await it.say(await it.updates(rollout), Kind.RECALLED)
    assert await it.poll("d000") == Answer()
    assert [item.state for item in await it.parcels(rollout, DeliveryKind.CANCEL)] == [D.SENT]


async def test_an_expired_trigger_is_made_again_for_the_same_attempt(it: Plant) -> None:
    it.settings.lifetime_s = 100
    await it.restart()
    rollout = await offered(it, Delivery.POLL, 1)
    await it.seal()
    first = (await it.poll("d000")).token
    it.clock.advance(101)
    it.planned.clear()
    assert await it.poll("d000") == Answer(retry_after_s=2, planned=True)
    assert await it.poll("d000") == SOON
    await it.seal()
    second = (await it.poll("d000")).token
    assert claims_of(second)["att"] == claims_of(first)["att"]
    assert claims_of(second)["seq"] > claims_of(first)["seq"]
    assert len(await it.parcels(rollout)) == 2
    assert await it.states(rollout) == {"offered": 1}


async def test_a_sealed_trigger_that_expired_unseen_is_made_again(it: Plant) -> None:
    it.settings.lifetime_s = 100
    await it.restart()
    rollout = await offered(it, Delivery.POLL, 1)
    await it.seal()
    it.clock.advance(101)
    assert (await it.poll("d000")).planned
    await it.seal()
    assert (await it.poll("d000")).token
    assert await ends(it, rollout) == [D.SEALED, D.SENT]


async def test_a_device_that_began_with_an_expired_trigger_goes_on_without_another(it: Plant) -> None:
    it.settings.lifetime_s = 100
    await it.restart()
    rollout = await offered(it, Delivery.POLL, 1)
    await it.seal()
    await it.poll("d000")
    await it.say(await it.updates(rollout), Kind.ACCEPTED)
    it.clock.advance(101)
    answer = await it.poll("d000")
    assert answer == Answer(brings=answer.brings)
    assert answer.brings is not None
    assert answer.brings.update.device_id == "d000"
    assert len(await it.parcels(rollout)) == 1


async def test_a_paused_rollout_makes_nothing_again(it: Plant) -> None:
    it.settings.lifetime_s = 100
    await it.restart()
    rollout = await offered(it, Delivery.POLL, 1)
    await it.seal()
    await it.poll("d000")
    await it.command(rollout, C.PAUSE)
    it.clock.advance(101)
    await it.poll("d000")
    assert await ends(it, rollout) == [D.SENT]


async def test_an_unreached_device_that_asks_comes_back(it: Plant) -> None:
    rollout = await offered(it, Delivery.HYBRID, 1)
    await it.send()
    it.clock.advance(90_000)
    await it.recorder.judge_silence_once()
    assert await it.poll("d000") == Answer(retry_after_s=2, rollouts=frozenset({rollout.id}))
    assert await it.states(rollout) == {"pending": 1}
    await it.advance(rollout)
    await it.seal()
    assert (await it.poll("d000")).token
    await it.tallies_hold(rollout)


@pytest.mark.parametrize("command", [C.ABORT, None])
async def test_a_rollout_that_is_over_takes_nobody_back(it: Plant, command: Command | None) -> None:
    await it.enrol(2)
    rollout = await it.running(make_plan((REST,), (0.99,)))
    await it.send()
    [one, _] = sorted(await it.updates(rollout), key=lambda item: item.device_id)
    await it.confirm([one])
    it.clock.advance(90_000)
    await it.recorder.judge_silence_once()
    rollout = await it.command(rollout, command) if command else await it.advance(rollout)
    assert rollout.phase.value == ("aborted" if command else "done")
    assert await it.poll("d001") == Answer()
    assert await it.states(rollout) == {"confirmed": 1, "unreached": 1}


async def test_the_update_that_is_in_flight_is_the_answer(it: Plant) -> None:
    """An older rollout that never reached the device stands behind the one that is under way."""
    old = await offered(it, Delivery.HYBRID, 1)
    await it.send()
    await it.command(old, C.HALT)
    new = await it.running(make_plan((REST,), name="summer", release="radio-3.0.0"), rel=3)
    assert await it.states(new) == {"pending": 1}
    await it.seal()
    answer = await it.poll("d000")
    assert (claims_of(answer.token)["act"], claims_of(answer.token)["cid"]) == ("cancel", str(old.id))


async def test_a_race_that_was_lost_to_a_halt_ends_in_nothing(it: Plant) -> None:
    """The look found a sealed trigger, but the write comes after the halt."""
    rollout = await offered(it, Delivery.POLL, 1)
    await it.seal()
    device = await it.store.read(lambda tx: tx.device("d000"))
    assert device is not None
    await it.command(rollout, C.HALT)
    assert await it.write(lambda tx: give(tx, device, it.clock())) == Answer()
    assert await ends(it, rollout) == [D.VOID]


async def test_a_trigger_that_could_not_be_made_is_not_handed_over(it: Plant) -> None:
    rollout = await offered(it, Delivery.POLL, 1)
    [parcel] = await it.parcels(rollout)
    await it.write(lambda tx: tx.settle([parcel.id], D.VOID, it.clock()))
    assert await it.poll("d000") == SOON


async def test_a_trigger_of_which_nobody_knows_whether_it_arrived_is_made_again(it: Plant) -> None:
    rollout = await offered(it, Delivery.HYBRID, 1)
    [(_, pushed, _)] = await it.send()
    [parcel] = await it.parcels(rollout)
    await it.write(lambda tx: tx.settle([parcel.id], D.UNKNOWN, it.clock()))
    assert await it.poll("d000") == SOON  # it may still be on its way
    it.clock.advance(11)
    assert await it.poll("d000") == Answer(retry_after_s=2, planned=True)
    await it.seal()
    again = (await it.poll("d000")).token
    assert claims_of(again)["att"] == claims_of(pushed.decode())["att"]
