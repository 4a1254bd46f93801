from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import httpx2
import pytest

from orchestrator.sim.download import MAX_REDIRECTS, Downloader, DownloadError
from orchestrator.sim.events import Chunk, Fetch, Opened
from orchestrator.sim.unit import Unit
from orchestrator.verifier import Device
from tests.sim.issuer import Build, Issuer, profile_with
from tests.sim.web import Answer, Handler, Web, artifact, web


@pytest.fixture
async def server() -> AsyncIterator[Web]:
    async with web() as site:
        yield site


@pytest.fixture
async def store() -> AsyncIterator[Web]:
    async with web("localhost") as site:
        yield site


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(trust_env=False) as opened:
        yield opened


@pytest.fixture
def device(issuer: Issuer, server: Web, store: Web) -> Device:
    identity = Unit.born(profile_with(issuer)).identity
    return replace(identity, allowed_origins=(server.origin, store.origin), loopback=True)


async def fetched(loader: Downloader, wish: Fetch, device: Device) -> tuple[int, bytes]:
    offset, data = -1, b""
    async for part in loader.fetch(wish, device):
        match part:
            case Opened(offset_bytes):
                offset = offset_bytes
            case Chunk(more):
                data += more
    return offset, data


def wish(*urls: str, offset_bytes: int = 0, size_bytes: int = 4096) -> Fetch:
    return Fetch(urls, offset_bytes, size_bytes)


async def test_the_whole_artifact_comes_with_the_token(
    server: Web, client: httpx2.AsyncClient, device: Device, good: Build
) -> None:
    server.routes["/a"] = artifact(good)
    loader = Downloader(client, "secret", server.origin)
    assert await fetched(loader, wish(f"{server.origin}/a"), device) == (0, good.data)
    headers = server.asked[0].headers
    assert headers["authorization"] == "Bearer secret"
    assert headers["accept-encoding"] == "identity"
    assert "range" not in headers


async def test_a_part_is_asked_for_with_the_tag_of_the_first(
    server: Web, client: httpx2.AsyncClient, device: Device, good: Build
) -> None:
    server.routes["/a"] = artifact(good)
    loader = Downloader(client, None, server.origin)
    await fetched(loader, wish(f"{server.origin}/a"), device)
    assert await fetched(loader, wish(f"{server.origin}/a", offset_bytes=1000), device) == (1000, good.data[1000:])
    headers = server.asked[1].headers
    assert headers["range"] == "bytes=1000-"
    assert headers["if-range"].startswith('"')
    assert "authorization" not in headers


async def test_an_object_that_changed_between_parts_comes_whole(
    server: Web, client: httpx2.AsyncClient, device: Device, good: Build
) -> None:
    server.routes["/a"] = artifact(good)
    loader = Downloader(client, None, server.origin)
    await fetched(loader, wish(f"{server.origin}/a"), device)
    other = Build.make("1.1.0", 9)
    server.routes["/a"] = artifact(other)
    assert await fetched(loader, wish(f"{server.origin}/a", offset_bytes=1000), device) == (0, other.data)


async def test_a_weak_tag_promises_nothing(
    server: Web, client: httpx2.AsyncClient, device: Device, good: Build
) -> None:
    server.routes["/a"] = lambda asked: Answer(200, good.data, {"etag": 'W/"x"'})
    loader = Downloader(client, None, server.origin)
    for offset_bytes in (0, 1000):
        await fetched(loader, wish(f"{server.origin}/a", offset_bytes=offset_bytes), device)
    assert "if-range" not in server.asked[1].headers


async def test_a_redirect_to_another_host_loses_the_token(
    server: Web, store: Web, client: httpx2.AsyncClient, device: Device, good: Build
) -> None:
    server.routes["/a"] = lambda asked: Answer(302, headers={"location": f"{store.origin}/b?X-Amz-Signature=s"})
    store.routes["/b"] = artifact(good)
    loader = Downloader(client, "secret", server.origin)
    assert await fetched(loader, wish(f"{server.origin}/a", offset_bytes=96), device) == (96, good.data[96:])
    assert server.asked[0].headers["authorization"] == "Bearer secret"
    assert "authorization" not in store.asked[0].headers
    assert (store.asked[0].path, store.asked[0].headers["range"]) == ("/b?X-Amz-Signature=s", "bytes=96-")


async def test_the_token_does_not_come_back_with_the_host(
    server: Web, store: Web, client: httpx2.AsyncClient, device: Device, good: Build
) -> None:
    server.routes["/a"] = lambda asked: Answer(302, headers={"location": f"{store.origin}/b"})
    store.routes["/b"] = lambda asked: Answer(302, headers={"location": f"{server.origin}/c"})
    server.routes["/c"] = artifact(good)
    await fetched(Downloader(client, "secret", server.origin), wish(f"{server.origin}/a"), device)
    assert ["authorization" in asked.headers for asked in server.asked] == [True, False]


