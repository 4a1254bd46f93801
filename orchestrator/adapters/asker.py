"""Asks services over HTTP, where the configuration lets us. Implements `ports.Asker`.

Rules:
- Only origins that are listed are asked, nothing is followed elsewhere, and no proxy of the environment is used.
- The name of a service is looked up once per question, and the address that was judged is the one that is connected to.
- An address that is not public is connected to only if it lies in a network that is listed, or is itself the origin.
- No more of an answer is read than a gate may hold.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import httpx2

from orchestrator.adapters.reach import PORTS, Network, address_of, literal, port_of, target_of
from orchestrator.core.judging.outside import MAX_BODY_BYTES
from orchestrator.errors import RequestError, UnavailableError
from orchestrator.wire.hosts import Address, is_plain

_WAIT_S = 30.0
"""Whoever asks has a deadline of its own; this one ends what it left behind."""


@dataclass(frozen=True, slots=True)
class AskerSettings:
    """Whom we may ask.

    Attributes:
        origins: such as `https://metrics.example.net` or `http://10.0.0.5:9090`.
        networks: networks that are not public, and in which services may lie all the same.
    """

    origins: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()


class HttpAsker:
    """Asks services over HTTP.

    Args:
        settings: whom we may ask.
        trust: whose certificates hold; None for those of the system.
    """

    def __init__(self, settings: AskerSettings, trust: ssl.SSLContext | None = None) -> None:
        self._settings = settings
        self._trust = trust or ssl.create_default_context()

    def may_ask(self, url: str) -> bool:
        """Say whether the origin of a URL is listed."""
        return origin_of(_split(url)) in self._settings.origins

    async def ask(self, url: str) -> bytes:
        """See `ports.Asker.ask`."""
        parts = _split(url)
        if origin_of(parts) not in self._settings.origins:
            raise RequestError(f"{origin_of(parts)} is not listed in gates.origins", code="origin_not_listed")
        address = await self._address(parts)
        try:
            return await self._get(parts, address)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise UnavailableError(f"no answer ({type(error).__name__})", code="no_answer") from None

    async def _address(self, parts: SplitResult) -> Address:
        host = parts.hostname or ""
        written = literal(host)
        if written is not None:
            return written  # it is listed as it stands
        return await address_of(host, self._settings.networks, "gates.networks")

    async def _get(self, parts: SplitResult, address: Address) -> bytes:
        target = target_of(parts, address)
        headers = {"Host": target.host, "Accept": "application/json", "Accept-Encoding": "identity"}
        client = httpx2.AsyncClient(verify=self._trust, trust_env=False, follow_redirects=False, timeout=_WAIT_S)
        async with client, client.stream("GET", target.url, headers=headers, extensions=target.extensions) as response:
            if response.status_code != httpx2.codes.OK:
                raise UnavailableError(f"it answered {response.status_code}", code="bad_answer")
            return await _read(response)


def origin_of(parts: SplitResult) -> str:
    """Return the origin of a URL as it is listed: without the port that its scheme has anyway."""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = port_of(parts)
    return f"{parts.scheme}://{host}" + ("" if port == PORTS[parts.scheme] else f":{port}")


def settings_of(origins: Iterable[str], networks: Iterable[str]) -> AskerSettings:
    """Return settings from checked texts."""
    return AskerSettings(
        frozenset(origin_of(urlsplit(origin)) for origin in origins),
        tuple(ipaddress.ip_network(network) for network in networks),
    )


async def _read(response: httpx2.Response) -> bytes:
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise UnavailableError(f"its answer is larger than {MAX_BODY_BYTES} bytes", code="bad_answer")
    return bytes(body)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port_of(parts)
    except (ValueError, KeyError):
        raise RequestError("it is no address of a service", code="bad_url") from None
    if "@" in parts.netloc or not is_plain(url):
        raise RequestError("it holds a user, a blank or a backslash, which no service is asked with", code="bad_url")
    return parts
