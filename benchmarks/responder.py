"""The responder's promise: how long after the second approval of an emergency devices are triggered and protected.

10,000 connected devices; a rollout that took all of them in and was paused stands in the way. The second approval is
the second cosigner's signature: with it the warrant is submitted and the rollout started, and with them the clock. A
bad patch is given the same way. `python -m benchmarks.responder DEVICES` for another fleet.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.engine import DEPLOYMENT, Came, Engine, crowd, running
from benchmarks.field import add_release, enrol, statement
from orchestrator import plans
from orchestrator.adapters.keys import create_keys
from orchestrator.adapters.signers.file import FileSigner
from orchestrator.adapters.store import SqlStore, open_store
from orchestrator.core.model import Phase, Plan, SizeKind, StagePlan
from orchestrator.core.pace.ceiling import STANDARD
from orchestrator.core.rollout import Command
from orchestrator.daemon import tune_interpreter
from orchestrator.demo.broker import BrokerInfo, broker
from orchestrator.engine.rollouts import operations
from orchestrator.engine.trust import warrants
from orchestrator.ports import Lane, Tx
from orchestrator.verifier import COSIGN, Keyset, PublicKey
from orchestrator.wire import token

DEVICES = 10_000
SHARE = 0.95
OLD, PATCH = "old", "patch"
OLD_REL, PATCH_REL = 2, 3
OLD_CONFIRMED = 100
"""Devices that have the old release when its rollout is paused."""
LIMIT_S = 900.0
DAYS = 1
_EMERGENCY = replace(plans.read_plan(plans.template("emergency", rollout=PATCH, release=PATCH)), models=())
_OLD = Plan(OLD, OLD, (StagePlan(SizeKind.REST, 0),), in_flight=OLD_CONFIRMED)


async def run(info: BrokerInfo, directory: Path, devices: int, *, bad: bool) -> None:
    """Print the figures of a good patch, or of a bad one."""
    keys = directory / "keys"
    create_keys(keys, DEPLOYMENT)
    store = await asyncio.to_thread(open_store, f"sqlite:///{directory / 'bench.db'}")
    await enrol(store, devices, "bench", "dev")
    await store.transact(Lane.BULK, partial(_stock, keys=keys))
    async with crowd(info, devices, "break" if bad else "update") as they:
        async with running(info, store, FileSigner.load(keys / "trigger.pem"), STANDARD) as engine:
            await _stand_in_the_way(engine, store)
            begun = await _approve(engine, store)
            wanted = round(SHARE * devices)
            ended = await _confirmed(engine, store, PATCH, wanted)
            took_s = time.monotonic() - begun
        came = await they.leave()
    rollout = await store.read(lambda tx: tx.rollout_named(PATCH))
    await store.close()
    assert rollout is not None
    reached = _first_triggers(came, str(rollout.id))
    if bad:
        assert ended is Phase.HALTED, f"a bad patch ended {ended}"
        print(f"a bad patch to {devices:,} devices: halted after {took_s:.1f} s, {len(reached)} devices reached")
    else:
        assert ended is None, f"a good patch ended {ended}: {rollout.reason}"
        triggered_s = reached[wanted - 1] - begun
        print(
            f"an emergency to {devices:,} devices, from the second approval: {SHARE:.0%} triggered after "
            f"{triggered_s:.1f} s, {SHARE:.0%} protected after {took_s:.1f} s"
        )


def _stock(tx: Tx, keys: Path) -> None:
    for name, rel in ((OLD, OLD_REL), (PATCH, PATCH_REL)):
        add_release(tx, "bench", statement(keys, "bench", rel), rel, name)
    for plan in (_OLD, _EMERGENCY):
        operations.create_rollout(tx, plan, "bench", time.time())


async def _stand_in_the_way(engine: Engine, store: SqlStore) -> None:
    """Start a rollout to all devices, and pause it when some have its release."""
    await engine.conductor.command(OLD, Command.START, actor="bench", reason="")
    await _confirmed(engine, store, OLD, OLD_CONFIRMED)
    await engine.conductor.command(OLD, Command.PAUSE, actor="bench", reason="")


async def _approve(engine: Engine, store: SqlStore) -> float:
    """Give the emergency its warrant and start it; returns when the second cosigner had signed."""
    signers = [FileSigner(ec.generate_private_key(ec.SECP256R1())) for _ in range(2)]
    known = {
        signer.kid: PublicKey(signer.kid, COSIGN, signer.x, signer.y, who=who)
        for signer, who in zip(signers, ("ann", "ben"), strict=True)
    }
    keyset = Keyset(DEPLOYMENT, 1, known, 0, 2)
    claims = await warrants.draft(engine.conductor, store, keyset, PATCH, DAYS, time.time())
    lines = _signed(claims, signers)
    begun = time.monotonic()
    await warrants.submit(store, keyset, PATCH, lines, "bench", time.time)
    await engine.conductor.command(PATCH, Command.START, actor="bench", reason="it is being attacked")
    return begun


def _signed(claims: dict[str, object], signers: Sequence[FileSigner]) -> bytes:
    first, second = signers
    given = token.signing_input(token.TokenType.COSIGN, first.kid, claims)
    line = token.assemble(given, first.sign(given))
    further = token.further_input(token.TokenType.COSIGN, second.kid, line)
    return token.bundle([line, token.assemble_further(further, second.sign(further))])


async def _confirmed(engine: Engine, store: SqlStore, name: str, wanted: int) -> Phase | None:
    """Wait until so many devices have confirmed a release; returns how the rollout ended if it did before."""
    ends = (Phase.HALTED, Phase.INCONCLUSIVE)
    async with asyncio.timeout(LIMIT_S):
        while True:
            await engine.until(lambda: True)
            await asyncio.sleep(0.05)
            phase, confirmed = await store.read(partial(_standing, name=name))
            if confirmed >= wanted or phase in ends:
                return phase if phase in ends else None


def _standing(tx: Tx, name: str) -> tuple[Phase, int]:
    rollout = tx.rollout_named(name)
    assert rollout is not None
    confirmed = sum(count for key, count in tx.tally(rollout.id).items() if key.state == "confirmed")
    return rollout.phase, confirmed


def _first_triggers(came: Sequence[Came], cid: str) -> list[float]:
    """Return when each device got its first trigger of a rollout, in order."""
    first: dict[str, float] = {}
    for item in came:
        if item.act == "install" and item.cid == cid:
            first.setdefault(item.device, item.at)
    return sorted(first.values())


async def both(devices: int) -> None:
    """Print the figures of both patches, each on a broker of its own."""
    for bad in (False, True):
        with tempfile.TemporaryDirectory(prefix="ota-bench-") as folder:
            async with broker(users=None, directory=Path(folder) / "broker") as info:
                await run(info, Path(folder), devices, bad=bad)


def main() -> None:
    """Measure with as many devices as the command line says."""
    tune_interpreter()
    asyncio.run(both(int(sys.argv[1]) if len(sys.argv) > 1 else DEVICES))


if __name__ == "__main__":
    main()
