"""The documents of the repository: their pages, what is typed in their blocks, their links and headings.

Rules:
- Headings get the anchors that GitHub gives them, and the second of one name the anchor with `-1`.
- A block of the shell is taken apart as the shell does: quotes, comments, pipes, substitutions, here-documents. In a
  block without a language a line is a command where it has a prompt, or begins with `ota` or `make`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MADE = frozenset({"build", "dist", "htmlcov"})
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(
            page
            for folder in ROOT.iterdir()
            if folder.is_dir() and not folder.name.startswith(".") and folder.name not in MADE
            for page in folder.glob("**/*.md")
        ),
    ]
)

_FENCE = re.compile(r"^( *)```([a-z]*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)(`+)((?:(?!\n\n)[^`])+)\1(?!`)")
_LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
_TYPED = re.compile(r"^(?:[a-z]*\$ |(?=(?:ota|make) ))(.*)$", re.MULTILINE)
_HERE = re.compile(r"<<-?\s*(['\"]?)(\w+)\1(.*)\n(?:.*\n)*?\s*\2$", re.MULTILINE)
_COMMENT = re.compile(r"""^((?:[^'"\n]|'[^'\n]*'|"[^"\n]*")*?)(?:(?<=\s)|^)#.*$""", re.MULTILINE)
_INNER = re.compile(r"[$<]\(([^()]*)\)")
_ENDS = frozenset("();|&\n")
_BEFORE = frozenset({"sudo", "env", "exec", "time", "nohup", "!", "if", "while", "until", "then", "do", "else", "{"})


def prose(page: Path) -> str:
    """Return a page without its blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def inline(page: Path) -> list[str]:
    """Return what is code within the lines of a page."""
    return [" ".join(match[2].split()) for match in _INLINE.finditer(prose(page))]


def typed(page: Path) -> Iterator[list[str]]:
    """Yield the words of every command that the blocks of a page show."""
    for _, language, text in _FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "sh":
            yield from commands(text)
        elif not language:
            yield from commands("\n".join(_TYPED.findall(text.replace("\\\n", " "))))


def commands(script: str) -> Iterator[list[str]]:
    """Yield the words of every simple command of a script, without assignments, redirections and words like `sudo`."""
    script = _COMMENT.sub(r"\1", _HERE.sub(r"\3", script).replace("\\\n", " "))
    while inner := _INNER.search(script):
        yield from commands(inner[1])
        script = f"{script[: inner.start()]}VALUE{script[inner.end() :]}"
    script = re.sub(r"(?<=\s)\d(?=[<>])", "", script)
    lexer = shlex.shlex(script, posix=True, punctuation_chars="".join(_ENDS) + "<>")
    lexer.whitespace_split, lexer.whitespace, lexer.commenters = True, " \t\r", ""
    words: list[str] = []
    into = False
    for token in [*lexer, "\n"]:
        if set(token) <= _ENDS | set("<>"):
            into = bool(set(token) & set("<>")) and not set(token) & set("();|\n")
            if into:
                continue
            if found := _without_prefix(words):
                yield found
            words = []
        elif not into:
            words.append(token)
        else:
            into = False


def _without_prefix(words: list[str]) -> list[str]:
    for number, word in enumerate(words):
        if word not in _BEFORE and not re.match(r"\w+=", word):
            return [Path(word).name, *words[number + 1 :]]
    return []


def links(page: Path) -> list[str]:
    """Return where the links of a page lead that stay in the repository."""
    text = _INLINE.sub("code", prose(page))
    return [link for link in _LINK.findall(text) if not re.match(r"[a-z]+:", link)]


def anchors(page: Path) -> list[str]:
    """Return the anchors of the headings of a page."""
    found: list[str] = []
    for heading in re.findall(r"^#{1,6} +(.*?)(?: +#+)?$", prose(page), re.MULTILINE):
        own = anchor(heading)
        number = sum(1 for other in found if re.fullmatch(rf"{re.escape(own)}(-\d+)?", other))
        found.append(own if own not in found else f"{own}-{number}")
    return found


def anchor(heading: str) -> str:
    """Return the anchor of a heading that is the only one of its name."""
    text = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    text = re.sub(r"(?<!\w)([*_]{1,2})(\S(?:.*?\S)?)\1(?!\w)", r"\2", text)
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def name(value: object) -> str:
    """Return how pytest shall call a page, or what stands in it."""
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)
