"""The page of approvals: what waits for whom, what was decided, and acts without approvals that wait for a look."""

from __future__ import annotations

from dataclasses import asdict
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.core.trust.roles import Act
from orchestrator.engine.trust import approvals
from orchestrator.ports import Lane, Tx
from orchestrator.web.approvals import view as proposal_view
from orchestrator.web.pages.changes import print_of
from orchestrator.web.pages.house import Form, House, Visitor, live, reason_of
from orchestrator.web.pages.views import approvals as shown

EVENTS = "/changes/approvals"
MOST = 100
"""Proposals that are shown, the newest ones."""


class _Found(NamedTuple):
    """What there is to decide, and who may; see `views.approvals.page`."""

    proposals: list[shown.View]
    reviews: list[shown.View]
    people: list[str]
    asked: bool


def approvals_routes(house: House) -> list[Route]:
    """Return the routes of the page of approvals."""
    context = house.context

    async def find() -> _Found:
        now = context.now()

        def work(tx: Tx) -> _Found:
            waiting = tx.open_proposals(now, MOST)
            known = {item.id for item in waiting}
            others = [item for item in tx.proposals(MOST) if item.id not in known]
            proposals = [proposal_view(item, now) for item in (*waiting, *others)]
            reviews = [asdict(item) for item in tx.open_reviews()]
            people = sorted(approvals.approvers(tx))
            return _Found(proposals, reviews, people, approvals.are_asked(tx, context.rules))

        return await context.store.read(work)

    async def page(request: Request, visitor: Visitor) -> Response:
        found = await find()
        view = shown.page(found.proposals, found.reviews, found.people, visitor.caller, asked=found.asked)
        follows = live(request, EVENTS, print_of(found))
        return house.show("approvals.html", visitor, "approvals", title="Approvals", page=view, live=follows)

    async def look(_: Request) -> str:
        return print_of(await find())

    async def close(request: Request, visitor: Visitor, form: Form) -> str:
        number, finding, now = request.path_params["review_id"], reason_of(form), context.now()
        await context.store.transact(
            Lane.OPERATOR, lambda tx: approvals.close(tx, number, visitor.caller, finding, now)
        )
        return f"Review {number} is closed."

    return [
        house.page("/approvals", page),
        house.events(EVENTS, look),
        house.form("/reviews/{review_id:int}/close", close, Act.APPROVE, lambda *_: "/approvals"),
    ]
