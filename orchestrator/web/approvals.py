"""The routes of proposals and reviews under `/api/v1`. Translation only."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, StringConstraints

from orchestrator.core.trust import approval
from orchestrator.core.trust.approval import Proposal
from orchestrator.core.trust.roles import Act, Caller
from orchestrator.engine.trust import approvals
from orchestrator.engine.trust.approvals import Wish
from orchestrator.errors import NotFoundError
from orchestrator.ports import Lane, Review
from orchestrator.web.access import may
from orchestrator.web.context import Context

View = dict[str, Any]
_MAX_PAGE = 1000
_Id = Annotated[int, Path(ge=1, lt=2**53)]


class WhyBody(BaseModel):
    """Why it is approved, rejected or closed."""

    model_config = ConfigDict(extra="forbid")
    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


def approval_router(context: Context) -> APIRouter:
    """Return the routes of proposals and reviews."""
    router = APIRouter(prefix="/api/v1")
    reader = Annotated[Caller, Depends(may(context, Act.READ))]
    approver = Annotated[Caller, Depends(may(context, Act.APPROVE))]
    store, now = context.store, context.now

    @router.get("/approvals")
    async def list_(_: reader, limit: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = 50) -> View:
        """List proposals, newest first, and the reviews that are open."""
        at = now()
        found, reviews = await store.read(lambda tx: (tx.proposals(limit), tx.open_reviews()))
        return {"proposals": [view(item, at) for item in found], "reviews": [_review(item) for item in reviews]}

    @router.get("/approvals/{proposal_id}")
    async def get(proposal_id: _Id, _: reader) -> View:
        """Show a proposal with what was said to it."""
        found = await store.read(lambda tx: tx.proposal(proposal_id))
        if found is None:
            raise NotFoundError(f"there is no proposal {proposal_id}; see `ota approvals`")
        return view(found, now())

    @router.post("/approvals/{proposal_id}/approve")
    async def approve(proposal_id: _Id, body: WhyBody, who: approver) -> View:
        """Approve what another person proposed."""
        return await _vote(proposal_id, body, who, approves=True)

    @router.post("/approvals/{proposal_id}/reject")
    async def reject(proposal_id: _Id, body: WhyBody, who: approver) -> View:
        """Reject what was proposed; that ends it."""
        return await _vote(proposal_id, body, who, approves=False)

    @router.post("/reviews/{review_id}/close")
    async def close(review_id: _Id, body: WhyBody, who: approver) -> View:
        """Close the review of what another person did without approvals."""
        closed = await store.transact(Lane.OPERATOR, lambda tx: approvals.close(tx, review_id, who, body.reason, now()))
        return _review(closed)

    async def _vote(proposal_id: int, body: WhyBody, who: Caller, *, approves: bool) -> View:
        at = now()
        voted = await store.transact(
            Lane.OPERATOR, lambda tx: approvals.vote(tx, proposal_id, who, body.reason, at, approves=approves)
        )
        return view(voted, at)

    return router


async def review_of(context: Context, wish: Wish, since: float) -> View:
    """Return the review that an act without approvals has opened since a time, for its answer; nothing if none."""
    if not wish.break_glass.strip():
        return {}
    found = await context.store.read(lambda tx: tx.open_reviews())
    ours = [item.id for item in found if item.actor == wish.caller.name and item.at >= since]
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
