"""ESP-IDF's `esp_https_ota`: one address that is asked, and that answers with the image itself if there is one.

Rules:
- Asking is the poll, and fetching begins the update. HEAD begins nothing, nor does who reads only its description.
- 304 for every "not now": the client keeps what it runs, and asks again.
- What is resumed must be what was begun: else 416, upon which the client begins anew, and sews no two images together.
- A recall cannot be said to such a client. Who asks while it does not run the release is not installing it.
- A token in the path opens like any other one. No log line and no error of ours has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orchestrator.core.model import Device, Update, UpdateState
from orchestrator.engine.offers import tasks
from orchestrator.engine.offers.tasks import Task
from orchestrator.ports import Tx
from orchestrator.web.certificates import certified_device
from orchestrator.web.context import Context
from orchestrator.web.dialects.espidf_words import (
    LATER_BOOT,
    PEEK_BYTES,
    Said,
    login,
    report_of,
    said_in,
)
from orchestrator.web.dialects.handing import BRINGS, hand_out
from orchestrator.web.downloads import NO_STORE
from orchestrator.web.identity import check_dialect, device_of_token
from orchestrator.web.polls import ask
from orchestrator.web.ranges import Span, spans
from orchestrator.web.rhythm import pause
from orchestrator.wire.report import Hello, Kind

DIALECT = "esp-idf"
PLACE = "/ota/esp-idf"
ATTEMPT_HEADER = "Ota-Attempt"
"""Tells an application that reports by itself of which attempt it speaks."""

_STRANGER = {
    "type": "about:blank",
    "status": 401,
    "code": "unauthorised",
    "detail": "the token is missing, or not one of a device; see `ota device add`",
}
_AWAITED = (UpdateState.DOWNLOADED, UpdateState.INSTALLED, UpdateState.RUNNING)
_ENDLESS = 1 << 60
_Found = TypeVar("_Found")
_log = structlog.get_logger(__name__)


def espidf_routes(context: Context) -> list[Route]:
    """Return the routes that clients of ESP-IDF use."""
    server = _EspIdf(context)
    return [Route(place, server.answer, methods=["GET"]) for place in (PLACE, PLACE + "/{token}")]


class _EspIdf:
    """The clients of one daemon."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def answer(self, request: Request) -> Response:
        """Answer a client: with an image, with a part of one, or with 304."""
        token = str(request.path_params.get("token", ""))
        request.scope.update(path=PLACE, raw_path=PLACE.encode(), path_params={})  # what logs may see
        device = await self._device(request, token)
        if device is None:  # the client logs in only once it is asked to
            challenge = NO_STORE | {"WWW-Authenticate": 'Basic realm="ota"'}
            return JSONResponse(_STRANGER, 401, challenge, "application/problem+json")
        said = said_in(request)
        is_known = said.version == device.version and self._context.known.is_idle(device.id)
        if said.version and not is_known and not _begin(request):
            await self._listen(device, said)
        answer = await ask(self._context, device)
        brings = answer.brings
        task = None if brings is None else await self._read(lambda tx: tasks.task_of(tx, device, brings))
        if task is not None and task.recall and request.method == "GET":
            await self._recalled(task, device, said)
        pause_s = answer.retry_after_s
        if pause_s is None:
            pause_s = pause(device.id, self._context.poll_s, self._context.now())
        not_now = NO_STORE | {"Retry-After": str(pause_s)}
        if task is None or not _may_take(task, said):
            return Response(status_code=304, headers=not_now)
        if _begin(request) and not task.update.begun and "if-range" not in request.headers:
            size = {"Content-Range": f"bytes */{task.artifact.size_bytes}"}
            return Response(status_code=416, headers=NO_STORE | size)
        return await self._give(request, device, task) or Response(status_code=304, headers=not_now)

    async def _device(self, request: Request, token: str) -> Device | None:
        """Return the device that asks, None if it did not prove which one it is.

        Raises:
            ForbiddenError: its certificate is wrong, or operators say that the device speaks something else.
        """
        device = await certified_device(request, self._context)
        if device is None:
            name, secret = ("", token) if token else login(request.headers.get("authorization", ""))
            device = await device_of_token(self._context, secret)
            if device is None or name not in ("", device.id):
                return None
        check_dialect(device, DIALECT)
        return device

    async def _listen(self, device: Device, said: Said) -> None:
        """Record which version a device runs, and what that shows of an update."""

        def find(tx: Tx) -> tuple[int, Update | None, int, bool]:
            rel, proven = tasks.shows(tx, device, said.version)
            proven = proven or _runs(tx, device, said.version)
            round_ = 0 if proven is None else tasks.round_of(tx, proven)
            return rel, proven, round_, bool(tx.updates_of([device.id], _AWAITED))

        rel, proven, round_, awaited = await self._read(find)
        kind = Kind.RUNNING if said.on_trial else Kind.CONFIRMED
        if proven is not None and round_:
            report = report_of(kind, proven, round_, version=said.version, rel=proven.rel)
            await self._context.recorder.submit(report)
        elif said.version != device.version or awaited:
            hello = Hello(v=1, dev=device.id, model=device.model, ver=said.version, rel=rel, boot=LATER_BOOT)
            await self._context.recorder.submit(hello)

    async def _recalled(self, task: Task, device: Device, said: Said) -> None:
        """Record that a device gave up what is recalled from it, unless it may run that already."""
        update = task.update
        runs_another = bool(said.version) and said.version != task.artifact.version

        def had_all(tx: Tx) -> bool:
            lines = tx.lines(update.id)
            return any(line.attempt == update.attempt and line.kind == Kind.DOWNLOADED for line in lines)

        if runs_another or not (self._context.esp_idf_follows or await self._read(had_all)):
            await self._submit(Kind.RECALLED, update, device)

    async def _give(self, request: Request, device: Device, task: Task) -> Response | None:
        """Return the answer with the bytes, None where the update was stopped meanwhile."""
        update = task.update

        async def say(kind: Kind) -> None:
            await self._submit(kind, update, device)

        looks, follows = _is_peek(request, task.artifact.size_bytes), self._context.esp_idf_follows
        answer = await hand_out(request, self._context, device, task, say, follows=follows, looks=looks)
        if answer is not None and answer.status_code in BRINGS:
            answer.headers[ATTEMPT_HEADER] = f"{update.id}.{update.attempt}"
        return answer

    async def _submit(self, kind: Kind, update: Update, device: Device) -> None:
        round_ = await self._read(lambda tx: tasks.round_of(tx, update))
        if round_:
            rel = device.rel if device.version or device.rel else None
            await self._context.recorder.submit(report_of(kind, update, round_, version=device.version, rel=rel))

    async def _read(self, work: Callable[[Tx], _Found]) -> _Found:
        return await self._context.store.read(work)


def _runs(tx: Tx, device: Device, version: str) -> Update | None:
    """Return the update whose release a device runs that was on trial, or that was faster than its recall."""
    for update in tx.updates_of([device.id], (UpdateState.RUNNING, UpdateState.RECALLING)):
        artifact = tasks.artifact_of(tx, device, update)
        is_new = update.begun and device.version not in ("", version)
        if artifact is not None and artifact.version == version and (update.state is UpdateState.RUNNING or is_new):
            return update
    return None


def _may_take(task: Task, said: Said) -> bool:
    """Say whether a device may fetch: not what runs, not while it is on trial, and not what it came back from."""
    runs = said.version == task.artifact.version or task.update.state is UpdateState.RUNNING
    return task.may_fetch and not runs and not said.on_trial


def _begin(request: Request) -> int:
    """Return from which byte on a client resumes, 0 if it does not."""
    found = _spans(request)
    return found[0].start if found else 0


def _is_peek(request: Request, size_bytes: int) -> bool:
    found = _spans(request)
    return bool(found) and found[-1].end <= min(PEEK_BYTES, size_bytes - 1)


def _spans(request: Request) -> tuple[Span, ...]:
    return spans(request.headers.getlist("range"), _ENDLESS) or ()
