"""uvicorn inside our loop, on real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from orchestrator.demo.broker import HOST, free_port
from orchestrator.errors import UnavailableError
from orchestrator.web import server as server_module
from orchestrator.web.server import STOP_WITHIN_S, HttpServer

HALF = b"GET /quick HTTP/1.1\r\nHost: x\r\n"


class House:
    """An application with one quick and one endless answer."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.leave = asyncio.Event()
        self.app = Starlette(routes=[Route("/quick", self.quick), Route("/slow", self.slow)])

    async def quick(self, _: Request) -> Response:
        return PlainTextResponse("quick")

    async def slow(self, _: Request) -> Response:
        self.entered.set()
        await self.leave.wait()
        return PlainTextResponse("slow")


@asynccontextmanager
async def served(house: House, *, port: int = 0, most: int = 100) -> AsyncIterator[tuple[str, asyncio.Task[None]]]:
    server = HttpServer(house.app, HOST, port, most)
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


async def test_who_only_holds_connections_keeps_nobody_out() -> None:
    async with served(House(), most=3) as (origin, _), client() as http:
        port = int(origin.rpartition(":")[2])
        held = [await asyncio.open_connection(HOST, port) for _ in range(3)]
        held[0][1].write(b"GET /quick HTTP/1.1\r\n")
        assert (await http.get(f"{origin}/quick")).status_code == 200
        ended = [asyncio.create_task(reader.read()) for reader, _ in held]
        done, _ = await asyncio.wait(ended, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        assert done == {ended[0]}, "the one that was idle the longest"
        for _, writer in held:
            writer.close()
        await asyncio.gather(*ended)


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


async def test_an_answer_may_take_longer_than_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HEAD_WITHIN_S", 0.05)
    house = House()
    async with served(house) as (origin, _), client() as http:
        asking = asyncio.create_task(http.get(f"{origin}/slow"))
        await house.entered.wait()
        await asyncio.wait([asking], timeout=0.2)
        house.leave.set()
        assert (await asking).text == "slow"


async def test_headers_without_end_are_cut_off() -> None:
    async with served(House()) as (origin, _):
        reader, writer = await asyncio.open_connection(HOST, int(origin.rpartition(":")[2]))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 100_000)
        await writer.drain()
        answer = await asyncio.wait_for(reader.read(1024), 10)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 400")
