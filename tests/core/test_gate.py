"""The arithmetic of evidence against exact sums, published tables and its own laws."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.judging import gate

SIZES = (5, 10, 20, 50, 100, 200, 500, 1000)
LEAST_FAILURES = [
    (0.01, 0.05, (2, 2, 3, 4, 6, 8, 14, 21)),
    (0.01, 0.01, (2, 3, 4, 5, 6, 9, 15, 24)),
    (0.02, 0.05, (2, 3, 4, 5, 8, 12, 21, 36)),
    (0.05, 0.05, (3, 4, 5, 9, 13, 21, 43, 79)),
]
# devices of the stage, limit, failures it may have and still pass
ALLOWED_FAILURES = [
    (10, 0.30, 0),
    (30, 0.15, 1),
    (50, 0.10, 1),
    (100, 0.08, 3),
    (200, 0.05, 4),
    (500, 0.03, 8),
    (1000, 0.025, 16),
]

tolerated_rates = st.floats(0.001, 0.39)
exposures = st.integers(1, 3000)


def at_most(failures: int, exposed: int, rate: Fraction) -> Fraction:
    """Return P(X <= failures) for X binomial, exactly."""
    return sum(
        (math.comb(exposed, k) * rate**k * (1 - rate) ** (exposed - k) for k in range(failures + 1)), Fraction(0)
    )


def exact_e_value(failures: int, exposed: int, tolerated: Fraction) -> Fraction:
    """Return the grid mixture from its definition, exactly; grid points that coincide count once."""
    grid = {min(Fraction(4, 5), tolerated * multiple) for multiple in (2, 4, 8, 16, 32)}
    ratios = [(rate / tolerated) ** failures * ((1 - rate) / (1 - tolerated)) ** (exposed - failures) for rate in grid]
    return sum(ratios, Fraction(0)) / len(ratios)


@pytest.mark.parametrize(("tolerated", "alpha", "row"), LEAST_FAILURES)
def test_least_failures_that_halt(tolerated: float, alpha: float, row: tuple[int, ...]) -> None:
    assert tuple(gate.least_failures_to_halt(n, tolerated, 1 / alpha) for n in SIZES) == row


def test_one_device_alone_can_never_halt_by_evidence() -> None:
    assert gate.least_failures_to_halt(1, 0.01, 20) is None
    assert gate.least_failures_to_halt(0, 0.01, 20) is None


@pytest.mark.parametrize("tolerated", [Fraction(1, 100), Fraction(1, 50), Fraction(1, 20), Fraction(1, 5)])
@pytest.mark.parametrize(("failures", "exposed"), [(0, 0), (0, 7), (1, 1), (2, 10), (3, 20), (14, 500), (40, 60)])
def test_e_value_is_the_mixture_of_its_definition(tolerated: Fraction, failures: int, exposed: int) -> None:
    exact = float(exact_e_value(failures, exposed, tolerated))
    assert gate.e_value(failures, exposed, float(tolerated)) == pytest.approx(exact, rel=1e-12)


def test_e_value_starts_at_one_and_is_capped() -> None:
    assert gate.e_value(0, 0, 0.01) == pytest.approx(1.0, rel=1e-15)
    assert gate.e_value(5000, 5000, 0.01) == pytest.approx(1e300)
    assert gate.log_e_value(5000, 5000, 0.01) > math.log(1e300)


def test_failures_beyond_the_exposed_raise_n() -> None:
    assert gate.e_value(3, 1, 0.01) == gate.e_value(3, 3, 0.01)


@given(tolerated_rates, exposures, st.data())
def test_a_failure_raises_evidence_and_a_success_lowers_it(tolerated: float, exposed: int, data: st.DataObject) -> None:
    failures = data.draw(st.integers(0, exposed - 1))
    here = gate.log_e_value(failures, exposed, tolerated)
    assert gate.log_e_value(failures + 1, exposed, tolerated) > here
    assert gate.log_e_value(failures, exposed + 1, tolerated) < here


@given(tolerated_rates, st.integers(0, 400), st.data())
def test_e_value_is_a_supermartingale_at_any_tolerated_rate(
    tolerated: float, exposed: int, data: st.DataObject
) -> None:
    failures = data.draw(st.integers(0, exposed))
    rate = data.draw(st.floats(0.0, tolerated))
    here = gate.log_e_value(failures, exposed, tolerated)
    after_failure = math.exp(gate.log_e_value(failures + 1, exposed + 1, tolerated) - here)
    after_success = math.exp(gate.log_e_value(failures, exposed + 1, tolerated) - here)
    assert rate * after_failure + (1 - rate) * after_success <= 1 + 1e-9


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("failures", "exposed"), [(0, 1), (0, 10), (1, 10), (3, 17), (9, 10), (4, 200), (16, 1000)])
def test_upper_bound_is_where_the_exact_binomial_sum_says(failures: int, exposed: int, confidence: float) -> None:
    bound = gate.upper_bound(failures, exposed, confidence)
    left = 1 - Fraction(confidence)
    below, above = Fraction(bound) - Fraction(1, 10**12), Fraction(bound) + Fraction(1, 10**12)
    assert at_most(failures, exposed, below) >= left >= at_most(failures, exposed, above)


@pytest.mark.parametrize(("failures", "exposed"), [(0, 0), (3, 0), (5, 5), (6, 5)])
def test_upper_bound_without_a_success_is_one(failures: int, exposed: int) -> None:
    assert gate.upper_bound(failures, exposed) == 1.0


@given(exposures, st.data())
def test_upper_bound_rises_with_failures_and_falls_with_devices(exposed: int, data: st.DataObject) -> None:
    failures = data.draw(st.integers(0, exposed - 1))
    bound = gate.upper_bound(failures, exposed)
    assert failures / exposed < bound < 1
    assert gate.upper_bound(failures + 1, exposed) > bound
    assert gate.upper_bound(failures, exposed + 1) < bound
    assert gate.upper_bound(failures, exposed, 0.99) > bound


def test_devices_needed_without_failures() -> None:
    assert [gate.devices_needed(0, limit) for limit in (0.20, 0.10, 0.05, 0.02, 0.01)] == [14, 29, 59, 149, 299]


def test_devices_needed_with_one_failure() -> None:
    assert [gate.devices_needed(1, limit) for limit in (0.30, 0.15, 0.10)] == [14, 30, 46]


@given(st.integers(0, 30), st.floats(0.01, 0.9))
def test_devices_needed_is_the_smallest_that_will_do(failures: int, limit: float) -> None:
    needed = gate.devices_needed(failures, limit)
    assert needed is not None
    assert gate.upper_bound(failures, needed) <= limit < gate.upper_bound(failures, needed - 1)


def test_no_number_of_devices_proves_a_rate_of_nothing() -> None:
    assert gate.devices_needed(0, 0.0) is None


@pytest.mark.parametrize(("size", "limit", "allowed"), ALLOWED_FAILURES)
def test_default_limit_allows_the_failures_of_its_row(size: int, limit: float, allowed: int) -> None:
    assert gate.default_limit(size) == limit
    assert gate.upper_bound(allowed, size) <= limit < gate.upper_bound(allowed + 1, size)


@given(st.integers(1, 5000), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_a_faultless_stage_always_meets_its_default_limit(size: int, confidence: float) -> None:
    assert gate.upper_bound(0, size, confidence) <= gate.default_limit(size, confidence) <= 1.0


@given(st.integers(0, 300), st.sampled_from([0.02, 0.05, 0.1, 0.3, 0.95, 1.0]))
def test_failures_allowed_are_the_most_within_the_limit(exposed: int, limit: float) -> None:
    found = gate.failures_allowed(exposed, limit)
    assert found == 0 or gate.upper_bound(found, exposed) <= limit
    assert found == exposed or gate.upper_bound(found + 1, exposed) > limit


def test_default_limit_of_small_fleets_is_the_bound_of_a_faultless_one() -> None:
    assert [gate.default_limit(size) for size in (0, 1, 3, 5, 9)] == [1.0, 0.95, 0.6316, 0.4508, 0.2832]


@pytest.mark.parametrize(("size", "limit"), [(0, 1), (1, 1), (20, 1), (21, 2), (100, 2), (101, None), (100_000, None)])
def test_lost_devices_that_halt_a_stage(size: int, limit: int | None) -> None:
    assert gate.lost_limit(size) == limit


@given(st.integers(1, 60), st.integers(1, 60), st.fractions(0, 1, max_denominator=1000))
def test_regularised_beta_is_the_binomial_tail(a: int, b: int, x: Fraction) -> None:
    exact = 1 - at_most(a - 1, a + b - 1, x)
    assert gate.regularised_beta(a, b, float(x)) == pytest.approx(float(exact), abs=1e-12)


def test_regularised_beta_stays_usable_far_out() -> None:
    """Ten thousand million devices: two tenths of a standard deviation above the middle."""
    normal = 0.5 + 0.5 * math.erf(0.2 / math.sqrt(2))
    assert gate.regularised_beta(5e9, 5e9, 0.500001) == pytest.approx(normal, abs=1e-4)
