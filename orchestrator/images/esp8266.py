"""Images of the ESP8266, and those of the Arduino core in particular.

Rules:
- 8 bytes of header (E9, segments, flash mode, flash size and frequency, entry), segments as the ESP32 has them, and the
  same checksum at the end of a block of 16. No hash, no chip, no version.
- A .bin of the Arduino core is the bootloader eboot in 0..4095 and the application at 0x1000, again with E9. Its first
  segment begins with the length of the file and a CRC-32/MPEG-2 of it. Both the CRC and the checksum of that image are
  counted with these eight bytes as zeros. Cores before 2.6 have code there, counted as it is, and no CRC.
- Behind it may be a signature, see `arduino_trailer`; anything else is a fault. gzip is in `gzipped`.
- Images for the bootloader of the vendor's SDK (EA, or E9 without an application at 0x1000) are told apart and refused:
  no updater of the Arduino core starts them.

Sources: esp8266/Arduino, `tools/elf2bin.py`, `bootloaders/eboot`, `Updater.cpp`; esptool, `bin_image.py`.
"""

from __future__ import annotations

import struct
from typing import Final

from orchestrator.images import arduino_trailer
from orchestrator.images.checksums import Mpeg2, xor_of
from orchestrator.images.findings import ESP8266, BrokenError, Notes
from orchestrator.images.image_keys import ImageKey
from orchestrator.images.reader import AGAIN, Reader, rounded

MAGIC, SDK_MAGIC = 0xE9, 0xEA
APP_AT: Final = 0x1000
CHIP: Final = "esp8266"
_HEADER, _SEGMENT, _CRC = struct.Struct("<BBBBI"), struct.Struct("<II"), struct.Struct("<II")
_CRC_AT = APP_AT + _HEADER.size + _SEGMENT.size
_MAX_SEGMENTS, _BLOCK = 16, 16
_SIZES = {0: "512 KiB", 1: "256 KiB", 2: "1 MiB", 3: "2 MiB", 4: "4 MiB", 8: "8 MiB", 9: "16 MiB"}
_MODES = {0: "QIO", 1: "QOUT", 2: "DIO", 3: "DOUT"}
_MEMORIES = ((0x3FFE_8000, 0x4000_0000), (0x4010_0000, 0x4011_0000), (0x4020_0000, 0x4030_0000))


def looks_so(head: bytes) -> bool:
    """Say whether a file that begins so is an image of an ESP8266."""
    if len(head) < _HEADER.size + _SEGMENT.size:
        return False
    magic, count, mode, _, entry = _HEADER.unpack_from(head)
    load, length = _SEGMENT.unpack_from(head, _HEADER.size)
    if magic == SDK_MAGIC:
        return count == 4 and _in_memory(entry)
    plausible = 0 < count <= _MAX_SEGMENTS and mode in _MODES and length < 1 << 20
    return bool(magic == MAGIC and plausible and _in_memory(entry) and _in_memory(load))


def examine(reader: Reader, notes: Notes, key: ImageKey | None) -> None:
    """Check an image and write down what it is.

    Args:
        reader: the file.
        notes: gets what is found.
        key: by which a signature behind it is checked; None to leave it at its form.

    Raises:
        BrokenError: it ends too early, or a header is impossible.
    """
    notes.format, notes.chip = ESP8266, CHIP
    if reader.read(0, 1) == bytes([SDK_MAGIC]) or reader.some(APP_AT, 1) != bytes([MAGIC]):
        text = "it has no application behind eboot at 0x1000: it was built for the bootloader of the vendor's SDK"
        notes.fault(
            "not_arduino", text, "build it with the Arduino core, or sign it as raw if the device has its own loader"
        )
        return
    _, _, mode, size_and_frequency, _ = _HEADER.unpack(reader.read(0, _HEADER.size))
    notes.fact("flash mode", _MODES.get(mode, mode))
    notes.fact("flash size", _SIZES.get(size_and_frequency >> 4, "unknown"))
    _, checksum_of_eboot = _read_segments(reader, 0)
    if checksum_of_eboot:
        notes.fault("checksum", "the checksum of its bootloader does not hold: bytes were changed", AGAIN)
    end, difference = _read_segments(reader, APP_AT)
    _check_app(reader, end, difference, notes)
    if not arduino_trailer.judge(reader, end, notes, key):
        text = f"{reader.size_bytes - end} bytes follow the application, which ends at {end:#x}, and are no signature"
        notes.fault("trailing_bytes", text, "sign the file as the build made it")


def _in_memory(address: int) -> bool:
    return any(start <= address < end for start, end in _MEMORIES)


def _read_segments(reader: Reader, at: int) -> tuple[int, int]:
    """Return where an image within the file ends, and how its checksum differs from the one counted."""
    checksum = 0xEF
    magic, count, *_ = _HEADER.unpack(reader.read(at, _HEADER.size))
    if magic != MAGIC or not 0 < count <= _MAX_SEGMENTS:
        raise BrokenError("bad_segment", f"the header at {at:#x} claims {count} segments", AGAIN)
    at += _HEADER.size
    for _ in range(count):
        _, length = _SEGMENT.unpack(reader.read(at, _SEGMENT.size))
        at += _SEGMENT.size
        for piece in reader.pieces(at, at + length):
            checksum ^= xor_of(piece)
        at += length
    end = rounded(at + 1, _BLOCK)
    return end, checksum ^ reader.read(end - 1, 1)[0]


def _check_app(reader: Reader, end: int, difference: int, notes: Notes) -> None:
    filled_in = reader.read(_CRC_AT, _CRC.size)
    length, said = _CRC.unpack(filled_in)
    if length != end and difference == 0:
        notes.warn("no_crc", "it has no CRC: its core is older than 2.6", "build it with a newer core")
        return
    if difference != xor_of(filled_in):
        notes.fault("checksum", f"the checksum at {end - 1:#x} does not hold: bytes were changed", AGAIN)
    if length != end:
        notes.fault("crc", f"it says that it has {length} bytes, its segments end at {end}", AGAIN)
        return
    crc = Mpeg2()
    for piece in reader.pieces(0, _CRC_AT):
        crc.update(piece)
    crc.update(bytes(_CRC.size))
    for piece in reader.pieces(_CRC_AT + _CRC.size, end):
        crc.update(piece)
    notes.fact("CRC", f"{said:08x}")
    if crc.value != said:
        notes.fault("crc", f"its CRC is {said:08x}, its bytes have {crc.value:08x}: bytes were changed", AGAIN)
