"""From a file to its findings: which format it is, and the parser of that.

Rules:
- Whatever the bytes are, `inspect` answers; only reading the file itself may fail.
- A format is recognised by its beginning, strictly enough that random bytes are not. A RAUC bundle that is encrypted
  has only its end.
- The order matters: an image inside gzip is recognised by what it unpacks to.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

from orchestrator.images import esp32, esp8266, gzipped, mcuboot, pico, raucb, swu, uf2
from orchestrator.images.findings import ESP32, ESP8266, MCUBOOT, PICO, RAUCB, SWU, UF2, BrokenError, Findings, Notes
from orchestrator.images.image_keys import ImageKey
from orchestrator.images.reader import Reader

HEAD_BYTES: Final = 0x4000
_LOOKS: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    (RAUCB, raucb.looks_so),
    (SWU, swu.looks_so),
    (MCUBOOT, mcuboot.looks_so),
    (UF2, uf2.looks_so),
    (ESP8266, esp8266.looks_so),
    (ESP32, esp32.looks_so),
    (PICO, pico.looks_so),
)


def recognise(head: bytes) -> str | None:
    """Return the format word of a file that begins so, None for none that we know.

    Args:
        head: its first `HEAD_BYTES`, or all of it.
    """
    return _format_of(head) or _format_of(gzipped.inflated_head(head, HEAD_BYTES))


def inspect(source: Path | IO[bytes], *, key: ImageKey | None = None) -> Findings:
    """Return what a file is and what is wrong with it.

    Args:
        source: its path, or it, opened for reading in binary and seekable.
        key: by which the signature is checked, where it is one of an Arduino device or of Secure Boot v2; None to
            leave it at its form.

    Raises:
        OSError: it cannot be read.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            return inspect(file, key=key)
    reader, notes = Reader(source), Notes()
    try:
        _examine(reader, notes, key)
    except BrokenError as error:
        notes.fault(error.fault.code, error.fault.text, error.fault.remedy)
    return notes.done(reader.size_bytes)


def _examine(reader: Reader, notes: Notes, key: ImageKey | None) -> None:
    head = reader.some(0, HEAD_BYTES)
    if _format_of(gzipped.inflated_head(head, HEAD_BYTES)):
        gzipped.examine(reader, notes, key, lambda inner, inside: _examine_plain(inner, inside, None))
    else:
        _examine_plain(reader, notes, key)


def _examine_plain(reader: Reader, notes: Notes, key: ImageKey | None) -> None:
    word = _format_of(reader.some(0, HEAD_BYTES)) or (RAUCB if raucb.ends_so(reader) else None)
    match word:
        case "esp32":
            esp32.examine(reader, notes, key)
        case "esp8266":
            esp8266.examine(reader, notes, key)
        case "pico":
            pico.examine(reader, notes, key)
        case "uf2":
            uf2.examine(reader, notes)
        case "mcuboot":
            mcuboot.examine(reader, notes)
        case "swu":
            swu.examine(reader, notes)
        case "raucb":
            raucb.examine(reader, notes)


def _format_of(head: bytes) -> str | None:
    return next((word for word, looks_so in _LOOKS if looks_so(head)), None)
