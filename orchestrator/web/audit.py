"""The routes of the audit log under `/api/v1`. Translation only: who checks the log does so on their own machine."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query

from orchestrator.client import answers
from orchestrator.core.trust.roles import Act, Caller
from orchestrator.web.access import may
from orchestrator.web.context import Context
from orchestrator.web.cursors import Pages, pages
from orchestrator.web.described import api_router, gives_page

View = dict[str, Any]
_MAX_NUMBER = 2**62
_Number = Annotated[int, Query(ge=0, lt=_MAX_NUMBER)]


def audit_router(context: Context) -> APIRouter:
    """Return the routes of the audit log."""
    router = api_router("audit")
    hundred = Annotated[Pages, pages(100)]
    thousand = Annotated[Pages, pages(1000)]
    reader = Annotated[Caller, may(context, Act.READ)]
    store = context.store

    @router.get("/audit", responses=gives_page(list[answers.Entry]))
    async def list_audit(_: reader, page: hundred, after: _Number = 0) -> list[View]:
        """List entries in their order, from after number `after`; `detail` is the JSON text that was hashed."""
        found = await store.read(lambda tx: tx.audit_entries(page.number(after), page.limit + 1))
        return [asdict(item) for item in page.cut(found, lambda item: item.n)]

    @router.get("/audit/sealed", response_model=list[list[int | str]], responses=gives_page())
    async def list_sealed(_: reader, first: _Number, last: _Number, page: thousand) -> list[tuple[int, str]]:
        """List (seq, token hash) of the sealed deliveries in a range, in order of seq."""
        begin = first if page.last is None else page.number() + 1
        found = await store.read(lambda tx: tx.sealed_between(begin, last, page.limit + 1))
        return page.cut(found, lambda item: item[0])

    return router
