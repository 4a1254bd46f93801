"""A disk that is full while a person wants a rollout to stop: on a real store that says that it is."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import Connection, event

from orchestrator.adapters.store import SqlStore
from orchestrator.core.model import DAEMON, Delivery, Phase, Rollout
from orchestrator.core.rollout import Command
from orchestrator.engine.offers.polling import Answer, give, look
from orchestrator.errors import ConflictError, NotFoundError, UnavailableError
from orchestrator.ports import Lane, Tx
from tests.support.builders import REST, make_plan
from tests.support.clock import running, until
from tests.support.factory import Plant


class Disk:
    """Where a plant keeps its store; while `full` is set SQLite says what it says when a disk is full."""

    def __init__(self, it: Plant) -> None:
        self.it, self.full, self.pages = it, False, 0
        inner = it.store._store
        assert isinstance(inner, SqlStore)
        self.store = inner
        event.listen(inner._writing, "begin", self._limit)

    def _limit(self, connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {self.pages if self.full else 2**30}")

    async def fill(self) -> None:
        """Let the file grow no more, and fill what room there is in it for another line of the audit log."""
        with closing(sqlite3.connect(self.it.folder / "state.db")) as other:
            [(self.pages,)] = other.execute("PRAGMA page_count").fetchall()
        self.full = True
        for size in (2000, 200, 1):
            with pytest.raises(UnavailableError, match="disk is full"):
                while True:
                    await self.it.write(partial(_grow, size=size))


def _grow(tx: Tx, size: int) -> None:
    tx.audit(DAEMON, "x", "x", {"x": "x" * size}, 0.0)


class Live:
    """A running rollout whose triggers are sealed and wait, and a daemon's dispatcher before them."""

    def __init__(self, it: Plant, rollout: Rollout) -> None:
        self.it, self.rollout, self.disk = it, rollout, Disk(it)
        it.dispatcher._store_stops = it.conductor.stops.store

    async def say(self, command: Command) -> None:
        await self.it.conductor.command("spring", command, actor="ann", reason="smoke")

    async def phase(self) -> Phase:
        return (await self.it.rollout(self.rollout.id)).phase


@pytest.fixture
async def live(it: Plant) -> Live:
    await it.enrol(8)
    rollout = await it.running(make_plan((REST,), delivery=Delivery.HYBRID))
    await it.seal()
    return Live(it, rollout)


@pytest.mark.parametrize(
    ("command", "phase"),
    [(Command.PAUSE, Phase.PAUSED), (Command.HALT, Phase.HALTED), (Command.ABORT, Phase.ABORTED)],
)
async def test_a_stop_takes_effect_though_it_cannot_be_stored(live: Live, command: Command, phase: Phase) -> None:
    await live.disk.fill()
    with pytest.raises(UnavailableError, match="spring is stopped in this process all the same") as caught:
        await live.say(command)
    assert caught.value.code == "stopped_here"
    assert await live.phase() is Phase.RUNNING
    assert live.it.conductor.stops.rollouts == {live.rollout.id: "spring"}
    assert live.disk.store.fault
    async with live.it.dispatching():
        await until(lambda: live.it.store.transactions > 20)  # it tries, and its small writes may even find room
        assert live.it.bus.published == []
        live.disk.full = False
        await until(lambda: not live.it.conductor.stops.rollouts)
    assert live.it.bus.published == []
    assert await live.phase() is phase
    events = await live.it.store.read(lambda tx: tx.events(live.rollout.id))
    assert (events[-1].actor, events[-1].text) == ("ann", "smoke")
    assert await live.disk.store.probe() == ""
    assert live.disk.store.fault == ""


async def test_a_poll_gets_no_trigger_of_what_is_stopped(live: Live) -> None:
    before = await live.it.poll("d000")
    assert before.token
    await live.disk.fill()
    with pytest.raises(UnavailableError):
        await live.say(Command.HALT)
    device = await live.it.store.read(lambda tx: tx.device("d000"))
    assert device is not None
    stopped = live.it.conductor.stops.rollouts
    now = live.it.clock()
    assert await live.it.store.read(lambda tx: look(tx, device, now)) == before
    assert await live.it.store.read(lambda tx: look(tx, device, now, stopped)) == Answer()
    assert await live.it.store.read(lambda tx: give(tx, device, now, stopped)) == Answer()


async def test_a_recall_still_reaches_who_polls(live: Live) -> None:
    assert (await live.it.poll("d000")).token
    await live.say(Command.HALT)
    await live.it.seal()
    device = await live.it.store.read(lambda tx: tx.device("d000"))
    assert device is not None
    stopped = {live.rollout.id}
    answer = await live.it.store.transact(Lane.REPORTS, lambda tx: give(tx, device, live.it.clock(), stopped))
    assert answer.token


async def test_stops_are_stored_in_their_order_and_before_anything_else(live: Live) -> None:
    await live.disk.fill()
    for command in (Command.PAUSE, Command.HALT, Command.HALT):
        with pytest.raises(UnavailableError):
            await live.say(command)
    with pytest.raises(UnavailableError, match="disk is full"):
        await live.say(Command.RESUME)
    live.disk.full = False
    await live.say(Command.RESUME)
    events = await live.it.store.read(lambda tx: tx.events(live.rollout.id))
    assert [item.phase for item in events[-3:]] == [Phase.PAUSED, Phase.HALTED, Phase.RUNNING]


async def test_the_conductor_stores_it_by_itself(live: Live) -> None:
    await live.disk.fill()
    with pytest.raises(UnavailableError):
        await live.say(Command.HALT)
    async with running(live.it.conductor.run()):
        live.disk.full = False
        await until(lambda: not live.it.conductor.stops.rollouts)
    assert await live.phase() is Phase.HALTED


async def test_what_cannot_be_stopped_is_refused_as_ever(live: Live) -> None:
    await live.say(Command.ABORT)
    await live.disk.fill()
    with pytest.raises(ConflictError):
        await live.say(Command.PAUSE)
    with pytest.raises(NotFoundError):
        await live.it.conductor.command("autumn", Command.HALT, actor="ann", reason="smoke")
    live.it.store.fails = 1
    with pytest.raises(ConflictError):
        await live.say(Command.HALT)
    assert live.it.conductor.stops.rollouts == {}


async def test_a_stop_that_came_to_nothing_is_dropped(live: Live) -> None:
    await live.disk.fill()
    with pytest.raises(UnavailableError):
        await live.say(Command.PAUSE)
    live.disk.full = False
    over = replace(await live.it.rollout(live.rollout.id), phase=Phase.DONE)
    await live.it.write(lambda tx: tx.save_rollout(over, None))
    await live.it.conductor.stops.store()
    assert live.it.conductor.stops.rollouts == {}
    assert await live.phase() is Phase.DONE


async def test_the_probe_says_that_nothing_can_be_written(live: Live) -> None:
    assert await live.disk.store.probe() == ""
    with closing(sqlite3.connect(live.it.folder / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        event.listen(live.disk.store._writing, "begin", _at_once, insert=True)
        assert "database is locked" in await live.disk.store.probe()
        other.execute("ROLLBACK")
    assert live.disk.store.fault
    assert await live.it.store.read(lambda tx: tx.fleet_size()) == 8
    assert await live.disk.store.probe() == ""
    assert live.disk.store.fault == ""


def _at_once(connection: Connection) -> None:
    connection.exec_driver_sql("PRAGMA busy_timeout = 0")
