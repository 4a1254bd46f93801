"""Many rows in one step: they cross into SQLite, and back, as one JSON text.

Rules:
- The driver gives up the interpreter lock around every step of a statement, and with a busy event
  loop beside it each return costs a wait. So the hot statements take and give all rows in one step,
  and the database works while the loop receives (measured in `docs/adr/0004-one-step-per-batch.md`).
- Only text, numbers, booleans and None travel this way. Times come back rounded to ten microseconds.
- Other databases get the ordinary statements, which batch well there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, Subquery, bindparam, func, select
from sqlalchemy.types import Text

_ENCODE = msgspec.json.Encoder().encode
_DECODE = msgspec.json.Decoder(list[list[Any]]).decode

ROWS = bindparam("packed_rows", type_=Text)
"""The parameter that `given` reads."""


def pack(rows: Sequence[Sequence[object]]) -> dict[str, str]:
    """Return the parameters of a statement built on `given`."""
    return {"packed_rows": _ENCODE(rows).decode()}


def given(columns: Iterable[Column[Any]]) -> Subquery:
    """Return the packed rows as a table with these columns, in the order in which each row has them."""
    each = func.json_each(ROWS).table_valued("value")
    return select(
        *(func.json_extract(each.c.value, f"$[{place}]").label(column.name) for place, column in enumerate(columns))
    ).subquery("given")


def given_values() -> ColumnElement[Any]:
    """Return packed single values, for `IN`."""
    return select(func.json_each(ROWS).table_valued("value").c.value).scalar_subquery()


def fetch(
    connection: Connection, columns: Sequence[Column[Any]], condition: ColumnElement[bool], given_rows: object
) -> list[list[Any]]:
    """Return the rows that meet a condition on `given_values`, in no particular order."""
    statement = select(func.json_group_array(func.json_array(*columns))).where(condition)
    return _DECODE(connection.scalar(statement, {"packed_rows": _ENCODE(given_rows).decode()}) or "[]")
