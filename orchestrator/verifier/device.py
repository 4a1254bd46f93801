"""The device: who it is, what it trusts, what it keeps, and where it may fetch from.

Rules:
- Data only: the verifier returns what is to be stored, and stores nothing.
- Origins are compared as text: nothing is normalised, hence nothing to get wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.verifier.reasons import Refused, require
from orchestrator.verifier.token import PublicKey

MAX_URL_BYTES = 4096
_URL = re.compile(r"([a-z]+)://([!$-.:;=?-Z\[\]_a-z~0-9]*)/[!$-;=?-Z\[\]_a-z~]*")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[1-9][0-9]{0,4})?")
_ADDRESS = re.compile(r"\[.*|(.*\.)?(0x[0-9a-f]*|[0-9]+)(:[0-9]*)?")
_LOOPBACK = re.compile(r"(127\.0\.0\.1|\[::1\]|localhost)(:[1-9][0-9]{0,4})?")


@dataclass(frozen=True, slots=True)
class Component:
    """Durable state of one component; the agent raises `rel`, `sec` and `sha256` when it confirms a release."""

    name: str
    rel: int  # running release
    sec: int  # security epoch reached
    seq: int  # highest sequence number accepted
    held: str = ""  # token hash of the trigger held
    att: str = ""  # attempt held
    sha256: str = ""  # hash of the running image in base64url, "" if unknown
    recall: str = ""  # token hash of the last recall, "" once a trigger was accepted after it


@dataclass(frozen=True, slots=True)
class Device:
    """Who the device is, what it was provisioned to trust, and what it keeps."""

    id: str
    groups: tuple[str, ...]
    model: str
    iss: str  # deployment it belongs to
    ep: int  # key epoch
    keys: Mapping[str, PublicKey]  # by `kid`
    components: Mapping[str, Component]  # by name
    allowed_origins: tuple[str, ...]  # `scheme://host[:port]` it may fetch from, compared exactly
    loopback: bool = False  # whether plain http to loopback is allowed, for rehearsals
    need_cosign: int = 0  # persons that must sign a warrant, 0 if there can be no emergency
    need_root: int = 0  # root keys that must sign the next keyset, 0 if it can have none
    floor: int = 0  # lowest sequence number that is still good
    beat_iat: int = 0  # when the last beat was issued, 0 before the first


def check_url(url: str, device: Device) -> None:
    """Check a download URL, and every URL that a redirect leads to before following it; raises `Refused`."""
    match = _URL.fullmatch(url)
    if match is None or len(url) > MAX_URL_BYTES:
        raise Refused("url_malformed", ascii(url[:80]))
    scheme, authority = match.groups()
    require("url_userinfo", "@" not in authority, authority)
    if not (scheme == "http" and device.loopback and _LOOPBACK.fullmatch(authority)):
        require("url_scheme", scheme == "https", scheme)
        require("url_ip_literal", not _ADDRESS.fullmatch(authority), authority)
        require("url_malformed", _HOST.fullmatch(authority), authority)
    require("url_origin", f"{scheme}://{authority}" in device.allowed_origins, authority)
