"""What campaigns have found, each as its shortest story."""

from __future__ import annotations

import asyncio
from pathlib import Path

from orchestrator.core.model import UpdateState
from orchestrator.core.rollout import Command
from orchestrator.engine.rollouts import quarantine
from orchestrator.engine.targeting.joining import Joining
from orchestrator.ports import DeliveryKind, DeliveryState
from orchestrator.wire.report import Hello, Kind, encode
from orchestrator.wire.topics import Channel, uplink
from tests.support.builders import REST, make_plan
from tests.support.clock import running, until
from tests.support.factory import Settings, plant

BATCH = 4
ENOUGH_TURNS = 20


async def test_silence_is_judged_also_when_the_last_batch_was_full(tmp_path: Path) -> None:
    """A full batch says that more may wait. When nothing followed, nobody ever took that back."""
    async with plant(tmp_path, Settings(batch=BATCH)) as it:
        await it.enrol(BATCH)
        rollout = await it.running(make_plan((REST,)))
        await it.send()
        for at in range(BATCH):
            it.bus.deliver(uplink(f"d{at:03}", Channel.HELLO), encode(Hello(1, f"d{at:03}", "m1", rel=1)))
        it.clock.advance(rollout.plan.deadlines.accept_s + 1)
        async with running(it.recorder.listen()):
            await until(lambda: it.recorder.counts["acknowledged"] == BATCH)
            for _ in range(ENOUGH_TURNS):
                await asyncio.sleep(0)
            assert await it.recorder.judge_silence_once()
        assert await it.states(rollout) == {UpdateState.UNREACHED: BATCH}


async def test_nobody_in_quarantine_is_offered_a_release_when_it_is_back(tmp_path: Path) -> None:
    """Who was quarantined while its trigger was out waited for an offer again after a pause, and got it."""
    async with plant(tmp_path) as it:
        await it.enrol(2)
        rollout = await it.running(make_plan((REST,)))
        await it.write(lambda tx: quarantine.enter(tx, ["d000"], "it smells", it.clock(), actor="ann"))
        await it.command(rollout, Command.PAUSE)
        assert await it.states(rollout) == {UpdateState.PENDING: 2}
        await it.command(rollout, Command.RESUME)
        await it.advance(rollout)
        assert await it.states(rollout) == {UpdateState.OFFERED: 1, UpdateState.SUPERSEDED: 1}


async def test_devices_join_a_last_stage_that_a_person_lets_pass(tmp_path: Path) -> None:
    """They were to be taken in and were not, as if nobody were wanted any more: looked for again, for ever."""
    async with plant(tmp_path) as it:
        await it.enrol(2)
        rollout = await it.running(make_plan((REST,), open_cohort=True))
        await it.command(rollout, Command.ADVANCE, "the lab saw what it wanted")
        await it.enrol(3, prefix="late")
        assert await Joining(it.store, it.clock, it.conductor.changed).look() == 3
        async with asyncio.timeout(10):
            await it.advance(rollout)
        assert await it.states(rollout) == {UpdateState.OFFERED: 5}


async def test_a_recall_that_was_answered_is_not_sent_any_more(tmp_path: Path) -> None:
    """It was, behind the offer that the device got again: its word on it was then taken for the end of that offer."""
    async with plant(tmp_path) as it:
        await it.enrol(1)
        rollout = await it.running(make_plan((REST,)))
        await it.send()
        await it.say(await it.updates(rollout), Kind.ACCEPTED)
        await it.command(rollout, Command.HALT)
        await it.seal()
        await it.command(rollout, Command.RESUME)
        await it.say(await it.updates(rollout), Kind.RECALLED, 1)  # by poll, before the recall was published
        await it.advance(rollout)
        assert await it.states(rollout) == {UpdateState.OFFERED: 1}
        assert [item.state for item in await it.parcels(rollout, DeliveryKind.CANCEL)] == [DeliveryState.VOID]
        assert len(await it.send()) == 1
