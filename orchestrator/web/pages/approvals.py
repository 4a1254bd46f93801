"""The page of approvals: what waits for whom, what was decided, and acts without approvals that wait for a look."""

from __future__ import annotations

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.core.trust.roles import Act
from orchestrator.engine.trust import approvals
from orchestrator.ports import Lane, Tx
from orchestrator.web.approvals import view as proposal_view
from orchestrator.web.pages.house import Form, House, Visitor, reason_of
from orchestrator.web.pages.views import approvals as shown

MOST = 100
"""Proposals that are shown, the newest ones."""


def approvals_routes(house: House) -> list[Route]:
    """Return the routes of the page of approvals."""
    context = house.context

    async def page(_: Request, visitor: Visitor) -> Response:
        now = context.now()

        def work(tx: Tx) -> shown.View:
            proposals = [proposal_view(item, now) for item in tx.proposals(MOST)]
            reviews = [asdict(item) for item in tx.open_reviews()]
            people = sorted(approvals.approvers(tx))
            return shown.page(proposals, reviews, people, visitor.caller, asked=approvals.are_asked(tx, context.rules))

        view = await context.store.read(work)
        return house.show("approvals.html", visitor, "approvals", title="Approvals", page=view)

    async def close(request: Request, visitor: Visitor, form: Form) -> str:
        number, finding, now = request.path_params["review_id"], reason_of(form), context.now()
        await context.store.transact(
            Lane.OPERATOR, lambda tx: approvals.close(tx, number, visitor.caller, finding, now)
        )
        return f"Review {number} is closed."

    return [
        house.page("/approvals", page),
        house.form("/reviews/{review_id:int}/close", close, Act.APPROVE, lambda *_: "/approvals"),
    ]
