"""How the daemon is, for what watches over it: `/healthz`, `/readyz` and `/metrics`.

Rules:
- `/healthz` says that the process answers, and asks nothing.
- `/readyz` says to everybody whether the daemon can do its work; why it cannot is for who may read.
- `/metrics` is for who may read; on a listener of its own for whoever reaches that.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from orchestrator.core.trust.roles import Act
from orchestrator.errors import UnavailableError
from orchestrator.web.access import caller_of, permit
from orchestrator.web.context import Context, UnauthorisedError

TEXT = "text/plain; version=0.0.4; charset=utf-8"
"""What Prometheus is told that metrics are."""

_NO_STORE = {"Cache-Control": "no-store"}


def health_routes(context: Context) -> list[Route]:
    """Return the routes by which the daemon is watched."""

    async def ready(request: Request) -> Response:
        return _ready(context, told=await _may_read(request, context))

    async def metrics(request: Request) -> Response:
        permit(await caller_of(request, context), Act.READ)
        return await _metrics(context)

    return [
        Route("/healthz", _alive, methods=["GET"]),
        Route("/readyz", ready, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
    ]


def health_app(context: Context) -> Starlette:
    """Return the application of a listener that nobody but a watcher can reach: it asks for no token."""

    async def ready(_: Request) -> Response:
        return _ready(context, told=True)

    async def metrics(_: Request) -> Response:
        return await _metrics(context)

    routes = {"/healthz": _alive, "/readyz": ready, "/metrics": metrics}
    return Starlette(routes=[Route(path, endpoint, methods=["GET"]) for path, endpoint in routes.items()])


async def _alive(_: Request) -> Response:
    return PlainTextResponse("ok\n", headers=_NO_STORE)


def _ready(context: Context, *, told: bool) -> Response:
    faults = context.unready()
    status = 503 if faults else 200
    if told:
        return JSONResponse({"ready": not faults, "faults": dict(faults)}, status, _NO_STORE)
    return PlainTextResponse("not ready\n" if faults else "ok\n", status, _NO_STORE)


async def _may_read(request: Request, context: Context) -> bool:
    """Say whether the caller may be told why; whoever cannot be recognised now is told no more than strangers are."""
    try:
        return (await caller_of(request, context)).may(Act.READ)
    except (UnauthorisedError, UnavailableError):
        return False


async def _metrics(context: Context) -> Response:
    return Response(await context.scrape(), media_type=TEXT, headers=_NO_STORE)
