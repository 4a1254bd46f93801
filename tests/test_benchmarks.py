"""What must not grow with the fleet, in small; the benchmarks measure it at full size."""

from __future__ import annotations

from pathlib import Path

from benchmarks import step
from benchmarks.times import percentile, told_ms

GENEROUS = 3.0
"""A machine that is shared is not asked for the 1.5 of the benchmark."""


async def test_a_step_costs_the_same_in_a_large_fleet(tmp_path: Path) -> None:
    small, large = await step.measure(tmp_path, 1000, 20_000)
    assert large.step_s < GENEROUS * small.step_s
    assert large.halt_s < step.MOST_HALT_S


def test_a_percentile_is_one_of_the_times() -> None:
    times = [float(number) for number in range(200, 0, -1)]
    assert [percentile(times, share) for share in (0.5, 0.99, 1.0)] == [100.0, 198.0, 200.0]
    assert percentile([7.0], 0.01) == 7.0
    assert told_ms([0.001, 0.002, 0.004]) == "p50 2 p99 4 max 4 ms"
