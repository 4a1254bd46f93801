"""Hostile input made of good input: edits of bytes, of text, and of JSON values.

Rules:
- The same chance gives the same bytes. Nothing is longer than asked for.
- A good input is the beginning: random bytes alone seldom get past the first check.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from random import Random
from typing import Any

_NUMBERS = (b"0", b"-1", b"1e400", b"1.5", b"NaN", b"-Infinity", b"9" * 30, b"9" * 5000, b"2147483648", b"01", b"0x10")
_TEXTS = (
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\\ud800",
    b"\\u0000",
    b"\xe2\x80\xae",
    b"\x1b[2J",
    b"\r\n",
)
_SIGNS = (
    b"[",
    b"{",
    b"}",
    b"]",
    b":",
    b",",
    b'"',
    b"'",
    b"&a",
    b"*a",
    b"!!python/none",
    b"<<",
    b"? ",
    b"- ",
    b"|",
    b"%",
)
_PATHS = (
    b"../",
    b"/",
    b"//",
    b"%2e%2e",
    b"%00",
    b"%",
    b"\\",
    b"#",
    b"+",
    b"?",
    b"@",
    b"[::1",
    b"://",
    b"..",
    b"~",
    b" ",
)
_WORDS = (
    *_NUMBERS,
    *_TEXTS,
    *_SIGNS,
    *_PATHS,
    b"null",
    b"true",
    b"[[" * 60,
    b'{"a":' * 60,
    b"\n\n",
    b"\t",
    b"=",
    b"{:d}",
)
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 2**53, 2**64, 10**400, 1e308, "", "\x00", "\ud800", "a" * 300, "../x", "5%", "10m", "٣"),
    *([], {}, [[[[[[]]]]]], {"": 0}, {"a": {"a": {"a": {"a": {"a": 1}}}}}, ["x"] * 100),
)


def hostile(seeds: Sequence[bytes], chance: Random, longest: int) -> bytes:
    """Return one of the seeds with edits, at most `longest` bytes."""
    data = chance.choice(seeds)
    if chance.randrange(2):
        start = data.find(b"\n") + 1 if data[:1] not in (b"{", b"[") else 0  # a request has a line above its JSON
        data = data[:start] + _edit_json(data[start:], chance)
    for _ in range(chance.choice((0, 1, 1, 2, 3, 6, 12))):
        data = _edit(data, seeds, chance)
    return data[:longest]


def _edit(data: bytes, seeds: Sequence[bytes], chance: Random) -> bytes:
    start = chance.randrange(len(data) + 1)
    end = min(len(data), start + chance.choice((0, 1, 1, 2, 4, 16, 64)))
    match chance.randrange(8):
        case 0:
            return data[:start] + chance.randbytes(end - start) + data[end:]
        case 1:
            return data[:start] + data[end:]
        case 2:
            return data[:end] + data[start:]
        case 3:
            return data[:start] + chance.choice(_WORDS) + data[end:]
        case 4:
            return data[:start] + data[start:end] * chance.choice((2, 3, 50)) + data[end:]
        case 5:
            other = chance.choice(seeds)
            return data[:start] + other[chance.randrange(len(other) + 1) :]
        case 6:
            found = list(re.finditer(rb"[0-9]+", data[:4096]))
            if not found:
                return data
            number = chance.choice(found)
            return data[: number.start()] + chance.choice(_NUMBERS) + data[number.end() :]
        case _:
            if start == len(data):
                return data
            return data[:start] + bytes([data[start] ^ 1 << chance.randrange(8)]) + data[start + 1 :]


def _edit_json(data: bytes, chance: Random) -> bytes:
    """Replace, remove or repeat something within a JSON value."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):  # a seed may be as deep as that
        return data
    for _ in range(chance.choice((1, 1, 2, 4))):
        value = _edit_value(value, chance)
    return json.dumps(value, ensure_ascii=bool(chance.randrange(2))).encode("utf-8", "surrogatepass")


def _edit_value(value: Any, chance: Random) -> Any:
    if isinstance(value, dict) and value and chance.randrange(4):
        name = chance.choice(list(value))
        match chance.randrange(5):
            case 0:
                return {other: value[other] for other in value if other != name}
            case 1:
                return {(name + "x" if other == name else other): value[other] for other in value}
            case _:
                return value | {name: _edit_value(value[name], chance)}
    if isinstance(value, list) and value and chance.randrange(4):
        place = chance.randrange(len(value))
        match chance.randrange(4):
            case 0:
                return [*value[:place], *value[place + 1 :]]
            case 1:
                return value * chance.choice((2, 20))
            case _:
                return [*value[:place], _edit_value(value[place], chance), *value[place + 1 :]]
    return chance.choice(_VALUES)
