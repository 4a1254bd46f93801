"""Logging: every line, ours and the libraries', by one road through one cleaning.

Rules:
- JSON lines for machines, coloured text for a person at a terminal; times are UTC.
- No secret leaves: presigned queries, Authorization values, private keys, tokens and passwords are cut from every text.
- What devices say is hostile: control and invisible characters are written as escapes, long texts are cut.
- Libraries never log below `info`: their debug lines hold whole requests.
- The journal is told what has been cleaned, with its fields; the stream gets what the journal did not take.
"""

from __future__ import annotations

import contextlib
import logging
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, TextIO

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from orchestrator.adapters.journal import Journal

MAX_TEXT = 2048
MAX_TRACEBACK = 16 * 1024
_MAX_DEPTH = 5
_REDACTED = "[redacted]"
_LIBRARIES = ("aiomqtt", "alembic", "asyncio", "boto3", "botocore", "paho", "s3transfer", "sqlalchemy", "urllib3")

# What to cut, and what to put there.
_SECRETS = (
    (re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL), _REDACTED),
    (re.compile(r"(?i)(X-Amz-[A-Z-]+[\"']?\s*[=:]\s*[\"']?)[^\s&\"'<>,}]+"), rf"\1{_REDACTED}"),
    (re.compile(r"(?i)(authorization[\"']?\s*[=:]\s*(?:b?[\"'])?)[^\r\n\"']+"), rf"\1{_REDACTED}"),
    (re.compile(r"(?i)\b(bearer)\s+[A-Z0-9._~+/=-]{16,}"), rf"\1 {_REDACTED}"),
    (re.compile(r"(://)[^\s/@\"']+@"), rf"\1{_REDACTED}@"),
    (re.compile(r"\botad_[A-Za-z0-9_-]+"), f"otad_{_REDACTED}"),
)
_SECRET_NAMES = frozenset({"authorization", "password", "secret", "secret_access_key", "token", "operator_token"})
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def configure(level: str, style: str, stream: TextIO, journal: Journal | None = None) -> None:
    """Send all logging of this process to `stream`, or to the journal behind it.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        style: `json`, `pretty`, or `auto` for pretty on a terminal and JSON elsewhere.
        stream: where the lines go.
        journal: is told of them instead, with their fields, as far as it takes them; None for nobody.
    """
    pretty = style == "pretty" or (style == "auto" and stream.isatty())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        clean,
    ]
    # Tracebacks are cleaned text by now; the pretty renderer must not format them anew, with their local variables.
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if pretty
        else structlog.processors.JSONRenderer()
    )
    if journal is not None:
        renderer = _told(journal, renderer)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    _adopt_libraries(shared, renderer, threshold, stream)


def clean(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Cut secrets and disarm hostile text in every value of one event."""
    cleaned = {key: _clean_named(key, value, 0) for key, value in event.items() if key != "exception"}
    if "exception" in event:
        cleaned["exception"] = _clean_text(str(event["exception"]), MAX_TRACEBACK, keep="\n")
    return cleaned


class _Handler(logging.StreamHandler[TextIO]):
    """Writes what libraries say, unless the journal took it."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(structlog.DropEvent):
            super().emit(record)


def _told(journal: Journal, renderer: Processor) -> Processor:
    """Return the last step: it ends an event that the journal took, and renders the others for the stream."""

    def tell(logger: WrappedLogger, method: str, event: EventDict) -> str:
        said = dict(event)  # rendering takes from it
        line = str(renderer(logger, method, event))
        if journal.tell(line, said):
            raise structlog.DropEvent
        return line

    return tell


def _adopt_libraries(shared: list[Processor], renderer: Processor, threshold: int, stream: TextIO) -> None:
    handler = _Handler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    logging.captureWarnings(True)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    # One line per poll of each device would bury everything else; metrics count them.
    logging.getLogger("uvicorn.access").setLevel(max(threshold, logging.WARNING))


def _clean_named(name: object, value: Any, depth: int) -> Any:
    return _REDACTED if str(name).lower() in _SECRET_NAMES else _clean(value, depth)


def _clean(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth < _MAX_DEPTH and isinstance(value, Mapping):
        return {_clean_text(str(key), MAX_TEXT): _clean_named(key, item, depth + 1) for key, item in value.items()}
    if depth < _MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
        return [_clean(item, depth + 1) for item in value]
    return _clean_text(str(value), MAX_TEXT)


def _clean_text(text: str, limit: int, keep: str = "") -> str:
    if len(text) <= 64 and text.isascii() and text.isprintable() and text.replace(".", "").isalnum():
        return text
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    if len(text) > limit:
        text = f"{text[:limit]}... ({len(text)} characters)"
    if text.isprintable():
        return text
    return "".join(character if character in keep else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN:
        return character
    return character.encode("unicode_escape").decode("ascii")
