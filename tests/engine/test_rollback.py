"""Rollbacks: a staged rollout back to an earlier release, where its statement allows that and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestrator import verifier
from orchestrator.core.model import Phase, Rollout, UpdateState
from orchestrator.core.rollout import Command
from orchestrator.core.targeting.cohort import left_out
from orchestrator.engine.rollouts import operations, rollback
from orchestrator.engine.rollouts.rollback import Back
from orchestrator.errors import ConflictError, NotFoundError, RequestError
from orchestrator.ports import Tx
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant, claims_of, make_artifact, make_verifier

S, C, P = UpdateState, Command, Phase
PLAN = make_plan((5, REST), name="spring", release="radio-3", in_flight=7, seed=7)


async def stock(it: Plant, rel: int, hardware: Sequence[str] = ("m1",), **changes: Any) -> None:
    """Import an artifact and make the release `radio-<rel>` of it."""
    artifact = make_artifact(rel, hardware, **changes)

    def work(tx: Tx) -> None:
        operations.register_artifact(tx, artifact, it.clock())
        operations.create_release(tx, f"radio-{rel}", [artifact.sha256], it.clock())

    await it.write(work)


async def brought(it: Plant, rollout: Rollout, stages: int = 1) -> Rollout:
    """Let devices confirm until so many stages have passed."""
    while rollout.phase is P.RUNNING and (rollout.stage < stages):
        await it.send()
        await it.confirm(await it.updates(rollout, S.OFFERED))
        rollout = await it.advance(rollout)
    return rollout


async def spring(it: Plant, **older: Any) -> Rollout:
    """Bring release 3 to the first stage of ten devices and halt it; release 2 is there as `older` says."""
    await it.enrol(10)
    await stock(it, 2, **older)
    await stock(it, 3)
    rollout = await brought(it, await it.running(PLAN))
    return await it.command(rollout, C.HALT)


async def back(it: Plant, to: str = "", new: str = "", name: str = "spring") -> Rollout:
    wanted = Back(name, to, new, "it loses packets")
    made: Rollout = await it.write(lambda tx: rollback.draft(tx, wanted, "ann", it.clock()))
    return made


async def test_the_devices_that_run_the_release_go_back_in_stages_and_believe_it(it: Plant) -> None:
    await spring(it, leaves=(3,))
    draft = await back(it)
    assert (draft.phase, draft.plan.name, draft.plan.release) == (P.DRAFT, "spring-rollback", "radio-2")
    assert (draft.plan.stages, draft.plan.in_flight, draft.plan.seed) == (PLAN.stages, 7, None)
    await it.command(draft, C.START)
    running = await it.advance(draft)
    assert running.cohort_size == 5
    await it.send()
    parcel, *_ = await it.parcels(running)
    claims = claims_of(parcel.token)
    assert (claims["act"], claims["rel"]) == ("rollback", 2)
    unit = make_verifier(parcel.device_id, rel=3)
    assert verifier.verify(parcel.token.encode(), unit, int(it.clock())).kind == "install"
    gone = await brought(it, running, stages=2)
    assert (gone.phase, await it.states(gone)) == (P.DONE, {"confirmed": 5})
    devices = await it.store.read(lambda tx: tx.devices("", 100))
    assert sorted(item.rel for item in devices) == [1] * 5 + [2] * 5
    entries = await it.store.read(lambda tx: tx.audit_entries(0, 1000))
    assert [item.object for item in entries if item.action == "rollout.rollback"] == ["spring-rollback"]


async def test_without_a_statement_that_allows_it_there_is_no_draft(it: Plant) -> None:
    await spring(it)
    with pytest.raises(RequestError) as refused:
        await back(it)
    assert refused.value.code == "downgrade_not_allowed"
    assert "ota artifact sign --leave 3 --replace" in refused.value.message
    assert await it.store.read(lambda tx: tx.rollout_named("spring-rollback")) is None


async def test_a_later_statement_allows_it(it: Plant) -> None:
    await spring(it)
    later = make_artifact(2, leaves=(3,))
    assert not await it.write(lambda tx: operations.register_artifact(tx, later, it.clock()))
    assert (await back(it)).plan.release == "radio-2"
    again = make_artifact(2)  # one that allows less takes nothing away
    await it.write(lambda tx: operations.register_artifact(tx, again, it.clock()))
    kept = await it.store.read(lambda tx: tx.artifact(later.sha256))
    assert kept is not None
    assert (kept.leaves, kept.statement) == ((3,), later.statement)
    entries = await it.store.read(lambda tx: tx.audit_entries(0, 1000))
    assert [item.action for item in entries].count("artifact.restated") == 1


async def test_a_statement_that_says_something_else_is_not_taken(it: Plant) -> None:
    await spring(it)
    other = make_artifact(2, leaves=(3,), version="9.9.9")
    with pytest.raises(ConflictError, match="with another statement, which stands"):
        await it.write(lambda tx: operations.register_artifact(tx, other, it.clock()))
    elsewhere = make_artifact(2, hardware=("m9",), sha256=make_artifact(2).sha256)
    with pytest.raises(ConflictError) as refused:
        await it.write(lambda tx: operations.register_artifact(tx, elsewhere, it.clock()))
    assert refused.value.code == "stated_otherwise"
    with pytest.raises(RequestError):
        await back(it)


async def test_the_newest_release_that_is_allowed_is_taken_unless_one_is_named(it: Plant) -> None:
    await spring(it, leaves=(3,))
    await stock(it, 1, leaves=(3,))
    assert (await back(it)).plan.release == "radio-2"
    assert (await back(it, to="radio-1", new="far-back")).plan.release == "radio-1"
    with pytest.raises(ConflictError):
        await back(it)
    with pytest.raises(RequestError, match="radio-3 is not older than radio-3"):
        await back(it, to="radio-3", new="nowhere")
    with pytest.raises(NotFoundError):
        await back(it, to="radio-9")
    with pytest.raises(NotFoundError):
        await back(it, name="autumn")


async def test_other_hardware_and_an_older_security_epoch_are_in_the_way(it: Plant) -> None:
    await it.enrol(10)
    await stock(it, 1, ("m2",), leaves=(3,))
    await stock(it, 2, leaves=(3,))
    await stock(it, 3, sec=1)
    rollout = await it.command(await it.running(PLAN), C.ABORT)
    assert rollout.phase is P.ABORTED
    with pytest.raises(RequestError, match="older security epoch"):
        await back(it)
    with pytest.raises(RequestError, match="radio-1 has no main for m1"):
        await back(it, to="radio-1")


async def test_nothing_goes_forward_and_back_at_once(it: Plant) -> None:
    await it.enrol(10)
    await stock(it, 2, leaves=(3,))
    await stock(it, 3)
    rollout = await it.running(PLAN)
    with pytest.raises(ConflictError) as refused:
        await back(it)
    assert refused.value.code == "not_stopped"
    await it.command(rollout, C.HALT)
    assert (await back(it)).phase is P.DRAFT


async def test_who_does_not_run_the_release_is_left_out_and_told_so(it: Plant) -> None:
    await spring(it, leaves=(3,))
    draft = await back(it)
    devices = await it.store.read(lambda tx: tx.devices("", 100))
    for device in devices:
        reason = left_out(device, draft.plan, frozenset({"m1"}), 2)
        assert (reason is None) is (device.rel == 3)
        if reason:
            assert reason.text == "it runs release counter 1; this takes devices back from 3"
    newer = replace(devices[0], rel=4)
    assert left_out(newer, draft.plan, frozenset({"m1"}), 2) is not None
