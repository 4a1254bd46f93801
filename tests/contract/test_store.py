"""What every store promises, on real files.

A method of `ports.Tx` stands in the section of its protocol; what holds for the store as a whole comes first.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.edit import Change
from orchestrator.core.model import (
    Device,
    Phase,
    Reason,
    Release,
    Remark,
    Rollout,
    Stage,
    TallyKey,
    Update,
    UpdateState,
)
from orchestrator.core.pace.hold import Hold, Situation
from orchestrator.core.pace.requirement import Condition, Link, Told, Unmet, Wish
from orchestrator.core.targeting.cohort import Member, Sieve
from orchestrator.core.update import IN_FLIGHT
from orchestrator.errors import ConflictError, OrchestratorError, TrustError, UnavailableError
from orchestrator.ports import DeliveryKind, DeliveryState, Event, Lane, Line, Parcel, PlanVersion, Store, Tx
from orchestrator.ports.keysets import Footing
from orchestrator.wire.report import Hello, Kind, Report, State
from tests.support.builders import make_device, make_draft, make_plan
from tests.support.factory import make_artifact, make_report, stock
from tests.support.store import STORES

S, D = UpdateState, DeliveryState
INSTALL, CANCEL = DeliveryKind.INSTALL, DeliveryKind.CANCEL


@pytest.fixture(params=STORES)
def open_(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Opens the store of this test; again after it was closed."""
    engine = STORES[request.param]
    return lambda: engine(tmp_path)


@pytest.fixture
async def store(open_: Callable[[], Store]) -> AsyncIterator[Store]:
    made = open_()
    yield made
    await made.close()


async def write(store: Store, work: Callable[[Tx], Any]) -> Any:
    return await store.transact(Lane.OPERATOR, work)


# A fleet of devices d0, d1, ... with one rollout, seen from within a transaction


def members(count: int, *, start: int = 0) -> list[Member]:
    return [Member(at, f"d{at}", "m1") for at in range(start, start + count)]


def add_rollout(tx: Tx, name: str = "spring", release: str = "radio-2.0.0") -> Rollout:
    if tx.release(release) is None:
        stock(tx, int(release[6]))
    plan = make_plan(name=name, release=release)
    return tx.add_rollout(make_draft(plan, phase=Phase.RUNNING), b"secret of " + name.encode())


def add_fleet(tx: Tx, count: int) -> tuple[Rollout, list[Update]]:
    """Register devices and take them all into one rollout."""
    tx.enrol((make_device(f"d{at}"), "") for at in range(count))
    rollout = add_rollout(tx)
    tx.open_updates(rollout, members(count), 2, 5.0)
    return rollout, tx.pending(rollout.id, count)


def add_offers(tx: Tx, count: int, *, push: bool = True) -> tuple[Rollout, list[Parcel]]:
    """Register devices, and plan a trigger for each."""
    rollout, opened = add_fleet(tx, count)
    offered = [item._replace(state=S.OFFERED) for item in opened]
    tx.save_updates(offered)
    tx.plan(INSTALL, offered, rollout.version, 6.0, push=push)
    return rollout, tx.planned(count)


def signed(parcels: Sequence[Parcel], first: int, *, expires_at: float = 100.0) -> list[Parcel]:
    return [
        replace(
            item, seq=first + at, token=f"token {first + at}", token_hash=f"hash {first + at}", expires_at=expires_at
        )
        for at, item in enumerate(parcels)
    ]


def add_sealed(tx: Tx, count: int, *, push: bool = True) -> tuple[Rollout, list[Parcel]]:
    rollout, planned = add_offers(tx, count, push=push)
    assert tx.seal(signed(planned, tx.reserve(count))) == count
    return rollout, [tx.parcels(item.update_id)[0] for item in planned]


def bump(tx: Tx, rollout: Rollout, phase: Phase = Phase.PAUSED) -> Rollout:
    moved = replace(rollout, phase=phase, version=rollout.version + 1)
    tx.save_rollout(moved, None)
    return moved


# Transactions


async def test_work_that_raises_leaves_nothing(store: Store) -> None:
    def fail(tx: Tx) -> None:
        tx.enrol([(make_device("d1"), "")])
        tx.reserve(5)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        await write(store, fail)
    assert await store.read(lambda tx: tx.fleet_size()) == 0
    assert await write(store, lambda tx: tx.reserve(1)) == 1


async def test_an_error_of_ours_comes_out_as_it_is(store: Store) -> None:
    error = ConflictError("no")

    def fail(tx: Tx) -> None:
        raise error

    with pytest.raises(ConflictError) as caught:
        await write(store, fail)
    assert caught.value is error


async def test_lower_lanes_go_first_and_each_lane_in_its_order(store: Store) -> None:
    busy, go = threading.Event(), threading.Event()
    order: list[str] = []

    def hold(tx: Tx) -> None:
        busy.set()
        go.wait(10)

    def note(name: str) -> Callable[[Tx], None]:
        return lambda tx: order.append(name)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(store.transact(Lane.BULK, hold))
        await asyncio.to_thread(busy.wait, 10)
        for name in ("bulk 1", "reports 1", "operator 1", "bulk 2", "reports 2", "operator 2"):
            tasks.create_task(store.transact(Lane[name.split()[0].upper()], note(name)))
            await asyncio.sleep(0)
        go.set()
    assert order == ["operator 1", "operator 2", "reports 1", "reports 2", "bulk 1", "bulk 2"]


async def test_a_read_sees_a_snapshot_beside_an_open_write(store: Store) -> None:
    await write(store, lambda tx: tx.enrol([(make_device("d1"), "")]))
    inside, go = threading.Event(), threading.Event()

    def slow(tx: Tx) -> int:
        tx.enrol([(make_device("d2"), "")])
        inside.set()
        go.wait(10)
        return tx.fleet_size()

    writing = asyncio.ensure_future(write(store, slow))
    await asyncio.to_thread(inside.wait, 10)
    assert await store.read(lambda tx: tx.fleet_size()) == 1
    go.set()
    assert await writing == 2
    assert await store.read(lambda tx: tx.fleet_size()) == 2


