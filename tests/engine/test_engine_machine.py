"""The whole engine on a real file against a world that loses, repeats, delays, breaks the link and kills the process.

Set HYPOTHESIS_PROFILE=thorough for a long search.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Coroutine, Iterable
from operator import methodcaller
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import Phase as Search
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.core import rollout as machine
from orchestrator.core.judging import evidence, judgement
from orchestrator.core.model import Deadlines, Delivery, Phase, Rollout, UpdateState
from orchestrator.core.rollout import TABLE, Command
from orchestrator.core.update import IN_FLIGHT
from orchestrator.wire.report import Hello, Report, encode
from orchestrator.wire.topics import Channel, uplink
from tests.engine.fleet import ABSENT, DIES, GOOD, HANGS, REFUSES, RELAPSES, ROLLS_BACK, Fleet
from tests.support.builders import REST, make_plan
from tests.support.clock import running, until
from tests.support.factory import Plant, Settings, claims_of, recount

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
GRACE_S, BATCH = 30.0, 4
FLEETS = st.sampled_from([1, 4, 9, 16])
ODD_ONES = st.dictionaries(
    st.integers(0, 15), st.sampled_from([ABSENT, DIES, HANGS, REFUSES, RELAPSES, ROLLS_BACK]), max_size=3
)
STAGES = st.sampled_from([(REST,), (1, REST), (3, 5, REST), (2, 0, REST)])
LIMITS = st.lists(st.sampled_from([None, 0.95, 0.6]), max_size=2)
COMMANDS = st.sampled_from([Command.PAUSE, Command.HALT, Command.RESUME, Command.RESUME])
DEADLINES = Deadlines(accept_s=500.0, download_s=200.0, install_s=100.0, confirm_s=50.0)
WAITS_FOR_A_PERSON = {
    Phase.DRAFT: {"created", "empty_cohort"},
    Phase.PAUSED: {"operator_pause"},
    Phase.HALTED: {"operator_halt", "evidence", "lost_after_reboot"},
    Phase.INCONCLUSIVE: {"inconclusive", "unreached"},
}
Answer = TypeVar("Answer")


class CrashError(Exception):
    """The process died before a transaction."""


class Engine(RuleBasedStateMachine):
    """Up to two rollouts on one small fleet."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.fleet = Fleet()
        self.rollouts: list[Rollout] = []
        self.tokens: dict[int, bytes] = {}
        self.highest = 0
        self.offered = 0

    def do(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return self.runner.run(work)

    # Making rollouts

    @initialize(
        size=FLEETS, usual=st.sampled_from([GOOD, GOOD, GOOD, ROLLS_BACK, DIES]), odd_ones=ODD_ONES, sizes=STAGES,
        limits=LIMITS, delivery=st.sampled_from(Delivery), in_flight=st.sampled_from([1, 3, 100]),
    )  # fmt: skip
    def start(self, size, usual, odd_ones, sizes, limits, delivery, in_flight):  # type: ignore[no-untyped-def]
        self.plan = make_plan(
            sizes, limits[: len(sizes)], delivery=delivery, in_flight=in_flight, deadlines=DEADLINES, seed=size
        )
        self.fleet.add([f"d{at:03}" for at in range(size)], [odd_ones.get(at, usual) for at in range(size)])

        async def make() -> None:
            self.it = Plant(Path(self.folder.name), Settings(batch=BATCH, ahead=6, grace_s=GRACE_S, lifetime_s=400.0))
            await self.it.enrol(size)
            self.rollouts.append(await self.it.running(self.plan))

        self.do(make())

    @precondition(lambda self: len(self.rollouts) == 1)
    @rule(sizes=STAGES)
    def start_a_newer_one(self, sizes: tuple[int, ...]) -> None:
        plan = make_plan(sizes, name="summer", release="radio-3.0.0", deadlines=DEADLINES, delivery=self.plan.delivery)
        self.rollouts.append(self.do(self.it.running(plan, rel=3)))

    @rule(at=st.integers(0, 1), command=COMMANDS)
    def operate(self, at: int, command: Command) -> None:
        rollout = self.now_of(at)
        if command in TABLE[rollout.phase]:
            self.do(self.it.command(rollout, command))

    @precondition(lambda self: len(self.rollouts) == 2)
    @rule(at=st.integers(0, 1), sure=st.booleans())
    def abort(self, at: int, sure: bool) -> None:
        rollout = self.now_of(at)
        if sure and rollout.phase not in machine.FINISHED:
            self.do(self.it.command(rollout, Command.ABORT))

    # The loops of the engine, each killed now and then before one of its transactions

    @rule(survives=st.integers(0, 30))
    def step(self, survives: int) -> None:
        for rollout in self.rollouts:
            before = self.do(self.it.parcels(rollout))
            self.killed_after(survives, self.it.advance(rollout))
            self.no_offer_beyond_the_slots(rollout, len(before))

    @rule(survives=st.integers(0, 6), times=st.integers(1, 3))
    def seal(self, survives: int, times: int) -> None:
        for _ in range(times):
            self.killed_after(survives, self.it.sealer.seal_once())

    @precondition(lambda self: self.it.bus.link)
    @rule(survives=st.integers(0, 8), breaks_after=st.none() | st.integers(0, 6))
    def dispatch(self, survives: int, breaks_after: int | None) -> None:
        before = len(self.it.bus.published)
        self.it.bus.lose_acks_after = breaks_after
        self.killed_after(survives, self.publish())
        self.it.bus.lose_acks_after = None
        self.look_at(before, halted=None)

    @precondition(lambda self: self.it.bus.link)
    @rule(at=st.integers(0, 1), command=st.sampled_from([Command.PAUSE, Command.HALT]), after=st.integers(0, 4))
    def stop_while_dispatching(self, at: int, command: Command, after: int) -> None:
        rollout, before = self.now_of(at), len(self.it.bus.published)
        committed: list[int] = []

        async def stop() -> None:
            await self.it.command(rollout, command)
            committed.append(len(self.it.bus.published))

        async def both() -> None:
            stopping: list[asyncio.Future[None]] = []

            def notice(topic: str, payload: bytes) -> None:
                if len(self.it.bus.published) - before == after and not stopping:
                    stopping.append(asyncio.ensure_future(stop()))

            self.it.bus.on_publish = notice if command in TABLE[rollout.phase] else None
            await self.publish()
            await asyncio.gather(*stopping)
            self.it.bus.on_publish = None

        self.do(both())
        self.look_at(before, halted=(rollout, committed[0]) if committed else None)

    @rule()
    def restart(self) -> None:
        self.do(self.it.restart())

    @precondition(lambda self: self.it.bus.link)
    @rule()
    def lose_the_link(self) -> None:
        self.it.bus.go_down()

    @precondition(lambda self: not self.it.bus.link)
    @rule()
    def link_again(self) -> None:
        self.it.bus.come_up()

    @rule(seconds=st.sampled_from([1.0, 11.0, 40.0, 60.0, 250.0, 600.0]))
    def wait(self, seconds: float) -> None:
        self.it.clock.advance(seconds)
        self.do(self.it.recorder.judge_silence_once())

    # Devices

    @rule(data=st.data())
    def devices_hear(self, data: st.DataObject) -> None:
        self.fleet.hear(data.draw(self.some_devices()), self.it.clock())

    @rule(data=st.data(), times=st.integers(1, 3))
    def devices_act(self, data: st.DataObject, times: int) -> None:
        for device_id in data.draw(self.some_devices()) * times:
            self.fleet.units[device_id].act()

    @rule(data=st.data())
    def devices_poll(self, data: st.DataObject) -> None:
        self.poll(data.draw(self.some_devices()))

    @precondition(lambda self: self.it.bus.link)
    @rule(data=st.data())
    def devices_greet(self, data: st.DataObject) -> None:
        self.greet(data.draw(self.some_devices()))

    @precondition(lambda self: self.fleet.mail and self.it.bus.link)
    @rule(data=st.data(), again=st.booleans())
    def deliver(self, data: st.DataObject, again: bool) -> None:
        order = data.draw(st.permutations(range(len(self.fleet.mail))))[:6]
        picked = [self.fleet.mail[at] for at in order]
        if not again:
            self.fleet.mail[:] = [item for at, item in enumerate(self.fleet.mail) if at not in order]
        self.do(self.receive(picked))

    @precondition(lambda self: self.fleet.mail)
    @rule(data=st.data())
    def lose_mail(self, data: st.DataObject) -> None:
        self.fleet.mail.pop(data.draw(st.integers(0, len(self.fleet.mail) - 1)))

    # What always holds

    @invariant()
    def tallies_equal_the_recount_and_no_stage_takes_too_many(self) -> None:
        for rollout in self.rollouts:
            updates = self.do(self.it.updates(rollout))
            tally = self.do(self.it.store.read(methodcaller("tally", rollout.id)))
            assert tally == recount(updates)
            for at, stage in enumerate(self.do(self.it.rollout(rollout.id)).stages):
                opened = evidence.stage_counts(tally, at).opened
                assert opened <= stage.target <= judgement.LARGEST_EXTENSION * stage.base

    def no_offer_beyond_the_slots(self, rollout: Rollout, before: int) -> None:
        now = self.do(self.it.rollout(rollout.id))
        if now.phase is not Phase.RUNNING or len(self.do(self.it.parcels(rollout))) == before:
            return
        tally = self.do(self.it.store.read(methodcaller("tally", rollout.id)))
        confirmed = evidence.stage_counts(tally, now.stage).confirmed
        assert evidence.in_flight(tally) <= judgement.slots(now.plan, confirmed)

    def look_at(self, before: int, halted: tuple[Rollout, int] | None) -> None:
        """Check what was published since, and let the broker keep it."""
        published = self.it.bus.published[before:]
        late = 0
        for at, (_, payload, _) in enumerate(published, start=before):
            claims = claims_of(payload)
            seq = claims["seq"]
            assert self.tokens.setdefault(seq, payload) == payload
            assert seq > self.highest or seq in self.tokens
            self.highest = max(self.highest, seq)
            if claims["act"] == "cancel":
                continue
            assert self.plan.delivery is not Delivery.POLL
            if halted is not None and claims["cid"] == str(halted[0].id):
                late += at >= halted[1]
            else:
                [rollout] = [item for item in self.rollouts if str(item.id) == claims["cid"]]
                assert self.do(self.it.rollout(rollout.id)).phase in (Phase.RUNNING, Phase.DONE)
        assert late <= BATCH
        self.fleet.post(published, self.it.clock())

    def teardown(self) -> None:
        try:
            if self.rollouts:
                self.settle()
        finally:
            if self.rollouts:
                self.do(self.it.close())
            self.runner.close()
            self.folder.cleanup()

    def settle(self) -> None:
        """Lose nothing more, go on until nothing happens by itself, and see how each rollout ended."""
        if not self.it.bus.link:
            self.it.bus.come_up()
        self.it.hearing()
        self.it.clock.advance(GRACE_S)
        for _ in range(400):
            if not self.round() and not self.wait_for_the_next():
                break
        else:
            raise AssertionError(self.standing())
        for rollout in self.rollouts:
            now, updates = self.do(self.it.rollout(rollout.id)), self.do(self.it.updates(rollout))
            event(f"ended {now.phase} {now.reason.code}")
            assert now.phase in machine.FINISHED or now.reason.code in WAITS_FOR_A_PERSON[now.phase], now
            assert [item for item in updates if item.state in IN_FLIGHT] == [], now.phase
            assert now.phase is not Phase.DONE or not [item for item in updates if item.state is UpdateState.PENDING]
        self.tallies_equal_the_recount_and_no_stage_takes_too_many()

    # Doing things

    def now_of(self, at: int) -> Rollout:
        return self.do(self.it.rollout(self.rollouts[at % len(self.rollouts)].id))

    def some_devices(self) -> st.SearchStrategy[list[str]]:
        return st.lists(st.sampled_from(sorted(self.fleet.units)), max_size=12)

    def killed_after(self, survives: int, work: Coroutine[Any, Any, object]) -> None:
        """Do something; if it takes more transactions than that, the process dies before the next one."""
        left = survives

        def crash() -> None:
            nonlocal left
            if left == 0:
                raise CrashError
            left -= 1

        self.it.store.breaks = crash
        with contextlib.suppress(CrashError):
            self.do(work)
            left = -1
        self.it.store.breaks = None
        if left != -1:
            self.do(self.it.restart())
            self.it.hearing()

    async def publish(self) -> None:
        """Publish until nothing waits, or the link breaks, or the process dies."""
        task = asyncio.ensure_future(self.it.dispatcher.run())
        self.it.idle.clear()
        for _ in range(2):
            await until(lambda: task.done() or self.it.idle.is_set() or not self.it.bus.link)
            self.it.idle.clear()
            self.it.sealed.set()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def receive(self, reports: Iterable[Report]) -> None:
        """Bring reports by MQTT and wait until they are acknowledged."""
        for item in reports:
            self.it.bus.deliver(uplink(item.dev, Channel.REPORT), encode(item))
        await self.listen()

    async def listen(self) -> None:
        async with running(self.it.recorder.listen()):
            await until(lambda: not self.it.bus.waiting)
        assert not self.it.recorder.counts["poisoned"]

    def greet(self, device_ids: Iterable[str]) -> None:
        for device_id in device_ids:
            rel = self.fleet.units[device_id].state.components["main"].rel
            hello = Hello(1, device_id, "m1", f"{rel}.0.0", rel)
            self.it.bus.deliver(uplink(device_id, Channel.HELLO), encode(hello))
        self.do(self.listen())

    def poll(self, device_ids: Iterable[str]) -> None:
        for device_id in device_ids:
            answer = self.do(self.it.poll(device_id))
            if answer.token:
                assert self.plan.delivery is not Delivery.PUSH
                self.fleet.units[device_id].hear(answer.token.encode(), self.it.clock())

    def round(self) -> bool:
        """Let everybody have a turn; says whether anything moved."""
        before = self.standing()
        for rollout in self.rollouts:
            self.do(self.it.advance(rollout))
        sent = len(self.it.bus.published)
        self.do(self.it.send())
        self.look_at(sent, halted=None)
        self.fleet.hear(self.fleet.units, self.it.clock())
        self.poll(self.fleet.units)
        acted = [unit.act() for unit in self.fleet.units.values()]
        mail, self.fleet.mail[:] = list(self.fleet.mail), []
        self.do(self.receive(mail))
        return before != self.standing() or any(acted)

    def standing(self) -> list[object]:
        """Return everything that the store knows about the rollouts."""
        return [(self.do(self.it.rollout(item.id)), self.do(self.it.updates(item))) for item in self.rollouts]

    def wait_for_the_next(self) -> bool:
        """Move the clock to the next deadline or wake-up; says whether there is one."""
        flying = [item for rollout in self.rollouts for item in self.do(self.it.updates(rollout))]
        times = [*(item.deadline_at for item in flying), *self.it.conductor._wake_at.values()]
        coming = [at for at in times if at is not None]
        if not coming:
            return False
        self.it.clock.at = max(self.it.clock.at, min(coming))
        self.do(self.it.recorder.judge_silence_once())
        return True


TestEngine = Engine.TestCase
TestEngine.settings = settings(
    max_examples=400 if THOROUGH else 10,
    stateful_step_count=60 if THOROUGH else 40,
    deadline=None,
    phases=set(Search) if THOROUGH else {Search.generate},
    derandomize=not THOROUGH,
)
