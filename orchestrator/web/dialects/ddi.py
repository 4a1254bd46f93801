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

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.core.model import Device, Update, UpdateState
from orchestrator.engine.offers import tasks
from orchestrator.engine.offers.polling import Answer
from orchestrator.engine.offers.tasks import Task
from orchestrator.engine.targeting import targets
from orchestrator.errors import NotFoundError
from orchestrator.ports import Tx
from orchestrator.web.bodies import body_of
from orchestrator.web.certificates import certified_device
from orchestrator.web.context import Context, UnauthorisedError
from orchestrator.web.dialects import ddi_documents as documents
from orchestrator.web.dialects import ddi_feedback as feedback
from orchestrator.web.dialects.ddi_clients import Client, client_of
from orchestrator.web.dialects.ddi_consent import Consents
from orchestrator.web.dialects.ddi_feedback import Meaning
from orchestrator.web.dialects.ddi_requests import json_answer, number_of, own_update, place_of, taken
from orchestrator.web.dialects.handing import hand_out
from orchestrator.web.downloads import NO_STORE
from orchestrator.web.identity import MAX_TOKEN_CHARS, check_dialect, device_named, device_of_token
from orchestrator.web.polls import ask
from orchestrator.wire.report import Hello, Kind

DIALECT = "ddi"
MAX_BODY_BYTES = 256 * 1024
ASK_AGAIN_S = 3600.0
"""Attributes of a device that never says its version are asked for this often."""

MAX_ASKED = 200_000
_AT = "/{tenant}/controller/v1/{device}"
_NO_ARTIFACT = "there is no such artifact for this device"
_log = structlog.get_logger(__name__)

Handler = Callable[[Request, Device], Awaitable[Response]]


def ddi_routes(context: Context) -> list[Route]:
    """Return the routes that DDI clients use."""
    consents = Consents(context)
    server = _Ddi(context, consents)
    routes: list[tuple[str, str, Handler]] = [
        ("GET", "", server.poll),
        ("PUT", "/configData", server.attributes),
        ("GET", "/deploymentBase/{id}", server.deployment),
        ("POST", "/deploymentBase/{id}/feedback", server.deployment_feedback),
        ("GET", "/cancelAction/{id}", server.cancellation),
        ("POST", "/cancelAction/{id}/feedback", server.cancellation_feedback),
        ("GET", "/installedBase/{id}", server.installed),
        ("PUT", "/installedBase", server.has_installed),
        ("GET", "/confirmationBase", consents.overview),
        ("GET", "/confirmationBase/{id}", consents.question),
        ("POST", "/confirmationBase/{id}/feedback", consents.answer),
        ("POST", "/confirmationBase/activateAutoConfirm", consents.agree_always),
        ("POST", "/confirmationBase/deactivateAutoConfirm", consents.ask_again),
        # Before the next: a file name would take its ending for its own.
        ("GET", "/softwaremodules/{id}/artifacts/{file}.MD5SUM", server.md5sum),
        ("GET", "/softwaremodules/{id}/artifacts/{file}", server.download),
    ]
    return [Route(_AT + path, server.opened(handler), methods=[method]) for method, path, handler in routes]


