"""When certificates end: those in files, and those that a TLS peer shows.

Rules:
- The earliest end counts: a chain is good for no longer than its shortest part.
- A peer is asked for its certificate and told nothing: it is not verified, because one that has expired is
  just what is looked for. Whoever talks to the peer verifies it.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from cryptography import x509

from orchestrator.errors import RequestError, UnavailableError

TIMEOUT_S = 10.0
_MOST_BYTES = 1024 * 1024


def file_expires_at(path: Path) -> float:
    """Return when the first of the certificates in a PEM file ends. Blocks.

    Raises:
        UnavailableError: the file cannot be read.
        RequestError: it holds no certificate.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES)
    except OSError as error:
        text = f"{path} cannot be read ({error.strerror}); its end is not watched until it can"
        raise UnavailableError(text, code="unreadable") from None
    try:
        return min(_end(certificate) for certificate in x509.load_pem_x509_certificates(data))
    except ValueError:
        raise RequestError(f"{path} holds no certificate in PEM; name one that does", code="no_certificate") from None


def peer_expires_at(host: str, port: int, timeout_s: float = TIMEOUT_S) -> float:
    """Return when the certificate ends that a TLS server shows. Blocks.

    Args:
        host: name or address, also told to the server as the name that is wanted.
        port: TCP port.
        timeout_s: for the connection, and for each answer.

    Raises:
        UnavailableError: it cannot be reached, or does not speak TLS with us.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout_s) as connection,
            context.wrap_socket(connection, server_hostname=host) as peer,
        ):
            shown = peer.getpeercert(binary_form=True)
    except (OSError, UnicodeError) as error:  # TLS errors are among the former, what is no name of a host the latter
        said = getattr(error, "strerror", None) or error
        text = f"{host}:{port} showed no certificate ({said}); its end is not known"
        raise UnavailableError(text, code="no_certificate") from None
    assert shown is not None, "a TLS server always shows a certificate"
    return _end(x509.load_der_x509_certificate(shown))


def _end(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()
