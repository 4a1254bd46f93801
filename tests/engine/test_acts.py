"""Acts of operators that are cut off: each is done once, or not at all, whatever falls over when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.model import Phase, Rollout, UpdateState
from orchestrator.core.rollout import Command
from orchestrator.core.trust.roles import SHARED, Caller
from orchestrator.engine.rollouts import conductor, editing, quarantine
from orchestrator.engine.rollouts.editing import Wanted
from orchestrator.engine.trust.approvals import Rules, Wish
from orchestrator.ports import Lane
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant

C = Command
PLAN = make_plan((5, REST), in_flight=4)
WISH = Wish(Caller("ann", "ann", SHARED), "because")


class _LightsOutError(RuntimeError):
    """Stands for the end of the process: nothing after it runs."""


def cut(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    """Let the process end as soon as this function has done its work, within its transaction."""
    whole: Callable[..., Any] = getattr(module, name)

    def work(*words: Any, **named: Any) -> Any:
        whole(*words, **named)
        raise _LightsOutError

    monkeypatch.setattr(module, name, work)


async def stands(it: Plant, rollout: Rollout) -> tuple[Any, ...]:
    """Return all that an act could have left behind."""

    def look(tx: Any) -> tuple[Any, ...]:
        updates = tx.updates_in(rollout.id, tuple(UpdateState))
        parcels = [tx.parcels(item.id) for item in updates]
        devices = tx.devices("", 100)
        kept = (tx.rollout(rollout.id), tx.events(rollout.id), tx.plan_versions(rollout.id), tx.audit_entries(0, 1000))
        return (*kept, updates, parcels, devices, dict(tx.tally(rollout.id)))

    found: tuple[Any, ...] = await it.store.read(look)
    return found


@pytest.mark.parametrize("command", [C.PAUSE, C.HALT, C.ABORT, C.SKIP])
async def test_a_command_that_is_cut_off_is_not_done_and_can_be_given_again(
    it: Plant, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    await it.enrol(20)
    rollout = await it.running(PLAN)
    await it.send()
    before = await stands(it, rollout)
    with monkeypatch.context() as broken:
        cut(broken, conductor, "_save")
        with pytest.raises(_LightsOutError):
            await it.command(rollout, command)
    await it.restart()
    assert await stands(it, rollout) == before
    first = await it.conductor.command("spring", command, actor="ann", reason="because")
    again = await it.conductor.command("spring", command, actor="ben", reason="because")
    assert (first.reason.code, again.reason.code) == (f"operator_{command}", "unchanged")
    events = await it.store.read(lambda tx: tx.events(rollout.id))
    assert [item.code for item in events].count(f"operator_{command}") == 1
    await it.tallies_hold(rollout)


async def test_an_edit_that_is_cut_off_is_not_done_and_can_be_made_again(
    it: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    await it.enrol(20)
    rollout = await it.running(PLAN)
    before = await stands(it, rollout)
    wanted = Wanted("spring", replace(PLAN, in_flight=2), 1)
    with monkeypatch.context() as broken:
        cut(broken, editing, "_save")
        with pytest.raises(_LightsOutError):
            await editing.carry_out(it.conductor, it.store, Rules(), it.clock, wanted, WISH)
    await it.restart()
    assert await stands(it, rollout) == before
    for changes in (1, 0):
        done = await editing.carry_out(it.conductor, it.store, Rules(), it.clock, wanted, WISH)
        assert (done.version, len(done.changes)) == (2, changes)
    versions = await it.store.read(lambda tx: tx.plan_versions(rollout.id))
    assert [(item.version, item.plan.in_flight) for item in versions] == [(1, 4), (2, 2)]


async def test_a_quarantine_that_is_cut_off_is_not_entered(it: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    await it.enrol(20)
    rollout = await it.running(PLAN)
    before = await stands(it, rollout)
    with monkeypatch.context() as broken:
        cut(broken, quarantine, "fold")
        with pytest.raises(_LightsOutError):
            await it.write(lambda tx: quarantine.enter(tx, ["d000", "d001"], "wet", it.clock(), actor="ann"))
    await it.restart()
    assert await stands(it, rollout) == before


async def test_an_edit_of_the_pace_holds_from_the_next_offer_on(it: Plant) -> None:
    await it.enrol(20)
    rollout = await it.running(make_plan((REST,), in_flight=8))
    assert (await it.states(rollout))["offered"] == 8
    wanted = Wanted("spring", replace(rollout.plan, in_flight=2))
    await editing.carry_out(it.conductor, it.store, Rules(), it.clock, wanted, WISH)
    await it.send()
    flying = await it.updates(rollout, UpdateState.OFFERED)
    await it.confirm(flying[:7])
    rollout = await it.advance(rollout)
    assert len(await it.updates(rollout, UpdateState.OFFERED)) == 2
    assert (rollout.version, rollout.plan_version) == (3, 2)  # created, preparing, running: the edit moved nothing


async def test_an_edit_of_a_halted_rollout_keeps_why_it_was_halted(it: Plant) -> None:
    await it.enrol(20)
    rollout = await it.command(await it.running(PLAN), C.HALT, "smoke")
    wanted = Wanted("spring", replace(PLAN, in_flight=2))
    await editing.carry_out(it.conductor, it.store, Rules(), it.clock, wanted, WISH)
    found = await it.rollout(rollout.id)
    assert (found.phase, found.reason.text, found.actor, found.moved_at) == (
        Phase.HALTED,
        "smoke",
        "ann",
        rollout.moved_at,
    )


async def test_who_prepares_takes_the_plan_of_now(it: Plant) -> None:
    await it.enrol(20)
    rollout = await it.create(PLAN)
    await it.command(rollout, C.START)
    sized = replace(PLAN, stages=make_plan((3, REST)).stages)
    await editing.carry_out(it.conductor, it.store, Rules(), it.clock, Wanted("spring", sized), WISH)
    it.clock.advance(30)
    assert [stage.base for stage in (await it.advance(rollout)).stages] == [3, 17]


async def test_versions_are_kept_once(it: Plant) -> None:
    rollout = await it.create(PLAN)
    [kept] = await it.store.read(lambda tx: tx.plan_versions(rollout.id))
    assert (kept.version, kept.plan, kept.changes, kept.actor) == (1, PLAN, (), "ann")
    with pytest.raises(Exception, match="UNIQUE"):
        await it.store.transact(Lane.OPERATOR, lambda tx: tx.add_plan_version(rollout.id, kept))
    assert await it.store.read(lambda tx: len(tx.plan_versions(rollout.id))) == 1
