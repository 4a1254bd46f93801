"""The page of the audit log: who did what, and what the chain says."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.core.model import DAEMON
from orchestrator.core.trust.audit import Entry
from orchestrator.engine.insight.listing import Entries
from orchestrator.web.pages import words

View = dict[str, Any]

_BAD = ("glass.broken",)
_WARN = ("approval.rejected", "devices.quarantined", "operator.", "keyset.", "store.restored")
_FIRST = ("text", "reason", "finding", "count", "person", "code")
"""What says the most of an entry, best first."""


def page(found: Entries) -> View:
    """Return what the template of the audit log shows.

    Args:
        found: the entries, and what their chain says.
    """
    whole = not found.broken
    seen = words.number(found.seen)
    return {
        "entries": [_line(item) for item in found.found],
        "head": found.head.n,
        "hash": found.head.hash,
        "tone": "good" if whole else "bad",
        "word": "chained" if whole else "broken",
        "chain": f"The {seen} entries looked through for this page form one chain."
        if whole
        else f"Of {seen} entries looked through, {', '.join(str(n) for n in found.broken[:10])} do not fit the chain.",
        "looked": bool(found.before) and not found.found,
    }


def _line(item: Entry) -> View:
    return {
        "n": item.n,
        "at": item.at,
        "actor": "by itself" if item.actor == DAEMON else item.actor,
        "action": item.action,
        "tone": "bad" if item.action in _BAD else "warn" if item.action.startswith(_WARN) else "",
        "object": item.object,
        "details": _details(item.detail),
    }


def _details(text: str) -> list[tuple[str, str]]:
    said: dict[str, Any] = json.loads(text)
    order = [name for name in _FIRST if name in said] + [name for name in said if name not in _FIRST]
    return [(name, said[name] if isinstance(said[name], str) else json.dumps(said[name])) for name in order]
