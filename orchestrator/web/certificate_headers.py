"""What TLS proxies write into a header about the certificate of a client, and which name it carries.

Rules:
- A name is taken only where there is no doubt: one common name, one DNS name, one certificate, one hop.
- Nothing is guessed: the form is the configuration's, and what is not of that form is refused.
- The proxy has verified the certificate; here it is only read, and every text of it is a stranger's.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Iterator
from enum import StrEnum
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.x509.oid import NameOID

from orchestrator.errors import PayloadError

MAX_CHARS = 8192
"""A header is refused beyond this; a certificate of a device takes about 1,000."""

_CODE = "bad_certificate"
_PRINTED = re.compile(r"[\x20-\x7e]*")
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_TYPE = re.compile(r" *([A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)*)=")
_VALUE = re.compile(r"(?:[^\\,+\"<>;\x00]|\\[0-9A-Fa-f]{2}|\\[ \"#+,;<=>\\])*")
_ESCAPE = re.compile(rb"\\([0-9A-Fa-f]{2}|.)")
_PAIR = re.compile(r'([A-Za-z]+)=("[^"]*"|[^",;=]*)')
_COMMON_NAMES = frozenset({"cn", "commonname", "2.5.4.3"})
_UNREADABLE = (
    ValueError,
    x509.InvalidVersion,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


class Form(StrEnum):
    """What stands in the header.

    `certificate` is PEM with percent escapes (nginx), or DER in Base64, colons around it or not (Caddy, HAProxy,
    RFC 9440); `xfcc` is Envoy's list; `subject` a distinguished name (RFC 4514); `name` the bare name of the device.
    """

    CERTIFICATE = "certificate"
    XFCC = "xfcc"
    SUBJECT = "subject"
    NAME = "name"


class Part(StrEnum):
    """Which name of a certificate is the device's identifier."""

    COMMON_NAME = "common_name"
    DNS_NAME = "dns_name"


def name_in(text: str, form: Form, part: Part) -> str:
    """Return the name that a header carries.

    Args:
        text: value of the header.
        form: what stands in it.
        part: which name of the certificate counts; a subject and a bare name have but one.

    Raises:
        PayloadError: it is not of that form, or does not carry exactly one such name.
    """
    if len(text) > MAX_CHARS or not _PRINTED.fullmatch(text):
        raise _fault(f"the header is longer than {MAX_CHARS} characters, or not plain text")
    match form:
        case Form.CERTIFICATE:
            return _of_certificate(text, part)
        case Form.XFCC:
            return _of_xfcc(text, part)
        case Form.SUBJECT:
            return _single(list(common_names(text)), "common name")
        case Form.NAME:
            return text


def common_names(subject: str) -> Iterator[str]:
    """Yield the common names of a distinguished name as RFC 4514 writes it.

    Raises:
        PayloadError: it is none. The form with slashes is none: a slash in a name reads there like another name.
    """
    at = 0
    while at <= len(subject):
        kind = _TYPE.match(subject, at)
        value = _VALUE.match(subject, kind.end()) if kind else None
        if kind is None or value is None or subject[value.end() : value.end() + 1] not in ("", ",", "+"):
            raise _fault("the subject is no distinguished name such as CN=dev-0001,O=Example (RFC 4514)")
        if kind[1].lower() in _COMMON_NAMES:
            yield _plain(value[0])
        at = value.end() + 1


def _of_certificate(text: str, part: Part) -> str:
    try:
        certificate = x509.load_der_x509_certificate(_der(text))
        if part is Part.COMMON_NAME:
            names = [str(item.value) for item in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        else:
            extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            names = extension.value.get_values_for_type(x509.DNSName)
    except _UNREADABLE:  # also what is wrong deep in it
        raise _fault(f"the header holds no certificate with a {_words(part)}") from None
    return _single(names, _words(part))


def _der(text: str) -> bytes:
    """Return the certificate that stands in a header, as DER.

    Raises:
        ValueError: it is neither PEM with percent escapes nor Base64.
    """
    if text.startswith(_BEGIN[:5]):
        pem = unquote_to_bytes(text).decode("ascii").strip()
        if not pem.startswith(_BEGIN) or not pem.endswith(_END) or pem.count(_BEGIN) != 1:
            raise ValueError("not one certificate")
        text = "".join(pem[len(_BEGIN) : -len(_END)].split())
    elif len(text) > 2 and text[0] == text[-1] == ":":
        text = text[1:-1]
    try:
        return b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not Base64") from None


def _of_xfcc(text: str, part: Part) -> str:
    said = list(_pairs(text))
    if part is Part.DNS_NAME:
        return _single([value for key, value in said if key == "dns"], _words(part))
    subject = _single([value for key, value in said if key == "subject"], "subject")
    return _single(list(common_names(subject)), _words(part))


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Yield the keys, in lower case, and values of what one Envoy says; a name with a quote in it is refused."""
    at = 0
    while at <= len(text):
        pair = _PAIR.match(text, at)
        after = text[pair.end() : pair.end() + 1] if pair else ""
        if pair is not None and after == ",":
            raise _fault("several hops speak of a certificate; let the proxy use SANITIZE_SET, so that it alone does")
        if pair is None or after not in ("", ";"):
            raise _fault("the header is no x-forwarded-client-cert as Envoy writes it")
        yield pair[1].lower(), pair[2][1:-1] if pair[2].startswith('"') else pair[2]
        at = pair.end() + 1


def _plain(value: str) -> str:
    """Return the text of a value without its escapes."""
    if value.startswith("#"):
        raise _fault("the common name is written in hex; give the device a plain one")
    try:
        return _ESCAPE.sub(_unescaped, value.encode()).decode()
    except UnicodeDecodeError:
        raise _fault("the common name is not UTF-8") from None


def _unescaped(found: re.Match[bytes]) -> bytes:
    return bytes.fromhex(found[1].decode()) if len(found[1]) == 2 else found[1]


def _single(names: list[str], what: str) -> str:
    if len(names) != 1:
        raise _fault(f"it carries {len(names)} of {what}; exactly one says who the device is")
    return names[0]


def _words(part: Part) -> str:
    return part.replace("_", " ")


def _fault(text: str) -> PayloadError:
    return PayloadError(f"client certificate: {text}", code=_CODE)
