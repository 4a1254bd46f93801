"""Downloads over loopback: ranges and all that is written in their place, broken and slow callers, lines of sites."""

from __future__ import annotations

import asyncio
import email.parser
import email.policy
import hashlib
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest
from structlog.testing import capture_logs

from orchestrator.adapters.s3 import S3Source
from orchestrator.core.model import Artifact
from orchestrator.demo import bucket
from orchestrator.errors import UnavailableError
from orchestrator.ports import Lane, Locator
from orchestrator.web import downloads
from orchestrator.web import server as server_module
from orchestrator.web.context import CdnSettings
from orchestrator.web.server import HttpServer
from orchestrator.web.turns import Turns
from orchestrator.wire.report import MAX_REPORT_BYTES, Kind, encode
from orchestrator.wire.token import encode64
from tests.support.bucket import bucket_endpoint, new_name, opened, settings
from tests.support.factory import make_artifact, make_report
from tests.web.site import Site, problem, site, statement

__all__ = ["bucket_endpoint"]

HOST = "127.0.0.1"
IMAGE = bytes(range(256)) * 2500 + b"tail"  # three pieces
SIZE = len(IMAGE)


class Plain(S3Source):
    """A bucket to which no device is sent, as where its client does not survive that."""

    async def download_url(self, locator: Locator, *, valid_s: int) -> None:  # type: ignore[override]
        del locator, valid_s


