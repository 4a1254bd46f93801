"""Time to protected: how many devices were offered the release of a rollout, and run it well, over time.

Rules:
- Time counts from the last approval that the start needed, or from the start where it needed none.
- The shares are of the cohort: a device that nobody reached is not protected.
- What is counted is what is stored: offers that were withdrawn before a device could have them are none.
"""

from __future__ import annotations

import math
from typing import Any

from orchestrator.core.model import Rollout
from orchestrator.core.trust.approval import Matter, State
from orchestrator.engine import named
from orchestrator.engine.insight import views
from orchestrator.ports import Milestone, Tx

MOST_POINTS = 60
SHARES = (50, 90, 95)
_WIDTHS_S = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86_400, 7 * 86_400)

View = dict[str, Any]


def of_rollout(tx: Tx, name: str) -> View:
    """Return the curve of a rollout; before its start there are no points.

    Raises:
        NotFoundError: there is none of this name.
    """
    rollout = named.rollout(tx, name)
    began_at = next((item.at for item in tx.events(rollout.id) if item.code == "operator_start"), None)
    view: View = {"name": name, "phase": rollout.phase.value, "cohort_size": rollout.cohort_size}
    view |= views.mended(rollout.plan)
    if began_at is None:
        return view | {"since": None, "began_at": None, "approved_at": None, "width_s": None, "points": []}
    approved_at = _approved_at(tx, name, began_at)
    since = began_at if approved_at is None else approved_at
    width_s = _width(max(_last_at(tx, rollout, what, since) for what in Milestone) - since)
    return view | {
        "since": since,
        "began_at": began_at,
        "approved_at": approved_at,
        "width_s": width_s,
        **{what.value: _times(tx, rollout, what, since) for what in Milestone},
        "points": _points(tx, rollout, since, width_s),
    }


def _approved_at(tx: Tx, name: str, began_at: float) -> float | None:
    """Return when the last approval came that the start used, None if it needed none."""
    used = [item for item in tx.proposals_about(name) if item.matter is Matter.START and item.state is State.USED]
    votes = [vote.at for item in used for vote in item.votes if vote.approves and vote.at <= began_at]
    return max(votes, default=None)


def _count(tx: Tx, rollout: Rollout, what: Milestone, since: float) -> int:
    return sum(tx.milestones(rollout.id, what, since, _WIDTHS_S[-1]).values())


def _last_at(tx: Tx, rollout: Rollout, what: Milestone, since: float) -> float:
    place = _count(tx, rollout, what, since)
    at = tx.milestone_at(rollout.id, what, place) if place else None
    return since if at is None else at


def _times(tx: Tx, rollout: Rollout, what: Milestone, since: float) -> View:
    """Return how many devices came to a milestone, and after how long which share of the cohort had."""
    view: View = {"devices": _count(tx, rollout, what, since)}
    for share in SHARES:
        place = math.ceil(share * (rollout.cohort_size or 0) / 100)
        at = tx.milestone_at(rollout.id, what, place) if place else None
        view[f"t{share}_s"] = None if at is None else at - since
    return view


def _width(length_s: float) -> int:
    return next((width for width in _WIDTHS_S if length_s < width * MOST_POINTS), math.ceil(length_s / MOST_POINTS))


def _points(tx: Tx, rollout: Rollout, since: float, width_s: int) -> list[View]:
    counts = {what: tx.milestones(rollout.id, what, since, width_s) for what in Milestone}
    sums = dict.fromkeys(Milestone, 0)
    points = []
    for place in range(max(max(found, default=-1) for found in counts.values()) + 1):
        for what in Milestone:
            sums[what] += counts[what].get(place, 0)
        points.append({"after_s": (place + 1) * width_s} | {what.value: sums[what] for what in Milestone})
    return points
