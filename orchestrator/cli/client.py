"""The command line's side of the operator API: clear errors, and an exit code. `orchestrator.client` does the rest.

Rules:
- Whatever answers, the command ends with a sentence: an answer that is not understood is the server's fault, or that of
  another version.
- What a server says of an error, or a person typed, cannot steer the terminal.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from orchestrator import __version__
from orchestrator.cli.exits import EXIT_ERROR, EXIT_NOT_FOUND
from orchestrator.cli.show import plain_lines
from orchestrator.client.errors import ForeignError, RefusedError, UnreachableError
from orchestrator.client.paths import path_of
from orchestrator.errors import RequestError

DEFAULT_SERVER = "http://127.0.0.1:8080"
DEFAULT_TOKEN_FILES = ("/etc/ota-orchestrator/operator-token", "/etc/ota-orchestrator/secrets/operator-token")
DEFAULT_SOCKET = "/run/ota-orchestrator/admin.sock"
WAIT_S = 2.0
"""Pause between two looks at a proposal that is waited for."""
CONFLICT, NOT_FOUND = 409, 404


class Client:
    """Talks to the daemon, and ends the command with a clear sentence where that fails.

    Args:
        server: its origin.
        token_file: file with the operator token; None to send none.
        socket: admin socket to talk over; None for the network.

    Attributes:
        name: by which messages call the daemon.
    """

    def __init__(self, server: str, token_file: Path | None, socket: Path | None = None) -> None:
        from orchestrator.client.transport import Transport

        token = "" if token_file is None else _token(token_file)
        if socket is not None and not socket.is_socket():
            fail(f"there is no admin socket {socket}; is `ota serve` running, with operators.socket in its file?")
        try:
            self._transport = Transport(server, token, socket=socket)
        except RequestError as error:
            fail(error.message)
        self.name = self._transport.name

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def get(self, path: str, **query: object) -> Any:
        """Return the answer to a question; a list whose `limit` is not given comes whole."""
        with _explained():
            if "limit" in query:
                return self._transport.get(path, query).body
            pages = self._transport.pages(path, query)
            found = next(pages).body
            for page in pages:
                found += page.body
            return found

    def knock(self, path: str) -> Any:
        """Return the answer to a question, None while nobody answers."""
        with _explained():
            try:
                return self._transport.get(path).body
            except UnreachableError:
                return None

    def post(self, path: str, body: object, *, wait: bool = False) -> Any:
        """Return the answer to a change; with `wait`, only after those have approved it who must."""
        with _explained():
            said = self._post(path, body, wait=wait)
        if isinstance(said, dict) and "review" in said:
            number = said["review"]
            click.echo(
                f"review {number} is open: another person closes it: `ota review {number} --reason WHY`", err=True
            )
        return said

    def lines(self, method: str, path: str, body: object = None) -> Iterator[Any]:
        """Yield an answer of many lines, one JSON value each, as it comes."""
        with _explained():
            yield from self._transport.lines(method, path, body)

    def _post(self, path: str, body: object, *, wait: bool) -> Any:
        while True:
            try:
                return self._transport.post(path, body).body
            except RefusedError as error:
                if not wait or error.status != CONFLICT or error.proposal is None:
                    raise
                self._await(error.proposal)

    def _await(self, proposal: int) -> None:
        click.echo(f"waiting for others to `ota approve {proposal} --reason WHY`", err=True)
        while (found := self.get(place("approvals", str(proposal))))["state"] == "proposed":
            time.sleep(WAIT_S)
        if found["state"] != "approved":
            fail(f"proposal {proposal} is {found['state']}")


@contextmanager
def _explained() -> Iterator[None]:
    """End the command with what went wrong between us and the daemon."""
    try:
        yield
    except UnreachableError as error:
        fail(f"{error.message} (see --server)" if error.message.endswith("?") else error.message)
    except ForeignError as error:
        fail(f"{error.message}; see --server")
    except RefusedError as error:
        for text in error.faults or (error.message,):
            click.echo(f"error: {plain_lines(str(text))}", err=True)
        raise SystemExit(EXIT_NOT_FOUND if error.status == NOT_FOUND else EXIT_ERROR) from None


def place(*words: str) -> str:
    """Return the path that these words make; whatever a word holds, it stays one part of it."""
    try:
        return path_of(*words)
    except RequestError as error:
        fail(error.message, EXIT_NOT_FOUND)


def fail(text: str, code: int = EXIT_ERROR) -> NoReturn:
    """Print an error and end."""
    click.echo(f"error: {plain_lines(text)}", err=True)
    raise SystemExit(code)


def connect(context: click.Context) -> Client:
    """Return the client that the options of this call mean."""
    root = context.find_root()
    client = Client(root.params["server"], *_door(root))
    root.call_on_close(client.close)
    root.with_resource(_understood(client.name))
    return client


@contextmanager
def _understood(server: str) -> Iterator[None]:
    """End the command where an answer has another shape than those of our daemon."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        text = f"the answer of {server} is not understood ({what[:200]}); is it a daemon, and of version {__version__}?"
        fail(f"{text} See --server")


def _door(root: click.Context) -> tuple[Path | None, Path | None]:
    """Return the token file and the admin socket to use.

    Over the socket a token is sent only if its file was named; without a readable token file the socket is tried.
    """
    named, socket = root.params["token_file"], root.params["socket"]
    if named is not None or socket is not None:
        return named, socket
    for place in map(Path, DEFAULT_TOKEN_FILES):
        if os.access(place, os.R_OK):
            return place, None
    if Path(DEFAULT_SOCKET).is_socket():
        return None, Path(DEFAULT_SOCKET)
    fail(f"no operator token can be read: neither {' nor '.join(DEFAULT_TOKEN_FILES)}; name one with --token-file")


def _token(path: Path) -> str:
    try:
        token = path.read_text(encoding="ascii").strip()
    except OSError as error:
        fail(f"the operator token {os.fspath(path)} cannot be read: {error.strerror}; name it with --token-file")
    except ValueError:
        token = ""
    if not token.isprintable() or not token:
        fail(f"{os.fspath(path)} holds no operator token; it must be one line of text")
    return token