class Reply(NamedTuple):
    """One answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class House:
    """A site that is served on loopback, and the image that lies in one of its sources."""

    web: Site
    port: int
    sha256: str
    root: str = ""

    @property
    def mark(self) -> str:
        return f'"{self.sha256}"'

    def head(self, *fields: str, method: str = "GET", device: str = "d1", sha256: str = "") -> bytes:
        """Return a request for the image."""
        login = f"Authorization: Bearer {self.web.tokens[device]}"
        lines = (f"{method} /v1/dl/{sha256 or self.sha256} HTTP/1.1", "Host: x", login, *fields, "Connection: close")
        return "".join(f"{line}\r\n" for line in lines).encode("utf-8") + b"\r\n"

    async def ask(self, *fields: str, method: str = "GET", device: str = "d1") -> Reply:
        """Send a request as it stands, and return the whole answer."""
        return await self.send(self.head(*fields, method=method, device=device), method)

    async def send(self, request: bytes, method: str = "GET") -> Reply:
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            writer.write(request)
            async with asyncio.timeout(20):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
                body = await reader.read()
        finally:
            writer.close()
        assert "transfer-encoding" not in headers
        if method != "HEAD" and int(head[0].split()[1]) != 304:
            assert len(body) == int(headers["content-length"])
        return Reply(int(head[0].split()[1]), headers, body)


@asynccontextmanager
async def serving(web: Site, sha256: str, root: str = "", *, kernel_holds: int = 0) -> AsyncIterator[House]:
    server = HttpServer(web.app, HOST, 0, 100)
    if kernel_holds:
        server._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, kernel_holds)
    task = asyncio.create_task(server.run())
    while not server._server.started:
        await asyncio.sleep(0.001)
    try:
        yield House(web, server.port, sha256, root)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def imported(web: Site, uri: str) -> str:
    answer = await web.ops("POST", "/artifacts", {"uri": uri})
    assert answer.status_code == 201, answer.text
    sha256: str = answer.json()["sha256"]
    return sha256


@asynccontextmanager
async def in_bucket(folder: Path, endpoint: str, kind: type[S3Source], **changes: object) -> AsyncIterator[House]:
    name = new_name()
    await bucket.create(endpoint, name)
    await bucket.put(endpoint, name, "rel/fw 2.bin", IMAGE)
    await bucket.put(endpoint, name, "rel/fw 2.bin.statement", statement(IMAGE, 2, ("m1",)))
    with opened(kind(settings(endpoint))) as source:
        async with site(folder, source, **changes) as web:
            await web.enrol("d1", "d2", "d3")
            sha256 = await imported(web, f"s3://{name}/rel/fw 2.bin")
            async with serving(web, sha256, f"s3://{name}/") as house:
                yield house


@pytest.fixture(params=["file", "bucket"])
async def house(request: pytest.FixtureRequest, tmp_path: Path, bucket_endpoint: str) -> AsyncIterator[House]:
    """The image in a folder, and in a bucket from where it goes through us."""
    if request.param == "bucket":
        async with in_bucket(tmp_path, bucket_endpoint, Plain) as running:
            yield running
        return
    async with site(tmp_path) as web:
        await web.enrol("d1", "d2", "d3")
        async with serving(web, await imported(web, web.put_image(IMAGE))) as running:
            yield running


# Ranges

WHOLE = (200, [(0, SIZE)])
NONE: tuple[int, list[tuple[int, int]]] = (416, [])
TRICKS: dict[str, tuple[tuple[str, ...], tuple[int, list[tuple[int, int]]]]] = {
    "the first byte": (("Range: bytes=0-0",), (206, [(0, 1)])),
    "all bytes": (("Range: bytes=0-",), (206, [(0, SIZE)])),
    "over the border of a piece": (("Range: bytes=262100-262200",), (206, [(262100, 262201)])),
    "the last byte": (("Range: bytes=-1",), (206, [(SIZE - 1, SIZE)])),
    "a suffix of nothing": (("Range: bytes=-0",), NONE),
    "a suffix longer than all": (("Range: bytes=-99999999",), (206, [(0, SIZE)])),
    "behind the end": ((f"Range: bytes={SIZE}-",), NONE),
    "beyond the end": ((f"Range: bytes={SIZE - 2}-{SIZE + 5}",), (206, [(SIZE - 2, SIZE)])),
    "reversed": (("Range: bytes=5-3",), WHOLE),
    "a huge end": (("Range: bytes=1-99999999999999999999999",), (206, [(1, SIZE)])),
    "a huge start": (("Range: bytes=99999999999999999999999-",), NONE),
    "a number of 5,000 digits": ((f"Range: bytes={'9' * 5000}-",), NONE),
    "overlapping": (("Range: bytes=0-9,5-19",), (206, [(0, 20)])),
    "two, the later one first": (("Range: bytes=100-109,0-9",), (206, [(0, 10), (100, 110)])),
    "1,000 ranges": (("Range: bytes=" + ",".join(f"{n}-{n}" for n in range(0, 2000, 2)),), WHOLE),
    "another unit": (("Range: items=0-1",), WHOLE),
    "the unit in capitals": (("Range: BYTES=0-1",), (206, [(0, 2)])),
    "no unit": (("Range: 0-1",), WHOLE),
    "digits of another script": (("Range: bytes=\u0661-\u0662",), WHOLE),
    "superscript digits": (("Range: bytes=\u00b9-\u00b2",), WHOLE),
    "signs": (("Range: bytes=+1-+2",), WHOLE),
    "a negative start": (("Range: bytes=--5",), WHOLE),
    "underscores": (("Range: bytes=1_0-2_0",), WHOLE),
    "hexadecimal": (("Range: bytes=0x0-0x10",), WHOLE),
    "blanks around": (("Range: bytes= 0-1 , ",), (206, [(0, 2)])),
    "blanks within": (("Range: bytes=0 - 1",), WHOLE),
    "nothing": (("Range: bytes=",), WHOLE),
    "a dash": (("Range: bytes=-",), WHOLE),
    "good and bad": (("Range: bytes=0-1,abc",), WHOLE),
    "two fields": (("Range: bytes=0-1", "Range: bytes=5-6"), WHOLE),
    "if it is that": (("Range: bytes=5-6", "If-Range: {mark}"), (206, [(5, 7)])),
    "if it is something else": (("Range: bytes=5-6", 'If-Range: "other"'), WHOLE),
    "if it is weakly that": (("Range: bytes=5-6", "If-Range: W/{mark}"), WHOLE),
    "if it is of that time": (("Range: bytes=5-6", "If-Range: Sat, 21 Nov 2099 10:00:00 GMT"), WHOLE),
    "behind the end, if it is something else": ((f"Range: bytes={SIZE}-", 'If-Range: "other"'), WHOLE),
}


async def test_range_tricks(house: House, request: pytest.FixtureRequest) -> None:
    through = "bucket" in request.node.name
    for name, (fields, (status, parts)) in TRICKS.items():
        reply = await house.ask(*(field.replace("{mark}", house.mark) for field in fields))
        expected = WHOLE if through and len(parts) > 1 else (status, parts)
        assert (reply.status, _parts_of(reply)) == (expected[0], [IMAGE[one:end] for one, end in expected[1]]), name
        assert reply.headers["etag"] == house.mark
        assert reply.headers["accept-ranges"] == "bytes"
        if status == 206 and len(parts) == 1:
            start, end = parts[0]
            assert reply.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}", name
        if status == 416:
            assert reply.headers["content-range"] == f"bytes */{SIZE}", name


def _parts_of(reply: Reply) -> list[bytes]:
    kind = reply.headers.get("content-type", "")
    if reply.status == 416:
        return []
    if not kind.startswith("multipart/"):
        assert kind == "application/octet-stream"
        return [reply.body]
    head = f"Content-Type: {kind}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + reply.body)
    parts = list(message.iter_parts())
    found: list[bytes] = [part.get_content() for part in parts]
    for part, data in zip(parts, found, strict=True):
        start, end = map(int, re.findall(r"\d+", part["Content-Range"])[:2])
        assert data == IMAGE[start : end + 1]
    return found


async def test_head_says_what_get_would_of_the_whole(house: House) -> None:
    for fields in ((), ("Range: bytes=0-1",), ("Range: bytes=99999999-",)):
        reply = await house.ask(*fields, method="HEAD")
        assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"", str(SIZE))
        assert (reply.headers["accept-ranges"], reply.headers["etag"]) == ("bytes", house.mark)


async def test_who_has_the_bytes_gets_none(house: House) -> None:
    for field in (house.mark, "*", f'"x", W/{house.mark}'):
        for method in ("GET", "HEAD"):
            reply = await house.ask(f"If-None-Match: {field}", "Range: bytes=0-1", method=method)
            assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", house.mark)
    assert (await house.ask('If-None-Match: "x"')).status == 200


async def test_a_download_in_pieces_is_the_image(house: House) -> None:
    pieces, at = [], 0
    while at < SIZE:
        reply = await house.ask(f"Range: bytes={at}-{at + 99_999}", f"If-Range: {house.mark}")
        assert reply.status == 206
        pieces.append(reply.body)
        at += len(reply.body)
    assert b"".join(pieces) == IMAGE


# Where it lies


async def test_where_a_client_follows_it_is_sent_to_the_bucket(tmp_path: Path, bucket_endpoint: str) -> None:
    async with in_bucket(tmp_path, bucket_endpoint, S3Source) as house:
        reply = await house.ask("Range: bytes=5-6")
        assert (reply.status, reply.headers["cache-control"]) == (302, "no-store")
        async with httpx2.AsyncClient(trust_env=False) as outside:
            fetched = await outside.get(reply.headers["location"], headers={"Range": "bytes=5-6"})
        assert (fetched.status_code, fetched.content) == (206, IMAGE[5:7])
        assert (await house.ask(f"If-None-Match: {house.mark}")).status == 304
        assert (await house.ask(f"Range: bytes={SIZE}-")).status == 416


async def test_where_a_cdn_has_it_it_is_sent_there(tmp_path: Path, bucket_endpoint: str) -> None:
    cdn = CdnSettings("s3://", "https://cdn.example.net/b")
    async with in_bucket(tmp_path, bucket_endpoint, S3Source, cdn=cdn) as house:
        reply = await house.ask()
        name = house.root.removeprefix("s3://")
        assert (reply.status, reply.headers["location"]) == (302, f"https://cdn.example.net/b/{name}rel/fw%202.bin")
        assert (await house.ask(method="HEAD")).headers["content-length"] == str(SIZE)


async def test_what_the_cdn_has_not_is_fetched_from_the_bucket(tmp_path: Path, bucket_endpoint: str) -> None:
    cdn = CdnSettings("s3://elsewhere/", "https://cdn.example.net")
    async with in_bucket(tmp_path, bucket_endpoint, S3Source, cdn=cdn) as house:
        assert (await house.ask()).headers["location"].startswith(bucket_endpoint)


async def test_what_goes_from_the_bucket_in_between_is_an_error_before_the_first_byte(
    tmp_path: Path, bucket_endpoint: str
) -> None:
    async with in_bucket(tmp_path, bucket_endpoint, Plain) as house:
        await house.web.plant.store.transact(
            Lane.OPERATOR, lambda tx: tx.add_artifact(make_artifact(3, uri=f"{house.root}gone", sha256="A" * 43), 0.0)
        )
        reply = await house.send(house.head(sha256="A" * 43))
        assert reply.status == 404
        assert b"no_such_key" in reply.body


async def test_what_no_source_has_any_more_is_not_found(tmp_path: Path) -> None:
    async with site(tmp_path) as web:
        await web.enrol("d1")
        left = make_artifact(3, uri="s3://gone/fw.bin", sha256="A" * 43)
        await web.plant.store.transact(Lane.OPERATOR, lambda tx: tx.add_artifact(left, 0.0))
        answer = await web.as_device("d1", "GET", f"/v1/dl/{'A' * 43}")
        assert problem(answer) == (404, "not_found")
        assert "s3://gone" not in answer.text, "where it lay is for operators alone"


class Breaking(Plain):
    """A bucket whose line breaks for good behind the first piece."""

    async def read_part(self, locator: Locator, start: int, end: int) -> bytes:
        if start:
            raise UnavailableError("the line is cut", code="connection_broken")
        return await super().read_part(locator, start, end)


async def test_a_line_that_breaks_ends_the_connection_and_not_the_answer(tmp_path: Path, bucket_endpoint: str) -> None:
    async with in_bucket(tmp_path, bucket_endpoint, Breaking) as house:
        reader, writer = await asyncio.open_connection(HOST, house.port)
        with capture_logs() as logs:
            writer.write(house.head())
            head, _, body = (await asyncio.wait_for(reader.read(), 20)).partition(b"\r\n\r\n")
        writer.close()
        assert f"content-length: {SIZE}".encode() in head.lower()
        assert body == IMAGE[: downloads.PIECE_BYTES]
        assert [(line["event"], line["code"]) for line in logs] == [("download.broken", "connection_broken")]


# Slow and hostile callers


@pytest.fixture(params=["file", "bucket"])
async def narrow(
    request: pytest.FixtureRequest, tmp_path: Path, bucket_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[House]:
    """The same at a site whose line carries one download, over sockets that hold little; who takes nothing is cut off
    soon."""
    monkeypatch.setattr(server_module, "TAKE_WITHIN_S", 0.3)
    line = Turns(1, 600)
    async with AsyncExitStack() as stack:
        if request.param == "bucket":
            house = await stack.enter_async_context(in_bucket(tmp_path, bucket_endpoint, Plain, turns=line))
            web, sha256 = house.web, house.sha256
        else:
            web = await stack.enter_async_context(site(tmp_path, turns=line))
            await web.enrol("d1", "d2", "d3")
            sha256 = await imported(web, web.put_image(IMAGE))
        await at_site(web, "berlin", "d1", "d2")
        yield await stack.enter_async_context(serving(web, sha256, kernel_holds=4096))


async def at_site(web: Site, name: str, *devices: str) -> None:
    body = {"devices": [{"id": each, "site": name} for each in devices]}
    assert (await web.ops("POST", "/devices/facts", body)).status_code == 200


@contextmanager
def small_pipe(house: House, request: bytes) -> Iterator[socket.socket]:
    """Connect with a socket that holds little, and ask."""
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.connect((HOST, house.port))
        caller.sendall(request)
        caller.setblocking(False)
        yield caller


async def test_a_trickle_holds_neither_a_connection_nor_a_turn_for_ever(narrow: House) -> None:
    loop = asyncio.get_running_loop()
    with small_pipe(narrow, narrow.head()) as caller:
        assert await loop.sock_recv(caller, 1) == b"H"
        reply = await narrow.ask(device="d2")
        assert (reply.status, b'"busy"' in reply.body) == (503, True)
        deadline, statuses = time.monotonic() + 20, [503]
        while statuses[-1] == 503 and time.monotonic() < deadline:
            narrow.web.plant.clock.advance(100)
            assert len(await asyncio.wait_for(loop.sock_recv(caller, 1), 10)) == 1
            statuses.append((await narrow.ask(device="d2")).status)
    assert statuses[-1] == 200
    assert len(statuses) > 600 // 100 + 1, "its turn was over before it was cut off"


async def test_who_hangs_up_in_mid_download_resumes_and_makes_room(narrow: House) -> None:
    with small_pipe(narrow, narrow.head()) as caller:
        await asyncio.get_running_loop().sock_recv(caller, 1)
    assert (await narrow.ask(device="d2")).status == 503
    assert (await narrow.ask("Range: bytes=1000-1999")).status == 206
    assert (await narrow.ask(device="d2")).status == 503
    assert (await narrow.ask("Range: bytes=2000-")).status == 206
    assert (await narrow.ask(device="d2")).status == 200


async def test_who_waits_is_told_when_to_come_again_and_not_all_at_once(narrow: House) -> None:
    await narrow.ask("Range: bytes=0-0")
    replies = [await narrow.ask(device="d2") for _ in range(20)]
    pauses = {int(reply.headers["retry-after"]) for reply in replies}
    assert {reply.status for reply in replies} == {503}
    assert min(pauses) >= downloads.AGAIN_S // 2
    assert max(pauses) <= downloads.AGAIN_S * 1.5
    assert len(pauses) > 5
    assert (await narrow.ask(device="d3")).status == 200, "it has no site"
    assert (await narrow.ask(device="d2", method="HEAD")).status == 200
    assert (await narrow.ask(f"If-None-Match: {narrow.mark}", device="d2")).status == 304


async def test_who_was_sent_elsewhere_counts_until_it_says_that_it_has_it(tmp_path: Path, bucket_endpoint: str) -> None:
    async with in_bucket(tmp_path, bucket_endpoint, S3Source, turns=Turns(1, 600)) as house:
        web = house.web
        await at_site(web, "berlin", "d1", "d2")
        body = {"name": "radio-2", "artifacts": [house.sha256]}
        assert (await web.ops("POST", "/releases", body)).status_code == 201
        await web.roll_out()
        await web.plant.seal()
        await web.as_device("d1", "GET", "/api/v1/firmware/version")
        assert (await house.ask()).status == 302
        (update,) = await web.plant.store.read(lambda tx: tx.updates_of(["d1"]))
        for n, (kind, status) in enumerate([(Kind.ACCEPTED, 503), (Kind.PROGRESS, 503), (Kind.DOWNLOADED, 302)]):
            web.plant.clock.advance(1)
            said = encode(make_report(update, kind, n))
            assert (await web.as_device("d1", "POST", "/api/v1/report", content=said)).status_code == 202
            assert (await house.ask(device="d2")).status == status, kind
        web.plant.clock.advance(600)
        assert (await house.ask(device="d1")).status == 302


async def test_endless_heads_and_bodies_are_refused(house: House) -> None:
    long = await house.send(house.head(f"Range: bytes=0-{'9' * 20_000}"))
    assert (long.status, b"head_too_large" in long.body) == (431, True)
    assert house.web.tokens["d1"].encode() not in long.body
    many = await house.send(house.head(*(f"X-{n}: {'a' * 100}" for n in range(300))))
    assert many.status == 431
    path = await house.send(house.head(sha256="A" * 20_000))
    assert path.status == 431
    request = house.head(f"Content-Length: {2 << 20}", method="POST").replace(
        b"/v1/dl/" + house.sha256.encode(), b"/api/v1/report"
    )
    assert (await house.send(request + b" " * (MAX_REPORT_BYTES + 1))).status == 400, "before the body is whole"
    assert (await house.ask()).status == 200


async def test_a_request_without_end_is_cut_off(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HEAD_WITHIN_S", 0.2)
    reader, writer = await asyncio.open_connection(HOST, house.port)
    writer.write(house.head()[:-2] + b"Range: bytes=")
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


# Places of others


async def test_what_is_another_devices_is_to_nobody_else(tmp_path: Path) -> None:
    async with site(tmp_path) as web:
        await web.enrol("d1", "door", "gate")
        await web.enrol("m2-device", model="m2")
        sha256 = await web.release(IMAGE)
        speaks = [{"id": each, "dialect": "ddi", "enforces": ["swupdate"]} for each in ("door", "gate")]
        assert (await web.ops("POST", "/devices/facts", {"devices": speaks})).status_code == 200
        await web.roll_out()
        await web.plant.seal()
        updates = await web.plant.store.read(lambda tx: tx.updates_of(["d1", "door", "gate"]))
        numbers = {update.device_id: update.id for update in updates}
        for path in (f"/v1/dl/{sha256}", "/v1/dl/" + "A" * 43, "/v1/dl/..%2f..%2fetc%2fpasswd", "/v1/dl/%00"):
            refused = [await web.as_device("m2-device", method, path) for method in ("GET", "HEAD")]
            assert {answer.status_code for answer in refused} == {404}
        shown = await web.as_device("m2-device", "GET", f"/v1/dl/{sha256}")
        absent = await web.as_device("m2-device", "GET", f"/v1/dl/{'A' * 43}")
        assert (shown.content, shown.headers) == (absent.content, absent.headers)
        for path in ddi_places(numbers.get("d1", 1), "radio-2.0.0.bin"):
            theirs = [
                await ddi(web, "door", method, f"/DEFAULT/controller/v1/{{}}{path}") for method in ("GET", "HEAD")
            ]
            for foreign in (f"/DEFAULT/controller/v1/gate{path}", f"/DEFAULT/controller/v1/nobody{path}"):
                for method in ("GET", "POST", "PUT", "HEAD"):
                    answer = await ddi(web, "door", method, foreign)
                    assert answer.status_code in (401, 405), (method, foreign)
                    assert IMAGE[:64] not in answer.content
            assert {answer.status_code for answer in theirs} <= {404, 405}, path
        for method, path in (("GET", "/DEFAULT/controller/v1/gate"), ("GET", "/DEFAULT/controller/v1/nobody")):
            answers = [await ddi(web, "door", method, path)]
            assert problem(answers[0]) == (401, "unauthorised")
        gate = await ddi(web, "door", "GET", "/DEFAULT/controller/v1/gate")
        nobody = await ddi(web, "door", "GET", "/DEFAULT/controller/v1/nobody")
        assert (gate.content, gate.status_code) == (nobody.content, nobody.status_code)


def ddi_places(number: int, file: str) -> tuple[str, ...]:
    """Return the places below that of a device which belong to the update of another."""
    files = f"/softwaremodules/{number}/artifacts/{file}"
    return (
        f"/deploymentBase/{number}",
        f"/installedBase/{number}",
        f"/cancelAction/{number}",
        files,
        f"{files}.MD5SUM",
    )


async def ddi(web: Site, device: str, method: str, path: str) -> httpx2.Response:
    headers = {"Authorization": f"TargetToken {web.tokens[device]}"}
    return await web.http.request(method, path.replace("{}", device), headers=headers)


# The loop


async def test_a_large_download_beside_polls_holds_nothing_up(tmp_path: Path) -> None:
    data = bytes(1 << 20) * 64
    async with site(tmp_path) as web:
        await web.enrol("d1", "d2")
        path = web.folder / "large.bin"
        path.write_bytes(data)
        sha256 = encode64(hashlib.sha256(data).digest())
        large: Artifact = make_artifact(9, uri=path.as_uri(), sha256=sha256, size_bytes=len(data))
        await web.plant.store.transact(Lane.OPERATOR, lambda tx: tx.add_artifact(large, 0.0))
        async with serving(web, sha256) as house:
            taken: list[int] = []
            taking = asyncio.create_task(asyncio.to_thread(take, house, taken))
            lags: list[float] = []
            ticking = asyncio.create_task(measure(lags))
            async with asyncio.timeout(60):
                reader, writer = await asyncio.open_connection(HOST, house.port)
                login = f"Authorization: Bearer {web.tokens['d2']}"
                for _ in range(1000):
                    writer.write(f"GET /api/v1/firmware/version HTTP/1.1\r\nHost: x\r\n{login}\r\n\r\n".encode())
                    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")
                writer.close()
                await taking
            ticking.cancel()
    assert taken == [len(data)]
    assert sorted(lags)[len(lags) * 99 // 100] < 0.25, f"late by {max(lags):.3f} s at most"


async def measure(lags: list[float]) -> None:
    """Note how late the loop calls who sleeps for a moment."""
    while True:
        before = time.perf_counter()
        await asyncio.sleep(0.002)
        lags.append(time.perf_counter() - before - 0.002)


def take(house: House, taken: list[int]) -> None:
    """Take a whole answer in a thread of its own."""
    with socket.create_connection((HOST, house.port), 30) as caller:
        caller.sendall(house.head())
        received, head = 0, b""
        while piece := caller.recv(1 << 18):
            received += len(piece)
            head = head or piece
    taken.append(received - head.index(b"\r\n\r\n") - 4)
