"""Every number of `docs/gates.md`, derived from the code it explains."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from orchestrator.core.judging import diversity, gate, judgement
from orchestrator.core.judging.evidence import halt_evidence
from orchestrator.core.model import EvidenceRule, HaltRule, Plan
from tests.core.test_operating import by_evidence, by_rate, operating
from tests.support.builders import REST, make_plan, make_rollout, make_tally

PAGE = (Path(__file__).parents[2] / "docs" / "gates.md").read_text(encoding="utf-8")
PROSE = " ".join(PAGE.split())
RATES = (0.01, 0.02, 0.05, 0.10, 0.30)


def table(head: str) -> list[list[str]]:
    """Return the cells of the rows below the table head that begins with `head`."""
    lines = PAGE[PAGE.index(f"\n| {head}") :].strip().splitlines()
    end = next((at for at, line in enumerate(lines) if not line.startswith("|")), len(lines))
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in (lines[0], *lines[2:end])]


def percent(text: str) -> float:
    return float(text.removesuffix("%")) / 100


def share(rate: float, digits: int = 0) -> str:
    return f"{rate * 100:.{digits}f} %"


def test_fewest_failures_that_halt() -> None:
    head, *rows = table("p0, alpha")
    for name, *cells in rows:
        tolerated, alpha = map(percent, name.split(", "))
        found = [gate.least_failures_to_halt(int(size), tolerated, 1 / alpha) for size in head[1:]]
        assert list(map(int, cells)) == found
    assert len(rows) == 4


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_how_often_evidence_halts(alpha: float) -> None:
    head, *rows = table("true failure rate")
    assert list(map(percent, head[1:])) == list(RATES)
    results = [operating(rate, by_evidence(alpha)) for rate in RATES]
    assert [f"alpha {share(alpha)}: halted", *(f"{chance:.3f}" for chance, _ in results)] in rows
    assert [f"alpha {share(alpha)}: exposed", *(f"{exposed:.0f}" for _, exposed in results)] in rows


@pytest.mark.parametrize(("rate", "min_sample"), [(0.05, 10), (0.05, 100), (0.10, 20)])
def test_how_often_plain_thresholds_halt(rate: float, min_sample: int) -> None:
    chances = [operating(true, by_rate(rate, min_sample))[0] for true in RATES]
    cells = [f"{share(rate)} after {min_sample}", *(f"{chance:.3f}" for chance in chances)]
    assert f"| {' | '.join(cells)} |" in PAGE


def test_what_is_said_of_plain_thresholds() -> None:
    assert operating(0.01, by_rate(0.05, 10))[0] == pytest.approx(1 / 5, abs=1e-9)
    assert operating(0.30, by_rate(0.05, 100))[1] == pytest.approx(100, abs=0.01)
    assert "halts one good release in five; the second exposes 100 devices" in PROSE


def test_what_a_faultless_stage_proves() -> None:
    head, row = table("n |")
    assert row[1:] == [share(gate.upper_bound(0, int(size)), 1) for size in head[1:]]


def test_default_limits() -> None:
    _, *rows = table("devices |")
    for size, limit, allowed, *chances in rows:
        n, k = int(size), int(allowed)
        assert gate.default_limit(n) == pytest.approx(percent(limit))
        assert gate.upper_bound(k, n) <= percent(limit) < gate.upper_bound(k + 1, n)
        assert chances == [f"{_at_most(k, n, rate):.3f}" for rate in (0.01, 0.05, 0.10, 0.30)]
    assert [int(row[0]) for row in rows] == [size for size in range(10, 1001) if _begins_a_row(size)]


def _at_most(k: int, n: int, rate: float) -> float:
    return sum(math.comb(n, x) * rate**x * (1 - rate) ** (n - x) for x in range(k + 1))


def _begins_a_row(size: int) -> bool:
    return gate.default_limit(size) != gate.default_limit(size - 1)


def test_devices_that_an_extension_takes() -> None:
    head, *rows = table("failures |")
    for failures, *cells in rows:
        assert list(map(int, cells)) == [gate.devices_needed(int(failures), percent(limit)) for limit in head[1:]]
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]


def test_the_example_of_an_extension() -> None:
    more = (gate.devices_needed(1, 0.30) or 0) - 10
    assert f"A stage of 10 with one failure and a limit of 30 % thus gets {more} more devices." in PROSE


def test_failures_that_a_green_stratum_may_have() -> None:
    head, *rows = table("limit |")
    for limit, *cells in rows:
        given = make_plan((100, REST), (percent(limit), None), evidence=EvidenceRule(strata=1))
        rollout = make_rollout(given, 5000)
        found = [diversity.strata(rollout, make_tally({"confirmed": int(size)})) for size in head[1:]]
        assert list(map(int, cells)) == [item.allowed for (item,) in found]
    assert len(rows) == 6


def _thresholds(models: int, epoch: int = 0) -> list[float]:
    tally = make_tally({"confirmed": 1}, epoch=epoch)
    return [item.threshold for item in halt_evidence(make_rollout(strata=models, epoch=epoch), tally)]


DEFAULTS = Plan("spring", "radio-2.0.0", ())
SENTENCES: Sequence[tuple[Callable[[], Sequence[object]], str]] = [
    (lambda: (share(HaltRule().tolerated),), "the tolerated rate p0 ({} unless the plan says otherwise)"),
    (
        lambda: (round(1 / HaltRule().alpha), share(HaltRule().alpha)),
        "when E reaches 1/alpha, {} for the default alpha of {}",
    ),
    (lambda: (share(DEFAULTS.confidence),), "leave plausible, with {} confidence"),
    (lambda: tuple(map(round, _thresholds(4))), "With 4 models the total halts at E = {} and each model at E = {}"),
    (
        lambda: tuple(round(_thresholds(1, epoch)[0]) for epoch in range(3)),
        "so E must reach {}, then {}, then {}.",
    ),
    (
        lambda: tuple(share(gate.default_limit(size), digits) for size, digits in ((1, 0), (3, 1), (5, 1))),
        "{} for one device, {} for three, {} for five",
    ),
    (lambda: (judgement.LARGEST_EXTENSION,), "A stage grows to at most {} times its planned size."),
    (
        lambda: (share(DEFAULTS.resolved_share), share(DEFAULTS.max_unreached)),
        "At least {} of the reached devices are resolved, the soak is over, and at most {} of the stage is unreached.",
    ),
    (lambda: (diversity.LEAST_HEALTHY,), "- at least {} of its devices are healthy"),
    (lambda: (diversity.LEAST_HEALTHY,), "one stops with so many lies that fewer than {} healthy devices"),
    (lambda: (judgement.RAMP_START,), "A stage begins with {} devices in flight"),
]


@pytest.mark.parametrize(("values", "sentence"), SENTENCES)
def test_numbers_in_sentences(values: Callable[[], Sequence[object]], sentence: str) -> None:
    assert sentence.format(*values()) in PROSE


def test_the_hard_rule() -> None:
    limits = {size: gate.lost_limit(size) for size in (1, 20, 21, 100, 101)}
    assert limits == {1: 1, 20: 1, 21: 2, 100: 2, 101: None}
    assert "halts a stage of at most 20 devices, two halt a stage of at most 100." in PROSE


@pytest.mark.parametrize("tolerated", [0.0001, 0.001, 0.01, 0.05, 0.2, 0.39])
def test_one_failure_alone_never_halts_by_evidence(tolerated: float) -> None:
    assert gate.e_value(1, 1, tolerated) < 1 / HaltRule().alpha
    assert "One failure alone never halts by evidence." in PROSE


def test_e_starts_at_one() -> None:
    assert gate.e_value(0, 0, 0.01) == pytest.approx(1)
    assert "It starts at 1, rises with every failure and falls with every device." in PROSE
