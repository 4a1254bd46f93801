"""uvicorn inside our event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from orchestrator.errors import UnavailableError

STOP_WITHIN_S = 3


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: the daemon has one."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """Serves one application on one address.

    Args:
        app: the application.
        host: address to listen on.
        port: port; 0 takes a free one.
        max_connections: beyond this, callers get 503.
    """

    def __init__(self, app: ASGIApp, host: str, port: int, max_connections: int) -> None:
        self._socket = _listen(host, port)
        config = uvicorn.Config(
            app,
            http="h11",  # the parser that bounds what a stranger may send as headers
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            limit_concurrency=max_connections,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=STOP_WITHIN_S,
            server_header=False,
            h11_max_incomplete_event_size=16 * 1024,
        )
        self._server = _Server(config)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._socket.getsockname()[1])

    async def run(self) -> None:
        """Serve until cancelled, then finish open requests for a moment."""
        task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="uvicorn")
        try:
            await asyncio.shield(task)
        finally:
            self._server.should_exit = True
            await task


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        text = f"cannot listen on {host}:{port}: {error.strerror}; change http.listen or stop who holds it"
        raise UnavailableError(text, code="listen") from None
    return listener
