"""What commands on rollouts ask approvals for, and exactly what an approval binds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.model import Phase, Rollout, Urgency
from orchestrator.core.rollout import Command
from orchestrator.core.trust.approval import ApprovalNeededError, Matter, State
from orchestrator.core.trust.roles import Caller, Role
from orchestrator.engine.trust import approvals
from orchestrator.engine.trust.approvals import Ask, Rules, Wish
from orchestrator.errors import NotFoundError
from orchestrator.ports import Operator
from tests.support.builders import make_plan
from tests.support.factory import Plant, plant, stock

ANN = Wish(Caller("ann", "ann", frozenset({Role.OPERATOR})), reason="because")
START, RESUME = Command.START, Command.RESUME


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Plant]:
    async with plant(tmp_path) as made:
        await made.enrol(10)
        yield made


async def ask(engine: Plant, rollout: Rollout, what: Command = START, audience: int | None = 10, **rules: Any) -> Any:
    return await engine.store.read(lambda tx: approvals.wanted(tx, rollout, what, audience, Rules(**rules)))


async def test_only_what_goes_on_against_evidence_ever_asks(engine: Plant) -> None:
    draft = await engine.create()
    hot = replace(draft, plan=replace(draft.plan, urgency=Urgency.EMERGENCY), phase=Phase.HALTED)
    assert {what for what in Command if await ask(engine, hot, what)} == {START, RESUME, Command.ADVANCE, Command.SKIP}


async def test_passing_a_stage_on_a_word_asks_one_for_that_stage_alone(engine: Plant) -> None:
    rollout = await engine.running(make_plan((2, 3, 5)))
    found: Ask = await ask(engine, rollout, Command.SKIP)
    assert (found.matter, found.need.approvals) == (Matter.SKIP, 1)
    assert found.need.because == "stage 1 would pass on a person's word, without the rest of its evidence"
    later: Ask = await ask(engine, replace(rollout, stage=1), Command.SKIP)
    other: Ask = await ask(engine, rollout, Command.ADVANCE)
    assert len({found.digest, later.digest, other.digest}) == 3


async def test_an_emergency_asks_two(engine: Plant) -> None:
    draft = await engine.create()
    found: Ask = await ask(engine, replace(draft, plan=replace(draft.plan, urgency=Urgency.EMERGENCY)))
    assert (found.matter, found.object, found.need.approvals) == (Matter.START, "spring", 2)


async def test_an_audience_that_was_not_counted_is_everybody(engine: Plant) -> None:
    draft = await engine.create()
    assert await ask(engine, draft, audience=5, approve_above=0.5) is None
    found: Ask = await ask(engine, draft, audience=None, approve_above=0.5)
    assert "reaches 100% of the fleet" in found.need.because


async def test_open_rollouts_of_one_release_count_together(engine: Plant) -> None:
    """Else whoever may reach half of the fleet alone would reach all of it by two rollouts."""
    first = await engine.running(make_plan((2, 2), name="first", select="id in (d000, d001, d002, d003)"))
    assert first.cohort_size == 4
    second = await engine.create(make_plan((2, 2), name="second"))
    await engine.write(lambda tx: stock(tx, 9))
    other = replace(second, plan=replace(second.plan, release="radio-9.0.0"))
    assert await ask(engine, second, audience=1, approve_above=0.5) is None
    found: Ask = await ask(engine, second, audience=2, approve_above=0.5)
    assert found.need.because == (
        "together with the other rollouts of its release it reaches 60% of the fleet, and 50% need no approval"
    )
    assert await engine.store.read(lambda tx: approvals._reached_beside(tx, other, 10)) == 0
    assert await engine.store.read(lambda tx: approvals._reached_beside(tx, first, 10)) == 0, "a draft reaches nobody"
    await engine.command(first, Command.PAUSE)
    assert await ask(engine, second, audience=2, approve_above=0.5) is not None
    await engine.command(first, Command.ABORT)
    assert await ask(engine, second, audience=5, approve_above=0.5) is None


async def test_a_series_of_small_rollouts_counts_like_a_large_one(engine: Plant) -> None:
    first = await engine.running(make_plan((4,), name="first", select="id in (d000, d001, d002, d003)"))
    await engine.advance(first)
    await engine.send()
    await engine.confirm(await engine.updates(first))
    await engine.command(first, Command.ABORT)
    second = await engine.create(make_plan((2, 2), name="second"))
    assert await ask(engine, second, audience=1, approve_above=0.5) is None
    assert await ask(engine, second, audience=2, approve_above=0.5) is not None


async def test_one_image_under_other_names_counts_as_one(engine: Plant) -> None:
    await engine.running(make_plan((4,), name="first", select="id in (d000, d001, d002, d003)"))
    await engine.write(
        lambda tx: tx.add_release(replace(tx.releases()[0], name="the-same"))  # of the same artifacts
    )
    second = await engine.create(make_plan((2, 2), name="second", release="the-same"))
    assert await ask(engine, second, audience=1, approve_above=0.5) is None
    assert await ask(engine, second, audience=2, approve_above=0.5) is not None


async def test_an_open_cohort_may_become_everybody(engine: Plant) -> None:
    draft = await engine.create()
    opened = replace(draft, plan=replace(draft.plan, open_cohort=True))
    found: Ask = await ask(engine, opened, audience=1, approve_above=0.5)
    assert "reaches 100% of the fleet" in found.need.because


async def test_the_digest_binds_plan_devices_and_where_the_rollout_stands(engine: Plant) -> None:
    draft = await engine.create()
    first: Ask = await ask(engine, draft, approve_above=0.1)
    assert (await ask(engine, draft, approve_above=0.1)).digest == first.digest
    others = [
        await ask(engine, replace(draft, plan=replace(draft.plan, in_flight=7)), approve_above=0.1),
        await ask(engine, replace(draft, version=draft.version + 1), approve_above=0.1),
        await ask(engine, replace(draft, moved_at=draft.moved_at + 1), approve_above=0.1),
        await ask(engine, replace(draft, stage=1), approve_above=0.1),
        await ask(engine, draft, audience=9, approve_above=0.1),
        await ask(engine, replace(draft, phase=Phase.HALTED), RESUME),
    ]
    assert len({first.digest, *(item.digest for item in others)}) == 7


async def test_the_audience_is_what_the_cohort_would_be(engine: Plant) -> None:
    await engine.enrol(3, model="m2", prefix="e")
    await engine.create()
    assert await engine.conductor.audience("spring") == 10
    with pytest.raises(NotFoundError):
        await engine.conductor.audience("autumn")


async def test_what_fails_after_the_use_uses_nothing(engine: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use and act are one transaction: where the act is not saved, the approval is still there."""
    await engine.write(lambda tx: tx.add_operator(Operator("ben", "ben", (Role.APPROVER,), 0.0)))
    await engine.create(make_plan())
    rules = Rules(always=True, approve_above=0.1)
    with pytest.raises(ApprovalNeededError) as caught:
        await approvals.command(
            engine.conductor, engine.store, engine.keyring, rules, engine.clock, "spring", START, ANN
        )
    number = caught.value.proposal.id
    ben = Caller("ben", "ben", frozenset({Role.APPROVER}))
    await engine.write(lambda tx: approvals.vote(tx, number, ben, "seen", engine.clock(), approves=True))
    with monkeypatch.context() as broken, pytest.raises(RuntimeError):
        broken.setattr("orchestrator.engine.rollouts.conductor._save", _break)
        await approvals.command(
            engine.conductor, engine.store, engine.keyring, rules, engine.clock, "spring", START, ANN
        )
    assert await state_of(engine, number) is State.APPROVED
    await approvals.command(engine.conductor, engine.store, engine.keyring, rules, engine.clock, "spring", START, ANN)
    assert await state_of(engine, number) is State.USED


async def state_of(engine: Plant, number: int) -> State:
    found = await engine.store.read(lambda tx: tx.proposal(number))
    assert found is not None
    return found.state


def _break(*_: object) -> None:
    raise RuntimeError("the lights go out")
