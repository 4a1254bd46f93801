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
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from orchestrator.images.findings import Notes
from orchestrator.images.reader import AGAIN, Reader

MAGIC: Final = 0xE7
BLOCK_BYTES, _SIGNED_BYTES, _BLOCKS = 1216, 1196, 3
_RSA, _ECDSA = 2, 3
_CURVES = {1: ("P-192", 24), 2: ("P-256", 32), 3: ("P-384", 48)}


def examine(reader: Reader, sector: int, notes: Notes) -> None:
    """Check the blocks in the sector that begins at `sector`, and write down whose they are."""
    found = 0
    for number in range(_BLOCKS):
        block = reader.read(sector + number * BLOCK_BYTES, BLOCK_BYTES)
        if not _is_block(block):
            break
        found += 1
        _examine_block(reader, sector, block, number, notes)
    if not found:
        text = "no block in its sector of signatures is whole (magic, version or CRC)"
        notes.fault("signature_block", text, "sign it again: espsecure sign-data --version 2")


def _is_block(block: bytes) -> bool:
    crc = int.from_bytes(block[_SIGNED_BYTES : _SIGNED_BYTES + 4], "little")
    return block[0] == MAGIC and block[1] in (_RSA, _ECDSA) and crc == zlib.crc32(block[:_SIGNED_BYTES])


def _examine_block(reader: Reader, sector: int, block: bytes, number: int, notes: Notes) -> None:
    long = block[1] == _ECDSA and block[2] == 1
    algorithm = "sha384" if long else "sha256"
    digest = reader.digest(sector, algorithm)
    key_at = 4 + len(digest)
    if block[4:key_at] != digest:
        text = f"block {number} signs other bytes than these ({algorithm} differs)"
        notes.fault("signature_digest", text, "sign the image again")
        return
    holds: bool | None
    if block[1] == _RSA:
        name, holds, key = "RSA-3072", _check_rsa(block, digest), block[36:812]
    else:
        name, holds, key = _check_ecdsa(block, digest, key_at)
    notes.fact("signature", f"Secure Boot v2, {name}, key digest {hashlib.sha256(key).hexdigest()}")
    if holds is None:
        text = f"the signature in block {number} ({name}) cannot be checked here"
        notes.warn("signature_unchecked", text, "check it: espsecure verify-signature --version 2")
    elif not holds:
        notes.fault("signature", f"the signature in block {number} is not one of the key beside it", AGAIN)


def _check_rsa(block: bytes, digest: bytes) -> bool:
    modulus, exponent = (int.from_bytes(block[start:end], "little") for start, end in ((36, 420), (420, 424)))
    signature = block[812:1196][::-1]
    try:
        key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
        scheme = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        key.verify(signature, digest, scheme, utils.Prehashed(hashes.SHA256()))
    except (ValueError, InvalidSignature):
        return False
    return True


def _check_ecdsa(block: bytes, digest: bytes, at: int) -> tuple[str, bool | None, bytes]:
    """Return the name of the curve, whether the signature holds (None where that cannot be said), and the key."""
    name, length = _CURVES.get(block[at], ("unknown curve", 0))
    room = 96 if len(digest) == 48 else 64
    point, signature = at + 1, at + 1 + room
    key = block[at : point + 2 * length]
    if name not in ("P-256", "P-384") or 2 * length > room:
        return name, None, key
    x, y, r, s = (_number(block, start, length) for start in (point, point + length, signature, signature + length))
    curve, hashing = (ec.SECP256R1(), hashes.SHA256()) if name == "P-256" else (ec.SECP384R1(), hashes.SHA384())
    try:
        public = ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
        public.verify(utils.encode_dss_signature(r, s), digest, ec.ECDSA(utils.Prehashed(hashing)))
    except (ValueError, InvalidSignature):
        return name, False, key
    return name, True, key


def _number(block: bytes, at: int, length: int) -> int:
    return int.from_bytes(block[at : at + length], "little")
