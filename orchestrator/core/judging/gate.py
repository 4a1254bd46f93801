"""The arithmetic of evidence: when to halt, when to pass, how many devices that takes.

Rules:
- Halting looks at a stream, so it uses a test that stays valid however often one looks: the grid
  mixture e-process. Every exposed device counts in n from its offer, pending ones as successes, so
  the value now never exceeds the value at the end and Ville's bound holds with a stage in flight.
- Passing looks once, at the end of a stage, at an exact upper bound (Clopper-Pearson 1934), with
  everything unresolved counted as failed.
- Pure numbers in and out; who is counted is decided in `evidence.py`.

Source of the e-process: Ville 1939; Ramdas et al., "Game-theoretic statistics and safe anytime-valid
inference", Statistical Science 2023.
"""

from __future__ import annotations

import math
from functools import lru_cache

_MULTIPLES = (2, 4, 8, 16, 32)
_LARGEST_RATE = 0.8
_LIMITS = ((10, 0.30), (30, 0.15), (50, 0.10), (100, 0.08), (200, 0.05), (500, 0.03), (1000, 0.025))


def log_e_value(failures: int, exposed: int, tolerated: float) -> float:
    """Return the natural logarithm of the e-value against "the failure rate is at most tolerated".

    Args:
        failures: k, failed devices so far.
        exposed: n, devices exposed so far, pending ones included; raised to k if smaller.
        tolerated: p0, between 0 and 0.4, both excluded.
    """
    passed = max(exposed - failures, 0)
    terms = [failures * failed + passed * healthy for failed, healthy in _odds(tolerated)]
    largest = max(terms)
    return largest + math.log(sum(math.exp(term - largest) for term in terms) / len(terms))


@lru_cache(maxsize=256)
def _odds(tolerated: float) -> tuple[tuple[float, float], ...]:
    """Return what one failure, and one device without, adds to the logarithm at each rate of the grid."""
    rates = sorted({min(_LARGEST_RATE, tolerated * multiple) for multiple in _MULTIPLES})
    return tuple((math.log(rate / tolerated), math.log((1 - rate) / (1 - tolerated))) for rate in rates)


@lru_cache(maxsize=4096)  # most reports change neither k nor n, and each is judged
def e_value(failures: int, exposed: int, tolerated: float) -> float:
    """Return the e-value itself, at most 1e300."""
    return math.exp(min(log_e_value(failures, exposed, tolerated), math.log(1e300)))


def least_failures_to_halt(exposed: int, tolerated: float, threshold: float) -> int | None:
    """Return the smallest k with an e-value of at least `threshold` at n = `exposed`, None if there is none."""
    goal = math.log(threshold)
    for failures in range(exposed + 1):
        if log_e_value(failures, exposed, tolerated) >= goal:
            return failures
    return None


def upper_bound(failures: int, exposed: int, confidence: float = 0.95) -> float:
    """Return the one-sided Clopper-Pearson upper bound of the failure rate; 1.0 without evidence.

    It is the rate at which k or fewer failures in n have probability `1 - confidence`.
    """
    if exposed <= 0 or failures >= exposed:
        return 1.0
    if failures == 0:
        return float(1.0 - (1.0 - confidence) ** (1.0 / exposed))
    low, high = failures / exposed, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        # P(X <= k) = I_{1-p}(n - k, k + 1) = 1 - I_p(k + 1, n - k)
        if regularised_beta(failures + 1, exposed - failures, middle) < confidence:
            low = middle
        else:
            high = middle
    return high


def devices_needed(failures: int, limit: float, confidence: float = 0.95) -> int | None:
    """Return the smallest n at which `upper_bound(failures, n)` is within `limit`; None beyond a billion."""
    low, high = failures, max(2 * failures, 16)
    while upper_bound(failures, high, confidence) > limit:
        low, high = high, high * 2
        if high > 1_000_000_000:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if upper_bound(failures, middle, confidence) > limit:
            low = middle
        else:
            high = middle
    return high


def failures_allowed(exposed: int, limit: float, confidence: float = 0.95) -> int:
    """Return the largest k with an `upper_bound` within `limit` at n = `exposed`; 0 where even none is too much."""
    fits, breaks = 0, exposed + 1
    while breaks - fits > 1:
        middle = (fits + breaks) // 2
        if upper_bound(middle, exposed, confidence) <= limit:
            fits = middle
        else:
            breaks = middle
    return fits


def default_limit(exposed: int, confidence: float = 0.95) -> float:
    """Return the limit of a stage whose plan names none.

    It is what evidence from `exposed` devices can show: the row of the table in `docs/gates.md` for
    that size, or the bound of a faultless stage where even that row could not be met.
    """
    row = next((limit for size, limit in reversed(_LIMITS) if exposed >= size), 0.0)
    return max(row, math.ceil(upper_bound(0, exposed, confidence) * 1e4) / 1e4)


def lost_limit(stage_size: int) -> int | None:
    """Return how many devices lost after the reboot halt a stage at once; None where only the e-process judges."""
    if stage_size <= 20:
        return 1
    return 2 if stage_size <= 100 else None


def regularised_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b).

    Lentz's method on the continued fraction of DLMF 8.17.22; good to about 1e-12 for fleets of any real size.
    """
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - regularised_beta(b, a, 1.0 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) * _beta_fraction(a, b, x) / a


def _beta_fraction(a: float, b: float, x: float) -> float:
    tiny = 1e-300
    numerator = 1.0
    denominator = 1.0 / _off_zero(1.0 - (a + b) * x / (a + 1), tiny)
    value = denominator
    change, m = 0.0, 0
    while abs(change - 1.0) > 1e-14:
        m += 1
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            denominator = 1.0 / _off_zero(1.0 + term * denominator, tiny)
            numerator = _off_zero(1.0 + term / numerator, tiny)
            change = numerator * denominator
            value *= change
    return value


def _off_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
