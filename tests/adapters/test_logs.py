from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from orchestrator.adapters import logs

PEM = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqG\n-----END PRIVATE KEY-----"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in (*logs._LIBRARIES, "uvicorn.access")}
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


@pytest.fixture
def stream() -> io.StringIO:
    stream = io.StringIO()
    logs.configure("debug", "auto", stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def logged(stream: io.StringIO, **values: Any) -> dict[str, Any]:
    structlog.get_logger().info("test.event", **values)
    return lines(stream)[-1]


def test_ours_and_the_libraries_lines_have_one_shape(stream: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(rollout="r1"):
        structlog.get_logger().info("rollout.halted", failures=3, share=0.5, ok=True, nothing=None)
        logging.getLogger("botocore").warning("slow %s", "answer", extra={"attempt": 2})
    ours, theirs = lines(stream)
    assert ours.pop("timestamp").endswith("Z")
    assert theirs.pop("timestamp").endswith("Z")
    assert ours == {
        "event": "rollout.halted",
        "level": "info",
        "rollout": "r1",
        "failures": 3,
        "share": 0.5,
        "ok": True,
        "nothing": None,
    }
    assert theirs == {"event": "slow answer", "level": "warning", "logger": "botocore", "rollout": "r1", "attempt": 2}


@pytest.mark.parametrize(
    ("said", "written"),
    [
        (
            "GET https://b.s3/k?X-Amz-Credential=AK%2F1&X-Amz-Signature=0af3&x=1 failed",
            "GET https://b.s3/k?X-Amz-Credential=[redacted]&X-Amz-Signature=[redacted]&x=1 failed",
        ),
        ("{'X-Amz-Security-Token': 'FwoG/+=='}", "{'X-Amz-Security-Token': '[redacted]'}"),
        ("Authorization: Bearer abc.def\r\nHost: x", "Authorization: [redacted]\\r\\nHost: x"),
        ("{'authorization': b'AWS4-HMAC-SHA256 Cred=1, Sig=2'}", "{'authorization': b'[redacted]'}"),
        ("sent bearer abcdefghijklmnop0123", "sent bearer [redacted]"),
        (f"key {PEM} read", "key [redacted] read"),
        (f"key {PEM[:40]}", "key [redacted]"),
        ("token otad_7_Zm9vYmFy-_x refused", "token otad_[redacted] refused"),
        ("mqtt://d:hunter2@broker:1883", "mqtt://[redacted]@broker:1883"),
    ],
)
def test_secrets_are_cut(stream: io.StringIO, said: str, written: str) -> None:
    assert logged(stream, text=said)["text"] == written
    assert logged(stream, deep={"list": [ValueError(said)]})["deep"] == {"list": [written]}


@pytest.mark.parametrize("name", ["password", "token", "Authorization", "secret_access_key"])
def test_values_with_the_name_of_a_secret_are_cut(stream: io.StringIO, name: str) -> None:
    assert logged(stream, **{name: "hunter2"})[name] == "[redacted]"
    assert logged(stream, headers={name: "hunter2"})["headers"] == {name: "[redacted]"}


def test_a_secret_in_a_librarys_arguments_and_traceback_is_cut(stream: io.StringIO) -> None:
    try:
        raise RuntimeError("otad_1_topsecret\n\x1b[2J")
    except RuntimeError:
        logging.getLogger("uvicorn.error").exception("with %s", {"Authorization": "Basic aHVudGVyMg=="})
        structlog.get_logger().exception("task.died")
    for line in lines(stream):
        assert "RuntimeError: otad_[redacted]\n\\x1b[2J" in line["exception"]
    assert lines(stream)[0]["event"] == "with {'Authorization': '[redacted]'}"
    assert "topsecret" not in stream.getvalue()


def test_hostile_device_text_is_disarmed(stream: io.StringIO) -> None:
    assert logged(stream, msg="a\x1b[31m\nlevel=error\u202e\u200b\x85é✓")["msg"] == (
        "a\\x1b[31m\\nlevel=error\\u202e\\u200b\\x85é✓"
    )
    assert logged(stream, said={"k\n": 1})["said"] == {"k\\n": 1}
    assert logged(stream, msg="x" * 5000)["msg"] == "x" * 2048 + "... (5000 characters)"


def test_what_is_not_plain_becomes_text(stream: io.StringIO) -> None:
    nested: Any = "x"
    for _ in range(8):
        nested = [nested]
    line = logged(stream, path=Path("/a/b"), raw=b"\x00", nested=nested, several={3})
    assert (line["path"], line["raw"], line["several"]) == ("/a/b", "b'\\x00'", [3])
    assert line["nested"] == [[[[["[[['x']]]"]]]]]


def test_levels(stream: io.StringIO) -> None:
    logging.getLogger("botocore.auth").debug("StringToSign")
    logging.getLogger("uvicorn.access").info("GET /api/v1/firmware/version")
    structlog.get_logger().debug("seen")
    logs.configure("warning", "json", stream)
    structlog.get_logger().info("not seen")
    logging.getLogger("paho").info("not seen")
    assert [line["event"] for line in lines(stream)] == ["seen"]


def test_warnings_of_libraries_are_logged(stream: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs.configure("info", "json", stream)
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
    assert "DeprecationWarning: old ways" in lines(stream)[-1]["event"]


def test_a_person_at_a_terminal_reads_text() -> None:
    terminal = Terminal()
    logs.configure("info", "auto", terminal)
    try:
        raise RuntimeError("otad_1_topsecret")
    except RuntimeError:
        structlog.get_logger().exception("task.died", device="d1")
        logging.getLogger("uvicorn").warning("late")
    text = terminal.getvalue()
    assert "task.died" in text
    assert "late" in text
    assert "RuntimeError: otad_[redacted]" in text
    assert not text.startswith("{")
