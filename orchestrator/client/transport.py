"""One call, one answer: HTTP for the client.

Rules:
- No proxy of the environment is used, and no redirection followed: the token goes to the daemon that was named.
- What was refused for asking too often is asked again when the daemon said, a few times.
- An act under a key is sent once more if the connection broke: it is done once, however often it is sent.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

from orchestrator.client.errors import ForeignError, RefusedError, UnreachableError
from orchestrator.errors import RequestError

AT = "/api/v1"
TIMEOUT_S = 60.0
MOST_WAITS = 5
MOST_WAIT_S = 30.0
KEY_HEADER = "Idempotency-Key"
_ORIGIN = re.compile(r"https?://[^/?#\s]+/?")
_TOO_MANY = 429
_NEXT = re.compile(r'<([^>]+)>;\s*rel="?next"?')

Query = Mapping[str, object]


class Answer(NamedTuple):
    """What was answered.

    Attributes:
        body: the JSON value.
        mark: the `ETag`, "" if there is none.
        next: address of the next page, "" if this is the last one.
    """

    body: Any
    mark: str
    next: str


class Transport:
    """Talks to one daemon.

    Args:
        server: its origin, such as `https://ota.example.net`.
        token: of an operator; "" to send none.
        socket: admin socket to talk over, None for the network.
        pause: waits for so many seconds.

    Raises:
        RequestError: the origin is none.
    """

    def __init__(
        self,
        server: str,
        token: str = "",
        *,
        socket: Path | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        if socket is None and not _ORIGIN.fullmatch(server):
            raise RequestError(f"{server!r} is no address of a daemon; write http://HOST:PORT or https://HOST")
        self.name = server if socket is None else str(socket)
        self._pause = pause
        options: dict[str, Any] = {"base_url": server, "timeout": TIMEOUT_S, "trust_env": False}
        if token:
            options["headers"] = {"Authorization": f"Bearer {token}"}
        if socket is not None:
            options |= {"base_url": "http://admin", "transport": httpx2.HTTPTransport(uds=str(socket))}
        try:
            self._http = httpx2.Client(**options)
        except httpx2.InvalidURL as error:
            raise RequestError(f"{server} is no address of a daemon: {error}; write http://HOST:PORT") from None

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def get(self, path: str, query: Query | None = None) -> Answer:
        """Return the answer to a question; see `send` for its errors."""
        return self.send("GET", f"{AT}{path}", params=_words(query or {}))

    def pages(self, path: str, query: Query | None = None) -> Iterator[Answer]:
        """Yield the pages of a list, as they are asked for."""
        found = self.get(path, query)
        yield found
        while found.next:
            found = self.send("GET", found.next)
            yield found

    def post(self, path: str, body: object, *, key: str | None = None, if_match: str = "") -> Answer:
        """Return the answer to a change.

        Args:
            path: below the API.
            body: what is sent, as JSON.
            key: under which it is done once; None for a new one.
            if_match: mark of what was seen, "" to change it as it is.
        """
        headers = {"Content-Type": "application/json", KEY_HEADER: key or str(uuid.uuid4())}
        if if_match:
            headers["If-Match"] = if_match
        options: dict[str, Any] = {"content": json.dumps(body, default=str), "headers": headers}
        try:
            return self.send("POST", f"{AT}{path}", **options)
        except UnreachableError as error:
            if not isinstance(error.__cause__, httpx2.RemoteProtocolError | httpx2.ReadError):
                raise  # it did not get there, or does not answer in time
            return self.send("POST", f"{AT}{path}", **options)

    def lines(self, method: str, path: str, body: object = None, query: Query | None = None) -> Iterator[Any]:
        """Yield an answer of many lines, one JSON value each, as it comes."""
        content = None if body is None else json.dumps(body, default=str)
        options: dict[str, Any] = {"content": content, "headers": {"Content-Type": "application/json"}}
        if query:
            options["params"] = _words(query)
        try:
            with self._http.stream(method, f"{AT}{path}", **options) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _refusal(answer)
                for line in answer.iter_lines():
                    yield json.loads(line)
        except (httpx2.HTTPError, ValueError) as error:
            raise UnreachableError(f"the daemon at {self.name} did not finish its answer: {error}") from error

    def send(self, method: str, path: str, **options: Any) -> Answer:
        """Return the answer to one request.

        Raises:
            UnreachableError: nobody answers.
            ForeignError: who answers is not our daemon.
            RefusedError: the daemon refuses.
        """
        for _ in range(MOST_WAITS):
            answer = self._send(method, path, **options)
            if answer.status_code != _TOO_MANY:
                break
            self._pause(min(float(answer.headers.get("retry-after", "1")), MOST_WAIT_S))
        if not answer.is_success:
            raise _refusal(answer)
        try:
            body = answer.json()
        except ValueError:
            raise _foreign(answer) from None
        further = _NEXT.match(answer.headers.get("link", ""))
        return Answer(body, answer.headers.get("etag", ""), further[1] if further else "")

    def events(self, last_id: str = "") -> Iterator[tuple[str, str, Any]]:
        """Yield (id, kind, data) of the stream of changes until it ends; see `send` for its errors."""
        headers = {"Last-Event-ID": last_id} if last_id else {}
        try:
            with self._http.stream("GET", f"{AT}/events", headers=headers) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _refusal(answer)
                said: dict[str, str] = {}
                for line in answer.iter_lines():
                    name, _, value = line.partition(": ")
                    if line and name:
                        said[name] = value
                    elif not line and "data" in said:
                        yield said.get("id", ""), said["event"], json.loads(said["data"])
                        said = {}
        except (httpx2.HTTPError, ValueError) as error:
            raise UnreachableError(f"the daemon at {self.name} tells nothing any more: {error}") from error

    def _send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        try:
            return self._http.request(method, path, **options)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            text = f"the daemon does not answer at {self.name}: {error}; is `ota serve` running?"
            raise UnreachableError(text) from error


def _words(query: Query) -> list[tuple[str, str]]:
    """Return a query as text: a list as one word for each of its values, and nothing of what is None."""
    found: list[tuple[str, str]] = []
    for name, value in query.items():
        values = value if isinstance(value, list | tuple) else [value]
        found += [(name, str(item)) for item in values if item is not None]
    return found


def _refusal(answer: httpx2.Response) -> RefusedError | ForeignError:
    try:
        body = answer.json()
        proposal = body.get("proposal")
        known = proposal if isinstance(proposal, int) else None
        code = str(body.get("code", f"http_{answer.status_code}"))
        return RefusedError(answer.status_code, code, str(body["detail"]), list(body.get("faults", [])), known)
    except (ValueError, KeyError, TypeError, AttributeError):
        return _foreign(answer)


def _foreign(answer: httpx2.Response) -> ForeignError:
    text = f"{answer.request.url} is not our daemon: it answered {answer.status_code} in another format"
    return ForeignError(text)
