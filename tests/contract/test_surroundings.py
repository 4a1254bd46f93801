"""What every store promises of answers, connections and outages."""

from __future__ import annotations

from orchestrator.core.judging.outside import Answer, Outage, Verdict
from orchestrator.ports import Store, Tx
from orchestrator.wire.report import State
from tests.support.builders import make_device, make_draft
from tests.support.factory import stock
from tests.support.store import write


def say(tx: Tx, now: float, *states: tuple[str, bool]) -> tuple[int, int]:
    """Note and store connection states; returns who is gone since the beginning, and who is connected."""
    said = [State(1, name, online) for name, online in states]
    tx.note_connections(said, now)
    tx.mark_online(said, now)
    return tx.gone_since(0.0), tx.connected()


async def test_the_last_answer_of_each_stage_is_kept(store: Store) -> None:
    def work(tx: Tx) -> list[Answer | None]:
        stock(tx)
        rollout = tx.add_rollout(make_draft(), b"s" * 32)
        for stage, at, verdict in ((0, 1.0, Verdict.HOLD), (0, 2.0, Verdict.PASS), (1, 3.0, Verdict.HALT)):
            tx.save_gate_answer(rollout.id, Answer(stage, at, verdict, f"at {at}"))
        return [tx.gate_answer(rollout.id, stage) for stage in range(3)]

    assert await write(store, work) == [
        Answer(0, 2.0, Verdict.PASS, "at 2.0"),
        Answer(1, 3.0, Verdict.HALT, "at 3.0"),
        None,
    ]


async def test_connections_are_counted_by_what_was_said_last(store: Store) -> None:
    def work(tx: Tx) -> list[tuple[int, int]]:
        tx.enrol([(make_device(f"d{at}"), "") for at in range(4)])
        return [
            say(tx, 1.0),
            say(tx, 2.0, ("d0", True), ("d1", True), ("d1", True), ("d2", False), ("nobody", True)),
            say(tx, 3.0, ("d0", False)),
            say(tx, 4.0, ("d0", False), ("d1", False)),
            say(tx, 5.0, ("d0", True)),
            say(tx, 6.0, ("d0", False), ("d0", True)),
        ]

    assert await write(store, work) == [(0, 0), (0, 2), (1, 1), (2, 0), (1, 1), (1, 1)]
    assert await store.read(lambda tx: (tx.gone_since(4.0), tx.gone_since(4.1))) == (1, 0)


async def test_one_outage_goes_on_at_a_time(store: Store) -> None:
    def work(tx: Tx) -> list[Outage | None]:
        seen = [tx.outage()]
        for at in (1.0, 5.0):
            tx.begin_outage(Outage(at, 30, 0.3))
            seen.append(tx.outage())
            tx.end_outage(at + 1)
            seen.append(tx.outage())
        return seen

    assert await write(store, work) == [None, Outage(1.0, 30, 0.3), None, Outage(5.0, 30, 0.3), None]
