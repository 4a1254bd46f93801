"""S3 itself: presigned addresses, broken connections, and what every failure is called."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import traceback
from collections.abc import AsyncIterator, Callable
from urllib.parse import parse_qs, urlsplit

import pytest

from orchestrator.adapters.s3 import S3Settings, S3Source
from orchestrator.demo import bucket
from orchestrator.errors import (
    ConfigError,
    ForbiddenError,
    NotFoundError,
    OrchestratorError,
    RequestError,
    TrustError,
    UnavailableError,
)
from orchestrator.ports import Locator
from tests.support.bucket import (
    Answer,
    Request,
    bucket_endpoint,
    error_document,
    new_name,
    opened,
    scripted,
    settings,
)

__all__ = ["bucket_endpoint"]

DATA = bytes(range(256)) * 4096 * 2 + b"tail"
NAMED = "s3://fleet/fw.bin"


@pytest.fixture
async def versioned(bucket_endpoint: str) -> str:
    name = new_name()
    await bucket.create(bucket_endpoint, name)
    return name


@pytest.fixture
async def source(bucket_endpoint: str) -> AsyncIterator[S3Source]:
    with opened(S3Source(settings(bucket_endpoint))) as source:
        yield source


async def _read(source: S3Source, locator: Locator, limit_bytes: int = 1 << 24) -> bytes:
    return b"".join([chunk async for chunk in source.read(locator, limit_bytes=limit_bytes)])


async def _list(source: S3Source, prefix: str) -> list[str]:
    return [found.locator.uri async for found in source.list(prefix)]


def _fetch(url: str, **headers: str) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}", headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


# Versions


async def test_the_version_is_the_version_id_where_there_is_one(
    bucket_endpoint: str, versioned: str, source: S3Source
) -> None:
    await bucket.put(bucket_endpoint, versioned, "fw.bin", b"old")
    found = await source.stat(f"s3://{versioned}/fw.bin")
    await bucket.put(bucket_endpoint, versioned, "fw.bin", b"new")
    assert found.locator.version is not None
    assert not found.locator.version.startswith('"')
    assert await _read(source, found.locator) == b"old"


async def test_the_version_is_the_etag_where_there_is_no_other(bucket_endpoint: str, source: S3Source) -> None:
    name = new_name()
    await bucket.create(bucket_endpoint, name, versioned=False)
    await bucket.put(bucket_endpoint, name, "fw.bin", b"old")
    found = await source.stat(f"s3://{name}/fw.bin")
    assert found.locator.version == found.etag
    await bucket.put(bucket_endpoint, name, "fw.bin", b"new")
    with pytest.raises(TrustError) as refused:
        await _read(source, found.locator)
    assert refused.value.code == "changed"


async def test_the_null_version_is_no_pin() -> None:
    def answer(request: Request) -> Answer:
        return Answer(200, b"", {"ETag": '"e"', "x-amz-version-id": "null"})

    with scripted(answer) as server, opened(S3Source(settings(server.endpoint))) as source:
        assert (await source.stat(NAMED)).locator.version == '"e"'


async def test_a_version_that_is_gone_is_not_found(versioned: str, source: S3Source) -> None:
    with pytest.raises(NotFoundError) as missing:
        await _read(source, Locator(f"s3://{versioned}/fw.bin", "gone"))
    assert missing.value.code in ("no_such_version", "no_such_key")


def _page(*keys: str, more: str = "") -> Answer:
    items = "".join(
        f"<Contents><Key>{key}</Key><Size>1</Size><ETag>&quot;{key}&quot;</ETag></Contents>" for key in keys
    )
    turn = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{more}</NextContinuationToken>" if more else ""
    text = f"<ListBucketResult><Name>fleet</Name><EncodingType>url</EncodingType>{turn}{items}</ListBucketResult>"
    return Answer(200, text.encode())


async def test_list_goes_over_all_pages_and_leaves_folders_out() -> None:
    def answer(request: Request) -> Answer:
        asked = parse_qs(urlsplit(request.path).query)
        assert asked["prefix"] == ["a"]
        return _page("a/z") if asked.get("continuation-token") == ["go on"] else _page("a/", "a/x%20y", more="go on")

    with scripted(answer) as server, opened(S3Source(settings(server.endpoint))) as source:
        listed = [found.locator async for found in source.list("s3://fleet/a")]
    assert listed == [Locator("s3://fleet/a/x y", '"a/x%20y"'), Locator("s3://fleet/a/z", '"a/z"')]


async def test_a_whole_bucket_can_be_listed(bucket_endpoint: str, versioned: str, source: S3Source) -> None:
    await bucket.put(bucket_endpoint, versioned, "x/y", b"")
    assert await _list(source, f"s3://{versioned}") == [f"s3://{versioned}/x/y"]
    assert await _list(source, f"s3://{versioned}/") == [f"s3://{versioned}/x/y"]


# Presigned addresses


async def test_anybody_may_fetch_a_part_by_the_presigned_url(
    bucket_endpoint: str, versioned: str, source: S3Source
) -> None:
    await bucket.put(bucket_endpoint, versioned, "a b/fw.bin", DATA)
    found = await source.stat(f"s3://{versioned}/a b/fw.bin")
    await bucket.put(bucket_endpoint, versioned, "a b/fw.bin", b"new")
    url = await source.download_url(found.locator, valid_s=900)
    assert await asyncio.to_thread(_fetch, url) == (200, DATA)
    assert await asyncio.to_thread(_fetch, url, Range="bytes=3-6") == (206, DATA[3:7])
    query = parse_qs(urlsplit(url).query)
    assert query["versionId"] == [found.locator.version]
    assert query["X-Amz-Expires"] == ["1125"]
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]


async def test_a_presigned_url_is_used_again_for_a_quarter_of_its_time() -> None:
    now = 1000.0
    with opened(S3Source(settings("http://127.0.0.1:9"), clock=lambda: now)) as source:
        first = await source.download_url(Locator(NAMED, "1"), valid_s=400)
        now = 1099.9
        assert await source.download_url(Locator(NAMED, "1"), valid_s=400) is first
        assert await source.download_url(Locator(NAMED, "2"), valid_s=400) != first
        assert await source.download_url(Locator(NAMED, "1"), valid_s=300) != first
        now = 1100.0
        assert await source.download_url(Locator(NAMED, "1"), valid_s=400) is not first


async def test_an_etag_does_not_get_into_a_url() -> None:
    with opened(S3Source(settings("http://127.0.0.1:9"))) as source:
        url = await source.download_url(Locator(NAMED, '"etag"'), valid_s=60)
    assert "etag" not in url.lower()
    assert "if-match" not in url.lower()


@pytest.mark.parametrize("valid_s", [0, -1, 5 * 24 * 3600 * 2])
async def test_a_url_cannot_live_longer_than_s3_allows(valid_s: int) -> None:
    with (
        opened(S3Source(settings("http://127.0.0.1:9"))) as source,
        pytest.raises(RequestError) as refused,
    ):
        await source.download_url(Locator(NAMED), valid_s=valid_s)
    assert refused.value.code == "bad_lifetime"


@pytest.mark.parametrize(
    ("name", "host"),
    [("fleet", "fleet.s3.eu-central-1.amazonaws.com"), ("fleet.example", "s3.eu-central-1.amazonaws.com")],
)
async def test_for_amazon_the_url_names_the_region(name: str, host: str) -> None:
    with opened(S3Source(S3Settings(None, "eu-central-1", "key", "secret"))) as source:
        url = await source.download_url(Locator(f"s3://{name}/fw.bin", "v"), valid_s=60)
    assert urlsplit(url).netloc == host


# Connections


def _object_server(breaks: int) -> Callable[[Request], Answer]:
    left = breaks

    def answer(request: Request) -> Answer:
        nonlocal left
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        rest = DATA[start:]
        headers = {"ETag": '"e"', "Content-Range": f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"}
        status = 206 if start else 200
        if left:
            left -= 1
            return Answer(status, rest[: 1 << 20], headers, promised=len(rest))
        return Answer(status, rest, headers)

    return answer


async def test_a_broken_download_goes_on_where_it_broke() -> None:
    pauses: list[float] = []

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)

    with (
        scripted(_object_server(breaks=2)) as server,
        opened(S3Source(settings(server.endpoint), sleep=sleep)) as source,
    ):
        assert await _read(source, Locator(NAMED)) == DATA
    assert [request.headers.get("range") for request in server.requests] == [
        None,
        "bytes=1048576-",
        "bytes=2097152-",
    ]
    assert [request.headers.get("if-match") for request in server.requests] == [None, '"e"', '"e"']
    assert pauses == [1.0, 2.0]


async def test_a_download_that_always_breaks_is_given_up() -> None:
    async def sleep(pause_s: float) -> None:
        del pause_s

    def answer(request: Request) -> Answer:
        return Answer(200, b"", {"ETag": '"e"'}, promised=10)

    with (
        scripted(answer) as server,
        opened(S3Source(settings(server.endpoint, attempts=3), sleep=sleep)) as source,
        pytest.raises(UnavailableError) as broken,
    ):
        await _read(source, Locator(NAMED))
    assert broken.value.code == "connection_broken"
    assert len(server.requests) == 3


async def test_a_part_that_breaks_goes_on_where_it_broke_and_ends_where_it_should() -> None:
    async def sleep(pause_s: float) -> None:
        del pause_s

    def answer(request: Request) -> Answer:
        start, end = map(int, request.headers["range"].removeprefix("bytes=").split("-"))
        headers = {"ETag": '"e"', "Content-Range": f"bytes {start}-{end}/{len(DATA)}"}
        return Answer(206, DATA[start : min(start + 6, end + 1)], headers, promised=end + 1 - start)

    with scripted(answer) as server, opened(S3Source(settings(server.endpoint), sleep=sleep)) as source:
        assert await source.read_part(Locator(NAMED, '"e"'), 100, 117) == DATA[100:117]
    assert [request.headers["range"] for request in server.requests] == [
        "bytes=100-116",
        "bytes=106-116",
        "bytes=112-116",
    ]
    assert {request.headers["if-match"] for request in server.requests} == {'"e"'}


async def test_a_server_that_knows_no_ranges_gives_no_part() -> None:
    with (
        scripted(lambda request: Answer(200, DATA, {"ETag": '"e"'})) as server,
        opened(S3Source(settings(server.endpoint))) as source,
        pytest.raises(TrustError) as refused,
    ):
        await source.read_part(Locator(NAMED), 100, 200)
    assert refused.value.code == "too_large"


async def test_an_object_that_is_too_large_is_refused_before_a_byte_is_read() -> None:
    with (
        scripted(_object_server(breaks=0)) as server,
        opened(S3Source(settings(server.endpoint))) as source,
        pytest.raises(TrustError) as refused,
    ):
        await _read(source, Locator(NAMED), limit_bytes=len(DATA) - 1)
    assert refused.value.code == "too_large"
    assert str(len(DATA)) in refused.value.message


async def test_the_loop_runs_on_while_s3_takes_its_time() -> None:
    asked, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def answer(request: Request) -> Answer:
        loop.call_soon_threadsafe(asked.set)
        return Answer(200 if go_on.wait(10) else 500, b"", {"ETag": '"e"'})

    with scripted(answer) as server, opened(S3Source(settings(server.endpoint))) as source:
        looking = asyncio.create_task(source.stat(NAMED))
        await asked.wait()
        go_on.set()
        assert (await looking).etag == '"e"'


async def test_a_busy_server_is_asked_again() -> None:
    answers = iter([Answer(503, error_document("SlowDown")), Answer(200, b"", {"ETag": '"e"'})])
    with (
        scripted(lambda request: next(answers)) as server,
        opened(S3Source(settings(server.endpoint, attempts=2))) as source,
    ):
        assert (await source.stat(NAMED)).etag == '"e"'
    assert len(server.requests) == 2


async def test_a_proxy_does_not_stand_before_loopback(
    monkeypatch: pytest.MonkeyPatch, bucket_endpoint: str, versioned: str, source: S3Source
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert await _list(source, f"s3://{versioned}/") == []


# Failures by name


async def test_no_bucket(source: S3Source, bucket_endpoint: str) -> None:
    uri = f"s3://{new_name()}/fw.bin"
    for attempt in (source.stat(uri), _read(source, Locator(uri)), _list(source, uri)):
        with pytest.raises(NotFoundError) as missing:
            await attempt
        assert missing.value.code == "no_such_bucket"
        assert bucket_endpoint in missing.value.message
        assert uri in missing.value.message


async def test_no_key(source: S3Source, versioned: str) -> None:
    uri = f"s3://{versioned}/missing.bin"
    for attempt in (source.stat(uri), _read(source, Locator(uri))):
        with pytest.raises(NotFoundError) as missing:
            await attempt
        assert missing.value.code == "no_such_key"
        assert missing.value.message == f"{uri} does not exist; upload it or correct the key"


SECRETS = {
    "AWSAccessKeyId": bucket.ACCESS_KEY_ID,
    "StringToSign": "AWS4-HMAC-SHA256 signing-text",
    "SignatureProvided": "0123456789abcdef",
    "Message": f"key {bucket.ACCESS_KEY_ID} secret {bucket.SECRET_ACCESS_KEY}",
}


@pytest.mark.parametrize(
    ("status", "code", "kind", "ours", "hint"),
    [
        (403, "AccessDenied", ForbiddenError, "access_denied", "allow s3:"),
        (403, "InvalidAccessKeyId", ForbiddenError, "unknown_key", "does not know the access key id"),
        (403, "SignatureDoesNotMatch", ForbiddenError, "bad_signature", "correct the secret or the clock"),
        (403, "RequestTimeTooSkewed", ForbiddenError, "clock_skew", "let NTP set it"),
        (400, "ExpiredToken", ForbiddenError, "expired_credentials", "renew them"),
        (403, "InvalidObjectState", RequestError, "archived", "restore it first"),
        (400, "AuthorizationHeaderMalformed", RequestError, "wrong_region", "set the region to eu-west-3"),
        (412, "PreconditionFailed", TrustError, "changed", "import it again"),
        (400, "InvalidBucketName", RequestError, "bad_uri", "write s3://bucket/key"),
        (503, "SlowDown", UnavailableError, "unavailable", "(SlowDown); try again later"),
        (500, "SomethingNew", UnavailableError, "unavailable", "(SomethingNew); try again later"),
        (429, "TooMany", UnavailableError, "unavailable", "(TooMany); try again later"),
        (401, "SomethingNew", ForbiddenError, "access_denied", "allow s3:"),
        (404, "SomethingNew", NotFoundError, "no_such_key", "does not exist"),
        (409, "SomethingNew", RequestError, "refused", "refused the request for s3://fleet/fw.bin (SomethingNew)"),
        (409, "&lt;script&gt;\n", RequestError, "refused", "(no code)"),
    ],
)
async def test_answers_are_explained_and_leak_nothing(
    status: int, code: str, kind: type[OrchestratorError], ours: str, hint: str
) -> None:
    body = error_document(code, Region="eu-west-3", **SECRETS)
    with (
        scripted(lambda request: Answer(status, b"" if request.method == "HEAD" else body)) as server,
        opened(S3Source(settings(server.endpoint, attempts=1))) as source,
    ):
        for attempt in (source.stat(NAMED), _read(source, Locator(NAMED)), _list(source, NAMED)):
            with pytest.raises(kind) as failed:
                await attempt
            assert type(failed.value) is kind
            assert failed.value.code == ours
            assert hint in failed.value.message
            _assert_no_secret(failed.value)


async def test_the_permission_that_lacks_is_named() -> None:
    with (
        scripted(lambda request: Answer(403, error_document("AccessDenied"))) as server,
        opened(S3Source(settings(server.endpoint, attempts=1))) as source,
    ):
        with pytest.raises(ForbiddenError, match="allow s3:GetObject, s3:GetObjectVersion"):
            await source.stat(NAMED)
        with pytest.raises(ForbiddenError, match="allow s3:ListBucket to this access key"):
            await _list(source, NAMED)


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (200, RequestError, "not_s3"),
        (400, RequestError, "not_s3"),
        (404, RequestError, "not_s3"),
        (502, UnavailableError, "unavailable"),
    ],
)
async def test_a_web_page_is_not_s3(status: int, kind: type[OrchestratorError], code: str) -> None:
    page = b"<!doctype html><html><body>hello<br></body></html>"
    with (
        scripted(lambda request: Answer(status, page, {"Content-Type": "text/html"})) as server,
        opened(S3Source(settings(server.endpoint, attempts=1))) as source,
    ):
        with pytest.raises(kind) as failed:
            await source.stat(NAMED)
        assert failed.value.code == code
        assert server.endpoint in failed.value.message


async def test_a_server_that_answers_get_but_not_head_is_not_s3() -> None:
    with (
        scripted(lambda request: Answer(404 if request.method == "HEAD" else 206, b"x")) as server,
        opened(S3Source(settings(server.endpoint, attempts=1))) as source,
        pytest.raises(RequestError) as failed,
    ):
        await source.stat(NAMED)
    assert failed.value.code == "not_s3"


async def test_xml_that_is_no_list_is_not_s3() -> None:
    with (
        scripted(lambda request: Answer(200, b"<?xml version='1.0'?><html><p>hello</p></html>")) as server,
        opened(S3Source(settings(server.endpoint, attempts=1))) as source,
        pytest.raises(RequestError) as failed,
    ):
        await _list(source, NAMED)
    assert failed.value.code == "not_s3"


async def test_nobody_listens() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        with (
            opened(S3Source(settings(endpoint, attempts=1))) as source,
            pytest.raises(UnavailableError) as failed,
        ):
            await source.stat(NAMED)
    assert failed.value.code == "cannot_connect"
    assert failed.value.message == f"cannot connect to {endpoint}; check the endpoint and the network"


async def test_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            opened(S3Source(settings(endpoint, attempts=1, timeout_s=0.2))) as source,
            pytest.raises(UnavailableError) as failed,
        ):
            await source.stat(NAMED)
    assert failed.value.code == "connection_broken"


async def test_https_to_a_plain_port(bucket_endpoint: str) -> None:
    endpoint = bucket_endpoint.replace("http://", "https://")
    with (
        opened(S3Source(settings(endpoint, attempts=1))) as source,
        pytest.raises(UnavailableError) as failed,
    ):
        await source.stat(NAMED)
    assert failed.value.code == "tls"
    assert "http against https" in failed.value.message


async def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with (
        opened(S3Source(S3Settings("http://127.0.0.1:9", "us-east-1", None, None))) as source,
        pytest.raises(ForbiddenError) as failed,
    ):
        await source.stat(NAMED)
    assert failed.value.code == "no_credentials"


async def test_half_a_login() -> None:
    with (
        opened(S3Source(S3Settings("http://127.0.0.1:9", "us-east-1", "key", None))) as source,
        pytest.raises(ForbiddenError) as failed,
    ):
        await source.stat(NAMED)
    assert failed.value.code == "no_credentials"


@pytest.mark.parametrize(
    "endpoint",
    ["ftp://host", "host:9000", "", "http://user:pass@host", "http://host?x=1", "http://[::1", "http:///path"],
)
def test_an_endpoint_is_a_plain_url(endpoint: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings(endpoint)
    assert refused.value.faults == ["s3.endpoint_url: write http(s)://host[:port], without login and query"]


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        (S3Settings("http://bad_host-.example..", "us-east-1", "k", "s"), "bad_endpoint"),
        (S3Settings(None, "not a region", "k", "s"), "bad_endpoint"),
        (S3Settings(None, "us-east-1", "k", "s", addressing_style="sideways"), "bad_settings"),
    ],
)
async def test_settings_that_cannot_be_used(changed: S3Settings, code: str) -> None:
    with (
        opened(S3Source(changed)) as source,
        pytest.raises(RequestError) as failed,
    ):
        await source.stat(NAMED)
    assert failed.value.code == code


def test_settings_do_not_show_the_secret() -> None:
    assert bucket.SECRET_ACCESS_KEY not in repr(settings("http://127.0.0.1:9"))


def _assert_no_secret(error: OrchestratorError) -> None:
    shown = "".join(traceback.format_exception(error)) + repr(error) + error.message
    for secret in (*SECRETS.values(), bucket.ACCESS_KEY_ID, bucket.SECRET_ACCESS_KEY, "X-Amz-", "Credential="):
        assert secret not in shown
