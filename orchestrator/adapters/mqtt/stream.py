"""A socket for paho that reads and writes in large pieces.

Rules:
- paho reads a packet in four calls and writes each acknowledgement in one; here both meet a buffer,
  and the event loop moves the buffers, so that one system call carries many packets.
- Only what paho calls is offered: `recv`, `send`, `close`, `fileno`, `setblocking`, `pending`.
- Single-threaded after the connection is made; the connecting thread hands over once.
"""

from __future__ import annotations

import socket
import ssl

READ_BYTES = 256 * 1024
FILL_LIMIT_BYTES = 1024 * 1024
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux


class BufferedSocket:
    """Wraps a connected socket, plain or TLS.

    Args:
        raw: the connected socket.
    """

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self._is_tcp = raw.family in (socket.AF_INET, socket.AF_INET6)
        if self._is_tcp:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._incoming = bytearray()
        self._position = 0
        self._outgoing = bytearray()
        self._ended = False

    @property
    def readable(self) -> bool:
        """Whether `recv` has something to say: bytes, or the end of the stream."""
        return self._position < len(self._incoming) or self._ended

    @property
    def unsent(self) -> int:
        """Bytes that wait to be written."""
        return len(self._outgoing)

    def recv(self, size: int) -> bytes:
        """Return up to `size` buffered bytes, b"" at the end of the stream.

        Raises:
            BlockingIOError: nothing is buffered.
        """
        start = self._position
        if start < len(self._incoming):
            self._position = min(start + size, len(self._incoming))
            return bytes(self._incoming[start : self._position])
        if self._ended:
            return b""
        raise BlockingIOError

    def send(self, data: bytes | bytearray) -> int:
        """Take all of `data` for writing."""
        self._outgoing += data
        return len(data)

    def fill(self) -> None:
        """Read what the kernel has, up to 1 MiB. Errors count as the end of the stream."""
        del self._incoming[: self._position]
        self._position = 0
        if self._is_tcp and _QUICKACK is not None:
            # The broker sends its acknowledgements in small pieces and, by Nagle's rule, holds each one back
            # until we acknowledged the last; delayed ACKs would cost 40 ms a batch. The kernel forgets it, so
            # it is said with every read.
            self._raw.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        try:
            while len(self._incoming) < FILL_LIMIT_BYTES:
                piece = self._raw.recv(READ_BYTES)
                if not piece:
                    self._ended = True
                    return
                self._incoming += piece
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            self._ended = True

    def flush(self) -> None:
        """Write what the kernel takes. Errors are left for the next read to find."""
        try:
            while self._outgoing:
                del self._outgoing[: self._raw.send(self._outgoing)]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            self._outgoing.clear()
            self._ended = True

    def pending(self) -> int:
        """Return how many bytes are buffered for `recv`."""
        return len(self._incoming) - self._position

    def fileno(self) -> int:
        """Return the file descriptor, -1 when closed."""
        return self._raw.fileno()

    def setblocking(self, flag: bool) -> None:
        """Set the mode of the socket."""
        self._raw.setblocking(flag)

    def close(self) -> None:
        """Write what the kernel still takes, and close the socket."""
        self.flush()
        self._raw.close()
