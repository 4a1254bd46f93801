"""Partition tables of ESP-IDF: the CSV that people write, and the binary that is flashed.

Rules:
- Lines are `name, type, subtype, offset, size, flags`, in the order of flash; one that begins with `#` is a comment,
  and fields beyond these do not count. An empty offset is the next one that fits the type.
- What `gen_esp32part.py` refuses is a fault, and so is a partition without a name or size, or whose name it would cut
  off. All faults are found at once, each with its line.
- A binary has entries of 32 bytes (AA 50), then perhaps EB EB and the MD5 of all entries, then FF.
- An update over the air needs two slots `ota_N` and an `otadata` of 8 KiB. What fits is the smallest slot.

Sources: ESP-IDF, "Partition Tables", `gen_esp32part.py`, `esp_partition.h`.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from typing import Final

from orchestrator.errors import PayloadError
from orchestrator.images.findings import Fault, text_of

MOST_BYTES: Final = 64 * 1024
_ENTRY, _MAGIC, _MD5_MAGIC = struct.Struct("<2sBBII16sI"), b"\xaa\x50", b"\xeb\xeb" + b"\xff" * 14
_APP, _DATA, _FIRST_OTA, _OTA_SLOTS, _OTADATA = 0, 1, 0x10, 16, 0
_TABLE_AT, _SECTOR, _APP_ALIGN, _MOST_ENTRIES, _MOST_NAME = 0x8000, 0x1000, 0x10000, 95, 16
_OTADATA_BYTES, _MOST_FLASH = 0x2000, 1 << 32
_TYPES = {"app": _APP, "data": _DATA, "bootloader": 2, "partition_table": 3}
_BELOW_TABLE = (2, 3)
_APPS = {"factory": 0, "test": 0x20, **{f"ota_{number}": _FIRST_OTA + number for number in range(_OTA_SLOTS)}}
_DATAS = {
    "ota": 0,
    "phy": 1,
    "nvs": 2,
    "coredump": 3,
    "nvs_keys": 4,
    "efuse": 5,
    "undefined": 6,
    "esphttpd": 0x80,
    "fat": 0x81,
    "spiffs": 0x82,
    "littlefs": 0x83,
    "tee_ota": 0x90,
}
_UNDEFINED, _ALWAYS_WRITTEN = _DATAS["undefined"], (_DATAS["ota"], _DATAS["coredump"])
_PRIMARY = {"primary": 0, "ota": 1, "recovery": 2}
_SUBTYPES = {_APP: _APPS, _DATA: _DATAS, 2: _PRIMARY, 3: {"primary": 0, "ota": 1}}
_NUMBER = re.compile(r"(-?)(0x[0-9a-f]{1,8}|[0-9]{1,10})([km]?)", re.IGNORECASE)
_FLAGS = ("encrypted", "readonly")
_REMEDY = "correct the table, and build with it"


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition.

    Attributes:
        name: its label.
        type: 0 for applications, 1 for data.
        subtype: by type; 0x10 to 0x1F are `ota_0` to `ota_15`.
        offset: where it begins in flash.
        size_bytes: how long it is.
        line: where it stands, from 1; in a binary its number.
    """

    name: str
    type: int
    subtype: int
    offset: int
    size_bytes: int
    line: int

    @property
    def is_slot(self) -> bool:
        """Whether updates are written here."""
        return self.type == _APP and _FIRST_OTA <= self.subtype < _FIRST_OTA + _OTA_SLOTS


@dataclass(frozen=True, slots=True)
class Table:
    """A partition table.

    Attributes:
        partitions: in the order of the file.
        faults: everything that is wrong, in the order of the lines.
    """

    partitions: tuple[Partition, ...]
    faults: tuple[Fault, ...]

    @property
    def slot_bytes(self) -> int | None:
        """Size of the smallest slot for updates, None where there is none."""
        return min((partition.size_bytes for partition in self.partitions if partition.is_slot), default=None)


def read_partitions(data: bytes) -> Table:
    """Return the table in a CSV or a binary, with its faults.

    Args:
        data: at most `MOST_BYTES`.

    Raises:
        PayloadError: `bad_partitions`; it is neither.
    """
    if len(data) > MOST_BYTES:
        text = f"{len(data)} bytes are too many for a partition table; name the CSV, or the table alone"
        raise PayloadError(text, code="bad_partitions")
    faults: list[Fault] = []
    found = _read_binary(data, faults) if data[:2] == _MAGIC else _read_csv(data, faults)
    if not found and not faults:
        raise PayloadError("it names no partition; name the CSV that the build uses", code="bad_partitions")
    _check_places(found, faults)
    _check_updates(found, faults)
    return Table(tuple(found), tuple(faults))


def _read_binary(data: bytes, faults: list[Fault]) -> list[Partition]:
    found: list[Partition] = []
    for at in range(0, len(data) - _ENTRY.size + 1, _ENTRY.size):
        magic, kind, subtype, offset, size_bytes, label, _ = _ENTRY.unpack_from(data, at)
        if data[at : at + 16] == _MD5_MAGIC:
            if data[at + 16 : at + 32] != hashlib.md5(data[:at], usedforsecurity=False).digest():
                faults.append(Fault("table_md5", "the MD5 of the table does not hold: bytes were changed", _REMEDY))
            break
        if magic != _MAGIC or len(found) == _MOST_ENTRIES:
            break
        found.append(Partition(text_of(label), kind, subtype, offset, size_bytes, len(found) + 1))
    return found


