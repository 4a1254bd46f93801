"""Looks for secrets in everything that a run of the tests says, and fails the test in which one was said.

Rules:
- Looked through are: what a test prints and logs, what processes that it starts write to pipes and log files, what
  commands print, and of the answers over HTTP every problem, every text (metrics) and all that operators read, the
  record included.
- What is secret is noted where it is made or read; patterns find what is secret by its looks, whoever made it.
- A finding names the place and never repeats the secret.
- `SHOWN_ONCE` are the only commands whose purpose is to print a secret; what they say on standard error is looked
  through all the same.
"""

from __future__ import annotations

import asyncio.subprocess
import base64
import functools
import re
import secrets
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import httpx2
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import LogCapture

import orchestrator.config
from orchestrator.demo import bucket

SHOWN_ONCE = (("device", "add"),)
LEAST_CHARS = 12
"""Shorter passwords of tests are words that stand everywhere."""

PATTERNS = {
    "PEM": re.compile(r"-----BEGIN [A-Z ]*PRIVATE"),
    "body of a private key": re.compile("MIGHAgEAMBMGByqGSM49AgEG"),  # how every P-256 key in PKCS #8 begins
    "token": re.compile(r"\bota[a-z]_[A-Za-z0-9_-]{30,}"),
    "presigned URL": re.compile(r"X-Amz-(?:Signature|Credential|Security-Token)=(?!\[redacted\])[^\s&]"),
}
_WORD = re.compile(rf"[A-Za-z0-9_-]{{{LEAST_CHARS},}}")
_PLAIN = re.compile(r"[a-z][a-z.-]{0,20}")


