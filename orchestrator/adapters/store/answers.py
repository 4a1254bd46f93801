"""The answers to acts that were asked for under a key. Implements `ports.Answers`."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select
from sqlalchemy import insert as plain_insert

from orchestrator.adapters.store.schema import answers
from orchestrator.ports.acts import Kept


class SqlAnswers:
    """Answers in SQL."""

    _connection: Connection

    def answer(self, key: bytes) -> Kept | None:
        """See `ports.Answers.answer`."""
        row = self._connection.execute(select(answers).where(answers.c.key == key)).one_or_none()
        return None if row is None else Kept(row.request, row.answer, row.at)

    def keep_answer(self, key: bytes, kept: Kept) -> None:
        """See `ports.Answers.keep_answer`."""
        values = {"key": key, "request": kept.request, "answer": kept.answer, "at": kept.at}
        self._connection.execute(plain_insert(answers), values)

    def forget_answers(self, before: float, limit: int) -> int:
        """See `ports.Answers.forget_answers`."""
        old = select(answers.c.key).where(answers.c.at < before).order_by(answers.c.at).limit(limit)
        return int(self._connection.execute(delete(answers).where(answers.c.key.in_(old))).rowcount)
