"""Bundles for RAUC: a squashfs, a CMS structure, and the length of that in eight bytes, the highest first.

Rules:
- `plain`: the signature is detached and covers the squashfs, whose manifest we do not unpack. `verity`: the manifest is
  inside the CMS, and a hash tree stands between squashfs and CMS. `crypt` is verity with an encrypted squashfs.
- The CMS is DER and fills its place to the byte. Its signature is not checked: the device has the certificate. One that
  is encrypted has its signature inside, unseen; RAUC knows no bundle without one.
- What the manifest says is shown only where it stands in the CMS and the CMS is not encrypted itself.

Sources: RAUC, "Bundle Formats" and `src/bundle.c`; RFC 5652; squashfs, `squashfs_fs.h`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from orchestrator.images.findings import RAUC, RAUCB, BrokenError, Notes, listed
from orchestrator.images.reader import AGAIN, Reader

MAGIC: Final = b"hsqs"
_SUPERBLOCK = struct.Struct("<4s4I6H8Q")
_LENGTH_BYTES, _MOST_CMS = 8, 1 << 20
_SIGNED, _ENVELOPED = bytes.fromhex("06092a864886f70d010702"), bytes.fromhex("06092a864886f70d010703")
_SEQUENCE, _SET, _OCTETS, _EXPLICIT = 0x30, 0x31, 0x04, 0xA0
_BLOCK, _MOST_PARTS = 4096, 6


@dataclass(frozen=True, slots=True)
class _Value:
    """One value in DER."""

    tag: int
    content: bytes
    rest: bytes


def looks_so(head: bytes) -> bool:
    """Say whether a file that begins so may be a bundle: it is a squashfs of version 4."""
    return len(head) >= _SUPERBLOCK.size and head[:4] == MAGIC and head[28:32] == b"\4\0\0\0"


def ends_so(reader: Reader) -> bool:
    """Say whether a file ends with a CMS and its length, as one whose squashfs is encrypted does."""
    try:
        return _read_cms(reader)[1] is not None
    except BrokenError:
        return False


def examine(reader: Reader, notes: Notes) -> None:
    """Check the frame of a bundle and write down what it is.

    Raises:
        BrokenError: there is no CMS at its end, or no squashfs before it.
    """
    notes.format = RAUCB
    at, cms = _read_cms(reader)
    notes.fact("CMS", f"{reader.size_bytes - at - _LENGTH_BYTES} bytes at {at:#x}, signature not checked")
    if cms.content.startswith(_ENVELOPED):
        notes.signature = RAUC
        notes.fact("bundle format", "crypt, encrypted")
        return
    if _is_signed(cms):
        notes.signature = RAUC
    else:
        notes.fault("unsigned", "nobody signed its CMS: RAUC refuses it", "make the bundle with: rauc bundle")
    manifest = _manifest_in(cms)
    if manifest:
        _note_manifest(manifest, at, notes)
    else:
        notes.signed_bytes = at if notes.signature else 0
        notes.fact("bundle format", "plain")
    if dict(notes.facts).get("bundle format") != "crypt":
        _check_squashfs(reader, at, notes)


def _read_cms(reader: Reader) -> tuple[int, _Value]:
    """Return where the CMS begins, and it."""
    remedy = "make the bundle with: rauc bundle"
    if reader.size_bytes <= _LENGTH_BYTES:
        raise BrokenError("no_cms", "it is too short for a bundle", remedy)
    length = int.from_bytes(reader.read(reader.size_bytes - _LENGTH_BYTES, _LENGTH_BYTES), "big")
    at = reader.size_bytes - _LENGTH_BYTES - length
    if not 0 < length <= _MOST_CMS or at < 0:
        text = "its last eight bytes are no length of a signature: it is a squashfs and no bundle, or was cut off"
        raise BrokenError("no_cms", text, remedy)
    data = reader.read(at, length)
    value = _first(data)
    if value is None or value.tag != _SEQUENCE or value.rest or not value.content.startswith((_SIGNED, _ENVELOPED)):
        raise BrokenError("bad_cms", f"what stands at {at:#x} is no CMS that fills its place", remedy)
    return at, value


def _first(data: bytes) -> _Value | None:
    """Return the first value in DER, None for none."""
    if len(data) < 2:
        return None
    length, at = data[1], 2
    if length & 0x80:
        at += length & 0x7F
        if not 2 < at <= 6:
            return None
        length = int.from_bytes(data[2:at], "big")
    return _Value(data[0], data[at : at + length], data[at + length :]) if at + length <= len(data) else None


def _is_signed(cms: _Value) -> bool:
    """Say whether the last part of SignedData is a set of signers with anyone in it."""
    value = _first(cms.content[len(_SIGNED) :])
    signed = _first(value.content) if value else None
    part = _first(signed.content) if signed else None
    for _ in range(_MOST_PARTS):
        if part is None or not part.rest:
            break
        part = _first(part.rest)
    return part is not None and not part.rest and part.tag == _SET and bool(part.content)


def _manifest_in(cms: _Value) -> str:
    """Return the text that the CMS carries: ContentInfo, SignedData, EncapsulatedContentInfo, OCTET STRING."""
    value = _first(cms.content[len(_SIGNED) :])
    for tag in (_EXPLICIT, _SEQUENCE):
        if value is None or value.tag != tag:
            return ""
        value = _first(value.content)
    for _ in range(2):  # behind the version and the digest algorithms
        value = _first(value.rest) if value else None
    if value is None or value.tag != _SEQUENCE:
        return ""
    kind = _first(value.content)
    wrapped = _first(kind.rest) if kind else None
    octets = _first(wrapped.content) if wrapped and wrapped.tag == _EXPLICIT else None
    return octets.content.decode("utf-8", "replace") if octets and octets.tag == _OCTETS else ""


def _note_manifest(manifest: str, cms_at: int, notes: Notes) -> None:
    values: dict[tuple[str, str], str] = {}
    images: list[str] = []
    section = ""
    for line in manifest.splitlines():
        name, equals, value = line.partition("=")
        if line.startswith("["):
            section = line.strip("[] ")
            images += [section.removeprefix("image.")] if section.startswith("image.") else []
        elif equals:
            values[section, name.strip()] = value.strip()
    notes.version = values.get(("update", "version"), "")
    notes.fact("bundle format", values.get(("bundle", "format"), "unknown"))
    notes.fact("compatible", values.get(("update", "compatible"), ""))
    notes.fact("images", listed(images))
    _check_tree(values.get(("bundle", "verity-size"), ""), cms_at, notes)


def _check_tree(said: str, cms_at: int, notes: Notes) -> None:
    if not (said.isascii() and said.isdigit() and len(said) < 20):
        notes.fault("bad_manifest", "its manifest does not say how long the hash tree is", AGAIN)
    elif not 0 < int(said) < cms_at or int(said) % _BLOCK or cms_at % _BLOCK:
        text = f"a hash tree of {said} bytes does not fit before the CMS at {cms_at:#x}"
        notes.fault("bad_manifest", text, AGAIN)


def _check_squashfs(reader: Reader, cms_at: int, notes: Notes) -> None:
    fields = _SUPERBLOCK.unpack(reader.read(0, _SUPERBLOCK.size))
    magic, used = fields[0], fields[12]
    if magic != MAGIC:
        notes.fault("no_squashfs", "it does not begin with a squashfs", AGAIN)
    elif not _SUPERBLOCK.size < used <= cms_at:
        text = f"its squashfs has {used} bytes, of which {cms_at} are there before the CMS"
        notes.fault("truncated", text, AGAIN)
