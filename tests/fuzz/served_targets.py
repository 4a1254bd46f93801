"""The parsers behind HTTP, on both sides of it, and those that wait for something.

Rules:
- A request is one line with method and address, as a server reads it, and the body behind it. The application may
  answer anything but 5xx.
- An answer is the bytes of a server from the first on, through the client that simulated devices use.
- Nothing leaves the process: no socket is opened.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote

import httpcore2
import httpx2
import msgspec

from orchestrator.adapters import files
from orchestrator.adapters.shelf import FolderShelf
from orchestrator.engine.importer import examine
from orchestrator.errors import OrchestratorError, PayloadError
from orchestrator.ports import Found, Locator
from orchestrator.sim.download import Downloader, DownloadError
from orchestrator.sim.events import Fetch
from orchestrator.verifier import judge
from orchestrator.verifier.download import LONGEST_S
from orchestrator.web import ranges
from orchestrator.web.dialects import arduino_headers
from orchestrator.web.management.multipart import Form
from orchestrator.web.management.settings import Management
from tests.fuzz.messages import DEVICE
from tests.fuzz.target import Target, as_text
from tests.fuzz.wire_targets import CONFIRMED, DEVICE_ID, FAILED, HELLO
from tests.golden import download_cases, kit, make_vectors
from tests.web.site import PLAN, TOKEN, Site, site

_PATIENCE_S = 10
_REQUEST = re.compile(rb"([A-Z]{1,16}) (/[\x21-\x7e]*)\n(.*)", re.DOTALL)
"""What uvicorn reads; it answers anything else by itself."""
_FIELD = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


class NoRequestError(Exception):
    """The bytes are not what this side of HTTP can see."""


@contextmanager
def served_targets(folder: Path) -> Iterator[list[Target]]:
    """Return the targets; the application and its database live below `folder` until the end."""
    with asyncio.Runner() as runner:
        serving = site(folder, management=Management(FolderShelf(folder / "images"), 1 << 20, "m1"))
        served = runner.run(serving.__aenter__())
        try:
            runner.run(served.enrol(DEVICE_ID))
            runner.run(served.release())
            runner.run(served.roll_out())
            yield [*_requests(runner, served), *_tools(runner, served), *_answers(runner), *_artifacts(runner)]
        finally:
            runner.run(serving.__aexit__(None, None, None))


def _requests(runner: asyncio.Runner, served: Site) -> list[Target]:
    device, operator = f"Bearer {served.tokens[DEVICE_ID]}".encode(), f"Bearer {TOKEN}".encode()
    asks = [b"POST /api/v1/report\n" + CONFIRMED, b"POST /api/v1/report\n" + FAILED, b"POST /api/v1/hello\n" + HELLO]
    asks += [b"GET /api/v1/firmware/version?current=1.0.0\n", b"GET /api/v1/keys/4\n", b"GET /v1/dl/%41%2f..\n"]
    whose = [b"GET /api/v1/rollouts/spring/explain\n", b"GET /api/v1/devices?after=a&limit=5\n"]
    whose += [b"POST /api/v1/" + path + b"\n" + json.dumps(body).encode() for path, body in _BODIES.items()]

    def ask(data: bytes, login: bytes) -> None:
        runner.run(_answered(served, data, login))

    refused = (NoRequestError,)
    return [
        Target("request of a device", lambda data: ask(data, device), refused, tuple(asks), 20),
        Target("request of an operator", lambda data: ask(data, operator), refused, tuple(whose), 20),
        Target("login", lambda data: ask(b"GET /api/v1/status\n", data), refused, (operator, device, b"Basic YTpi"), 8),
        Target("headers of an updater", _updater, (PayloadError,), _UPDATERS, 20),
        Target("range", _ranged, (), (b"bytes=0-9", b"bytes=-5, 7-,1-1", b'W/"a", "b"', b"*")),
    ]


_UPDATERS = (
    b"x-ESP8266-STA-MAC: DE:BA:7A:B1:E0:42\nx-ESP8266-free-space: 2076672\nx-ESP8266-sketch-md5: " + b"0f" * 16 + b"\n"
    b"x-ESP8266-chip-size: 4194304\nx-ESP8266-mode: sketch\nx-ESP8266-version: DOOR-7",
    b"x-ESP32-sketch-sha256: " + b"0F" * 32 + b"\nx-ESP32-mode: spiffs",
    b"x-Pico-Chip-ID: E6614103E7452D2F\nx-Pico-Mode: sketch\nx-Pico-Version: 2.0.0",
)


def _updater(data: bytes) -> object:
    """Read the headers of an Arduino device; what is read of them must be plain."""
    named = (line.partition(":") for line in data.decode("latin-1").split("\n"))
    asked = arduino_headers.read_headers((name, value) for name, _, value in named)
    assert asked is None or (asked.version.isprintable() and {len(asked.md5), len(asked.sha256)} <= {0, 32, 64})
    return asked


def _ranged(data: bytes) -> object:
    """Read the fields of a download; what they name must exist."""
    field, size = data.decode("latin-1"), 1000
    found = ranges.spans([field], size)
    assert all(0 <= span.start < span.end <= size for span in found or ())
    return found, ranges.is_held([field], '"b"'), ranges.may_be_part([field], '"b"')


def _tools(runner: asyncio.Runner, served: Site) -> list[Target]:
    """What tools around hawkBit send: requests as an operator, and forms with files."""
    login = b"Basic " + base64.b64encode(f"operator:{TOKEN}".encode())
    asks = [b"POST /rest/v1/" + path + b"\n" + json.dumps(body).encode() for path, body in _TOOLS.items()]
    asks += [b"GET /rest/v1/targets?offset=0&limit=5\n", b"GET /rest/v1/targets/d1/actions/1/status?sort=id:DESC\n"]
    asks += [b'PUT /rest/v1/system/configs/pollingTime\n{"value":"00:05:00"}', b"DELETE /rest/v1/softwaremodules/1\n"]
    asks += [b"DELETE /rest/v1/targets/d1/actions/1?force=true\n", b"GET /rest/v1/softwaremodules/1/artifacts/1\n"]
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'

    def ask(data: bytes) -> None:
        runner.run(_answered(served, data, login))

    return [
        Target("request of a tool", ask, (NoRequestError,), tuple(asks), 20),
        Target("form", _formed, (PayloadError,), (head + b"x\r\n--b--\r\n", b"--b--", head + head), 10),
    ]


def _formed(data: bytes) -> object:
    form = Form("multipart/form-data; boundary=b")
    found = [*form.feed(data)]
    form.close()
    return found


_TOOLS: dict[bytes, Any] = {
    b"targets": [{"controllerId": "d1", "name": "d1", "securityToken": "0123456789abcdef"}],
    b"softwaremodules": [{"name": "software", "version": "1.0", "type": "os"}],
    b"distributionsets": [{"name": "set", "version": "1.0", "type": "os", "modules": [{"id": 1}]}],
    b"distributionsets/1/assignedTargets": [{"id": "d1", "type": "forced"}],
}
_BODIES: dict[bytes, Any] = {
    b"rollouts": PLAN,
    b"rollouts/spring/pause": {"reason": "a test"},
    b"rollouts/spring/warrant": {"token": "a.b.c\na..c"},
    b"devices": {"devices": [{"id": "door-18", "model": "m1", "groups": ["eu"], "version": "1.0", "rel": 1}]},
    b"releases": {"name": "radio-3", "artifacts": [kit.IMAGE]},
    b"artifacts": {"uri": "file:///images/fw.bin"},
    b"keysets": {"lines": "a.b.c"},
    b"operators": {"name": "ann", "person": "ann", "roles": ["viewer"], "days": 30},
    b"approvals/1/approve": {"why": "a test"},
}


async def _answered(served: Site, data: bytes, login: bytes) -> None:
    request = _REQUEST.fullmatch(data)
    if request is None or not _FIELD.fullmatch(login):
        raise NoRequestError
    fields = [(b"host", b"daemon"), (b"authorization", login), (b"content-type", b"application/json")]
    assert await status_of(served, request[1].decode(), request[2], fields, request[3]) < 500


def scope_of(method: str, place: bytes, fields: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    """Return what uvicorn says of a request: its method, its path with the query, its header."""
    target, _, query = place.partition(b"?")
    fixed = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": ""}
    ends = {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2)}
    asked = {"method": method, "path": unquote(target.decode()), "raw_path": target, "query_string": query}
    return fixed | ends | asked | {"headers": fields}


async def status_of(served: Site, method: str, place: bytes, fields: list[tuple[bytes, bytes]], body: bytes) -> int:
    """Send a request into the application as uvicorn does, and return the status of its one answer."""
    pending, statuses = [{"type": "http.request", "body": body}], []

    async def receive() -> Any:
        return pending.pop() if pending else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async with asyncio.timeout(_PATIENCE_S):
        await served.app(scope_of(method, place, fields), receive, send)
    [status] = statuses
    return int(status)


class _Wires(httpcore2.AsyncNetworkBackend):
    """Connections whose other end has said all it will ever say: each the next one of these texts."""

    def __init__(self, texts: list[bytes]) -> None:
        self._texts = texts

    async def connect_tcp(self, *_: Any, **__: Any) -> httpcore2.AsyncNetworkStream:
        return httpcore2.AsyncMockStream([self._texts.pop(0)] if self._texts else [])


def _answers(runner: asyncio.Runner) -> list[Target]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    image = download_cases.IMAGE.encode("latin-1")
    part = b'HTTP/1.1 206 X\r\ncontent-range: bytes 40-99/100\r\netag: "a"\r\ncontent-length: 60\r\n\r\n' + image[40:]
    whole = b'HTTP/1.1 200 X\r\netag: "a"\r\ncontent-length: 100\r\n\r\n' + image
    pieces = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n64\r\n" + image + b"\r\n0\r\n\r\n"
    moved = b"HTTP/1.1 302 X\r\nlocation: " + download_cases.CDN.encode() + b"\r\ncontent-length: 0\r\n\r\n"
    astray = moved.replace(download_cases.CDN.encode(), b"https://[::1]:80/x")
    answers = (part, whole, pieces, moved + _NEXT + part, astray, b"HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n")

    def fetch(data: bytes) -> object:
        return runner.run(_fetched(data, tls))

    return [
        Target("answer to a download", fetch, (DownloadError,), answers, 10),
        Target("transcript", _judged, (NoRequestError,), _transcripts(), 40, 10_000),
    ]


_NEXT = b"\n--- the next connection ---\n"


async def _fetched(data: bytes, tls: ssl.SSLContext) -> int:
    transport = httpx2.AsyncHTTPTransport(verify=tls, trust_env=False)
    transport._pool = httpcore2.AsyncConnectionPool(ssl_context=tls, network_backend=_Wires(data.split(_NEXT)))
    async with asyncio.timeout(_PATIENCE_S), httpx2.AsyncClient(transport=transport, trust_env=False) as client:
        loader, count = Downloader(client, "secret", kit.ORIGIN), 0
        async for _ in loader.fetch(Fetch((download_cases.URL,), 40, download_cases.SIZE), DEVICE):
            count += 1
    return count


class _Answer(msgspec.Struct):
    at: int
    status: int
    headers: dict[str, str]
    chunks: list[tuple[int, str, Annotated[int, msgspec.Meta(ge=1)]]]


class _Transcript(msgspec.Struct):
    url: str
    answers: list[_Answer]
    dl: int = LONGEST_S
    flash: str = download_cases.IMAGE


_TRANSCRIPT = msgspec.json.Decoder(_Transcript)


def _transcripts() -> tuple[bytes, ...]:
    return tuple(json.dumps(v["transcript"]).encode() for v in make_vectors.read() if v["call"] == "download")


def _judged(data: bytes) -> object:
    """Judge a transcript; its types are the caller's, and a letter of a body is a byte."""
    try:
        transcript = _TRANSCRIPT.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise NoRequestError from None
    texts = [transcript.flash, *(text for answer in transcript.answers for _, text, _ in answer.chunks)]
    if max("".join(texts), default="") > "\xff":
        raise NoRequestError
    return judge(msgspec.to_builtins(transcript), download_cases.SIZE, download_cases.SHA256, DEVICE)


