"""The stream of changes under `/api/v1/events` (server-sent events). Translation only.

Rules:
- Whoever listens is asked again and again who it is: a token that was revoked hears nothing more.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Request
from starlette.responses import StreamingResponse

from orchestrator.core.trust.roles import Act, Caller
from orchestrator.engine.insight.feed import LAST, Change, Feed, Listener
from orchestrator.errors import OrchestratorError, UnavailableError
from orchestrator.web.access import caller_of, may, permit
from orchestrator.web.context import Context
from orchestrator.web.described import SECURE, api_router

EVENTS = "text/event-stream"
QUIET_S = 15.0
"""Whoever hears nothing for so long hears that we are still there."""
_ANSWERS = {
    200: {
        "description": "Events `rollout` (a `RolloutLine`) and `fleet` (a `Fleet`), each as it stands now; first all, "
        "then what changes. `dropped` ends the stream of who did not keep up, `stopping` that of a daemon that "
        "stops: come again, with the id of the last event in `Last-Event-ID`.",
        "content": {EVENTS: {"schema": {"type": "string"}}},
    }
}
_LastId = Annotated[str, Header(max_length=64, description="The last event that was heard.")]


def events_router(context: Context) -> APIRouter:
    """Return the route of the stream."""
    router = api_router("daemon")
    reader = Annotated[Caller, may(context, Act.READ)]

    @router.get("/events", response_class=StreamingResponse, responses=_ANSWERS)  # type: ignore[arg-type]
    async def listen(request: Request, _: reader, last_event_id: _LastId = "") -> StreamingResponse:
        """Tell what changes: rollouts one by one, devices counted."""
        if context.feed is None:
            raise UnavailableError("changes are not told here; ask for what you need", code="no_feed")
        listener = await context.feed.begin(last_event_id)
        headers = SECURE | {"X-Accel-Buffering": "no"}
        return StreamingResponse(_text(request, context, context.feed, listener), 200, headers, EVENTS)

    return router


async def _text(request: Request, context: Context, feed: Feed, listener: Listener) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    asked_at = loop.time()
    with feed.listening(listener):
        while True:
            try:
                async with asyncio.timeout(QUIET_S):
                    change = await listener.waiting.get()
            except TimeoutError:
                yield ": still here\n\n"
                change = None
            if loop.time() - asked_at >= QUIET_S:
                asked_at = loop.time()
                if not await _may_still(request, context):
                    return
            if change is not None:
                yield _event(change)
                if change.kind in LAST:
                    return


async def _may_still(request: Request, context: Context) -> bool:
    try:
        permit(await caller_of(request, context), Act.READ)
    except UnavailableError:  # nobody can say; then nothing changes either
        return True
    except OrchestratorError:
        return False
    return True


def _event(change: Change) -> str:
    named = f"id: {change.id}\n" if change.id else ""
    return f"{named}event: {change.kind}\ndata: {json.dumps(change.data)}\n\n"
