"""What a device states of itself with a poll: words of its query or headers, whichever its client can set.

Rules:
- A word may come both ways, but not with two meanings.
- It is short and printable, for it may be shown to persons.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request

from orchestrator.errors import PayloadError

MAX_CHARS = 64


def stated(request: Request, words: Mapping[bytes, str]) -> dict[str, str]:
    """Return what a request states, by word; what it leaves empty it does not state.

    Args:
        request: the request.
        words: the word for each header, in lower case; the same words are those of the query.

    Raises:
        PayloadError: a word has two meanings, or is no printable text of at most 64 characters.
    """
    said = [(words[name], value.decode("latin-1")) for name, value in request.scope["headers"] if name in words]
    if request.scope["query_string"]:
        known = frozenset(words.values())
        said += [(word, text) for word, text in request.query_params.multi_items() if word in known]
    found: dict[str, str] = {}
    for word, text in said:
        if len(text) > MAX_CHARS:
            raise PayloadError(f"{word}: at most {MAX_CHARS} characters", code="oversize")
        if not text.isprintable() or text != text.strip():
            raise PayloadError(f"{word}: printable characters only, without spaces around them", code="malformed")
        if text and found.setdefault(word, text) != text:
            raise PayloadError(f"{word} is said twice, and not the same", code="said_twice")
    return found
