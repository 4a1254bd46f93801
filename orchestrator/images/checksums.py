"""Checksums of microcontrollers, in the standard library's speed.

Rules:
- CRC-32/MPEG-2 (polynomial 04C11DB7, begins with all ones, nothing mirrored, nothing inverted at the end) is the
  mirror of zlib's CRC-32: mirrored bytes in, the mirrored result out. Its check value of `123456789` is 0376E6E7.
"""

from __future__ import annotations

import zlib

_MIRROR = bytes(int(f"{number:08b}"[::-1], 2) for number in range(256))
_ONES = 0xFFFF_FFFF


class Mpeg2:
    """CRC-32/MPEG-2 of pieces; `value` is the result so far."""

    def __init__(self) -> None:
        self._crc = 0

    def update(self, piece: bytes) -> None:
        """Add a piece."""
        self._crc = zlib.crc32(piece.translate(_MIRROR), self._crc)

    @property
    def value(self) -> int:
        """The checksum of all pieces."""
        return int(f"{self._crc ^ _ONES:032b}"[::-1], 2)


def crc32_mpeg2(data: bytes) -> int:
    """Return the CRC-32/MPEG-2 of `data`."""
    crc = Mpeg2()
    crc.update(data)
    return crc.value


def xor_of(data: bytes) -> int:
    """Return the exclusive or of all bytes."""
    while len(data) > 64:
        half = (len(data) + 1) // 2
        data = (int.from_bytes(data[:half], "little") ^ int.from_bytes(data[half:], "little")).to_bytes(half, "little")
    value = 0
    for byte in data:
        value ^= byte
    return value
