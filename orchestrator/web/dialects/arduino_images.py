"""By which hashes an Arduino core names an image once it runs, and which device its updater would harm with it.

Rules:
- An ESP8266 hashes its flash, into which the updater wrote the flash mode of the sketch before: four hashes are one
  image. A signature is not part of it, and what was compressed lies there unpacked.
- An ESP32 hashes the image without what stands behind it, and names the SHA-256 that the build put at its end.
- A Pico names nothing.
- An image is read once, whole, and its hash compared: what is said of it is of the bytes that were imported.
- Gzip goes to nobody who does not enforce the signature behind it: a bootloader that finds a signature where it looks
  for the length of the image writes a fraction of it. No exception of the configuration changes that.

Sources: esp8266/Arduino, `Updater.cpp`, `eboot.c`, `Esp.cpp`; arduino-esp32, `Esp.cpp`, `HTTPUpdate.cpp`.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.core.model import Artifact, Device
from orchestrator.errors import NotFoundError, TrustError
from orchestrator.images.findings import ESP32_ARDUINO, ESP8266, ESP8266_LEGACY, PICO
from orchestrator.ports import Locator
from orchestrator.web.context import Context
from orchestrator.web.dialects.arduino_headers import Asked, Core
from orchestrator.wire.token import encode64

MAX_IMAGE_BYTES = 32 << 20
MAX_KEPT = 256
_MAGIC, _GZIP = b"\xe9", b"\x1f\x8b"
_MODES = 4
_PADDED_TRAILER_BYTES = 512
_ESP32_HEADER, _SEGMENT = struct.Struct("<BBBBI15xB"), struct.Struct("<II")
_BLOCK, _SHA256_BYTES = 16, 32
_ESP8266_FLASH = {0: 1 << 19, 1: 1 << 18, 2: 1 << 20, 3: 1 << 21, 4: 1 << 22, 8: 1 << 23, 9: 1 << 24}
"""Sizes of flash by the upper half of byte 3."""


@dataclass(frozen=True, slots=True)
class Prints:
    """One image as devices know it.

    Attributes:
        core: whose image it is.
        file_md5: MD5 of the bytes as they are sent, in lower-case hex.
        md5s: what the core may call the MD5 of it while it runs.
        sha256: what the core calls its SHA-256, "" where it has none.
        compressed: whether it is sent compressed.
        flash_bytes: flash that its header asks for, None if it does not say.
    """

    core: Core
    file_md5: str
    md5s: frozenset[str]
    sha256: str
    compressed: bool
    flash_bytes: int | None

    def runs(self, asked: Asked) -> bool:
        """Say whether the hashes of a request are those of this image."""
        return asked.md5 in self.md5s or (bool(self.sha256) and asked.sha256 == self.sha256)


def core_of(artifact: Artifact) -> Core | None:
    """Return the core that takes an artifact, None for one that was not recognised as an image for any of them."""
    family = artifact.format.partition("-")[0]
    return Core(family) if family in set(Core) else None


def prints_of(artifact: Artifact, core: Core, data: bytes) -> Prints:
    """Return by what an image is known.

    Args:
        artifact: the image.
        core: that takes it.
        data: its bytes.
    """
    image = _unpacked(_payload(artifact, data))
    md5s, sha256, flash_bytes = frozenset[str](), "", None
    if core is Core.ESP8266:
        md5s = frozenset(_modes(image))
        flash_bytes = _ESP8266_FLASH.get(image[3] >> 4) if image[:1] == _MAGIC and len(image) > 3 else None
    elif core is Core.ESP32:
        end, sha256 = _esp32_end(image)
        md5s = frozenset({_md5(image[:end]), _md5(image)})
    return Prints(core, _md5(data), md5s, sha256, data[:2] == _GZIP, flash_bytes)


def misfit(asked: Asked, device: Device, artifact: Artifact, prints: Prints) -> tuple[str, str] | None:
    """Return code and reason why a device may not have an image, None if it may.

    Args:
        asked: what it said.
        device: who it is.
        artifact: the image.
        prints: what is known of it.
    """
    if prints.core is not asked.core:
        return "wrong_hardware", f"the image is one for {prints.core}, and the device is an {asked.core}"
    if prints.compressed and (asked.core is Core.ESP32 or artifact.signature not in device.enforces):
        return "compressed_image", "the image is compressed, and the device does not enforce a signature behind it"
    if asked.free_bytes is not None and artifact.size_bytes > asked.free_bytes:
        return "too_large", f"the image has {artifact.size_bytes:,} bytes, and the device room for {asked.free_bytes:,}"
    needed = max(prints.flash_bytes or 0, artifact.size_bytes)
    if asked.chip_bytes is not None and asked.core is Core.ESP8266 and needed > asked.chip_bytes:
        return "too_large", f"the image is for a flash of {needed:,} bytes, and the device has {asked.chip_bytes:,}"
    return None


class Library:
    """Reads images once, and keeps what is known of them.

    Args:
        context: where they lie.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._kept: OrderedDict[str, Prints] = OrderedDict()
        self._reading: dict[str, asyncio.Task[Prints]] = {}

    async def prints(self, artifact: Artifact) -> Prints | None:
        """Return by what an image is known, None if no Arduino core takes it.

        Raises:
            OrchestratorError: it cannot be read.
        """
        core = core_of(artifact)
        if core is None or artifact.size_bytes > MAX_IMAGE_BYTES:
            return None
        if (kept := self._kept.get(artifact.sha256)) is not None:
            self._kept.move_to_end(artifact.sha256)
            return kept
        task = self._reading.get(artifact.sha256)
        if task is None:
            task = self._reading[artifact.sha256] = asyncio.create_task(self._read(artifact, core))
        return await asyncio.shield(task)  # a device that does not wait so long finds it done when it asks again

    async def _read(self, artifact: Artifact, core: Core) -> Prints:
        try:
            source = next((item for item in self._context.sources if item.serves(artifact.uri)), None)
            if source is None:
                raise NotFoundError("the source of this artifact is not configured any more")
            data = bytearray()
            place = Locator(artifact.uri, artifact.source_version)
            async for piece in source.read(place, limit_bytes=artifact.size_bytes):
                data += piece
            found = await asyncio.to_thread(_checked, artifact, core, bytes(data))
            self._kept[artifact.sha256] = found
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
            return found
        finally:
            del self._reading[artifact.sha256]


