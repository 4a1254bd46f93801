"""Hosts in addresses that people write, and where they may lead.

Rules:
- A host is what it looks like: spellings that another program reads as another host are refused, not understood.
- Nobody has a service of ours where a machine asks who it is: link-local networks, and the clouds' own addresses.
- An IPv6 address that carries an IPv4 address is judged as nothing: whoever means the latter writes it.
"""

from __future__ import annotations

import ipaddress
import re

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_NAME_CHARS = 253
"""Of a name (RFC 1035 2.3.4, without the length octets); each of its parts has at most 63."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*", re.ASCII)
_CARRIERS = tuple(
    ipaddress.ip_network(text) for text in ("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16")
)
_ASKED_WHO_ONE_IS = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "fd00:ec2::254")))
_ASKED_BY_NAME = frozenset({"metadata", "metadata.google.internal", "instance-data"})


def fault_of(host: str) -> str | None:
    """Return what is wrong with the host of an address as it is written there, None if nothing is.

    Args:
        host: a name, or an IP address without brackets.
    """
    plain = host.rstrip(".").lower()
    if plain in _ASKED_BY_NAME:
        return "must not lead to where a machine asks who it is"
    if ":" not in host and not _NUMBER.fullmatch(plain.rpartition(".")[2]):
        return _fault_of_name(host)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "must write the address of its host in the usual way, such as 10.0.0.5 or [fd00::5]"
    if _carries(address):
        return "must write an IPv4 address as such"
    leads_astray = (
        address.is_link_local or address.is_multicast or address.is_unspecified or address in _ASKED_WHO_ONE_IS
    )
    return (
        "must not lead to a link-local or multicast address, or to where a machine asks who it is"
        if leads_astray
        else None
    )


def _fault_of_name(host: str) -> str | None:
    if len(host.rstrip(".")) > MAX_NAME_CHARS:
        return f"must name its host in at most {MAX_NAME_CHARS} characters"
    if not _NAME.fullmatch(host):
        return "must name its host in letters, digits, hyphens and dots, with at most 63 between two dots"
    return None


def is_plain(url: str) -> bool:
    """Say whether an address holds nothing that some parsers drop, or take for a slash."""
    return url.isprintable() and not set(url) & {"\\", " "}


def is_public(address: Address) -> bool:
    """Say whether an address that a name led to is one of the public network, whatever it carries."""
    return address.is_global and not address.is_multicast and not _carries(address)


def _carries(address: Address) -> bool:
    """Say whether an address has another one within it; the loopback address lies in such a network and has none."""
    return address.version == 6 and not address.is_loopback and any(address in network for network in _CARRIERS)
