"""The daemon that does not answer, and what is not our daemon: one clear sentence, exit code 1."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli.main import cli
from orchestrator.demo.broker import HOST, free_port
from tests.support.bucket import Answer, scripted


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("a-token\n")
    return path


def run(server: str, token_file: Path, *words: str) -> Result:
    options = ["--server", server, "--token-file", str(token_file)]
    return CliRunner().invoke(cli, [*options, *(words or ("device", "list"))])


def error_of(result: Result) -> str:
    assert (result.exit_code, result.stdout) == (1, "")
    assert isinstance(result.exception, SystemExit)
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    return lines[0].removeprefix("error: ")


def test_a_daemon_that_is_not_running(token_file: Path) -> None:
    server = f"http://{HOST}:{free_port()}"
    text = error_of(run(server, token_file))
    assert text.startswith(f"the daemon does not answer at {server}: ")
    assert text.endswith("; is `ota serve` running? (see --server)")


@pytest.mark.parametrize("server", ["nonsense", "ftp://x", "http://", "http://[::1", "http://host:port", "http://a b"])
def test_an_address_that_is_none(server: str, token_file: Path) -> None:
    assert server in error_of(run(server, token_file))


def test_what_an_address_looks_like_is_said(token_file: Path) -> None:
    assert error_of(run("foo", token_file)) == (
        "'foo' is no address of a daemon; write http://HOST:PORT or https://HOST"
    )


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html>hello</html>"),
        Answer(404, b"not here"),
        Answer(302, b"", {"Location": "http://elsewhere.invalid/"}),
        Answer(500, b'{"error": "x"}'),
        Answer(403, b'["a", "list"]'),
    ],
)
def test_something_that_is_not_our_daemon(answer: Answer, token_file: Path) -> None:
    with scripted(lambda _: answer) as server:
        text = error_of(run(server.endpoint, token_file))
    assert text.startswith(f"{server.endpoint}/api/v1/devices?after=&limit=100")
    led = "".join(f", and leads to {place}" for place in answer.headers.values())
    assert text.endswith(f" is not our daemon: it answered {answer.status} in another format{led}; see --server")


def test_a_wrong_token(token_file: Path) -> None:
    refusal = Answer(401, b'{"detail": "the operator token is missing or wrong; see http.operator_token_file"}')
    with scripted(lambda _: refusal) as server:
        text = error_of(run(server.endpoint, token_file))
    assert text == "the operator token is missing or wrong; see http.operator_token_file"
    assert server.requests[0].headers["authorization"] == "Bearer a-token"


def test_a_token_file_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "none"
    assert error_of(run("http://127.0.0.1:9", path)) == (
        f"the operator token {path} cannot be read: No such file or directory; name it with --token-file"
    )


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"two\nlines", "ümlaut".encode()])
def test_a_token_file_that_holds_none(content: bytes, token_file: Path) -> None:
    token_file.write_bytes(content)
    text = error_of(run("http://127.0.0.1:9", token_file))
    assert text == f"{token_file} holds no operator token; it must be one line of text"


@pytest.fixture
def ours(token_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that knows no devices, named by the environment."""
    with scripted(lambda _: Answer(200, b"[]")) as server:
        monkeypatch.setenv("OTA_SERVER", server.endpoint)
        monkeypatch.setenv("OTA_TOKEN_FILE", str(token_file))
        yield server.endpoint


def test_server_and_token_may_come_from_the_environment(ours: str) -> None:
    result = CliRunner().invoke(cli, ["device", "list", "-o", "json"])
    assert (result.exit_code, result.stdout) == (0, "[]\n")


def test_a_proxy_of_the_environment_is_not_used(ours: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://{HOST}:9")
    assert CliRunner().invoke(cli, ["device", "list"]).exit_code == 0


@pytest.mark.parametrize("body", [b"null", b"[]", b"{}", b'"text"', b"3", b"[{}]", b"[1, null]", b'[{"id": 1}]'])
@pytest.mark.parametrize(
    "words",
    [("status",), ("device", "list"), ("rollout", "get", "spring"), ("rollout", "list"), ("artifact", "show", "abc")],
)
def test_an_answer_of_another_shape_is_never_a_traceback(words: tuple[str, ...], body: bytes, token_file: Path) -> None:
    with scripted(lambda _: Answer(200, body)) as server:
        result = run(server.endpoint, token_file, *words)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    if result.exit_code:
        assert result.exit_code == 1
        assert f"the answer of {server.endpoint} is not understood (" in result.stderr
        assert result.stderr.endswith("See --server\n")


def test_a_preview_without_a_first_line_is_not_understood(token_file: Path) -> None:
    with scripted(lambda _: Answer(200, b"")) as server:
        text = error_of(run(server.endpoint, token_file, "rollout", "preview", "spring"))
    assert "is not understood" in text


def test_what_a_server_says_of_an_error_cannot_steer_the_terminal(token_file: Path) -> None:
    said = {"code": "x", "detail": "\x1b[2J\u202eevil", "faults": ["\x1b]0;title\x07", "\u202e"]}
    for refusal in (said, {name: said[name] for name in ("code", "detail")}):
        with scripted(lambda _, refusal=refusal: Answer(400, json.dumps(refusal).encode())) as server:  # type: ignore[misc]
            result = run(server.endpoint, token_file)
        assert result.exit_code == 1
        assert all(character.isprintable() or character == "\n" for character in result.stderr)
        assert "\\u202e" in result.stderr
