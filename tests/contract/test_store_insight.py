"""What every store promises of its counts over many devices (`ports.Insight`, and the slots of `ports.Rollouts`)."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest

from orchestrator.core.model import Device, TallyKey, UpdateState
from orchestrator.core.targeting.advisory import Vulnerable
from orchestrator.ports import Alike, DeliveryKind, DeliveryState, Lane, Milestone, Store, Tx
from orchestrator.wire.report import State
from tests.contract.test_store import add_fleet, add_rollout
from tests.support.builders import make_device

S = UpdateState


FLEET = (
    make_device("a1", "m1", ("lab",), version="1.0", rel=1, site="x"),
    make_device("a2", "m1", ("lab",), version="1.0", rel=1, site="x"),
    make_device("a3", "m1", (), version="3.0", rel=3),
    make_device("a4", "m1", (), version="", rel=0),
    make_device("b1", "m2", (), version="", rel=2),
    make_device("c1", "m3", (), version="0.1", rel=0),
)


def _enrol(tx: Tx) -> None:
    tx.enrol((device, "") for device in FLEET)
    tx.mark_online([State(v=1, dev="a1", online=True)], 50.0)
    tx.mark_online([State(v=1, dev="b1", online=False)], 20.0)


async def test_devices_that_are_alike_are_counted_together(store: Store) -> None:
    await store.transact(Lane.OPERATOR, _enrol)
    below = Vulnerable({"m1": 3, "m2": 3})
    found = await store.read(lambda tx: tx.count_exposed(below, (40.0, 10.0)))
    assert sorted(found, key=repr) == sorted(
        (
            Alike("m1", "x", ("lab",), True, 0, 1),
            Alike("m1", "x", ("lab",), True, 2, 1),
            Alike("m1", "", (), False, 2, 1),
            Alike("m2", "", (), True, 1, 1),
        ),
        key=repr,
    )
    assert await store.read(lambda tx: tx.count_exposed(Vulnerable(), (40.0,))) == []


@pytest.mark.parametrize(
    ("vulnerable", "expected"),
    [
        (Vulnerable({"m1": 3}), ["a1", "a2", "a4"]),
        (Vulnerable({"m1": 4, "m3": 1}), ["a1", "a2", "a3", "a4", "c1"]),
        (Vulnerable(below_any=2), ["a1", "a2", "a4", "c1"]),
        (Vulnerable(), []),
    ],
)
async def test_exposed_devices_come_in_pages(store: Store, vulnerable: Vulnerable, expected: list[str]) -> None:
    await store.transact(Lane.OPERATOR, _enrol)
    found: list[str] = []
    while page := await store.read(partial(_page, vulnerable=vulnerable, after=found[-1] if found else "")):
        found += [device.id for device in page]
    assert found == expected


async def test_devices_are_counted_by_their_endpoints(store: Store) -> None:
    assert await store.read(lambda tx: tx.count_endpoints()) == {}
    fleet = [make_device(f"e{at}", endpoints=rel) for at, rel in enumerate((0, 0, 3, None))]
    await store.transact(Lane.OPERATOR, lambda tx: tx.enrol((item, "") for item in fleet))
    assert await store.read(lambda tx: tx.count_endpoints()) == {0: 2, 3: 1, None: 1}


def _page(tx: Tx, vulnerable: Vulnerable, after: str) -> list[Device]:
    page = tx.exposed(vulnerable, after, 2)
    assert len(page) <= 2
    return page


async def test_milestones_are_counted_by_spans_of_time(store: Store) -> None:
    def work(tx: Tx) -> int:
        rollout, opened = add_fleet(tx, 4)
        offered = [item._replace(state=S.OFFERED) for item in opened]
        tx.save_updates(offered)
        for item, at in zip(offered, (10.0, 10.0, 25.0, 31.0), strict=True):
            tx.plan(DeliveryKind.INSTALL, [item], rollout.version, at, push=True)
        tx.plan(DeliveryKind.INSTALL, offered[:1], rollout.version, 90.0, push=True)  # the same one once more
        tx.plan(DeliveryKind.CANCEL, offered[:1], rollout.version, 5.0, push=True)
        [withdrawn] = tx.parcels(offered[3].id)
        tx.settle([withdrawn.id], DeliveryState.VOID, 32.0)
        tx.save_updates([offered[0]._replace(state=S.CONFIRMED, state_at=40.0)])
        return rollout.id

    number = await store.transact(Lane.OPERATOR, work)
    offered, confirmed = Milestone.OFFERED, Milestone.CONFIRMED
    assert await store.read(lambda tx: tx.milestones(number, offered, 10.0, 10)) == {0: 2, 1: 1}
    assert await store.read(lambda tx: tx.milestones(number, confirmed, 10.0, 10)) == {3: 1}
    assert await store.read(lambda tx: [tx.milestone_at(number, offered, place) for place in (1, 2, 3, 4)]) == [
        10.0,
        10.0,
        25.0,
        None,
    ]
    assert await store.read(lambda tx: tx.milestone_at(number, confirmed, 1)) == 40.0
    assert await store.read(lambda tx: tx.milestones(number + 1, offered, 0.0, 10)) == {}


async def test_slots_are_counted_by_rollout_changes_included(store: Store) -> None:
    def work(tx: Tx) -> tuple[int, int]:
        one, two = add_rollout(tx), add_rollout(tx, "autumn")
        offered = TallyKey(0, 0, "m1", "offered")
        tx.change_tallies(one.id, Counter({offered: 3, offered._replace(state="confirmed"): 5}))
        tx.fold(one.id)
        tx.change_tallies(one.id, Counter({offered: -1, offered._replace(state="running"): 1}))
        tx.change_tallies(two.id, Counter({offered: 2}))
        tx.fold(two.id)
        tx.change_tallies(two.id, Counter({offered: -2}))
        return one.id, two.id

    one, _ = await store.transact(Lane.OPERATOR, work)
    assert await store.read(lambda tx: tx.in_flight()) == {one: 3}
