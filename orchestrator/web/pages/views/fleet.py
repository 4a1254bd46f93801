"""The first page: what the fleet runs, who is there, and what needs somebody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.core.model import Phase
from orchestrator.web.pages import words
from orchestrator.web.pages.charts import Part, bar, layers
from orchestrator.web.pages.views.approvals import ON_ROLLOUTS
from orchestrator.web.pages.views.rollouts import line

View = dict[str, Any]

_LAYERS = 6
"""Versions that are told apart over time; the chart has as many colours."""
_NEEDS = (Phase.HALTED, Phase.INCONCLUSIVE)


def page(
    census: View,
    lines: Sequence[View],
    proposals: Sequence[View],
    reviews: int,
    days: Sequence[View],
    status: Mapping[str, object],
) -> View:
    """Return what the template of the first page shows.

    Args:
        census: `census.of_fleet`.
        lines: `views.rollout_line` of every rollout that is not over, newest first, with `moved_at`.
        proposals: the newest proposals, as the API shows them.
        reviews: how many acts without approvals nobody has looked at.
        days: `chronicle.history`.
        status: what the daemon says of itself.
    """
    whole = census["devices"]
    return {
        "devices": whole,
        "figures": _figures(census),
        "presence": bar(_presence(census), whole, _presence_text(census)),
        "presence_parts": [part for part in _presence(census) if part.count],
        "versions": [_version(item, whole) for item in census["versions"]],
        "other_versions": census["other_versions"],
        "models": [_model(item, whole) for item in census["models"]],
        "history": _history(days),
        "needs": _needs(lines, proposals, reviews, status),
        "rollouts": [line(item) for item in lines if item["phase"] != Phase.DRAFT],
    }


def _figures(census: View) -> list[View]:
    whole = max(census["devices"], 1)
    return [
        {"name": "Devices", "count": census["devices"], "share": None, "tone": "plain"},
        {"name": "Online", "count": census["online"], "share": census["online"] / whole, "tone": "good"},
        {"name": "Silent for a day", "count": census["silent"], "share": census["silent"] / whole, "tone": "warn"},
        {"name": "Quarantined", "count": census["quarantined"], "share": None, "tone": "bad"},
    ]


def _presence(census: View) -> tuple[Part, ...]:
    return (
        Part("healthy", census["online"], "online"),
        Part("unreached", census["offline"], "offline"),
        Part("waiting", census["unsaid"], "never said"),
    )


def _presence_text(census: View) -> str:
    return ", ".join(f"{part.count} {part.name}" for part in _presence(census))


def _version(item: View, whole: int) -> View:
    name = item["version"] or ("not said" if item["rel"] else "not known")
    share = item["devices"] / max(whole, 1)
    chart = bar((Part("plain", item["devices"], name),), whole, f"{name}: {item['devices']} devices")
    return item | {"name": name, "share": share, "bar": chart}


def _history(days: Sequence[View]) -> View | None:
    """Return the versions over time; None before there are two days."""
    if len(days) < 2:
        return None
    most: Counter[str] = Counter()
    for day in days:
        for item in day["versions"]:
            name = _name(item)
            most[name] = max(most[name], item["devices"])
    names = [name for name, _ in most.most_common(_LAYERS)]
    columns = [_column(day["versions"], names) for day in days]
    said = ", ".join(f"{part.name} {part.count}" for part in columns[-1] if part.count)
    since, until = words.clock(days[0]["at"])[:10], words.clock(days[-1]["at"])[:10]
    return {
        "chart": layers(columns, f"versions by day from {since} to {until}; at last {said}"),
        "since": since,
        "until": until,
        "parts": [part for part in reversed(columns[-1]) if part.count or part.name in names],
    }


def _column(versions: Sequence[View], names: Sequence[str]) -> list[Part]:
    counts: Counter[str] = Counter()
    for item in versions:
        name = _name(item)
        counts[name if name in names else "others"] += item["devices"]
    found = [Part(f"layer-{place}", counts[name], name) for place, name in enumerate(names)]
    return [*found, Part("layer-rest", counts["others"], "others")]


def _name(item: View) -> str:
    return str(item["version"] or (f"counter {item['rel']}" if item["rel"] else "not known"))


def _model(item: View, whole: int) -> View:
    chart = bar((Part("plain", item["devices"], item["model"]),), whole, f"{item['model']}: {item['devices']} devices")
    return item | {"share": item["devices"] / max(whole, 1), "bar": chart}


def _needs(lines: Sequence[View], proposals: Sequence[View], reviews: int, status: Mapping[str, object]) -> list[View]:
    found = [
        {"tone": "bad" if item["phase"] == Phase.HALTED else "warn", "what": f"{item['name']} is {item['phase']}"}
        | {"text": item["reason"], "link": f"/rollouts/{item['name']}"}
        for item in lines
        if item["phase"] in _NEEDS
    ]
    found += [
        {"tone": "warn", "what": f"Proposal {item['id']} waits", "text": item["text"], "link": _place(item)}
        for item in proposals
        if item["state"] == "proposed"
    ]
    if reviews:
        text = "Acts without approvals that another person has to look at."
        found.append(
            {
                "tone": "bad",
                "what": f"{reviews} open review{'s' if reviews > 1 else ''}",
                "text": text,
                "link": "/approvals",
            }
        )
    if status.get("store_fault"):
        found.append(
            {"tone": "bad", "what": "The store cannot be written", "text": str(status["store_fault"]), "link": ""}
        )
    if status.get("broker_connected") is False:
        text = "Nothing is pushed and no report comes in over MQTT until the link is back."
        found.append({"tone": "bad", "what": "The broker is not connected", "text": text, "link": ""})
    return found


def _place(item: View) -> str:
    return f"/rollouts/{item['object']}" if item["matter"] in ON_ROLLOUTS else "/approvals"
