"""Application images of the ESP32 family.

Rules:
- 24 bytes of header, up to 16 segments of 8 bytes and their data, zeros up to a byte that ends a block of 16: EF and
  the exclusive or of all data. Where the header says so (byte 23), the SHA-256 of everything before follows.
- The first segment of an application begins with `esp_app_desc_t` (magic ABCD5432), so at byte 32 of the file. Where
  it is missing, this is a bootloader, and updating an application slot with it leaves a device that cannot start.
- A merged image, for a programmer, begins with a bootloader or with the gap before it, and has the partition table
  inside. None may be sent: the updater would write it into a slot.
- Behind the image may be: nothing; FF up to 4096 and the sector of Secure Boot v2; 68 bytes of Secure Boot v1, which
  begin with a version of 0, and 12 more where `--secure-pad` was used; or the 512 bytes of a signed Arduino update.
- Builds of Arduino and PlatformIO have the name and version of the core's builder in the descriptor, not the sketch's.

Sources: ESP-IDF, `esp_app_format.h`, `esp_app_desc.h`, `esp_bootloader_desc.h`, `esp_image_format.c` and the guide "App
Image Format"; esptool, `bin_image.py`.
"""

from __future__ import annotations

import struct
from typing import Final

from orchestrator.images import padded_trailer, secure_boot
from orchestrator.images.checksums import xor_of
from orchestrator.images.findings import ESP32, BrokenError, Notes, text_of
from orchestrator.images.image_keys import ImageKey
from orchestrator.images.reader import AGAIN, Reader, rounded

MAGIC: Final = 0xE9
CHIPS: Final = {
    0: "esp32",
    2: "esp32s2",
    5: "esp32c3",
    9: "esp32s3",
    12: "esp32c2",
    13: "esp32c6",
    16: "esp32h2",
    18: "esp32p4",
    20: "esp32c61",
    23: "esp32c5",
    25: "esp32h21",
    28: "esp32h4",
    32: "esp32s31",
}
_HEADER = struct.Struct("<BBBBIB3sHBHH4xB")
_SEGMENT = struct.Struct("<II")
_DESCRIPTOR = struct.Struct("<II8x32s32s16s16s32s32sHHBB2x72x")
_DESCRIPTOR_AT, _DESCRIPTOR_MAGIC = 32, 0xABCD5432
_MAX_SEGMENTS, _BLOCK, _HASH_BYTES = 16, 16, 32
_BOOTLOADERS_AT = (0x1000, 0x2000)
_TABLE_MAGIC, _TABLES_AT = b"\xaa\x50", range(0x8000, 0x21000, 0x1000)
_SECTOR, _V1_BYTES = 4096, (68, 80)
_MODES = {0: "QIO", 1: "QOUT", 2: "DIO", 3: "DOUT", 4: "FAST", 5: "SLOW"}
_ANY_REVISION = (0, 0xFFFF)
_BUILDERS = ("arduino-lib-builder", "esp-idf")


def looks_so(head: bytes) -> bool:
    """Say whether a file that begins so is an image of this family, merged or not."""
    if _header_fits(head, 0):
        return True
    return any(head[:at] == b"\xff" * at and _header_fits(head, at) for at in _BOOTLOADERS_AT)


def examine(reader: Reader, notes: Notes, key: ImageKey | None) -> None:
    """Check an image and write down what it is.

    Args:
        reader: the file.
        notes: gets what is found.
        key: by which a signature behind it is checked; None to leave it at its form.

    Raises:
        BrokenError: it ends too early, or a header is impossible.
    """
    notes.format = ESP32
    begin = next((at for at in (0, *_BOOTLOADERS_AT) if reader.some(at, 1) == bytes([MAGIC])), 0)
    header = _HEADER.unpack(reader.read(begin, _HEADER.size))
    _, count, mode, _, _, _, _, chip_id, _, least, _, hashed = header
    notes.chip = CHIPS.get(chip_id, f"chip-{chip_id}")
    table_at = _table_behind(reader, _end_of_segments(reader, begin, count))
    if begin or table_at:
        place = (
            f"its partition table is at {table_at:#x}" if table_at else f"it begins with {begin:#x} bytes of nothing"
        )
        text = f"this is a merged image for a programmer: {place}"
        notes.fault("merged_image", text, "sign the application alone, such as build/PROJECT.bin or firmware.bin")
        return
    if chip_id not in CHIPS:
        notes.fault(
            "unknown_chip", f"no chip has the number {chip_id}", "say which chip it is for, or update this program"
        )
    notes.fact("flash mode", _MODES.get(mode, mode))
    if least not in _ANY_REVISION:
        notes.fact("lowest chip revision", f"{least // 100}.{least % 100}")
    _read_descriptor(reader, notes)
    end = _check_segments(reader, count, notes)
    end = _check_hash(reader, end, hashed, notes)
    _check_behind(reader, end, notes, key)


def _header_fits(head: bytes, at: int) -> bool:
    if len(head) < at + _HEADER.size + _SEGMENT.size:
        return False
    magic, count, mode, _, entry, _, _, _, _, _, _, hashed = _HEADER.unpack_from(head, at)
    load, length = _SEGMENT.unpack_from(head, at + _HEADER.size)
    plausible = 0 < count <= _MAX_SEGMENTS and mode in _MODES and hashed <= 1
    # The family runs from 0x2000_0000 (low-power memory) up to 0x6000_0000; its segments are smaller than its flash.
    return bool(
        magic == MAGIC
        and plausible
        and head[at + 19 : at + 23] == bytes(4)
        and 0x2000_0000 <= entry < 0x6100_0000
        and 0x2000_0000 <= load < 0x6100_0000
        and length < 1 << 25
    )


