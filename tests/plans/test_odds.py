"""What the templates promise, on 10,000 devices: the figures of docs/plans.md."""

from __future__ import annotations

import random
from collections import Counter
from statistics import fmean

import pytest

from orchestrator import plans
from tests.plans.odds import PLANS, End, play

SIZE, RUNS = 10_000, 300
MOST_ON_AVERAGE = {"cautious": 60, "standard": 60, "security": 60, "emergency": 60}


def ends(name: str, rate: float) -> list[End]:
    chance = random.Random(f"{name} {rate}")
    return [play(PLANS[name], SIZE, rate, chance) for _ in range(RUNS)]


@pytest.mark.parametrize("name", plans.TEMPLATES)
def test_a_release_at_one_per_cent_completes(name: str) -> None:
    words = Counter(end.word for end in ends(name, 0.01))
    assert words["done"] >= 0.95 * RUNS
    assert words["halted"] <= 0.05 * RUNS


@pytest.mark.parametrize("name", plans.TEMPLATES)
def test_a_release_at_ten_per_cent_halts_while_few_devices_have_it(name: str) -> None:
    found = ends(name, 0.10)
    assert sum(end.word == "halted" for end in found) >= 0.99 * RUNS
    assert fmean(end.exposed for end in found) < MOST_ON_AVERAGE[name]


@pytest.mark.parametrize("name", plans.TEMPLATES)
def test_liars_do_not_carry_a_release_at_twenty_per_cent(name: str) -> None:
    found = ends(name, 0.20 * 0.95)
    assert all(end.word != "done" for end in found)
    assert max(end.exposed for end in found) <= max(100, 0.05 * SIZE)
