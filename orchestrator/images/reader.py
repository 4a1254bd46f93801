"""A file that is read in pieces, never beyond its end.

Rules:
- At most `PIECE_BYTES` are in memory at once, whatever a header claims.
- What is not there is `BrokenError`: the file is shorter than its headers say.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import IO, Final

from orchestrator.images.findings import BrokenError

PIECE_BYTES: Final = 1 << 20
AGAIN: Final = "build it again, or copy it again"


class Reader:
    """Reads a file at any place.

    Args:
        file: opened for reading in binary, and seekable.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size_bytes = file.seek(0, os.SEEK_END)

    def read(self, at: int, length: int) -> bytes:
        """Return exactly `length` bytes.

        Raises:
            BrokenError: `truncated`, or `too_long` beyond `PIECE_BYTES`.
        """
        if length > PIECE_BYTES:
            raise BrokenError("too_long", f"{length} bytes at {at:#x} are too many for what stands there", AGAIN)
        data = self.some(at, length)
        if len(data) < length:
            text = f"it ends at {self.size_bytes:#x}, within what its headers place at {at:#x}"
            raise BrokenError("truncated", text, AGAIN)
        return data

    def some(self, at: int, length: int) -> bytes:
        """Return at most `length` bytes, fewer at the end."""
        if at >= self.size_bytes:
            return b""
        self._file.seek(at)
        return self._file.read(min(length, PIECE_BYTES))

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `start` to before `end`.

        Raises:
            BrokenError: `truncated`.
        """
        if end > self.size_bytes:
            self.read(max(start, end - 1), 1)
        while start < end:
            piece = self.read(start, min(PIECE_BYTES, end - start))
            yield piece
            start += len(piece)

    def digest(self, end: int, algorithm: str = "sha256") -> bytes:
        """Return the hash of all bytes before `end`."""
        hasher = hashlib.new(algorithm)
        for piece in self.pieces(0, end):
            hasher.update(piece)
        return hasher.digest()


def rounded(number: int, to: int) -> int:
    """Return the next multiple of `to`."""
    return -(-number // to) * to
