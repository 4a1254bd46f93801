"""The page of approvals: exactly what is approved, by whom, until when, and who may decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.core.trust.roles import Act, Caller, holders
from orchestrator.web.pages import words

View = dict[str, Any]

ON_ROLLOUTS = frozenset({"start", "resume", "advance", "skip", "edit"})
"""Matters whose object is a rollout."""
_OPEN = ("proposed", "approved")


def page(
    proposals: Sequence[View], reviews: Sequence[View], people: Sequence[str], caller: Caller, *, asked: bool
) -> View:
    """Return what the template of the approvals shows.

    Args:
        proposals: as the API shows them, newest first.
        reviews: those that are open, oldest first.
        people: the persons who may approve.
        caller: who looks.
        asked: whether approvals are asked for at all.
    """
    return {
        "waiting": [proposal(item, caller, people) for item in proposals if item["state"] in _OPEN],
        "decided": [proposal(item, caller, people) for item in proposals if item["state"] not in _OPEN],
        "reviews": [_review(item, caller) for item in reviews],
        "people": list(people),
        "asked": asked,
    }


def proposal(item: View, caller: Caller, people: Sequence[str] = ()) -> View:
    """Return a proposal, with whether the caller may decide on it."""
    given = [vote["person"] for vote in item["votes"] if vote["approves"]]
    own = bool(caller.person) and caller.person == item["person"]
    if own or caller.name == item["proposer"]:
        hint = "You proposed this; another person decides."
    elif not caller.may(Act.APPROVE):
        hint = f"To decide takes the role {holders(Act.APPROVE)}."
    elif item["state"] == "approved":
        hint = f"It has what it needs; {item['proposer']} gives the command once more."
    elif caller.person in given:
        hint = "You approved this; it waits for another person."
    else:
        hint = ""
    return item | {
        "given": len(given),
        "waits_for": [name for name in people if name not in given and name != item["person"]],
        "may_vote": not hint,
        "hint": hint,
        "tone": words.tone(item["state"]),
        "place": f"/rollouts/{item['object']}" if item["matter"] in ON_ROLLOUTS else "",
    }


def _review(item: View, caller: Caller) -> View:
    if not caller.may(Act.APPROVE):
        hint = f"To close it takes the role {holders(Act.APPROVE)}."
    elif not caller.person or caller.person == item["person"]:
        hint = "Another person closes it, signed in with a token of their own."
    else:
        hint = ""
    place = f"/rollouts/{item['object']}" if item["matter"] in ON_ROLLOUTS else ""
    return item | {"hint": hint, "may_close": not hint, "place": place}
