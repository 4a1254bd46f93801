"""How a rollout stood when a person looked at it: an act that was meant for that is done once, and for nothing else.

Rules:
- What is compared changes with every act and every move, so who presses twice, or asks again after a crash, or looks at
  an old page, passes no second stage and gives no second attempt.
- To stop never waits for a look: to pause, halt or abort what is stopped already changes nothing anyway.
"""

from __future__ import annotations

import time

from orchestrator.core.model import Phase, Rollout
from orchestrator.core.rollout import Command
from orchestrator.errors import ConflictError
from orchestrator.ports import Tx

STOPPING = frozenset({Command.PAUSE, Command.HALT, Command.ABORT})
"""Commands that are carried out however old the page is."""


def mark(rollout: Rollout) -> str:
    """Return what says how a rollout stands; equal marks are equal standings."""
    return f"{rollout.version}.{rollout.stage}.{rollout.epoch}.{rollout.plan_version}.{rollout.moved_at!r}"


def check(tx: Tx, rollout: Rollout, seen: str, what: Command, actor: str) -> None:
    """Make sure that a rollout stands as it was seen.

    Raises:
        ConflictError: it does not; `done_before` where it is this very act that moved it, else `moved_on`.
    """
    if what in STOPPING or seen == mark(rollout):
        return
    since = _seen_at(seen)
    for event in reversed(tx.events(rollout.id)):
        if event.at > since and event.actor == actor and event.code == f"operator_{what}":
            text = f"{what} was done already, at {_clock(event.at)}, and was not done again"
            raise ConflictError(text, code="done_before")
    text = f"{rollout.plan.name} moved on after this page was made, so nothing was done; {_stands(rollout)}"
    raise ConflictError(text, code="moved_on")


def _stands(rollout: Rollout) -> str:
    stage = f" in stage {rollout.stage + 1}" if rollout.phase is Phase.RUNNING else ""
    return f"it is {rollout.phase}{stage} since {_clock(rollout.moved_at)}, by {rollout.actor}"


def _seen_at(seen: str) -> float:
    """Return since when it stood as it was seen; the end of time for what is no mark."""
    try:
        return float(seen.split(".", 4)[4])
    except (IndexError, ValueError):
        return float("inf")


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%SZ", time.gmtime(at))
