"""What the HTTP updaters of the three Arduino cores say of themselves in the headers of a request.

Rules:
- Which core asks is told by the prefix of its headers; who sends none of them, or those of two cores, is no updater.
- A header that was sent twice, or that no core would write, makes the request malformed: it is never guessed.
- All but the mode is optional: older cores, and the one for the Pico, leave most of it out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.pace.requirement import Condition
from orchestrator.errors import PayloadError
from orchestrator.wire.report import OwnFacts

MAX_FIELDS = 32
MAX_VERSION_CHARS = 64
_MAC = re.compile(r"[0-9A-F]{2}(?::[0-9A-F]{2}){5}")
_CHIP_ID = re.compile(r"[0-9A-F]{1,16}")
_BYTES = re.compile(r"[0-9]{1,10}")
_MD5, _SHA256 = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{64}")


class Core(StrEnum):
    """Which core asks; the word is its dialect, and the family of the images that it takes."""

    ESP8266 = "esp8266"
    ESP32 = "esp32"
    PICO = "pico"


class Mode(StrEnum):
    """What is asked for."""

    SKETCH = "sketch"
    FILES = "spiffs"
    VERSION = "version"


_PREFIXES = {f"x-{core}-": core for core in Core}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of an updater.

    Attributes:
        core: which core asks.
        mode: what for.
        macs: addresses of its stations, upper-case with colons.
        chip_id: number of its chip, upper-case, "" if not said.
        free_bytes: room for a new sketch, None if not said.
        chip_bytes: size of its flash, None if not said.
        md5: MD5 of the running sketch in lower-case hex, "" if not said.
        sha256: SHA-256 of the running image, likewise.
        version: what the sketch calls itself, "" if it does not.
    """

    core: Core
    mode: Mode
    macs: frozenset[str] = frozenset()
    chip_id: str = ""
    free_bytes: int | None = None
    chip_bytes: int | None = None
    md5: str = ""
    sha256: str = ""
    version: str = ""

    @property
    def says_hash(self) -> bool:
        """Whether the running image can be recognised, whatever its sketch calls it."""
        return bool(self.md5 or self.sha256)

    def facts(self, known: Condition, since: float) -> OwnFacts | None:
        """Return what it says of its room: on an ESP32 the slot, on an ESP8266 what is free; None if that is known.

        Args:
            known: what it said before.
            since: what was said before this time is said again; a slot never changes.
        """
        if not self.free_bytes:
            return None
        if self.core is Core.ESP32:
            slot = known.slot_bytes
            return None if slot is not None and slot.value == self.free_bytes else OwnFacts(slot=self.free_bytes)
        free = known.free_bytes
        is_known = free is not None and free.value == self.free_bytes and free.at >= since
        return None if is_known else OwnFacts(free=self.free_bytes)


def read_headers(headers: Iterable[tuple[str, str]]) -> Asked | None:
    """Return what an updater asks, None if no updater asks.

    Args:
        headers: names in any case, and values.

    Raises:
        PayloadError: the headers are not as a core writes them.
    """
    found: dict[Core, dict[str, str]] = {}
    for name, value in headers:
        lower = name.lower()
        prefix = next((prefix for prefix in _PREFIXES if lower.startswith(prefix)), None)
        if prefix is None:
            continue
        fields = found.setdefault(_PREFIXES[prefix], {})
        if lower.removeprefix(prefix) in fields or len(fields) >= MAX_FIELDS:
            raise PayloadError("a header of the updater was sent twice, or there are too many", code="malformed")
        fields[lower.removeprefix(prefix)] = value.strip()
    if len(found) != 1:
        return None
    [(core, fields)] = found.items()
    return _asked(core, fields)


def plain_mac(text: str) -> str:
    """Return an address as the cores write it, however a person does."""
    digits = re.sub(r"[^0-9A-F]", "", text.upper())
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))


def _asked(core: Core, fields: Mapping[str, str]) -> Asked:
    try:
        mode = Mode(fields.get("mode", ""))
    except ValueError:
        raise PayloadError("the mode is none of sketch, spiffs and version", code="malformed") from None
    macs = (_word(fields, name, _MAC, upper=True) for name in ("sta-mac", "ap-mac"))
    version = fields.get("version", "")
    if len(version) > MAX_VERSION_CHARS or not version.isprintable():
        text = f"the version has more than {MAX_VERSION_CHARS} characters, or some that are not printed"
        raise PayloadError(text, code="malformed")
    return Asked(
        core=core,
        mode=mode,
        macs=frozenset(mac for mac in macs if mac),
        chip_id=_word(fields, "chip-id", _CHIP_ID, upper=True),
        free_bytes=_number(fields, "free-space"),
        chip_bytes=_number(fields, "chip-size"),
        md5=_word(fields, "sketch-md5", _MD5),
        sha256=_word(fields, "sketch-sha256", _SHA256),
        version=version,
    )


def _word(fields: Mapping[str, str], name: str, form: re.Pattern[str], *, upper: bool = False) -> str:
    value = fields.get(name, "")
    word = value.upper() if upper else value.lower()
    if word and (not value.isascii() or form.fullmatch(word) is None):
        raise PayloadError(f"{name} is not as the core writes it", code="malformed")
    return word


def _number(fields: Mapping[str, str], name: str) -> int | None:
    word = _word(fields, name, _BYTES)
    return int(word) if word else None