async def test_a_read_stays_on_its_snapshot(store: Store) -> None:
    inside, go = threading.Event(), threading.Event()

    def look_twice(tx: Tx) -> tuple[int, int]:
        first = tx.fleet_size()
        inside.set()
        go.wait(10)
        return first, tx.fleet_size()

    reading = asyncio.ensure_future(store.read(look_twice))
    await asyncio.to_thread(inside.wait, 10)
    await write(store, lambda tx: tx.enrol([(make_device("d1"), "")]))
    go.set()
    assert await reading == (0, 0)


async def test_writing_in_a_read_is_refused(store: Store) -> None:
    with pytest.raises(OrchestratorError):
        await store.read(lambda tx: tx.enrol([(make_device("d1"), "")]))
    assert await store.read(lambda tx: tx.fleet_size()) == 0
    await write(store, lambda tx: tx.enrol([(make_device("d1"), "")]))  # the connection can write again


async def test_what_was_committed_is_there_after_reopening(open_: Callable[[], Store]) -> None:
    first = open_()
    rollout, parcels = await write(first, lambda tx: add_sealed(tx, 3))
    await first.close()
    second = open_()
    assert await second.read(lambda tx: tx.rollout(rollout.id)) == rollout
    assert await second.read(lambda tx: [tx.parcels(item.update_id) for item in parcels]) == [
        [item] for item in parcels
    ]
    await second.close()


async def test_closing_finishes_what_was_submitted(open_: Callable[[], Store]) -> None:
    first = open_()
    waiting = [
        asyncio.ensure_future(first.transact(Lane.BULK, methodcaller("enrol", [(make_device(f"d{at}"), "")])))
        for at in range(20)
    ]
    await asyncio.sleep(0)
    await first.close()
    assert await asyncio.gather(*waiting) == [1] * 20
    second = open_()
    assert await second.read(lambda tx: tx.fleet_size()) == 20
    await second.close()


async def test_a_closed_store_refuses_work(open_: Callable[[], Store]) -> None:
    closed = open_()
    await closed.close()
    with pytest.raises(UnavailableError, match="closed"):
        await write(closed, lambda tx: tx.fleet_size())
    with pytest.raises(UnavailableError, match="closed"):
        await closed.read(lambda tx: tx.fleet_size())


# Registry


async def test_devices_are_enrolled_once_and_renewed_after(store: Store) -> None:
    first = make_device("d1", "m1", ["north"])
    assert await write(store, lambda tx: tx.enrol([(first, "aa"), (make_device("d2"), "")])) == 2
    assert await store.read(lambda tx: tx.device("d1")) == first
    moved = make_device("d1", "m2", ["south"], version="9", rel=9, registered_at=9.0)
    assert await write(store, lambda tx: tx.enrol([(moved, "bb")])) == 0
    assert await store.read(lambda tx: tx.device("d1")) == replace(first, model="m2", groups=("south",))
    assert await store.read(lambda tx: tx.device_by_token("aa")) is None
    assert await write(store, lambda tx: tx.enrol([(moved, "")])) == 0
    renewed = await store.read(lambda tx: tx.device_by_token("bb"))
    assert renewed is not None
    assert renewed.id == "d1"
    assert await write(store, lambda tx: tx.enrol([])) == 0


async def test_devices_are_listed_in_pieces(store: Store) -> None:
    await write(store, lambda tx: tx.enrol((make_device(f"d{at}"), "") for at in (3, 1, 2, 5, 4)))
    assert [item.id for item in await store.read(lambda tx: tx.devices("", 2))] == ["d1", "d2"]
    assert [item.id for item in await store.read(lambda tx: tx.devices("d2", 9))] == ["d3", "d4", "d5"]
    assert await store.read(lambda tx: tx.fleet_size()) == 5
    assert await store.read(lambda tx: tx.device("d9")) is None


async def test_a_hello_registers_only_where_that_is_allowed(store: Store) -> None:
    said = [Hello(1, "d1", "m1", "1.0", 1), Hello(1, "d1", "m1", "1.1", 2), Hello(1, "d2", "m2")]
    assert await write(store, lambda tx: tx.greet(said, 4.0, enrol=False)) == set()
    assert await write(store, lambda tx: tx.greet([], 4.0, enrol=True)) == set()
    assert await write(store, lambda tx: tx.greet(said, 5.0, enrol=True)) == {"d1", "d2"}
    assert await store.read(lambda tx: tx.device("d1")) == Device("d1", "m1", (), "1.1", 2, 5.0, 5.0, None)
    assert await write(store, lambda tx: tx.greet([Hello(1, "d1", "m1", "1.2", 3)], 6.0, enrol=False)) == {"d1"}
    assert await store.read(lambda tx: tx.device("d1")) == Device("d1", "m1", (), "1.2", 3, 5.0, 6.0, None)


async def test_connection_states_and_running_releases_are_kept(store: Store) -> None:
    def work(tx: Tx) -> None:
        _, opened = add_fleet(tx, 2)
        tx.mark_online([], 7.0)
        tx.mark_running([], 7.0)
        tx.mark_online([State(1, "d0", True), State(1, "d1", True), State(1, "d1", False), State(1, "d9", True)], 7.0)
        tx.mark_running([make_report(opened[0], Kind.CONFIRMED, ver="2.0")], 8.0)

    await write(store, work)
    first, second = await store.read(lambda tx: tx.devices("", 9))
    assert (first.online, first.seen_at, first.version, first.rel) == (True, 8.0, "2.0", 2)
    assert (second.online, second.seen_at, second.version, second.rel) == (False, 7.0, "1.0.0", 1)


async def test_the_endpoints_that_devices_go_by_are_kept_beside_what_they_run(store: Store) -> None:
    def work(tx: Tx) -> None:
        _, opened = add_fleet(tx, 2)
        tx.mark_moved([], 7.0)
        tx.mark_moved([make_report(opened[0], Kind.CONFIRMED, rel=3, ver="2.0")], 8.0)

    async def kept() -> list[tuple[object, ...]]:
        return [(item.seen_at, item.rel, item.endpoints) for item in await store.read(lambda tx: tx.devices("", 9))]

    await write(store, work)
    assert await kept() == [(8.0, 1, 3), (None, 1, None)]
    said = [Hello(1, "d0", "m1", "1.0", 1), Hello(1, "d1", "m1", "1.0", 1, eps=0), Hello(1, "d2", "m1", eps=7)]
    await write(store, lambda tx: tx.greet(said, 9.0, enrol=True))
    assert await kept() == [(9.0, 1, None), (9.0, 1, 0), (9.0, 0, 7)]


