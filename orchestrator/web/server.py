"""uvicorn inside our event loop: on an address for everybody, on a Unix socket for those who look after the machine."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from orchestrator.errors import UnavailableError

STOP_WITHIN_S = 3
PEER = "orchestrator.peer_uid"
"""Where a request that came over the admin socket carries the user at its other end; no client can set it."""
TAKEN = "orchestrator.taken"
"""Where a request carries a coroutine function that says whether its client took all that was sent until now."""
HEAD_WITHIN_S = 10.0
"""Whoever connects, or has begun another request, has so long to send the whole head of it."""
BODY_WITHIN_S = 30.0
"""And then so long to send the whole body, however it trickles."""
TAKE_WITHIN_S = 60.0
"""Whoever is given an answer has so long to take each piece of it, or what is left."""
CLOSES_WITHIN_S = 5.0
"""Who has taken an answer, and neither closes nor asks again, is no longer waited for than this."""
_PIECE_BYTES = 64 * 1024
_LOOKS_EVERY_S = 0.02
_QUEUED = struct.Struct("i")
_BACKLOG = 2048
_ADMIN_CONNECTIONS = 64
_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: the daemon has one."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _BoundedProtocol(H11Protocol):
    """Lets nobody keep others out by connections that ask for nothing, or never finish what they ask.

    Whoever has not sent the head of a request in time, or its body, is cut off, as is who takes nothing of an answer;
    and, where there are as many connections as there may be, the one that has been at its request the longest, for each
    that comes.
    """

    _waits: asyncio.TimerHandle | None = None
    _gives: asyncio.TimerHandle | None = None
    _idle_since = 0.0
    _takes: asyncio.Future[bool] | None = None

    @property
    def _is_idle(self) -> bool:
        """Whether it is the caller's turn: no request has come whole that is not answered yet."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    @property
    def _is_closing(self) -> bool:
        return self.transport.is_closing()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if self.limit_concurrency is not None and len(self.connections) + 1 >= self.limit_concurrency:
            self._make_room(self.limit_concurrency - 1)
        super().connection_made(transport)
        self.app = _adding(self.app, TAKEN, self._taken)
        transport.set_write_buffer_limits(0)  # else nobody would tell us of an answer that is small and not taken
        self._idle_since = self.loop.time()
        self._await(HEAD_WITHIN_S)

    def data_received(self, data: bytes) -> None:
        if self._takes is not None and not self._queued_bytes():
            self._took(whole=True)
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._await_body()
        elif self._is_idle:
            self._await(HEAD_WITHIN_S)
        else:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        before = self.cycle
        self._idle_since = self.loop.time()
        super().on_response_complete()
        if self.cycle is not before:  # the next request came together with this one
            self._await_body()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_taking()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_giving()

    def eof_received(self) -> None:
        if self._takes is not None:
            self._took(whole=not self._queued_bytes())
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._took(whole=False)
        self._stop_waiting()
        self._stop_giving()
        super().connection_lost(exc)

    async def _taken(self) -> bool:
        """Say whether the client took all that was sent until now; one that breaks off resets its connection.

        A client that has all of an answer closes, or asks again. Of one that does neither, what its machine
        acknowledged is believed.
        """
        if self.transport.is_closing():
            return False
        takes: asyncio.Future[bool] = self.loop.create_future()
        self._takes = takes
        least, until = sys.maxsize, 0.0
        while not takes.done():
            left, now = self._queued_bytes(), self.loop.time()
            if left < least:
                least, until = left, now + (TAKE_WITHIN_S if left else CLOSES_WITHIN_S)
            if now >= until:
                self._took(whole=not left)
            await asyncio.wait([takes], timeout=_LOOKS_EVERY_S)
        return takes.result()

    def _took(self, *, whole: bool) -> None:
        if self._takes is not None:
            self._takes.set_result(whole)
            self._takes = None

    def _queued_bytes(self) -> int:
        """Return how much of what was sent the client's machine has not acknowledged."""
        answer = fcntl.ioctl(self.transport.get_extra_info("socket"), termios.TIOCOUTQ, bytes(_QUEUED.size))
        queued: int = _QUEUED.unpack(answer)[0]
        return queued + self.transport.get_write_buffer_size()

    def _make_room(self, most: int) -> None:
        left = [item for item in self.connections if isinstance(item, _BoundedProtocol) and not item._is_closing]
        idle = [item for item in left if item._is_idle]
        if idle and len(left) >= most:
            min(idle, key=lambda item: item._idle_since).transport.close()

    def _await_body(self) -> None:
        """Wait for what is left of a request whose head has come, if anything is."""
        self._stop_waiting()
        if self._is_idle:
            self._await(BODY_WITHIN_S)

    def _await(self, within_s: float) -> None:
        if self._waits is None and not self.transport.is_closing():
            self._waits = self.loop.call_later(within_s, self._cut_off)

    def _stop_waiting(self) -> None:
        if self._waits is not None:
            self._waits.cancel()
            self._waits = None

    def _await_taking(self) -> None:
        self._gives = self.loop.call_later(TAKE_WITHIN_S, self._look_taken, self.transport.get_write_buffer_size())

    def _look_taken(self, before: int) -> None:
        if before - self.transport.get_write_buffer_size() < _PIECE_BYTES:
            self.transport.abort()  # closing would wait for the rest to be taken
        else:
            self._await_taking()

    def _stop_giving(self) -> None:
        if self._gives is not None:
            self._gives.cancel()
            self._gives = None

    def _cut_off(self) -> None:
        self._waits = None
        if self._is_idle:
            self.transport.close()


