"""How evidence came: every point is judged as the verdict is, and the last one is the verdict's own."""

from __future__ import annotations

from orchestrator.core.judging import evidence, gate
from orchestrator.core.model import Phase, UpdateState
from orchestrator.core.rollout import Command
from orchestrator.engine.insight import census, trail
from orchestrator.engine.rollouts import quarantine
from orchestrator.wire.report import Hello, Kind, State
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant, stock

S = UpdateState


async def drawn(it: Plant) -> trail.View:
    return await it.store.read(lambda tx: trail.of_rollout(tx, "spring", it.clock()))


async def test_before_an_offer_there_is_no_trail(it: Plant) -> None:
    await it.enrol(3)
    await it.create()
    assert await drawn(it) == {"since": None, "until": None, "limit": None, "strata": []}


async def test_each_report_moves_the_evidence(it: Plant) -> None:
    await it.enrol(20)
    rollout = await it.running(make_plan((10, REST)))
    begun = it.clock()
    first, second, *rest = await it.updates(rollout, S.OFFERED)
    it.clock.advance(600)
    await it.say([first], Kind.FAILED)
    it.clock.advance(600)
    await it.confirm([second, *rest[:4]])
    it.clock.advance(600)
    found = await drawn(it)
    assert (found["since"], found["until"]) == (begun, it.clock())
    [total] = found["strata"]
    assert (total["stratum"], total["threshold"]) == ("all", 20)
    seen = [(point["k"], point["n"], point["healthy"]) for point in total["points"]]
    assert seen == [(0, 10, 0), (1, 10, 0), (1, 10, 5), (1, 10, 5)]
    assert [point["e"] for point in total["points"]] == [gate.e_value(k, n, 0.01) for k, n, _ in seen]
    assert [point["upper"] for point in total["points"]] == [gate.upper_bound(n - h, n) for _, n, h in seen]
    assert total["points"][1]["at"] - begun <= 600 + 1800 / trail.MOST_POINTS
    rollout = await it.rollout(rollout.id)
    tally = await it.store.read(lambda tx: tx.tally(rollout.id))
    assert total["points"][-1]["e"] == evidence.halt_evidence(rollout, tally)[0].e_value


async def test_a_halted_trail_ends_with_the_halt(it: Plant) -> None:
    await it.enrol(20)
    rollout = await it.running(make_plan((10, REST)))
    await it.send()
    it.clock.advance(60)
    await it.say((await it.updates(rollout, S.OFFERED))[:3], Kind.FAILED)
    rollout = await it.advance(rollout)
    assert rollout.phase is Phase.HALTED
    it.clock.advance(10_000)
    found = await drawn(it)
    assert found["until"] == rollout.moved_at
    assert found["strata"][0]["points"][-1]["k"] == 3


async def test_strata_have_trails_of_their_own(it: Plant) -> None:
    await it.enrol(10)
    await it.enrol(10, "m2", "e")
    await it.write(lambda tx: stock(tx, 2, ("m1", "m2")))
    rollout = await it.running(make_plan((REST,), in_flight=20, release="radio-2.0.0"))
    it.clock.advance(60)
    flying = await it.updates(rollout, S.OFFERED)
    await it.say([item for item in flying if item.stratum == "m2"][:1], Kind.FAILED)
    found = await drawn(it)
    last = {item["stratum"]: item["points"][-1] for item in found["strata"]}
    assert {name: point["k"] for name, point in last.items()} == {"all": 1, "m1": 0, "m2": 1}
    assert last["all"]["n"] == last["m1"]["n"] + last["m2"]["n"]


async def test_a_failure_that_was_given_another_attempt_stays_in_the_trail(it: Plant) -> None:
    await it.enrol(20)
    rollout = await it.running(make_plan((10, REST)))
    it.clock.advance(600)
    await it.say((await it.updates(rollout, S.OFFERED))[:1], Kind.FAILED)
    it.clock.advance(600)
    await it.command(rollout, Command.RETRY)
    it.clock.advance(600)
    points = (await drawn(it))["strata"][0]["points"]
    assert [point["k"] for point in points][-2:] == [1, 1]


async def test_the_census_counts_everybody_once(it: Plant) -> None:
    await it.enrol(5)
    await it.enrol(3, "m2", "e", rel=2)
    it.clock.advance(2 * census.SILENT_S)
    now = it.clock()
    await it.record(hellos=[Hello(v=1, dev="d000", model="m1", ver="3.0.0", rel=3)])
    states = [State(v=1, dev="d000", online=True), State(v=1, dev="d001", online=False)]
    await it.write(lambda tx: tx.mark_online(states, now))
    await it.write(lambda tx: quarantine.enter(tx, ["e000"], "broken", now, actor="ann"))
    found = await it.store.read(lambda tx: census.of_fleet(tx, now))
    figures = {name: found[name] for name in ("devices", "online", "offline", "unsaid", "quarantined")}
    assert figures == {"devices": 8, "online": 1, "offline": 1, "unsaid": 6, "quarantined": 1}
    assert found["silent"] == 6  # d000 and d001 spoke just now
    assert [(item["version"], item["rel"], item["devices"]) for item in found["versions"]] == [
        ("1.0.0", 1, 4),
        ("1.0.0", 2, 3),
        ("3.0.0", 3, 1),
    ]
    assert found["models"] == [{"model": "m1", "devices": 5}, {"model": "m2", "devices": 3}]