# Catalogue


async def test_an_artifact_is_registered_once(store: Store) -> None:
    artifact = make_artifact(2, ("m1", "m2"), source_version="v1")
    assert await write(store, lambda tx: tx.add_artifact(artifact, 1.0)) is True
    assert await write(store, lambda tx: tx.add_artifact(replace(artifact, uri="elsewhere"), 2.0)) is False
    assert await store.read(lambda tx: tx.artifact(artifact.sha256)) == artifact
    assert await store.read(lambda tx: tx.artifact("unknown")) is None
    newer = make_artifact(3, ("m1",))
    await write(store, lambda tx: tx.add_artifact(newer, 2.0))
    assert await store.read(lambda tx: tx.artifacts()) == [newer, artifact]


async def test_a_later_statement_of_an_artifact_is_kept_in_the_place_of_the_first(store: Store) -> None:
    first, later = make_artifact(2), make_artifact(2, leaves=(3, 4))
    await write(store, lambda tx: tx.add_artifact(first, 1.0))
    await write(store, lambda tx: tx.restate(later))
    assert await store.read(lambda tx: tx.artifacts()) == [later]
    assert later.statement != first.statement


async def test_what_is_found_of_an_artifact_later_is_kept(store: Store) -> None:
    first = make_artifact(2)
    remarks = (Remark("no_hash", 'no "hash" \u202e', "build it anew"), Remark("old", "it is old", "look at it"))
    later = replace(first, signature="rauc", sha1="a" * 40, md5="b" * 32, recognised="raucb", remarks=remarks)
    await write(store, lambda tx: tx.add_artifact(first, 1.0))
    await write(store, lambda tx: tx.restate(later))
    assert await store.read(lambda tx: tx.artifacts()) == [later]


def _allow(tx: Tx, reason: str) -> None:
    tx.allow_unsigned_clients(reason, 1.0)


async def test_a_permission_for_unsigned_images_is_kept_and_counts_as_a_change(store: Store) -> None:
    assert await store.read(lambda tx: tx.unsigned_clients()) == ""
    before = await store.read(lambda tx: tx.registry_version())
    for reason in ("one", "two", ""):
        await write(store, partial(_allow, reason=reason))
        assert await store.read(lambda tx: tx.unsigned_clients()) == reason
    assert await store.read(lambda tx: tx.registry_version()) == before + 3


async def test_a_release_counter_is_never_used_for_other_bytes(store: Store) -> None:
    known = make_artifact(2, ("m1", "m2"))
    await write(store, lambda tx: tx.add_artifact(known, 1.0))
    with pytest.raises(TrustError, match="m2") as caught:
        await write(store, lambda tx: tx.add_artifact(make_artifact(2, ("m2", "m3")), 2.0))
    assert caught.value.code == "rel_reused"
    for other in (
        make_artifact(2, ("m3",)),
        make_artifact(2, ("m1",), component="radio", sha256="a" * 43),
        make_artifact(2, ("m1",), name="other", sha256="b" * 43),
    ):
        assert await write(store, methodcaller("add_artifact", artifact=other, now=3.0)) is True


async def test_an_object_is_looked_at_once(store: Store) -> None:
    assert await store.read(lambda tx: tx.sighted("s3://b/k", "1")) is False
    assert await write(store, lambda tx: tx.sight("s3://b/k", "1")) is True
    assert await write(store, lambda tx: tx.sight("s3://b/k", "1")) is False
    assert await store.read(lambda tx: (tx.sighted("s3://b/k", "1"), tx.sighted("s3://b/k", "2"))) == (True, False)


async def test_releases_keep_their_artifacts(store: Store) -> None:
    first, second = sorted((make_artifact(2, ("m1",)), make_artifact(2, ("m2",))), key=lambda item: item.sha256)
    release = Release("radio-2", "2.0.0", 2, (first.sha256, second.sha256), 5.0)
    newer = replace(release, name="radio-2b", artifacts=(first.sha256,), created_at=6.0, moves=True)

    def work(tx: Tx) -> None:
        tx.add_artifact(first, 1.0)
        tx.add_artifact(second, 1.0)
        tx.add_release(release)
        tx.add_release(newer)

    await write(store, work)
    assert await store.read(lambda tx: tx.release("radio-2")) == release
    assert await store.read(lambda tx: tx.release("radio-9")) is None
    assert await store.read(lambda tx: tx.releases()) == [newer, release]
    with pytest.raises(ConflictError, match="radio-2"):
        await write(store, lambda tx: tx.add_release(release))


# Rollouts


def whole_rollout() -> Rollout:
    """Return a rollout in which nothing is as it is by default."""
    return replace(
        make_draft(make_plan((5, 7), models=("m1",), groups=("north",), soak_s=3.0)),
        phase=Phase.HALTED,
        reason=Reason("evidence", "so it is"),
        actor="bob",
        moved_at=9.5,
        version=4,
        stage=1,
        stages=(Stage(5, 6, 1.0, 2.0, 3.0), Stage(7, 7)),
        cohort_size=12,
        cohort_at=0.5,
        strata=2,
        epoch=1,
    )


async def test_a_rollout_comes_back_as_it_was_saved(store: Store) -> None:
    def work(tx: Tx) -> Rollout:
        stock(tx)
        return tx.add_rollout(make_draft(), b"\x00secret")

    made = await write(store, work)
    assert made == replace(make_draft(), id=made.id)
    full = replace(whole_rollout(), id=made.id)
    events = [Event(1.0, Phase.DRAFT, "created", "text", "ann", 0), Event(2.0, Phase.HALTED, "evidence", "x", "bob", 1)]
    for event in (events[0], None, events[1]):
        await write(store, methodcaller("save_rollout", rollout=full, event=event))
    assert await store.read(lambda tx: tx.rollout(made.id)) == full
    assert await store.read(lambda tx: tx.rollout_named("spring")) == full
    assert await store.read(lambda tx: tx.secret(made.id)) == b"\x00secret"
    assert await store.read(lambda tx: tx.events(made.id)) == events
    assert await store.read(lambda tx: (tx.rollout(99), tx.rollout_named("autumn"))) == (None, None)


