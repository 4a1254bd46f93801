"""The command line's side of the operator API: one call, one answer, clear errors."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import click

DEFAULT_SERVER = "http://127.0.0.1:8080"
DEFAULT_TOKEN_FILE = "/etc/ota-orchestrator/operator-token"
EXIT_ERROR, EXIT_HALTED, EXIT_TIMEOUT, EXIT_NOT_FOUND = 1, 3, 4, 5


class Client:
    """Talks to the daemon.

    Args:
        server: its origin.
        token_file: file with the operator token.
    """

    def __init__(self, server: str, token_file: Path) -> None:
        import httpx2

        self._server = server
        headers = {"Authorization": f"Bearer {_token(token_file)}"}
        try:
            self._http = httpx2.Client(base_url=server, headers=headers, timeout=60.0, trust_env=False)
        except httpx2.InvalidURL as error:
            fail(f"{server} is no address of a daemon: {error}; write --server http://host:port")

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def get(self, path: str, **query: object) -> Any:
        """Return the answer to a question."""
        return self._call("GET", path, params={name: str(value) for name, value in query.items()})

    def post(self, path: str, body: object) -> Any:
        """Return the answer to a change."""
        return self._call(
            "POST", path, content=json.dumps(body, default=str), headers={"Content-Type": "application/json"}
        )

    def _call(self, method: str, path: str, **options: Any) -> Any:
        import httpx2

        try:
            answer = self._http.request(method, f"/api/v1{path}", **options)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            fail(f"the daemon does not answer at {self._server}: {error}; is `ota serve` running? (see --server)")
        if not answer.is_success:
            _explain(answer)
        try:
            return answer.json()
        except ValueError:
            _fail_foreign(answer)


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
    client = Client(root.params["server"], root.params["token_file"])
    root.call_on_close(client.close)
    return client


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
