"""The sector of signatures that Secure Boot v2 wants behind an image.

Rules:
- Up to three blocks of 1216 bytes in one sector of 4096, each E7, 2 (RSA-3072) or 3 (ECDSA), a hash of everything
  before the sector, the public key and the signature in little-endian numbers, and a CRC-32 of its first 1196 bytes.
- A block whose magic or CRC does not hold is no block: the boot ROM skips it. None at all is a fault.
- The signature is checked with the key that stands beside it. That proves the block whole, not who signed: which key a
  device burnt (the key digest shown) is the owner's to compare.
- ECDSA blocks with P-384 have a SHA-384, and everything behind it 16 bytes later. P-192 is shown, not checked.

Sources: ESP-IDF, "Secure Boot v2" and `secure_boot_signatures_app.c`; esptool, `espsecure`.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from orchestrator.images.findings import SECURE_BOOT_V2, Notes
from orchestrator.images.image_keys import ImageKey
from orchestrator.images.reader import AGAIN, Reader

MAGIC: Final = 0xE7
BLOCK_BYTES, _SIGNED_BYTES, _BLOCKS = 1216, 1196, 3
_RSA, _ECDSA = 2, 3
_CURVES = {1: ("P-192", 24), 2: ("P-256", 32), 3: ("P-384", 48)}


@dataclass(frozen=True, slots=True)
class _Found:
    """One signature: its kind, whether it holds (None where that cannot be said), and the key beside it."""

    name: str
    holds: bool | None
    key_bytes: bytes
    key: ImageKey | None = None


def examine(reader: Reader, sector: int, notes: Notes, key: ImageKey | None) -> None:
    """Check the blocks in the sector that begins at `sector`, and write down whose they are.

    Args:
        reader: the file.
        sector: where the sector of signatures begins.
        notes: gets what is found.
        key: of the owner of the devices; None to leave it at what the blocks say.
    """
    found = 0
    for number in range(_BLOCKS):
        block = reader.read(sector + number * BLOCK_BYTES, BLOCK_BYTES)
        if not _is_block(block):
            break
        found += 1
        _examine_block(reader, sector, block, number, notes, key)
    if not found:
        text = "no block in its sector of signatures is whole (magic, version or CRC)"
        notes.fault("signature_block", text, "sign it again: espsecure sign-data --version 2")


def _is_block(block: bytes) -> bool:
    crc = int.from_bytes(block[_SIGNED_BYTES : _SIGNED_BYTES + 4], "little")
    return block[0] == MAGIC and block[1] in (_RSA, _ECDSA) and crc == zlib.crc32(block[:_SIGNED_BYTES])


def _examine_block(reader: Reader, sector: int, block: bytes, number: int, notes: Notes, key: ImageKey | None) -> None:
    long = block[1] == _ECDSA and block[2] == 1
    algorithm = "sha384" if long else "sha256"
    digest = reader.digest(sector, algorithm)
    key_at = 4 + len(digest)
    if block[4:key_at] != digest:
        text = f"block {number} signs other bytes than these ({algorithm} differs)"
        notes.fault("signature_digest", text, "sign the image again")
        return
    found = _check_rsa(block, digest) if block[1] == _RSA else _check_ecdsa(block, digest, key_at)
    key_digest = hashlib.sha256(found.key_bytes).hexdigest()
    notes.fact("signature", f"Secure Boot v2, {found.name}, key digest {key_digest}")
    _note_holding(found, key_digest, sector, notes, key)
    if found.holds is None:
        text = f"the signature in block {number} ({found.name}) cannot be checked here"
        notes.warn("signature_unchecked", text, "check it: espsecure verify-signature --version 2")
    elif not found.holds:
        notes.fault("signature", f"the signature in block {number} is not one of the key beside it", AGAIN)


def _note_holding(found: _Found, key_digest: str, sector: int, notes: Notes, key: ImageKey | None) -> None:
    """Write down a signature, unless it does not hold."""
    if found.holds is False:
        return
    notes.signature, notes.signed_bytes = SECURE_BOOT_V2, sector
    notes.key_digests.append(key_digest)
    if key is not None and found.key == key:
        notes.verified = True
        notes.fact("signature form", "made by this key")


def _check_rsa(block: bytes, digest: bytes) -> _Found:
    modulus, exponent = (int.from_bytes(block[start:end], "little") for start, end in ((36, 420), (420, 424)))
    signature, key_bytes = block[812:1196][::-1], block[36:812]
    try:
        key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
        scheme = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        key.verify(signature, digest, scheme, utils.Prehashed(hashes.SHA256()))
    except (ValueError, InvalidSignature):
        return _Found("RSA-3072", False, key_bytes)
    return _Found("RSA-3072", True, key_bytes, key)


def _check_ecdsa(block: bytes, digest: bytes, at: int) -> _Found:
    name, length = _CURVES.get(block[at], ("unknown curve", 0))
    room = 96 if len(digest) == 48 else 64
    point, signature = at + 1, at + 1 + room
    key_bytes = block[at : point + 2 * length]
    if name not in ("P-256", "P-384") or 2 * length > room:
        return _Found(name, None, key_bytes)
    x, y, r, s = (_number(block, start, length) for start in (point, point + length, signature, signature + length))
    curve, hashing = (ec.SECP256R1(), hashes.SHA256()) if name == "P-256" else (ec.SECP384R1(), hashes.SHA384())
    try:
        key = ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
        key.verify(utils.encode_dss_signature(r, s), digest, ec.ECDSA(utils.Prehashed(hashing)))
    except (ValueError, InvalidSignature):
        return _Found(name, False, key_bytes)
    return _Found(name, True, key_bytes, key)


def _number(block: bytes, at: int, length: int) -> int:
    return int.from_bytes(block[at : at + length], "little")
