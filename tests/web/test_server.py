"""uvicorn inside our loop, on real sockets."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from orchestrator.demo.broker import HOST, free_port
from orchestrator.errors import UnavailableError
from orchestrator.web import server as server_module
from orchestrator.web.server import STOP_WITHIN_S, TAKEN, HttpServer

LARGE = 16 << 20  # more than the kernel holds for both ends
SMALL = 40_000  # less than asyncio holds before it would say so
HALF = b"GET /quick HTTP/1.1\r\nHost: x\r\n"
BEGUN = b"POST /said HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe"


class House:
    """An application with one quick, one endless and one large answer, and one that gives back what was sent."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.leave = asyncio.Event()
        said = Route("/said", self.said, methods=["POST"])
        large = Route("/large", self.large)
        self.app = Starlette(routes=[Route("/quick", self.quick), Route("/slow", self.slow), said, large])

    async def quick(self, _: Request) -> Response:
        return PlainTextResponse("quick")

    async def slow(self, _: Request) -> Response:
        self.entered.set()
        await self.leave.wait()
        return PlainTextResponse("slow")

    async def large(self, request: Request) -> Response:
        self.entered.set()
        return Response(bytes(int(request.query_params.get("size", LARGE))))

    async def said(self, request: Request) -> Response:
        with suppress(ClientDisconnect):
            return PlainTextResponse(await request.body())
        return Response()


@asynccontextmanager
async def served(
    house: House, *, port: int = 0, most: int = 100, kernel_holds: int = 0
) -> AsyncIterator[tuple[str, asyncio.Task[None]]]:
    server = HttpServer(house.app, HOST, port, most)
    if kernel_holds:
        server._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, kernel_holds)
    task = asyncio.create_task(server.run())
    while not server._server.started:
        await asyncio.sleep(0.001)
    try:
        yield f"http://{HOST}:{server.port}", task
    finally:
        await stop(task)


async def stop(task: asyncio.Task[None]) -> float:
    """Cancel the server and return how many seconds its end took."""
    began = time.monotonic()
    if not task.done():
        task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return time.monotonic() - began


def client() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(trust_env=False, timeout=10)


async def test_port_0_is_a_free_port() -> None:
    async with served(House()) as (origin, _), client() as http:
        answer = await http.get(f"{origin}/quick")
    assert (answer.status_code, answer.text) == (200, "quick")
    assert "server" not in answer.headers


async def test_a_port_that_is_taken_is_said_so() -> None:
    async with served(House()) as (origin, _):
        port = int(origin.rpartition(":")[2])
        with pytest.raises(UnavailableError) as caught:
            HttpServer(House().app, HOST, port, 10)
    assert caught.value.code == "listen"
    assert caught.value.message == (
        f"cannot listen on {HOST}:{port}: Address already in use; change http.listen or stop who holds it"
    )


async def test_a_port_is_free_again_at_once() -> None:
    port = free_port()
    for _ in range(2):
        async with served(House(), port=port) as (origin, _), client() as http:
            assert (await http.get(f"{origin}/quick")).text == "quick"


async def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(UnavailableError, match="cannot listen on 192.0.2.1:80"):
        HttpServer(House().app, "192.0.2.1", 80, 10)


async def test_it_stops_at_once_with_an_idle_connection() -> None:
    async with served(House()) as (origin, task), client() as http:
        await http.get(f"{origin}/quick")
        assert await stop(task) < 1


async def test_it_lets_an_open_request_end() -> None:
    house = House()
    async with served(house) as (origin, task), client() as http:
        asking = asyncio.create_task(http.get(f"{origin}/slow"))
        await house.entered.wait()
        stopping = asyncio.create_task(stop(task))
        await asyncio.sleep(0)
        house.leave.set()
        assert (await asking).text == "slow"
        assert await stopping < STOP_WITHIN_S


async def test_it_does_not_wait_for_ever_for_an_open_request() -> None:
    house = House()
    async with served(house) as (origin, task), client() as http:
        asking = asyncio.create_task(http.get(f"{origin}/slow"))
        await house.entered.wait()
        assert STOP_WITHIN_S - 0.5 <= await stop(task) < STOP_WITHIN_S + 2
        results = await asyncio.gather(asking, return_exceptions=True)
        assert isinstance(results[0], httpx2.HTTPError | httpx2.Response)


