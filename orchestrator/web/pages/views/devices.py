"""The page of all devices: a line for each, and how far the answer looked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.web.pages import words

View = dict[str, Any]

EXAMPLES = ('model == "gateway-3"', "rel < 30 and not tag(canary)", 'site like "berlin-*"', "group(pilot)")
"""What is offered to who does not know the language."""


def page(lines: Sequence[View], fleet: int, seen: int, after: str, fault: str) -> View:
    """Return what the template of the list shows.

    Args:
        lines: `views.device_line` of each.
        fleet: registered devices.
        seen: how many were looked through for this answer.
        after: where the list goes on, "" at its end.
        fault: what is wrong with the selector, with the place under a caret.
    """
    return {
        "devices": [line(item) for item in lines],
        "fleet": fleet,
        "looked": f"Looked through {words.number(seen)} devices, up to {after}." if after and not lines else "",
        "fault": fault,
        "examples": EXAMPLES,
    }


def line(item: View) -> View:
    """Return one line of the list."""
    return item | {"presence": presence(item["online"]), "tone": "good" if item["online"] else "quiet"}


def presence(online: bool | None) -> str:
    """Return whether a device is connected, as a word."""
    return "never said" if online is None else "online" if online else "offline"
