"""A fleet with a past, for pages: 2,000 devices and rollouts in every phase, made by the real engine.

Rules:
- Nothing is written into tables: devices are enrolled, rollouts are commanded, and what devices say is recorded.
- The same seed makes the same world.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from orchestrator.core.model import Phase, Remark, Rollout, SizeKind, StagePlan, UpdateState
from orchestrator.core.rollout import Command
from orchestrator.core.targeting.advisory import Severity
from orchestrator.core.targeting.facts import Change
from orchestrator.core.trust.approval import ApprovalNeededError
from orchestrator.core.trust.roles import SHARED, Caller, Role
from orchestrator.engine.insight.chronicle import DAY_S, Chronicle
from orchestrator.engine.reports.recording import record_silence
from orchestrator.engine.rollouts import operations, quarantine
from orchestrator.engine.rollouts.operations import NewDevice
from orchestrator.engine.targeting import facts
from orchestrator.engine.trust import approvals, operators
from orchestrator.engine.trust.approvals import Rules, Wish
from orchestrator.engine.trust.operators import Issued, NewOperator
from orchestrator.ports import Lane, Tx
from orchestrator.wire.report import Hello, Kind, State
from tests.support.builders import make_plan
from tests.support.factory import Plant, make_artifact, make_report

MODELS = {"gateway-3": 1400, "sensor-12": 340, "camera-2": 260}
VERSIONS = (("1.0.0", 1), ("0.9.4", 1), ("0.9.1", 1))
RUNNING, HALTED, COMPLETE, DRAFT = "gateway-spring", "camera-night", "sensor-1-4", "sensor-1-5"
NO_HASH = Remark("no_hash", "no SHA-256 is appended", "build it with one, so that a torn download is seen")
FORMATS: dict[str, dict[str, Any]] = {
    "gateway": {"format": "swu", "recognised": "swu", "signature": "swupdate", "min_from": 1, "size_bytes": 48_300_000},
    "sensor": {"format": "esp32", "recognised": "esp32", "signature": "esp32-secure-boot-v2", "size_bytes": 1_310_720},
    "camera": {"format": "raw", "recognised": "esp32", "size_bytes": 917_504, "remarks": (NO_HASH,)},
}
DAYS = 12
SITES = ("berlin-1", "berlin-2", "lyon-1", "porto-3")
MINUTE_S = 60.0
S = UpdateState


@dataclass
class World:
    """What was made.

    Attributes:
        plant: the engine behind it.
        tokens: operator tokens by account.
    """

    plant: Plant
    tokens: dict[str, str] = field(default_factory=dict)


async def make_world(plant: Plant, seed: int = 7) -> World:
    """Make the world in an empty plant."""
    world, random = World(plant), Random(seed)
    await _enrol(plant, random)
    for name, role in (("ann", Role.OPERATOR), ("ben", Role.APPROVER), ("cleo", Role.APPROVER), ("vic", Role.VIEWER)):
        world.tokens[name] = await _operator(plant, name, role)
    world.tokens["adam"] = await _operator(plant, "adam", Role.ADMIN, "nobody else could renew the keys")
    await _complete(plant, random)
    await _halted(plant, random)
    await _running(plant, random)
    await _draft(plant)
    await _propose(plant)
    return world


async def _enrol(plant: Plant, random: Random) -> None:
    now = plant.clock()
    devices = [
        NewDevice(
            f"{model}-{at:04}", model, (), *random.choices([("1.0.0", 1), ("0.9.4", 1), ("0.9.1", 1)], [8, 2, 1])[0]
        )
        for model, count in MODELS.items()
        for at in range(count)
    ]
    await plant.write(lambda tx: operations.enrol(tx, devices, now))
    await plant.write(lambda tx: quarantine.enter(tx, [item.id for item in devices[:6]], "bad flash", now, actor="ann"))
    places = {
        item.id: Change(site=random.choice(SITES), groups=random.choice([(), ("pilot",), ("field", "west")]))
        for item in devices[:1000]
    }
    await plant.write(lambda tx: facts.change(tx, places, now, actor="ann"))
    await _earlier(plant, random)


async def _earlier(plant: Plant, random: Random) -> None:
    """Let some days pass on which devices that were behind came to the newest version."""
    chronicle = Chronicle(plant.store, plant.clock)
    behind = [item for item in await plant.store.read(lambda tx: tx.devices("", 5000)) if item.version != "1.0.0"]
    random.shuffle(behind)
    for day in range(DAYS):
        some = behind[day::DAYS][: len(behind) // DAYS // 2]
        await plant.record(hellos=[Hello(v=1, dev=item.id, model=item.model, ver="1.0.0", rel=1) for item in some])
        await chronicle.keep()
        plant.clock.advance(DAY_S)


async def _greet(plant: Plant, random: Random) -> None:
    """Let most devices say hello at this moment."""
    devices = await plant.store.read(lambda tx: tx.devices("", 5000))
    here = [item for item in devices if random.random() < 0.94]
    hellos = [Hello(v=1, dev=item.id, model=item.model, ver=item.version, rel=item.rel) for item in here]
    states = [State(v=1, dev=item.id, online=random.random() < 0.97) for item in here]
    now = plant.clock()
    await plant.record(hellos=hellos)
    await plant.store.transact(Lane.REPORTS, lambda tx: tx.mark_online(states, now))


async def _operator(plant: Plant, name: str, role: Role, break_glass: str = "") -> str:
    wish = Wish(Caller("root@local", "", SHARED, local=True), break_glass=break_glass)

    def work(tx: Tx) -> Issued:
        made = operators.add(tx, NewOperator(name, name, (role,), 90), wish, Rules(), plant.clock())
        assert isinstance(made, Issued)
        return made

    return str((await plant.write(work)).text)


async def _release(plant: Plant, name: str, rel: int, version: str, *hardware: str) -> str:
    artifact = make_artifact(rel, hardware, name=name, version=version, **FORMATS.get(name, {}))

    def work(tx: Tx) -> str:
        tx.add_artifact(artifact, plant.clock())
        return operations.create_release(tx, f"{name}-{version}", [artifact.sha256], plant.clock()).name

    return str(await plant.write(work))


async def _drive(
    plant: Plant, rollout: Rollout, random: Random, *, rounds: int, bad: dict[str, float], answers: float = 0.7
) -> Rollout:
    """Let devices answer, minute after minute, until the rounds are over or the rollout stops."""
    for _ in range(rounds):
        rollout = await plant.advance(rollout)
        await plant.send()
        plant.clock.advance(7 * MINUTE_S)
        flying = await plant.updates(rollout, S.OFFERED, S.ACCEPTED, S.DOWNLOADED, S.INSTALLED, S.RUNNING)
        reports = []
        for item in flying:
            if random.random() > answers:
                if item.state is S.OFFERED and random.random() < 0.8:
                    reports.append(make_report(item, Kind.ACCEPTED, 1))
            elif random.random() < bad.get(item.stratum, 0.0):
                code = random.choice(["self_test", "self_test", "watchdog", "no_network"])
                reports.append(make_report(item, Kind.ROLLED_BACK, 9, code=code))
            elif random.random() < 0.006:
                reports.append(make_report(item, Kind.REFUSED, 9, code="low_battery"))
            else:
                reports.append(make_report(item, Kind.CONFIRMED, 9))
        if reports:
            await plant.record(*reports)
        now = plant.clock()
        await plant.store.transact(Lane.REPORTS, lambda tx, at=now: record_silence(tx, at, 1000))  # type: ignore[misc]
        rollout = await plant.advance(rollout)
        if rollout.phase is not Phase.RUNNING:
            break
    return rollout


def _stage(size: int, soak_s: float = 0.0, kind: SizeKind = SizeKind.COUNT) -> StagePlan:
    return StagePlan(kind, size, soak_s)


async def _start(plant: Plant, **plan: Any) -> Rollout:
    rollout = await plant.create(replace(make_plan(), seed=1, **plan))
    plant.clock.advance(3 * MINUTE_S)
    await plant.command(rollout, Command.START, "field test passed")
    plant.clock.advance(plant.settings.grace_s)
    return await plant.advance(rollout)


async def _complete(plant: Plant, random: Random) -> None:
    release = await _release(plant, "sensor", 14, "1.4.0", "sensor-12")
    stages = (_stage(30, 600), _stage(120, 600), _stage(0, 0, SizeKind.REST))
    rollout = await _start(plant, name=COMPLETE, release=release, stages=stages, in_flight=200)
    rollout = await _drive(plant, rollout, random, rounds=80, bad={"sensor-12": 0.003}, answers=0.85)
    assert rollout.phase is Phase.DONE, rollout


async def _halted(plant: Plant, random: Random) -> None:
    plant.clock.advance(60 * MINUTE_S)
    release = await _release(plant, "camera", 21, "2.1.0", "camera-2")
    stages = (_stage(20, 900), _stage(80, 900), _stage(0, 0, SizeKind.REST))
    rollout = await _start(
        plant,
        name=HALTED,
        release=release,
        stages=stages,
        in_flight=20,
        advisories=("CVE-2026-1234",),
        severity=Severity.HIGH,
    )
    rollout = await _drive(plant, rollout, random, rounds=6, bad={})
    rollout = await _drive(plant, rollout, random, rounds=40, bad={"camera-2": 0.09})
    assert rollout.phase is Phase.HALTED, rollout


async def _running(plant: Plant, random: Random) -> None:
    plant.clock.advance(90 * MINUTE_S)
    await _greet(plant, random)
    release = await _release(plant, "gateway", 30, "3.0.0", "gateway-3", "sensor-12")
    stages = (_stage(20, 1200), _stage(100, 1800), _stage(400, 3600), _stage(0, 0, SizeKind.REST))
    rollout = await _start(plant, name=RUNNING, release=release, stages=stages, in_flight=60, resolved_share=0.9)
    bad = {"gateway-3": 0.012, "sensor-12": 0.004}
    while rollout.phase is Phase.RUNNING and rollout.stage < 2:
        rollout = await _drive(plant, rollout, random, rounds=1, bad=bad, answers=0.6)
    rollout = await _drive(plant, rollout, random, rounds=5, bad=bad, answers=0.5)
    assert rollout.phase is Phase.RUNNING, rollout


async def _draft(plant: Plant) -> None:
    release = await _release(plant, "sensor", 15, "1.5.0", "sensor-12")
    await plant.create(make_plan((30, 120, -1), name=DRAFT, release=release))


async def _propose(plant: Plant) -> None:
    """Let ann ask to resume what was halted."""
    wish = Wish(Caller("ann", "ann", frozenset({Role.OPERATOR})), "the bad batch is quarantined")
    try:
        await approvals.command(
            plant.conductor, plant.store, plant.keyring, Rules(), plant.clock, HALTED, Command.RESUME, wish
        )
    except ApprovalNeededError:
        plant.clock.advance(4 * MINUTE_S)
