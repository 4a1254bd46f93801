"""The end of certificates in files and behind real TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from orchestrator.adapters.certificates import file_expires_at, peer_expires_at
from orchestrator.demo.broker import HOST, free_port
from orchestrator.errors import RequestError, UnavailableError

END = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def make_certificate(folder: Path, end: datetime = END, name: str = "peer") -> tuple[Path, Path]:
    """Write a self-signed certificate that ends at `end`, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begin = end - timedelta(days=100)
    made = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number(), begin, end)
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    certificate, secret = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(pem))
    secret.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return certificate, secret


def test_the_first_end_in_a_file_counts(tmp_path: Path) -> None:
    later, _ = make_certificate(tmp_path, END + timedelta(days=9), "later")
    first, _ = make_certificate(tmp_path)
    chain = tmp_path / "chain.pem"
    chain.write_bytes(later.read_bytes() + first.read_bytes())
    assert file_expires_at(later) == END.timestamp() + 9 * 86_400
    assert file_expires_at(chain) == END.timestamp()


def test_a_file_without_a_certificate_is_refused(tmp_path: Path) -> None:
    _, key = make_certificate(tmp_path)
    with pytest.raises(RequestError, match="holds no certificate in PEM"):
        file_expires_at(key)
    with pytest.raises(UnavailableError, match="cannot be read"):
        file_expires_at(tmp_path / "none.pem")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_end_of_a_peer_is_read_even_if_it_is_over(tmp_path: Path, version: ssl.TLSVersion) -> None:
    certificate, key = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.maximum_version = version
    assert await asked(lambda _, writer: writer.close(), context) == END.timestamp()


async def test_a_peer_that_asks_for_our_certificate_shows_its_own_first(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    assert await asked(lambda _, writer: writer.close(), context) == END.timestamp()


async def test_a_peer_that_speaks_no_tls_is_an_error() -> None:
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:\d+ showed no certificate"):
        await asked(greet)


async def test_a_peer_that_is_away_is_an_error() -> None:
    with pytest.raises(UnavailableError, match="Connection refused"):
        await asyncio.to_thread(peer_expires_at, HOST, free_port(), 5.0)


def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 hello\r\n")
    writer.close()


async def asked(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], None], context: ssl.SSLContext | None = None
) -> float:
    """Ask a server that answers so."""
    server = await asyncio.start_server(answer, HOST, 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        return await asyncio.to_thread(peer_expires_at, HOST, port, 5.0)