class _Ddi:
    """The API over one daemon."""

    def __init__(self, context: Context, consents: Consents) -> None:
        self._context = context
        self._consents = consents
        self._asked: dict[str, float] = {}
        self._unnamed: set[str] = set()

    def opened(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Return a handler as a route calls it: with the device that asks."""

        async def handle(request: Request) -> Response:
            return await handler(request, await self._device(request))

        return handle

    async def poll(self, request: Request, device: Device) -> Response:
        """Say what there is to do, and when to ask again."""
        answer = await ask(self._context, device)
        task, closed = await self._told(device, answer)
        place, links = place_of(request, self._context), {}
        if task is not None and task.recall:
            links["cancelAction"] = f"{place}/cancelAction/{task.update.id}"
        elif task is not None and not closed:
            links["deploymentBase"] = f"{place}/deploymentBase/{task.update.id}?c={task.update.attempt}"
        elif task is None:
            links |= await self._consents.link(request, device)
        if closed or self._wants_attributes(device):
            links["configData"] = f"{place}/configData"
        pause_s = self._context.ddi.poll_s if answer.retry_after_s is None else answer.retry_after_s
        return json_answer(request, documents.base(pause_s, links))

    async def attributes(self, request: Request, device: Device) -> Response:
        """Take the attributes of a device; the version among them shows what became of an update."""
        version = feedback.version_in(await body_of(request, MAX_BODY_BYTES), self._context.ddi.version_attribute)
        await self._runs(request, device, version)
        return taken()

    async def has_installed(self, request: Request, device: Device) -> Response:
        """Take what a device says that it has installed."""
        await self._runs(request, device, feedback.installed_in(await body_of(request, MAX_BODY_BYTES)))
        return taken()

    async def deployment(self, request: Request, device: Device) -> Response:
        """Say what to install."""
        task, closed = await self._task(device)
        if task is None or closed or task.recall or task.update.id != number_of(request):
            raise NotFoundError("there is no such deployment for this device")
        return json_answer(request, documents.deployment(task.update, task.artifact, place_of(request, self._context)))

    async def installed(self, request: Request, device: Device) -> Response:
        """Say what an update brought that is healthy now."""
        number = number_of(request)

        def find(tx: Tx) -> dict[str, Any] | None:
            update = own_update(tx, device, number)
            if update is None or update.state is not UpdateState.CONFIRMED:
                return None
            artifact = tasks.artifact_of(tx, device, update)
            return (
                None if artifact is None else documents.deployment(update, artifact, place_of(request, self._context))
            )

        found = await self._context.store.read(find)
        if found is None:
            raise NotFoundError("there is no such installation on this device")
        return json_answer(request, found)

    async def deployment_feedback(self, request: Request, device: Device) -> Response:
        """Take what became of a deployment."""
        said = feedback.decode_feedback(await body_of(request, MAX_BODY_BYTES))
        number = number_of(request)

        def find(tx: Tx) -> tuple[Update | None, bool]:
            update = own_update(tx, device, number)
            return update, update is not None and _may_be_healthy(tx, device, update)

        update, proven = await self._context.store.read(find)
        if update is not None:
            meaning = feedback.of_deployment(said, update, _client(request), proven=proven)
            await self._submit(meaning, update, device, said)
        return taken()

    async def cancellation(self, request: Request, device: Device) -> Response:
        """Say what to stop."""
        task, _ = await self._task(device)
        if task is None or not task.recall or task.update.id != number_of(request):
            raise NotFoundError("nothing is recalled from this device")
        return json_answer(request, documents.cancellation(task.update))

    async def cancellation_feedback(self, request: Request, device: Device) -> Response:
        """Take what became of a recall."""
        said = feedback.decode_feedback(await body_of(request, MAX_BODY_BYTES))
        update = await self._update(request, device)
        if update is not None and update.state is UpdateState.RECALLING:
            await self._submit(feedback.of_cancellation(said), update, device, said)
        return taken()

    async def download(self, request: Request, device: Device) -> Response:
        """Hand out the bytes; with them the device begins."""
        task = await self._fetched(request, device, request.path_params["file"])

        async def say(kind: Kind) -> None:
            await self._submit(Meaning(kind), task.update, device)

        follows = _client(request).follows
        answer = await hand_out(request, self._context, device, task, say, follows=follows, tells=True)
        if answer is None:
            raise NotFoundError(_NO_ARTIFACT)
        return answer

    async def md5sum(self, request: Request, device: Device) -> Response:
        """Hand out the MD5 of an artifact as `md5sum` writes it."""
        name = request.path_params["file"]
        task = await self._fetched(request, device, name)
        return Response(f"{task.artifact.md5}  {name}\n", media_type="text/plain", headers=NO_STORE)

    async def _fetched(self, request: Request, device: Device, name: str) -> Task:
        task, _ = await self._task(device)
        wanted = task is not None and task.update.id == number_of(request)
        if task is None or not wanted or not task.may_fetch or documents.file_name(task.artifact) != name:
            raise NotFoundError(_NO_ARTIFACT)
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
            return tasks.task_of(tx, device, brings), update.state is UpdateState.INSTALLED and _is_closed(tx, update)

        task, closed = await self._context.store.read(find)
        if task is not None and not documents.can_name(task.update, task.artifact):
            self._say_unnamed(device, task)
            return None, False
        return task, closed

    def _say_unnamed(self, device: Device, task: Task) -> None:
        """Log that an artifact cannot be named to these clients, once for each: all its devices ask again and again."""
        if task.artifact.sha256 not in self._unnamed:
            self._unnamed.add(task.artifact.sha256)
            _log.warning("ddi.not_offered", device=device.id, update=task.update.id, artifact=task.artifact.sha256)

    async def _update(self, request: Request, device: Device) -> Update | None:
        number = number_of(request)
        return await self._context.store.read(lambda tx: own_update(tx, device, number))

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
        said_now = meaning.kind is not Kind.CONFIRMED or device.version == artifact.version
        version = device.version if said_now else ""  # what it ran before is over, and the new one it has not said
        if not said_now:
            self._asked.pop(device.id, None)
        await self._context.recorder.submit(
            feedback.report_of(meaning, update, round_, runs=runs, percent=percent, version=version, text=text)
        )

    async def _runs(self, request: Request, device: Device, version: str) -> None:
        """Record which version a device runs, and the success that this proves where the client does not tell it."""
        if not version:
            return
        rel, proven, round_, awaited = await self._context.store.read(
            lambda tx: _shown(tx, device, version, closes_late=_client(request).closes_late)
        )
        if proven is not None:
            report = feedback.report_of(Meaning(Kind.CONFIRMED), proven, round_, runs=rel, version=version)
            await self._context.recorder.submit(report)
        if version != device.version or awaited:
            hello = Hello(v=1, dev=device.id, model=device.model, ver=version, rel=rel, boot=feedback.LATER_BOOT)
            await self._context.recorder.submit(hello)

    async def _device(self, request: Request) -> Device:
        """Return the device that asks.

        Raises:
            UnauthorisedError: the token is missing or of no device, or not of the one that the path names, or the
                device was taken out.
            NotFoundError: there is no such tenant.
            ForbiddenError: operators say that the device speaks something else, or its client certificate is wrong.
        """
        name, tenant = request.path_params["device"], request.path_params["tenant"]
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        device = await certified_device(request, self._context)
        if device is None and len(token) <= MAX_TOKEN_CHARS:
            device = await self._identified(scheme.lower(), token.strip(), name)
        if device is None or device.id != name:
            raise UnauthorisedError("the token is missing, or not one of this device; see `ota device add`")
        if tenant.lower() != self._context.ddi.tenant.lower():
            raise NotFoundError("there is no such tenant")
        check_dialect(device, DIALECT)
        if not targets.is_target(device):
            raise UnauthorisedError("the device was taken out over the Management API; enrol it again first")
        return device

    async def _identified(self, scheme: str, token: str, name: str) -> Device | None:
        if not token:
            return None
        if scheme == "targettoken":
            device = await device_of_token(self._context, token)
            return device if device is not None and device.id == name else None
        expected = self._context.ddi.gateway_token
        if scheme == "gatewaytoken" and expected and hmac.compare_digest(token.encode(), expected.encode()):
            return await device_named(self._context, name)
        return None

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


def _client(request: Request) -> Client:
    return client_of(request.headers.get("user-agent", ""))


def _may_be_healthy(tx: Tx, device: Device, update: Update) -> bool:
    artifact = tasks.artifact_of(tx, device, update)
    taken = next((line for line in tx.lines(update.id) if line.attempt == update.attempt), None)
    was_known = taken is not None and taken.rel is not None
    return artifact is not None and feedback.may_be_healthy(update, artifact, device, was_known)


def _is_closed(tx: Tx, update: Update) -> bool:
    """Say whether a device closed an update that it has still to prove."""
    done = update.attempt, feedback.boot_of(tasks.round_of(tx, update)), feedback.CLOSED
    return any((line.attempt, line.boot, line.n) == done for line in tx.lines(update.id))


def _shown(tx: Tx, device: Device, version: str, *, closes_late: bool) -> tuple[int, Update | None, int, bool]:
    """Return what `tasks.shows` does, the round of the update that is proven, and whether any waits for its proof.

    A client that closes late has still to say that it is healthy, unless it closed before it could be.
    """
    rel, proven = tasks.shows(tx, device, version)
    if proven is not None and closes_late and not _is_closed(tx, proven):
        proven = None
    awaited = bool(tx.updates_of([device.id], (UpdateState.INSTALLED,)))
    return rel, proven, 0 if proven is None else tasks.round_of(tx, proven), awaited
