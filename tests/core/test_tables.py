"""The tables of the gate, exact, and the same characteristics once more by drawing devices."""

from __future__ import annotations

import math
from random import Random

import pytest

from orchestrator.core.judging import gate

SIZES = (5, 10, 20, 50, 100, 200, 500, 1000)
LEAST = {
    (0.01, 0.05): (2, 2, 3, 4, 6, 8, 14, 21),
    (0.01, 0.01): (2, 3, 4, 5, 6, 9, 15, 24),
    (0.02, 0.05): (2, 3, 4, 5, 8, 12, 21, 36),
    (0.05, 0.05): (3, 4, 5, 9, 13, 21, 43, 79),
}
EXACT = {
    (0.05, 0.01): (0.020, None),
    (0.05, 0.02): (0.29, 418.0),
    (0.05, 0.05): (0.998, 102.0),
    (0.05, 0.10): (1.0, 30.0),
    (0.05, 0.30): (1.0, 7.0),
    (0.01, 0.05): (0.993, 144.0),
    (0.01, 0.10): (1.0, 42.0),
}
LOOKS, RUNS = 500, 1000
FIVE_SIGMA = 5.0


@pytest.mark.parametrize(("tolerated", "alpha"), LEAST)
def test_least_failures_that_halt(tolerated: float, alpha: float) -> None:
    found = tuple(gate.least_failures_to_halt(n, tolerated, 1 / alpha) for n in SIZES)
    assert found == LEAST[tolerated, alpha]


@pytest.mark.parametrize(("alpha", "rate"), EXACT)
def test_drawn_devices_halt_as_often_and_as_soon(alpha: float, rate: float) -> None:
    least = [gate.least_failures_to_halt(n, 0.01, 1 / alpha) or n + 1 for n in range(LOOKS + 1)]
    exposed = [_exposed(Random(f"{alpha} {rate} {number}"), rate, least) for number in range(RUNS)]
    halted = [n for n in exposed if n is not None]
    chance, devices = EXACT[alpha, rate]
    error = math.sqrt(max(chance * (1 - chance), 0.001) / RUNS)
    assert abs(len(halted) / RUNS - chance) <= FIVE_SIGMA * error
    if devices is not None:
        spent = [LOOKS if n is None else n for n in exposed]
        mean = sum(spent) / RUNS
        variance = sum((n - mean) ** 2 for n in spent) / (RUNS - 1)
        assert abs(mean - devices) <= FIVE_SIGMA * math.sqrt(variance / RUNS) + 0.5


def _exposed(chance: Random, rate: float, least: list[int]) -> int | None:
    failures = 0
    for n in range(1, LOOKS + 1):
        failures += chance.random() < rate
        if failures >= least[n]:
            return n
    return None
