"""Where a request by HTTP goes: the name is looked up once, and the address that was judged is connected to.

Rules:
- No name leads into a network that is not public, unless that network is listed.
- Whoever connects uses the address, and says the name in `Host` and in TLS alone: it is not looked up again.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult

from orchestrator.errors import RequestError, UnavailableError
from orchestrator.wire.hosts import Address, is_public

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """What is connected to.

    Attributes:
        url: with the address in the place of the name.
        host: value of the header `Host`.
        extensions: for the client: the name that TLS asks for.
    """

    url: str
    host: str
    extensions: dict[str, Any]


def target_of(parts: SplitResult, address: Address) -> Target:
    """Return what is connected to for a URL whose name led to this address."""
    shown = f"[{address}]" if address.version == 6 else str(address)
    url = f"{parts.scheme}://{shown}:{port_of(parts)}{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    named = {} if literal(parts.hostname or "") else {"sni_hostname": parts.hostname}
    return Target(url, parts.netloc, named)


async def address_of(host: str, networks: Sequence[Network], key: str) -> Address:
    """Return the first address of a name that may be connected to.

    Args:
        host: the name.
        networks: networks that are not public, and in which it may lie all the same.
        key: where they are listed, for the error.

    Raises:
        UnavailableError: it has no address.
        RequestError: none of its addresses may be connected to.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # the latter where a part of the name is longer than names may be
        raise UnavailableError(f"{host} has no address", code="no_address") from None
    for item in found:
        address = ipaddress.ip_address(item[4][0])
        if is_public(address) or is_listed(address, networks):
            return address
    raise RequestError(f"{host} has no public address, and none in {key}", code="address_not_public")


def is_listed(address: Address, networks: Sequence[Network]) -> bool:
    """Say whether an address lies in one of these networks."""
    return any(address in network for network in networks)


def port_of(parts: SplitResult) -> int:
    """Return the port of a URL of HTTP."""
    return parts.port or PORTS[parts.scheme]


def literal(host: str) -> Address | None:
    """Return the address that is written as such, None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
