"""Sends events by HTTP. Implements `ports.Poster`.

Rules:
- The name is looked up once, and the address that was judged is connected to; nothing is followed elsewhere, and no
  proxy of the environment is used.
- What is not encrypted goes into listed networks alone.
- Of an answer only its status is read, and when to come again.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import httpx2

from orchestrator.adapters.reach import Network, address_of, is_listed, literal, target_of
from orchestrator.errors import RequestError, UnavailableError
from orchestrator.ports import Reply
from orchestrator.wire.hosts import fault_of, is_plain, is_public

_KEY = "webhooks.networks"
_WAIT_S = 30.0
"""Whoever sends has a deadline of its own; this one ends what it left behind."""
_AGENT = "ota-orchestrator"


class HttpPoster:
    """Sends events by HTTP.

    Args:
        networks: networks that are not public, and in which destinations may lie all the same.
        trust: whose certificates hold; None for those of the system.
    """

    def __init__(self, networks: Sequence[Network], trust: ssl.SSLContext | None = None) -> None:
        self._networks = tuple(networks)
        self._trust = trust or ssl.create_default_context()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """See `ports.Poster.post`."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        if not is_plain(url) or (fault_of(host) is not None):
            raise RequestError("the address of the webhook cannot be used", code="bad_url")
        address = literal(host)
        if address is None:
            address = await address_of(host, self._networks, _KEY)
        listed = is_listed(address, self._networks)
        if not listed and not is_public(address):
            raise RequestError(f"{host} is no public address, and lies in none of {_KEY}", code="address_not_public")
        if parts.scheme != "https" and not listed:
            raise RequestError(f"only https:// goes to {host}, which lies in none of {_KEY}", code="not_encrypted")
        target = target_of(parts, address)
        sent = {**headers, "Host": target.host, "User-Agent": _AGENT, "Accept-Encoding": "identity"}
        client = httpx2.AsyncClient(verify=self._trust, trust_env=False, follow_redirects=False, timeout=_WAIT_S)
        try:
            async with (
                client,
                client.stream("POST", target.url, content=body, headers=sent, extensions=target.extensions) as response,
            ):
                return Reply(int(response.status_code), response.headers.get("retry-after", ""))
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise UnavailableError(f"no answer ({type(error).__name__})", code="no_answer") from None
