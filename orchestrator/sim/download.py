"""The download of one artifact over HTTP, as a device must do it.

Rules:
- Every URL, also each that a redirect leads to, passes the verifier's `check_url` before a byte is sent there.
- The device's token goes to its own servers only, and never again once a redirect changed the host.
- A part is taken only if the server says that it continues the same object (`If-Range`, `Content-Range`).
- Bytes are handed on as they come; whether they are the right ones is decided by the device.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from urllib.parse import urljoin, urlsplit

import httpx2

from orchestrator.sim.events import Chunk, Fetch, Opened
from orchestrator.verifier import Device, Refused, check_url

MAX_REDIRECTS = 2
_RANGE = re.compile(r"bytes ([0-9]{1,16})-[0-9]{1,16}/([0-9]{1,16})")
_FINAL = {404: "artifact_missing", 410: "artifact_missing", 416: "bad_range"}


class DownloadError(Exception):
    """A download stopped early.

    Attributes:
        code: stable reason code for the report.
        final: whether trying again cannot help.
    """

    def __init__(self, code: str, *, final: bool) -> None:
        super().__init__(code)
        self.code = code
        self.final = final


class Downloader:
    """Downloads for one device; remembers the object's ETag between two parts.

    Args:
        client: shared HTTP client; it must not follow redirects by itself.
        token: the device's bearer token, or None.
        homes: origins of the device's own servers, the only ones that get the token.

    Attributes:
        homes: the same; they change when the device is moved.
    """

    __slots__ = ("_client", "_etag", "_token", "homes")

    def __init__(self, client: httpx2.AsyncClient, token: str | None, *homes: str) -> None:
        self._client = client
        self._token = token
        self.homes = homes
        self._etag = ""

    async def fetch(self, wish: Fetch, device: Device) -> AsyncGenerator[Opened | Chunk, None]:
        """Yield where the server begins, then the bytes.

        Raises:
            DownloadError: the download stopped early.
        """
        try:
            response = await self._first_open(wish, device)
            try:
                yield Opened(self._begins_at(response, wish))
                async for data in response.aiter_raw():
                    yield Chunk(data)
            finally:
                await response.aclose()
        except httpx2.HTTPError:
            raise DownloadError("link_lost", final=False) from None

    async def _first_open(self, wish: Fetch, device: Device) -> httpx2.Response:
        problem = DownloadError("no_url", final=True)
        for url in wish.urls:
            try:
                return await self._open(url, wish.offset_bytes, device)
            except DownloadError as error:
                problem = error
        raise problem

    async def _open(self, url: str, offset_bytes: int, device: Device) -> httpx2.Response:
        token = self._token if _origin(url) in self.homes else None
        for _ in range(MAX_REDIRECTS + 1):
            _check(url, device)
            request = self._client.build_request("GET", url, headers=self._headers(offset_bytes, token))
            response = await self._client.send(request, stream=True, follow_redirects=False)
            if not response.has_redirect_location:
                return await _usable(response)
            await response.aclose()
            target, origin = _target(url, response.headers["location"])
            token = token if origin == _origin(url) else None
            url = target
        raise DownloadError("too_many_redirects", final=True)

    def _headers(self, offset_bytes: int, token: str | None) -> dict[str, str]:
        headers = {"accept-encoding": "identity"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        if offset_bytes:
            headers["range"] = f"bytes={offset_bytes}-"
            if self._etag:
                headers["if-range"] = self._etag
        return headers

    def _begins_at(self, response: httpx2.Response, wish: Fetch) -> int:
        etag = response.headers.get("etag", "")
        # Only a strong tag promises the same bytes.
        self._etag = "" if etag.startswith("W/") else etag
        if response.status_code == httpx2.codes.PARTIAL_CONTENT:
            part = _RANGE.fullmatch(response.headers.get("content-range", ""))
            if part is None or int(part[2]) != wish.size_bytes:
                raise DownloadError("bad_range", final=False)
            return int(part[1])
        if int(response.headers.get("content-length", wish.size_bytes)) != wish.size_bytes:
            raise DownloadError("size_mismatch", final=True)
        return 0


def _check(url: str, device: Device) -> None:
    try:
        check_url(url, device)
    except Refused as refusal:
        raise DownloadError(refusal.code, final=True) from None


def _target(url: str, location: str) -> tuple[str, str]:
    """Return where a redirect leads to, and the origin of that."""
    try:
        target = urljoin(url, location)
        return target, _origin(target)
    except ValueError:  # brackets that do not match, or letters that become others
        raise DownloadError("url_malformed", final=True) from None


async def _usable(response: httpx2.Response) -> httpx2.Response:
    status = response.status_code
    if status in (httpx2.codes.OK, httpx2.codes.PARTIAL_CONTENT):
        return response
    await response.aclose()
    raise DownloadError(_FINAL.get(status, "download_refused"), final=status in _FINAL)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