async def test_rollouts_are_listed_by_phase_and_named_once(store: Store) -> None:
    first, second = await write(store, lambda tx: (add_rollout(tx, "one"), add_rollout(tx, "two")))
    halted = await write(store, lambda tx: bump(tx, first, Phase.HALTED))
    assert await store.read(lambda tx: tx.rollouts()) == [second, halted]
    assert await store.read(lambda tx: tx.rollouts((Phase.HALTED, Phase.DONE))) == [halted]
    with pytest.raises(ConflictError, match="one"):
        await write(store, lambda tx: add_rollout(tx, "one"))


async def test_every_version_of_a_plan_is_kept_once(store: Store) -> None:
    rollout = await write(store, add_rollout)
    slower = replace(rollout.plan, in_flight=3)
    changes = (Change("in_flight", 100, 3, loosens=False), Change("halt.tolerated", 0.01, None, loosens=True))
    versions = [PlanVersion(1, rollout.plan, (), "ann", "", 5.0), PlanVersion(2, slower, changes, "ben", "why", 6.0)]
    for version in reversed(versions):
        await write(store, lambda tx, version=version: tx.add_plan_version(rollout.id, version))  # type: ignore[misc]
    assert await store.read(lambda tx: tx.plan_versions(rollout.id)) == versions
    assert await store.read(lambda tx: tx.plan_versions(rollout.id + 1)) == []
    with pytest.raises(Exception, match="UNIQUE"):
        await write(store, lambda tx: tx.add_plan_version(rollout.id, versions[0]))


async def test_folding_adds_the_changes_up(store: Store) -> None:
    pending, offered = TallyKey(0, 0, "m1", "pending"), TallyKey(0, 0, "m1", "offered")
    one, two = await write(store, lambda tx: (add_rollout(tx, "one").id, add_rollout(tx, "two").id))
    changes = [{pending: 5}, {pending: -2, offered: 2}, {}, {pending: -3, offered: 3}, {offered: -1, pending: 0}]
    for at, change in enumerate(changes):
        await write(store, methodcaller("change_tallies", rollout_id=one, changes=Counter(change)))
        if at == 1:
            assert await write(store, lambda tx: tx.fold(one)) == {pending: 3, offered: 2}
    await write(store, lambda tx: tx.change_tallies(two, Counter({pending: 1})))
    assert await store.read(lambda tx: tx.tally(one)) == {offered: 4}
    assert await write(store, lambda tx: tx.fold(one)) == {offered: 4}
    assert await write(store, lambda tx: tx.fold(one)) == {offered: 4}
    assert await store.read(lambda tx: (tx.tally(one), tx.tally(two), tx.tally(9))) == ({offered: 4}, {pending: 1}, {})


async def test_offers_are_kept_by_minute_beside_other_counters(open_: Callable[[], Store]) -> None:
    first = open_()
    assert await first.read(lambda tx: tx.offers()) == {}
    await write(first, lambda tx: tx.reserve(7))
    await write(first, lambda tx: tx.save_offers({30_000_000: 20, 30_000_001: 1}))
    await write(first, lambda tx: tx.save_offers({30_000_001: 3, 30_000_002: 2}))
    await first.close()
    second = open_()
    assert await second.read(lambda tx: tx.offers()) == {30_000_001: 3, 30_000_002: 2}
    await write(second, lambda tx: tx.save_offers({}))
    assert await second.read(lambda tx: tx.offers()) == {}
    assert await write(second, lambda tx: tx.reserve(1)) == 8
    await second.close()


# Updates


async def test_opening_leaves_out_devices_that_have_an_update(store: Store) -> None:
    rollout, opened = await write(store, lambda tx: add_fleet(tx, 3))
    assert [(item.device_id, item.state, item.stage, item.stratum, item.rel) for item in opened] == [
        (f"d{at}", S.PENDING, 0, "m1", 2) for at in range(3)
    ]
    assert {(item.state_at, item.attempt, item.deadline_at, item.begun) for item in opened} == {(5.0, 1, None, False)}
    await write(store, lambda tx: tx.enrol([(make_device("d3"), "")]))
    later = replace(rollout, stage=1, epoch=2)
    more = await write(store, lambda tx: tx.open_updates(later, members(4), 2, 9.0))
    assert [(item.device_id, item.stage, item.epoch) for item in more] == [("d3", 1, 2)]
    assert await write(store, lambda tx: tx.open_updates(later, [], 2, 9.0)) == []
    assert await store.read(lambda tx: tx.taken(rollout.id, "d1", "d2")) == {"d1", "d2"}
    assert await store.read(lambda tx: tx.taken(99, "", "e")) == set()


async def test_an_update_comes_back_as_it_was_saved(store: Store) -> None:
    _, opened = await write(store, lambda tx: add_fleet(tx, 2))
    full = opened[0]._replace(
        state=S.FAILED,
        state_at=7.5,
        epoch=1,
        attempt=2,
        begun=True,
        deadline_at=8.5,
        progress=40,
        code="wrong_release",
        relapsed_stage=1,
        relapsed_epoch=2,
    )
    await write(store, lambda tx: tx.save_updates([full]))
    await write(store, lambda tx: tx.save_updates([]))
    wanted = [opened[0].id, opened[1].id, 999]
    assert await store.read(lambda tx: tx.updates(wanted)) == {full.id: full, opened[1].id: opened[1]}
    assert await store.read(lambda tx: tx.updates([])) == {}


async def test_many_updates_are_read_at_once(store: Store) -> None:
    _, opened = await write(store, lambda tx: add_fleet(tx, 1201))
    assert await store.read(lambda tx: tx.updates(item.id for item in opened)) == {item.id: item for item in opened}


