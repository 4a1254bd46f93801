"""Durable ingest: QoS 1 in, decode, fold, commit with full sync, acknowledge.

Yardsticks, each in the same rounds on the same broker and load:
- the same paho engine that receives and acknowledges in the same batches, and does nothing else;
- aiomqtt, which acknowledges on receipt and stores nothing.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiomqtt

from benchmarks.field import Field, connected, prepare, publish_from_elsewhere
from orchestrator.adapters.mqtt import MqttBus
from orchestrator.demo.broker import BrokerInfo
from orchestrator.engine.reports.recorder import Recorder, RecorderSettings
from orchestrator.engine.rollouts.conductor import Conductor
from orchestrator.wire import topics
from orchestrator.wire.report import Kind, Report, encode

PAYLOAD_BYTES = 300
SETTINGS = RecorderSettings()
_KINDS = (Kind.ACCEPTED, Kind.PROGRESS, Kind.DOWNLOADED, Kind.INSTALLED)

Measure = Callable[[BrokerInfo, Path, int], Awaitable[float]]


async def run(broker: BrokerInfo, directory: Path, devices: int, rounds: int) -> None:
    """Print the figures."""
    field = await prepare(directory, devices, "")
    measures: dict[str, Measure] = {"raw": _raw, "aiomqtt": _aiomqtt, "durable": _durable(field)}
    rates: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds):
        path = directory / "load.jsonl"
        _write_load(path, field, number)
        for name, measure in measures.items():
            rates[name].append(await measure(broker, path, devices))
    await field.store.close()
    for name in ("raw", "aiomqtt"):
        ratios = [durable / other for durable, other in zip(rates["durable"], rates[name], strict=True)]
        print(
            f"durable ingest {statistics.median(rates['durable']):,.0f}/s, {_NAMES[name]} "
            f"{statistics.median(rates[name]):,.0f}/s: ratio {statistics.median(ratios):.2f}"
        )


_NAMES = {"raw": "the same engine without decoding and storing", "aiomqtt": "aiomqtt without storing"}


def _write_load(path: Path, field: Field, number: int) -> None:
    devices = list(field.attempts)
    random.Random(number).shuffle(devices)
    lines = []
    for device in devices:
        report = Report(
            v=1,
            dev=device,
            att=field.attempts[device],
            boot="bench",
            n=number,
            kind=_KINDS[number % len(_KINDS)],
            ver="1.2.3",
            seq=4_000_000_000,
            pct=10 * number % 100,
            boots=7,
            bat=80,
            sha="qx1ZbcDEfghI",
        )
        # What devices add of their own is ignored, but it has to cross the wire and the decoder.
        padding = PAYLOAD_BYTES - len(encode(report)) - len(',"own":""')
        payload = encode(report)[:-1] + b',"own":"' + b"x" * padding + b'"}'
        lines.append(json.dumps([device, payload.decode()]))
    path.write_text("\n".join(lines))


async def _raw(broker: BrokerInfo, path: Path, count: int) -> float:
    async with connected(broker, "raw", *topics.uplink_filters()) as bus:

        async def receive() -> float:
            started, done = 0.0, 0
            while done < count:
                messages = list(await bus.receive(SETTINGS.batch))
                started = started or time.perf_counter()
                if len(messages) < SETTINGS.batch:
                    await asyncio.sleep(SETTINGS.linger_s)
                    messages += await bus.receive(SETTINGS.batch - len(messages), wait=False)
                bus.ack(messages)
                done += len(messages)
            return count / (time.perf_counter() - started)

        rate, _ = await asyncio.gather(receive(), publish_from_elsewhere(broker.port, path))
        return rate


def _durable(field: Field) -> Measure:
    async def measure(broker: BrokerInfo, path: Path, count: int) -> float:
        async with connected(broker, "durable", *topics.uplink_filters()) as bus:
            watched = _Watched(bus)
            conductor = Conductor(field.store, time.time, lambda: True, lambda: None)
            recorder = Recorder(field.store, watched, SETTINGS, time.time, lambda: True, conductor.changed)
            tasks = [asyncio.create_task(recorder.listen()), asyncio.create_task(conductor.run())]
            load = asyncio.create_task(publish_from_elsewhere(broker.port, path))
            while watched.acked < count:
                await asyncio.sleep(0.01)
                for task in tasks:
                    if task.done():
                        task.result()
            await load
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert recorder.counts["reports"] == count, recorder.counts
            return count / (watched.last_at - watched.first_at)

    return measure


class _Watched:
    """A bus that notes when the first message was taken and the last one acknowledged."""

    def __init__(self, bus: MqttBus) -> None:
        self._bus = bus
        self.acked = 0
        self.first_at = 0.0
        self.last_at = 0.0

    @property
    def link(self) -> int:
        return self._bus.link

    async def run(self) -> None:
        await self._bus.run()

    async def receive(self, limit: int, *, wait: bool = True):  # type: ignore[no-untyped-def]
        messages = await self._bus.receive(limit, wait=wait)
        self.first_at = self.first_at or time.perf_counter()
        return messages

    def ack(self, messages) -> None:  # type: ignore[no-untyped-def]
        self._bus.ack(messages)
        self.acked += len(messages)
        self.last_at = time.perf_counter()

    async def publish(self, topic: str, payload: bytes, *, expiry_s: int, retain: bool = False) -> None:
        await self._bus.publish(topic, payload, expiry_s=expiry_s, retain=retain)


async def _aiomqtt(broker: BrokerInfo, path: Path, count: int) -> float:
    async with aiomqtt.Client(broker.host, broker.port, identifier="aiomqtt") as client:
        for topic in topics.uplink_filters():
            await client.subscribe(topic, qos=1)

        async def receive() -> float:
            started, done = 0.0, 0
            async for _ in client.messages:
                started = started or time.perf_counter()
                done += 1
                if done == count:
                    break
            return count / (time.perf_counter() - started)

        rate, _ = await asyncio.gather(receive(), publish_from_elsewhere(broker.port, path))
        return rate
