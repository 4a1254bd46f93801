"""The page of all rollouts: those that need somebody first, then those that run, then those that are over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.core.model import Phase
from orchestrator.web.pages import words
from orchestrator.web.pages.charts import Part, bar

View = dict[str, Any]

_GROUPS = (
    ("Needs a person", "warn", (Phase.HALTED, Phase.INCONCLUSIVE)),
    ("Under way", "busy", (Phase.RUNNING, Phase.PREPARING, Phase.PAUSED)),
    ("Drafts", "quiet", (Phase.DRAFT,)),
    ("Over", "quiet", (Phase.DONE, Phase.ABORTED)),
)


def page(lines: Sequence[View], older: int = 0) -> View:
    """Return what the template of the list shows.

    Args:
        lines: `views.rollout_line` of each, newest first, with `moved_at`.
        older: how many older ones, all over, are left out.
    """
    groups = []
    for name, tone, phases in _GROUPS:
        found = [line(item) for item in lines if item["phase"] in phases]
        if found:
            groups.append({"name": name, "tone": tone, "rollouts": found})
    return {"groups": groups, "count": len(lines), "older": older}


def line(item: View) -> View:
    """Return one line of the list, with its bar."""
    whole = item["cohort_size"] or 0
    waiting = max(whole - item["confirmed"] - item["failures"] - item["in_flight"], 0)
    parts = (
        Part("healthy", item["confirmed"], "healthy"),
        Part("failed", item["failures"], "failed"),
        Part("flight", item["in_flight"], "in flight"),
        Part("waiting", waiting, "not updated"),
    )
    said = ", ".join(f"{words.number(part.count)} {part.name}" for part in parts if part.count) or "no device yet"
    number = min(item["stage"] + 1, item["stages"])
    return item | {
        "stage_text": "–" if item["phase"] == Phase.DRAFT else f"{number} of {item['stages']}",
        "bar": bar(parts, whole, f"{item['name']}: {said}"),
        "said": said,
        "share": item["confirmed"] / whole if whole else None,
    }
