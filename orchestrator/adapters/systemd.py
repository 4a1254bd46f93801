"""Tell systemd how we are: the notify protocol, one datagram per message.

Rules:
- Without NOTIFY_SOCKET every call does nothing, so that callers need not ask.
- A message that cannot be sent is dropped: telling must never stop the daemon, and a lost watchdog ping is judged by
  systemd itself.
- Nothing here decides whether the daemon is well; the caller calls `watchdog` only after it has looked.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.errors import ConfigError

_LONGEST_STATUS = 200


@dataclass(frozen=True, slots=True)
class Notifier:
    """One notify socket.

    Attributes:
        address: path of the socket, with a leading NUL in the abstract namespace; None without systemd.
        watchdog_interval_s: how often to call `watchdog` (half of what systemd allows), or None if it does not ask.
    """

    address: str | None = None
    watchdog_interval_s: float | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Notifier:
        """Return the notifier that systemd's variables describe.

        Raises:
            ConfigError: NOTIFY_SOCKET or WATCHDOG_USEC is not what systemd would set.
        """
        address = environ.get("NOTIFY_SOCKET")
        if not address:
            return cls()
        if address[0] not in "/@" or len(address) < 2:
            raise ConfigError(
                [f"NOTIFY_SOCKET: {address!r} is neither a path nor an abstract socket; let systemd set it"]
            )
        return cls(address.replace("@", "\0", 1) if address[0] == "@" else address, _watchdog_interval(environ))

    def starting(self, text: str, more_s: float) -> None:
        """Say what the start waits for, and ask to be waited for so much longer from now on."""
        self._send(f"EXTEND_TIMEOUT_USEC={more_s * 1_000_000:.0f}\nSTATUS={_line(text)}")

    def ready(self) -> None:
        """Say that the start is over and work is being done."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Show one line in `systemctl status`."""
        self._send(f"STATUS={_line(text)}")

    def watchdog(self) -> None:
        """Say that we are alive and well; call it every `watchdog_interval_s`."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that the stop has begun."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if self.address is None:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            with contextlib.suppress(OSError):
                sender.sendto(message.encode(), self.address)


def _line(text: str) -> str:
    """Return a text without line breaks: one would begin another assignment."""
    return " ".join(text.split())[:_LONGEST_STATUS]


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    text, owner = environ.get("WATCHDOG_USEC"), environ.get("WATCHDOG_PID")
    if not text or (owner and owner != str(os.getpid())):
        return None
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise ConfigError([f"WATCHDOG_USEC: {text!r} is not a number of microseconds; let systemd set it"])
    return int(text) / 2_000_000
