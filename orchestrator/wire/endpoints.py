"""The document that says under which addresses devices reach us; it is the artifact of the component `endpoints`.

Rules:
- `decode_endpoints` returns a whole valid document or raises `PayloadError`; it never guesses and normalises nothing.
- Who believes a document has checked its hash against a signed statement; nothing here is about trust.
- Unknown members are ignored, so that newer documents reach older devices; known ones have closed types.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from orchestrator.errors import PayloadError
from orchestrator.wire.topics import is_identifier

COMPONENT = "endpoints"
"""The component whose artifacts are such documents, and whose release counter a device keeps for them."""

FORMAT = "otad-endpoints"
"""Word for the payload format in the statement."""

MAX_DOCUMENT_BYTES = 4096
MAX_ADDRESSES = 4
MAX_ORIGINS = 16
_MAX_ADDRESS = 300
_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?P<scheme>[a-z]+)://(?P<host>{_LABEL}(\.{_LABEL})*)(:(?P<port>[1-9][0-9]{{0,4}}))?")
_LOOPBACK = re.compile(r"(?P<scheme>mqtt|http)://(?P<host>127\.0\.0\.1|localhost|\[::1\])(:(?P<port>[1-9][0-9]{0,4}))?")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)")
_PORTS = {"mqtts": 8883, "mqtt": 1883, "https": 443, "http": 80}


class Address(NamedTuple):
    """One address, taken apart.

    Attributes:
        scheme: `mqtts`, `mqtt`, `https` or `http`; the two without an s lead to loopback only.
        host: a name in lower case, or of loopback; the brackets around `::1` are left out.
        port: the one that is named, or that of the scheme.
    """

    scheme: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a device finds its deployment, first choice first.

    Attributes:
        iss: the deployment.
        mqtt: addresses of brokers; with `http` at least one address in all.
        http: addresses of HTTP servers.
        origins: origins that it may fetch artifacts from, instead of those that it was provisioned with; empty to
            leave these as they are.
    """

    iss: str
    mqtt: tuple[str, ...] = ()
    http: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


_Addresses = Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_ADDRESSES)]


class _Document(msgspec.Struct, frozen=True):
    v: Literal[1]
    iss: str
    mqtt: _Addresses = ()
    http: _Addresses = ()
    origins: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=MAX_ORIGINS)] | msgspec.UnsetType = (
        msgspec.UNSET
    )


def decode_endpoints(payload: bytes, deployment: str | None) -> Endpoints:
    """Decode the document of a `deployment`, or of any if that is None.

    Raises:
        PayloadError: `oversize`; `malformed` (not JSON, or a member that is missing or of another type);
            `duplicate_name`; `foreign_deployment`; `bad_address`, for an address that devices would not go to;
            `no_address`, if there is none at all.
    """
    if len(payload) > MAX_DOCUMENT_BYTES:
        raise PayloadError(f"{len(payload)} bytes; at most {MAX_DOCUMENT_BYTES} are allowed", code="oversize")
    try:
        found = msgspec.convert(json.loads(payload.decode(), object_pairs_hook=_unique), _Document)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"not a document of endpoints: {error!s:.200}", code="malformed") from None
    if not is_identifier(found.iss) or deployment not in (found.iss, None):
        raise PayloadError(f"it is for the deployment {found.iss!a:.80}, not {deployment}", code="foreign_deployment")
    origins = () if found.origins is msgspec.UNSET else found.origins
    endpoints = Endpoints(found.iss, found.mqtt, found.http, origins)
    for addresses, schemes in ((found.mqtt, ("mqtts", "mqtt")), (found.http + origins, ("https", "http"))):
        for address in addresses:
            _check_scheme(address, schemes)
    if not endpoints.mqtt and not endpoints.http:
        raise PayloadError("it names neither a broker nor an HTTP server: nobody would reach us", code="no_address")
    return endpoints


def encode_endpoints(endpoints: Endpoints) -> bytes:
    """Return the JSON bytes of a document; what is empty is left out."""
    lists = {"mqtt": endpoints.mqtt, "http": endpoints.http, "origins": endpoints.origins}
    return msgspec.json.encode({"v": 1, "iss": endpoints.iss} | {name: found for name, found in lists.items() if found})


def split(address: str) -> Address:
    """Take an address apart: `mqtts://host[:port]`, `https://host[:port]`, or `mqtt` and `http` to loopback.

    Raises:
        PayloadError: `bad_address`, as it is none that devices would go to.
    """
    match = None
    if len(address) <= _MAX_ADDRESS:
        match = _LOOPBACK.fullmatch(address) or _NAME.fullmatch(address)
    if match is None:
        raise PayloadError(f"not an address of the form scheme://host[:port]: {address!a:.80}", code="bad_address")
    scheme, host, port = match["scheme"], match["host"], int(match["port"] or 0)
    if match.re is _NAME and scheme not in ("mqtts", "https"):
        raise PayloadError(
            f"{address} must be mqtts or https; plain mqtt and http lead to loopback", code="bad_address"
        )
    if match.re is _NAME and _NUMBER.fullmatch(host.rpartition(".")[2]):
        raise PayloadError(f"{address} names its host by a number; devices want a name", code="bad_address")
    if port > 65_535:
        raise PayloadError(f"{address} has a port above 65535", code="bad_address")
    return Address(scheme, host.strip("[]"), port or _PORTS[scheme])


def _check_scheme(address: str, schemes: tuple[str, str]) -> None:
    if split(address).scheme not in schemes:
        raise PayloadError(f"{address} stands where {' or '.join(schemes)} belongs", code="bad_address")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise PayloadError("a name occurs twice in one object", code="duplicate_name")
    return found
