"""Keys in PEM files, or in systemd credentials, which are files too.

Rules:
- A key that others may read is refused, not warned about.
- Signing is deterministic (RFC 6979): equal bytes give equal signatures, and no random source can leak the key.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from orchestrator.errors import ForbiddenError, NotFoundError, RequestError
from orchestrator.wire.token import key_id

MAX_KEY_FILE_BYTES = 16_384
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
SIGNATURE_BYTES = 64
_ALGORITHM = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)


def low_s(signature: bytes) -> bytes:
    """Return `r || s` with the low one of the two `s` that hold.

    Raises:
        ValueError: these are not 64 bytes.
    """
    if len(signature) != SIGNATURE_BYTES:
        raise ValueError(f"a signature has {SIGNATURE_BYTES} bytes, not {len(signature)}")
    s = int.from_bytes(signature[32:], "big")
    return signature[:32] + min(s, ORDER - s).to_bytes(32, "big")


def check_mode(status: os.stat_result, path: Path) -> None:
    """Refuse a secret file that others may read or change.

    Raises:
        ForbiddenError: with the command that mends it.
    """
    # systemd hands credentials over as files of root with an access list, which shows as group-readable.
    if status.st_uid not in (0, os.geteuid()):
        raise ForbiddenError(
            f"secret file {path} belongs to another user; run `chown {os.geteuid()} {path}`", code="key_exposed"
        )
    exposed = stat.S_IRWXO if status.st_uid != os.geteuid() else stat.S_IRWXG | stat.S_IRWXO
    if status.st_mode & exposed:
        raise ForbiddenError(f"secret file {path} is open to others; run `chmod 600 {path}`", code="key_exposed")


class FileSigner:
    """A `ports.Signer` whose key came from a PEM file."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        numbers = key.public_key().public_numbers()
        self._key = key
        self.x = numbers.x.to_bytes(32, "big")
        self.y = numbers.y.to_bytes(32, "big")
        self._kid = key_id(self.x, self.y)

    @classmethod
    def load(cls, path: Path) -> FileSigner:
        """Load an unencrypted PEM file (PKCS #8) with a P-256 key.

        Raises:
            NotFoundError: no such file.
            ForbiddenError: we may not read it, or others may.
            RequestError: it is not such a key.
        """
        return cls(_private_key(_read(path), path))

    @property
    def kid(self) -> str:
        """Identifier of the key, derived from its public point."""
        return self._kid

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte `r || s` signature over SHA-256 of `data`, with low S."""
        r, s = decode_dss_signature(self._key.sign(data, _ALGORITHM))
        return low_s(r.to_bytes(32, "big") + s.to_bytes(32, "big"))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            check_mode(os.fstat(file.fileno()), path)
            return file.read(MAX_KEY_FILE_BYTES)
    except FileNotFoundError:
        raise NotFoundError(f"no key file {path}; make one with `ota keys init`", code="no_key") from None
    except PermissionError:
        raise ForbiddenError(f"key file {path} cannot be read by this user", code="key_unreadable") from None
    except OSError as error:
        raise RequestError(f"key file {path}: {error.strerror}", code="bad_key") from None


def _private_key(pem: bytes, path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise RequestError(
            f"key file {path} is encrypted; give it as a systemd credential instead", code="encrypted_key"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise RequestError(f"key file {path} is not a PEM private key", code="bad_key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RequestError(f"key file {path} holds another kind of key; ES256 needs P-256", code="wrong_curve")
    return key
