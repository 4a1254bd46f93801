"""Certificates for tests: an authority of the test's own, and what it signs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, as files."""

    cert: str
    key: str


class Authority:
    """Signs certificates; its own is in `cert`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._own = self._build(name, self._key, authority=True)
        self.cert = str(self._write(f"{name}.pem", self._own.public_bytes(serialization.Encoding.PEM)))

    def issue(self, name: str, *hosts: str) -> Pair:
        """Return a certificate for `name` that also stands for 127.0.0.1 and further hosts."""
        key = ec.generate_private_key(ec.SECP256R1())
        cert = self._build(name, key, *hosts, authority=False)
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Pair(
            str(self._write(f"{self._name}-{name}.pem", cert.public_bytes(serialization.Encoding.PEM))),
            str(self._write(f"{self._name}-{name}.key", secret)),
        )

    def _build(self, name: str, key: ec.EllipticCurvePrivateKey, *hosts: str, authority: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        names = [x509.IPAddress(ip_address("127.0.0.1")), *map(x509.DNSName, hosts)]
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _write(self, name: str, data: bytes) -> Path:
        path = self._folder / name
        path.write_bytes(data)
        path.chmod(0o600)
        return path
