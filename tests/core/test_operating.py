"""How often each halt rule fires, computed exactly: every device is looked at, up to the 500th.

The sums run over all paths (dynamic programming over the number of failures), nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.core.judging import gate

LOOKS = 500
Rule = Callable[[int, int], bool]


def operating(rate: float, halts: Rule) -> tuple[float, float]:
    """Return P(halt within 500 devices) and the mean number of devices exposed until then."""
    alive, halted, exposed = {0: 1.0}, 0.0, 0.0
    for n in range(1, LOOKS + 1):
        exposed += sum(alive.values())
        following: dict[int, float] = {}
        for k, weight in alive.items():
            for failures, chance in ((k, 1 - rate), (k + 1, rate)):
                if halts(failures, n):
                    halted += weight * chance
                else:
                    following[failures] = following.get(failures, 0.0) + weight * chance
        alive = following
    return halted, exposed


def by_evidence(alpha: float) -> Rule:
    """Return the e-process at p0 = 1 % as a rule."""
    least = [gate.least_failures_to_halt(n, 0.01, 1 / alpha) for n in range(LOOKS + 1)]
    return lambda k, n: (needed := least[n]) is not None and k >= needed


def by_rate(rate: float, min_sample: int) -> Rule:
    """Return the plain threshold `max_failure_rate` after `min_sample` as a rule."""
    return lambda k, n: n >= min_sample and k >= rate * n


@pytest.mark.parametrize(
    ("alpha", "rate", "chance", "exposed"),
    [
        (0.05, 0.01, 0.020, 492),
        (0.05, 0.02, 0.289, 418),
        (0.05, 0.05, 0.998, 102),
        (0.05, 0.10, 1.000, 30),
        (0.05, 0.30, 1.000, 7),
        (0.01, 0.01, 0.004, 498),
        (0.01, 0.02, 0.143, 465),
        (0.01, 0.05, 0.993, 144),
        (0.01, 0.10, 1.000, 42),
        (0.01, 0.30, 1.000, 9),
    ],
)
def test_evidence(alpha: float, rate: float, chance: float, exposed: int) -> None:
    halted, mean = operating(rate, by_evidence(alpha))
    assert (round(halted, 3), round(mean)) == (chance, exposed)


@pytest.mark.parametrize("alpha", [0.05, 0.025, 0.0125, 0.01])
def test_a_good_release_halts_less_often_than_alpha(alpha: float) -> None:
    assert operating(0.01, by_evidence(alpha))[0] < alpha


@pytest.mark.parametrize(
    ("threshold", "min_sample", "chances"),
    [
        (0.05, 10, (0.200, 0.400, 0.922, 1.000, 1.000)),
        (0.05, 100, (0.004, 0.065, 0.834, 1.000, 1.000)),
        (0.10, 20, (0.018, 0.067, 0.342, 0.926, 1.000)),
    ],
)
def test_plain_thresholds(threshold: float, min_sample: int, chances: tuple[float, ...]) -> None:
    rule = by_rate(threshold, min_sample)
    assert tuple(round(operating(rate, rule)[0], 3) for rate in (0.01, 0.02, 0.05, 0.10, 0.30)) == chances
