"""What polls are answered from without a look at the store: never other than the store would answer."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from orchestrator.core.model import Delivery, Device, Facts, Phase, Rollout, UpdateState
from orchestrator.core.rollout import Command
from orchestrator.core.targeting.cohort import Member
from orchestrator.engine.offers import polling
from orchestrator.engine.offers.known import Known
from orchestrator.engine.rollouts.operations import token_hash
from orchestrator.errors import UnavailableError
from orchestrator.ports import Lane, Result, Tx
from orchestrator.wire.report import Hello, Kind, Report, State
from tests.support.builders import REST, make_device, make_draft, make_plan
from tests.support.factory import Plant, claims_of, stock
from tests.support.store import Away, open_sqlite
from tests.web.ddi_client import Client
from tests.web.ddi_client import enrol as enrol_ddi
from tests.web.site import Site

FLEET = ("d1", "d2", "d3")
PATH = "/api/v1/firmware/version"
devices = st.sampled_from(FLEET)


async def test_polls_with_nothing_to_do_write_nothing_and_are_read_once(web: Site) -> None:
    await web.enrol("d1", "d2")
    await enrol_ddi(web, "d3")
    store = web.plant.store
    store.transactions = 0
    for _ in range(20):
        store.reads = 0
        for device in ("d1", "d2"):
            assert (await web.as_device(device, "GET", PATH)).status_code == 204
        assert (await Client(web, "d3").call("GET")).status_code == 200
    assert (store.reads, store.transactions) == (0, 0)


async def test_an_offer_is_found_by_the_next_poll_and_a_stop_by_the_one_after(web: Site) -> None:
    await web.enrol("d1")
    assert (await web.as_device("d1", "GET", PATH)).status_code == 204
    await web.release()
    await web.roll_out()
    await web.plant.seal()
    assert (await web.as_device("d1", "GET", PATH)).status_code == 200
    halted = await web.ops("POST", "/rollouts/spring/halt", {"reason": "it smokes"})
    assert halted.status_code == 200
    assert (await web.as_device("d1", "GET", PATH)).status_code == 204  # the recall is being made
    await web.plant.seal()
    recall = await web.as_device("d1", "GET", PATH)
    assert claims_of(recall.content)["act"] == "cancel"


async def test_a_renewed_token_closes_the_door_to_the_old_one_at_once(web: Site) -> None:
    await web.enrol("d1")
    old = dict(web.tokens)
    assert (await web.as_device("d1", "GET", PATH)).status_code == 204
    await web.enrol("d1")
    assert (await web.as_device("d1", "GET", PATH)).status_code == 204
    web.tokens |= old
    assert (await web.as_device("d1", "GET", PATH)).status_code == 401


class Overtaken(Away):
    """A store in which something is committed after a read was done, and before its answer arrives."""

    after: Callable[[], Awaitable[Any]] | None = None

    async def read(self, work: Callable[[Tx], Result]) -> Result:
        result = await super().read(work)
        if self.after is not None:
            commit, self.after = self.after, None
            await commit()
        return result


async def test_what_a_commit_overtook_is_not_kept(tmp_path: Path) -> None:
    store = Overtaken(open_sqlite(tmp_path))
    try:
        known = Known(store, store)
        old, new = token_hash("old"), token_hash("new")
        await store.transact(Lane.BULK, lambda tx: tx.enrol([(make_device("d1"), old)]))
        store.after = partial(store.transact, Lane.BULK, lambda tx: tx.enrol([(make_device("d1"), new)]))
        assert await known.of_token(old) is not None  # it was the token when the store was asked
        assert await known.of_token(old) is None

        rollout = await store.transact(Lane.BULK, _running)
        store.after = partial(store.transact, Lane.BULK, lambda tx: _offer(tx, rollout, "d1"))
        assert await known.of_token(new) is not None
        assert not known.is_idle("d1")
    finally:
        await store.close()


async def test_so_many_devices_are_held_and_no_more(tmp_path: Path) -> None:
    store = Away(open_sqlite(tmp_path))
    try:
        known = Known(store, store, most=2)
        fleet = [(make_device(name), token_hash(name)) for name in FLEET]
        await store.transact(Lane.BULK, lambda tx: tx.enrol(fleet))
        for _ in range(3):
            for name in FLEET:
                found = await known.of_token(token_hash(name))
                assert found is not None
                assert found.id == name
        store.reads = 0
        await known.of_token(token_hash("d3"))
        await known.of_token(token_hash("d1"))
        assert (known.is_idle("d3"), known.is_idle("d2")) == (True, False)
        assert store.reads <= 1
    finally:
        await store.close()


def _running(tx: Tx, name: str = "spring", **changes: Any) -> Rollout:
    plan = make_plan((REST,), name=name, **changes)
    if tx.release(plan.release) is None:
        stock(tx)
    return tx.add_rollout(make_draft(plan, phase=Phase.RUNNING), b"secret")


def _offer(tx: Tx, rollout: Rollout, device: str, state: UpdateState = UpdateState.OFFERED) -> None:
    opened = tx.open_updates(rollout, [Member(0, device, "m1", "")], 2, 0.0)
    tx.save_updates([item._replace(state=state) for item in opened])


class Memory(RuleBasedStateMachine):
    """Any commits in any order: what is held is always what the store would say."""

    @initialize()
    def start(self) -> None:
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.store = open_sqlite(Path(self.folder.name))
        self.known = Known(self.store, self.store)
        self.tokens: dict[str, str] = {}
        self.rollouts: list[int] = []
        self.now, self.made = 1000.0, 0
        for name in FLEET:
            self.enrol(name, "m1")

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.runner.run(self.store.close())
            self.runner.close()
            self.folder.cleanup()

    def commit(self, work: Callable[[Tx], Any]) -> Any:
        return self.runner.run(self.store.transact(Lane.BULK, work))

    @rule(name=devices, model=st.sampled_from(("m1", "m2")))
    def enrol(self, name: str, model: str) -> None:
        self.made += 1
        token = token_hash(f"{name} {self.made}")
        self.commit(lambda tx: tx.enrol([(make_device(name, model), token)]))
        if old := self.tokens.get(name):
            assert self.runner.run(self.known.of_token(old)) is None
        self.tokens[name] = token

    @rule(name=devices, words=st.sampled_from(("", "blue", "green")))
    def state_facts(self, name: str, words: str) -> None:
        facts = Facts(site=words, attributes={"ring": words}, dialect="ddi" if words else "otad")
        changed = replace(make_device(name), **{key: getattr(facts, key) for key in ("site", "attributes", "dialect")})
        self.commit(lambda tx: tx.set_facts([changed], self.now))

    @rule(name=devices, reason=st.sampled_from(("", "it smokes")))
    def quarantine(self, name: str, reason: str) -> None:
        if reason:
            self.commit(lambda tx: tx.quarantine([name], reason, self.now))
        else:
            self.commit(lambda tx: tx.release_quarantine([name]))

    @rule(name=devices, rel=st.integers(1, 3), how=st.sampled_from(("hello", "runs", "moved", "online", "seen")))
    def hear(self, name: str, rel: int, how: str) -> None:
        self.now += 1.0
        hello = Hello(v=1, dev=name, model="m1", ver=str(rel), rel=rel)
        report = Report(v=1, dev=name, att="1.1", boot="b", n=1, kind=Kind.CONFIRMED, rel=rel, ver=str(rel))
        words: dict[str, Callable[[Tx], Any]] = {
            "hello": lambda tx: tx.greet([hello], self.now, enrol=True),
            "runs": lambda tx: tx.mark_running([report], self.now),
            "moved": lambda tx: tx.mark_moved([report], self.now),
            "online": lambda tx: tx.mark_online([State(v=1, dev=name, online=rel > 1)], self.now),
            "seen": lambda tx: tx.mark_seen({name: self.now}),
        }
        self.commit(words[how])

    @rule(delivery=st.sampled_from(Delivery))
    def begin(self, delivery: Delivery) -> None:
        name = f"rollout-{len(self.rollouts)}"
        self.rollouts.append(self.commit(lambda tx: _running(tx, name, delivery=delivery)).id)

    @rule(data=st.data(), delivery=st.sampled_from(Delivery), phase=st.sampled_from(Phase))
    def change_rollout(self, data: st.DataObject, delivery: Delivery, phase: Phase) -> None:
        if self.rollouts:
            self.commit(partial(_change, data.draw(st.sampled_from(self.rollouts)), delivery, phase))

    @rule(data=st.data(), name=devices, state=st.sampled_from(UpdateState), fails=st.booleans())
    def change_update(self, data: st.DataObject, name: str, state: UpdateState, fails: bool) -> None:
        if not self.rollouts:
            return
        number = data.draw(st.sampled_from(self.rollouts))
        try:
            self.commit(partial(_move, number, name, state, fails))
        except UnavailableError:
            assert fails

    @rule(name=devices)
    def poll(self, name: str) -> None:
        device = self.runner.run(self.known.of_token(self.tokens[name]))
        assert device is not None
        mark = self.known.mark()
        answer = self.runner.run(self.store.read(lambda tx: polling.look(tx, device, self.now)))
        if answer is not None and answer.idle:
            self.known.note_idle(device.id, mark)

    @rule(name=devices)
    def ask_by_name(self, name: str) -> None:
        found = self.runner.run(self.known.named(name))
        assert _but_seen(found) == _but_seen(self.runner.run(self.store.read(lambda tx: tx.device(name))))

    @invariant()
    def it_says_what_the_store_says(self) -> None:
        for name, token in getattr(self, "tokens", {}).items():
            before = self.runner.run(self.store.read(partial(_by_token, token)))
            assert before is not None
            if self.known.is_idle(name):
                for now in (self.now, self.now + 1e6):
                    answer = self.runner.run(self.store.read(partial(polling.look, device=before, now=now)))
                    assert answer == polling.Answer()
            assert _but_seen(self.runner.run(self.known.of_token(token))) == _but_seen(before)


def _change(number: int, delivery: Delivery, phase: Phase, tx: Tx) -> None:
    rollout = tx.rollout(number)
    assert rollout is not None
    tx.save_rollout(replace(rollout, plan=replace(rollout.plan, delivery=delivery), phase=phase), None)


def _move(number: int, name: str, state: UpdateState, fails: bool, tx: Tx) -> None:
    rollout = tx.rollout(number)
    assert rollout is not None
    mine = [item for item in tx.updates_of([name]) if item.rollout_id == number]
    if mine:
        tx.save_updates([mine[0]._replace(state=state)])
    else:
        _offer(tx, rollout, name, state)
    if fails:
        raise UnavailableError("the test wants it")


def _by_token(token: str, tx: Tx) -> Device | None:
    return tx.device_by_token(token)


def _but_seen(device: Device | None) -> Device | None:
    return None if device is None else replace(device, seen_at=None)


TestMemory = Memory.TestCase
TestMemory.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


async def test_commands_of_persons_reach_the_next_poll(tmp_path: Path) -> None:
    """The engine's own commits, one after the other, as polls see them with memory and without."""
    it = Plant(tmp_path)
    known = Known(it.store, it.store)
    try:
        await it.enrol(3)
        await _same(it, known)
        rollout = await it.running(make_plan((1, REST), delivery=Delivery.POLL))
        await _same(it, known)
        for command in (Command.PAUSE, Command.RESUME, Command.HALT, Command.ABORT):
            await it.seal()
            await _same(it, known)
            await it.command(rollout, command)
            await _same(it, known)
            await it.advance(rollout)
            await _same(it, known)
    finally:
        await it.close()


async def _same(it: Plant, known: Known) -> None:
    for name in ("d000", "d001", "d002"):
        device = await it.store.read(methodcaller("device", name))
        assert device is not None
        mark = known.mark()
        answer = await it.store.read(partial(polling.look, device=device, now=it.clock()))
        assert not known.is_idle(name) or answer == polling.Answer()
        if answer is not None and answer.idle:
            known.note_idle(name, mark)
        assert known.is_idle(name) == (answer is not None and answer.idle)
