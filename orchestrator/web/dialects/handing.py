"""The bytes of an update for the client of a dialect, in any dialect: with them a device begins.

Rules:
- Only an answer that brings bytes begins an update.
- What was judged before is judged again once all is ready: a source may take seconds, and a halt need not wait for it.
- Who gets nothing has begun nothing: a recall that came first is answered for it, and it gives its turn back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.core.model import Device, Update, UpdateState
from orchestrator.engine.offers.tasks import Task
from orchestrator.errors import OrchestratorError
from orchestrator.web.context import Context
from orchestrator.web.downloads import NO_STORE, artifact_response
from orchestrator.wire.report import Kind

BRINGS = (200, 206, 302)
"""Status of answers that bring bytes, or say where they are."""

Say = Callable[[Kind], Awaitable[None]]
"""Records that the device said this of the update, if it was ever given a trigger that it could answer."""

_FETCHES = frozenset({UpdateState.ACCEPTED, UpdateState.DOWNLOADED, UpdateState.INSTALLED, UpdateState.RUNNING})
_log = structlog.get_logger(__name__)


async def hand_out(
    request: Request,
    context: Context,
    device: Device,
    task: Task,
    say: Say,
    *,
    follows: bool,
    looks: bool = False,
    tells: bool = False,
) -> Response | None:
    """Return the answer to who asks for the bytes of an update, None if they may not be had any more.

    Args:
        request: GET or HEAD; the latter begins nothing.
        context: where sources and turns are.
        device: who asks.
        task: what it may fetch, as it stood a moment ago.
        say: records what the device thereby says.
        follows: whether its client survives a redirection.
        looks: whether it only reads what the image is, and begins nothing.
        tells: whether its client says by itself that it has downloaded.

    Raises:
        BusyError: as many devices of its site download as may.
        NotFoundError: nothing can serve it any more.
        TrustError: it is not any more what was imported.
    """

    async def taken() -> None:
        try:
            await say(Kind.DOWNLOADED)
        except OrchestratorError as error:  # its next contact shows what became of it
            _log.warning("download.not_recorded", device=device.id, code=error.code, reason=error.message)

    answer = await artifact_response(
        request,
        context,
        device,
        task.artifact,
        follows=follows,
        in_turn=not looks,
        taken=None if looks or tells else taken,
    )
    answer.headers["Cache-Control"] = NO_STORE["Cache-Control"]  # the address may bring another image next time
    if request.method != "GET" or looks or answer.status_code not in BRINGS:
        return answer
    may = False
    try:
        may = await _begins(context, task.update, say)
    finally:
        if not may:
            context.turns.end(device.site, [device.id])
    return answer if may else None


async def _begins(context: Context, update: Update, say: Say) -> bool:
    """Record that a device begins, and say whether it still may."""
    now = await _as_it_stands(context, update)
    if now.state is UpdateState.OFFERED:
        await say(Kind.ACCEPTED)
        now = await _as_it_stands(context, update)
        if now.state is UpdateState.RECALLING:
            await say(Kind.RECALLED)
    return now.begun and now.attempt == update.attempt and now.state in _FETCHES


async def _as_it_stands(context: Context, update: Update) -> Update:
    return (await context.store.read(lambda tx: tx.updates([update.id])))[update.id]