_SMALL = b"an image"


class _Shelf:
    """A `ports.ArtifactSource` with one image and what stands beside it as its statement."""

    def __init__(self, statement: bytes) -> None:
        self._statement = statement

    def _of(self, uri: str) -> bytes:
        return self._statement if uri.endswith(".statement") else _SMALL

    def serves(self, uri: str) -> bool:
        return True

    async def stat(self, uri: str) -> Found:
        return Found(Locator(uri, "1"), len(self._of(uri)), "tag")

    async def read(self, locator: Locator, *, limit_bytes: int) -> AsyncIterator[bytes]:
        yield self._of(locator.uri)

    async def read_part(self, locator: Locator, start: int, end: int) -> bytes:
        return self._of(locator.uri)[start:end]

    async def list(self, prefix: str) -> AsyncIterator[Found]:
        yield await self.stat(prefix)

    async def local_path(self, locator: Locator) -> None:
        return None

    async def download_url(self, locator: Locator, *, valid_s: int) -> None:
        return None


def _artifacts(runner: asyncio.Runner) -> list[Target]:
    sha256 = kit.b64(hashlib.sha256(_SMALL).digest()).decode()
    statement = kit.artifact_key.token(kit.statement({"sha256": sha256, "size": len(_SMALL)}))
    docs = Path(__file__).parents[2] / "docs"
    source, here = files.FileSource((docs,)), (docs / "keys.md").as_uri().encode()
    addresses = (here, here.replace(b"///", b"//localhost/"), here.replace(b"keys", b"%6beys"), b"file:///etc/../x")

    def check(data: bytes) -> object:
        return runner.run(_examined(data))

    def find(data: bytes) -> object:
        return runner.run(source.stat(as_text(data)))

    refused = (OrchestratorError,)
    return [
        Target("statement", check, refused, (statement, statement + b"\n"), 20),
        Target("artifact address", find, refused, addresses, 5),
    ]


async def _examined(statement: bytes) -> object:
    shelf, now = _Shelf(statement), float(kit.NOW)
    return await examine(
        shelf, "file:///fw.bin", DEVICE.keys, limit_bytes=1 << 20, deployment=DEVICE.iss, clock=lambda: now
    )