def _end_of_segments(reader: Reader, begin: int, count: int) -> int:
    at = begin + _HEADER.size
    for number in range(count):
        _, length = _SEGMENT.unpack(reader.read(at, _SEGMENT.size))
        if length % 4:
            raise BrokenError("bad_segment", f"segment {number} has {length} bytes, no multiple of 4", AGAIN)
        at += _SEGMENT.size + length
    return at


def _table_behind(reader: Reader, end: int) -> int:
    """Return where a partition table begins behind `end`, 0 for nowhere: an entry, and another one or the end of it."""
    for at in _TABLES_AT:
        entry = reader.some(at, 64) if at >= end else b""
        if len(entry) == 64 and entry[:2] == _TABLE_MAGIC and entry[2] in (0, 1):
            begins = int.from_bytes(entry[4:8], "little")
            if begins % _SECTOR == 0 and entry[32:34] in (_TABLE_MAGIC, b"\xeb\xeb", b"\xff\xff"):
                return at
    return 0


def _read_descriptor(reader: Reader, notes: Notes) -> None:
    magic, secure, version, project, time, date, idf, elf, *_ = _DESCRIPTOR.unpack(
        reader.some(_DESCRIPTOR_AT, _DESCRIPTOR.size).ljust(_DESCRIPTOR.size, b"\0")
    )
    if magic != _DESCRIPTOR_MAGIC:
        text = "it has no application descriptor at byte 32: it is a bootloader, or older than ESP-IDF 3.1"
        notes.fault("no_app_descriptor", text, "sign the application, such as build/PROJECT.bin or firmware.bin")
        return
    notes.version, notes.security_version = text_of(version), secure
    notes.fact("project", text_of(project))
    notes.fact("built", f"{text_of(date)} {text_of(time)}".strip())
    notes.fact("ESP-IDF", text_of(idf))
    notes.fact("ELF SHA-256", elf.hex() if any(elf) else "")
    if text_of(project) in _BUILDERS or text_of(version).startswith(_BUILDERS):
        text = f"version {notes.version!r} is that of the core's builder, not of the sketch"
        notes.warn("builder_version", text, "trust the version in the statement, not the one in the image")


def _check_segments(reader: Reader, count: int, notes: Notes) -> int:
    """Check the segments and their checksum; returns where they end."""
    at, checksum = _HEADER.size, 0xEF
    for _ in range(count):
        _, length = _SEGMENT.unpack(reader.read(at, _SEGMENT.size))
        at += _SEGMENT.size
        for piece in reader.pieces(at, at + length):
            checksum ^= xor_of(piece)
        at += length
    end = rounded(at + 1, _BLOCK)
    notes.fact("segments", count)
    if reader.read(end - 1, 1)[0] != checksum:
        notes.fault("checksum", f"the checksum at {end - 1:#x} does not hold: bytes were changed", AGAIN)
    return end


def _check_hash(reader: Reader, end: int, hashed: int, notes: Notes) -> int:
    """Check the appended hash; returns where the image ends."""
    if not hashed:
        text = "it has no appended SHA-256: a device that restarts notices less, and cannot say what it runs"
        notes.warn("no_hash", text, "build it without CONFIG_APP_NO_HASH, or with `esptool elf2image` as it is")
        return end
    said = reader.read(end, _HASH_BYTES)
    if said != reader.digest(end):
        notes.fault("hash", f"the SHA-256 at {end:#x} does not hold: bytes were changed", AGAIN)
    notes.fact("image SHA-256", said.hex())
    return end + _HASH_BYTES


def _check_behind(reader: Reader, end: int, notes: Notes, key: ImageKey | None) -> None:
    behind = reader.size_bytes - end
    sector = rounded(end, _SECTOR)
    if behind == 0:
        notes.fact("signature", "none")
    elif reader.size_bytes == sector + _SECTOR and reader.some(sector, 1) == bytes([secure_boot.MAGIC]):
        _check_padding(reader, end, sector, notes)
        secure_boot.examine(reader, sector, notes, key)
    elif behind in _V1_BYTES and reader.read(end, 4) == bytes(4):
        notes.fact("signature", "Secure Boot v1, not checked")
    elif behind == padded_trailer.TRAILER_BYTES:
        padded_trailer.examine(reader, end, notes, key)
    elif reader.size_bytes == sector and not any(byte != 0xFF for byte in reader.read(end, behind)):
        notes.fault(
            "unsigned", "it is padded for Secure Boot v2, but not signed", "sign it: espsecure sign-data --version 2"
        )
    else:
        text = f"{behind} bytes follow the image, which ends at {end:#x}"
        notes.fault("trailing_bytes", text, "sign the file as the build made it")


def _check_padding(reader: Reader, end: int, sector: int, notes: Notes) -> None:
    if any(byte != 0xFF for byte in reader.read(end, sector - end)):
        notes.fault("trailing_bytes", f"between {end:#x} and {sector:#x} is more than FF", AGAIN)
