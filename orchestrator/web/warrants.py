"""The routes of warrants under `/api/v1`. Translation only."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.client import answers
from orchestrator.core.trust.roles import Act, Caller
from orchestrator.engine.trust import warrants
from orchestrator.web.access import may
from orchestrator.web.context import Context
from orchestrator.web.described import api_router, gives
from orchestrator.web.once import Asked, asked

View = dict[str, Any]
_MAX_CHARS = 16 * 1024
_MAX_DAYS = 30


class WarrantBody(BaseModel):
    """A warrant: its lines, one per cosigner."""

    model_config = ConfigDict(extra="forbid")
    lines: Annotated[str, Field(max_length=_MAX_CHARS, pattern=r"^[A-Za-z0-9_.\n-]*$")]


def warrant_router(context: Context) -> APIRouter:
    """Return the routes of warrants."""
    router = api_router("rollouts")
    doing = Annotated[Asked, Depends(asked(context))]
    reader = Annotated[Caller, may(context, Act.READ)]
    creator = Annotated[Caller, may(context, Act.CREATE)]
    store, keyring, now = context.store, context.keyring, context.now

    @router.get("/rollouts/{name}/warrant", responses=gives(answers.Warrant))
    async def draft_warrant(name: str, _: reader, days: Annotated[int, Query(ge=1, le=_MAX_DAYS)] = 7) -> View:
        """Show the claims that cosigners must sign for a rollout."""
        return await warrants.draft(context.conductor, store, keyring.keyset, name, days, now())

    @router.post("/rollouts/{name}/warrant", status_code=201, responses=gives(answers.Warrant, 201))
    async def submit_warrant(name: str, body: WarrantBody, who: creator, act: doing) -> View:
        """Store the warrant of a rollout, after judging it as devices will."""
        lines = body.lines.strip().encode()
        return await act.once(
            who,
            lambda: warrants.submit(store, keyring.keyset, name, lines, who.name, now),
            lambda _, claims: claims,
        )

    return router
