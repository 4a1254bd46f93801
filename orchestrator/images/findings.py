"""What was found in a file: one value for every format.

Rules:
- A fault is a reason not to offer the file to any device; a warning is one to look at it, or not to offer it to some.
- Both say what is wrong and what to do, and have a code that does not change.
- `format` is the word that a statement has in `fmt`. `RAW` says that nothing was recognised.
- What stands in `facts` was written by whoever made the file: hostile text, to be shown escaped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from orchestrator.errors import PayloadError

RAW: Final = "raw"
ESP32, ESP32_ARDUINO = "esp32", "esp32-arduino"
ESP8266, ESP8266_LEGACY = "esp8266", "esp8266-legacy"
PICO, UF2 = "pico", "uf2"
MCUBOOT, SWU, RAUCB = "mcuboot", "swu", "raucb"
FORMATS: Final = (ESP32, ESP32_ARDUINO, ESP8266, ESP8266_LEGACY, PICO, UF2, MCUBOOT, SWU, RAUCB)
SECURE_BOOT_V2, SWUPDATE, RAUC = "esp32-secure-boot-v2", "swupdate", "rauc"
SIGNATURES: Final = (SECURE_BOOT_V2, ESP32_ARDUINO, ESP8266, ESP8266_LEGACY, PICO, MCUBOOT, SWUPDATE, RAUC)
"""Signatures that devices check by themselves, whatever brought the image."""
MAX_FACTS, MAX_TEXT = 64, 200


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        code: stable word, lower case with underscores.
        text: what is wrong, half a sentence.
        remedy: what to do.
    """

    code: str
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.text}; {self.remedy}"


class BrokenError(PayloadError):
    """The rest of a file cannot be read.

    Attributes:
        fault: why.
    """

    def __init__(self, code: str, text: str, remedy: str) -> None:
        super().__init__(f"{text}; {remedy}", code=code)
        self.fault = Fault(code, text, remedy)


@dataclass(frozen=True, slots=True)
class Findings:
    """What a file is, and what is wrong with it.

    Attributes:
        format: one of `FORMATS`, or `RAW`.
        size_bytes: of the file.
        chip: such as `esp32s3`, `esp8266`, `rp2040`; "" where the format names none.
        version: what the image says that it is; "" where it says nothing.
        security_version: counter that a device never goes back behind; None where the image has none.
        facts: name and value, in the order in which to show them.
        faults: why no device shall get it.
        warnings: what to look at.
        signature: one of `SIGNATURES`, by its form; "" for none.
        signed_bytes: how many of the first bytes that signature covers; 0 where it covers them in another way.
        verified: whether it was checked by the key that was given, and holds.
        key_digests: the keys that the image names, in hex, as its bootloader knows them.
    """

    format: str
    size_bytes: int
    chip: str = ""
    version: str = ""
    security_version: int | None = None
    facts: tuple[tuple[str, str], ...] = ()
    faults: tuple[Fault, ...] = ()
    warnings: tuple[Fault, ...] = ()
    signature: str = ""
    signed_bytes: int = 0
    verified: bool = False
    key_digests: tuple[str, ...] = ()


@dataclass(slots=True)
class Notes:
    """What a parser writes down while it reads.

    Attributes:
        format: see `Findings`; so are the others.
    """

    format: str = RAW
    chip: str = ""
    version: str = ""
    security_version: int | None = None
    facts: list[tuple[str, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)
    signature: str = ""
    signed_bytes: int = 0
    verified: bool = False
    key_digests: list[str] = field(default_factory=list)

    def fact(self, name: str, value: object) -> None:
        """Write down what the image says; empty values and those beyond `MAX_FACTS` are left out."""
        text = str(value)[:MAX_TEXT]
        if text and len(self.facts) < MAX_FACTS:
            self.facts.append((name, text))

    def fault(self, code: str, text: str, remedy: str) -> None:
        """Write down why no device shall get this."""
        _add(self.faults, Fault(code, text, remedy))

    def warn(self, code: str, text: str, remedy: str) -> None:
        """Write down what to look at."""
        _add(self.warnings, Fault(code, text, remedy))

    def done(self, size_bytes: int) -> Findings:
        """Return all of it."""
        return Findings(
            self.format,
            size_bytes,
            self.chip,
            self.version[:MAX_TEXT],
            self.security_version,
            tuple(self.facts),
            tuple(self.faults),
            tuple(self.warnings),
            self.signature,
            self.signed_bytes,
            self.verified,
            tuple(self.key_digests),
        )


def _add(faults: list[Fault], fault: Fault) -> None:
    if len(faults) < MAX_FACTS:
        faults.append(fault)


def text_of(data: bytes) -> str:
    """Return the text in a field that zeros fill up; what is no UTF-8 is replaced."""
    return data.split(b"\0", 1)[0].decode("utf-8", "replace")


def listed(values: Iterable[object]) -> str:
    """Return values as one text."""
    return ", ".join(str(value) for value in values)
