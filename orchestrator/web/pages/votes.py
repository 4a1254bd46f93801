"""The forms by which a person approves or rejects what another one proposed, from whatever page shows it."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.routing import Route

from orchestrator.core.trust.roles import Act
from orchestrator.engine.trust import approvals
from orchestrator.ports import Lane
from orchestrator.web.approvals import Voted
from orchestrator.web.pages.house import Form, House, Visitor, reason_of


def vote_routes(house: House) -> list[Route]:
    """Return the routes of votes on proposals."""

    async def vote(request: Request, visitor: Visitor, form: Form, *, approves: bool) -> str:
        reason, now = reason_of(form), house.context.now()
        number, caller = request.path_params["proposal_id"], visitor.caller
        voted = await house.context.store.transact(
            Lane.OPERATOR, lambda tx: Voted(approvals.vote(tx, number, caller, reason, now, approves=approves))
        )
        return f"Proposal {number} is {voted.proposal.state} now."

    path = "/approvals/{proposal_id:int}"
    return [
        house.form(f"{path}/approve", partial(vote, approves=True), Act.APPROVE, _back),
        house.form(f"{path}/reject", partial(vote, approves=False), Act.APPROVE, _back),
    ]


def _back(_: Request, form: Form) -> str:
    return form.get("back", "/")
