"""The routes of proposals and reviews under `/api/v1`. Translation only."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, ConfigDict, StringConstraints

from orchestrator.client import answers
from orchestrator.core.trust import approval
from orchestrator.core.trust.approval import Proposal
from orchestrator.core.trust.roles import Act, Caller
from orchestrator.engine.trust import approvals
from orchestrator.engine.trust.approvals import Wish
from orchestrator.errors import NotFoundError
from orchestrator.ports import Lane, Review, Tx
from orchestrator.web.access import may
from orchestrator.web.context import Context
from orchestrator.web.cursors import Pages, pages
from orchestrator.web.described import api_router, gives, gives_page
from orchestrator.web.once import Asked, asked

View = dict[str, Any]
_Id = Annotated[int, Path(ge=1, lt=2**53)]


@dataclass(frozen=True, slots=True)
class Voted:
    """A proposal after a vote: unlike one that was made, this is an act that is done.

    Attributes:
        proposal: as it stands now.
    """

    proposal: Proposal


class WhyBody(BaseModel):
    """Why it is approved, rejected or closed."""

    model_config = ConfigDict(extra="forbid")
    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


def approval_router(context: Context) -> APIRouter:
    """Return the routes of proposals and reviews."""
    router = api_router("approvals")
    reader = Annotated[Caller, may(context, Act.READ)]
    approver = Annotated[Caller, may(context, Act.APPROVE)]
    doing = Annotated[Asked, Depends(asked(context))]
    fifty = Annotated[Pages, pages(50)]
    store, now = context.store, context.now

    @router.get("/approvals", responses=gives_page(answers.Approvals))
    async def list_approvals(_: reader, page: fifty) -> View:
        """List proposals, newest first, and the reviews that are open."""
        at, before = now(), page.number() or None
        found, reviews = await store.read(lambda tx: (tx.proposals(page.limit + 1, before), tx.open_reviews()))
        shown = page.cut(found, lambda item: item.id)
        return {"proposals": [view(item, at) for item in shown], "reviews": [_review(item) for item in reviews]}

    @router.get("/approvals/{proposal_id}", responses=gives(answers.Proposal))
    async def get_approval(proposal_id: _Id, _: reader) -> View:
        """Show a proposal with what was said to it."""
        found = await store.read(lambda tx: tx.proposal(proposal_id))
        if found is None:
            raise NotFoundError(f"there is no proposal {proposal_id}; see `ota approvals`")
        return view(found, now())

    @router.post("/approvals/{proposal_id}/approve", responses=gives(answers.Proposal))
    async def approve(proposal_id: _Id, body: WhyBody, who: approver, act: doing) -> View:
        """Approve what another person proposed."""
        return await _vote(proposal_id, body, who, act, approves=True)

    @router.post("/approvals/{proposal_id}/reject", responses=gives(answers.Proposal))
    async def reject(proposal_id: _Id, body: WhyBody, who: approver, act: doing) -> View:
        """Reject what was proposed; that ends it."""
        return await _vote(proposal_id, body, who, act, approves=False)

    @router.post("/reviews/{review_id}/close", responses=gives(answers.Review))
    async def close_review(review_id: _Id, body: WhyBody, who: approver, act: doing) -> View:
        """Close the review of what another person did without approvals."""

        def work(tx: Tx) -> Review:
            return approvals.close(tx, review_id, who, body.reason, now())

        return await act.once(who, lambda: store.transact(Lane.OPERATOR, work), lambda _, closed: _review(closed))

    async def _vote(proposal_id: int, body: WhyBody, who: Caller, act: Asked, *, approves: bool) -> View:
        at = now()

        def work(tx: Tx) -> Voted:
            return Voted(approvals.vote(tx, proposal_id, who, body.reason, at, approves=approves))

        return await act.once(
            who, lambda: store.transact(Lane.OPERATOR, work), lambda _, voted: view(voted.proposal, at)
        )

    return router


def review_in(tx: Tx, wish: Wish, since: float) -> View:
    """Return the review that an act without approvals has opened since a time, for its answer; nothing if none."""
    if not wish.break_glass.strip():
        return {}
    ours = [item.id for item in tx.open_reviews() if item.actor == wish.caller.name and item.at >= since]
    return {"review": ours[-1]} if ours else {}


def view(item: Proposal, now: float) -> View:
    """Return a proposal as it stands at a time."""
    return {
        "id": item.id,
        "matter": item.matter,
        "object": item.object,
        "state": approval.lapsed(item, now).state,
        "text": item.text,
        "digest": item.digest,
        "proposer": item.proposer,
        "person": item.person,
        "reason": item.reason,
        "made_at": item.made_at,
        "expires_at": item.expires_at,
        "needed": item.needed,
        "votes": [
            {"actor": v.actor, "person": v.person, "approves": v.approves, "reason": v.reason, "at": v.at}
            for v in item.votes
        ],
    }


def _review(item: Review) -> View:
    return {
        "id": item.id,
        "matter": item.matter,
        "object": item.object,
        "text": item.text,
        "actor": item.actor,
        "reason": item.reason,
        "at": item.at,
        "closed_by": item.closed_by,
        "finding": item.finding,
    }
