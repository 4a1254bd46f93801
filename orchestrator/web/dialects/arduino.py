"""The HTTP updaters of Arduino: ESP8266, ESP32 and Pico, all at one address.

Rules:
- 200 with the image, its exact length and its MD5, or 304. Whatever is wrong, with us or with who asks, is 304: these
  clients ask again after it, and some do not after anything else. Who is no updater gets 403.
- Never chunked, never a redirection, never a part: the answer to an updater says nothing but the whole.
- A device whose download broke off gets the image again. Once it has taken every byte it does so a few times more, for
  bytes may have been lost behind what we see; then the plan's deadlines say what became of it.
- A token in the path opens like any other one. No log line and no error of ours has it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from orchestrator.core.model import Artifact, Device
from orchestrator.engine.offers import tasks
from orchestrator.errors import OrchestratorError
from orchestrator.ports import Tx
from orchestrator.web.context import Context
from orchestrator.web.dialects import arduino_inference as inference
from orchestrator.web.dialects.arduino_headers import Asked, Mode, plain_mac, read_headers
from orchestrator.web.dialects.arduino_images import Library, Prints, misfit
from orchestrator.web.dialects.arduino_inference import Heard, Shown
from orchestrator.web.dialects.handing import hand_out
from orchestrator.web.downloads import NO_STORE
from orchestrator.web.identity import device_of_token
from orchestrator.web.logins import basic
from orchestrator.web.polls import ask
from orchestrator.wire.report import Hello, Kind, Report

PLACE = "/ota/arduino"
MAC, CHIP_ID = "mac", "chip_id"
"""Attributes by which operators say which hardware a device has; who says another one is not believed."""

PATIENCE_S = 5.0
"""The cores wait 8 s for the first headers of an answer."""

MAX_LOGIN_CHARS = 512
MAX_NOTED = 10_000
_log = structlog.get_logger(__name__)


def arduino_routes(context: Context) -> list[Route]:
    """Return the routes that the updaters of Arduino use."""
    server = _Arduino(context)
    return [Route(place, server.answer, methods=["GET"]) for place in (PLACE, PLACE + "/{token:path}")]


class _Arduino:
    """The updaters of one daemon."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._library = Library(context)
        self._noted: set[tuple[str, str]] = set()

    async def answer(self, request: Request) -> Response:
        """Answer an updater, whatever happens."""
        token = str(request.path_params.get("token", ""))
        request.scope.update({"path": PLACE, "raw_path": PLACE.encode(), "path_params": {}})  # what logs may see
        if request.method != "GET":
            return _not_now()  # a framework that takes GET takes HEAD as well
        try:
            asked = read_headers(request.headers.items())
            if asked is None:
                return PlainTextResponse("this address is for the updaters of Arduino\n", 403, NO_STORE)
            async with asyncio.timeout(PATIENCE_S):
                return await self._answer(request, asked, token)
        except OrchestratorError as error:
            self._note("", error.code, error.message)
        except TimeoutError:
            self._note("", "slow", "it took too long to find out what to answer")
        except Exception as error:
            _log.error("arduino.failed", exc_info=error)
        return _not_now()

    async def _answer(self, request: Request, asked: Asked, token: str) -> Response:
        device = await self._device(request, asked, token)
        if device is None or asked.mode is Mode.FILES:
            return _not_now()
        device, shown = await self._listen(device, asked)
        heard = await self._offered(device, shown.lacks)
        prints = None
        if heard is not None and heard.artifact.sha256 in shown.runs:
            await self._submit(inference.found_running(asked, heard))
        elif heard is not None:
            prints = await self._fitting(asked, device, heard)
        if asked.mode is Mode.VERSION:
            version = device.version or asked.version if heard is None or prints is None else heard.artifact.version
            return Response(headers=NO_STORE | {"x-version": version}) if _is_field(version) else _not_now()
        if heard is None or prints is None:
            return _not_now()
        return await self._give(request, device, heard, prints)

    async def _device(self, request: Request, asked: Asked, token: str) -> Device | None:
        """Return the device that asks, None if it did not prove that, or is not what operators say of it."""
        name, password = ("", token) if token else _login(request)
        device = await device_of_token(self._context, password)
        if device is None or (name and name != device.id):
            return None
        if device.dialect != asked.core:
            text = f"operators say that it speaks {device.dialect}; see `ota device set {device.id} --dialect`"
            self._note(device.id, "other_dialect", text)
            return None
        mac, chip = device.attributes.get(MAC), device.attributes.get(CHIP_ID)
        if (mac and plain_mac(mac) not in asked.macs) or (chip and chip.upper() != asked.chip_id):
            self._note(device.id, "other_hardware", "whoever has its token is on other hardware than operators say")
            return None
        return device

    async def _listen(self, device: Device, asked: Asked) -> tuple[Device, Shown]:
        """Record what the contact implies, and return it with the device as it is known now."""
        known = await self._context.store.read(lambda tx: inference.known_of(tx, device, asked))
        candidates = [*(item.artifact for item in known.heard), *known.before] if asked.says_hash else []
        prints = {item.sha256: await self._known_prints(item) for item in candidates}

        def has(artifact: Artifact) -> bool | None:
            found = prints.get(artifact.sha256)
            return None if found is None else found.runs(asked)

        shown = inference.shown(asked, device, known, has, self._context.now())
        for saying in (shown.hello, shown.report):
            await self._submit(saying)
        if shown.hello is not None:
            device = replace(device, version=shown.hello.ver, rel=shown.hello.rel)
        if shown.report is not None and shown.report.kind is Kind.CONFIRMED:
            device = replace(device, version=shown.report.ver, rel=shown.report.rel or 0)
        return device, shown

    async def _known_prints(self, artifact: Artifact) -> Prints | None:
        """Return what is known of an image that may run; one that cannot be read any more proves nothing."""
        try:
            return await self._library.prints(artifact)
        except OrchestratorError as error:
            self._note("", error.code, error.message)
            return None

    async def _offered(self, device: Device, lacks: frozenset[str]) -> Heard | None:
        """Return the update that the device may begin, or go on with; `lacks` are hashes of what it does not run."""
        brings = (await ask(self._context, device)).brings
        if brings is None:
            return None

        def find(tx: Tx) -> Heard | None:
            task = tasks.task_of(tx, device, brings)
            if task is None or not task.may_fetch:
                return None
            return inference.heard_of(tx, task.update, task.artifact, live=True)

        heard = await self._context.store.read(find)
        return heard if heard is not None and inference.may_take(heard, lacks) else None

    async def _fitting(self, asked: Asked, device: Device, heard: Heard) -> Prints | None:
        """Return what is known of an image if the device may have it; that it may not is on the record."""
        prints = await self._library.prints(heard.artifact)
        if prints is None:
            fault = "wrong_hardware", "the image was not recognised as one for this core; sign it with its --format"
        elif (found := misfit(asked, device, heard.artifact, prints)) is None:
            return prints
        else:
            fault = found
        await self._submit(inference.said(Kind.REFUSED, heard, device, *fault))
        return None

    async def _give(self, request: Request, device: Device, heard: Heard, prints: Prints) -> Response:
        """Hand out the bytes; with them the device begins."""
        plain = Request({**request.scope, "headers": []}, request.receive)  # what it says of parts is not heard
        task = tasks.Task(heard.update, heard.artifact, recall=False, may_fetch=True)

        async def say(kind: Kind) -> None:
            await self._submit(inference.said(kind, heard, device))

        answer = await hand_out(plain, self._context, device, task, say, follows=False)
        if answer is None or answer.status_code != 200:
            return _not_now()
        answer.headers["x-MD5"] = prints.file_md5
        return _OrNotNow(answer)

    async def _submit(self, saying: Report | Hello | None) -> None:
        if saying is not None:
            await self._context.recorder.submit(saying)

    def _note(self, device_id: str, code: str, text: str) -> None:
        """Log what keeps a device from being served, once for each device and reason."""
        if len(self._noted) >= MAX_NOTED:
            self._noted.clear()
        if (device_id, code) not in self._noted:
            self._noted.add((device_id, code))
            _log.warning("arduino.not_served", device=device_id, code=code, reason=text)


class _OrNotNow(Response):
    """Sends another answer; where that fails before it began, the device hears "not now"."""

    def __init__(self, answer: Response) -> None:
        super().__init__()
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def told(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._answer(scope, receive, told)
        except Exception as error:
            if started:
                raise
            _log.error("arduino.failed", exc_info=error)
            await _not_now()(scope, receive, send)


def _not_now() -> Response:
    return Response(status_code=304, headers=NO_STORE)


def _login(request: Request) -> tuple[str, str]:
    """Return name and password of a request, nothing where there are none that could be ours."""
    name, password = basic(request.headers.get("authorization", ""), MAX_LOGIN_CHARS)
    return (name, password) if name else ("", "")


def _is_field(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable()
