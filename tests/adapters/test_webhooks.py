"""Events over real HTTP, and all places that they are not sent to."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from pathlib import Path

import pytest

from orchestrator.adapters.webhooks import HttpPoster
from orchestrator.errors import OrchestratorError, RequestError, UnavailableError
from orchestrator.ports import Reply
from tests.adapters.mqtt.certificates import Authority
from tests.support.names import name_is
from tests.support.receiver import receiver

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
HEADERS = {"content-type": "application/json", "webhook-id": "evt_1"}


async def test_an_event_arrives_as_it_is() -> None:
    async with receiver() as there:
        assert await HttpPoster(LOOPBACK).post(f"{there.url}?key=1", b'{"a":1}', HEADERS) == Reply(204)
    (got,) = there.got
    assert (got.path, got.body) == ("/ota?key=1", b'{"a":1}')
    assert got.headers["host"] == f"127.0.0.1:{there.port}"
    assert got.headers["webhook-id"] == "evt_1"


@pytest.mark.parametrize("status", [200, 301, 307, 410, 500])
async def test_the_status_is_what_is_answered_and_nothing_is_followed(status: int) -> None:
    async with receiver() as there:
        there.status, there.extra = status, f"Location: {there.url}/else\r\n"
        assert await HttpPoster(LOOPBACK).post(there.url, b"{}", HEADERS) == Reply(status)
    assert len(there.got) == 1


async def test_when_to_come_again_is_told_as_it_is_said() -> None:
    async with receiver() as there:
        there.status, there.extra = 503, "retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        reply = await HttpPoster(LOOPBACK).post(there.url, b"{}", HEADERS)
    assert reply == Reply(503, "Sun, 06 Nov 1994 08:49:37 GMT")


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://10.0.0.1/",
        "https://[::1]/",
        "https://[fd00::1]/",
        "https://169.254.169.254/latest",
        "https://[::ffff:10.0.0.1]/",
        "https://metadata.google.internal/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://127.1/",
    ],
)
async def test_private_places_are_not_sent_to(url: str) -> None:
    with pytest.raises(RequestError):
        await HttpPoster(()).post(url, b"{}", HEADERS)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "::ffff:10.0.0.1"])
async def test_a_name_that_leads_into_a_private_network_is_refused(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    name_is(monkeypatch, address)
    with pytest.raises(RequestError, match=r"no public address, and none in webhooks\.networks"):
        await HttpPoster(()).post("https://hooks.example.net/", b"{}", HEADERS)


async def test_the_address_that_was_judged_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up = name_is(monkeypatch, "127.0.0.1")
    async with receiver() as there:
        assert await HttpPoster(LOOPBACK).post(f"http://hooks.example.net:{there.port}/", b"{}", HEADERS) == Reply(204)
    assert looked_up == ["hooks.example.net"]
    assert there.got[0].headers["host"] == f"hooks.example.net:{there.port}"


async def test_what_is_not_encrypted_stays_in_listed_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    name_is(monkeypatch, "8.8.8.8")
    with pytest.raises(RequestError, match="only https://"):
        await HttpPoster(LOOPBACK).post("http://hooks.example.net/", b"{}", HEADERS)


async def test_nobody_there_is_an_error_and_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with receiver() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(UnavailableError, match="no answer") as caught:
            await HttpPoster(LOOPBACK).post(f"http://127.0.0.1:{port}/secret-path", b"{}", HEADERS)
    assert proxy.got == []
    assert "secret-path" not in str(caught.value)


async def test_a_name_without_an_address_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    name_is(monkeypatch, None)
    with pytest.raises(OrchestratorError, match="has no address"):
        await HttpPoster(()).post("https://hooks.example.net/", b"{}", HEADERS)


async def test_a_name_that_no_name_server_could_know_has_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a name raises another error than an unknown one, which would end the daemon, and again at each start."""
    monkeypatch.setattr("orchestrator.adapters.webhooks.fault_of", lambda _: None)  # it was added by an older version
    with pytest.raises(UnavailableError, match="has no address"):
        await HttpPoster(()).post(f"https://{'a' * 64}.example.net/", b"{}", HEADERS)


async def test_a_certificate_holds_for_its_own_name_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that is connected to stands in the certificate: it proves nothing of the name that was meant."""
    name_is(monkeypatch, "127.0.0.1")
    authority = Authority(tmp_path, "ca")
    pair, got = authority.issue("server", "hooks.example.net"), []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 Taken\r\n\r\n")
        writer.close()

    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load_cert_chain(pair.cert, pair.key)
    poster = HttpPoster(LOOPBACK, ssl.create_default_context(cafile=authority.cert))
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=shown) as server:
        port = server.sockets[0].getsockname()[1]
        assert await poster.post(f"https://hooks.example.net:{port}/", b"{}", HEADERS) == Reply(204)
        with pytest.raises(UnavailableError, match="no answer"):
            await poster.post(f"https://other.example.net:{port}/", b"{}", HEADERS)
        with pytest.raises(UnavailableError, match="no answer"):
            await HttpPoster(LOOPBACK).post(f"https://hooks.example.net:{port}/", b"{}", HEADERS)
    assert len(got) == 1
