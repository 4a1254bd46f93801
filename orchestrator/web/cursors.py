"""Lists in pages: where a page ends, and the link to the next one.

Rules:
- A cursor is opaque and holds a sum over its list: one that is cut, altered or of another list is refused. It is no
  secret, and opens nothing that the list does not show.
- It names the last thing that was shown, so that nothing is left out or told twice however the list grows.
- A page never has more than `limit` things, and the last page has no link.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, Query, Request, Response

from orchestrator.errors import RequestError

MAX_PAGE = 1000
_MAX_CURSOR_CHARS = 512
_SUM_BYTES = 12
_LARGEST = 2**62
_OWN = ("cursor", "after")

Item = TypeVar("Item")
Place = str | int


class BadCursorError(RequestError):
    """A cursor that we did not give out for this list."""

    default_code = "bad_cursor"

    def __init__(self) -> None:
        super().__init__("this cursor is none of this list; begin without one, and follow `Link` from there")


class Pages:
    """Which page is asked for, and how the next one is named.

    Args:
        request: that asks.
        response: whose `Link` names the next page.
        cursor: what the last page gave, None for the first page.
        limit: how many things at most.
    """

    def __init__(self, request: Request, response: Response, cursor: str | None, limit: int) -> None:
        self.limit = limit
        self._request = request
        self._response = response
        self._asked = [item for item in request.query_params.multi_items() if item[0] not in _OWN]
        self._list = json.dumps([request.url.path, sorted(item for item in self._asked if item[0] != "limit")])
        self.last = None if cursor is None else self._read(cursor)
        """The last thing that was shown, None for the first page."""

    def cut(self, found: Sequence[Item], name: Callable[[Item], Place]) -> list[Item]:
        """Return the page of what follows the last thing that was shown, out of at most `limit` + 1 of it."""
        page = list(found[: self.limit])
        if len(found) > self.limit:
            query = urlencode([*self._asked, ("cursor", self._write(name(page[-1])))])
            self._response.headers["Link"] = f'<{self._request.url.path}?{query}>; rel="next"'
        return page

    def cut_all(self, everything: Sequence[Item], name: Callable[[Item], Place]) -> list[Item]:
        """Return the page out of a whole list.

        Raises:
            BadCursorError: what was shown last is not in the list any more.
        """
        start = 0
        if self.last is not None:
            start = next((at for at, item in enumerate(everything, 1) if name(item) == self.last), 0)
            if not start:
                raise BadCursorError
        return self.cut(everything[start : start + self.limit + 1], name)

    def word(self, otherwise: str = "") -> str:
        """Return the last thing of a list whose things are named by words."""
        if isinstance(self.last, int):
            raise BadCursorError
        return otherwise if self.last is None else self.last

    def number(self, otherwise: int = 0) -> int:
        """Return the last thing of a list whose things are named by numbers."""
        if isinstance(self.last, str):
            raise BadCursorError
        return otherwise if self.last is None else self.last

    def _write(self, place: Place) -> str:
        text = json.dumps(place).encode()
        return base64.urlsafe_b64encode(self._sum(text) + text).decode().rstrip("=")

    def _read(self, cursor: str) -> Place:
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
            total, text = raw[:_SUM_BYTES], raw[_SUM_BYTES:]
            place: Any = json.loads(text) if hmac.compare_digest(total, self._sum(text)) else None
        except (binascii.Error, ValueError):
            raise BadCursorError from None
        if not (isinstance(place, str) and place.isprintable()) and not (type(place) is int and 0 <= place < _LARGEST):
            raise BadCursorError
        known: Place = place
        return known

    def _sum(self, text: bytes) -> bytes:
        return hashlib.sha256(self._list.encode() + b"\0" + text).digest()[:_SUM_BYTES]


def pages(default: int) -> Any:
    """Return the dependency of a list whose pages have so many things if nobody says how many."""

    def read(
        request: Request,
        response: Response,
        cursor: Annotated[
            str | None, Query(max_length=_MAX_CURSOR_CHARS, description="From `Link` of the page before.")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="How many at most.")] = default,
    ) -> Pages:
        return Pages(request, response, cursor, limit)

    return Depends(read)
