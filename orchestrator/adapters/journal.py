"""Tell systemd's journal what is logged, with fields to search by: its native protocol, one datagram for each event.

Rules:
- It is told only where systemd tied our stream to the journal: a stream that leads elsewhere gets its lines.
- The message is the line that the stream would get. What the event says stands in fields of its own as well, which
  begin with `OTA_`: no event may take a field that systemd, or another program, gives a meaning to.
- Nobody waits for it. What it does not take at once (it is away, it is busy, or the event is larger than a datagram) is
  the stream's, whole: no line is lost, only its fields.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

SOCKET = Path("/run/systemd/journal/socket")
PREFIX = "OTA_"
IDENTIFIER = "ota"
_LONGEST_NAME = 64
_PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
"""Those of syslog; libraries may have levels of their own, which count as `info`."""
_APART = frozenset({"level", "timestamp"})
"""What the journal has fields of its own for."""


@dataclass(frozen=True, slots=True)
class Journal:
    """The journal's socket.

    Attributes:
        address: path of the socket.
    """

    address: Path = SOCKET

    @classmethod
    def behind(cls, stream: TextIO, environ: Mapping[str, str]) -> Journal | None:
        """Return the journal if systemd says in JOURNAL_STREAM that this stream leads there."""
        try:
            found = os.fstat(stream.fileno())
        except OSError:  # it is no file
            return None
        return cls() if environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}" else None

    def tell(self, line: str, event: Mapping[str, Any]) -> bool:
        """Tell of one event; says whether the journal took it.

        Args:
            line: how it reads.
            event: what it says, cleaned: nothing here keeps a secret, nor disarms a text.
        """
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(_datagram(line, event), str(self.address))
        except OSError:
            return False
        return True


def _datagram(line: str, event: Mapping[str, Any]) -> bytes:
    level = _PRIORITIES.get(str(event.get("level")), _PRIORITIES["info"])
    fields = [_field("MESSAGE", line), _field("PRIORITY", str(level)), _field("SYSLOG_IDENTIFIER", IDENTIFIER)]
    said = ((name, value) for name, value in event.items() if name not in _APART and value is not None)
    return b"".join([*fields, *(_field(_name(name), _text(value)) for name, value in said)])


def _field(name: str, text: str) -> bytes:
    value = text.encode(errors="backslashreplace")
    if b"\n" not in value:
        return b"%s=%s\n" % (name.encode(), value)
    return b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)


def _name(name: str) -> str:
    return (PREFIX + re.sub(r"[^A-Z0-9_]", "_", name.upper()))[:_LONGEST_NAME]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
