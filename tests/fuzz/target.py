"""What a target of the fuzzer is: one parser at an edge, as a function of bytes.

Rules:
- A parser may raise what it documents and nothing else.
- Equal bytes give an equal outcome, whatever came before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Parser = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Target:
    """One parser.

    Attributes:
        name: what it reads.
        parse: gets the bytes.
        errors: what it may raise.
        seeds: good input.
        share: parts of all inputs that it gets; slow parsers get few.
        longest: bytes of an input at most; text of people (YAML) is read slowly, and is theirs.
        limit_s: processor time that one input may take.
    """

    name: str
    parse: Parser
    errors: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]
    share: int = 20
    longest: int = 4096
    limit_s: float = 0.05


def on_file(path: Path, read: Callable[[Path], object]) -> Parser:
    """Return the parser that writes its bytes to a file, which only we may read, and has that read."""

    def parse(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    path.touch(mode=0o600)
    return parse


def as_text(data: bytes) -> str:
    """Return bytes as the text that Python makes of them at the edge."""
    return data.decode("utf-8", "surrogateescape")
