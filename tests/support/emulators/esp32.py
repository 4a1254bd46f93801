"""An ESP32 with `HTTPUpdate`: two slots, and a bootloader that goes back to the one before.

Rules:
- No gzip: the first byte is the magic one.
- An image that does not hold by its own checksum and hash is not started. One that crashes in its first boot is left.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import ClassVar

from tests.images.updaters import pss_updater
from tests.support.emulators.updater import BAD_HEADER, BAD_SIGNATURE, Updater, access_point

ABORTED = 9
"""`Update.end` fails where the slot cannot be made the one that starts."""


@dataclass
class Esp32(Updater):
    """One device; in `crashes` are images that do not survive their first boot."""

    agent: ClassVar[str] = "ESP32-http-Update"
    room: int = 1_310_720
    says_hashes: bool = True
    crashes: set[bytes] = field(default_factory=set)
    before: bytes = b""

    def fields(self, mode: str) -> list[tuple[str, str]]:
        """Return the headers of the core; older ones say no hash."""
        named = [
            ("STA-MAC", self.mac),
            ("AP-MAC", access_point(self.mac)),
            ("free-space", str(self.room)),
            ("sketch-size", str(len(self.flash))),
        ]
        if self.says_hashes:
            image = self._image(self.flash)
            named += [("sketch-md5", hashlib.md5(image).hexdigest()), ("sketch-sha256", image[-32:].hex().upper())]
        named += [("chip-size", "4194304"), ("sdk-version", "v4.4.5"), ("mode", mode)]
        if self.version:
            named.append(("version", self.version))
        return [("Cache-Control", "no-cache"), *((f"x-ESP32-{name}", value) for name, value in named)]

    def begin(self, body_bytes: int, first: bytes) -> int:
        """Refuse what is no image."""
        return 0 if first[:1] == b"\xe9" else BAD_HEADER

    def install(self, body: bytes) -> int:
        """Check the signature and the image, and reboot into it; back again if it crashes."""
        if self.key and not pss_updater(body, self.key, "sha256"):
            return BAD_SIGNATURE
        image = self._image(body)
        if hashlib.sha256(image[:-32]).digest() != image[-32:]:
            return ABORTED
        if image not in self.crashes:
            self.before, self.flash = self.flash, body
        return 0

    def fall_back(self) -> None:
        """Go back to the slot before, as after a crash."""
        self.flash, self.before = self.before, self.flash
        self.version = self.versions.get(self.flash, self.version)

    def _image(self, flash: bytes) -> bytes:
        return flash[:-512] if self.key else flash
