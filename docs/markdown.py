"""Pieces of Markdown for the pages that are drawn.

Rules:
- What comes from the code is text: it is escaped here, and nowhere else.
- Anchors follow GitHub: the heading in lower case, without punctuation, a hyphen for each space.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_CODE = re.compile(r"(`[^`]+`)")
_PAGE = re.compile(r"\bdocs/([\w-]+\.md)")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table without the columns that are empty all the way down; empty where it has no rows."""
    kept = list(rows)
    columns = [number for number in range(len(heads)) if any(row[number] for row in kept)]
    lines = [[heads[number] for number in columns], *([_cell(row[number]) for number in columns] for row in kept)]
    drawn = [f"| {' | '.join(line)} |\n" for line in lines]
    return "".join([drawn[0], "|---" * len(columns) + "|\n", *drawn[1:]]) if kept else ""


def prose(text: str) -> str:
    """Return a text of the code on one line: its code as code, its pages as links, the rest as it stands."""
    parts = _CODE.split(" ".join(text.split()))
    return "".join(part if number % 2 else _escaped(part) for number, part in enumerate(parts))


def code(text: str) -> str:
    """Return a text as code."""
    return f"`{text}`"


def anchor(heading: str) -> str:
    """Return what a link to a heading ends with, after the `#`."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _escaped(text: str) -> str:
    escaped = re.sub(r"([*<>\[\]\\]|(?<!\w)_|_(?!\w))", r"\\\1", text)
    return _PAGE.sub(r"[\1](../\1)", escaped)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
