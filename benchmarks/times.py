"""What many measured times say together."""

from __future__ import annotations

from collections.abc import Sequence


def percentile(times: Sequence[float], share: float) -> float:
    """Return the smallest of the times that at least this share of them do not exceed."""
    ordered = sorted(times)
    return ordered[max(-(-len(ordered) * round(share * 1000) // 1000) - 1, 0)]


def told_ms(times: Sequence[float]) -> str:
    """Return the median, the 99th percentile and the longest of times in seconds, in words."""
    p50, p99, most = percentile(times, 0.5), percentile(times, 0.99), max(times)
    return f"p50 {1000 * p50:.0f} p99 {1000 * p99:.0f} max {1000 * most:.0f} ms"