class _PeerProtocol(_BoundedProtocol):
    """Adds to each request who is at the other end of the Unix socket, as the kernel knows it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        found = transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(found)
        self.app = _adding(self.app, PEER, uid)


class _Listening:
    """Serves one application on one listening socket."""

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        max_connections: int,
        protocol: type[H11Protocol] = _BoundedProtocol,
    ) -> None:
        self._socket = listener
        config = uvicorn.Config(
            app,
            http=protocol,  # the parser that bounds what a stranger may send as headers
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,  # a peer is who is connected to us, whatever a header says
            limit_concurrency=max_connections + 1,  # it counts the one that asks
            timeout_keep_alive=30,
            timeout_graceful_shutdown=STOP_WITHIN_S,
            server_header=False,
            h11_max_incomplete_event_size=16 * 1024,
        )
        self._server = _Server(config)

    async def run(self) -> None:
        """Serve until cancelled, then finish open requests for a moment."""
        task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="uvicorn")
        try:
            await asyncio.shield(task)
        finally:
            self._server.should_exit = True
            await task


class HttpServer(_Listening):
    """Serves one application on one address.

    Args:
        app: the application.
        host: address to listen on.
        port: port; 0 takes a free one.
        max_connections: beyond this, who asks for nothing or has not ended its request is cut off, and where all wait
            for an answer callers get 503.
        setting: the key of the settings that names the address.
    """

    def __init__(self, app: ASGIApp, host: str, port: int, max_connections: int, setting: str = "http.listen") -> None:
        super().__init__(app, _listen(host, port, setting), max_connections)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._socket.getsockname()[1])


class AdminSocket(_Listening):
    """Serves the same application on a Unix socket; each request carries the user who sent it (`PEER`).

    Args:
        app: the application.
        path: where the socket lies; one that a dead daemon left there is replaced.
        shared: whether users besides root and our own may connect; else its mode is 0600.

    Raises:
        UnavailableError: the socket cannot be made there, or another daemon listens on it.
    """

    def __init__(self, app: ASGIApp, path: Path, *, shared: bool = False) -> None:
        super().__init__(app, _listen_unix(path, 0o666 if shared else 0o600), _ADMIN_CONNECTIONS, _PeerProtocol)
        self._path = path

    async def run(self) -> None:
        """Serve until cancelled, and take the socket away."""
        try:
            await super().run()
        finally:
            self._path.unlink(missing_ok=True)


def _adding(app: Any, name: str, value: object) -> Any:
    """Return an application whose requests carry something that no client can set."""

    async def known(scope: Scope, receive: Receive, send: Send) -> None:
        scope[name] = value
        await app(scope, receive, send)

    return known


def _listen(host: str, port: int, setting: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        text = f"cannot listen on {host}:{port}: {error.strerror}; change {setting} or stop who holds it"
        raise UnavailableError(text, code="listen") from None
    return listener


def _listen_unix(path: Path, mode: int) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear(path)
        listener.bind(str(path))
        path.chmod(mode)  # nobody can connect before it listens
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        text = f"cannot listen on {path}: {error.strerror}; change operators.socket or stop who holds it"
        raise UnavailableError(text, code="listen") from None
    return listener


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens on any more; anything else that lies there stays, and binding fails."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        if caller.connect_ex(str(path)) == errno.ECONNREFUSED:
            path.unlink()
