"""Images for the RP2040 and the RP2350 that are written to flash as they are.

Rules:
- RP2040: 256 bytes of second-stage bootloader, the CRC-32/MPEG-2 of the first 252 in the last four; then the vectors.
  Blocks as the RP2350 has them say nothing there.
  A file with vectors behind a bootloader whose CRC does not hold is one whose bytes were changed.
- RP2350: in the first 4096 bytes a block `FFFFDED3, items, AB123579`. Each has an offset to the next one, and they come
  round to the first. The item IMAGE_TYPE names chip and processor, VERSION the version and the rollback number.
- The update loader of arduino-pico stands in the first 0x3000 bytes of every sketch, whose vectors follow there. The
  updater checks nothing else, so that what lacks it is found by nobody before the device does not start.
- Behind it may be a signature, see `arduino_trailer`. The image does not say where it ends: that the last word is a
  good length is all that can be seen without the key.
- The hash and the signature within RP2350 blocks are not checked.

Sources: RP2040 datasheet 2.8.1.3; RP2350 datasheet 5.9; pico-sdk, `boot/picobin.h`, `pad_checksum`; picotool,
`bintool/metadata.h`; arduino-pico, `ota/` and `lib/*/memmap_default.ld`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from orchestrator.images import arduino_trailer
from orchestrator.images.checksums import crc32_mpeg2
from orchestrator.images.findings import PICO, BrokenError, Notes
from orchestrator.images.image_keys import ImageKey
from orchestrator.images.reader import AGAIN, Reader

BOOT2_BYTES: Final = 256
_WINDOW = 4096
_BEGIN, _END = struct.pack("<I", 0xFFFFDED3), 0xAB123579
_LAST, _IMAGE_TYPE, _VERSION = 0xFF, 0x42, 0x48
_MOST_BLOCK_BYTES, _MOST_BLOCKS = 640, 16
_SKETCH_AT = 0x3000
_RAM, _FLASH = (0x2000_0000, 0x2010_0000), (0x1000_0000, 0x1200_0000)
_CHIPS = {0: "rp2040", 1: "rp2350"}
_PROCESSORS = {0: "Arm", 1: "RISC-V"}
_KINDS = {1: "program", 2: "data"}


def looks_so(head: bytes) -> bool:
    """Say whether a file that begins so is an image for one of the two."""
    return _is_rp2040(head) or _first_block(head) is not None


def examine(reader: Reader, notes: Notes, key: ImageKey | None) -> None:
    """Check an image and write down what it is.

    Args:
        reader: the file.
        notes: gets what is found.
        key: by which a signature behind it is checked; None to leave it at its form.

    Raises:
        BrokenError: a block is impossible.
    """
    notes.format = PICO
    head = reader.some(0, _WINDOW)
    at = None if _crc_holds(head) else _first_block(head)
    if at is None:
        _examine_rp2040(head, notes)
    else:
        _examine_blocks(reader, at, notes)
    if notes.chip == "rp2040" or _vectors_fit(reader.some(_SKETCH_AT, 8)):
        _look_for_loader(reader, notes)
    length = arduino_trailer.length_before(reader)
    arduino_trailer.judge(
        reader, reader.size_bytes - (length + arduino_trailer.LENGTH_BYTES if length else 0), notes, key
    )


def _is_rp2040(head: bytes) -> bool:
    return _crc_holds(head) or (head[:2] == b"\x00\xb5" and _vectors_fit(head[BOOT2_BYTES : BOOT2_BYTES + 8]))


def _crc_holds(head: bytes) -> bool:
    said = int.from_bytes(head[BOOT2_BYTES - 4 : BOOT2_BYTES], "little")
    return len(head) > BOOT2_BYTES and any(head[:BOOT2_BYTES]) and crc32_mpeg2(head[: BOOT2_BYTES - 4]) == said


def _vectors_fit(data: bytes) -> bool:
    """Say whether these eight bytes are a stack in RAM and a first instruction in flash."""
    if len(data) < 8:
        return False
    stack, start = struct.unpack("<II", data[:8])
    return bool(_RAM[0] < stack <= _RAM[1] and stack % 4 == 0 and _FLASH[0] < start < _FLASH[1] and start % 2 == 1)


def _examine_rp2040(head: bytes, notes: Notes) -> None:
    notes.chip = "rp2040"
    if not _crc_holds(head):
        notes.fault("boot2_crc", "the CRC of its first 252 bytes does not hold: the chip would not start it", AGAIN)


def _look_for_loader(reader: Reader, notes: Notes) -> None:
    if _vectors_fit(reader.some(_SKETCH_AT, 8)):
        notes.fact("update loader", "of arduino-pico, sketch at 0x3000")
        return
    text = "no vectors stand at 0x3000, where every sketch of arduino-pico has them behind its update loader"
    notes.warn("no_update_loader", text, "offer it only to devices that update in another way")


def _first_block(head: bytes) -> int | None:
    """Return where in the first 4096 bytes a block begins whose items can be read."""
    at = head[:_WINDOW].find(_BEGIN)
    while at >= 0:
        if at % 4 == 0:
            try:
                _read_block(head[at : at + _MOST_BLOCK_BYTES])
            except BrokenError:
                pass
            else:
                return at
        at = head[:_WINDOW].find(_BEGIN, at + 1)
    return None


def _examine_blocks(reader: Reader, first: int, notes: Notes) -> None:
    at, seen = first, 0
    while True:
        items, link = _read_block(reader.some(at, _MOST_BLOCK_BYTES))
        for kind, item in items:
            _note_item(kind, item, notes)
        seen += 1
        at += link
        if at == first:
            break
        if not 0 <= at < reader.size_bytes or at % 4 or seen == _MOST_BLOCKS:
            text = f"its blocks lead to {at:#x} and not back to the first one: the chip would not start it"
            notes.fault("block_loop", text, AGAIN)
            break
    notes.fact("blocks", seen)
    if not notes.chip:
        notes.fault("no_image_type", "no block says for which chip it is", "build it with an image definition")


def _note_item(kind: int, item: bytes, notes: Notes) -> None:
    if kind == _IMAGE_TYPE and not notes.chip:
        flags = int.from_bytes(item[2:4], "little")
        notes.chip = _CHIPS.get(flags >> 12 & 7, f"rp-{flags >> 12 & 7}")
        notes.fact("kind", _KINDS.get(flags & 15, "unknown"))
        notes.fact("processor", _PROCESSORS.get(flags >> 8 & 7, "unknown"))
        if flags >> 15:
            notes.fact("try before you buy", "yes")
    elif kind == _VERSION and len(item) >= 8:
        notes.version = f"{int.from_bytes(item[6:8], 'little')}.{int.from_bytes(item[4:6], 'little')}"
        if item[3] and len(item) >= 12:
            notes.security_version = int.from_bytes(item[8:10], "little")


def _read_block(data: bytes) -> tuple[list[tuple[int, bytes]], int]:
    """Return the items of a block, each with its header, and the offset to the next block."""
    items = list(_items(data))
    at = 4 + sum(len(item) for _, item in items)
    link, end = struct.unpack_from("<iI", data, at + 4) if len(data) >= at + 12 else (0, 0)
    said = int.from_bytes(data[at + 1 : at + 3], "little")
    if end != _END or said * 4 != at - 4:
        raise BrokenError("bad_block", "a block of it has no end", AGAIN)
    return items, link


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    if data[:4] != _BEGIN:
        raise BrokenError("bad_block", "a block of it has no beginning", AGAIN)
    at = 4
    while at + 4 <= len(data) and data[at] != _LAST:
        words = int.from_bytes(data[at + 1 : at + 3], "little") if data[at] & 0x80 else data[at + 1]
        if not words or at + 4 * words > len(data):
            raise BrokenError("bad_block", "an item of a block is longer than the block", AGAIN)
        yield data[at], data[at : at + 4 * words]
        at += 4 * words
