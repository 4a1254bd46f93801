"""The device side of HTTP: poll, report, download. Translation only.

Rules:
- The identity is the token's; what a body says about the sender must agree with it.
- A report is answered with 202 after the commit, never before.
- Answers are small, uncached and the same for every device that may not know more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route

from orchestrator.core.model import Artifact
from orchestrator.engine.offers import polling
from orchestrator.errors import NotFoundError, PayloadError, UnavailableError
from orchestrator.ports import Lane, Locator
from orchestrator.web.context import Context, require_device
from orchestrator.wire.report import MAX_REPORT_BYTES, Hello, Report, decode_hello, decode_report

BUNDLE = "application/jose"
EPOCH_HEADER = "Ota-Key-Epoch"
"""Tells a device that polls which keyset it should hold; it fetches those that it lacks, one after the other."""

MAX_VERSION_CHARS = 64
_NO_STORE = {"Cache-Control": "no-store", "Vary": "Authorization"}

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
    device = await require_device(request, context)
    if len(request.query_params.get("current", "")) > MAX_VERSION_CHARS:
        raise PayloadError(f"current: at most {MAX_VERSION_CHARS} characters", code="oversize")
    now, stopped = context.now(), context.conductor.stops.rollouts
    answer = await context.store.read(lambda tx: polling.look(tx, device, now, stopped))
    if answer is None:
        answer = await context.store.transact(Lane.REPORTS, lambda tx: polling.give(tx, device, now, stopped))
        if answer.rollouts:
            context.conductor.changed(set(answer.rollouts))
        if answer.planned:
            context.planned()
    headers = _NO_STORE | {EPOCH_HEADER: str(context.keyring.epoch)}
    if answer.retry_after_s is not None:
        headers["Retry-After"] = str(answer.retry_after_s)
    if not answer.token:
        return Response(status_code=204, headers=headers)
    return Response(answer.token, media_type=BUNDLE, headers=headers)


async def _said(
    request: Request, context: Context, decode: Callable[[bytes, str], Report] | Callable[[bytes, str], Hello]
) -> Response:
    device = await require_device(request, context)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_REPORT_BYTES:
            raise PayloadError(f"at most {MAX_REPORT_BYTES} bytes are allowed", code="oversize")
    await context.recorder.submit(decode(bytes(body), device.id))
    return Response(status_code=202, headers=_NO_STORE)


async def _keys(request: Request, context: Context) -> Response:
    """Hand out a keyset. It is public: a device that was away for long may hold a token that nobody knows any more."""
    epoch = request.path_params["epoch"]
    stored = dict(await context.store.read(lambda tx: tx.keysets()))
    if epoch not in stored:
        raise NotFoundError(f"there is no keyset {epoch}")
    return Response(stored[epoch], media_type=BUNDLE, headers={"Cache-Control": "public, max-age=3600"})


async def _beat(request: Request, context: Context) -> Response:
    """Hand out the beat that lies at the broker: it proves to a device that only polls that the daemon is behind us."""
    await require_device(request, context)
    beat = context.beat()
    if beat is None:
        raise UnavailableError("there is no beat; the daemon has no beat key, or has not reached its broker yet")
    return Response(beat, media_type=BUNDLE, headers=_NO_STORE)


async def _download(request: Request, context: Context) -> Response:
    device = await require_device(request, context)
    sha256 = request.path_params["sha256"]
    artifact = await context.store.read(lambda tx: tx.artifact(sha256))
    if artifact is None or device.model not in artifact.hardware:
        raise NotFoundError("there is no such artifact for this device")
    return await _bytes_of(artifact, context)


async def _bytes_of(artifact: Artifact, context: Context) -> Response:
    source = next((item for item in context.sources if item.serves(artifact.uri)), None)
    if source is None:
        raise NotFoundError("the source of this artifact is not configured any more")
    locator = Locator(artifact.uri, artifact.source_version)
    path = await source.local_path(locator)
    if path is not None:
        headers = {"ETag": f'"{artifact.sha256}"', "Cache-Control": "private, immutable"}
        return FileResponse(path, media_type="application/octet-stream", headers=headers)
    url = await source.download_url(locator, valid_s=context.presign_lifetime_s)
    if url is None:
        raise NotFoundError("the source of this artifact cannot serve devices")
    return RedirectResponse(url, status_code=302, headers=_NO_STORE)
