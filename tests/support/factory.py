"""The engine on a real SQLite file, with a clock that the test moves and a broker in memory.

Rules:
- `Plant` wires the parts as the daemon does; `restart` is a crash: new parts, new store, same file.
- Tests drive the parts step by step; only the dispatcher, which has no single step, runs as a task.
- Artifacts are really signed; what is published can be judged with the reference verifier.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator import verifier
from orchestrator.adapters.signers.file import FileSigner
from orchestrator.core import update as update_machine
from orchestrator.core.model import Artifact, Plan, Rollout, TallyKey, Update, UpdateState
from orchestrator.core.rollout import Command
from orchestrator.core.trigger import statement_claims
from orchestrator.engine.offers.dispatcher import Dispatcher
from orchestrator.engine.offers.polling import Answer, give, look
from orchestrator.engine.offers.sealer import Sealer, SealerSettings
from orchestrator.engine.reports.folding import Recorded
from orchestrator.engine.reports.hearing import Hearing
from orchestrator.engine.reports.recorder import Recorder, RecorderSettings
from orchestrator.engine.reports.recording import Batch, record
from orchestrator.engine.rollouts import operations
from orchestrator.engine.rollouts.conductor import Conductor
from orchestrator.engine.rollouts.operations import NewDevice
from orchestrator.engine.trust.keyring import Keyring, Standing
from orchestrator.ports import DeliveryKind, Lane, Parcel, Signer, Tx
from orchestrator.verifier import ARTIFACT, TRIGGER, PublicKey
from orchestrator.wire import report as wire
from orchestrator.wire.report import Kind, Report
from orchestrator.wire.token import TokenType, assemble, encode64, signing_input
from tests.support.builders import make_plan
from tests.support.bus import MemoryBus
from tests.support.clock import Clock
from tests.support.store import Away, open_sqlite

DEPLOYMENT = "test-fleet"
ORIGIN = "https://fw.example.net"
TRIGGER_KEY = FileSigner(ec.derive_private_key(11, ec.SECP256R1()))
ARTIFACT_KEY = FileSigner(ec.derive_private_key(12, ec.SECP256R1()))
KEYS = {
    TRIGGER_KEY.kid: PublicKey(TRIGGER_KEY.kid, TRIGGER, TRIGGER_KEY.x, TRIGGER_KEY.y),
    ARTIFACT_KEY.kid: PublicKey(ARTIFACT_KEY.kid, ARTIFACT, ARTIFACT_KEY.x, ARTIFACT_KEY.y),
}


def make_artifact(rel: int = 2, hardware: Sequence[str] = ("m1",), **changes: Any) -> Artifact:
    """Return an artifact with a really signed statement; its bytes are named by `rel` and hardware."""
    known = Artifact(
        sha256=encode64(hashlib.sha256(f"{rel} {hardware}".encode()).digest()),
        size_bytes=1000,
        name="radio",
        version=f"{rel}.0.0",
        rel=rel,
        sec=0,
        component="main",
        hardware=tuple(hardware),
        format="raw",
        min_from=0,
        statement="",
        uri=f"file:///images/radio-{rel}.bin",
        source_version=None,
    )
    described = replace(known, **changes)
    claims = statement_claims(described, issued_at=1_700_000_000)
    signed = signing_input(TokenType.ARTIFACT, ARTIFACT_KEY.kid, claims)
    return replace(described, statement=assemble(signed, ARTIFACT_KEY.sign(signed)).decode())


def stock(tx: Tx, rel: int = 2, hardware: Sequence[str] = ("m1",), now: float = 0.0) -> str:
    """Register an artifact and make the release `radio-<rel>.0.0` of it; returns its name."""
    artifact = make_artifact(rel, hardware)
    tx.add_artifact(artifact, now)
    return operations.create_release(tx, f"radio-{rel}.0.0", [artifact.sha256], now).name


def make_report(parcel: Parcel | Update, kind: Kind, n: int = 0, **changes: Any) -> Report:
    """Return what a device says about its attempt, running what it shall run (release counter 2 for a delivery)."""
    update_id, rel = (parcel.update_id, 2) if isinstance(parcel, Parcel) else (parcel.id, parcel.rel)
    known: dict[str, Any] = {
        "v": 1,
        "dev": parcel.device_id,
        "att": f"{update_id}.{parcel.attempt}",
        "boot": "b1",
        "n": n,
    }
    return Report(**(known | {"kind": kind, "rel": rel} | changes))


@dataclass
class Settings:
    """What tests vary."""

    batch: int = 50
    ahead: int = 200
    lifetime_s: float = 86_400.0
    grace_s: float = 30.0
    enrol: bool = True


class Plant:
    """The wired engine.

    Attributes:
        store: a real store; `store.fails` puts it away for so many transactions.
        bus: the broker.
        clock: the clock.
        planned: set when the sealer has something to do.
        sealed: set when the dispatcher has something to do.
    """

    def __init__(
        self, folder: Path, settings: Settings | None = None, signer: Signer = TRIGGER_KEY, clock: Clock | None = None
    ) -> None:
        self.folder = folder
        self.settings = settings or Settings()
        self.signer = signer
        self.clock = clock or Clock()
        self.bus = MemoryBus()
        self._wire()

    def _wire(self) -> None:
        given, bus, clock = self.settings, self.bus, self.clock
        self.store = Away(open_sqlite(self.folder))
        self.planned, self.sealed, self.idle = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.hearing = Hearing(lambda: bus.link, given.grace_s, clock, monotonic=float)
        self.hearing()
        self.conductor = Conductor(self.store, clock, self.hearing, self.planned.set)
        self.recorder = Recorder(
            self.store,
            bus,
            RecorderSettings(batch=given.batch, linger_s=0.0, enrol=given.enrol),
            clock,
            self.hearing,
            self.conductor.changed,
            self.planned.set,
        )
        sealing = SealerSettings(DEPLOYMENT, ORIGIN, given.lifetime_s, batch=given.batch, ahead=given.ahead)
        self.keyring = Keyring(verifier.Keyset(DEPLOYMENT, 1, KEYS), (), [self.signer], clock)
        self.sealer = Sealer(self.store, self._standing, sealing, clock, self.planned, self.sealed.set)
        self.dispatcher = Dispatcher(self.store, bus, given.batch, clock, self.sealed, self._drained)

    def _standing(self) -> Standing:
        return self.keyring.standing(TRIGGER)

    def _drained(self) -> None:
        self.planned.set()
        self.idle.set()

    async def restart(self) -> None:
        """Crash and start again on the same file."""
        await self.store.close()
        self._wire()

    async def close(self) -> None:
        await self.store.close()

    async def write(self, work: Any) -> Any:
        return await self.store.transact(Lane.OPERATOR, work)

    async def enrol(self, count: int, model: str = "m1", prefix: str = "d", rel: int = 1) -> None:
        """Register devices `d000`, `d001`, ... that run release counter 1."""
        devices = [NewDevice(f"{prefix}{at:03}", model, (), "1.0.0", rel) for at in range(count)]
        await self.write(lambda tx: operations.enrol(tx, devices, self.clock()))

    async def create(self, plan: Plan | None = None, *, rel: int = 2) -> Rollout:
        """Make a rollout in draft, and its release if there is none."""
        plan = plan or make_plan()

        def work(tx: Tx) -> Rollout:
            if tx.release(plan.release) is None:
                stock(tx, rel)
            return operations.create_rollout(tx, plan, "ann", self.clock())

        made: Rollout = await self.write(work)
        return made

    async def running(self, plan: Plan | None = None, *, rel: int = 2) -> Rollout:
        """Make a rollout and start it; its first devices are offered the release when this returns."""
        rollout = await self.create(plan, rel=rel)
        await self.command(rollout, Command.START)
        self.clock.advance(self.settings.grace_s)
        return await self.advance(rollout)

    async def command(self, rollout: Rollout, command: Command, reason: str = "because") -> Rollout:
        """Carry out a command of ann."""
        decision = await self.conductor.command(rollout.plan.name, command, actor="ann", reason=reason)
        return decision.rollout

    async def advance(self, rollout: Rollout) -> Rollout:
        """Let the conductor step a rollout until it waits; returns it as it stands then."""
        async with asyncio.timeout(30):
            await self.conductor.advance(rollout.id)
        return await self.rollout(rollout.id)

    async def rollout(self, rollout_id: int) -> Rollout:
        found = await self.store.read(lambda tx: tx.rollout(rollout_id))
        assert found is not None
        return found

    async def seal(self) -> int:
        """Seal until there is nothing to do; returns how many deliveries were taken."""
        taken = 0
        while now := await self.sealer.seal_once():
            taken += now
        return taken

    async def dispatch(self) -> list[tuple[str, bytes, int]]:
        """Publish until nothing waits; returns what was published."""
        before = len(self.bus.published)
        async with self.dispatching():
            await self.until_idle()
        return self.bus.published[before:]

    @asynccontextmanager
    async def dispatching(self) -> AsyncIterator[None]:
        """Run the dispatcher; it is killed at the end."""
        task = asyncio.create_task(self.dispatcher.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def until_idle(self) -> None:
        """Wait until the dispatcher found nothing to claim."""
        for _ in range(2):  # the first may be the end of its recovery
            self.idle.clear()
            self.sealed.set()
            async with asyncio.timeout(30):
                await self.idle.wait()

    async def send(self) -> list[tuple[str, bytes, int]]:
        """Seal and publish all that is planned; returns what was published."""
        sent = []
        while await self.seal():
            sent += await self.dispatch()
        return sent

    async def record(self, *reports: Report, hellos: Sequence[wire.Hello] = ()) -> Recorded:
        """Record what devices say, in one batch."""
        batch = Batch(reports=reports, hellos=hellos)
        return await self.store.transact(Lane.REPORTS, lambda tx: record(tx, batch, self.clock(), enrol=True))

    async def say(self, updates: Sequence[Update], kind: Kind, n: int = 0, **changes: Any) -> Recorded:
        """Record the same report of the devices of these updates."""
        return await self.record(*(make_report(item, kind, n, **changes) for item in updates))

    async def confirm(self, updates: Sequence[Update]) -> Recorded:
        """Record that these devices run the release and are healthy."""
        return await self.say(updates, Kind.CONFIRMED, n=99)

    async def poll(self, device_id: str) -> Answer:
        """Ask as a device does over HTTP."""
        now = self.clock()
        device = await self.store.read(lambda tx: tx.device(device_id))
        assert device is not None
        answer = await self.store.read(lambda tx: look(tx, device, now))
        if answer is None:
            answer = await self.store.transact(Lane.REPORTS, lambda tx: give(tx, device, now))
        return answer

    async def updates(self, rollout: Rollout, *states: UpdateState) -> list[Update]:
        """Return the updates of a rollout in cohort order, optionally only those in these states."""
        return await self.store.read(lambda tx: tx.updates_in(rollout.id, states or tuple(UpdateState)))

    async def states(self, rollout: Rollout) -> Counter[str]:
        """Count the updates of a rollout by state."""
        return Counter(item.state.value for item in await self.updates(rollout))

    async def parcels(self, rollout: Rollout, kind: DeliveryKind = DeliveryKind.INSTALL) -> list[Parcel]:
        """Return the deliveries of a rollout, in planning order."""
        updates = await self.updates(rollout)
        found = await self.store.read(lambda tx: [parcel for item in updates for parcel in tx.parcels(item.id)])
        return sorted((item for item in found if item.kind is kind), key=lambda item: item.id)

    async def tallies_hold(self, rollout: Rollout) -> None:
        """Assert that the tallies are what a recount of the updates gives."""
        kept = await self.store.read(lambda tx: tx.tally(rollout.id))
        assert kept == recount(await self.updates(rollout))


def recount(updates: Sequence[Update]) -> Counter[TallyKey]:
    """Count the tallies anew."""
    return Counter(key for item in updates for key in update_machine.contributions(item))


@asynccontextmanager
async def plant(folder: Path, settings: Settings | None = None, signer: Signer = TRIGGER_KEY) -> AsyncIterator[Plant]:
    """Run a test with a plant and close it at the end."""
    made = Plant(folder, settings, signer)
    try:
        yield made
    finally:
        await made.close()


def make_verifier(device_id: str, model: str = "m1", seq: int = 0, rel: int = 1) -> verifier.Device:
    """Return the trust and state of a device that runs release counter 1."""
    component = verifier.Component("main", rel, 0, seq)
    return verifier.Device(device_id, (), model, DEPLOYMENT, 1, KEYS, {"main": component}, (ORIGIN,))


def claims_of(token: str | bytes, keys: Mapping[str, PublicKey] = KEYS) -> dict[str, Any]:
    """Return the claims of a bundle's first token, which must be authentic."""
    raw = token.encode() if isinstance(token, str) else token
    return verifier.open_token(raw.split(b"\n")[0], TRIGGER, keys)
