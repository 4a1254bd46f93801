"""How long reports take from their arrival to their commit, as the recorder says."""

from __future__ import annotations

from pathlib import Path

from orchestrator.engine.reports.recorder import Recorder, RecorderSettings
from orchestrator.errors import UnavailableError
from orchestrator.ports import Message
from orchestrator.wire.report import Hello, State, encode
from orchestrator.wire.topics import Channel, uplink
from tests.support.bus import MemoryBus
from tests.support.clock import Clock, running, until
from tests.support.factory import Plant, plant


class LateBus(MemoryBus):
    """Hands out messages that arrived at a moment that the test says."""

    arrived_at = 0.0

    async def receive(self, limit: int, *, wait: bool = True) -> list[Message]:
        return [item._replace(tick=self.arrived_at) for item in await super().receive(limit, wait=wait)]


def recorder(it: Plant, bus: MemoryBus, ticks: Clock) -> Recorder:
    settings = RecorderSettings(batch=10, linger_s=0.0)
    return Recorder(it.store, bus, settings, it.clock, it.hearing, lambda _: None, ticks=ticks)


def away() -> None:
    raise UnavailableError("the database is away", code="store")


def hello(device: str) -> Hello:
    return Hello(v=1, dev=device, model="m1", ver="1.0.0", rel=1, boot="b1")


async def test_a_message_waits_until_it_is_acknowledged(tmp_path: Path) -> None:
    async with plant(tmp_path) as it:
        ticks, bus = Clock(1000.0), LateBus()
        bus.arrived_at = 997.0
        it_records = recorder(it, bus, ticks)
        assert it_records.lag_s == 0
        it.store.breaks = away
        bus.deliver(uplink("d1", Channel.HELLO), encode(hello("d1")))
        async with running(it_records.listen()):
            await until(lambda: it.store.transactions)
            assert it_records.lag_s == 3
            ticks.advance(60)
            assert it_records.lag_s == 63
            it.store.breaks = None
            await until(lambda: it_records.counts["acknowledged"] == 1)
            assert it_records.lag_s == 0
        lag = it_records.lags["mqtt"]
        assert (lag.below[-1][1], lag.total_s) == (1, 63)
        assert it_records.kinds == {"hello": 1, "state": 0}


async def test_what_comes_by_http_is_measured_apart(tmp_path: Path) -> None:
    async with plant(tmp_path) as it:
        it_records = recorder(it, it.bus, Clock(0.0))
        async with running(it_records.serve()):
            await it_records.submit(hello("d1"))
            await it_records.submit(State(v=1, dev="d1", online=True))
        assert it_records.lags["http"].below[-1][1] == 2
        assert it_records.lags["mqtt"].below[-1][1] == 0
        assert it_records.kinds == {"hello": 1, "state": 1}
