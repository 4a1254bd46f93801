"""The page of one device: what it is, what keeps it from each release, and what it went through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.core import rollout as machine
from orchestrator.core.model import OTAD, Phase, UpdateState
from orchestrator.core.trust.roles import Act, Caller, holders
from orchestrator.core.update import FAILURES
from orchestrator.web.pages import words
from orchestrator.web.pages.views.devices import presence

View = dict[str, Any]

_RECALL = {
    UpdateState.RECALLING: "It was told to drop the release and has not answered yet.",
    UpdateState.RECALLED: "It dropped the release before it installed anything.",
    UpdateState.TOO_LATE: "The recall came too late: it is installing.",
}
_STANDS = {UpdateState.CONFIRMED: "good", UpdateState.PENDING: "quiet", UpdateState.SUPERSEDED: "quiet"}
_OTHER_HARDWARE = frozenset({"no_artifact", "model"})
_WARNS = frozenset({UpdateState.REFUSED, UpdateState.UNREACHED, UpdateState.POSTPONED, UpdateState.RETRYING, *_RECALL})


def page(why: View, caller: Caller, now: float) -> View:
    """Return what the template of a device shows.

    Args:
        why: `explain.explain_device`.
        caller: who looks.
        now: present time.
    """
    device = why["device"]
    may = caller.may(Act.QUARANTINE)
    return {
        "id": device["id"],
        "presence": presence(device["online"]),
        "tone": "good" if device["online"] else "quiet",
        "quarantine": device["quarantine"],
        "quarantined_at": device["quarantined_at"],
        "line": _line(device, now),
        "facts": _facts(device),
        "open": [_rollout(item) for item in why["rollouts"] if _is_open(item) and not _is_foreign(item)],
        "foreign": [item["rollout"] for item in why["rollouts"] if _is_open(item) and _is_foreign(item)],
        "history": [_rollout(item) for item in why["rollouts"] if item["state"] is not None],
        "reports": _reports(why["rollouts"]),
        "may": may,
        "hint": "" if may else f"To {Act.QUARANTINE} takes the role {holders(Act.QUARANTINE)}.",
    }


def _line(device: View, now: float) -> str:
    runs = f"It runs {device['version'] or 'a version that it did not name'}"
    if not device["version"] and not device["rel"]:
        runs = "It never said what it runs"
    heard = "was never heard" if device["seen_at"] is None else f"was last heard {words.ago(device['seen_at'], now)}"
    return f"{runs}, and {heard}."


def _facts(device: View) -> list[tuple[str, str]]:
    attributes = ", ".join(f"{name} = {value}" for name, value in sorted(device["attributes"].items()))
    every = [
        ("Model", device["model"]),
        ("Hardware revision", device["revision"]),
        ("Version", device["version"]),
        ("Release counter", words.number(device["rel"]) if device["rel"] else ""),
        ("Site", device["site"]),
        ("Time zone", device["time_zone"]),
        ("Groups", ", ".join(device["groups"])),
        ("Tags", ", ".join(device["tags"])),
        ("Attributes", attributes),
        ("Dialect", device["dialect"] if device["dialect"] != OTAD else ""),
        ("Enforces", ", ".join(device["enforces"])),
        ("Endpoints", f"counter {device['endpoints']}" if device["endpoints"] else ""),
        ("Registered", f"{words.clock(device['registered_at'])} UTC"),
    ]
    return [(name, text) for name, text in every if text]


def _is_open(item: View) -> bool:
    """Say whether it is worth telling why a device has not a release: the rollout may still bring it."""
    return Phase(item["phase"]) not in machine.FINISHED and item["state"] != UpdateState.CONFIRMED


def _is_foreign(item: View) -> bool:
    """Say whether a rollout is of other hardware."""
    return item["state"] is None and not _OTHER_HARDWARE.isdisjoint(reason["code"] for reason in item["reasons"])


def _rollout(item: View) -> View:
    state = item["state"]
    reasons = item["reasons"]
    if len(reasons) == 1 and reasons[0]["may_change_at"] is None and reasons[0]["text"] == item["because"]:
        reasons = []  # it is said already
    update = item.get("update")
    return {
        "rollout": item["rollout"],
        "release": item["release"],
        "phase": item["phase"],
        "state": state or "not taken in",
        "tone": tone(state),
        "because": _sentence(item["because"]),
        "reasons": [
            {"text": _sentence(reason["text"]), "at": reason["may_change_at"], "code": reason["code"]}
            for reason in reasons
        ],
        "recall": _RECALL.get(UpdateState(state), "") if state else "",
        "journey": update,
        "deliveries": item.get("deliveries", []),
    }


def tone(state: str | None) -> str:
    """Return how the state of an update is coloured."""
    if state is None:
        return "quiet"
    known = UpdateState(state)
    if known in FAILURES:
        return "bad"
    return "warn" if known in _WARNS else _STANDS.get(known, "busy")


def _reports(rollouts: Sequence[View]) -> list[View]:
    found = [
        line | {"rollout": item["rollout"], "tone": _said(line["kind"])}
        for item in rollouts
        for line in item.get("reports", [])
    ]
    return sorted(found, key=lambda line: float(line["at"]), reverse=True)


def _said(kind: str) -> str:
    tones = {"confirmed": "good", "failed": "bad", "rolled_back": "bad", "refused": "warn"}
    return tones.get(kind, "busy")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text and not text.endswith(".") else text
