"""The HTTP application: routes, limits, errors to answers.

Rules:
- Every error becomes `application/problem+json` (RFC 9457) with a stable code and a sentence.
- What is not ours to explain is logged and answered without details.
"""

from __future__ import annotations

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator import __version__
from orchestrator.core.trust.approval import ApprovalNeededError
from orchestrator.errors import (
    ConfigError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    OrchestratorError,
    PayloadError,
    RequestError,
    TrustError,
    UnavailableError,
)
from orchestrator.plans import describe
from orchestrator.web.acts import acts_router
from orchestrator.web.approvals import approval_router
from orchestrator.web.audit import audit_router
from orchestrator.web.context import Context, UnauthorisedError
from orchestrator.web.devices import device_routes
from orchestrator.web.dialects.ddi import ddi_routes
from orchestrator.web.insight import insight_router
from orchestrator.web.keysets import keyset_router
from orchestrator.web.operators import operator_router
from orchestrator.web.users import user_router
from orchestrator.web.warrants import warrant_router

MAX_BODY_BYTES = 1024 * 1024
_STATUS: tuple[tuple[type[OrchestratorError], int], ...] = (
    (UnauthorisedError, 401),
    (NotFoundError, 404),
    (ConflictError, 409),
    (ForbiddenError, 403),
    (ConfigError, 422),
    (TrustError, 422),
    (PayloadError, 400),
    (RequestError, 400),
    (UnavailableError, 503),
)
_log = structlog.get_logger(__name__)


def build_app(context: Context) -> ASGIApp:
    """Return the ASGI application."""
    app = FastAPI(title="OTA orchestrator", version=__version__, docs_url=None, redoc_url=None)
    routers = (
        warrant_router,
        acts_router,
        insight_router,
        operator_router,
        approval_router,
        user_router,
        keyset_router,
        audit_router,
    )
    for router in routers:
        app.include_router(router(context))
    app.router.routes.extend([*device_routes(context), *ddi_routes(context)])

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> PlainTextResponse:
        if context.fault():  # why is for operators: `ota status`
            return PlainTextResponse("the store cannot be written\n", 503)
        return PlainTextResponse("ok\n")

    @app.exception_handler(OrchestratorError)
    async def on_error(_: Request, error: OrchestratorError) -> Response:
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        faults = error.faults if isinstance(error, ConfigError) else None
        waits = error.proposal.id if isinstance(error, ApprovalNeededError) else None
        return problem(status, error.code, error.message, faults, waits)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, error: RequestValidationError) -> Response:
        faults = [describe(fault) for fault in error.errors()]
        return problem(422, "invalid", "; ".join(faults), faults)

    @app.exception_handler(HTTPException)
    async def on_http(_: Request, error: HTTPException) -> Response:
        return problem(error.status_code, f"http_{error.status_code}", str(error.detail))

    @app.exception_handler(ClientDisconnect)
    async def on_gone(_: Request, __: ClientDisconnect) -> Response:
        return problem(400, "gone", "the caller left before its request had come whole")

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> Response:
        _log.error("request.failed", path=request.url.path, exc_info=error)
        return problem(500, "internal", "the daemon failed on this request; its log says more")

    return _LimitBody(app)


def problem(
    status: int, code: str, detail: str, faults: list[str] | None = None, proposal: int | None = None
) -> Response:
    """Return an error answer (RFC 9457), with the proposal that others must approve if it waits for one."""
    body: dict[str, object] = {"type": "about:blank", "status": status, "code": code, "detail": detail}
    if faults:
        body["faults"] = faults
    if proposal is not None:
        body["proposal"] = proposal
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse(body, status, headers, "application/problem+json")


class _LimitBody:
    """Ends requests whose body is larger than any of ours can be."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
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