async def test_pending_is_in_cohort_order_without_busy_devices(store: Store) -> None:
    def work(tx: Tx) -> tuple[Rollout, Rollout]:
        one, opened = add_fleet(tx, 5)
        two = add_rollout(tx, "two", "radio-3.0.0")
        tx.open_updates(two, [Member(9 - at, f"d{at}", "m1") for at in range(5)], 3, 6.0)
        tx.save_updates([opened[1]._replace(state=S.OFFERED), opened[2]._replace(state=S.CONFIRMED)])
        return one, two

    one, two = await write(store, work)
    assert [item.device_id for item in await store.read(lambda tx: tx.pending(one.id, 9))] == ["d0", "d3", "d4"]
    assert [item.device_id for item in await store.read(lambda tx: tx.pending(two.id, 3))] == ["d4", "d3", "d2"]


async def test_what_is_held_is_not_pending_until_its_time_or_until_it_is_freed(store: Store) -> None:
    rollout, [a, b, c, d] = await write(store, lambda tx: add_fleet(tx, 4))
    assert await store.read(lambda tx: tx.next_look(rollout.id)) is None

    async def free() -> list[str]:
        return [item.device_id for item in await store.read(lambda tx: tx.pending(rollout.id, 9))]

    def hold(tx: Tx) -> None:
        by_hours, by_device = (
            Hold((Unmet(Reason(code, "")),), at, False) for code, at in (("window", 50.0), ("slot", 60.0))
        )
        tx.hold([(a, by_hours), (b, by_device), (c, replace(by_device, look_at=70.0))])

    await write(store, hold)
    assert await free() == ["d3"]
    assert await store.read(lambda tx: tx.next_look(rollout.id)) is None
    await write(store, lambda tx: tx.save_updates([d._replace(state=S.OFFERED)]))
    assert await store.read(lambda tx: tx.next_look(rollout.id)) == (50.0, "window")
    await write(store, lambda tx: tx.release_holds(rollout.id, 49.9, 9))
    assert await free() == []
    assert await write(store, lambda tx: tx.free_holds(["d0", "d1", "d9"])) == {rollout.id}
    assert await free() == ["d1"]
    assert await write(store, lambda tx: tx.free_holds(["d1"])) == set()
    assert await write(store, lambda tx: tx.free_holds(["d0"], timed=True)) == {rollout.id}
    await write(store, hold)
    await write(store, lambda tx: tx.release_holds(rollout.id, 60.0, 1))
    assert await free() == ["d0"]
    await write(store, lambda tx: tx.release_holds(rollout.id, 60.0, 9))
    assert await free() == ["d0", "d1"]
    await write(store, lambda tx: tx.release_holds(rollout.id, math.inf, 9))
    assert await free() == ["d0", "d1", "d2"]


async def test_what_devices_said_is_kept_for_each(store: Store) -> None:
    said = Situation(Condition(Told(50, 1.5), Told(True, 2.0), link=Told(Link.WIFI, 3.0)), Wish(False, 9.5, 2), 7)
    await write(store, lambda tx: tx.enrol((make_device(name), "") for name in ("d0", "d1")))
    assert await store.read(lambda tx: tx.situations(["d0", "d9"])) == {"d0": Situation()}
    await write(store, lambda tx: tx.save_situations({"d1": said}))
    assert await store.read(lambda tx: tx.situations(["d0", "d1"])) == {"d0": Situation(), "d1": said}


async def test_a_device_is_busy_until_nothing_of_it_is_in_flight(store: Store) -> None:
    """What a device says late is stored, whatever else it was given meanwhile."""

    def work(tx: Tx) -> tuple[Rollout, Update, Rollout, Update, Rollout]:
        one, [first] = add_fleet(tx, 1)
        two, three = add_rollout(tx, "two", "radio-3.0.0"), add_rollout(tx, "three", "radio-4.0.0")
        [second] = tx.open_updates(two, members(1), 3, 6.0)
        tx.open_updates(three, members(1), 4, 7.0)
        return one, first, two, second, three

    one, first, two, second, three = await write(store, work)

    async def is_free() -> bool:
        return bool(await store.read(lambda tx: tx.pending(three.id, 9)))

    for state in IN_FLIGHT:
        flying, late = first._replace(state=S.OFFERED), second._replace(state=state)
        await write(store, methodcaller("save_updates", [flying]))
        await write(store, methodcaller("save_updates", [late]))
        assert await store.read(methodcaller("updates_in", one.id, IN_FLIGHT)) == [flying]
        assert await store.read(methodcaller("updates_in", two.id, IN_FLIGHT)) == [late]
        await write(store, methodcaller("save_updates", [flying._replace(state=S.CONFIRMED)]))
        assert not await is_free()
        await write(store, methodcaller("save_updates", [late._replace(state=S.FAILED)]))
        assert await is_free()


async def test_updates_are_found_by_rollout_and_by_device(store: Store) -> None:
    def work(tx: Tx) -> tuple[Rollout, Update, Update, Update]:
        rollout, [first, second] = add_fleet(tx, 2)
        [third] = tx.open_updates(add_rollout(tx, "two", "radio-3.0.0"), members(1), 3, 6.0)
        failed = first._replace(state=S.FAILED)
        tx.save_updates([failed])
        return rollout, failed, second, third

    rollout, first, second, third = await write(store, work)
    assert await store.read(lambda tx: tx.updates_in(rollout.id, (S.PENDING, S.FAILED))) == [first, second]
    assert await store.read(lambda tx: tx.updates_in(rollout.id, (S.PENDING,))) == [second]
    assert await store.read(lambda tx: tx.updates_of(["d0"])) == [first, third]
    assert await store.read(lambda tx: tx.updates_of(["d0", "d1"], [S.PENDING])) == [second, third]


