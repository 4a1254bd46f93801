"""The HTTP application: routes, limits, errors to answers.

Rules:
- Every error becomes `application/problem+json` (RFC 9457) with a stable code and a sentence.
- What is not ours to explain is logged and answered without details.
"""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator import __version__
from orchestrator.core.trust.approval import ApprovalNeededError
from orchestrator.errors import ConfigError, OrchestratorError
from orchestrator.plans.faults import path_of, sentence
from orchestrator.web.acts import acts_router
from orchestrator.web.approvals import approval_router
from orchestrator.web.artifacts import artifact_router
from orchestrator.web.audit import audit_router
from orchestrator.web.context import BusyError, Context
from orchestrator.web.described import AT, SECURE
from orchestrator.web.devices import device_routes
from orchestrator.web.dialects.arduino import arduino_routes
from orchestrator.web.dialects.ddi import ddi_routes
from orchestrator.web.dialects.espidf import espidf_routes
from orchestrator.web.document import TITLE, document_of
from orchestrator.web.events import events_router
from orchestrator.web.health import health_routes
from orchestrator.web.insight import insight_router
from orchestrator.web.keysets import keyset_router
from orchestrator.web.management.api import is_upload, management_routes
from orchestrator.web.operators import operator_router
from orchestrator.web.pages.routes import page_routes
from orchestrator.web.rates import TooManyError
from orchestrator.web.statuses import status_of
from orchestrator.web.users import user_router
from orchestrator.web.warrants import warrant_router
from orchestrator.web.webhooks import webhook_router

MAX_BODY_BYTES = 1024 * 1024
MAX_HEAD_BYTES = 16 * 1024
_NEXT = {
    400: "the body is not JSON, or is nested too deep; send one JSON object",
    404: f"nothing has this address; {AT}/openapi.json tells which there are",
    405: f"this address does not take this method; {AT}/openapi.json tells which it takes",
}
"""What to do about refusals that the routing makes by itself."""
_log = structlog.get_logger(__name__)


def api(context: Context) -> FastAPI:
    """Return the operator API alone, with its document."""
    app = FastAPI(
        title=TITLE,
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{AT}/openapi.json",
        generate_unique_id_function=lambda route: route.name,
    )
    routers = (
        warrant_router,
        acts_router,
        insight_router,
        artifact_router,
        operator_router,
        approval_router,
        user_router,
        keyset_router,
        audit_router,
        events_router,
        webhook_router,
    )
    for router in routers:
        app.include_router(router(context))
    app.openapi = lru_cache(maxsize=1)(lambda: document_of(app))  # type: ignore[method-assign]
    return app


def document() -> dict[str, Any]:
    """Return the document of the operator API of this version, without a daemon."""
    unbound: dict[str, Any] = {item.name: None for item in fields(Context)}
    return api(Context(**unbound)).openapi()


def build_app(context: Context) -> ASGIApp:
    """Return the ASGI application."""
    app = api(context)
    # Routes are tried in their order, and most of those who ask are devices.
    app.router.routes[:0] = [
        *device_routes(context),
        *ddi_routes(context),
        *arduino_routes(context),
        *espidf_routes(context),
    ]

    app.router.routes.extend(management_routes(context))
    app.router.routes.extend(page_routes(context))
    app.router.routes.extend(health_routes(context))

    @app.exception_handler(OrchestratorError)
    async def on_error(_: Request, error: OrchestratorError) -> Response:
        status = status_of(error)
        faults = error.faults if isinstance(error, ConfigError) else None
        waits = error.proposal.id if isinstance(error, ApprovalNeededError) else None
        again_s = error.again_s if isinstance(error, BusyError | TooManyError) else None
        return problem(status, error.code, error.message, faults, waits, again_s)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, error: RequestValidationError) -> Response:
        if isinstance(error.body, bytes):  # it was not even read as JSON
            return problem(415, "not_json", "send the body as application/json; its Content-Type says something else")
        faults = [f"{path_of(fault['loc']) or 'the body'}: {sentence(fault)}" for fault in error.errors()]
        return problem(422, "invalid", "; ".join(faults), faults)

    @app.exception_handler(HTTPException)
    async def on_http(_: Request, error: HTTPException) -> Response:
        text = _NEXT.get(error.status_code, str(error.detail))
        return problem(error.status_code, f"http_{error.status_code}", text)

    @app.exception_handler(ClientDisconnect)
    async def on_gone(_: Request, __: ClientDisconnect) -> Response:
        return problem(400, "gone", "the caller left before its request had come whole")

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> Response:
        _log.error("request.failed", path=request.url.path, exc_info=error)
        return problem(500, "internal", "the daemon failed on this request; its log says more")

    return LimitBody(app)


def problem(
    status: int,
    code: str,
    detail: str,
    faults: list[str] | None = None,
    proposal: int | None = None,
    again_s: int | None = None,
) -> Response:
    """Return an error answer (RFC 9457).

    Args:
        status: of HTTP.
        code: stable word for machines.
        detail: one sentence for a person.
        faults: all that is wrong, one by one.
        proposal: what others must approve first, if it waits for them.
        again_s: when to come again, where that is known.
    """
    body: dict[str, object] = {"type": "about:blank", "status": status, "code": code, "detail": detail}
    if faults:
        body["faults"] = faults
    if proposal is not None:
        body["proposal"] = proposal
    headers = SECURE | ({"WWW-Authenticate": "Bearer"} if status == 401 else {})
    if again_s is not None:
        headers["Retry-After"] = str(again_s)
    return JSONResponse(body, status, headers, "application/problem+json")


def _head_bytes(scope: Scope) -> int:
    """Return about how large the head of a request is; the server bounds only one that does not come at once."""
    fields = sum(len(name) + len(value) for name, value in scope["headers"])
    return fields + len(scope["path"]) + len(scope["query_string"])


class LimitBody:
    """Ends requests whose head or body is larger than any of ours can be."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on unless its head is too large, and count its body."""
        if scope["type"] == "http" and _head_bytes(scope) > MAX_HEAD_BYTES:
            text = f"the head of a request may have at most {MAX_HEAD_BYTES} bytes"
            await problem(431, "head_too_large", text)(scope, receive, send)
            return
        if scope["type"] != "http" or is_upload(scope):
            await self._app(scope, receive, send)
            return
        received = 0

        async def limited() -> object:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                raise HTTPException(413, f"a request may have at most {MAX_BODY_BYTES} bytes")
            return message

        await self._app(scope, limited, send)  # type: ignore[arg-type]
