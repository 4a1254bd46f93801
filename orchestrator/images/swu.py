"""Updates for SWUpdate: a cpio archive that begins with its description.

Rules:
- `newc` headers, with a sum of the bytes (070702) or without (070701). The first member is `sw-description`; if it is
  signed, the second is `sw-description.sig`. SWUpdate reads the archive as it comes, so order matters.
- Every file that the description names is a member, and has the hash that stands beside its name.
- The description is libconfig or JSON. We read settings, groups and lists, no includes and no expressions. One that is
  neither, such as an encrypted one, is a warning: then only the archive is checked.
- The signature is not checked: the device has the key, and the statement signs the whole file.

Sources: SWUpdate, "Software Management" and "Update images from verified source"; `cpio_utils.c`; cpio(5).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

from orchestrator.images.findings import SWU, SWUPDATE, BrokenError, Notes, listed
from orchestrator.images.reader import AGAIN, Reader, rounded

DESCRIPTION: Final = "sw-description"
_SIGNATURE, _END = "sw-description.sig", "TRAILER!!!"
_HEADER_BYTES, _MOST_NAME, _MOST_MEMBERS, _MOST_DESCRIPTION = 110, 256, 512, 256 * 1024
_HEADER = re.compile(rb"07070([12])([0-9A-Fa-f]{104})")
_SIZE, _NAME_SIZE, _SUM = 6, 11, 12
_MOST_DEPTH, _MOST_ENTRIES = 32, 512
_ADVICE = "make it again, with the files in the order of its sw-description"


@dataclass(frozen=True, slots=True)
class _Member:
    """One file in the archive, by its hash in hex; the description also by its bytes."""

    name: str
    sha256: str
    text: bytes = b""


@dataclass(slots=True)
class _Description:
    """What we need of a description."""

    version: str = ""
    hardware: list[str] = field(default_factory=list)
    files: list[tuple[str, str]] = field(default_factory=list)  # name, SHA-256 or ""


def looks_so(head: bytes) -> bool:
    """Say whether a file that begins so is an archive with a description in front."""
    name = DESCRIPTION.encode() + b"\0"
    return _HEADER.match(head) is not None and head[_HEADER_BYTES : _HEADER_BYTES + len(name)] == name


def examine(reader: Reader, notes: Notes) -> None:
    """Check the archive and write down what it is.

    Raises:
        BrokenError: a header is impossible, or it ends too early.
    """
    notes.format = SWU
    members = _read_members(reader, notes)
    names = [member.name for member in members]
    notes.fact("members", len(names))
    if names[:1] != [DESCRIPTION]:
        raise BrokenError("no_description", f"its first member is not {DESCRIPTION}", _ADVICE)
    _check_signature(names, notes)
    description = _read_description(members[0].text)
    if description is None:
        text = f"its {DESCRIPTION} is neither libconfig nor JSON that can be read: is it encrypted?"
        notes.warn("description_unread", text, "compare it with what you built")
        return
    notes.version = description.version
    notes.fact("hardware", listed(description.hardware))
    _check_files(description, members, notes)


def _read_members(reader: Reader, notes: Notes) -> list[_Member]:
    members: list[_Member] = []
    at = 0
    while True:
        kind, numbers = _read_header(reader, at)
        name_bytes = reader.read(at + _HEADER_BYTES, numbers[_NAME_SIZE])
        name = name_bytes.rstrip(b"\0").decode("utf-8", "replace")
        data_at = rounded(at + _HEADER_BYTES + numbers[_NAME_SIZE], 4)
        at = rounded(data_at + numbers[_SIZE], 4)
        if name == _END:
            break
        if len(members) == _MOST_MEMBERS:
            raise BrokenError("too_many_members", f"it has more than {_MOST_MEMBERS} members", _ADVICE)
        members.append(_read_member(reader, name, data_at, numbers, kind, notes))
    if any(piece.strip(b"\0") for piece in reader.pieces(min(at, reader.size_bytes), reader.size_bytes)):
        notes.fault("trailing_bytes", f"bytes follow the end of the archive at {at:#x}", "sign the file as it was made")
    return members


def _read_header(reader: Reader, at: int) -> tuple[bytes, list[int]]:
    found = _HEADER.fullmatch(reader.read(at, _HEADER_BYTES))
    if found is None:
        raise BrokenError("bad_cpio", f"there is no cpio header at {at:#x}", "make it with: cpio -o -H crc")
    fields = found[2]
    numbers = [int(fields[start : start + 8], 16) for start in range(0, len(fields), 8)]
    if not 0 < numbers[_NAME_SIZE] <= _MOST_NAME:
        raise BrokenError("bad_cpio", f"the name at {at:#x} has {numbers[_NAME_SIZE]} bytes", _ADVICE)
    return found[1], numbers


def _read_member(reader: Reader, name: str, at: int, numbers: list[int], kind: bytes, notes: Notes) -> _Member:
    hasher, total, end = hashlib.sha256(), 0, at + numbers[_SIZE]
    for piece in reader.pieces(at, end):
        hasher.update(piece)
        total += sum(piece) if kind == b"2" else 0
    if kind == b"2" and total & 0xFFFF_FFFF != numbers[_SUM]:
        notes.fault("checksum", f"the sum of the bytes of {name} does not hold: bytes were changed", AGAIN)
    text = reader.read(at, numbers[_SIZE]) if name == DESCRIPTION and numbers[_SIZE] <= _MOST_DESCRIPTION else b""
    return _Member(name, hasher.hexdigest(), text)


def _check_signature(names: list[str], notes: Notes) -> None:
    if _SIGNATURE not in names:
        notes.fact("signature", "none")
        notes.warn("unsigned", f"it has no {_SIGNATURE}", "sign it, if SWUpdate on the devices has a key")
    elif names[1] != _SIGNATURE:
        notes.fault("signature_order", f"{_SIGNATURE} is not its second member: SWUpdate refuses it", _ADVICE)
    else:
        notes.fact("signature", f"{_SIGNATURE}, not checked")
        notes.signature = SWUPDATE


def _check_files(description: _Description, members: list[_Member], notes: Notes) -> None:
    hashes = {member.name: member.sha256 for member in members}
    if len(hashes) != len(members):
        notes.fault("duplicate_member", "two members have the same name", _ADVICE)
    for name, sha256 in dict.fromkeys(description.files):
        if name not in hashes:
            notes.fault("missing_file", f"{name!r:.100} is in the description, not in the archive", "add it")
        elif sha256 and sha256.lower() != hashes[name]:
            text = f"the SHA-256 of {name!r:.100} is {hashes[name]}, the description says {sha256!r:.70}"
            notes.fault("file_hash", text, "make the description again from the files")


def _read_description(text: bytes) -> _Description | None:
    try:
        decoded = text.decode("utf-8")
        tree = json.loads(decoded) if decoded.lstrip()[:1] == "{" else _parse_libconfig(decoded)
    except (ValueError, RecursionError):
        return None
    return _gather(tree) if isinstance(tree, dict) and tree else None


def _gather(tree: dict[str, Any]) -> _Description:
    """Collect what we need from groups at any depth: alternatives and collections nest."""
    software = tree.get("software")
    top = software if isinstance(software, dict) else tree
    description = _Description(_text(top.get("version")))
    open_groups: list[tuple[Any, int]] = [(tree, 0)]
    while open_groups and len(description.files) < _MOST_ENTRIES:
        value, depth = open_groups.pop()
        if isinstance(value, dict):
            if _text(value.get("filename")):
                description.files.append((_text(value["filename"]), _text(value.get("sha256"))))
            hardware = value.get("hardware-compatibility")
            if isinstance(hardware, list):
                description.hardware += [_text(item) for item in hardware if _text(item)]
        if depth < _MOST_DEPTH and isinstance(value, dict | list):
            inner = value.values() if isinstance(value, dict) else value
            open_groups += [(item, depth + 1) for item in inner]
    return description


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


_TOKEN = re.compile(
    r'\s+|(?:\#|//)[^\n]*|/\*(?:.*?\*/|.*\Z)|"(?P<string>(?:[^"\\]|\\.)*)"|(?P<mark>[{}()\[\];,:=])|(?P<word>[^\s{}()\[\];,:="#]+)',
    re.DOTALL,
)


def _parse_libconfig(text: str) -> dict[str, Any]:
    """Return the settings of a libconfig file as nested dicts and lists; numbers stay text.

    Raises:
        ValueError: it is none.
    """
    root: dict[str, Any] = {}
    stack: list[dict[str, Any] | list[Any]] = [root]
    name, assigned, at = "", False, 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise ValueError(f"character {at}")
        at = token.end()
        word, mark = token["word"], token["mark"]
        value: Any = token["string"] if token["string"] is not None else word
        if mark in ("{", "(", "["):
            value = {} if mark == "{" else []
        if isinstance(stack[-1], dict) and not assigned and word is not None:
            name = word
        elif value is not None:
            if isinstance(stack[-1], dict) and not assigned:
                raise ValueError(f"character {at}")
            _put(stack[-1], name, value)
            assigned = False
            if mark:
                stack.append(value)
        elif mark in ("}", ")", "]"):
            stack.pop()
            assigned = False
        elif mark in (":", "="):
            assigned = True
        if not stack or len(stack) > _MOST_DEPTH:
            raise ValueError(f"character {at}")
    if len(stack) != 1:
        raise ValueError("it ends within a group")
    return root


def _put(into: dict[str, Any] | list[Any], name: str, value: Any) -> None:
    if isinstance(into, list):
        into.append(value)
    else:
        into[name] = value