def _checked(artifact: Artifact, core: Core, data: bytes) -> Prints:
    if encode64(hashlib.sha256(data).digest()) != artifact.sha256:
        raise TrustError("the bytes of this artifact are not those that were imported", code="hash_mismatch")
    return prints_of(artifact, core, data)


def _payload(artifact: Artifact, data: bytes) -> bytes:
    """Return what stands before the signature."""
    if artifact.signature in (ESP8266, ESP8266_LEGACY, PICO):
        return data[: -4 - int.from_bytes(data[-4:], "little")]
    return data[:-_PADDED_TRAILER_BYTES] if artifact.signature == ESP32_ARDUINO else data


def _unpacked(payload: bytes) -> bytes:
    if payload[:2] != _GZIP:
        return payload
    return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(payload, MAX_IMAGE_BYTES)


def _modes(image: bytes) -> Iterator[str]:
    start, rest = image[:2], memoryview(image)[3:]
    for mode in range(_MODES):
        hasher = hashlib.md5(start, usedforsecurity=False)
        hasher.update(bytes([mode]))
        hasher.update(rest)
        yield hasher.hexdigest()


def _esp32_end(image: bytes) -> tuple[int, str]:
    """Return where an image ends by its headers, and its SHA-256 in hex; the file's end and none where it has none."""
    try:
        _, segments, _, _, _, hashed = _ESP32_HEADER.unpack_from(image)
        at = _ESP32_HEADER.size
        for _ in range(segments):
            at += _SEGMENT.size + _SEGMENT.unpack_from(image, at)[1]
    except struct.error:
        return len(image), ""
    end = (at // _BLOCK + 1) * _BLOCK
    if not hashed:
        return end, ""
    return end + _SHA256_BYTES, image[end : end + _SHA256_BYTES].hex()


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
