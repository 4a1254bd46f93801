"""Paths of the operator API, of words that anybody may have typed."""

from __future__ import annotations

from urllib.parse import quote

from orchestrator.errors import RequestError

_NO_PARTS = ("", ".", "..")
"""Words that are no part of a path."""


def path_of(*words: str) -> str:
    """Return the path that these words make; whatever a word holds, it stays one part of it.

    Raises:
        RequestError: a word cannot be one part of a path, so nothing can have this name.
    """
    for word in words:
        if "/" in word or word in _NO_PARTS:  # even quoted it would be taken for another path
            text = f"there is no {word!r}; names are not empty, hold no slash, and are no dots alone"
            raise RequestError(text, code="not_found")
    return "".join(f"/{quote(word, safe='')}" for word in words)
