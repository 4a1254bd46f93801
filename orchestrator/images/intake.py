"""An image that arrives in pieces, set aside until it can be looked at.

Rules:
- Only what is declared to be, or begins like, a format that we know is set aside: in a temporary file, beyond 1 MiB on
  disk. Everything else costs nothing.
"""

from __future__ import annotations

import tempfile
from types import TracebackType
from typing import IO, cast

from orchestrator.images.findings import FORMATS, Findings
from orchestrator.images.reader import PIECE_BYTES
from orchestrator.images.recognition import HEAD_BYTES, inspect, recognise


class Intake:
    """Takes the pieces of one file, and gives back what it is.

    Args:
        declared: the format that its statement names.
    """

    def __init__(self, declared: str) -> None:
        self._wanted = declared in FORMATS
        self._head = b""
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Intake:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def take(self, piece: bytes) -> None:
        """Take the next piece.

        Raises:
            OSError: it cannot be set aside.
        """
        if self._file is not None:
            self._file.write(piece)
        elif len(self._head) < HEAD_BYTES:
            self._head += piece
            if len(self._head) >= HEAD_BYTES:
                self._decide()

    def findings(self) -> Findings | None:
        """Return what the file is, after its last piece; None where it was not set aside.

        Raises:
            OSError: it cannot be read back.
        """
        if self._file is None and len(self._head) < HEAD_BYTES:
            self._decide()
        return None if self._file is None else inspect(self._file)

    def _decide(self) -> None:
        if self._wanted or recognise(self._head[:HEAD_BYTES]):
            self._file = cast(IO[bytes], tempfile.SpooledTemporaryFile(max_size=PIECE_BYTES))  # noqa: SIM115 - see __exit__
            self._file.write(self._head)
