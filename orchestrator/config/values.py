"""The types of single values in the configuration: what they accept, and the sentence when they do not.

Rules:
- A sentence completes "<key>: ..." and says what to write instead.
- No sentence repeats a value that might be a secret.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from orchestrator.core.targeting.dialect import SIGNATURES
from orchestrator.units import format_duration, format_share, format_size, parse_duration, parse_share, parse_size
from orchestrator.wire import hosts
from orchestrator.wire.topics import is_identifier

_LONGEST_PRESIGN_S = 5 * 86400
_HEADER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_HASH = re.compile(r"[0-9A-Fa-f:]{8,128}")
_NETWORK_SCHEMES = ("http", "https", "mqtt", "mqtts", "s3")


def _identifier(text: str) -> str:
    if not is_identifier(text):
        raise ValueError("must be 1 to 64 of a-z, 0-9, '.', '_' and '-', and begin with a letter or digit")
    return text


def _signature(text: str) -> str:
    if text not in SIGNATURES:
        raise ValueError(f"must be a native signature: {', '.join(SIGNATURES)}")
    return text


def _split_list(value: object) -> object:
    # The environment has no lists: there the entries stand with commas between them.
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _path(value: object) -> object:
    # A pasted secret hardly ever looks like a path; refusing it here keeps it out of every later message.
    if value is None or isinstance(value, Path):
        return value
    if not isinstance(value, str) or "/" not in value or "\n" in value or value.startswith("-----BEGIN"):
        raise ValueError('must be a path with a slash ("./name" for a file here); a secret itself never stands here')
    return Path(value)


def _token_uri(text: str) -> str:
    if not text.startswith("pkcs11:"):
        raise ValueError("must be a URI such as pkcs11:token=ota;object=trigger?module-path=/usr/lib/module.so")
    if "pin-value" in text:
        raise ValueError("must not hold a PIN; put it into a file of mode 0600 and name that in trust.token_pin_file")
    return text


def _url(text: str, *schemes: str) -> SplitResult:
    try:
        url = urlsplit(text)
        host, _ = url.hostname, url.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if url.scheme not in schemes or (not host and url.scheme in _NETWORK_SCHEMES):
        raise ValueError("must begin with " + " or ".join(f"{scheme}://" for scheme in schemes) + " and name a host")
    if "@" in url.netloc:
        raise ValueError("must not hold a user or password; name those in their own keys")
    return url


def _web(text: str) -> SplitResult:
    url = _url(text, "http", "https")
    if not text.isascii() or not hosts.is_plain(text):
        raise ValueError("must hold ASCII without blanks and backslashes; write other names as xn--")
    if fault := hosts.fault_of(url.hostname or ""):
        raise ValueError(fault)
    return url


def _web_url(text: str) -> str:
    url = _web(text)
    if url.query or url.fragment or text.endswith("/"):
        raise ValueError(
            "must be a base such as https://updates.example.net, with nothing after the path and no last /"
        )
    return text


def _origin(text: str) -> str:
    url = _web(text)
    if url.path or url.query or url.fragment or not text.isascii() or text != text.lower():
        raise ValueError("must be an origin such as https://metrics.example.net:8443, with nothing after the port")
    return text


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValueError("must be a network such as 10.0.0.0/8 or fd00::/8") from None
    return text


def _header_name(text: str) -> str:
    if not _HEADER_NAME.fullmatch(text):
        raise ValueError("must be the name of a header, such as x-client-cert")
    return text.lower()


def _hash(text: str) -> str:
    if not _HASH.fullmatch(text):
        raise ValueError("must be a hash in hex, at most 128 characters, with or without colons")
    return text.lower()


def _broker_url(text: str) -> str:
    if _url(text, "mqtt", "mqtts").path:
        raise ValueError("must be mqtt://host:port or mqtts://host:port and no more")
    return text


def _source_url(text: str) -> str:
    _url(text, "s3", "file")
    return text


def _prefix(text: str) -> str:
    if not text.endswith("/") or _url(text, "s3").query:
        raise ValueError("must be s3://bucket/ or s3://bucket/folder/, with the last /")
    return text


def _store_url(text: str) -> str:
    if not text.startswith("sqlite:////"):
        raise ValueError("must be sqlite:// and then an absolute path, such as sqlite:////var/lib/ota/state.db")
    return text


def _listen(text: str) -> str:
    url = urlsplit(f"//{text}")
    try:
        if url.hostname and url.port is not None and url.netloc == text and "@" not in text:
            return text
    except ValueError:
        pass
    raise ValueError('must be an address and a port, such as "127.0.0.1:8080" or "[::1]:8080"')


def _presign_lifetime(seconds: float) -> float:
    if not 1 <= seconds <= _LONGEST_PRESIGN_S:
        raise ValueError('must be between "1s" and "5d"; S3 honours no more than 7d, and one URL serves a while')
    return seconds


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("must be more than nothing")
    return value


def _absolute(value: str | None) -> str | None:
    if value is not None and not Path(value).is_absolute():
        raise ValueError("must be an absolute path")
    return value


Duration = Annotated[float, BeforeValidator(parse_duration), PlainSerializer(format_duration)]
Interval = Annotated[Duration, AfterValidator(_positive)]
Size = Annotated[int, BeforeValidator(parse_size), AfterValidator(_positive), PlainSerializer(format_size)]
Share = Annotated[float, BeforeValidator(parse_share), PlainSerializer(format_share)]
Identifier = Annotated[str, AfterValidator(_identifier)]
Signatures = Annotated[tuple[Annotated[str, AfterValidator(_signature)], ...], BeforeValidator(_split_list)]
FilePath = Annotated[Path | None, BeforeValidator(_path)]
AbsolutePath = Annotated[str | None, AfterValidator(_absolute)]
Count = Annotated[int, Field(ge=1)]
PresignLifetime = Annotated[Duration, AfterValidator(_presign_lifetime)]
Listen = Annotated[str, AfterValidator(_listen)]
WebUrl = Annotated[str, AfterValidator(_web_url)]
BrokerUrl = Annotated[str, AfterValidator(_broker_url)]
TokenUris = Annotated[tuple[Annotated[str, AfterValidator(_token_uri)], ...], BeforeValidator(_split_list)]
StoreUrl = Annotated[str, AfterValidator(_store_url)]
Folders = Annotated[tuple[Path, ...], BeforeValidator(_split_list)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_split_list)]
Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], BeforeValidator(_split_list)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
Hashes = Annotated[tuple[Annotated[str, AfterValidator(_hash)], ...], BeforeValidator(_split_list)]
Users = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], BeforeValidator(_split_list)]
Files = Annotated[tuple[Path, ...], BeforeValidator(_split_list)]
Prefix = Annotated[str, AfterValidator(_prefix)]
Prefixes = Annotated[tuple[Annotated[str, AfterValidator(_source_url)], ...], BeforeValidator(_split_list)]
