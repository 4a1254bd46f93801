"""Makes the schema of a parameter or of an answer once for all applications of a process.

Rules:
- Each test has an application of its own, and most of the time that it takes to build one goes into schemas that were
  made for the one before. A schema says what is valid and keeps nothing, so that they can share it.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, get_args

from fastapi._compat import v2
from pydantic import TypeAdapter

_known: dict[Hashable, TypeAdapter[Any]] = {}


def install() -> None:
    """Have FastAPI ask here from now on."""
    vars(v2)["TypeAdapter"] = _adapter


def _adapter(kind: Any, *, config: Any = None) -> TypeAdapter[Any]:
    """Return what validates values of an annotated type; one type with the same demands is one schema."""
    what, *demands = get_args(kind)
    key = what, repr(demands), repr(config)
    try:
        known = _known.get(key)
    except TypeError:  # a type that cannot be told from others
        return TypeAdapter(kind, config=config)
    if known is None:
        known = _known[key] = TypeAdapter(kind, config=config)
    return known
