"""The 512 bytes behind a signed update for Arduino on the ESP32: checked, and made.

Rules:
- `payload, signature, zeros up to 512 bytes`, without a length. The updater writes all of it to the slot; the
  bootloader stops at the end of the image.
- RSA: PSS, MGF1 with the same hash, and the longest salt that fits. A signature may end in zeros, so it is as long as
  the key, whatever follows. ECDSA: DER, which says its own length.
- Which hash, SHA-256, SHA-384 or SHA-512, stands in the sketch and nowhere in the file.
- Without the key only the form shows: DER and zeros, or as many bytes as an RSA key has and zeros.

Sources: arduino-esp32, `tools/bin_signing.py`, `libraries/Update/src/Updater_Signing.cpp`.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from orchestrator.images.findings import ESP32_ARDUINO, Notes
from orchestrator.images.image_keys import ImageKey, ImagePrivateKey, name_of
from orchestrator.images.reader import Reader

TRAILER_BYTES: Final = 512
HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_RSA_BYTES: Final = (256, 384, 512)
_FEWEST_BYTES, _MOST_ZEROS = 8, 16
_SEQUENCE, _INTEGER, _LONG = 0x30, 0x02, 0x80


def examine(reader: Reader, payload_end: int, notes: Notes, key: ImageKey | None) -> None:
    """Write down what the last 512 bytes are.

    Args:
        reader: the file.
        payload_end: where they begin.
        notes: gets facts and faults.
        key: by which the signature is checked; None to leave it at its form.
    """
    notes.format = ESP32_ARDUINO
    trailer = reader.read(payload_end, TRAILER_BYTES)
    form = _form_of(trailer)
    if not form:
        text = "the 512 bytes behind it are no signature and zeros"
        notes.fault("signature", text, "sign the file as the build made it")
        return
    notes.signature, notes.signed_bytes = ESP32_ARDUINO, payload_end
    notes.fact("signature", f"{form} in 512 bytes behind the image" + (", not checked" if key is None else ""))
    if key is None:
        return
    name = _hash_that_holds(reader, payload_end, trailer, key)
    if not name:
        notes.fault("signature", "its signature is not one of this key over these bytes", "sign the image again")
        return
    notes.verified = True
    notes.fact("signature form", f"{name_of(key)} over {name}")


def trailer_of(digest: bytes, key: ImagePrivateKey, algorithm: str) -> bytes:
    """Return what stands behind a payload that is signed.

    Args:
        digest: hash of the payload.
        key: of the owner of the devices.
        algorithm: of the hash, one of `HASHES`; it is the one in the sketch.
    """
    hashing = HASHES[algorithm]
    if isinstance(key, RSAPrivateKey):
        signature = key.sign(digest, _pss(hashing), utils.Prehashed(hashing))
    else:
        signature = key.sign(digest, ec.ECDSA(utils.Prehashed(hashing), deterministic_signing=True))
    return signature.ljust(TRAILER_BYTES, b"\0")


def _form_of(trailer: bytes) -> str:
    """Return what the signature seems to be, "" for nothing."""
    used = len(trailer.rstrip(b"\0"))
    if 0 < used <= _der_bytes(trailer):
        return "ECDSA"
    fitting = [length for length in _RSA_BYTES if length - _MOST_ZEROS <= used <= length]
    return f"{fitting[0]} bytes of RSA" if fitting else ""


def _der_bytes(data: bytes) -> int:
    """Return how long a sequence of two numbers in DER is that begins so, 0 for none."""
    if len(data) < _FEWEST_BYTES or data[0] != _SEQUENCE or data[1] >= _LONG:
        return 0
    end, at = 2 + data[1], 2
    for _ in range(2):
        if at + 2 > end or data[at] != _INTEGER or not 0 < data[at + 1] < _LONG:
            return 0
        at += 2 + data[at + 1]
    return end if at == end else 0


def _hash_that_holds(reader: Reader, payload_end: int, trailer: bytes, key: ImageKey) -> str:
    """Return the hash with which the key made this signature, "" for none."""
    length = (key.key_size + 7) // 8 if isinstance(key, RSAPublicKey) else _der_bytes(trailer)
    signature, rest = trailer[:length], trailer[length:]
    if not signature or any(rest):
        return ""
    hashers = {name: hashlib.new(name) for name in HASHES}
    for piece in reader.pieces(0, payload_end):
        for hasher in hashers.values():
            hasher.update(piece)
    held = (name for name, hasher in hashers.items() if _holds(signature, hasher.digest(), key, HASHES[name]))
    return next(held, "")


def _holds(signature: bytes, digest: bytes, key: ImageKey, hashing: hashes.HashAlgorithm) -> bool:
    try:
        if isinstance(key, RSAPublicKey):
            key.verify(signature, digest, _pss(hashing), utils.Prehashed(hashing))
        else:
            key.verify(signature, digest, ec.ECDSA(utils.Prehashed(hashing)))
    except InvalidSignature:
        return False
    return True


def _pss(hashing: hashes.HashAlgorithm) -> padding.PSS:
    return padding.PSS(padding.MGF1(hashing), padding.PSS.MAX_LENGTH)
