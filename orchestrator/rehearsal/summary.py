"""What many runs say together.

Rules:
- A probability comes with the interval that so many runs leave plausible: none in 1,000 runs is not never.
- Times and counts are those of runs, not averages of averages; a percentile is the value of a run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from orchestrator.core.judging import gate
from orchestrator.core.model import Phase
from orchestrator.rehearsal.run import Outcome, Scenario

CONFIDENCE = 0.95


class Share(NamedTuple):
    """How often something happened.

    Attributes:
        share: of the runs.
        low: lower end of the exact two-sided 95 % interval (Clopper-Pearson).
        high: its upper end.
    """

    share: float
    low: float
    high: float


def share(count: int, runs: int) -> Share:
    """Return how often something happened that happened in `count` of `runs` runs."""
    one_sided = (1 + CONFIDENCE) / 2
    low = 1 - gate.upper_bound(runs - count, runs, one_sided)
    return Share(count / runs, low, gate.upper_bound(count, runs, one_sided))


def percentile(values: Sequence[float], part: float) -> float | None:
    """Return the smallest value that at least `part` of the values do not exceed; None of no values."""
    if not values:
        return None
    return sorted(values)[max(math.ceil(part * len(values)), 1) - 1]


def summarise(scenario: Scenario, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return what the runs of a scenario say, for JSON.

    Args:
        scenario: what was rehearsed.
        outcomes: at least one.
    """
    runs, fleet = len(outcomes), scenario.fleet
    done = [item for item in outcomes if item.phase is Phase.DONE]
    halted = [item for item in outcomes if item.phase is Phase.HALTED]
    asked = [item for item in outcomes if item.phase is Phase.INCONCLUSIVE]
    ends = Counter((item.phase.value, item.code, item.stage) for item in outcomes)
    return {
        "plan": scenario.plan.name,
        "runs": runs,
        "seed": scenario.seed,
        "devices": fleet.devices,
        "strata": fleet.strata,
        "bad_share": fleet.bad_share,
        "lost_share": fleet.lost_share,
        "liars": fleet.liars,
        "offline": fleet.offline,
        "late": fleet.late,
        "tolerated": scenario.plan.halt.tolerated,
        **_named("halt", share(len(halted), runs)),
        **_named("completed", share(len(done), runs)),
        **_named("inconclusive", share(len(asked), runs)),
        **_counts("offered", [item.offered for item in outcomes]),
        **_counts("reached", [item.reached for item in outcomes]),
        **_counts("broken", [item.broken for item in outcomes]),
        "wrong_advances": sum(item.wrong for item in outcomes),
        **_times("finish", done),
        **_times("halt", halted),
        "ends": [
            {"phase": phase, "code": code, "stage": stage, "runs": count}
            for (phase, code, stage), count in sorted(ends.items())
        ],
    }


def _named(word: str, found: Share) -> dict[str, Any]:
    return {f"{word}_probability": found.share, f"{word}_interval": [round(found.low, 6), round(found.high, 6)]}


def _counts(word: str, counts: Sequence[int]) -> dict[str, Any]:
    return {
        f"devices_{word}_mean": round(sum(counts) / len(counts), 3),
        f"devices_{word}_p95": percentile(counts, 0.95),
        f"devices_{word}_max": max(counts),
    }


def _times(word: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    times = [round(item.finish_s, 1) for item in outcomes]
    return {f"{word}_s_p50": percentile(times, 0.5), f"{word}_s_p95": percentile(times, 0.95)}
