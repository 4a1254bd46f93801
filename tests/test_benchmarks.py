"""What must not grow with the fleet, in small; the benchmarks measure it at full size."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from benchmarks import scrape, step
from benchmarks.times import percentile, told_ms
from orchestrator.core.pace.ceiling import STANDARD
from orchestrator.engine.insight.vitals import vitals
from tests.support.store import opened

GENEROUS = 3.0
"""A machine that is shared is not asked for the 1.5 of the benchmark."""


async def test_a_step_costs_the_same_in_a_large_fleet(tmp_path: Path) -> None:
    small, large = await step.measure(tmp_path, 1000, 20_000)
    assert large.step_s < GENEROUS * small.step_s
    assert large.halt_s < step.MOST_HALT_S


async def test_what_metrics_ask_the_database_costs_the_same_in_a_large_fleet(tmp_path: Path) -> None:
    small_s, large_s = [await _asked_s(tmp_path / str(devices), devices) for devices in (3000, 20_000)]
    assert large_s < GENEROUS * small_s


async def _asked_s(folder: Path, devices: int) -> float:
    folder.mkdir()
    await scrape.prepare(folder, devices)
    times: list[float] = []
    async with opened(folder) as store:
        for _ in range(20):
            begun = time.perf_counter()
            found = await store.read(partial(vitals, now=time.time(), limits=STANDARD))
            times.append(time.perf_counter() - begun)
    assert (found.devices, sum(queue.count for queue in found.queues)) == (devices, 3 * scrape.IN_FLIGHT)
    return min(times)


def test_a_percentile_is_one_of_the_times() -> None:
    times = [float(number) for number in range(200, 0, -1)]
    assert [percentile(times, share) for share in (0.5, 0.99, 1.0)] == [100.0, 198.0, 200.0]
    assert percentile([7.0], 0.01) == 7.0
    assert told_ms([0.001, 0.002, 0.004]) == "p50 2 p99 4 max 4 ms"
