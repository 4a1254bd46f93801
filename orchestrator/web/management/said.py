"""What callers of hawkBit's Management API say: bodies and queries, decoded; unknown members are ignored as there."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from starlette.datastructures import QueryParams

from orchestrator.errors import PayloadError, RequestError

MAX_BODY_BYTES = 256 * 1024
MAX_ITEMS = 100
"""What one request may create or assign; more of it is a rollout's work."""

PAGE, MAX_PAGE = 50, 500
_MAX_DIGITS = 10
_LARGEST = 2**31 - 1

_Id = Annotated[int, msgspec.Meta(ge=1, le=_LARGEST)]
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
_Said = TypeVar("_Said")


class NewTarget(msgspec.Struct, frozen=True, rename="camel"):
    """A target to create."""

    controller_id: _Text
    security_token: Annotated[str, msgspec.Meta(max_length=128)] | None = None


class NewModule(msgspec.Struct, frozen=True):
    """A software module to create."""

    name: _Text
    version: _Text
    type: _Text


class Named(msgspec.Struct, frozen=True):
    """A software module of a set."""

    id: _Id


class NewSet(msgspec.Struct, frozen=True):
    """A distribution set to create."""

    name: _Text
    version: _Text
    modules: Annotated[list[Named], msgspec.Meta(max_length=64)] = []


class Assignment(msgspec.Struct, frozen=True, rename="camel"):
    """A target to assign a set to."""

    id: _Text
    type: str = "forced"
    maintenance_window: Any = None


class Value(msgspec.Struct, frozen=True):
    """A value of the configuration."""

    value: Any


class Page(NamedTuple):
    """Which part of a list is wanted.

    Attributes:
        offset: entries before it.
        limit: entries in it.
        descending: whether the newest come first, None if nothing is said of that.
    """

    offset: int
    limit: int
    descending: bool | None


def decode(body: bytes, type_: type[_Said]) -> _Said:
    """Return what a body says.

    Raises:
        PayloadError: it does not say such a thing.
    """
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PayloadError(f"the body cannot be read: {error}", code="malformed") from None


def some(body: bytes, type_: type[_Said]) -> list[_Said]:
    """Return the entries of a list.

    Raises:
        PayloadError: it is no such list, is empty or too long.
    """
    found: list[_Said] = decode(body, list[type_])  # type: ignore[valid-type]
    if not 1 <= len(found) <= MAX_ITEMS:
        text = f"1 to {MAX_ITEMS} at once, not {len(found)}; for many devices make a rollout (`ota rollout create`)"
        raise PayloadError(text, code="malformed")
    return found


def page_of(query: QueryParams) -> Page:
    """Return which part of a list is wanted.

    Raises:
        RequestError: it asks for what is not served.
    """
    if query.get("q"):
        raise RequestError("`q` is not served here; `ota device list --select` knows selectors")
    sort = query.get("sort", "")
    field, _, direction = sort.partition(":")
    if sort and (field.lower() != "id" or direction.upper() not in ("", "ASC", "DESC")):
        raise RequestError("`sort` is id:ASC or id:DESC")
    descending = direction.upper() == "DESC" if sort else None
    return Page(
        _number(query, "offset", 0, _LARGEST), min(_number(query, "limit", PAGE, _LARGEST), MAX_PAGE), descending
    )


def number_in(text: str) -> int:
    """Return the number that a path names, 0 for none that we give out."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS else 0
    return number if number <= _LARGEST else 0


def is_true(query: QueryParams, name: str) -> bool:
    """Say whether a query says yes to something."""
    return query.get(name, "").lower() == "true"


def _number(query: QueryParams, name: str, default: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS and int(text) <= most):
        raise RequestError(f"`{name}` is a whole number")
    return int(text)
