"""Which bytes of an artifact a request asks for (RFC 9110, sections 13 and 14).

Rules:
- What is not a range of bytes as the standard writes it is ignored: whoever asks gets the whole, and no error.
- Ranges that overlap or touch are one; more than a few are asked by nobody who means well.
- The hash is the only validator. A date, or a weak mark, never makes a part of what may have changed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

MAX_RANGES = 32
_UNIT = re.compile(r"bytes=", re.ASCII | re.IGNORECASE)
_RANGE = re.compile(r"([0-9]*)-([0-9]*)", re.ASCII)
_MARK = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')
_BLANK = " \t"
_MOST_DIGITS = 18
_BEYOND = 10**_MOST_DIGITS


class Span(NamedTuple):
    """Some bytes that follow each other.

    Attributes:
        start: the first one.
        end: the one behind the last.
    """

    start: int
    end: int


def spans(fields: Sequence[str], size_bytes: int) -> tuple[Span, ...] | None:
    """Return the bytes that a request asks for, in order and without overlaps.

    Args:
        fields: its `Range` fields.
        size_bytes: how many bytes there are.

    Returns:
        None for the whole; nothing where there are no such bytes.
    """
    head = _UNIT.match(fields[0]) if len(fields) == 1 else None
    if head is None:
        return None
    wanted = [part.strip(_BLANK) for part in fields[0][head.end() :].split(",", MAX_RANGES)]
    found = [_span(part, size_bytes) for part in wanted if part]
    if not found or len(wanted) > MAX_RANGES or None in found:
        return None
    return tuple(_merged(sorted(span for span in found if span is not None and span.start < span.end)))


def may_be_part(if_range: Sequence[str], mark: str) -> bool:
    """Say whether `If-Range` lets us answer with a part of what bears this mark now."""
    return all(field.strip(_BLANK) == mark for field in if_range)


def is_held(if_none_match: Sequence[str], mark: str) -> bool:
    """Say whether `If-None-Match` names this mark: then the caller has the bytes."""
    return any(field.strip(_BLANK) == "*" or mark in _MARK.findall(field) for field in if_none_match)


def _span(text: str, size_bytes: int) -> Span | None:
    """Return one range cut to what there is, an empty one if that is nothing, and None if it is no range."""
    found = _RANGE.fullmatch(text)
    if found is None or text == "-":
        return None
    first, last = found.groups()
    if not first:
        return Span(max(size_bytes - _number(last), 0), size_bytes)
    start, end = _number(first), _number(last) + 1 if last else size_bytes
    if last and end <= start:
        return None
    return Span(min(start, size_bytes), min(end, size_bytes))


def _number(digits: str) -> int:
    """Return a number; of those that are beyond any size only that they are."""
    plain = digits.lstrip("0") or "0"
    return int(plain) if len(plain) <= _MOST_DIGITS else _BEYOND


def _merged(ordered: Sequence[Span]) -> list[Span]:
    found: list[Span] = []
    for span in ordered:
        if found and span.start <= found[-1].end:
            found[-1] = Span(found[-1].start, max(found[-1].end, span.end))
        else:
            found.append(span)
    return found