async def test_a_redirect_on_the_same_host_keeps_the_token(
    server: Web, client: httpx2.AsyncClient, device: Device, good: Build
) -> None:
    server.routes["/a"] = lambda asked: Answer(307, headers={"location": "/b"})
    server.routes["/b"] = artifact(good)
    await fetched(Downloader(client, "secret", server.origin), wish(f"{server.origin}/a"), device)
    assert [asked.headers["authorization"] for asked in server.asked] == ["Bearer secret"] * 2


async def test_the_token_never_goes_to_a_url_elsewhere(
    store: Web, server: Web, client: httpx2.AsyncClient, device: Device, good: Build
) -> None:
    store.routes["/a"] = artifact(good)
    await fetched(Downloader(client, "secret", server.origin), wish(f"{store.origin}/a"), device)
    assert "authorization" not in store.asked[0].headers


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("http://127.0.0.1:1/x", "url_origin"),
        ("ftp://127.0.0.1/x", "url_scheme"),
        ("https://evil.test/x", "url_origin"),
        ("https://user@evil.test/x", "url_userinfo"),
        ("https://[::1/x", "url_malformed"),
        ("//[", "url_malformed"),
        ("https://[x]/", "url_malformed"),
    ],
)
async def test_a_redirect_is_checked_before_it_is_followed(
    server: Web, client: httpx2.AsyncClient, device: Device, location: str, code: str
) -> None:
    server.routes["/a"] = lambda asked: Answer(302, headers={"location": location})
    with pytest.raises(DownloadError) as caught:
        await fetched(Downloader(client, None, server.origin), wish(f"{server.origin}/a"), device)
    assert (caught.value.code, caught.value.final) == (code, True)


async def test_redirects_without_end_are_given_up(server: Web, client: httpx2.AsyncClient, device: Device) -> None:
    server.routes["/a"] = lambda asked: Answer(302, headers={"location": "/a"})
    with pytest.raises(DownloadError, match="too_many_redirects"):
        await fetched(Downloader(client, None, server.origin), wish(f"{server.origin}/a"), device)
    assert len(server.asked) == MAX_REDIRECTS + 1


async def test_the_next_url_is_tried_when_one_fails(
    server: Web, store: Web, client: httpx2.AsyncClient, device: Device, good: Build
) -> None:
    store.routes["/b"] = artifact(good)
    urls = wish(f"{server.origin}/gone", f"{store.origin}/b")
    assert await fetched(Downloader(client, None, server.origin), urls, device) == (0, good.data)


def answer(status: int, size: int = 4096, **headers: str) -> Handler:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda asked: Answer(status, b"x" * size, named)


@pytest.mark.parametrize(
    ("handler", "code", "final"),
    [
        (answer(404, 0), "artifact_missing", True),
        (answer(410, 0), "artifact_missing", True),
        (answer(416, 0), "bad_range", True),
        (answer(403, 0), "download_refused", False),
        (answer(503, 0), "download_refused", False),
        (answer(200, 4095), "size_mismatch", True),
        (answer(200, 5000), "size_mismatch", True),
        (answer(206), "bad_range", False),
        (answer(206, content_range="bytes 7-4095/*"), "bad_range", False),
        (answer(206, content_range="bytes 7-4095/9999"), "bad_range", False),
        (answer(206, content_range=f"bytes {'7' * 5000}-4095/4096"), "bad_range", False),
        (lambda asked: Answer(200, b"x" * 4096, cut_after=100), "link_lost", False),
    ],
)
async def test_what_goes_wrong_has_a_code(
    server: Web, client: httpx2.AsyncClient, device: Device, handler: Handler, code: str, final: bool
) -> None:
    server.routes["/a"] = handler
    with pytest.raises(DownloadError) as caught:
        await fetched(Downloader(client, None, server.origin), wish(f"{server.origin}/a", offset_bytes=7), device)
    assert (caught.value.code, caught.value.final) == (code, final)


async def test_no_server_is_a_lost_link(server: Web, client: httpx2.AsyncClient, device: Device) -> None:
    async with web() as gone:
        origin = gone.origin
    elsewhere = replace(device, allowed_origins=(origin,))
    with pytest.raises(DownloadError, match="link_lost"):
        await fetched(Downloader(client, None, server.origin), wish(f"{origin}/a"), elsewhere)


async def test_no_url_is_an_error_for_good(server: Web, client: httpx2.AsyncClient, device: Device) -> None:
    with pytest.raises(DownloadError, match="no_url"):
        await fetched(Downloader(client, None, server.origin), wish(), device)