def _read_csv(data: bytes, faults: list[Fault]) -> list[Partition]:
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        text = f"byte {error.start} is not UTF-8, and it is no binary table; name the CSV that the build uses"
        raise PayloadError(text, code="bad_partitions") from None
    found: list[Partition] = []
    end = _TABLE_AT + _SECTOR
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.strip().startswith("#"):
            continue
        if len(found) == _MOST_ENTRIES:
            _add(faults, number, f"there are more than {_MOST_ENTRIES} partitions")
            break
        try:
            partition = _read_line(line, number, end)
        except ValueError as error:
            _add(faults, number, str(error))
            continue
        if partition.type not in _BELOW_TABLE:
            if _TABLE_AT + _SECTOR <= partition.offset < end and not any(_overlap(other, partition) for other in found):
                _add(faults, number, f"{partition.name} stands behind those that it comes before in flash")
            end = max(end, partition.offset + partition.size_bytes)
        found.append(partition)
    return found


def _overlap(one: Partition, other: Partition) -> bool:
    return one.offset < other.offset + other.size_bytes and other.offset < one.offset + one.size_bytes


def _read_line(line: str, number: int, end: int) -> Partition:
    fields = [field.strip() for field in f"{line},,,,,".split(",")]
    name, kind_word, subtype_word, offset_word, size_word, flags = fields[:6]
    kind = _word(kind_word, _TYPES, 0xFE)
    subtype = _UNDEFINED if not subtype_word and kind != _APP else _word(subtype_word, _SUBTYPES.get(kind, {}), 0xFE)
    align = _APP_ALIGN if kind == _APP else _SECTOR
    offset = _number(offset_word) if offset_word else -(-end // align) * align
    size_bytes = _number(size_word)
    if size_bytes < 0:  # up to there
        size_bytes = -size_bytes - offset
    for flag in flags.split(":"):
        if flag not in ("", *_FLAGS):
            raise ValueError(f"no flag is named {flag!r:.20}")
    if "readonly" in flags.split(":") and kind == _DATA and subtype in _ALWAYS_WRITTEN:
        raise ValueError(f"{name} is written by the device and cannot be read-only")
    if not 0 < len(name.encode()) <= _MOST_NAME:
        raise ValueError(f"name {name!r:.40} has not 1 to {_MOST_NAME} bytes")
    if offset < 0 or size_bytes <= 0 or offset + size_bytes > _MOST_FLASH:
        raise ValueError(f"{name} from {offset:#x} with {size_bytes} bytes is impossible")
    return Partition(name, kind, subtype, offset, size_bytes, number)


def _word(text: str, words: dict[str, int], most: int) -> int:
    if text.lower() in words:
        return words[text.lower()]
    number = _number(text)
    if not 0 <= number <= most:
        raise ValueError(f"{text!r:.40} is no type or subtype")
    return number


def _number(text: str) -> int:
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r:.40} is not understood; write 0x10000, 65536, 64K or 1M")
    size = int(found[2], 0 if found[2][:2].lower() == "0x" else 10)
    size *= {"": 1, "k": 1 << 10, "m": 1 << 20}[found[3].lower()]
    return -size if found[1] else size


def _check_places(found: list[Partition], faults: list[Fault]) -> None:
    names: dict[str, int] = {}
    for partition in found:
        align = _APP_ALIGN if partition.type == _APP else _SECTOR
        if partition.offset % align:
            _add(faults, partition.line, f"{partition.name} begins at {partition.offset:#x}, no multiple of {align:#x}")
        if partition.type == _APP and partition.size_bytes % _SECTOR:
            _add(faults, partition.line, f"{partition.name} has {partition.size_bytes} bytes, no multiple of 0x1000")
        if partition.name in names:
            _add(faults, partition.line, f"{partition.name} stands in line {names[partition.name]} already")
        names.setdefault(partition.name, partition.line)
    ordered = sorted(found, key=lambda partition: partition.offset)
    for before, after in zip(ordered, ordered[1:], strict=False):
        if before.offset + before.size_bytes > after.offset:
            text = (
                f"{after.name} at {after.offset:#x} overlaps {before.name}, which ends at"
                f" {before.offset + before.size_bytes:#x}"
            )
            _add(faults, after.line, text, "partitions_overlap")
    for partition in ordered:
        if partition.offset < _TABLE_AT + _SECTOR and partition.type not in _BELOW_TABLE:
            _add(
                faults,
                partition.line,
                f"{partition.name} at {partition.offset:#x} overlaps the table and the bootloader",
            )


def _check_updates(found: list[Partition], faults: list[Fault]) -> None:
    slots = [partition for partition in found if partition.is_slot]
    if len({partition.subtype for partition in slots}) < max(2, len(slots)):
        text = f"it has {len(slots)} slots for updates, of which two different ones are needed"
        faults.append(Fault("no_slots", text, "add app partitions ota_0 and ota_1"))
    data = [partition for partition in found if partition.type == _DATA and partition.subtype == _OTADATA]
    if len(data) != 1:
        text = f"it has {len(data)} partitions `data, ota`, which say what to start; one is needed"
        faults.append(Fault("no_otadata", text, "add: otadata, data, ota, , 0x2000"))
    for partition in data:
        if partition.size_bytes != _OTADATA_BYTES:
            _add(faults, partition.line, f"{partition.name} has {partition.size_bytes} bytes, not 0x2000")


def _add(faults: list[Fault], line: int, text: str, code: str = "bad_partition") -> None:
    faults.append(Fault(code, f"line {line}: {text}", _REMEDY))
