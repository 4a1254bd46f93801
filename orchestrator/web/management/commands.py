"""A command on a rollout, as our own API gives it."""

from __future__ import annotations

from orchestrator.core.rollout import Command
from orchestrator.core.trust.roles import Caller
from orchestrator.engine.trust import approvals
from orchestrator.engine.trust.approvals import Wish
from orchestrator.web.context import Context


async def command(context: Context, name: str, what: Command, caller: Caller, reason: str) -> None:
    """Carry out a command on a rollout; see `approvals.command` for its errors."""
    known = context.conductor, context.store, context.keyring, context.rules, context.now
    await approvals.command(*known, name, what, Wish(caller, reason))
