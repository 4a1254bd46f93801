"""Artifacts in an S3 bucket, or in anything that speaks its protocol.

Rules:
- Every call runs in our own small thread pool: the loop never waits for a socket.
- What was looked at is pinned: by VersionId, or by ETag where the bucket keeps no versions.
- Integrity is never taken from S3: the importer hashes what arrives.
- Every botocore error becomes one of ours in `s3_errors`; nothing secret gets into its text.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from orchestrator.adapters.s3_errors import FAILURES, Asked, bad_uri, changed, explain, not_s3
from orchestrator.errors import ConfigError, RequestError, TrustError, UnavailableError
from orchestrator.ports import Found, Locator

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client

CHUNK_BYTES: Final = 1 << 20
THREADS: Final = "s3-call"
LONGEST_URL_S: Final = 7 * 24 * 3600
_CONNECTIONS = 10
"""As many as botocore keeps open."""
_SCHEME = "s3://"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_ENDPOINT = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?")
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_READ = "s3:GetObject, s3:GetObjectVersion and s3:ListBucket (without the last a missing key looks the same)"
_LIST = "s3:ListBucket"

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class S3Settings:
    """Where the buckets are and who we are there.

    Attributes:
        endpoint_url: `http(s)://host[:port]` of an S3 interface, or None for Amazon S3; holds no login, so that
            it may stand in a log.
        region: region of the buckets.
        access_key_id: None for the default chain of boto3 (environment, profile, role).
        secret_access_key: goes with `access_key_id`.
        addressing_style: `path`, `virtual`, or `auto`.
        timeout_s: longest wait for a connection, and for each next piece of an answer.
        attempts: how often a request is made at most, with back-off.

    Raises:
        ConfigError: the endpoint is not a plain URL.
    """

    endpoint_url: str | None
    region: str
    access_key_id: str | None
    secret_access_key: str | None = field(repr=False)
    addressing_style: str = "auto"
    timeout_s: float = 10
    attempts: int = 4

    def __post_init__(self) -> None:
        if self.endpoint_url is not None and _ENDPOINT.fullmatch(self.endpoint_url) is None:
            raise ConfigError(["s3.endpoint_url: write http(s)://host[:port], without login and query"])

    @property
    def origin(self) -> str:
        """The endpoint, for a person."""
        return self.endpoint_url or f"Amazon S3 in {self.region}"


class S3Source:
    """`ports.ArtifactSource` for `s3://bucket/key`.

    Args:
        settings: endpoint and credentials.
        clock: present time in epoch seconds.
        sleep: waits between two tries of one broken download.
    """

    def __init__(
        self,
        settings: S3Settings,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._pool = ThreadPoolExecutor(max_workers=_CONNECTIONS, thread_name_prefix=THREADS)
        self._building = threading.Lock()
        self._built: S3Client | None = None
        self._signing = asyncio.Lock()
        self._urls: dict[tuple[Locator, int], tuple[float, str]] = {}

    def close(self) -> None:
        """Give the threads back; calls under way end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def serves(self, uri: str) -> bool:
        """Say whether `uri` is an address in S3."""
        return uri.startswith(_SCHEME)

    async def stat(self, uri: str) -> Found:
        """Look at an object and pin its present version; see `ports.ArtifactSource`."""
        bucket, key = _parse(uri)
        answer = await self._run(_READ, uri, lambda s3: _look(s3, bucket, key))
        if not answer.get("ETag"):
            raise not_s3(self._asked(_READ, uri), "no ETag")
        version = answer.get("VersionId", "null")
        # "null" is what a bucket without versions calls its only one: it can be overwritten.
        pinned = answer["ETag"] if version == "null" else version
        return Found(Locator(uri, pinned), answer["ContentLength"], answer["ETag"])

    async def read(self, locator: Locator, *, limit_bytes: int) -> AsyncIterator[bytes]:
        """Stream the pinned bytes, resuming a broken connection; see `ports.ArtifactSource`."""
        bucket, key = _parse(locator.uri)
        download = _Download(locator.uri, {"Bucket": bucket, "Key": key, **_pin(locator)}, limit_bytes)
        try:
            while chunk := await self._next_chunk(download):
                yield chunk
        finally:
            self._drop(download)

    async def read_part(self, locator: Locator, start: int, end: int) -> bytes:
        """Return some of the pinned bytes, by one request or, where it breaks, several; see `ports.ArtifactSource`."""
        bucket, key = _parse(locator.uri)
        place = {"Bucket": bucket, "Key": key, **_pin(locator)}
        download, part = _Download(locator.uri, place, end - start, start, end), bytearray()
        try:
            while len(part) < end - start and (chunk := await self._next_chunk(download)):
                part += chunk
        finally:
            self._drop(download)
        if len(part) != end - start:
            raise changed(locator.uri)
        return bytes(part)

    async def list(self, prefix: str) -> AsyncIterator[Found]:
        """List the objects below `s3://bucket/prefix`, each pinned by ETag; see `ports.ArtifactSource`."""
        bucket, start = _parse(prefix, may_be_empty=True)
        pages = await self._run(_LIST, prefix, lambda s3: iter(_pages(s3, bucket, start)))
        while (page := await self._run(_LIST, prefix, lambda _: next(pages, None))) is not None:
            if "Name" not in page:
                raise not_s3(self._asked(_LIST, prefix), "no list")
            for item in page.get("Contents", ()):
                if not item["Key"].endswith("/"):
                    locator = Locator(f"{_SCHEME}{bucket}/{item['Key']}", item["ETag"])
                    yield Found(locator, item["Size"], item["ETag"])

    async def local_path(self, locator: Locator) -> None:
        """Return None: the bytes lie elsewhere."""
        del locator

    async def download_url(self, locator: Locator, *, valid_s: int) -> str:
        """Return a presigned URL that is good for `valid_s` to 1.25 times `valid_s` seconds from now.

        Signing costs more than a poll, so one URL serves all who ask in the same quarter of `valid_s`.
        An ETag cannot be pinned in a URL: there the device's own hash check is what protects it.

        Raises:
            RequestError: `valid_s` is not within 1 second and 5 days.
        """
        window_s = -(-valid_s // 4)
        if valid_s < 1 or valid_s + window_s > LONGEST_URL_S:
            raise RequestError("a presigned URL can be valid for 1 second to 5 days", code="bad_lifetime")
        async with self._signing:
            now = self._clock()
            self._urls = {asked: known for asked, known in self._urls.items() if known[0] > now}
            if (locator, valid_s) not in self._urls:
                url = await self._sign(locator, valid_s + window_s)
                self._urls[locator, valid_s] = ((now // window_s + 1) * window_s, url)
            return self._urls[locator, valid_s][1]

    async def _sign(self, locator: Locator, life_s: int) -> str:
        bucket, key = _parse(locator.uri)
        place = {"Bucket": bucket, "Key": key, **_pin(locator)}
        place.pop("IfMatch", None)
        return await self._run(
            _READ, locator.uri, lambda s3: s3.generate_presigned_url("get_object", Params=place, ExpiresIn=life_s)
        )

    async def _next_chunk(self, download: _Download) -> bytes:
        while True:
            try:
                return await self._run(_READ, download.uri, download.next_chunk)
            except UnavailableError:
                download.breaks += 1
                # Where no body came, botocore has tried often enough; where one broke, nobody has.
                if download.body is None or download.breaks >= self._settings.attempts:
                    raise
            self._drop(download)
            await self._sleep(0.5 * 2**download.breaks)

    def _drop(self, download: _Download) -> None:
        body, download.body = download.body, None
        if body is not None:
            # In the pool, because closing waits for a read that was given up; without a pool the process ends anyway.
            with suppress(RuntimeError):
                self._pool.submit(body.close)

    async def _run(self, action: str, uri: str, work: Callable[[S3Client], _Result]) -> _Result:
        def job() -> _Result:
            try:
                return work(self._client())
            except FAILURES as error:
                raise explain(error, self._asked(action, uri)) from None

        return await asyncio.get_running_loop().run_in_executor(self._pool, job)

    def _asked(self, action: str, uri: str) -> Asked:
        return Asked(uri, action, self._settings.origin, self._settings.region)

    def _client(self) -> S3Client:
        with self._building:
            if self._built is None:
                self._built = _build(self._settings)
            return self._built


@dataclass(slots=True)
class _Download:
    """One pinned object, or the part of it from `start` to `end`, on its way; used by one thread at a time."""

    uri: str
    place: dict[str, Any]
    limit_bytes: int
    start: int = 0
    end: int | None = None
    received_bytes: int = 0
    breaks: int = 0
    body: StreamingBody | None = None

    def next_chunk(self, s3: S3Client) -> bytes:
        if self.body is None:
            self.body = self._open(s3)
        chunk: bytes = self.body.read(CHUNK_BYTES)
        self.received_bytes += len(chunk)
        return chunk

    def _open(self, s3: S3Client) -> StreamingBody:
        begin = self.start + self.received_bytes
        if begin or self.end is not None:
            self.place["Range"] = f"bytes={begin}-{'' if self.end is None else self.end - 1}"
        answer = s3.get_object(**self.place)
        body = answer["Body"]
        size_bytes = self.received_bytes + answer["ContentLength"]
        if size_bytes > self.limit_bytes:
            body.close()
            text = f"{self.uri} has {size_bytes} bytes; at most {self.limit_bytes} are allowed"
            raise TrustError(text, code="too_large")
        if "VersionId" not in self.place and "ETag" in answer:
            self.place["IfMatch"] = answer["ETag"]
        return body


def _parse(uri: str, *, may_be_empty: bool = False) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix(_SCHEME).partition("/")
    sound = (
        uri.startswith(_SCHEME)
        and _BUCKET.fullmatch(bucket) is not None
        and (may_be_empty or key != "")
        and len(key.encode()) <= 1024
        and key.isprintable()
        # URL libraries resolve dot segments, which would lead out of the bucket.
        and not {".", ".."} & set(key.split("/"))
    )
    if not sound:
        raise bad_uri(uri)
    return bucket, key


def _pin(locator: Locator) -> dict[str, str]:
    if locator.version is None:
        return {}
    # An ETag comes in quotes, a VersionId never does.
    return {"IfMatch" if locator.version.startswith('"') else "VersionId": locator.version}


def _look(s3: S3Client, bucket: str, key: str) -> Mapping[str, Any]:
    try:
        return s3.head_object(Bucket=bucket, Key=key)
    except ClientError:
        # An answer to HEAD has no body; only GET says whether bucket, key, right or signature is wrong.
        s3.get_object(Bucket=bucket, Key=key, Range="bytes=0-0")["Body"].close()
        raise


def _pages(s3: S3Client, bucket: str, start: str) -> Any:
    return s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start)


def _build(settings: S3Settings) -> S3Client:
    host = urlsplit(settings.endpoint_url or "").hostname
    # For Amazon "auto" presigns to the global host, which redirects; "virtual" names the region.
    style = "virtual" if host is None and settings.addressing_style == "auto" else settings.addressing_style
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": style},  # type: ignore[arg-type]
        connect_timeout=settings.timeout_s,
        read_timeout=settings.timeout_s,
        retries={"mode": "standard", "total_max_attempts": settings.attempts},
        proxies={} if host in _LOOPBACK else None,
        # We hash ourselves; other servers than Amazon's often lack these checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=settings.endpoint_url,
            region_name=settings.region,
            aws_access_key_id=settings.access_key_id,
            aws_secret_access_key=settings.secret_access_key,
            config=config,
        )
    except ValueError:
        text = f"{settings.origin} cannot be an S3 endpoint in region {settings.region!r}; write http(s)://host[:port]"
        raise RequestError(text, code="bad_endpoint") from None
