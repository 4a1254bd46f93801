"""The bytes of an artifact for a device that may have them.

Rules:
- A local file is served by us, as is what lies elsewhere where the client does not survive a redirection; all others
  are sent to a URL that works for a while, or to the CDN.
- HEAD is always answered here: such a URL is signed for GET alone, and the length of its refusal is not the artifact's.
- Every answer says its exact length and none comes in chunks: what breaks off is noticed by whoever counts.
- No more than one piece of an answer is in memory: the next one is fetched once the device has taken the last.
- That the last byte was sent says little: it may lie in our machine while the device is gone. Who must know whether the
  device has it waits until the connection tells.
- Who gets no bytes holds no turn.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote

import structlog
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.types import Message, Receive, Scope, Send

from orchestrator.core.model import Artifact, Device, UpdateState
from orchestrator.errors import NotFoundError, OrchestratorError
from orchestrator.ports import ArtifactSource, Locator, Tx
from orchestrator.web.context import BusyError, Context
from orchestrator.web.ranges import Span, is_held, may_be_part, spans
from orchestrator.web.server import TAKEN

NO_STORE = {"Cache-Control": "no-store", "Vary": "Authorization"}
PIECE_BYTES = 256 * 1024
AGAIN_S = 30
"""Who has to wait comes again after half to one and a half times this."""
_BYTES = "application/octet-stream"
_FETCHED = (
    UpdateState.DOWNLOADED,
    UpdateState.INSTALLED,
    UpdateState.RUNNING,
    UpdateState.CONFIRMED,
    UpdateState.FAILED,
    UpdateState.ROLLED_BACK,
    UpdateState.RECALLED,
)
"""With the word that brings it here, a device says that it fetches no more."""

_log = structlog.get_logger(__name__)

Taken = Callable[[], Awaitable[None]]
"""Called when a device has taken the last byte of an artifact."""


async def artifact_response(
    request: Request,
    context: Context,
    device: Device,
    artifact: Artifact,
    *,
    follows: bool,
    in_turn: bool = True,
    taken: Taken | None = None,
) -> Response:
    """Return the answer to a request for an artifact; whether the device may have it was judged before.

    Args:
        request: GET or HEAD, with what it says of ranges and of what it holds.
        context: where sources and turns are.
        device: who asks.
        artifact: what it asks for.
        follows: whether its client survives a redirection; else what lies elsewhere goes through us.
        in_turn: whether it needs its turn; not who reads but a few bytes to find out whether it wants the rest.
        taken: who must know that all bytes arrived that this answer brings, up to the last one of the artifact.

    Raises:
        BusyError: as many devices of its site download as may.
        NotFoundError: nothing can serve it any more.
        TrustError: it is not any more what was imported.
    """
    try:
        return await _answer(request, context, device, artifact, follows=follows, in_turn=in_turn, taken=taken)
    except BusyError:
        raise
    except OrchestratorError as error:  # where it lies is for operators alone
        _log.error("download.failed", artifact=artifact.sha256, code=error.code, reason=error.message)
        text = "the artifact cannot be had now; the daemon's log tells its operators why"
        raise type(error)(text, code=error.code) from None


async def _answer(
    request: Request,
    context: Context,
    device: Device,
    artifact: Artifact,
    *,
    follows: bool,
    in_turn: bool,
    taken: Taken | None,
) -> Response:
    source = next((item for item in context.sources if item.serves(artifact.uri)), None)
    if source is None:
        raise NotFoundError("the source of this artifact is not configured any more")
    locator, mark = Locator(artifact.uri, artifact.source_version), f'"{artifact.sha256}"'
    path = await source.local_path(locator)
    kept = {"ETag": mark, "Cache-Control": "private, immutable", "X-Content-Type-Options": "nosniff"}
    kept |= {"Accept-Ranges": "bytes"}
    if is_held(request.headers.getlist("if-none-match"), mark):
        return Response(status_code=304, headers=kept)
    if request.method == "HEAD":
        return Response(media_type=_BYTES, headers=kept | {"Content-Length": str(artifact.size_bytes)})
    asked = _asked(request, mark, artifact.size_bytes)
    if asked == ():
        return Response(status_code=416, headers=kept | {"Content-Range": f"bytes */{artifact.size_bytes}"})
    if in_turn:
        await _take_turn(context, device)
    flow = _Flow(context, device, None if asked is not None and len(asked) > 1 else taken)
    if path is not None:
        return _Local(path, kept, asked, artifact.size_bytes, flow)
    try:
        return await _from_elsewhere(context, source, locator, kept, asked, artifact.size_bytes, flow, follows=follows)
    except BaseException:
        context.turns.end(device.site, [device.id])
        raise


async def _from_elsewhere(
    context: Context,
    source: ArtifactSource,
    locator: Locator,
    kept: dict[str, str],
    asked: Sequence[Span] | None,
    size_bytes: int,
    flow: _Flow,
    *,
    follows: bool,
) -> Response:
    url = await _url(context, source, locator) if follows else None
    if url is not None:
        return RedirectResponse(url, status_code=302, headers=NO_STORE)
    # Several parts of what lies elsewhere are answered with the whole, as S3 does itself.
    part = asked[0] if asked is not None and len(asked) == 1 else None
    span = part or Span(0, size_bytes)
    first = await source.read_part(locator, span.start, min(span.start + PIECE_BYTES, span.end))
    about = {"Content-Length": str(span.end - span.start)}
    if part is not None:
        about["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{size_bytes}"
    is_last = span.end == size_bytes
    return _Through(partial(source.read_part, locator), span, first, kept | about, flow, is_last=is_last)


class _Flow:
    """The account of one answer that flows.

    Args:
        context: where turns are.
        device: to whom it flows.
        taken: who must know that the device has it, if anybody.
    """

    def __init__(self, context: Context, device: Device, taken: Taken | None) -> None:
        self._context = context
        self._device = device
        self._taken = taken

    async def run(self, scope: Scope, send: Send, answer: Callable[[Send], Awaitable[None]], *, is_last: bool) -> None:
        """Send an answer; `is_last` says whether it brings the last byte."""
        whole = False
        with self._context.turns.flowing(self._device, self._context.now) as done:

            async def told(message: Message) -> None:
                nonlocal whole
                if not is_last or message["type"] != "http.response.body" or message.get("more_body"):
                    await send(message)
                elif self._taken is None or TAKEN not in scope:
                    await send(message)
                    whole = True
                else:
                    await send({**message, "more_body": True})
                    whole = await scope[TAKEN]()
                    await send({"type": "http.response.body"})

            await answer(told)
            if whole:
                done()
        if whole and self._taken is not None:
            await self._taken()


class _Local(FileResponse):
    """A local file. The framework sees only ranges that we have read, and writes them."""

    chunk_size = PIECE_BYTES

    def __init__(
        self, path: Path, headers: dict[str, str], asked: Sequence[Span] | None, size_bytes: int, flow: _Flow
    ) -> None:
        super().__init__(path, media_type=_BYTES, headers=headers)
        self._asked = asked
        self._flow = flow
        self._is_last = not asked or asked[-1].end == size_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fields = [(name, value) for name, value in scope["headers"] if name not in (b"range", b"if-range")]
        if self._asked:
            text = ",".join(f"{span.start}-{span.end - 1}" for span in self._asked)
            fields.append((b"range", b"bytes=" + text.encode()))
        answer = super().__call__
        await self._flow.run(
            scope, send, lambda told: answer({**scope, "headers": fields}, receive, told), is_last=self._is_last
        )


class _Through(Response):
    """Bytes that lie elsewhere, fetched piece by piece as the device takes them."""

    def __init__(
        self,
        read: Callable[[int, int], Awaitable[bytes]],
        span: Span,
        first: bytes,
        headers: dict[str, str],
        flow: _Flow,
        *,
        is_last: bool,
    ) -> None:
        status_code = 206 if "Content-Range" in headers else 200
        super().__init__(status_code=status_code, media_type=_BYTES, headers=headers)
        self._read = read
        self._span = span
        self._first = first
        self._flow = flow
        self._is_last = is_last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await self._flow.run(scope, send, lambda told: self._send(request, told), is_last=self._is_last)

    async def _send(self, request: Request, send: Send) -> None:
        at, piece = self._span.start, self._first
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        while True:
            at += len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": at < self._span.end})
            if at == self._span.end or await request.is_disconnected():
                return
            try:
                piece = await self._read(at, min(at + PIECE_BYTES, self._span.end))
            except OrchestratorError as error:
                # The server closes the connection of an answer that is not whole; the device resumes it.
                _log.warning("download.broken", at=at, code=error.code, reason=error.message)
                return


def _asked(request: Request, mark: str, size_bytes: int) -> tuple[Span, ...] | None:
    fields = request.headers
    return spans(fields.getlist("range"), size_bytes) if may_be_part(fields.getlist("if-range"), mark) else None


async def _url(context: Context, source: ArtifactSource, locator: Locator) -> str | None:
    cdn = context.cdn
    if cdn.url and locator.uri.startswith(cdn.origin):
        return f"{cdn.url}/{quote(locator.uri.removeprefix(cdn.origin))}"
    return await source.download_url(locator, valid_s=context.presign_lifetime_s)


async def _take_turn(context: Context, device: Device) -> None:
    """Take the turn of a device; where the line of its site is full, those end theirs who said that they are done."""
    turns, site = context.turns, device.site
    if turns.take(device, context.now()):
        return
    silent = turns.silent(site)

    def done(tx: Tx) -> set[str]:
        said = tx.updates_of(silent, _FETCHED)
        return {update.device_id for update in said if update.state_at >= silent[update.device_id]}

    turns.end(site, await context.store.read(done))
    if not turns.take(device, context.now()):
        again_s = round(AGAIN_S * random.uniform(0.5, 1.5))
        raise BusyError(f"as many devices of site {site} download as may; come again in {again_s} s", again_s)
