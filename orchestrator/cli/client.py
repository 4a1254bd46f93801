"""The command line's side of the operator API: one call, one answer, clear errors."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import click

DEFAULT_SERVER = "http://127.0.0.1:8080"
DEFAULT_TOKEN_FILES = ("/etc/ota-orchestrator/operator-token", "/etc/ota-orchestrator/secrets/operator-token")
DEFAULT_SOCKET = "/run/ota-orchestrator/admin.sock"
_ORIGIN = re.compile(r"https?://[^/?#\s]+/?")
WAIT_S = 2.0
"""Pause between two looks at a proposal that is waited for."""
CONFLICT = 409
EXIT_ERROR, EXIT_HALTED, EXIT_TIMEOUT, EXIT_NOT_FOUND = 1, 3, 4, 5


class Client:
    """Talks to the daemon.

    Args:
        server: its origin.
        token_file: file with the operator token; None to send none.
        socket: admin socket to talk over; None for the network.
    """

    def __init__(self, server: str, token_file: Path | None, socket: Path | None = None) -> None:
        import httpx2

        if socket is None and not _ORIGIN.fullmatch(server):
            fail(
                f"{server!r} is no address of a daemon; write http://HOST:PORT or https://HOST, as {DEFAULT_SERVER} is"
            )
        self._server = server if socket is None else str(socket)
        options: dict[str, Any] = {"base_url": server, "timeout": 60.0, "trust_env": False}
        if token_file is not None:
            options["headers"] = {"Authorization": f"Bearer {_token(token_file)}"}
        if socket is not None:
            if not socket.is_socket():
                fail(f"there is no admin socket {socket}; is `ota serve` running, with operators.socket in its file?")
            options |= {"base_url": "http://admin", "transport": httpx2.HTTPTransport(uds=str(socket))}
        try:
            self._http = httpx2.Client(**options)
        except httpx2.InvalidURL as error:
            fail(f"{server} is no address of a daemon: {error}; write --server http://host:port")

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def get(self, path: str, **query: object) -> Any:
        """Return the answer to a question."""
        return _read(self._send("GET", path, params={name: str(value) for name, value in query.items()}))

    def post(self, path: str, body: object, *, wait: bool = False) -> Any:
        """Return the answer to a change; with `wait`, only after those have approved it who must."""
        options = {"content": json.dumps(body, default=str), "headers": {"Content-Type": "application/json"}}
        answer = self._send("POST", path, **options)
        while wait and answer.status_code == CONFLICT and (proposal := _proposal_in(answer)) is not None:
            self._await(proposal)
            answer = self._send("POST", path, **options)
        said = _read(answer)
        if isinstance(said, dict) and "review" in said:
            number = said["review"]
            click.echo(
                f"review {number} is open: another person closes it: `ota review {number} --reason WHY`", err=True
            )
        return said

    def lines(self, method: str, path: str, body: object = None) -> Iterator[Any]:
        """Yield an answer of many lines, one JSON value each, as it comes."""
        import httpx2

        content = None if body is None else json.dumps(body, default=str)
        headers = {"Content-Type": "application/json"}
        try:
            with self._http.stream(method, f"/api/v1{path}", content=content, headers=headers) as answer:
                if not answer.is_success:
                    answer.read()
                    _explain(answer)
                for line in answer.iter_lines():
                    yield json.loads(line)
        except (httpx2.HTTPError, ValueError) as error:
            fail(f"the daemon at {self._server} did not finish its answer: {error}")

    def _await(self, proposal: int) -> None:
        click.echo(f"waiting for others to `ota approve {proposal} --reason WHY`", err=True)
        while (found := self.get(place("approvals", str(proposal))))["state"] == "proposed":
            time.sleep(WAIT_S)
        if found["state"] != "approved":
            fail(f"proposal {proposal} is {found['state']}")

    def _send(self, method: str, path: str, **options: Any) -> Any:
        import httpx2

        try:
            return self._http.request(method, f"/api/v1{path}", **options)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            fail(f"the daemon does not answer at {self._server}: {error}; is `ota serve` running? (see --server)")


def place(*words: str) -> str:
    """Return the path that these words make; whatever a word holds, it stays one part of it."""
    for word in words:
        if "/" in word:  # even quoted it would be taken for two parts
            fail(f"there is no {word!r}; names hold no slash", EXIT_NOT_FOUND)
    return "".join(f"/{quote(word, safe='')}" for word in words)


def fail(text: str, code: int = EXIT_ERROR) -> NoReturn:
    """Print an error and end."""
    click.echo(f"error: {text}", err=True)
    raise SystemExit(code)


def connect(context: click.Context) -> Client:
    """Return the client that the options of this call mean."""
    root = context.find_root()
    client = Client(root.params["server"], *_door(root))
    root.call_on_close(client.close)
    return client


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


def _read(answer: Any) -> Any:
    if not answer.is_success:
        _explain(answer)
    try:
        return answer.json()
    except ValueError:
        _fail_foreign(answer)


def _proposal_in(answer: Any) -> int | None:
    try:
        number = answer.json()["proposal"]
    except (ValueError, KeyError, TypeError):
        return None
    return number if isinstance(number, int) else None


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


def _explain(answer: Any) -> NoReturn:
    try:
        body = answer.json()
        text, faults = str(body["detail"]), body.get("faults", [])
    except (ValueError, KeyError, TypeError):
        _fail_foreign(answer)
    for fault in faults:
        click.echo(f"error: {fault}", err=True)
    if not faults:
        click.echo(f"error: {text}", err=True)
    raise SystemExit(EXIT_NOT_FOUND if answer.status_code == 404 else EXIT_ERROR)


def _fail_foreign(answer: Any) -> NoReturn:
    fail(f"{answer.request.url} is not our daemon: it answered {answer.status_code} in another format; see --server")
