"""The keys by which devices check images by themselves.

Rules:
- RSA with 2048, 3072 or 4096 bits, or ECDSA with P-256 or P-384: what the updaters and bootloaders know.
- Which of them a format takes, its own module says.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from orchestrator.errors import RequestError

ImageKey = RSAPublicKey | EllipticCurvePublicKey
ImagePrivateKey = RSAPrivateKey | EllipticCurvePrivateKey
_RSA_BITS: Final = (2048, 3072, 4096)
_CURVES: Final = ("secp256r1", "secp384r1")
_WANTED = "name one of RSA with 2048, 3072 or 4096 bits, or of P-256 or P-384"


def load_key(pem: bytes) -> ImageKey:
    """Return the public key in PEM text.

    Raises:
        RequestError: `bad_key`; it is something else.
    """
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise RequestError("this is no public key in PEM; make one: openssl pkey -pubout", code="bad_key") from None
    if not isinstance(key, RSAPublicKey | EllipticCurvePublicKey) or not _fits(key):
        raise RequestError(f"no device checks images by such a key; {_WANTED}", code="bad_key")
    return key


def load_private_key(pem: bytes) -> ImagePrivateKey:
    """Return the private key in PEM text.

    Raises:
        RequestError: `encrypted_key`, or `bad_key`; it is something else.
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        text = "the image key is encrypted; decrypt it for this command: openssl pkey -in KEY -out PLAIN"
        raise RequestError(text, code="encrypted_key") from None
    except (ValueError, UnsupportedAlgorithm):
        text = "the image key is no private key in PEM; make one: openssl genrsa 2048"
        raise RequestError(text, code="bad_key") from None
    if not isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey) or not _fits(key.public_key()):
        raise RequestError(f"no device checks images by such a key; {_WANTED}", code="bad_key")
    return key


def name_of(key: ImageKey) -> str:
    """Return what a key is, such as `RSA-2048` or `P-256`."""
    return f"RSA-{key.key_size}" if isinstance(key, RSAPublicKey) else f"P-{key.key_size}"


def _fits(key: ImageKey) -> bool:
    return key.key_size in _RSA_BITS if isinstance(key, RSAPublicKey) else key.curve.name in _CURVES
