"""What every store promises of times that move with the clock."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.core.judging.outside import Outage
from orchestrator.core.model import Reason, Update, UpdateState
from orchestrator.core.pace.hold import Hold
from orchestrator.core.pace.requirement import Unmet
from orchestrator.core.targeting.cohort import Member
from orchestrator.ports import Jump, Store, Tx
from orchestrator.wire.report import State
from tests.support.builders import make_device, make_draft
from tests.support.factory import stock
from tests.support.store import write

S = UpdateState
BACK = Jump(at=1000.0, by_s=-500.0, since_s=1.0)  # from 1500
AHEAD = Jump(at=1500.0, by_s=500.0, since_s=1.0)  # from 1000


def opened(tx: Tx, count: int, now: float) -> list[Update]:
    """Open updates of as many devices in a rollout."""
    stock(tx)
    tx.enrol([(make_device(f"d{at}"), "") for at in range(count)])
    rollout = tx.add_rollout(make_draft(), b"s" * 32)
    members = [Member(at, f"d{at}", "m1", "m1") for at in range(count)]
    return sorted(tx.open_updates(rollout, members, 2, now))


def all_of(tx: Tx, updates: list[Update]) -> list[Update]:
    return sorted(tx.updates([item.id for item in updates]).values())


@pytest.mark.parametrize(("jump", "now"), [(BACK, 1001.0), (AHEAD, 1501.0)])
async def test_what_waits_moves_and_what_was_said_since_stays(store: Store, jump: Jump, now: float) -> None:
    def begin(tx: Tx) -> list[Update]:
        pending, offered, accepted, confirmed, since = updates = opened(tx, 5, 900.0)
        offered = offered._replace(state=S.OFFERED, deadline_at=2000.0)
        accepted = accepted._replace(state=S.ACCEPTED, deadline_at=3000.0)
        since = since._replace(state=S.ACCEPTED, state_at=jump.at, deadline_at=4000.0)
        tx.save_updates([offered, accepted, confirmed._replace(state=S.CONFIRMED), since])
        tx.hold([(pending, Hold((Unmet(Reason("window", "closed"), None),), 9000.0, unreached=False))])
        return updates

    def move(tx: Tx) -> int | None:
        return tx.move_updates(jump, now, 0, 9)

    updates = await write(store, begin)
    before = await write(store, lambda tx: all_of(tx, updates))
    assert await write(store, move) == updates[-1].id
    pending, offered, accepted, confirmed, since = before
    assert await write(store, lambda tx: all_of(tx, updates)) == [
        pending._replace(state_at=900.0 + jump.by_s),
        offered._replace(deadline_at=2000.0 + jump.by_s),
        accepted._replace(state_at=900.0 + jump.by_s, deadline_at=3000.0 + jump.by_s),
        confirmed,
        since,
    ]
    look = await store.read(lambda tx: tx.next_look(pending.rollout_id))
    assert look == ((9000.0, "window") if jump is AHEAD else None), "who is held is looked at anew after a step back"


async def test_pieces_end_where_the_next_one_begins(store: Store) -> None:
    updates = await write(store, lambda tx: opened(tx, 5, 900.0))
    numbers = [item.id for item in updates]
    ends: list[Any] = [0]
    while ends[-1] is not None:
        ends.append(await write(store, lambda tx: tx.move_updates(AHEAD, 1501.0, ends[-1], 2)))
    assert ends == [0, numbers[1], numbers[3], numbers[4], None]
    moved = await write(store, lambda tx: all_of(tx, updates))
    assert {item.state_at for item in moved} == {1400.0}
    names: list[Any] = [""]
    while names[-1] is not None:
        names.append(await write(store, lambda tx: tx.move_devices(AHEAD, 1501.0, names[-1], 2)))
    assert names == ["", "d1", "d3", "d4", None]
    assert {item.registered_at for item in await store.read(lambda tx: tx.devices("", 9))} == {500.0}


@pytest.mark.parametrize(("jump", "now"), [(BACK, 1001.0), (AHEAD, 1501.0)])
async def test_times_of_devices_move_but_for_those_that_the_clock_had_not_reached(
    store: Store, jump: Jump, now: float
) -> None:
    known = {"old": 900.0, "since": jump.at, "strange": 9_000_000.0}

    def work(tx: Tx) -> dict[str, float]:
        tx.enrol([(make_device(name, registered_at=at), "") for name, at in known.items()])
        assert tx.move_devices(jump, now, "", 9) == "strange"
        return {item.id: item.registered_at for item in tx.devices("", 9)}

    assert await write(store, work) == known | {"old": 900.0 + jump.by_s}


async def test_facts_that_held_move_with_the_devices(store: Store) -> None:
    def work(tx: Tx) -> list[str]:
        tx.enrol([(make_device("d0"), "")])
        for until, site in ((100.0, "berlin"), (600.0, "paris"), (1100.0, "rome")):
            tx.keep_facts([make_device("d0", site=site)], until)
        tx.move_devices(Jump(at=1700.0, by_s=500.0, since_s=1.0), 1701.0, "", 9)  # each upon the next one
        at = (599.0, 600.0, 1099.0, 1100.0, 1599.0, 1600.0)
        return [found["d0"].site if (found := tx.past_facts(["d0"], moment)) else "" for moment in at]

    assert await write(store, work) == ["berlin", "paris", "paris", "rome", "rome", ""]


async def test_an_outage_moves_with_those_who_went_away(store: Store) -> None:
    def work(tx: Tx) -> tuple[Outage | None, int, int]:
        tx.enrol([(make_device("d0"), "")])
        for at, online in ((800.0, True), (900.0, False)):
            tx.note_connections([State(1, "d0", online)], at)
            tx.mark_online([State(1, "d0", online)], at)
        tx.begin_outage(Outage(910.0, 1, 0.5))
        tx.move_outage(AHEAD, 1501.0)
        tx.move_devices(AHEAD, 1501.0, "", 9)
        return tx.outage(), tx.gone_since(1400.0), tx.gone_since(1400.1)

    assert await write(store, work) == (Outage(1410.0, 1, 0.5), 1, 0)
