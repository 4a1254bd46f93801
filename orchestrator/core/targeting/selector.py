"""A small language that says which devices a person means, such as `site like "berlin-*" and not tag(canary)`.

Rules:
- A text becomes a function of one device, once; nothing here holds more than one device.
- What is not understood is refused with the place, under a caret. Length, nesting and the number of tests are bounded.
- A fact that is not known is the empty text; it equals `""` and stands in no order to anything.
- Only what operators and the registry know is asked. `docs/targeting.md` has the grammar.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from functools import lru_cache
from operator import attrgetter, eq, ge, gt, le, lt, ne
from typing import Any, NamedTuple, NoReturn

from orchestrator.core.model import Device
from orchestrator.errors import RequestError

MAX_CHARS = 4096
MAX_DEPTH = 32
MAX_VALUES = 500
ATTRIBUTE = re.compile(r"[a-z][a-z0-9_-]{0,31}")
"""What an attribute may be named."""

_TEXTS = ("id", "model", "site", "time_zone")
_VERSIONS = ("version", "revision")
_NUMBERS = ("rel", "endpoints")
FIELDS = (*_TEXTS, *_VERSIONS, *_NUMBERS, "attr.NAME")
_SHOWN = 60
"""Characters that an error shows on either side of its place."""

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\["\\])*")|(?P<word>-?[A-Za-z0-9_][A-Za-z0-9_.:/+-]*)|(?P<mark>[=!<>]=|[<>(),]))"""
)
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {"==": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}
_RESERVED = ("and", "or", "not", "in", "like")
_SLIPS = {"=": "==", "&": "and", "|": "or", "!": "not", "'": '"'}
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")

Test = Callable[[Device], bool]
Words = Mapping[str, frozenset[str]]


class SelectorError(RequestError):
    """A selector that is not understood; the message shows the place under a caret."""

    default_code = "bad_selector"


@dataclass(frozen=True, slots=True)
class Selector:
    """What a text means.

    Attributes:
        text: as it was written.
        matches: says whether a device is meant.
        words: values that a device must have one of, by field: never wrong, but not all that is asked.
    """

    text: str
    matches: Test = field(compare=False)
    words: Words = field(compare=False)


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


class _Part(NamedTuple):
    """A part of a selector: its test, and what a device that passes it must have."""

    test: Test
    words: Words


@lru_cache(maxsize=256)
def parse(text: str) -> Selector:
    """Return what a text means; the empty text means every device.

    Raises:
        SelectorError: it is not understood, or too long.
    """
    if len(text) > MAX_CHARS:
        raise SelectorError(f"a selector has at most {MAX_CHARS} characters; this one has {len(text)}")
    if not text.strip():
        return Selector(text, lambda device: True, {})
    part = _Parser(text).whole()
    return Selector(text, part.test, part.words)


def version_key(text: str) -> tuple[object, ...] | None:
    """Return what versions are ordered by: numbers by value, a pre-release before its release; None for no text."""
    main, _, build = text.removeprefix("v").partition("+")
    del build
    core, dash, early = main.partition("-")
    pieces = [_piece(piece) for piece in core.split(".")] if core else []
    while pieces and pieces[-1] == (0, 0, ""):
        pieces.pop()  # 1.4 is 1.4.0
    return (tuple(pieces), not dash, tuple(_piece(piece) for piece in early.split("."))) if text else None


def _piece(piece: str) -> tuple[int, int, str]:
    return (0, int(piece), "") if piece.isascii() and piece.isdigit() and len(piece) < MAX_DEPTH else (1, 0, piece)


def number_key(text: str) -> float | None:
    """Return the number that a text is, None if it is none."""
    return float(text) if _NUMBER.fullmatch(text) else None


