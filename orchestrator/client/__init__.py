"""A typed client of the operator API, for programs that release, watch or stop; the command line speaks through it.

Rules:
- One method for each operation of the document, named as its `operationId`; answers are the types of `answers`.
- A refusal is a `RefusedError` with the code of the daemon; who cannot be reached is an `UnreachableError`.
- An act carries an `Idempotency-Key`: who is cut off sends it once more, and it is done once.
- Nothing heavy is imported before somebody connects.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.client.errors import ClientError, ForeignError, RefusedError, UnreachableError

if TYPE_CHECKING:
    from orchestrator.client.client import Client

__all__ = ["ClientError", "ForeignError", "RefusedError", "UnreachableError", "connect"]


def connect(server: str = "http://127.0.0.1:8080", token: str = "", *, socket: Path | None = None) -> Client:
    """Return a client of a daemon; use it in a `with` block.

    Args:
        server: its origin.
        token: of an operator; "" over an admin socket.
        socket: admin socket to talk over, None for the network.

    Raises:
        RequestError: the origin is none.
    """
    from orchestrator.client.client import Client
    from orchestrator.client.transport import Transport

    return Client(Transport(server, token, socket=socket))
