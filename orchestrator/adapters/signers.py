"""Signers: private ES256 keys that sign triggers, statements and keysets, in files or in tokens.

Rules:
- A key that others may read is refused, not warned about.
- Signing is deterministic (RFC 6979): equal bytes give equal signatures, and no random source can leak the key.
- Signatures leave as 64 bytes `r || s` with the low S, the only form that devices accept.
- What another machine signed is verified before it is used, our own work now and then; one that is wrong is the last.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from orchestrator.errors import ForbiddenError, NotFoundError, RequestError, UnavailableError
from orchestrator.wire.token import key_id

MAX_KEY_FILE_BYTES = 16_384
SPOT_CHECK = 64  # of so many signatures by a key in our own memory, one is verified
_TOKEN_SCHEME = "pkcs11:"
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_SIGNATURE_BYTES = 64
_ALGORITHM = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)


class KeyHolder(Protocol):
    """A `ports.Signer` whose public point is known."""

    x: bytes
    y: bytes

    @property
    def kid(self) -> str:
        """Identifier of the key."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte `r || s` signature over SHA-256 of `data`, with low S."""
        ...


def open_signer(place: Path | str, pin_file: Path | None = None) -> CheckedSigner:
    """Return the signer at a place, with its signatures verified before they are used.

    Args:
        place: a PEM file, or the `pkcs11:` URI of a key in a token.
        pin_file: file with the token's PIN, used where the URI names none.

    Raises:
        OrchestratorError: the key cannot be used, or support for tokens is not installed.
    """
    if not str(place).startswith(_TOKEN_SCHEME):
        return CheckedSigner(FileSigner.load(Path(place)), SPOT_CHECK)
    try:
        from orchestrator.adapters.pkcs11 import TokenSigner
    except ImportError:
        raise RequestError(
            "keys in tokens need a package more; install ota-orchestrator[pkcs11]", code="no_pkcs11"
        ) from None
    return CheckedSigner(TokenSigner.load(str(place), pin_file), 1)


class CheckedSigner:
    """A `ports.Signer` that verifies what another one signs, and stops for good at the first fault.

    Args:
        signer: holds the key.
        every: of so many signatures one is verified, beginning with the first.
    """

    def __init__(self, signer: KeyHolder, every: int) -> None:
        self._signer = signer
        self._every = every
        self._count = 0
        self._faulty = False
        self.x, self.y = signer.x, signer.y
        point = ec.EllipticCurvePublicNumbers(
            int.from_bytes(signer.x, "big"), int.from_bytes(signer.y, "big"), ec.SECP256R1()
        )
        self._public = point.public_key()

    @property
    def kid(self) -> str:
        """Identifier of the key, derived from its public point."""
        return self._signer.kid

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte `r || s` signature over SHA-256 of `data`, with low S.

        Raises:
            UnavailableError: the signer is away, or has made a signature that does not hold.
        """
        signature = b"" if self._faulty else self._signer.sign(data)
        if not self._faulty and self._count % self._every == 0:
            self._faulty = not self._holds(signature, data)
        self._count += 1
        if self._faulty:
            raise UnavailableError(
                f"key {self.kid} made a signature that does not hold, and signs nothing more; "
                "look at the token or the memory of this machine, then start again",
                code="faulty_signer",
            )
        return signature

    def _holds(self, signature: bytes, data: bytes) -> bool:
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        try:
            self._public.verify(encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return len(signature) == _SIGNATURE_BYTES and s <= _ORDER // 2


def low_s(signature: bytes) -> bytes:
    """Return `r || s` with the low one of the two `s` that hold.

    Raises:
        ValueError: these are not 64 bytes.
    """
    if len(signature) != _SIGNATURE_BYTES:
        raise ValueError(f"a signature has {_SIGNATURE_BYTES} bytes, not {len(signature)}")
    s = int.from_bytes(signature[32:], "big")
    return signature[:32] + min(s, _ORDER - s).to_bytes(32, "big")


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
