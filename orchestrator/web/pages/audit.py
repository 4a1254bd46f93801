"""The page of the audit log, newest entries first, with what their chain says; and its export."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from orchestrator.engine.insight import listing
from orchestrator.engine.insight.listing import Wanted
from orchestrator.errors import RequestError
from orchestrator.web.pages.house import HEADERS, House, Visitor
from orchestrator.web.pages.views import audit as shown

PAGE = 50
_EXPORTED_AT_ONCE = 1_000
_FIELDS = ("actor", "action", "object")


def audit_routes(house: House) -> list[Route]:
    """Return the routes of the page of the audit log."""
    store = house.context.store

    async def page(request: Request, visitor: Visitor) -> Response:
        asked = {name: request.query_params.get(name, "").strip()[:128] for name in _FIELDS}
        found = await listing.entries(store, Wanted(**asked), _before(request), PAGE)
        view = shown.page(found)
        kept = {name: text for name, text in asked.items() if text}
        view["next"] = f"/audit?{urlencode(kept | {'before': found.before})}" if found.before else ""
        view["first"] = f"/audit?{urlencode(kept)}" if _before(request) else ""
        return house.show("audit.html", visitor, "audit", title="Audit", page=view, asked=asked)

    async def export(_: Request, __: Visitor) -> Response:
        named = HEADERS | {"Content-Disposition": 'attachment; filename="audit.ndjson"'}
        return StreamingResponse(lines(), 200, named, "application/x-ndjson")

    async def lines() -> AsyncIterator[bytes]:
        after = 0
        while True:
            start = after
            some = await store.read(lambda tx, start=start: tx.audit_entries(start, _EXPORTED_AT_ONCE))  # type: ignore[misc]
            yield "".join(f"{json.dumps(asdict(item))}\n" for item in some).encode()
            if len(some) < _EXPORTED_AT_ONCE:
                return
            after = some[-1].n

    return [house.page("/audit", page), house.page("/audit/export", export)]


def _before(request: Request) -> int:
    text = request.query_params.get("before", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise RequestError("before is the number of an entry; follow the links of the page")
    return int(text)
