"""Signed triggers: planned, sealed (sequence number and signature stored), claimed, published, settled.

Yardsticks in the same rounds: a bare paho publisher of messages of the same size on the same broker, and
bare ES256 signatures of one thread.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

from benchmarks.field import Field, connected, prepare, statement
from orchestrator.adapters.keys import create_keys
from orchestrator.adapters.mqtt import MqttBus
from orchestrator.adapters.signers.file import FileSigner
from orchestrator.demo.broker import BrokerInfo
from orchestrator.engine.offers.dispatcher import Dispatcher
from orchestrator.engine.offers.sealer import Sealer, SealerSettings
from orchestrator.engine.trust.keyring import Standing
from orchestrator.wire import topics

BATCH = 50


async def run(broker: BrokerInfo, directory: Path, count: int, rounds: int) -> None:
    """Print the figures."""
    keys = directory / "keys"
    create_keys(keys, "bench")
    signer = FileSigner.load(keys / "trigger.pem")
    published, bare, signed = [], [], []
    for number in range(rounds):
        folder = directory / f"triggers-{number}"
        folder.mkdir()
        field = await prepare(folder, count, statement(keys))
        async with connected(broker, f"triggers-{number}", *topics.uplink_filters()) as bus:
            published.append(await _engine(field, bus, signer, count))
            sample = (await field.store.read(lambda tx: tx.parcels(1)))[0].token.encode()
            bare.append(await _bare(bus, sample, count))
        signed.append(_sign(signer, count))
        await field.store.close()
    for name, rates in (("a bare paho publisher", bare), ("bare ES256 signing", signed)):
        ratio = statistics.median(done / other for done, other in zip(published, rates, strict=True))
        print(
            f"signed triggers {statistics.median(published):,.0f}/s, {name} "
            f"{statistics.median(rates):,.0f}/s: ratio {ratio:.2f}"
        )


async def _engine(field: Field, bus: MqttBus, signer: FileSigner, count: int) -> float:
    planned, sealed = asyncio.Event(), asyncio.Event()
    settings = SealerSettings("bench", "https://updates.example", 3600.0, batch=BATCH)
    sealer = Sealer(field.store, lambda: Standing(1, signer), settings, time.time, planned, sealed.set)
    dispatcher = Dispatcher(field.store, bus, BATCH, time.time, sealed, planned.set)
    started = time.perf_counter()
    tasks = [asyncio.create_task(sealer.run()), asyncio.create_task(dispatcher.run())]
    while dispatcher.published < count:
        await asyncio.sleep(0.005)
    rate = count / (time.perf_counter() - started)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return rate


async def _bare(bus: MqttBus, sample: bytes, count: int) -> float:
    started = time.perf_counter()
    for start in range(0, count, BATCH):
        batch = range(start, min(start + BATCH, count))
        await asyncio.gather(*(bus.publish(topics.command(f"dev-{i:06d}"), sample, expiry_s=60) for i in batch))
    return count / (time.perf_counter() - started)


def _sign(signer: FileSigner, count: int) -> float:
    started = time.perf_counter()
    for number in range(count):
        signer.sign(number.to_bytes(600, "big"))
    return count / (time.perf_counter() - started)
