"""The routes of warrants under `/api/v1`. Translation only."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.core.trust.roles import Act, Caller
from orchestrator.engine.trust import warrants
from orchestrator.web.access import may
from orchestrator.web.context import Context

View = dict[str, Any]
_MAX_CHARS = 16 * 1024
_MAX_DAYS = 30


class WarrantBody(BaseModel):
    """A warrant: its lines, one per cosigner."""

    model_config = ConfigDict(extra="forbid")
    lines: Annotated[str, Field(max_length=_MAX_CHARS, pattern=r"^[A-Za-z0-9_.\n-]*$")]


def warrant_router(context: Context) -> APIRouter:
    """Return the routes of warrants."""
    router = APIRouter(prefix="/api/v1")
    reader = Annotated[Caller, Depends(may(context, Act.READ))]
    creator = Annotated[Caller, Depends(may(context, Act.CREATE))]
    store, keyring, now = context.store, context.keyring, context.now

    @router.get("/rollouts/{name}/warrant")
    async def draft(name: str, _: reader, days: Annotated[int, Query(ge=1, le=_MAX_DAYS)] = 7) -> View:
        """Show the claims that cosigners must sign for a rollout."""
        return await warrants.draft(context.conductor, store, keyring.keyset, name, days, now())

    @router.post("/rollouts/{name}/warrant", status_code=201)
    async def submit(name: str, body: WarrantBody, who: creator) -> View:
        """Store the warrant of a rollout, after judging it as devices will."""
        return await warrants.submit(store, keyring.keyset, name, body.lines.strip().encode(), who.name, now)

    return router
