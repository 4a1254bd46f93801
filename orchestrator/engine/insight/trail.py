"""How the evidence of a rollout came: k, n, E and the bound over time, from what is stored.

Rules:
- Every point is judged by the same core functions as the verdict; the last one is what is judged now.
- What is drawn are the devices that are evidence now. One that was offered the release and never began is none, so it
  is in no point, although it was counted until that was known.
- The cost depends on the spans of time and the strata, not on the fleet, but for the counting in the database.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from orchestrator.core.judging import evidence, gate
from orchestrator.core.judging.evidence import Evidence
from orchestrator.core.model import Phase, Rollout, Tally
from orchestrator.core.rollout import FINISHED
from orchestrator.engine import named
from orchestrator.ports import Shown, Sign, Tx

MOST_POINTS = 120
MOST_STRATA = 6
"""Strata that are drawn beside the total, those with the most devices first."""

View = dict[str, Any]


def of_rollout(tx: Tx, name: str, now: float) -> View:
    """Return the trail of the evidence of a rollout in its present epoch; no points before the first offer.

    Raises:
        NotFoundError: there is none of this name.
    """
    rollout = named.rollout(tx, name)
    since = tx.first_offer_at(rollout.id)
    if since is None or not rollout.stages:
        return {"since": None, "until": None, "limit": None, "strata": []}
    tally = tx.tally(rollout.id)
    until = max(rollout.moved_at if rollout.phase in FINISHED | {Phase.HALTED} else now, since + 1.0)
    width_s = (until - since) / MOST_POINTS
    shown = tx.shown(rollout.id, rollout.epoch, since, width_s)
    judged = evidence.halt_evidence(rollout, tally)
    largest = sorted(judged[1:], key=lambda item: -item.exposed)[:MOST_STRATA]
    return {
        "since": since,
        "until": until,
        "limit": evidence.stage_bound(rollout, tally).limit,
        "strata": [_trail(item, rollout, tally, shown, since, width_s) for item in (judged[0], *largest)],
    }


def _trail(item: Evidence, rollout: Rollout, tally: Tally, shown: list[Shown], since: float, width_s: float) -> View:
    by_span: defaultdict[int, Counter[Sign]] = defaultdict(Counter)
    for line in shown:
        if item.stratum in ("", line.stratum):
            by_span[min(line.span, MOST_POINTS - 1)][line.sign] += line.devices
    sums: Counter[Sign] = Counter()
    points = []
    for span in sorted(by_span):
        sums.update(by_span[span])
        at = since + (span + 1) * width_s
        points.append(_point(rollout, at, sums[Sign.FAILED], sums[Sign.HEALTHY], sums[Sign.OFFERED]))
    healthy = evidence.confirmed(rollout, tally, item.stratum)
    points.append(_point(rollout, since + MOST_POINTS * width_s, item.failures, healthy, item.exposed))
    return {"stratum": item.stratum or "all", "threshold": item.threshold, "points": points}


def _point(rollout: Rollout, at: float, failed: int, healthy: int, offered: int) -> View:
    exposed = max(offered, failed + healthy)
    return {
        "at": at,
        "k": failed,
        "n": exposed,
        "healthy": healthy,
        "e": gate.e_value(failed, exposed, rollout.plan.halt.tolerated),
        "upper": gate.upper_bound(exposed - healthy, exposed, rollout.plan.confidence),
    }
