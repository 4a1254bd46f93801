"""Forms with files (`multipart/form-data`, RFC 7578), read piece by piece.

Rules:
- Nothing is held but the head of a part, which is bounded, and the bytes that may begin a delimiter.
- What is not a form is refused where that shows; bytes that were given out before count for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from orchestrator.errors import PayloadError

MAX_HEAD_BYTES = 4096
MAX_PARTS = 16
_BOUNDARY = re.compile(
    r'multipart/form-data\s*;(?:.*;)?\s*boundary=("?)([0-9A-Za-z\'()+_,./:=?-]{1,70})\1\s*(?:;.*)?', re.I
)
_PARAMETER = re.compile(r';\s*([A-Za-z*]+)=(?:"((?:[^"\\]|\\.)*)"|([^;"\s]*))\s*')
_DISPOSITION = re.compile(r"content-disposition:\s*form-data\s*((?:;.*)?)", re.I)


class Part(NamedTuple):
    """One field.

    Attributes:
        name: its name.
        file_name: what its file is called, "" if it says none.
    """

    name: str
    file_name: str


class Form:
    """Reads one form.

    Args:
        content_type: as the request says it.

    Raises:
        PayloadError: it names no form.
    """

    def __init__(self, content_type: str) -> None:
        found = _BOUNDARY.fullmatch(content_type.strip())
        if found is None:
            raise PayloadError("a file is uploaded as multipart/form-data, in the field `file`", code="malformed")
        self._delimiter = b"\r\n--" + found[2].encode()
        self._buffer = bytearray(b"\r\n")  # as if a line had ended before the first delimiter
        self._part: Part | None = None
        self._in_head = False
        self._count = 0
        self._ended = False

    def feed(self, data: bytes) -> Iterator[tuple[Part, bytes]]:
        """Yield what follows from more bytes: pieces, each with its part. A part begins with an empty piece.

        Raises:
            PayloadError: this is no form.
        """
        self._buffer += data
        while not self._ended:
            if self._in_head:
                part = self._head()
                if part is None:
                    return
                if not self._ended:
                    yield part, b""
                continue
            at = self._buffer.find(self._delimiter)
            upto = at if at >= 0 else max(len(self._buffer) - len(self._delimiter) + 1, 0)
            if self._part is not None and upto:
                yield self._part, bytes(self._buffer[:upto])
            del self._buffer[: upto if at < 0 else at + len(self._delimiter)]
            if at < 0:
                return
            self._in_head, self._part = True, None

    def close(self) -> None:
        """Say that no more bytes come.

        Raises:
            PayloadError: the form did not end.
        """
        if not self._ended:
            raise PayloadError("the form ended before its last boundary; send it again", code="malformed")

    def _head(self) -> Part | None:
        """Return the part that begins, None while its head is not whole; at the end any part, which says nothing."""
        if self._buffer.startswith(b"--"):
            self._ended = True
            self._buffer.clear()
            return Part("", "")
        at = self._buffer.find(b"\r\n\r\n")
        if at > MAX_HEAD_BYTES or (at < 0 and len(self._buffer) > MAX_HEAD_BYTES):
            raise PayloadError(f"the head of a part has more than {MAX_HEAD_BYTES} bytes", code="malformed")
        if at < 0:
            return None
        head = bytes(self._buffer[:at]).decode("utf-8", "replace")
        del self._buffer[: at + 4]
        self._count += 1
        if self._count > MAX_PARTS:
            raise PayloadError(f"a form has at most {MAX_PARTS} parts here", code="malformed")
        self._part, self._in_head = _part(head), False
        return self._part


def _part(head: str) -> Part:
    if not head.startswith("\r\n"):
        raise PayloadError("a part of the form does not begin with its head", code="malformed")
    for line in head.split("\r\n")[1:]:
        if found := _DISPOSITION.fullmatch(line):
            said = _parameters(found[1])
            if "name" in said:
                return Part(said["name"], said.get("filename", ""))
    raise PayloadError("a part of the form has no name", code="malformed")


def _parameters(text: str) -> dict[str, str]:
    found, at = {}, 0
    while at < len(text):
        one = _PARAMETER.match(text, at)
        if one is None:
            raise PayloadError("the name of a part of the form cannot be read", code="malformed")
        value = one[3] if one[2] is None else re.sub(r"\\(.)", r"\1", one[2])
        found[one[1].lower()] = value
        at = one.end()
    return found
