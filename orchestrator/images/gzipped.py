"""Compressed images, which the ESP8266 and the Pico take.

Rules:
- One member, and nothing behind it but a signature: the bootloader reads the length of the image from the last four
  bytes of what the updater stored. The lengths and the CRC of gzip hold, and inside is an image for one of the two.
- Compress, then sign. Signed first, the signature is inside, where no updater looks for it.
- A compressed image that is signed makes a device that does not enforce signing unusable: its updater keeps the
  signature, and its bootloader takes the length of that for the length of the image.
- No updater for the ESP32 takes gzip.
- At most `MOST_INFLATED_BYTES` are unpacked, into a temporary file.

Sources: RFC 1952; esp8266/Arduino, `Updater.cpp`, `bootloaders/eboot/eboot.c`; arduino-pico, `ota/`, `Updater.cpp`;
arduino-esp32, `HTTPUpdate.cpp`.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Final, cast

from orchestrator.images import arduino_trailer
from orchestrator.images.findings import ESP32, BrokenError, Notes
from orchestrator.images.image_keys import ImageKey
from orchestrator.images.reader import AGAIN, PIECE_BYTES, Reader

MAGIC: Final = b"\x1f\x8b"
MOST_INFLATED_BYTES: Final = 32 << 20
_GZIP, _INPUT_BYTES, _STEP_BYTES = 16 + zlib.MAX_WBITS, 1 << 16, 256


def inflated_head(head: bytes, length: int) -> bytes:
    """Return what the first bytes unpack to, at most `length`; nothing where they are not gzip."""
    stream, unpacked = zlib.decompressobj(_GZIP), b""
    with suppress(zlib.error):  # what comes before the fault is enough to know the format
        for at in range(0, len(head) if head[:2] == MAGIC else 0, _STEP_BYTES):
            unpacked += stream.decompress(head[at : at + _STEP_BYTES], length - len(unpacked))
            if len(unpacked) >= length:
                break
    return unpacked


def examine(reader: Reader, notes: Notes, key: ImageKey | None, examine_inner: Callable[[Reader, Notes], None]) -> None:
    """Check a compressed image and what is inside.

    Args:
        reader: the file.
        notes: gets what is found.
        key: by which a signature behind it is checked; None to leave it at its form.
        examine_inner: checks an image that is not compressed.

    Raises:
        BrokenError: it is no gzip that can be unpacked.
    """
    with tempfile.SpooledTemporaryFile(max_size=PIECE_BYTES) as file:
        unpacked = cast(IO[bytes], file)
        end = _inflate(reader, unpacked)
        inner = Reader(unpacked)
        _examine_inner(inner, notes, examine_inner)
    if not arduino_trailer.judge(reader, end, notes, key):
        _refuse_behind(reader, end, notes)
    elif end < reader.size_bytes:
        text = "it is compressed and signed: a device that does not enforce signing would not start again"
        notes.warn("gzip_signed", text, "offer it only to devices that enforce signing, and to others the one unsigned")


def _inflate(reader: Reader, into: IO[bytes]) -> int:
    """Unpack the first member; returns where it ends."""
    stream, at, unpacked = zlib.decompressobj(_GZIP), 0, 0
    while not stream.eof:
        data = stream.unconsumed_tail
        if not data:
            data = reader.some(at, _INPUT_BYTES)
            at += len(data)
            if not data:
                raise BrokenError("truncated", "it ends before its gzip does", AGAIN)
        try:
            piece = stream.decompress(data, PIECE_BYTES)
        except zlib.error as error:
            raise BrokenError("bad_gzip", f"it cannot be unpacked ({error})", "compress it again: gzip -9") from None
        unpacked += len(piece)
        if unpacked > MOST_INFLATED_BYTES:
            text = f"it unpacks to more than {MOST_INFLATED_BYTES} bytes, which no such device holds"
            raise BrokenError("gzip_too_large", text, "compress the image alone")
        into.write(piece)
    return at - len(stream.unused_data)


def _examine_inner(inner: Reader, notes: Notes, examine_inner: Callable[[Reader, Notes], None]) -> None:
    inside = Notes()
    try:
        examine_inner(inner, inside)
    finally:
        notes.format, notes.chip, notes.version = inside.format, inside.chip, inside.version
        notes.security_version = inside.security_version
        notes.fact("compressed", f"gzip, {inner.size_bytes} bytes unpacked")
        for name, value in inside.facts:
            if not name.startswith("signature"):
                notes.fact(name, value)
        notes.faults += inside.faults
        notes.warnings += inside.warnings
    if notes.format.startswith(ESP32):
        notes.fault("gzip_on_esp32", "no updater for the ESP32 takes gzip", "sign the .bin as it is")
    elif arduino_trailer.length_before(inner):
        text = "it was signed and then compressed: no updater finds a signature inside"
        notes.fault("signed_then_gzip", text, "compress first, then sign")


def _refuse_behind(reader: Reader, end: int, notes: Notes) -> None:
    behind = reader.size_bytes - end
    what = "another member" if reader.some(end, 2) == MAGIC else "no signature"
    text = f"{behind} bytes follow the gzip, which ends at {end:#x}, and are {what}: the bootloader would misread them"
    notes.fault("gzip_trailing_bytes", text, "compress it again: gzip -9")
