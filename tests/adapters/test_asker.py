"""Services that are asked over real HTTP, and all that is refused before, or instead of, an answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from orchestrator.adapters.asker import HttpAsker, origin_of, settings_of
from orchestrator.core.judging.outside import MAX_BODY_BYTES
from orchestrator.errors import OrchestratorError, RequestError, UnavailableError
from tests.support.names import name_is

JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n" + b'{"alerts": 0}'


@asynccontextmanager
async def service(answer: bytes, host: str = "127.0.0.1") -> AsyncIterator[tuple[int, list[bytes]]]:
    """Answer every request with these bytes; yields the port and the requests."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, host, 0)
    async with server:
        yield server.sockets[0].getsockname()[1], requests


async def test_a_listed_address_is_asked_with_its_own_name() -> None:
    async with service(JSON) as (port, requests):
        asker = HttpAsker(settings_of([f"http://127.0.0.1:{port}"], []))
        assert await asker.ask(f"http://127.0.0.1:{port}/ota?release=2") == b'{"alerts": 0}'
    request = requests[0].decode().lower()
    assert request.startswith("get /ota?release=2 http/1.1")
    assert f"host: 127.0.0.1:{port}\r\n" in request
    assert "accept-encoding: identity" in request


async def test_a_name_is_connected_to_where_it_was_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up = name_is(monkeypatch, "127.0.0.1")
    async with service(JSON) as (port, requests):
        url = f"http://metrics.example.net:{port}/"
        assert await HttpAsker(settings_of([url.rstrip("/")], ["127.0.0.0/8"])).ask(url) == b'{"alerts": 0}'
    assert looked_up == ["metrics.example.net"]
    assert f"host: metrics.example.net:{port}" in requests[0].decode().lower()


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fd00::1", "::ffff:10.0.0.1"])
async def test_a_name_that_leads_into_a_private_network_is_refused(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    name_is(monkeypatch, address)
    asker = HttpAsker(settings_of(["https://metrics.example.net"], ["192.168.7.0/24"]))
    with pytest.raises(RequestError, match="no public address, and none in gates.networks"):
        await asker.ask("https://metrics.example.net/ota")


@pytest.mark.parametrize(
    "url",
    [
        "http://metrics.example.net/",
        "https://metrics.example.net:8443/",
        "https://metrics.example.net.evil.example/",
        "https://evil.example/https://metrics.example.net/",
        "https://metrics.example.net:99999/",
        "http://[::1/",
        "ftp://metrics.example.net/",
    ],
)
async def test_nothing_that_is_not_listed_is_asked(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    looked_up = name_is(monkeypatch, "192.0.2.1")
    with pytest.raises(RequestError):
        await HttpAsker(settings_of(["https://metrics.example.net"], [])).ask(url)
    assert looked_up == []


def redirect(port: int) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{port}/else\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (redirect(1), "it answered 302"),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "it answered 503"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "it answered 204"),
        (b"garbage\r\n\r\n", "no answer"),
        (b"", "no answer"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b" " * (MAX_BODY_BYTES + 1), "larger than 65536 bytes"),
    ],
)
async def test_what_is_no_answer_is_an_error(answer: bytes, why: str) -> None:
    async with service(answer) as (port, _):
        asker = HttpAsker(settings_of([f"http://127.0.0.1:{port}"], []))
        with pytest.raises(UnavailableError, match=why):
            await asker.ask(f"http://127.0.0.1:{port}/")


async def test_the_largest_answer_is_read_whole() -> None:
    body = b" " * MAX_BODY_BYTES
    async with service(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body) as (port, _):
        asker = HttpAsker(settings_of([f"http://127.0.0.1:{port}"], []))
        assert await asker.ask(f"http://127.0.0.1:{port}/") == body


async def test_nobody_there_is_an_error_and_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with service(JSON) as (proxy, requests):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy}")
        with pytest.raises(OrchestratorError, match="no answer"):
            await HttpAsker(settings_of([f"http://127.0.0.1:{port}"], [])).ask(f"http://127.0.0.1:{port}/")
    assert requests == []


async def test_a_name_without_an_address_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    name_is(monkeypatch, None)
    with pytest.raises(UnavailableError, match="has no address"):
        await HttpAsker(settings_of(["https://metrics.example.net"], [])).ask("https://metrics.example.net/")


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://a.example:443/x", "https://a.example"),
        ("http://a.example", "http://a.example"),
        ("http://a.example:443", "http://a.example:443"),
        ("http://[fd00::1]:80/", "http://[fd00::1]"),
    ],
)
def test_an_origin_has_one_name(url: str, origin: str) -> None:
    assert origin_of(urlsplit(url)) == origin
