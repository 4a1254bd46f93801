"""How routes of the operator API describe themselves, and what all of their answers carry."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query

from orchestrator.errors import RequestError

AT = "/api/v1"
SECURE = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""What every answer to an operator's program carries: nobody keeps it, and no browser makes a page of it."""
LINES = "application/x-ndjson"
_LINK = {"Link": {"description": 'The next page, `rel="next"`; none on the last one.', "schema": {"type": "string"}}}
_ETAG = {"ETag": {"description": "What was seen, for `If-Match`.", "schema": {"type": "string"}}}


def _secured(response: Response) -> None:
    response.headers.update(SECURE)


class UnknownWordError(RequestError):
    """A query has a word that means nothing there."""

    default_code = "unknown_parameter"


def check_query(request: Request) -> None:
    """Check that the route has each word of a query: a filter with a wrong letter must not mean everything.

    Raises:
        UnknownWordError: there is none of this name.
    """
    if not request.query_params:
        return
    fields = get_flat_params(request.scope["route"].dependant)
    known = sorted(field.alias for field in fields if isinstance(field.field_info, Query))
    for word in request.query_params:
        if word not in known:
            there = f"there are {', '.join(known)}" if known else "there are none here"
            raise UnknownWordError(f"query.{word[:40]}: unknown parameter; {there}")


def api_router(tag: str) -> APIRouter:
    """Return a router for operations of one subject."""
    return APIRouter(prefix=AT, tags=[tag], dependencies=[Depends(_secured)])


def gives(model: Any, status: int = 200, *, marked: bool = False) -> dict[int | str, dict[str, Any]]:
    """Return what an operation answers when it goes well.

    Args:
        model: type of the answer.
        status: of HTTP.
        marked: whether it has an `ETag`.
    """
    return {status: {"model": model, "description": "Done." if status == 201 else "Found."} | _headers(marked=marked)}


def gives_page(model: Any = None) -> dict[int | str, dict[str, Any]]:
    """Return what a list answers: a page, and where the next one is; None for what the route's own type says."""
    return {200: {"description": "A page.", "headers": _LINK} | ({} if model is None else {"model": model})}


def gives_lines(model: Any) -> dict[int | str, dict[str, Any]]:
    """Return what is answered by many lines, one JSON object each; `document` says that these are of the model."""
    return {200: {"model": model, "description": "One JSON object a line.", "content": {LINES: {}}}}


def _headers(*, marked: bool) -> dict[str, Any]:
    return {"headers": _ETAG} if marked else {}
