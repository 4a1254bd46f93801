"""What a plan requires, judged by the daemon on what a device said, and by the device on what is so when it begins."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.model import Phase, UpdateState
from orchestrator.core.pace.requirement import Link, Requirements
from orchestrator.core.pace.retry import Retry, RetryPolicy
from orchestrator.engine.insight import explain
from orchestrator.engine.rollouts.operations import create_release
from orchestrator.sim.behaviour import Behaviour
from orchestrator.sim.events import Command
from orchestrator.sim.profile import Profile, Trust, cast
from orchestrator.verifier import Keyset
from orchestrator.wire.report import Kind, Report
from orchestrator.wire.topics import command
from tests.sim.issuer import Bench, Build
from tests.support.builders import REST, make_plan
from tests.support.factory import DEPLOYMENT, KEYS, ORIGIN, Plant, claims_of, make_artifact

S = UpdateState
BUILD = Build.make("2.0.0", 2)
STRICT = Requirements(30, False, 1000, frozenset({Link.WIFI, Link.ETHERNET}), unmetered=True, uptime_s=60.0)
WAIT_S = 600.0
PLAN = make_plan(
    (REST,), require=STRICT, retry=RetryPolicy(transient=Retry(attempts=3, base_s=WAIT_S, cap_s=WAIT_S, jitter=0.0))
)
GOOD: dict[str, Any] = {"battery_pct": (80, 80), "free_bytes": 1_000_000, "slot_bytes": 1_000_000}


class Group:
    """Simulated devices that talk to the engine in memory, on its clock."""

    def __init__(self, it: Plant, count: int) -> None:
        self.it = it
        trust = Trust(Keyset(DEPLOYMENT, 1, KEYS), (ORIGIN,), loopback=False)
        fleet = Behaviour(devices=count, id_pattern="d{:03}", models={"m1": 1.0}, **GOOD)
        self.benches = {each.device: Bench(each, BUILD) for each in cast(fleet, self._models(fleet), trust, "run")}
        for bench in self.benches.values():
            bench.now = it.clock()
            bench.unit = replace(bench.unit, booted_at=it.clock() - 3600.0)

    @staticmethod
    def _models(fleet: Behaviour) -> dict[str, str | None]:
        return dict.fromkeys(fleet.device_ids())

    def become(self, device_id: str, **changes: Any) -> None:
        """Change the condition of a device; nobody is told."""
        unit = self.benches[device_id].unit
        if "booted_at" in changes:
            self.benches[device_id].unit = replace(unit, **changes)
            return
        fleet = replace(unit.profile.behaviour, **{"free_bytes": changes.pop("free_bytes", GOOD["free_bytes"])})
        profile: Profile = replace(unit.profile, behaviour=fleet, **changes)
        self.benches[device_id].unit = replace(unit, profile=profile)

    async def greet(self) -> None:
        now = self.it.clock()
        await self.it.record(hellos=[bench.unit.hello(now) for bench in self.benches.values()])

    async def hear(self) -> dict[str, list[Report]]:
        """Publish what is planned, let devices hear it and do what follows, and record what they say."""
        said = {}
        for topic, bundle, _ in await self.it.send():
            (device_id,) = (each for each in self.benches if command(each) == topic)
            bench = self.benches[device_id]
            bench.now, before = self.it.clock(), len(bench.reports)
            bench.feed(Command(bundle))
            bench.settle()
            said[device_id] = bench.reports[before:]
        await self.it.record(*(report for reports in said.values() for report in reports))
        return said


async def stocked(it: Plant) -> None:
    """Register the image that the devices are to install."""
    artifact = make_artifact(2, sha256=BUILD.sha256, size_bytes=len(BUILD.data))

    def work(tx: Any) -> None:
        tx.add_artifact(artifact, it.clock())
        create_release(tx, PLAN.release, [artifact.sha256], it.clock())

    await it.write(work)


async def evidence(it: Plant) -> list[tuple[int, int]]:
    found = await it.store.read(lambda tx: explain.explain_rollout(tx, "spring", it.clock(), hearing=it.hearing()))
    return [(total["k"], total["n"]) for total in found["evidence"]]


@pytest.mark.parametrize(
    ("changes", "code", "better"),
    [
        ({"battery": 29}, "low_battery", {"battery": 30}),
        ({"free_bytes": len(BUILD.data) + 999}, "no_space", {"free_bytes": len(BUILD.data) + 1000}),
        ({"link": "cellular"}, "link_unsuitable", {"link": "ethernet"}),
        ({"faults": frozenset({"metered"})}, "link_unsuitable", {"faults": frozenset()}),
        ({"booted_at": 0.0}, "just_booted", {}),
    ],
)
async def test_a_device_whose_condition_changed_refuses_and_is_offered_it_again(
    it: Plant, changes: dict[str, Any], code: str, better: dict[str, Any]
) -> None:
    await it.enrol(3)
    await stocked(it)
    group = Group(it, 3)
    rollout = await it.running(PLAN)
    await group.greet()  # all is well, and said a moment ago
    await it.advance(rollout)
    assert await it.states(rollout) == Counter(offered=3)
    group.become("d001", **({"booted_at": it.clock() - 59.0} if "booted_at" in changes else changes))
    said = await group.hear()
    assert [[report.kind for report in reports][-1] for _, reports in sorted(said.items())] == [
        Kind.CONFIRMED,
        Kind.REFUSED,
        Kind.CONFIRMED,
    ]
    assert [(report.code, report.facts is not None) for report in said["d001"]] == [(code, True)]
    rollout = await it.advance(rollout)
    assert (rollout.phase, await it.states(rollout)) == (Phase.RUNNING, Counter(confirmed=2, postponed=1))
    assert await evidence(it) == [(0, 2)]
    await it.tallies_hold(rollout)

    it.clock.advance(WAIT_S)
    await it.recorder.judge_silence_once()
    if better:
        await it.advance(rollout)
        assert await it.states(rollout) == Counter(confirmed=2, pending=1)  # its facts came with the refusal
        assert await group.hear() == {}
        group.become("d001", **better)
        await group.greet()
    await it.advance(rollout)
    assert [report.kind for report in (await group.hear())["d001"]][-1] is Kind.CONFIRMED
    [update] = [item for item in await it.updates(rollout) if item.device_id == "d001"]
    assert (update.state, update.attempt) == (S.CONFIRMED, 2)
    rollout = await it.advance(rollout)
    assert (rollout.phase, await evidence(it)) == (Phase.DONE, [(0, 3)])
    await it.tallies_hold(rollout)


async def test_devices_that_never_meet_it_run_out_of_attempts_and_condemn_nothing(it: Plant) -> None:
    await it.enrol(3)
    await stocked(it)
    group = Group(it, 3)
    rollout = await it.running(PLAN)
    for _ in range(3):
        for device_id in group.benches:
            group.become(device_id, battery=80)
        await group.greet()
        await it.advance(rollout)
        for device_id in group.benches:
            group.become(device_id, battery=10)
        assert {report.code for reports in (await group.hear()).values() for report in reports} == {"low_battery"}
        assert await evidence(it) == [(0, 0)]
        it.clock.advance(WAIT_S)
        await it.recorder.judge_silence_once()
        rollout = await it.advance(rollout)
    assert rollout.phase is not Phase.HALTED
    assert await it.states(rollout) == Counter(refused=3)
    await it.tallies_hold(rollout)


async def test_a_trigger_says_what_the_plan_requires(it: Plant) -> None:
    await it.enrol(1)
    await stocked(it)
    group = Group(it, 1)
    rollout = await it.running(PLAN)
    await group.greet()
    await it.advance(rollout)
    await it.seal()
    [parcel] = await it.parcels(rollout)
    policy = {"bat": 30, "free": 1000, "link": ["ethernet", "wifi"], "unm": 1, "up": 60}
    assert claims_of(parcel.token)["pol"] == policy