class Scanner:
    """Knows the secrets of this run, and what was found."""

    def __init__(self) -> None:
        self._words: set[str] = set()
        self._texts: set[str] = set()
        self._files: dict[Path, tuple[subprocess.Popen[Any], int]] = {}
        self._found: list[str] = []

    def note(self, secret: str) -> None:
        """Remember something that must never be said."""
        if len(secret) >= LEAST_CHARS:
            (self._words if _WORD.fullmatch(secret) else self._texts).add(secret)

    def note_key(self, key: ec.EllipticCurvePrivateKey) -> None:
        """Remember the number of a private key, as it is usually written."""
        number = key.private_numbers().private_value
        data = number.to_bytes((key.curve.key_size + 7) // 8, "big")
        for text in (data.hex(), base64.urlsafe_b64encode(data).decode().rstrip("="), str(number)):
            self.note(text)

    def look(self, said: str | bytes | None, place: str) -> None:
        """Look through what was said somewhere."""
        if not said:
            return
        text = said.decode(errors="replace") if isinstance(said, bytes) else said
        what = {name for name, pattern in PATTERNS.items() if pattern.search(text)}
        if not self._words.isdisjoint(_WORD.findall(text)) or any(secret in text for secret in self._texts):
            what.add("a secret of this run")
        self._found += [f"{place}: {name}" for name in sorted(what)]

    def watch_file(self, path: Path, process: subprocess.Popen[Any]) -> None:
        """Look through what a process writes to a file; a terminal or a device keeps nothing to look through."""
        if not path.is_file():
            return
        size = path.stat().st_size
        _, begin = self._files.get(path, (process, size))
        self._files[path] = (process, min(begin, size))

    def look_at_files(self) -> None:
        """Look through what was written to files since the last look, and let go of those that are finished."""
        for path, (process, begin) in list(self._files.items()):
            ended = process.returncode is not None
            try:
                with path.open("rb") as file:
                    file.seek(begin)
                    data = file.read()
            except FileNotFoundError:
                ended, data = True, b""
            whole = len(data) if ended else data.rfind(b"\n") + 1
            self.look(data[:whole], f"{path.name} of {_named(process.args)}")
            self._files[path] = (process, begin + whole)
            if ended:
                del self._files[path]

    def take(self) -> list[str]:
        """Return what was found since the last call."""
        found, self._found = self._found, []
        return found


scanner = Scanner()


def judge(report: pytest.TestReport) -> None:
    """Fail a phase of a test in which a secret was said."""
    for name, text in report.sections:
        if name.startswith("Captured ") and name.endswith(f" {report.when}"):
            scanner.look(text, name)
    scanner.look_at_files()
    found = scanner.take()
    if not found:
        return
    text = "\n".join(["secrets were said:", *found])
    if report.failed:
        report.sections.append(("secrets", text))
    else:
        report.outcome, report.longrepr = "failed", text


def is_shown_once(words: Sequence[str]) -> bool:
    """Say whether a command line is one whose purpose is to print a secret."""
    return any(command in zip(words, words[1:], strict=False) for command in SHOWN_ONCE)


def install() -> None:
    """Listen where things are said and where secrets are made; once per process."""
    if hasattr(CliRunner.invoke, "__wrapped__"):
        return
    _listen(CliRunner, "invoke", _heard_command)
    _listen(subprocess.Popen, "communicate", _heard_process)
    _listen(subprocess.Popen, "__init__", _heard_start)
    _listen_to_pipes()
    _listen_to_events()
    _listen_to_answers()
    _note_what_is_made()


def _listen(owner: Any, name: str, heard: Callable[..., None]) -> None:
    """Let `heard(result, *arguments)` see every call."""
    method = getattr(owner, name)

    @functools.wraps(method)
    def listening(*arguments: Any, **options: Any) -> Any:
        result = method(*arguments, **options)
        heard(result, *arguments, **options)
        return result

    setattr(owner, name, listening)


def _heard_command(result: Result, _runner: CliRunner, _command: Any, args: Any = None, **_: Any) -> None:
    words = args.split() if isinstance(args, str) else list(args or ())
    place = f"output of {_named(['ota', *words])}"
    scanner.look(result.stderr if is_shown_once(words) else result.output, place)


def _heard_process(result: tuple[Any, Any], process: subprocess.Popen[Any], *_: Any, **__: Any) -> None:
    out, err = result
    place = f"output of {_named(process.args)}"
    scanner.look(None if is_shown_once(_words(process.args)) else out, place)
    scanner.look(err, place)


def _heard_start(_: None, process: subprocess.Popen[Any], *arguments: Any, **options: Any) -> None:
    for stream in {options.get("stdout"), options.get("stderr")}:
        name = getattr(stream, "name", None)
        if isinstance(name, str):
            scanner.watch_file(Path(name), process)


def _listen_to_pipes() -> None:
    """Look through what processes of asyncio write to pipes, line by line."""
    protocol: Any = asyncio.subprocess.SubprocessStreamProtocol
    rests: WeakKeyDictionary[Any, dict[int, bytes]] = WeakKeyDictionary()

    def heard(_: None, self: Any, fd: int, data: bytes | Exception | None) -> None:
        arguments = getattr(getattr(self._transport, "_proc", None), "args", ())
        rest = rests.setdefault(self, {}).pop(fd, b"")
        said = rest + (data if isinstance(data, bytes) else b"\n")
        whole = said.rfind(b"\n") + 1
        rests[self][fd] = said[whole:]
        if fd != 1 or not is_shown_once(_words(arguments)):
            scanner.look(said[:whole], f"output of {_named(arguments)}")

    _listen(protocol, "pipe_data_received", heard)
    _listen(protocol, "pipe_connection_lost", heard)


def _listen_to_events() -> None:
    """Look through events that tests catch before they are printed."""
    catch = LogCapture.__call__

    def listening(self: LogCapture, logger: Any, method: str, event: Any) -> Any:
        scanner.look(str(event), f"event {event.get('event')}")
        return catch(self, logger, method, event)

    LogCapture.__call__ = listening  # type: ignore[method-assign, assignment]


def _listen_to_answers() -> None:
    """Look through answers where clients receive them."""
    send = httpx2.AsyncClient.send

    async def listening(self: httpx2.AsyncClient, request: httpx2.Request, **options: Any) -> httpx2.Response:
        response = await send(self, request, **options)
        _heard_answer(response)
        return response

    httpx2.AsyncClient.send = listening  # type: ignore[method-assign]
    _listen(httpx2.Client, "send", lambda response, *_, **__: _heard_answer(response))


def _heard_answer(response: httpx2.Response) -> None:
    method, path = response.request.method, response.request.url.path
    told = response.headers.get("content-type", "").startswith(("application/problem+json", "text/plain"))
    if response.is_closed and (told or (method == "GET" and path.startswith("/api/v1/"))):
        scanner.look(response.content, f"answer to {method} {path}")


def _note_what_is_made() -> None:
    _listen(secrets, "token_urlsafe", lambda made, *_: scanner.note(made))
    _listen(ec, "generate_private_key", lambda made, *_, **__: scanner.note_key(made))
    _listen(orchestrator.config, "read_secret", lambda read, *_: scanner.note(read))
    scanner.note(bucket.SECRET_ACCESS_KEY)
    scanner.note("operator-token-of-the-test")


def _words(arguments: Any) -> list[str]:
    return [str(word) for word in arguments] if isinstance(arguments, list | tuple) else str(arguments).split()


def _named(arguments: Any) -> str:
    """Return what was called, without anything that could itself be a secret."""
    words = _words(arguments)
    return " ".join([Path(words[0]).name, *filter(_PLAIN.fullmatch, words[1:])][:4]) if words else "a process"
