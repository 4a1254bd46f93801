"""Images for MCUboot, as imgtool signs them.

Rules:
- 32 bytes of header, then the program from `hdr_size` on; then, where there are any, protected entries (magic 6908),
  and entries (magic 6907): type, length, value. The hash covers everything before the entries that are not protected,
  and is the one that mcumgr shows.
- An image without its hash, or whose hash does not hold, is refused by the bootloader. An encrypted one hashes the
  plain bytes, which cannot be seen here.
- `imgtool sign --pad` makes a whole slot, with a trailer that says what to do at the next start: for a programmer.
- Signatures are named, not checked: the bootloader holds the key, and an image names it only by its hash.

Sources: mcu-tools/mcuboot, `docs/design.md`, `boot/bootutil/include/bootutil/image.h`, `scripts/imgtool/image.py`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from orchestrator.images.findings import MCUBOOT, BrokenError, Notes, listed
from orchestrator.images.reader import AGAIN, Reader

MAGIC: Final = 0x96F3B83D
_HEADER, _AREA = struct.Struct("<IIHHIIBBHII"), struct.Struct("<HH")
_PLAIN, _PROTECTED = 0x6907, 0x6908
_ENCRYPTED, _NOT_BOOTABLE = 0x4 | 0x8, 0x10
_HASHES = {0x10: "sha256", 0x11: "sha384", 0x12: "sha512"}
_SIGNATURES = {0x20: "RSA-2048", 0x21: "ECDSA P-224", 0x22: "ECDSA", 0x23: "RSA-3072", 0x24: "Ed25519"}
_KEY_HASH, _DEPENDENCY, _COUNTER = 0x01, 0x40, 0x50
_TRAILER = bytes.fromhex("77c295f360d2ef7f3552500f2cb67980")


@dataclass(slots=True)
class _Entries:
    """The entries of both areas, and how far the hash reaches."""

    found: list[tuple[int, bytes]] = field(default_factory=list)
    hashed_end: int = 0
    end: int = 0


def looks_so(head: bytes) -> bool:
    """Say whether a file that begins so is an image for MCUboot."""
    return len(head) >= _HEADER.size and head[:4] == MAGIC.to_bytes(4, "little")


def examine(reader: Reader, notes: Notes) -> None:
    """Check an image and write down what it is.

    Raises:
        BrokenError: it ends too early, or a header is impossible.
    """
    notes.format = MCUBOOT
    _, load, header_bytes, protected, size, flags, major, minor, revision, build, _ = _HEADER.unpack(
        reader.read(0, _HEADER.size)
    )
    notes.version = f"{major}.{minor}.{revision}" + (f"+{build}" if build else "")
    if header_bytes < _HEADER.size:
        raise BrokenError("bad_header", f"it says that its header has {header_bytes} bytes", AGAIN)
    notes.fact("header", f"{header_bytes} bytes")
    notes.fact("load address", f"{load:#x}" if load else "")
    if flags & _NOT_BOOTABLE:
        notes.warn("not_bootable", "it is marked as not bootable", "offer it only as a part of another image")
    entries = _read_entries(reader, header_bytes + size, protected)
    _note_entries(entries, notes)
    _check_hash(reader, entries, bool(flags & _ENCRYPTED), notes)
    _check_behind(reader, entries.end, notes)


def _read_entries(reader: Reader, at: int, protected: int) -> _Entries:
    entries = _Entries(hashed_end=at + protected)
    if protected:
        at = _read_area(reader, at, _PROTECTED, entries)
        if at != entries.hashed_end:
            raise BrokenError("bad_entries", "its protected entries are not as long as its header says", AGAIN)
    entries.end = _read_area(reader, at, _PLAIN, entries)
    return entries


def _read_area(reader: Reader, at: int, magic: int, entries: _Entries) -> int:
    found, length = _AREA.unpack(reader.read(at, _AREA.size))
    if found != magic or length < _AREA.size:
        raise BrokenError("bad_entries", f"no entries begin at {at:#x}, where its header ends the program", AGAIN)
    data, place = reader.read(at, length), _AREA.size
    while place < length:
        if place + _AREA.size > length:
            raise BrokenError("bad_entries", f"an entry at {at + place:#x} reaches beyond the others", AGAIN)
        kind, size = _AREA.unpack_from(data, place)
        place += _AREA.size + size
        if place > length:
            raise BrokenError("bad_entries", f"an entry before {at + place:#x} reaches beyond the others", AGAIN)
        entries.found.append((kind, data[place - size : place]))
    return at + len(data)


def _note_entries(entries: _Entries, notes: Notes) -> None:
    signed = [_SIGNATURES[kind] for kind, value in entries.found if kind in _SIGNATURES and value]
    if signed:
        notes.signature, notes.signed_bytes = MCUBOOT, entries.hashed_end
    notes.fact("signature", f"{listed(signed)}, not checked" if signed else "none")
    if not signed:
        notes.warn("unsigned", "it is not signed", "sign it with imgtool, if the bootloader of the devices checks")
    for kind, value in entries.found:
        if kind == _KEY_HASH:
            notes.fact("key hash", value.hex())
            notes.key_digests.append(value.hex())
        elif kind == _COUNTER and len(value) == 4:
            notes.security_version = int.from_bytes(value, "little")
        elif kind == _DEPENDENCY and len(value) == 12:
            image, major, minor, revision, _ = struct.unpack("<B3xBBHI", value)
            notes.fact("needs", f"image {image} at {major}.{minor}.{revision} or later")


def _check_hash(reader: Reader, entries: _Entries, encrypted: bool, notes: Notes) -> None:
    hashes = [(_HASHES[kind], value) for kind, value in entries.found if kind in _HASHES]
    if not hashes:
        notes.fault("no_hash", "it has no hash, without which no bootloader starts it", "sign it with imgtool")
    for name, value in hashes:
        notes.fact(f"image {name}", value.hex())
        if encrypted:
            notes.warn(
                "encrypted", "it is encrypted, and its hash is that of the plain bytes", "check it before encrypting"
            )
        elif reader.digest(entries.hashed_end, name) != value:
            notes.fault("hash", f"its {name} does not hold: bytes were changed", AGAIN)


def _check_behind(reader: Reader, end: int, notes: Notes) -> None:
    behind = reader.size_bytes - end
    if not behind:
        return
    if reader.read(reader.size_bytes - 16, 16) == _TRAILER:
        text = "it is padded to a whole slot with a trailer, for a programmer"
        notes.fault("padded", text, "sign it without --pad, such as zephyr.signed.bin")
    else:
        text = f"{behind} bytes follow its entries, which end at {end:#x}"
        notes.fault("trailing_bytes", text, "sign the file as imgtool made it")
