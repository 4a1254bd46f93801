"""Who refused a release for good: a recall that the device answered besides makes it wait for no other offer.

Rules:
- Refusal and answer may come in any order, and the update stands where the answer left it; the record has both.
- Whoever began all the same, by a trigger made anew, refused nothing.
"""

from __future__ import annotations

from orchestrator.core import update as machine
from orchestrator.core.model import Rollout, Update
from orchestrator.ports import Tx
from orchestrator.wire.report import Kind


def is_final(tx: Tx, rollout: Rollout, update: Update) -> bool:
    """Say whether a device refused its present attempt for a reason that does not pass."""
    if update.begun:
        return False
    return any(
        machine.refuses_for_good(update, line.code, rollout.plan.retry)
        for line in tx.lines(update.id)
        if line.kind == Kind.REFUSED and line.attempt == update.attempt
    )
