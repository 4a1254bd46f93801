"""One call, one answer: HTTP for the client.

Rules:
- No proxy of the environment is used, and no redirection followed: the token goes to the daemon that was named.
- What was refused for asking too often is asked again when the daemon said, a few times.
- What is answered is only believed as far as it is understood: a stranger's answer is an error, whatever is in it.
- An act under a key is sent once more if the connection broke: it is done once, however often it is sent.
"""

from __future__ import annotations

import json
import re
import ssl
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

from orchestrator.client.errors import ForeignError, RefusedError, UnreachableError
from orchestrator.errors import RequestError
from orchestrator.wire.retry_after import wait_s

AT = "/api/v1"
TIMEOUT_S = 60.0
MOST_TRIES = 5
LEAST_WAIT_S = 1.0
MOST_WAIT_S = 30.0
KEY_HEADER = "Idempotency-Key"
_ORIGIN = re.compile(r"https?://[^/?#\s]+/?")
_TOO_MANY = 429
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
_NEXT = re.compile(r'<(/(?!/)[^>]*)>;\s*rel="?next"?')  # a page of the same daemon: the token goes nowhere else

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
        elif server.startswith("https:"):
            options["verify"] = _authorities()
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
        with self._stream(method, path, **options) as answer:
            for line in answer.iter_lines():
                yield json.loads(line)

    def send(self, method: str, path: str, **options: Any) -> Answer:
        """Return the answer to one request.

        Raises:
            UnreachableError: nobody answers.
            ForeignError: who answers is not our daemon.
            RefusedError: the daemon refuses.
        """
        answer = self._send(method, path, **options)
        for _ in range(MOST_TRIES - 1):
            if answer.status_code != _TOO_MANY:
                break
            wanted_s = wait_s(answer.headers.get("retry-after", ""), time.time())
            self._pause(min(max(wanted_s, LEAST_WAIT_S), MOST_WAIT_S))
            answer = self._send(method, path, **options)
        if not answer.is_success:
            raise _refusal(answer)
        try:
            body = answer.json()
        except (ValueError, RecursionError):
            raise _foreign(answer) from None
        further = _NEXT.match(answer.headers.get("link", ""))
        return Answer(body, answer.headers.get("etag", ""), further[1] if further else "")

    def events(self, last_id: str = "") -> Iterator[tuple[str, str, Any]]:
        """Yield (id, kind, data) of the stream of changes until it ends; see `send` for its errors."""
        headers = {"Last-Event-ID": last_id} if last_id else {}
        with self._stream("GET", "/events", headers=headers) as answer:
            said: dict[str, str] = {}
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if line and name:
                    said[name] = value
                elif not line and "data" in said:
                    yield said.get("id", ""), said.get("event", "message"), json.loads(said["data"])
                    said = {}

    @contextmanager
    def _stream(self, method: str, path: str, **options: Any) -> Iterator[httpx2.Response]:
        """Open an answer that comes bit by bit; see `send` for its errors."""
        try:
            with self._http.stream(method, f"{AT}{path}", **options) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _refusal(answer)
                yield answer
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.InvalidURL) as error:
            raise self._unreachable(error) from error
        except (httpx2.HTTPError, ValueError, RecursionError) as error:
            raise UnreachableError(f"the daemon at {self.name} did not finish its answer: {error}") from error

    def _send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        try:
            return self._http.request(method, path, **options)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> UnreachableError:
        if _UNTRUSTED in str(error):
            return UnreachableError(
                f"the certificate of {self.name} is not trusted: {error}; mend it there, or name the file of the "
                "authority that issued it in SSL_CERT_FILE"
            )
        return UnreachableError(f"the daemon does not answer at {self.name}: {error}; is `ota serve` running?")


def _authorities() -> ssl.SSLContext:
    """Return whose certificates are believed: the authorities of the system, or those of SSL_CERT_FILE."""
    try:
        return httpx2.create_ssl_context()
    except OSError as error:
        raise RequestError(f"the certificates that SSL_CERT_FILE names cannot be read: {error}") from None


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
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return _foreign(answer)


def _foreign(answer: httpx2.Response) -> ForeignError:
    led = f", and leads to {answer.headers['location'][:200]}" if answer.has_redirect_location else ""
    text = f"{answer.request.url} is not our daemon: it answered {answer.status_code} in another format{led}"
    return ForeignError(text)
