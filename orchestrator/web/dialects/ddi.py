"""hawkBit's Direct Device Integration API, for SWUpdate, RAUC's updaters and others that speak it.

Rules:
- A deployment is an update of ours: its number is the action's, and it is shown from the offer until it is closed.
- Every success is 200 with a body or none, and feedback is always taken: a client that is refused asks for ever.
- Nobody sees an action of another device; feedback on one is taken and means nothing.
- What a device says moves its update by the recorder, and is answered after the commit.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.core.model import Device, Update, UpdateState
from orchestrator.engine.offers import tasks
from orchestrator.engine.offers.polling import Answer
from orchestrator.engine.offers.tasks import Task
from orchestrator.engine.rollouts.operations import token_hash
from orchestrator.errors import ForbiddenError, NotFoundError
from orchestrator.ports import Tx
from orchestrator.web.bodies import body_of
from orchestrator.web.context import MAX_TOKEN_CHARS, Context, UnauthorisedError
from orchestrator.web.dialects import ddi_documents as documents
from orchestrator.web.dialects import ddi_feedback as feedback
from orchestrator.web.dialects.ddi_feedback import Meaning
from orchestrator.web.downloads import NO_STORE, artifact_response
from orchestrator.web.polls import ask
from orchestrator.wire.report import Hello, Kind

DIALECT = "ddi"
MAX_BODY_BYTES = 256 * 1024
ASK_AGAIN_S = 3600.0
"""Attributes of a device that never says its version are asked for this often."""

MAX_ASKED = 200_000
_MAX_DIGITS = 10
_HAL = "application/hal+json"
_AT = "/{tenant}/controller/v1/{device}"
_log = structlog.get_logger(__name__)

Handler = Callable[[Request, Device], Awaitable[Response]]


def ddi_routes(context: Context) -> list[Route]:
    """Return the routes that DDI clients use."""
    server = _Ddi(context)
    routes: list[tuple[str, str, Handler]] = [
        ("GET", "", server.poll),
        ("PUT", "/configData", server.attributes),
        ("GET", "/deploymentBase/{id}", server.deployment),
        ("POST", "/deploymentBase/{id}/feedback", server.deployment_feedback),
        ("GET", "/cancelAction/{id}", server.cancellation),
        ("POST", "/cancelAction/{id}/feedback", server.cancellation_feedback),
        ("GET", "/installedBase/{id}", server.installed),
        ("PUT", "/installedBase", server.has_installed),
        ("GET", "/softwaremodules/{id}/artifacts/{file}", server.download),
        ("GET", "/softwaremodules/{id}/artifacts/{file}.MD5SUM", server.md5sum),
    ]
    # The longer path first: a file name would take its ending for its own.
    return [Route(_AT + path, server.opened(handler), methods=[method]) for method, path, handler in reversed(routes)]


class _Ddi:
    """The API over one daemon."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._asked: dict[str, float] = {}

    def opened(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Return a handler as a route calls it: with the device that asks."""

        async def handle(request: Request) -> Response:
            return await handler(request, await self._device(request))

        return handle

    async def poll(self, request: Request, device: Device) -> Response:
        """Say what there is to do, and when to ask again."""
        answer = await ask(self._context, device)
        task, closed = await self._told(device, answer)
        place, links = self._place(request), {}
        if task is not None and task.recall:
            links["cancelAction"] = f"{place}/cancelAction/{task.update.id}"
        elif task is not None and not closed:
            links["deploymentBase"] = f"{place}/deploymentBase/{task.update.id}?c={task.update.attempt}"
        if closed or self._wants_attributes(device):
            links["configData"] = f"{place}/configData"
        pause_s = self._context.ddi.poll_s if answer.retry_after_s is None else answer.retry_after_s
        return _json(request, documents.base(pause_s, links))

    async def attributes(self, request: Request, device: Device) -> Response:
        """Take the attributes of a device; the version among them shows what became of an update."""
        version = feedback.version_in(await body_of(request, MAX_BODY_BYTES), self._context.ddi.version_attribute)
        await self._runs(request, device, version)
        return Response(headers=NO_STORE)

    async def has_installed(self, request: Request, device: Device) -> Response:
        """Take what a device says that it has installed."""
        await self._runs(request, device, feedback.installed_in(await body_of(request, MAX_BODY_BYTES)))
        return Response(headers=NO_STORE)

    async def deployment(self, request: Request, device: Device) -> Response:
        """Say what to install."""
        task, closed = await self._task(device)
        if task is None or closed or task.recall or task.update.id != _number(request):
            raise NotFoundError("there is no such deployment for this device")
        return _json(request, documents.deployment(task.update, task.artifact, self._place(request)))

    async def installed(self, request: Request, device: Device) -> Response:
        """Say what an update brought that is healthy now."""
        number = _number(request)

        def find(tx: Tx) -> dict[str, Any] | None:
            update = _own(tx, device, number)
            if update is None or update.state is not UpdateState.CONFIRMED:
                return None
            artifact = tasks.artifact_of(tx, device, update)
            return None if artifact is None else documents.deployment(update, artifact, self._place(request))

        found = await self._context.store.read(find)
        if found is None:
            raise NotFoundError("there is no such installation on this device")
        return _json(request, found)

    async def deployment_feedback(self, request: Request, device: Device) -> Response:
        """Take what became of a deployment."""
        said = feedback.decode_feedback(await body_of(request, MAX_BODY_BYTES))
        update = await self._update(request, device)
        if update is not None:
            meaning = feedback.of_deployment(said, update, request.headers.get("user-agent", ""))
            await self._submit(meaning, update, device, said)
        return Response(headers=NO_STORE)

    async def cancellation(self, request: Request, device: Device) -> Response:
        """Say what to stop."""
        task, _ = await self._task(device)
        if task is None or not task.recall or task.update.id != _number(request):
            raise NotFoundError("nothing is recalled from this device")
        return _json(request, documents.cancellation(task.update))

    async def cancellation_feedback(self, request: Request, device: Device) -> Response:
        """Take what became of a recall."""
        said = feedback.decode_feedback(await body_of(request, MAX_BODY_BYTES))
        update = await self._update(request, device)
        if update is not None and update.state is UpdateState.RECALLING:
            await self._submit(feedback.of_cancellation(said), update, device, said)
        return Response(headers=NO_STORE)

    async def download(self, request: Request, device: Device) -> Response:
        """Hand out the bytes; with them the device begins."""
        task = await self._fetched(request, device, request.path_params["file"])
        answer = await artifact_response(request, self._context, task.artifact)
        if request.method == "GET" and not task.update.begun:
            await self._submit(Meaning(Kind.ACCEPTED), task.update, device)
        return answer

    async def md5sum(self, request: Request, device: Device) -> Response:
        """Hand out the MD5 of an artifact as `md5sum` writes it."""
        name = request.path_params["file"]
        task = await self._fetched(request, device, name)
        return Response(f"{task.artifact.md5}  {name}\n", media_type="text/plain", headers=NO_STORE)

    async def _fetched(self, request: Request, device: Device, name: str) -> Task:
        task, _ = await self._task(device)
        wanted = task is not None and task.update.id == _number(request)
        if task is None or not wanted or not task.may_fetch or documents.file_name(task.artifact) != name:
            raise NotFoundError("there is no such artifact for this device")
        return task

    async def _task(self, device: Device) -> tuple[Task | None, bool]:
        return await self._told(device, await ask(self._context, device))

    async def _told(self, device: Device, answer: Answer) -> tuple[Task | None, bool]:
        """Return what the device shall do, and whether it closed that already and only has to prove it."""
        brings = answer.brings
        if brings is None:
            return None, False

        def find(tx: Tx) -> tuple[Task | None, bool]:
            update = brings.update
            task, boot = tasks.task_of(tx, device, brings), feedback.boot_of(tasks.round_of(tx, update))
            done = update.attempt, boot, feedback.CLOSED
            closed = any((line.attempt, line.boot, line.n) == done for line in tx.lines(update.id))
            return task, closed and update.state is UpdateState.INSTALLED

        task, closed = await self._context.store.read(find)
        if task is not None and (task.update.id > documents.MAX_ID or not task.artifact.sha1):
            _log.warning("ddi.not_offered", device=device.id, update=task.update.id, artifact=task.artifact.sha256)
            return None, False
        return task, closed

    async def _update(self, request: Request, device: Device) -> Update | None:
        number = _number(request)
        return await self._context.store.read(lambda tx: _own(tx, device, number))

    async def _submit(
        self, meaning: Meaning | None, update: Update, device: Device, said: feedback.Feedback | None = None
    ) -> None:
        """Report what a device means; about what it was never given it can mean nothing."""
        if meaning is None:
            return
        round_, artifact = await self._context.store.read(
            lambda tx: (tasks.round_of(tx, update), tasks.artifact_of(tx, device, update))
        )
        if not round_ or artifact is None:
            return
        percent, text = (None, "") if said is None else (said.percent, said.text)
        runs = device.rel if device.version or device.rel else None
        version = artifact.version if meaning.kind is Kind.CONFIRMED else device.version
        await self._context.recorder.submit(
            feedback.report_of(meaning, update, round_, runs=runs, percent=percent, version=version, text=text)
        )

    async def _runs(self, request: Request, device: Device, version: str) -> None:
        """Record which version a device runs, and the success that this proves where the client does not tell it."""
        if not version:
            return
        rel, proven = await self._context.store.read(lambda tx: tasks.shows(tx, device, version))
        if proven is not None and not feedback.closes_late(request.headers.get("user-agent", "")):
            round_ = await self._context.store.read(lambda tx: tasks.round_of(tx, proven))
            report = feedback.report_of(Meaning(Kind.CONFIRMED), proven, round_, runs=rel, version=version)
            await self._context.recorder.submit(report)
        awaited = await self._context.store.read(lambda tx: tx.updates_of([device.id], (UpdateState.INSTALLED,)))
        if version != device.version or awaited:
            hello = Hello(v=1, dev=device.id, model=device.model, ver=version, rel=rel, boot=feedback.LATER_BOOT)
            await self._context.recorder.submit(hello)

    async def _device(self, request: Request) -> Device:
        """Return the device that asks.

        Raises:
            UnauthorisedError: the token is missing or of no device, or not of the one that the path names.
            NotFoundError: there is no such tenant.
            ForbiddenError: operators say that the device speaks something else.
        """
        name, tenant = request.path_params["device"], request.path_params["tenant"]
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        device = None if len(token) > MAX_TOKEN_CHARS else await self._identified(scheme.lower(), token.strip(), name)
        if device is None:
            raise UnauthorisedError("the token is missing, or not one of this device; see `ota device add`")
        if tenant.lower() != self._context.ddi.tenant.lower():
            raise NotFoundError("there is no such tenant")
        if device.dialect != DIALECT:
            text = f"operators say that {device.id} speaks {device.dialect}; see `ota device set {device.id} --dialect`"
            raise ForbiddenError(text, code="other_dialect")
        return device

    async def _identified(self, scheme: str, token: str, name: str) -> Device | None:
        if not token:
            return None
        if scheme == "targettoken":
            device = await self._context.store.read(lambda tx: tx.device_by_token(token_hash(token)))
            return device if device is not None and device.id == name else None
        expected = self._context.ddi.gateway_token
        if scheme == "gatewaytoken" and expected and hmac.compare_digest(token.encode(), expected.encode()):
            return next(iter(await self._context.store.read(lambda tx: tx.devices_named([name]))), None)
        return None

    def _place(self, request: Request) -> str:
        tenant, name = request.path_params["tenant"], request.path_params["device"]
        return f"{self._context.public_url}/{tenant}/controller/v1/{name}"

    def _wants_attributes(self, device: Device) -> bool:
        """Say whether to ask for attributes: once in a while, of a device of which no version is known."""
        if device.version:
            return False
        now = self._context.now()
        if 0 <= now - self._asked.get(device.id, -ASK_AGAIN_S) < ASK_AGAIN_S:
            return False
        if len(self._asked) >= MAX_ASKED:
            self._asked.clear()
        self._asked[device.id] = now
        return True


def _number(request: Request) -> int:
    """Return the number that a path names, 0 for none that could be an action's."""
    text: str = request.path_params["id"]
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS else 0
    return number if number <= documents.MAX_ID else 0


def _own(tx: Tx, device: Device, number: int) -> Update | None:
    update = tx.updates([number]).get(number) if number else None
    return update if update is not None and update.device_id == device.id else None


def _json(request: Request, document: dict[str, Any]) -> Response:
    media_type = _HAL if _HAL in request.headers.get("accept", "") else "application/json"
    return Response(msgspec.json.encode(document), media_type=media_type, headers=NO_STORE)
