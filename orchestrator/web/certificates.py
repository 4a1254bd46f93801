"""Who calls by a client certificate, as a TLS proxy before us says in a header.

Rules:
- Off unless the configuration names the proxies. The header of anybody else is never looked at; that it came is logged
  once.
- A header that stands twice, a certificate that was not verified or that another authority made, and a name that is no
  device are refused: nobody falls back to a token with a certificate that is wrong.
- Without a certificate the token decides, as everywhere.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

import structlog
from starlette.requests import HTTPConnection

from orchestrator.core.model import Device
from orchestrator.errors import ForbiddenError, PayloadError
from orchestrator.web.certificate_headers import Form, Part, name_in
from orchestrator.web.identity import device_named
from orchestrator.wire.topics import is_identifier

if TYPE_CHECKING:
    from orchestrator.web.context import Context

_VERIFIED, _ABSENT = "SUCCESS", ("", "NONE")
_log = structlog.get_logger(__name__)
_CODE = "bad_certificate"


@dataclass(frozen=True, slots=True)
class CertificateSettings:
    """What proxies say of client certificates.

    Attributes:
        proxies: where the proxies are that may say it; empty for none.
        header: in which header the certificate, or its name, stands.
        form: what stands there.
        part: which name is the identifier of the device.
        verify_header: header that says `SUCCESS` of a certificate that was verified, "" where the proxy passes on
            verified ones alone.
        issuer_header: header with the hash of the certificate's issuer, "" for none.
        issuer_hashes: issuers that count, in lower case.
    """

    proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    header: str = "x-client-cert"
    form: Form = Form.CERTIFICATE
    part: Part = Part.COMMON_NAME
    verify_header: str = "x-client-verify"
    issuer_header: str = ""
    issuer_hashes: tuple[str, ...] = ()


class Certificates:
    """Reads what proxies say.

    Attributes:
        settings: what they say, and which of them may.
    """

    def __init__(self, settings: CertificateSettings = CertificateSettings()) -> None:
        self.settings = settings
        self._has_told = False

    def name(self, connection: HTTPConnection) -> str | None:
        """Return the identifier that a proxy says the caller's certificate carries, None if there is no certificate.

        Raises:
            ForbiddenError: there is one, but it shows no device.
        """
        if not self.settings.proxies:
            return None
        said = connection.headers.getlist(self.settings.header)
        if not self._is_proxy(connection):
            self._tell(connection, said)
            return None
        if not self._is_verified(connection, said):
            return None
        self._check_issuer(connection)
        try:
            name = name_in(_one(said, self.settings.header), self.settings.form, self.settings.part)
        except PayloadError as error:
            raise _refused(error.message) from None
        if not is_identifier(name):
            raise _refused(f"the client certificate is for {name[:64]!r}, which cannot be the identifier of a device")
        return name

    def _is_proxy(self, connection: HTTPConnection) -> bool:
        if connection.client is None:  # the admin socket
            return False
        peer = ip_address(connection.client.host)
        mapped = peer.ipv4_mapped if isinstance(peer, IPv6Address) else None
        return any((mapped or peer) in network for network in self.settings.proxies)

    def _tell(self, connection: HTTPConnection, said: Sequence[str]) -> None:
        if said and not self._has_told:
            self._has_told = True
            peer = connection.client.host if connection.client else ""
            _log.warning("certificates.header_of_a_stranger", peer=peer, header=self.settings.header)

    def _is_verified(self, connection: HTTPConnection, said: Sequence[str]) -> bool:
        """Say whether there is a certificate; one that the proxy did not verify raises."""
        header = self.settings.verify_header
        verdicts = connection.headers.getlist(header) if header else []
        if not any(said) and all(verdict in _ABSENT for verdict in verdicts):
            return False
        if header and _one(verdicts, header) != _VERIFIED:
            raise _refused("the proxy did not verify the client certificate; its log says why")
        return True

    def _check_issuer(self, connection: HTTPConnection) -> None:
        header = self.settings.issuer_header
        if not header:
            return
        said = _one(connection.headers.getlist(header), header).lower().encode("latin-1")
        if not any(hmac.compare_digest(said, known.encode()) for known in self.settings.issuer_hashes):
            raise _refused("the authority of the client certificate is not in client_certificates.issuer_hashes")


async def certified_device(connection: HTTPConnection, context: Context) -> Device | None:
    """Return the device whose certificate a proxy vouches for, None if there is no certificate: then a token decides.

    Raises:
        ForbiddenError: the certificate shows no device, or one that is not registered.
    """
    name = context.certificates.name(connection)
    if name is None:
        return None
    device = await device_named(context, name)
    if device is None:
        raise _refused(f"the client certificate is for {name}, which is not registered; see `ota device add`")
    return device


def _one(values: Sequence[str], header: str) -> str:
    if len(values) != 1:
        raise _refused(f"the header {header} came {len(values)} times; let the proxy set it, and drop that of clients")
    return values[0]


def _refused(text: str) -> ForbiddenError:
    return ForbiddenError(text, code=_CODE)
