"""Many rows through one statement, without the work that SQLAlchemy does for each of them.

Rules:
- The statement is still SQLAlchemy's: it is compiled once per database, so that no SQL is written by hand.
- Values are passed as the driver takes them; only columns whose Python values need no conversion
  (text, numbers, booleans, None) may be written this way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Executable
from sqlalchemy.sql.compiler import SQLCompiler


class Bulk:
    """One statement that is executed with many rows.

    Args:
        statement: an INSERT, or an UPDATE with bound parameters.
        names: the parameters in the order in which rows give them.
    """

    def __init__(self, statement: Executable, names: Sequence[str]) -> None:
        self._statement = statement
        self._names = tuple(names)
        self._compiled: dict[str, tuple[str, tuple[int, ...]]] = {}

    def execute(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Execute the statement once for each row."""
        if not rows:
            return
        sql, order = self._compile(connection)
        if order != tuple(range(len(self._names))):
            rows = [tuple(row[place] for place in order) for row in rows]
        connection.exec_driver_sql(sql, list(map(tuple, rows)))

    def _compile(self, connection: Connection) -> tuple[str, tuple[int, ...]]:
        dialect = connection.dialect.name
        if dialect not in self._compiled:
            compiled = self._statement.compile(dialect=connection.dialect, column_keys=list(self._names))  # type: ignore[attr-defined]
            assert isinstance(compiled, SQLCompiler)
            assert compiled.positiontup is not None, "the driver takes positional parameters"
            self._compiled[dialect] = (str(compiled), tuple(map(self._names.index, compiled.positiontup)))
        return self._compiled[dialect]
