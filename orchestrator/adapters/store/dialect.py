"""The one place that knows which database it is."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert(connection: Connection, table: Table) -> Any:
    """Return an INSERT that knows ON CONFLICT, for the database of this connection.

    The two dialects share the methods used here, but no type.
    """
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)
