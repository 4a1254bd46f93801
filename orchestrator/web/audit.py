"""The routes of the audit log under `/api/v1`. Translation only: who checks the log does so on their own machine."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from orchestrator.core.trust.roles import Act, Caller
from orchestrator.web.access import may
from orchestrator.web.context import Context

View = dict[str, Any]
MAX_PAGE = 1000
_MAX_NUMBER = 2**62
_Number = Annotated[int, Query(ge=0, lt=_MAX_NUMBER)]


def audit_router(context: Context) -> APIRouter:
    """Return the routes of the audit log."""
    router = APIRouter(prefix="/api/v1/audit")
    reader = Annotated[Caller, Depends(may(context, Act.READ))]
    store = context.store

    @router.get("")
    async def entries(
        _: reader, after: _Number = 0, limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100
    ) -> list[View]:
        """List entries in their order, from after number `after`; `detail` is the JSON text that was hashed."""
        return [asdict(item) for item in await store.read(lambda tx: tx.audit_entries(after, limit))]

    @router.get("/sealed")
    async def sealed(_: reader, first: _Number, last: _Number) -> list[tuple[int, str]]:
        """List (seq, token hash) of the sealed deliveries in a range, in order of seq."""
        return await store.read(lambda tx: tx.sealed_between(first, last))

    return router