async def test_beyond_the_most_connections_callers_get_503() -> None:
    house = House()
    async with served(house, most=1) as (origin, _), client() as first, client() as second:
        asking = asyncio.create_task(first.get(f"{origin}/slow"))
        await house.entered.wait()
        assert (await second.get(f"{origin}/quick")).status_code == 503
        house.leave.set()
        assert (await asking).status_code == 200


@pytest.mark.parametrize("said", [b"GET /quick HTTP/1.1\r\n", BEGUN])
async def test_who_only_holds_connections_keeps_nobody_out(said: bytes) -> None:
    async with served(House(), most=3) as (origin, _), client() as http:
        port = int(origin.rpartition(":")[2])
        held = [await asyncio.open_connection(HOST, port) for _ in range(3)]
        held[0][1].write(said)
        assert (await http.get(f"{origin}/quick")).status_code == 200
        ended = [asyncio.create_task(reader.read()) for reader, _ in held]
        done, _ = await asyncio.wait(ended, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        assert done == {ended[0]}, "the one that was idle the longest"
        for _, writer in held:
            writer.close()
        await asyncio.gather(*ended)


async def test_who_only_begins_bodies_keeps_nobody_out() -> None:
    async with served(House(), most=3) as (origin, _), client() as http:
        port = int(origin.rpartition(":")[2])
        held = [await asyncio.open_connection(HOST, port) for _ in range(3)]
        for _, writer in held:
            writer.write(BEGUN)
        assert (await http.get(f"{origin}/quick")).status_code == 200
        for _, writer in held:
            writer.close()


@pytest.mark.parametrize(("before", "said"), [(b"", b""), (b"", HALF), (HALF + b"\r\n", HALF)])
async def test_who_does_not_end_its_head_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, before: bytes, said: bytes
) -> None:
    monkeypatch.setattr(server_module, "HEAD_WITHIN_S", 0.2)
    async with served(House()) as (origin, _):
        reader, writer = await asyncio.open_connection(HOST, int(origin.rpartition(":")[2]))
        if before:
            writer.write(before)
            assert (await asyncio.wait_for(reader.readuntil(b"quick"), 10)).startswith(b"HTTP/1.1 200")
        writer.write(said)
        assert await asyncio.wait_for(reader.read(), 10) == b""  # until the other end closes it
        writer.close()


@pytest.mark.parametrize("before", [b"", HALF + b"\r\n"])
async def test_who_does_not_end_its_body_is_cut_off(monkeypatch: pytest.MonkeyPatch, before: bytes) -> None:
    """Also where it came together with the request before, and whatever trickles."""
    monkeypatch.setattr(server_module, "BODY_WITHIN_S", 0.2)
    async with served(House()) as (origin, _):
        reader, writer = await asyncio.open_connection(HOST, int(origin.rpartition(":")[2]))
        writer.write(before + BEGUN.replace(b"5", b"9000"))
        ended = asyncio.create_task(reader.read())
        deadline = time.monotonic() + 10
        while not (await asyncio.wait([ended], timeout=0.02))[0] and time.monotonic() < deadline:
            if before == b"":
                writer.write(b"l")
        with suppress(ConnectionError):  # what trickled into the closed end
            assert (await asyncio.wait_for(ended, 1)).endswith(b"quick" if before else b"")
        writer.close()