async def test_deadlines_come_due_in_their_order(store: Store) -> None:
    rollout, opened = await write(store, lambda tx: add_fleet(tx, 4))
    due = [
        item._replace(state=S.OFFERED, deadline_at=at)
        for item, at in zip(opened, (30.0, 10.0, 20.0, None), strict=True)
    ]
    await write(store, lambda tx: tx.save_updates(due))
    assert await store.read(lambda tx: tx.overdue(9.9, 9)) == []
    assert await store.read(lambda tx: tx.overdue(20.0, 9)) == [due[1], due[2]]
    assert await store.read(lambda tx: tx.overdue(99.0, 2)) == [due[1], due[2]]


async def test_a_report_is_stored_once(store: Store) -> None:
    _, [one, two] = await write(store, lambda tx: add_fleet(tx, 2))
    said = make_report(one, Kind.FAILED, 4, code="no_space", msg="text", rel=1, boots=3)
    differing: list[Report] = [
        make_report(one, Kind.FAILED, 5),
        make_report(one, Kind.FAILED, 4, boot="b2"),
        make_report(one, Kind.FAILED, 4, att=f"{one.id}.2"),
        make_report(two, Kind.FAILED, 4),
    ]
    batch = [said, said, *differing]
    assert await write(store, lambda tx: tx.add_reports(batch, 7.0)) == [True, False, True, True, True, True]
    assert await write(store, lambda tx: tx.add_reports([*differing, make_report(two, Kind.RUNNING, 5)], 8.0)) == [
        *[False] * 4,
        True,
    ]
    assert await write(store, lambda tx: tx.add_reports([], 8.0)) == []
    lines = await store.read(lambda tx: tx.lines(one.id))
    assert Line(7.0, 1, "b1", 4, "failed", "no_space", "text", 1, 3) in lines
    assert sorted((line.attempt, line.boot, line.n) for line in lines) == [
        (1, "b1", 4),
        (1, "b1", 5),
        (1, "b2", 4),
        (2, "b1", 4),
    ]
    assert [line.kind for line in await store.read(lambda tx: tx.lines(two.id))] == ["failed", "running"]


@pytest.mark.parametrize("at", [7.0, 1_763_746_765.123_456_7])
async def test_a_repetition_in_the_same_instant_is_none_the_less_one(store: Store, at: float) -> None:
    _, [one, two] = await write(store, lambda tx: add_fleet(tx, 2))
    said = [make_report(item, Kind.FAILED, 4) for item in (one, two)]
    for batch, news in ((said[:1], [True]), (said, [False, True]), (said, [False, False])):
        assert await write(store, methodcaller("add_reports", batch, at)) == news
    assert await write(store, lambda tx: tx.add_reports([*said, make_report(one, Kind.FAILED, 5)], at - 3600.0)) == [
        False,
        False,
        True,
    ], "the clock was set back"
    [line, _] = sorted(await store.read(lambda tx: tx.lines(one.id)), key=lambda line: line.n)
    assert line.at == pytest.approx(at, abs=0.001)


# Outbox


async def test_a_planned_delivery_says_what_it_is_for(store: Store) -> None:
    rollout, [parcel] = await write(store, lambda tx: add_offers(tx, 1))
    assert parcel == Parcel(
        id=parcel.id,
        kind=INSTALL,
        state=D.PLANNED,
        update_id=parcel.update_id,
        attempt=1,
        device_id="d0",
        model="m1",
        rollout_id=rollout.id,
        rollout_version=rollout.version,
        push=True,
        planned_at=6.0,
        expires_at=None,
        seq=None,
        token="",
        token_hash="",
        stage=0,
    )
    await write(store, lambda tx: tx.plan(INSTALL, [], 1, 6.0, push=True))
    assert await store.read(lambda tx: tx.planned(9)) == [parcel]


async def test_recalls_are_sealed_before_triggers(store: Store) -> None:
    rollout, parcels = await write(store, lambda tx: add_offers(tx, 3))
    updates = await store.read(lambda tx: list(tx.updates(item.update_id for item in parcels[:2]).values()))
    await write(store, lambda tx: tx.plan(CANCEL, updates, rollout.version, 7.0, push=True))
    found = await store.read(lambda tx: tx.planned(4))
    assert [(item.kind, item.device_id) for item in found] == [
        (CANCEL, "d0"),
        (CANCEL, "d1"),
        (INSTALL, "d0"),
        (INSTALL, "d1"),
    ]


async def test_reserved_numbers_never_come_again(open_: Callable[[], Store]) -> None:
    first = open_()
    assert [await write(first, methodcaller("reserve", count=count)) for count in (1, 5, 1)] == [1, 2, 7]
    await first.close()
    second = open_()
    assert await write(second, lambda tx: tx.reserve(2)) == 8
    await second.close()


async def test_two_tokens_cannot_have_one_number(store: Store) -> None:
    _, [one, two] = await write(store, lambda tx: add_offers(tx, 2))
    await write(store, lambda tx: tx.seal(signed([one], 7)))
    with pytest.raises(Exception, match="(?i)unique"):
        await write(store, lambda tx: tx.seal(signed([two], 7)))


async def test_sealing_takes_only_what_is_still_planned_and_current(store: Store) -> None:
    rollout, [one, two, three] = await write(store, lambda tx: add_offers(tx, 3))
    await write(store, lambda tx: tx.settle([one.id], D.VOID, 7.0))
    assert await write(store, lambda tx: tx.seal(signed([one, two], 1))) == 1
    assert await write(store, lambda tx: tx.seal(signed([two], 9))) == 0
    sealed = await store.read(lambda tx: tx.parcels(two.update_id))
    assert sealed == [replace(signed([two], 2)[0], state=D.SEALED)]
    await write(store, lambda tx: bump(tx, rollout, Phase.DONE))
    assert await write(store, lambda tx: tx.seal(signed([three], 3))) == 0
    assert await write(store, lambda tx: tx.seal([])) == 0


async def test_what_belongs_to_an_older_version_does_not_hold_up_the_sealer(store: Store) -> None:
    """A rollout that is done leaves nothing behind that would be signed again and again, or take up room."""
    rollout, parcels = await write(store, lambda tx: add_offers(tx, 3))
    await write(store, lambda tx: tx.seal(signed(parcels[:1], 1)))
    await write(store, lambda tx: bump(tx, rollout, Phase.DONE))
    assert await store.read(lambda tx: (tx.planned(9), tx.sealed_waiting())) == ([], 0)
    assert await write(store, lambda tx: tx.claim(9, 8.0)) == []


