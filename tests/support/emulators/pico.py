"""A Pico with `HTTPUpdate` of arduino-pico: it says no hash and no size, and checks nothing of an image.

Rules:
- Whatever came whole is written over the sketch: one without vectors at its place does not start.
- With a key it wants a signature, and looks at no MD5.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

from tests.images.updaters import word_updater
from tests.support.emulators.updater import BAD_SIGNATURE, Updater, access_point

_VECTORS = b"\x00\x20\x04\x20"


@dataclass
class Pico(Updater):
    """One device."""

    agent: ClassVar[str] = "Pico-HTTP-Update"
    chip_id: str = "E6614103E7452D2F"

    def fields(self, mode: str) -> list[tuple[str, str]]:
        """Return the headers of the core."""
        named = [("Chip-ID", self.chip_id), ("STA-MAC", self.mac), ("AP-MAC", access_point(self.mac)), ("Mode", mode)]
        if self.version:
            named.append(("Version", self.version))
        return [(f"x-Pico-{name}", value) for name, value in named]

    def begin(self, body_bytes: int, first: bytes) -> int:
        """Take anything."""
        return 0

    def install(self, body: bytes) -> int:
        """Check the signature, store, reboot, and let the loader copy."""
        stored: bytes | None = body
        if self.key:
            stored = word_updater(body, self.key)
            if stored is None:
                return BAD_SIGNATURE
        assert stored is not None
        if stored[:2] == b"\x1f\x8b":
            stored = zlib.decompressobj(31).decompress(stored)[: int.from_bytes(stored[-4:], "little")]
        self.flash = stored
        self.bricked = stored[0x3000:0x3004] != _VECTORS
        return 0
