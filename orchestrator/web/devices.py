"""The device side of HTTP: poll, report, download. Translation only.

Rules:
- The identity is the token's; what a body says about the sender must agree with it.
- A report is answered with 202 after the commit, never before.
- Triggers and bytes are for devices that verify them: what others may have, their dialect judges.
- Answers are small, uncached and the same for every device that may not know more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.core.model import OTAD, Device
from orchestrator.errors import ConflictError, NotFoundError, PayloadError, UnavailableError
from orchestrator.web.bodies import body_of
from orchestrator.web.context import Context, require_device
from orchestrator.web.downloads import NO_STORE, artifact_response
from orchestrator.web.polls import ask
from orchestrator.web.ranges import is_held
from orchestrator.web.rhythm import pause
from orchestrator.web.stated import stated
from orchestrator.wire.report import MAX_REPORT_BYTES, Hello, Report, decode_hello, decode_report

BUNDLE = "application/jose"
EPOCH_HEADER = "Ota-Key-Epoch"
"""Tells a device that polls which keyset it should hold; it fetches those that it lacks, one after the other."""

CHANNEL_HEADER, CHANNEL = "Ota-Channel", "channel"
"""Answers a device that names its channel with the one that operators keep as its attribute of this name."""

WORDS = {b"ota-device": "device", b"ota-model": "model", b"ota-channel": CHANNEL, b"ota-version": "current"}
"""What a poll may state, by header."""

Handler = Callable[[Request], Awaitable[Response]]


def device_routes(context: Context) -> list[Route]:
    """Return the routes that devices use."""

    async def version(request: Request) -> Response:
        return await _version(request, context)

    async def report(request: Request) -> Response:
        return await _said(request, context, decode_report)

    async def hello(request: Request) -> Response:
        return await _said(request, context, decode_hello)

    async def keys(request: Request) -> Response:
        return await _keys(request, context)

    async def beat(request: Request) -> Response:
        return await _beat(request, context)

    async def download(request: Request) -> Response:
        return await _download(request, context)

    return [
        Route("/api/v1/firmware/version", version, methods=["GET"]),
        Route("/api/v1/keys/{epoch:int}", keys, methods=["GET"]),
        Route("/api/v1/beat", beat, methods=["GET"]),
        Route("/api/v1/report", report, methods=["POST"]),
        Route("/api/v1/hello", hello, methods=["POST"]),
        Route("/v1/dl/{sha256}", download, methods=["GET", "HEAD"]),
    ]


async def _version(request: Request, context: Context) -> Response:
    device = await require_device(request, context, dialect=OTAD)
    said = stated(request, WORDS)
    _check(said, device)
    answer = await ask(context, device)
    headers = NO_STORE | {EPOCH_HEADER: str(context.keyring.epoch)}
    if CHANNEL in said:
        headers[CHANNEL_HEADER] = quote(device.attributes.get(CHANNEL, ""))
    if answer.token:
        mark = f'"{hashlib.sha256(answer.token.encode()).hexdigest()[:32]}"'
        headers["ETag"] = mark
        if not is_held(request.headers.getlist("if-none-match"), mark):
            return Response(answer.token, media_type=BUNDLE, headers=headers)
    again_s = answer.retry_after_s
    headers["Retry-After"] = str(pause(device.id, context.poll_s, context.now()) if again_s is None else again_s)
    return Response(status_code=304 if answer.token else 204, headers=headers)


def _check(said: Mapping[str, str], device: Device) -> None:
    """Refuse a poll of a device that takes itself for another one; its channel is not its own to choose."""
    if said.get("device", device.id) != device.id:
        raise PayloadError("device is not the sender", code="foreign_device")
    if said.get("model", device.model) != device.model:
        text = f"the registry knows {device.id} as {device.model}; say hello with another model before you ask as it"
        raise ConflictError(text, code="other_model")


async def _said(
    request: Request, context: Context, decode: Callable[[bytes, str], Report] | Callable[[bytes, str], Hello]
) -> Response:
    device = await require_device(request, context)
    await context.recorder.submit(decode(await body_of(request, MAX_REPORT_BYTES), device.id))
    return Response(status_code=202, headers=NO_STORE)


async def _keys(request: Request, context: Context) -> Response:
    """Hand out a keyset. It is public: a device that was away for long may hold a token that nobody knows any more."""
    epoch = request.path_params["epoch"]
    stored = dict(await context.store.read(lambda tx: tx.keysets()))
    if epoch not in stored:
        raise NotFoundError(f"there is no keyset {epoch}")
    return Response(stored[epoch], media_type=BUNDLE, headers={"Cache-Control": "public, max-age=3600"})


async def _beat(request: Request, context: Context) -> Response:
    """Hand out a fresh beat: it proves to a device that only polls that the daemon is behind us."""
    await require_device(request, context)
    beat = await context.beat()
    if beat is None:
        raise UnavailableError("there is no beat; the daemon has no beat key, or cannot sign with it now")
    return Response(beat, media_type=BUNDLE, headers=NO_STORE)


async def _download(request: Request, context: Context) -> Response:
    device = await require_device(request, context, dialect=OTAD)
    sha256 = request.path_params["sha256"]
    artifact = await context.store.read(lambda tx: tx.artifact(sha256))
    if artifact is None or device.model not in artifact.hardware:
        raise NotFoundError("there is no such artifact for this device")
    return await artifact_response(request, context, device, artifact, follows=True)
