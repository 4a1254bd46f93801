"""Signers: private ES256 keys that sign triggers, statements and keysets, in files or in tokens.

Rules:
- Signatures leave as 64 bytes `r || s` with the low S, the only form that devices accept.
- What another machine signed is verified before it is used, our own work now and then; one that is wrong is the last.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from orchestrator.adapters.signers.file import ORDER, SIGNATURE_BYTES, FileSigner
from orchestrator.errors import RequestError, UnavailableError

SPOT_CHECK = 64  # of so many signatures by a key in our own memory, one is verified
_TOKEN_SCHEME = "pkcs11:"


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
        from orchestrator.adapters.signers.pkcs11 import TokenSigner
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
        return len(signature) == SIGNATURE_BYTES and s <= ORDER // 2
