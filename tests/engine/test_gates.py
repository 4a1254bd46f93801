"""Services that are asked, numbers that devices measure, and words that come too soon: on a real store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial

import pytest

from orchestrator.core.judging.health import UNHEALTHY, HealthRule, Missing, Side
from orchestrator.core.judging.outside import IfUnmet, ServiceGate, Verdict
from orchestrator.core.model import Phase, Plan, Rollout, Update, UpdateState
from orchestrator.core.rollout import Command
from orchestrator.engine.insight.explain import explain_rollout
from orchestrator.engine.rollouts.gates import AT_ONCE, Gatekeeper
from orchestrator.errors import RequestError
from orchestrator.ports import Tx
from orchestrator.wire.report import Hello, Kind
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant

S = UpdateState
GATE = ServiceGate("https://metrics.example.net/ota", "alerts == 0", every_s=60.0)
COOL = HealthRule("temperature", Side.BELOW, 80.0, Missing.FAIL)


@dataclass
class Service:
    """A service that says what the test wants."""

    says: Callable[[], bytes] = lambda: b'{"alerts": 0}'
    asked: list[str] = field(default_factory=list)

    async def ask(self, url: str) -> bytes:
        self.asked.append(url)
        return self.says()


def unlisted() -> bytes:
    raise RequestError("https://metrics.example.net is not listed in gates.origins")


def late() -> bytes:
    raise TimeoutError


@dataclass
class Gated:
    """A rollout that waits for a service."""

    it: Plant
    service: Service
    keeper: Gatekeeper
    woken: set[int]
    rollout: Rollout

    async def standing(self) -> str:
        view = await self.it.store.read(
            partial(explain_rollout, name=self.rollout.plan.name, now=self.it.clock(), hearing=True)
        )
        return f"{view['code']}: {view['because']}"


async def gated(it: Plant, gate: ServiceGate = GATE) -> Gated:
    """Return a rollout whose first stage is healthy, and waits for its service alone."""
    await it.enrol(30)
    rollout = await it.running(replace(make_plan((10, REST)), gate=gate))
    await it.confirm(await it.updates(rollout))
    woken: set[int] = set()
    service = Service()
    keeper = Gatekeeper(it.store, service, it.clock, woken.update)
    return Gated(it, service, keeper, woken, await it.advance(rollout))


async def test_a_service_lets_a_stage_pass(it: Plant) -> None:
    scene = await gated(it)
    assert scene.rollout.stage == 0
    assert (await scene.standing()).startswith("service_gate: https://metrics.example.net/ota is being asked")
    assert await scene.keeper.ask_due() == 1
    assert (scene.service.asked, scene.woken) == ([GATE.url], {scene.rollout.id})
    assert (await it.advance(scene.rollout)).stage == 1


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (lambda: b'{"alerts": 1}', "alerts == 0 does not hold: it is 1.0"),
        (lambda: b"nothing", "it is not JSON"),
        (unlisted, "not listed in gates.origins"),
        (late, "did not answer within 10 s"),
    ],
)
async def test_every_other_answer_holds_it_and_says_why(it: Plant, says: Callable[[], bytes], why: str) -> None:
    scene = await gated(it)
    scene.service.says = says
    await scene.keeper.ask_due()
    assert (await it.advance(scene.rollout)).stage == 0
    assert why in await scene.standing()


async def test_it_is_asked_again_after_its_pause_and_no_sooner(it: Plant) -> None:
    scene = await gated(it)
    scene.service.says = lambda: b'{"alerts": 1}'
    await scene.keeper.ask_due()
    it.clock.advance(59.0)
    assert await scene.keeper.ask_due() == 0
    it.clock.advance(1.0)
    scene.service.says = lambda: b'{"alerts": 0}'
    assert await scene.keeper.ask_due() == 1
    assert (await it.advance(scene.rollout)).stage == 1


async def test_a_service_halts_where_the_plan_says_so(it: Plant) -> None:
    scene = await gated(it, replace(GATE, if_unmet=IfUnmet.HALT))
    it.clock.advance(1.0)
    scene.service.says = lambda: b'{"alerts": 2}'
    await scene.keeper.ask_due()
    halted = await it.advance(scene.rollout)
    assert (halted.phase, halted.reason.code) == (Phase.HALTED, "service_gate")
    assert await scene.keeper.ask_due() == 0, "a rollout that is halted asks nobody"
    resumed = await it.command(halted, Command.RESUME)
    assert (await it.advance(resumed)).phase is Phase.RUNNING


async def test_an_answer_outlives_a_crash(it: Plant) -> None:
    scene = await gated(it)
    await scene.keeper.ask_due()
    await it.restart()
    stored = await it.store.read(lambda tx: tx.gate_answer(scene.rollout.id, 0))
    assert stored is not None
    assert (stored.verdict, stored.asked_at) == (Verdict.PASS, it.clock())
    it.clock.advance(it.settings.grace_s)
    assert (await it.advance(scene.rollout)).stage == 1


@dataclass
class Silent:
    """Services of which some never answer, and some do; it counts who waits."""

    hangs: str
    waiting: int = 0
    most: int = 0
    answered: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    async def ask(self, url: str) -> bytes:
        if self.hangs in url:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            try:
                await asyncio.Event().wait()
            finally:
                self.waiting -= 1
        self.answered.put_nowait(url)
        return b'{"alerts": 0}'


async def asking(it: Plant, places: Iterable[str], timeout_s: float) -> list[Rollout]:
    """Return running rollouts that each ask one service."""
    await it.enrol(10)
    rollouts = []
    for number, place in enumerate(places):
        gate = ServiceGate(f"https://{place}/ota", "alerts == 0", every_s=60.0, timeout_s=timeout_s)
        plan = replace(make_plan((1, REST), name=f"r{number}"), gate=gate)
        rollouts.append(await it.running(plan))
    return rollouts


async def test_a_service_that_hangs_holds_up_no_other_and_not_more_than_its_share(it: Plant) -> None:
    rollouts = await asking(it, [*["slow.example.net"] * (AT_ONCE + 2), "good.example.net"], timeout_s=3600.0)
    service = Silent("slow.")
    woken: set[int] = set()
    looks = asyncio.Semaphore(0)
    keeper = Gatekeeper(it.store, service, it.clock, woken.update)
    task = asyncio.create_task(keeper.run(lambda _: looks.acquire()))
    for _ in range(3):
        looks.release()
    assert await asyncio.wait_for(service.answered.get(), 20) == "https://good.example.net/ota"
    while not woken:
        await asyncio.sleep(0)
    assert woken == {rollouts[-1].id}
    assert service.most == AT_ONCE
    it.clock.advance(60.0)
    looks.release()
    assert await asyncio.wait_for(service.answered.get(), 20) == "https://good.example.net/ota", "asked again meanwhile"
    assert service.waiting == AT_ONCE, "nobody is asked twice at once"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert service.waiting == 0


async def test_who_never_answers_is_waited_for_as_long_as_the_plan_says(it: Plant) -> None:
    rollouts = await asking(it, ["slow.example.net"] * (AT_ONCE + 1), timeout_s=0.01)
    keeper = Gatekeeper(it.store, Silent("slow."), it.clock, lambda _: None)
    assert [await keeper.ask_due(), await keeper.ask_due(), await keeper.ask_due()] == [AT_ONCE, 1, 0]
    answers = [await it.store.read(partial(_answer_of, rollout=rollout)) for rollout in rollouts]
    assert set(answers) == {(Verdict.HOLD, "https://slow.example.net/ota did not answer within 0.01 s")}


def _answer_of(tx: Tx, rollout: Rollout) -> tuple[Verdict, str] | None:
    found = tx.gate_answer(rollout.id, 0)
    return None if found is None else (found.verdict, found.text)


async def test_an_answer_to_what_is_not_asked_any_more_is_dropped(it: Plant) -> None:
    scene = await gated(it)

    other = replace(scene.rollout, plan=replace(scene.rollout.plan, gate=replace(GATE, condition="alerts < 5")))

    class Slow:
        async def ask(self, _: str) -> bytes:
            await it.write(lambda tx: tx.save_rollout(other, None))
            return b'{"alerts": 0}'

    await Gatekeeper(it.store, Slow(), it.clock, lambda _: None).ask_due()
    assert (await it.advance(scene.rollout)).stage == 0
    assert "is being asked whether alerts < 5" in await scene.standing()


async def offered(it: Plant, plan: Plan, count: int = 10) -> tuple[Rollout, list[Update]]:
    """Return a rollout whose devices were sent their trigger."""
    await it.enrol(count)
    rollout = await it.running(plan)
    await it.send()
    return rollout, await it.updates(rollout)


async def test_sick_devices_halt_a_rollout_by_the_same_evidence(it: Plant) -> None:
    rollout, updates = await offered(it, make_plan((REST,), health=(COOL,)))
    await it.say(updates[:7], Kind.CONFIRMED, metrics={"temperature": 40.0})
    await it.say(updates[7:9], Kind.CONFIRMED, metrics={"temperature": 81.5})
    await it.say(updates[9:], Kind.CONFIRMED)
    assert await it.states(rollout) == {"confirmed": 7, "failed": 3}
    assert {item.code for item in await it.updates(rollout, S.FAILED)} == {UNHEALTHY, "metric_missing"}
    assert (await it.advance(rollout)).phase is Phase.HALTED
    [line] = await it.store.read(lambda tx: tx.lines(updates[7].id))
    assert line.text == "temperature=81.5"


async def test_a_hello_tells_that_a_healthy_device_is_sick_now(it: Plant) -> None:
    rollout, updates = await offered(it, make_plan((5, REST), health=(COOL,)))
    await it.say(updates, Kind.CONFIRMED, metrics={"temperature": 40.0})

    async def greet(rel: int, temperature: float) -> dict[str, int]:
        said = {"temperature": temperature}
        await it.record(hellos=[Hello(1, updates[0].device_id, "m1", "2.0.0", rel, metrics=said)])
        return dict(await it.states(rollout))

    assert await greet(2, 50.0) == {"confirmed": 5}
    assert await greet(1, 99.0) == {"confirmed": 5}, "it speaks of another release"
    assert await greet(2, 99.0) == {"confirmed": 4, "failed": 1}


async def test_a_word_that_comes_too_soon_changes_nothing(it: Plant) -> None:
    rollout, updates = await offered(it, make_plan((REST,), soonest_s=30.0), 2)
    honest, liar = updates
    done = await it.say([liar], Kind.CONFIRMED)
    assert (done.ignored["too_soon"], await it.states(rollout)) == (1, {"offered": 2})
    it.clock.advance(30.0)
    await it.say([honest], Kind.CONFIRMED)
    assert await it.states(rollout) == {"confirmed": 1, "offered": 1}


async def test_a_word_about_a_trigger_that_never_left_is_not_believed(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running(make_plan((REST,), soonest_s=30.0))
    it.clock.advance(100.0)
    done = await it.confirm(await it.updates(rollout))
    assert (done.ignored["too_soon"], await it.states(rollout)) == (1, {"offered": 1})


async def test_a_bad_word_is_believed_at_once(it: Plant) -> None:
    rollout, updates = await offered(it, make_plan((REST,), soonest_s=30.0), 2)
    await it.say(updates[:1], Kind.FAILED, code="theirs")
    assert await it.states(rollout) == {"failed": 1, "offered": 1}


async def test_explain_says_how_many_lies_a_gate_rests_on(it: Plant) -> None:
    await it.enrol(60)
    rollout = await it.running(make_plan((20, REST)))
    await it.confirm(await it.updates(rollout, S.OFFERED))
    await it.advance(rollout)
    await it.confirm(await it.updates(rollout, S.OFFERED))
    view = await it.store.read(partial(explain_rollout, name=rollout.plan.name, now=it.clock(), hearing=False))
    assert "would have halted if 3 of the 20 confirmations were lies" in "\n".join(view["next"])