class _Parser:
    """Reads one text, from left to right; each method takes what its rule in the grammar says."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._split())
        self._place = 0
        self._depth = 0
        self._values = 0

    def whole(self) -> _Part:
        part = self._either()
        if self._next.kind != "end":
            self._fail('expected "and", "or" or the end')
        return part

    def _split(self) -> Iterable[_Token]:
        at = 0
        end = len(self._text.rstrip())
        while at < end:
            found = _TOKEN.match(self._text, at)
            if found is None:
                self._refuse_character(at)
            kind = str(found.lastgroup)
            yield _Token(kind, found[kind], found.start(kind))
            at = found.end()
        yield _Token("end", "", end)

    def _refuse_character(self, at: int) -> NoReturn:
        at += len(self._text[at:]) - len(self._text[at:].lstrip())
        character = self._text[at]
        if character == '"':
            self._fail('this text does not end; close it with "', at)
        instead = f"; write {_SLIPS[character]}" if character in _SLIPS else ""
        self._fail(f"{character!r} means nothing here{instead}", at)

    @property
    def _next(self) -> _Token:
        return self._tokens[self._place]

    def _take(self) -> _Token:
        self._place += 1
        return self._tokens[self._place - 1]

    def _skip(self, *texts: str) -> bool:
        """Take the next token if it is one of these words or marks."""
        found = self._next.kind in ("word", "mark") and self._next.text in texts
        self._place += found
        return found

    def _expect(self, text: str, why: str = "") -> None:
        if not self._skip(text):
            self._fail(f'expected "{text}"{why}')

    def _either(self) -> _Part:
        parts = [self._both()]
        while self._skip("or"):
            parts.append(self._both())
        if len(parts) == 1:
            return parts[0]
        tests = tuple(part.test for part in parts)
        common = set(parts[0].words).intersection(*(part.words for part in parts[1:]))
        words = {name: frozenset[str]().union(*(part.words[name] for part in parts)) for name in common}
        return _Part(lambda device: any(test(device) for test in tests), words)

    def _both(self) -> _Part:
        parts = [self._negation()]
        while self._skip("and"):
            parts.append(self._negation())
        if len(parts) == 1:
            return parts[0]
        tests = tuple(part.test for part in parts)
        words: dict[str, frozenset[str]] = {}
        for part in parts:
            for name, values in part.words.items():
                words[name] = words.get(name, values) & values
        return _Part(lambda device: all(test(device) for test in tests), words)

    def _negation(self) -> _Part:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"this is nested deeper than {MAX_DEPTH}")
        part = self._deeper()
        self._depth -= 1
        return part

    def _deeper(self) -> _Part:
        if self._skip("not"):
            inner = self._negation().test
            return _Part(lambda device: not inner(device), {})
        if self._skip("("):
            part = self._either()
            self._expect(")", " to close the bracket")
            return part
        return self._test()

    def _test(self) -> _Part:
        token = self._take()
        name = token.text
        if token.kind != "word" or name in _RESERVED:
            self._fail("expected a test, such as model == esp32", token.at)
        if name in ("tag", "group"):
            return self._membership(name)
        if name.startswith("attr."):
            attribute = name.removeprefix("attr.")
            if not ATTRIBUTE.fullmatch(attribute):
                self._fail("an attribute is named in lower case letters, digits, _ and -, at most 32", token.at)
            return self._comparison(name, lambda device: device.attributes.get(attribute, ""))
        if name not in FIELDS:
            self._fail(f"there is no field {name[:40]}; there are {', '.join(FIELDS)}, tag(), group()", token.at)
        return self._comparison(name, attrgetter(name))

    def _membership(self, name: str) -> _Part:
        self._expect("(", f": write {name}(NAME)")
        value = self._value()
        self._expect(")")
        of = attrgetter(f"{name}s")
        return _Part(lambda device: value in of(device), {})

    def _comparison(self, name: str, of: Callable[[Device], object]) -> _Part:
        operator = self._next
        if self._skip(*_ORDERS):
            return self._order(name, of, operator)
        negated = self._skip("not")
        if self._skip("like"):
            part = self._like(name, of)
        elif self._skip("in"):
            part = self._in(name, of)
        else:
            self._fail('expected "in" or "like"' if negated else "expected ==, !=, <, <=, >, >=, in, like or not in")
        inner = part.test
        return _Part(lambda device: not inner(device), {}) if negated else part

    def _order(self, name: str, of: Callable[[Device], object], operator: _Token) -> _Part:
        compare = _ORDERS[operator.text]
        at = self._next.at
        value = self._value()
        if operator.text in ("==", "!="):
            equal = self._among(name, of, [(value, at)])
            inner = equal.test
            return equal if compare is eq else _Part(lambda device: not inner(device), {})
        if name in _TEXTS:
            self._fail(f"{name} has no order; write ==, !=, in or like", operator.at)
        key = _key_of(name)
        wanted = key(value)
        if wanted is None:
            self._fail(f"{name} is ordered by number; {value[:40]!r} is none", at)

        def test(device: Device) -> bool:
            found = key(of(device))
            return found is not None and compare(found, wanted)

        return _Part(test, {})

    def _in(self, name: str, of: Callable[[Device], object]) -> _Part:
        self._expect("(", ' after "in"')
        values = [(self._next.at, self._value())]
        while self._skip(","):
            values.append((self._next.at, self._value()))
        self._expect(")", ' or "," in the list')
        return self._among(name, of, [(value, at) for at, value in values])

    def _among(self, name: str, of: Callable[[Device], object], values: list[tuple[str, int]]) -> _Part:
        texts = frozenset(value for value, _ in values)
        if name in _TEXTS:
            return _Part(lambda device: of(device) in texts, {name: texts})
        if name.startswith("attr."):
            return _Part(lambda device: of(device) in texts, {})
        key = _key_of(name)
        for value, at in values:
            if key(value) is None and value:
                self._fail(f"{name} is a number; {value[:40]!r} is none", at)
        keys = frozenset(key(value) for value in texts)
        return _Part(lambda device: key(of(device)) in keys, {})

    def _like(self, name: str, of: Callable[[Device], object]) -> _Part:
        if name in _NUMBERS:
            self._fail(f"{name} is a number; write ==, <, <=, >, >= or in")
        if self._next.kind != "string":
            self._fail('expected a pattern in quotes, such as "berlin-*"')
        pattern = re.compile(translate(self._value().replace("[", "[[]"))).match
        return _Part(lambda device: pattern(str(of(device))) is not None, {})

    def _value(self) -> str:
        token = self._next
        if token.kind not in ("word", "string") or (token.kind == "word" and token.text in _RESERVED):
            self._fail("expected a value: a word, a number or a text in quotes")
        self._values += 1
        if self._values > MAX_VALUES:
            self._fail(f"more than {MAX_VALUES} values; put these devices into a group")
        self._place += 1
        return token.text if token.kind == "word" else re.sub(r"\\(.)", r"\1", token.text[1:-1])

    def _fail(self, what: str, at: int | None = None) -> NoReturn:
        at = self._next.at if at is None else at
        first = max(at - _SHOWN, 0)
        line = self._text[first : at + _SHOWN]
        shown = "".join(character if character.isprintable() else " " for character in line)
        raise SelectorError(f"column {at + 1}: {what}\n  {shown}\n  {' ' * (at - first)}^")


def _key_of(name: str) -> Callable[[object], object | None]:
    """Return what the values of a field are compared by."""
    return _version if name in _VERSIONS else _number


@lru_cache(maxsize=4096)
def _version(value: object) -> object | None:
    return version_key(str(value))


def _number(value: object) -> object | None:
    return float(value) if isinstance(value, int) else number_key(str(value))