async def test_a_recall_is_current_under_any_version(store: Store) -> None:
    rollout, [parcel] = await write(store, lambda tx: add_offers(tx, 1))
    [update] = (await store.read(lambda tx: tx.updates([parcel.update_id]))).values()
    await write(store, lambda tx: tx.plan(CANCEL, [update], rollout.version, 7.0, push=True))
    await write(store, lambda tx: bump(tx, rollout, Phase.ABORTED))
    [recall] = await store.read(lambda tx: tx.planned(9))
    assert recall.kind is CANCEL
    assert await write(store, lambda tx: tx.seal(signed([recall], 1))) == 1
    assert [item.id for item in await write(store, lambda tx: tx.claim(9, 8.0))] == [recall.id]


async def test_claims_are_in_order_of_seq_and_made_once(store: Store) -> None:
    _, parcels = await write(store, lambda tx: add_offers(tx, 4))
    await write(store, lambda tx: tx.seal(signed(list(reversed(parcels)), 1)))
    assert await store.read(lambda tx: tx.sealed_waiting()) == 4
    first = await write(store, lambda tx: tx.claim(3, 8.0))
    assert [(item.seq, item.device_id) for item in first] == [(1, "d3"), (2, "d2"), (3, "d1")]
    assert [item.id for item in await store.read(lambda tx: tx.claimed())] == [item.id for item in first]
    assert await store.read(lambda tx: tx.sealed_waiting()) == 1
    assert [item.seq for item in await write(store, lambda tx: tx.claim(3, 9.0))] == [4]
    assert await write(store, lambda tx: tx.claim(3, 9.0)) == []
    await write(store, lambda tx: tx.settle([item.id for item in first], D.SENT, 9.0))
    assert [item.seq for item in await store.read(lambda tx: tx.claimed())] == [4]


async def test_claiming_reads_the_version_again(store: Store) -> None:
    rollout, _ = await write(store, lambda tx: add_sealed(tx, 4))
    assert len(await write(store, lambda tx: tx.claim(2, 8.0))) == 2
    await write(store, lambda tx: bump(tx, rollout))
    assert await write(store, lambda tx: tx.claim(2, 9.0)) == []


async def test_what_waits_for_a_poll_is_never_claimed(store: Store) -> None:
    _, [parcel] = await write(store, lambda tx: add_sealed(tx, 1, push=False))
    assert await write(store, lambda tx: tx.claim(9, 8.0)) == []
    assert await store.read(lambda tx: tx.sealed_waiting()) == 0
    assert await write(store, lambda tx: tx.hand_over(parcel.id, 8.0)) is True


async def test_withdrawing_voids_what_is_queued_and_names_who_was_never_exposed(store: Store) -> None:
    rollout, parcels = await write(store, lambda tx: add_sealed(tx, 5))
    claimed, sent, unknown, sealed, planned = parcels

    def prepare(tx: Tx) -> None:
        tx.settle([claimed.id], D.CLAIMED, 8.0)
        tx.settle([sent.id], D.SENT, 8.0)
        tx.settle([unknown.id], D.UNKNOWN, 8.0)
        tx.settle([planned.id], D.PLANNED, 8.0)
        again = tx.updates(item.update_id for item in (claimed, sent, unknown, sealed))
        tx.plan(INSTALL, list(again.values()), rollout.version, 9.0, push=True)
        tx.plan(CANCEL, list(again.values()), rollout.version, 9.0, push=True)

    await write(store, prepare)
    assert await write(store, lambda tx: tx.withdraw(rollout.id)) == [sealed.update_id, planned.update_id]
    states = await store.read(lambda tx: [[item.state for item in tx.parcels(each.update_id)] for each in parcels])
    assert states == [
        [D.CLAIMED, D.VOID, D.PLANNED],
        [D.SENT, D.VOID, D.PLANNED],
        [D.UNKNOWN, D.VOID, D.PLANNED],
        [D.VOID, D.VOID, D.PLANNED],
        [D.VOID],
    ]
    assert await write(store, lambda tx: tx.withdraw(rollout.id)) == []
    assert await write(store, lambda tx: tx.withdraw(99)) == []


async def test_it_knows_whose_triggers_may_have_reached_a_device(store: Store) -> None:
    rollout, parcels = await write(store, lambda tx: add_sealed(tx, 6))
    states = (D.CLAIMED, D.SENT, D.UNKNOWN, D.SEALED, D.VOID)

    def prepare(tx: Tx) -> None:
        for parcel, state in zip(parcels, states, strict=False):
            tx.settle([parcel.id], state, 8.0)
        recalled = tx.updates([parcels[5].update_id])
        tx.plan(CANCEL, list(recalled.values()), rollout.version, 9.0, push=True)
        [recall] = [item for item in tx.parcels(parcels[5].update_id) if item.kind is CANCEL]
        tx.settle([recall.id], D.SENT, 9.0)

    await write(store, prepare)
    named = [item.update_id for item in parcels]
    assert await store.read(lambda tx: tx.were_exposed(named)) == set(named[:3])
    assert await store.read(lambda tx: tx.were_exposed([named[1], named[3], 99])) == {named[1]}
    assert await store.read(lambda tx: tx.were_exposed([])) == set()


async def test_what_a_device_gave_back_does_not_count_as_exposure(store: Store) -> None:
    """A recalled device that is offered the release again was not exposed to the new trigger yet."""
    rollout, [parcel] = await write(store, lambda tx: add_sealed(tx, 1))
    await write(store, lambda tx: tx.settle([parcel.id], D.SENT, 8.0))

    def offer_again(tx: Tx) -> None:
        [update] = tx.updates([parcel.update_id]).values()
        again = update._replace(state=S.OFFERED, state_at=20.0)
        tx.save_updates([again])
        tx.plan(INSTALL, [again], rollout.version, 20.0, push=True)

    await write(store, offer_again)
    assert await write(store, lambda tx: tx.withdraw(rollout.id)) == [parcel.update_id]


