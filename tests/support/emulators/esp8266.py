"""An ESP8266 with `ESP8266httpUpdate`: one place for the sketch, and eboot that copies the next one over it.

Rules:
- The updater writes the flash mode that runs into byte 2 of what it stores.
- With a key it wants a signature and looks at no MD5; without, it keeps whatever stands behind the image.
- eboot takes the last four bytes of what is stored for the length of a compressed image.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from typing import ClassVar

from tests.images.updaters import word_updater
from tests.support.emulators.updater import (
    BAD_HEADER,
    BAD_SIGNATURE,
    WRONG_FLASH,
    Updater,
    access_point,
    rounded,
)

_FLASH = {0: 1 << 19, 1: 1 << 18, 2: 1 << 20, 3: 1 << 21, 4: 1 << 22, 8: 1 << 23, 9: 1 << 24}


@dataclass
class Esp8266(Updater):
    """One device; its flash mode is that of the image which was flashed by wire."""

    agent: ClassVar[str] = "ESP8266-http-Update"
    chip_bytes: int = 4_194_304

    def fields(self, mode: str) -> list[tuple[str, str]]:
        """Return the headers of the core."""
        named = [
            ("Chip-ID", str(int(self.mac.replace(":", "")[-6:], 16))),
            ("STA-MAC", self.mac),
            ("AP-MAC", access_point(self.mac)),
            ("free-space", str(self.room)),
            ("sketch-size", str(len(self.flash))),
            ("sketch-md5", hashlib.md5(self.flash).hexdigest()),
            ("chip-size", str(self.chip_bytes)),
            ("sdk-version", "2.5.0"),
            ("mode", mode),
        ]
        if self.version:
            named.append(("version", self.version))
        return [(f"x-ESP8266-{name}", value) for name, value in named]

    def begin(self, body_bytes: int, first: bytes) -> int:
        """Refuse what is no image, or one for a larger flash."""
        if first[:1] != b"\xe9" and first[:2] != b"\x1f\x8b":
            return BAD_HEADER
        is_plain = first[:1] == b"\xe9"
        return WRONG_FLASH if is_plain and _FLASH.get(first[3] >> 4, 0) > self.chip_bytes else 0

    def install(self, body: bytes) -> int:
        """Check the signature, store, reboot, and let eboot copy."""
        stored: bytes | None = body
        if self.key:
            stored = word_updater(body, self.key)
            if stored is None:
                return BAD_SIGNATURE
        assert stored is not None
        if stored[:2] == b"\x1f\x8b":
            length = int.from_bytes(stored[-4:], "little")
            image = zlib.decompressobj(31).decompress(stored)[:length]
            self.bricked = length < 4096
        else:
            image = stored[:2] + self.flash[2:3] + stored[3:]
            length = int.from_bytes(image[0x1010:0x1014], "little")
            image = image[:length] if 0 < length <= len(image) else image
        self.room += rounded(len(self.flash)) - rounded(len(image))
        self.flash = image
        return 0

    def runs(self, image: bytes) -> bool:
        """Say whether an image runs, whatever flash mode was written into it."""
        return not self.bricked and self.flash[:2] + self.flash[3:] == image[:2] + image[3:]