async def test_a_body_may_take_longer_than_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HEAD_WITHIN_S", 0.05)
    async with served(House()) as (origin, _):
        reader, writer = await asyncio.open_connection(HOST, int(origin.rpartition(":")[2]))
        writer.write(BEGUN)
        answer = asyncio.create_task(reader.readuntil(b"hello"))
        await asyncio.wait([answer], timeout=0.2)
        writer.write(b"llo")
        assert (await asyncio.wait_for(answer, 10)).startswith(b"HTTP/1.1 200")
        writer.close()


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_who_takes_nothing_of_an_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(server_module, "TAKE_WITHIN_S", 0.3)
    house = House()
    async with served(house, most=1, kernel_holds=SMALL // 10) as (origin, _), client() as http:
        with socket.socket() as caller:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL // 10)
            caller.connect((HOST, int(origin.rpartition(":")[2])))
            caller.sendall(b"GET /large?size=%d HTTP/1.1\r\nHost: x\r\n\r\n" % size)
            await house.entered.wait()
            deadline, codes = time.monotonic() + 10, {0}
            while 200 not in codes and time.monotonic() < deadline:
                codes.add((await http.get(f"{origin}/quick")).status_code)
            assert codes == {0, 503, 200}


async def test_an_answer_may_be_taken_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "TAKE_WITHIN_S", 0.3)
    async with served(House()) as (origin, _):
        reader, writer = await asyncio.open_connection(HOST, int(origin.rpartition(":")[2]))
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(32):
            await reader.readexactly(LARGE // 32)
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.7)
        writer.write(HALF + b"\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"quick"), 10)).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_an_answer_may_take_longer_than_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HEAD_WITHIN_S", 0.05)
    house = House()
    async with served(house) as (origin, _), client() as http:
        asking = asyncio.create_task(http.get(f"{origin}/slow"))
        await house.entered.wait()
        await asyncio.wait([asking], timeout=0.2)
        house.leave.set()
        assert (await asking).text == "slow"


@asynccontextmanager
async def answered(size: int, told: asyncio.Future[bool]) -> AsyncIterator[socket.socket]:
    """Ask for an answer of this size, and read none of it; `told` is whether the server says that it was taken."""

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        head = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": bytes(size), "more_body": True})
        told.set_result(await scope[TAKEN]())
        await send({"type": "http.response.body"})

    house = House()
    house.app = app  # type: ignore[assignment]
    async with served(house) as (origin, _):
        with socket.socket() as line:
            line.setblocking(False)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await asyncio.get_running_loop().sock_connect(line, (HOST, int(origin.rpartition(":")[2])))
            line.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            yield line


async def read(line: socket.socket, size: int) -> None:
    """Read the head of an answer and so much of its body."""
    loop, found = asyncio.get_running_loop(), b""
    while b"\r\n\r\n" not in found:
        found += await loop.sock_recv(line, 1)
    while size:
        size -= len(await loop.sock_recv(line, min(size, 1000)))


@pytest.mark.parametrize("size", [1, SMALL, 1 << 20])
async def test_who_reads_all_and_closes_has_taken_it(size: int) -> None:
    told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    async with answered(size, told) as line:
        await read(line, size)
        line.close()
        assert await asyncio.wait_for(told, 4)


@pytest.mark.parametrize("size", [10, SMALL, 1 << 20])
@pytest.mark.parametrize("orderly", [True, False])
async def test_who_breaks_off_has_not_taken_it(size: int, orderly: bool) -> None:
    told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    async with answered(size, told) as line:
        await read(line, 5)
        if orderly and size > SMALL:
            line.shutdown(socket.SHUT_WR)
        else:
            line.close()  # with bytes unread: that resets it
        assert not await asyncio.wait_for(told, 10)


async def test_who_asks_again_has_taken_it() -> None:
    told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    async with answered(SMALL, told) as line:
        await read(line, SMALL)
        line.send(b"GET")
        assert await asyncio.wait_for(told, 4)


async def test_of_who_says_nothing_more_the_machine_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "CLOSES_WITHIN_S", 0.1)
    monkeypatch.setattr(server_module, "TAKE_WITHIN_S", 0.3)
    for size, taken in ((SMALL, True), (SMALL, False)):
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        async with answered(size, told) as line:
            await read(line, size if taken else 5)
            assert await asyncio.wait_for(told, 4) is taken


async def test_headers_without_end_are_cut_off() -> None:
    async with served(House()) as (origin, _):
        reader, writer = await asyncio.open_connection(HOST, int(origin.rpartition(":")[2]))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 100_000)
        await writer.drain()
        answer = await asyncio.wait_for(reader.read(1024), 10)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 400")