async def test_a_poll_and_a_withdrawal_cannot_both_have_a_delivery(store: Store) -> None:
    rollout, [one, two] = await write(store, lambda tx: add_sealed(tx, 2))
    assert await write(store, lambda tx: tx.hand_over(one.id, 8.0)) is True
    assert await write(store, lambda tx: tx.withdraw(rollout.id)) == [two.update_id]
    assert await write(store, lambda tx: tx.hand_over(one.id, 9.0)) is True
    assert await write(store, lambda tx: tx.hand_over(two.id, 9.0)) is False
    assert [item.state for item in await store.read(lambda tx: tx.parcels(one.update_id))] == [D.SENT]


async def test_a_poll_gets_nothing_that_is_unsealed_or_outdated(store: Store) -> None:
    rollout, [one, two] = await write(store, lambda tx: add_offers(tx, 2))
    assert await write(store, lambda tx: tx.hand_over(one.id, 8.0)) is False
    await write(store, lambda tx: tx.seal(signed([two], 1)))
    await write(store, lambda tx: bump(tx, rollout))
    assert await write(store, lambda tx: tx.hand_over(two.id, 8.0)) is False
    assert await write(store, lambda tx: tx.hand_over(999, 8.0)) is False


async def test_a_claimed_delivery_may_be_handed_over_as_well(store: Store) -> None:
    rollout, [parcel] = await write(store, lambda tx: add_sealed(tx, 1))
    await write(store, lambda tx: tx.claim(1, 8.0))
    await write(store, lambda tx: bump(tx, rollout))
    assert await write(store, lambda tx: tx.hand_over(parcel.id, 9.0)) is True
    assert [item.state for item in await store.read(lambda tx: tx.parcels(parcel.update_id))] == [D.CLAIMED]


# Facts


async def test_facts_of_devices_are_kept_and_those_of_the_past_with_them(store: Store) -> None:
    await write(store, lambda tx: tx.enrol([(make_device(f"d{at}", groups=["lab"]), "") for at in range(3)]))
    first = await store.read(lambda tx: tx.registry_version())
    before = await store.read(lambda tx: tx.devices_named(["d1", "d0", "none"]))
    assert [item.id for item in before] == ["d0", "d1"]
    berlin = replace(before[0], site="berlin", revision="1", time_zone="UTC", tags=("a",), attributes={"x": "1"})
    for at, changed in ((5.0, berlin), (5.0, berlin), (9.0, replace(berlin, groups=()))):
        await write(store, partial(_say, changed, at))
    assert await store.read(lambda tx: tx.device("d0")) == replace(berlin, groups=(), facts_at=9.0)
    assert await store.read(lambda tx: tx.past_facts(["d0", "d1"], 4.0)) == {"d0": before[0].facts}
    assert await store.read(lambda tx: tx.past_facts(["d0"], 5.0)) == {"d0": berlin.facts}
    assert await store.read(lambda tx: tx.past_facts(["d0"], 9.0)) == {}
    assert await store.read(lambda tx: tx.registry_version()) > first
    await write(store, lambda tx: tx.set_facts([], 10.0))
    await write(store, lambda tx: tx.keep_facts([], 10.0))


def _say(changed: Device, at: float, tx: Tx) -> None:
    tx.keep_facts(tx.devices_named([changed.id]), at)
    tx.set_facts([changed], at)


async def test_the_registry_has_a_new_version_after_whatever_may_change_a_cohort(store: Store) -> None:
    versions = [await store.read(lambda tx: tx.registry_version())]
    for work in (
        lambda tx: tx.enrol([(make_device("d1"), "")]),
        lambda tx: tx.greet([Hello(1, "d2", "m1")], 1.0, enrol=True),
        lambda tx: tx.set_facts([make_device("d1", site="x")], 2.0),
    ):
        await write(store, work)
        versions.append(await store.read(lambda tx: tx.registry_version()))
    assert versions == sorted(set(versions))
    await write(store, lambda tx: tx.greet([Hello(1, "d2", "m1")], 3.0, enrol=True))
    assert await store.read(lambda tx: tx.registry_version()) == versions[-1]


async def test_a_sieve_leaves_out_who_cannot_be_meant(store: Store) -> None:
    fleet = [make_device("d1", endpoints=5), make_device("d2", "m2"), make_device("d3", rel=5)]
    fleet.append(make_device("d4", site="x", endpoints=0))
    await write(store, lambda tx: tx.enrol((item, "") for item in fleet))
    await write(store, lambda tx: tx.set_facts([replace(fleet[0], site="y")], 7.0))
    await write(store, lambda tx: tx.quarantine(["d2"], "wet", 7.0))
    for sieve, expected in (
        (Sieve(), ["d1", "d2", "d3", "d4"]),
        (Sieve({"model": frozenset({"m1"})}, 5), ["d1", "d4"]),
        (Sieve({"site": frozenset({"x"})}), ["d4"]),
        (Sieve({"site": frozenset({"x"})}, fixed_at=6.0), ["d1", "d4"]),
        (Sieve({"site": frozenset({"x"})}, fixed_at=7.0), ["d4"]),
        (Sieve({"model": frozenset()}), []),
        (Sieve(quarantined=True), ["d2"]),
        (Sieve(below_rel=5, moves=True), ["d4"]),
        (Sieve(below_rel=6, moves=True), ["d1", "d4"]),
    ):
        found = await store.read(partial(_sieved, sieve))
        assert [item.id for item in found] == expected


def _sieved(sieve: Sieve, tx: Tx) -> list[Device]:
    return tx.devices("", 9, sieve)


async def test_the_keyset_that_the_daemon_stands_on_outlives_it(open_: Callable[[], Store]) -> None:
    store = open_()
    assert await store.read(lambda tx: tx.footing()) is None
    for epoch in (3, 5):
        await write(store, partial(_stand, epoch=epoch))
    await store.close()
    store = open_()
    assert await store.read(lambda tx: tx.footing()) == Footing(5, "digest 5")
    await store.close()


def _stand(tx: Tx, epoch: int) -> None:
    tx.stand_on(Footing(epoch, f"digest {epoch}"), float(epoch))
