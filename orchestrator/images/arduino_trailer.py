"""The signature behind an image for an ESP8266 or a Pico: checked, and made.

Rules:
- `payload, signature, u32 length of the signature`: the length does not count its own four bytes, though the manual of
  the ESP8266 core says so. A device takes 260 for no signature of its key.
- Since core 2.5.3 the signature is RSASSA-PKCS1-v1_5 over SHA-256; before, the padded bytes are the bare hash. Without
  the public key nobody can tell one from the other, nor either from bytes that look so.
- Compress first, then sign: the updater takes the signature off before it looks for gzip.
- RSA only: for a key on a curve the updaters expect another length than its signatures have.

Sources: `tools/signing.py`, `Updater.cpp` and `BearSSLHelpers.cpp` of esp8266/Arduino; `signing.py` of arduino-pico.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, utils
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from orchestrator.images.findings import ESP8266, ESP8266_LEGACY, Notes
from orchestrator.images.image_keys import ImageKey
from orchestrator.images.reader import Reader

LENGTH_BYTES: Final = 4
SIGNATURE_BYTES: Final = (256, 384, 512)
_WITH_THE_WORD = tuple(length + LENGTH_BYTES for length in SIGNATURE_BYTES)
_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")
CURRENT, LEGACY, FOREIGN = "current", "legacy", "foreign"


def length_before(reader: Reader) -> int:
    """Return the bytes of the signature that the last word announces, 0 for none."""
    length = _last_word(reader) if reader.size_bytes > LENGTH_BYTES else 0
    return length if length in SIGNATURE_BYTES and length + LENGTH_BYTES < reader.size_bytes else 0


def judge(reader: Reader, payload_end: int, notes: Notes, key: ImageKey | None) -> bool:
    """Say whether what follows the payload is nothing or one signature, and write down what it is.

    Args:
        reader: the file.
        payload_end: where the payload ends by its own headers.
        notes: gets facts and faults.
        key: by which the signature is checked; None to leave it at its form.
    """
    behind = reader.size_bytes - payload_end
    if behind == 0:
        notes.fact("signature", "none")
        return True
    length = length_before(reader)
    if length and behind == length + LENGTH_BYTES:
        _describe(reader, payload_end, length, notes, key)
        return True
    if behind in _WITH_THE_WORD and _last_word(reader) == behind:
        text = f"its last word is {behind}, which counts itself; devices take that for another key's signature"
        notes.fault("trailer_length", text, f"write {behind - LENGTH_BYTES} there, the bytes of the signature alone")
        return True
    return False


def trailer_of(digest: bytes, key: RSAPrivateKey, *, legacy: bool) -> bytes:
    """Return what stands behind a payload that is signed.

    Args:
        digest: SHA-256 of the payload.
        key: of the owner of the devices.
        legacy: as cores before 2.5.3 take it.
    """
    form = utils.NoDigestInfo() if legacy else utils.Prehashed(hashes.SHA256())
    signature = key.sign(digest, padding.PKCS1v15(), form)
    return signature + len(signature).to_bytes(LENGTH_BYTES, "little")


def kind_of(signature: bytes, digest: bytes, key: RSAPublicKey) -> str:
    """Return `CURRENT`, `LEGACY`, or `FOREIGN` where the key did not sign this hash."""
    numbers = key.public_numbers()
    length = (numbers.n.bit_length() + 7) // 8
    if len(signature) != length:
        return FOREIGN
    number = int.from_bytes(signature, "big")
    if number >= numbers.n:  # the same to the arithmetic as one that holds, but not to a device
        return FOREIGN
    opened = pow(number, numbers.e, numbers.n).to_bytes(length, "big")
    for kind, inner in ((CURRENT, _PREFIX + digest), (LEGACY, digest)):
        if opened == b"\0\1" + b"\xff" * (length - len(inner) - 3) + b"\0" + inner:
            return kind
    return FOREIGN


def _last_word(reader: Reader) -> int:
    return int.from_bytes(reader.read(reader.size_bytes - LENGTH_BYTES, LENGTH_BYTES), "little")


def _describe(reader: Reader, payload_end: int, length: int, notes: Notes, key: ImageKey | None) -> None:
    notes.fact("signature", f"{length} bytes of RSA behind the payload")
    notes.signature, notes.signed_bytes = notes.format, payload_end
    if key is None:
        return
    signature, digest = reader.read(payload_end, length), reader.digest(payload_end)
    kind = kind_of(signature, digest, key) if isinstance(key, RSAPublicKey) else FOREIGN
    if kind == LEGACY and notes.format == ESP8266:
        notes.format = notes.signature = ESP8266_LEGACY
        notes.fact("signature form", "legacy: only cores up to 2.5.2 take it")
    elif kind == CURRENT:
        notes.fact("signature form", "current: cores from 2.5.3 take it")
    else:
        notes.fault("signature", "its signature is not one of this key over these bytes", "sign the payload again")
        return
    notes.verified = True
