"""The dispatcher: what reaches the broker, in which order, and what a crash or a halt leaves of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from orchestrator.core.model import Delivery, Phase, Rollout, UpdateState
from orchestrator.core.rollout import Command
from orchestrator.ports import DeliveryKind, DeliveryState, Lane, Parcel
from orchestrator.wire.report import Kind
from tests.support.builders import REST, make_plan
from tests.support.clock import running, until
from tests.support.factory import Plant, claims_of

S, D, C = UpdateState, DeliveryState, Command
CANCEL = DeliveryKind.CANCEL
Sent = Sequence[tuple[str, bytes, int]]


async def sealed(it: Plant, count: int = 10, delivery: Delivery = Delivery.HYBRID) -> Rollout:
    """Return a rollout whose first triggers are sealed."""
    await it.enrol(count)
    rollout = await it.running(make_plan((REST,), delivery=delivery))
    await it.seal()
    return rollout


async def claimed(it: Plant, rollout: Rollout, count: int) -> list[Parcel]:
    """Claim deliveries and crash."""
    found: list[Parcel] = await it.store.transact(Lane.OPERATOR, lambda tx: tx.claim(count, it.clock()))
    await it.restart()
    return found


def seqs(sent: Sent) -> list[int]:
    return [claims_of(payload)["seq"] for _, payload, _ in sent]


async def published(it: Plant, count: int) -> None:
    await until(lambda: len(it.bus.published) >= count)


async def ends(it: Plant, rollout: Rollout, kind: DeliveryKind = DeliveryKind.INSTALL) -> list[DeliveryState]:
    return [item.state for item in await it.parcels(rollout, kind)]


async def test_deliveries_go_out_in_the_order_of_their_numbers(it: Plant) -> None:
    rollout = await sealed(it)
    it.clock.advance(400)
    sent = await it.dispatch()
    assert seqs(sent) == list(range(1, 11))
    parcels = await it.parcels(rollout)
    assert [(topic, payload.decode(), expiry_s) for topic, payload, expiry_s in sent] == [
        (f"ota/v1/d/{item.device_id}/cmd", item.token, 86_000) for item in parcels
    ]
    assert await ends(it, rollout) == [D.SENT] * 10
    assert it.dispatcher.published == 10


async def test_no_more_than_one_batch_is_claimed_at_a_time(it: Plant) -> None:
    it.settings.batch = 4
    await it.restart()
    rollout = await sealed(it)
    on_the_wire: list[int] = []

    def count(topic: str, payload: bytes) -> None:
        on_the_wire.append(it.store.transactions)

    it.bus.on_publish = count
    await it.dispatch()
    batches = [on_the_wire.count(transaction) for transaction in sorted(set(on_the_wire))]
    assert batches == [4, 4, 2]
    assert await ends(it, rollout) == [D.SENT] * 10


async def test_what_waits_for_polls_is_never_published(it: Plant) -> None:
    rollout = await sealed(it, 3, Delivery.POLL)
    assert await it.dispatch() == []
    assert await ends(it, rollout) == [D.SEALED] * 3


async def test_a_halt_while_publishing_leaves_at_most_the_batch_on_the_wire(it: Plant) -> None:
    it.settings.batch = 3
    await it.restart()
    rollout = await sealed(it)
    halts: list[asyncio.Future[Rollout]] = []

    def halt(topic: str, payload: bytes) -> None:
        if not halts:
            halts.append(asyncio.ensure_future(it.command(rollout, C.HALT)))

    it.bus.on_publish = halt
    await it.dispatch()
    await halts[0]
    recalls = await it.send()
    installs = seqs(it.bus.published)[: -len(recalls)]
    assert len(installs) <= 2 * 3  # the halt was asked for while the first was on the wire
    assert {claims_of(payload)["act"] for _, payload, _ in recalls} == {"cancel"}
    assert [topic for topic, _, _ in recalls] == [topic for topic, _, _ in it.bus.published[: len(installs)]]
    assert await it.states(rollout) == {"recalling": len(installs), "pending": 10 - len(installs)}


# Crashes between claim and settlement


async def test_after_a_crash_a_running_rollout_gets_the_identical_bytes_again(it: Plant) -> None:
    rollout = await sealed(it)
    lost = await claimed(it, rollout, 3)
    with capture_logs() as logs:
        sent = await it.dispatch()
    assert [payload.decode() for _, payload, _ in sent[:3]] == [item.token for item in lost]
    assert seqs(sent) == list(range(1, 11))
    assert await ends(it, rollout) == [D.SENT] * 10
    assert [(entry["event"], entry["count"]) for entry in logs] == [("deliveries.repeated", 3)]


@pytest.mark.parametrize("command", [C.PAUSE, C.HALT, C.ABORT])
async def test_after_a_crash_a_resting_rollout_recalls_what_may_have_been_sent(it: Plant, command: Command) -> None:
    rollout = await sealed(it)
    lost = await claimed(it, rollout, 3)
    await it.command(rollout, command)
    assert await it.dispatch() == []
    assert sorted(await ends(it, rollout)) == [D.UNKNOWN] * 3 + [D.VOID] * 7
    assert await it.states(rollout) == {"recalling": 3, "pending": 7}
    recalls = await it.send()
    assert [claims_of(payload)["tok"] for _, payload, _ in recalls] == [item.token_hash for item in lost]
    assert await ends(it, rollout, CANCEL) == [D.SENT] * 3
    await it.tallies_hold(rollout)


async def test_after_a_crash_a_device_that_began_is_not_recalled_by_a_pause(it: Plant) -> None:
    rollout = await sealed(it, 2)
    await claimed(it, rollout, 2)
    await it.say((await it.updates(rollout))[:1], Kind.ACCEPTED)
    await it.command(rollout, C.PAUSE)
    await it.dispatch()
    assert await it.states(rollout) == {"accepted": 1, "recalling": 1}


async def test_after_a_crash_a_recall_goes_out_again(it: Plant) -> None:
    rollout = await sealed(it, 2)
    await it.dispatch()
    await it.command(rollout, C.HALT)
    await it.seal()
    lost = await claimed(it, rollout, 2)
    assert [payload.decode() for _, payload, _ in await it.dispatch()] == [item.token for item in lost]


async def test_after_a_long_crash_nothing_expired_is_repeated(it: Plant) -> None:
    rollout = await sealed(it, 2)
    await claimed(it, rollout, 2)
    it.clock.advance(90_000)
    assert await it.dispatch() == []
    assert await ends(it, rollout) == [D.UNKNOWN] * 2
    assert await ends(it, rollout, CANCEL) == []


# The broker


async def test_without_a_link_everything_waits(it: Plant) -> None:
    rollout = await sealed(it, 3)
    it.bus.go_down()
    async with it.dispatching():
        await asyncio.sleep(0.01)
        assert await ends(it, rollout) == [D.SEALED] * 3
        it.bus.come_up()
        await it.until_idle()
    assert await ends(it, rollout) == [D.SENT] * 3


async def test_a_link_that_breaks_keeps_what_was_not_acknowledged_claimed(it: Plant) -> None:
    rollout = await sealed(it, 5)
    it.bus.lose_acks_after = 2
    async with it.dispatching():
        await until(lambda: not it.bus.link)
        while D.SENT not in await ends(it, rollout):
            await asyncio.sleep(0.001)
        assert await ends(it, rollout) == [D.SENT] * 2 + [D.CLAIMED] * 3
        it.bus.come_up()
        await it.until_idle()
    assert seqs(it.bus.published) == [1, 2, 3, 3, 4, 5]
    assert len({payload for _, payload, _ in it.bus.published}) == 5
    assert await ends(it, rollout) == [D.SENT] * 5


async def test_what_the_broker_refuses_holds_up_nothing_else(it: Plant) -> None:
    rollout = await sealed(it, 3)
    it.bus.refused.add("ota/v1/d/d001/cmd")
    with capture_logs() as logs:
        await it.dispatch()
    assert [(entry["event"], entry["count"]) for entry in logs] == [("deliveries.refused", 1)]
    assert len(it.bus.published) == 2
    assert sorted(await ends(it, rollout)) == [D.SENT, D.SENT, D.UNKNOWN]


async def test_a_store_that_is_away_is_waited_for(it: Plant) -> None:
    rollout = await sealed(it, 3)
    it.store.fails = 3
    with capture_logs() as logs:
        await it.dispatch()
    assert [entry["event"] for entry in logs] == ["dispatcher.waits"] * 3
    assert await ends(it, rollout) == [D.SENT] * 3


async def test_what_expired_in_the_queue_is_made_anew(it: Plant) -> None:
    """A device would refuse an expired trigger for good; the new one is the same attempt."""
    it.settings.batch, it.settings.ahead = 2, 4
    await it.restart()
    rollout = await sealed(it, 6)
    it.bus.go_down()
    it.clock.advance(90_000)
    it.bus.come_up()
    assert await it.dispatch() == []
    states = await ends(it, rollout)
    assert (states.count(D.VOID), states.count(D.PLANNED)) == (4, 6)
    sent = await it.send()
    assert sorted(topic for topic, _, _ in sent) == [f"ota/v1/d/d{at:03}/cmd" for at in range(6)]
    assert {claims_of(payload)["exp"] for _, payload, _ in sent} == {int(it.clock()) + 86_400}
    attempts = {item.device_id: f"{item.id}.1" for item in await it.updates(rollout)}
    assert {topic.split("/")[3]: claims_of(payload)["att"] for topic, payload, _ in sent} == attempts


async def test_what_expired_in_the_queue_and_is_not_needed_is_dropped(it: Plant) -> None:
    rollout = await sealed(it, 2)
    it.clock.advance(90_000)
    await it.recorder.judge_silence_once()
    assert await it.states(rollout) == {"unreached": 2}
    assert await it.dispatch() == []
    assert await ends(it, rollout) == [D.VOID] * 2


async def test_the_sealer_and_the_dispatcher_keep_each_other_going(it: Plant) -> None:
    it.settings.batch, it.settings.ahead = 5, 10
    await it.restart()
    await it.enrol(60)
    rollout = await it.create(make_plan((REST,), in_flight=60))
    await it.command(rollout, C.START)
    it.clock.advance(30)
    async with running(it.sealer.run(), it.dispatcher.run()):
        done = 0
        while (rollout := await it.advance(rollout)).phase is not Phase.DONE:
            await published(it, done + 1)
            flying = await it.updates(rollout, S.OFFERED)
            await it.confirm(flying)
            done += len(flying)
    assert seqs(it.bus.published) == sorted(seqs(it.bus.published))
    assert await it.states(rollout) == {"confirmed": 60}
