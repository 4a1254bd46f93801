"""The database itself refuses to change the audit log, and what is changed behind its back is found."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.adapters.store.offline import audit_log_of
from orchestrator.core.trust.audit import Checkpoint, Examination, Findings
from orchestrator.errors import NotFoundError, UnavailableError
from orchestrator.ports import Lane, Tx
from tests.support.store import opened


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A database with ten entries."""

    def work(tx: Tx) -> None:
        for at in range(10):
            tx.audit("ann", "rollout.moved", "spring", {"stage": at}, float(at))

    async with opened(tmp_path) as store:
        await store.transact(Lane.OPERATOR, work)
    return tmp_path / "state.db"


def run(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def examine(path: Path, *, checkpoint: int = 0) -> Findings:
    with audit_log_of(path) as log:
        entries = log.audit_entries(0, 100)
        kept = [Checkpoint(item.n, item.hash, item.at, 0) for item in entries if item.n == checkpoint]
        walk = Examination(kept, log.sealed_between)
        for entry in entries:
            walk.look(entry)
        return walk.finish(log.audit_head())


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'eve' WHERE n = 3",
        "DELETE FROM audit WHERE n = 10",
        "DELETE FROM audit",
        "INSERT INTO audit SELECT n, at, 'eve', action, object, detail, prev, hash FROM audit WHERE n = 3",
    ],
)
def test_the_database_only_lets_entries_be_added(path: Path, statement: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="only ever added to|UNIQUE"):
        run(path, statement)
    assert (examine(path, checkpoint=10).faults, examine(path).entries) == ((), 10)


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE audit SET actor = 'eve' WHERE n = 3", "entry 3 was changed"),
        ("UPDATE audit SET at = at + 0.001 WHERE n = 3", "entry 3 was changed"),
        ("DELETE FROM audit WHERE n = 3", "entries 3 to 3 are missing"),
        ("DELETE FROM audit WHERE n > 8", "the log ends with entry 8, but its head is entry 10"),
        ("UPDATE audit_head SET n = 9", "the log ends with entry 10, but its head is entry 9"),
        ("DELETE FROM audit_head", "the log ends with entry 10, but its head is entry 0"),
    ],
)
def test_who_drops_the_triggers_is_found(path: Path, statement: str, fault: str) -> None:
    run(path, "DROP TRIGGER audit_no_update", "DROP TRIGGER audit_no_delete", statement)
    assert fault in "; ".join(examine(path).faults)


def test_replacing_an_entry_is_found(path: Path) -> None:
    """SQLite runs no delete trigger for a REPLACE, so this is one way past the database."""
    words = "n, at, 'eve', action, object, detail, prev, hash"
    run(path, f"INSERT OR REPLACE INTO audit SELECT {words} FROM audit WHERE n = 3")
    assert examine(path).faults == ("entry 3 was changed: its hash is not that of its words",)


def test_reading_a_file_changes_nothing(path: Path) -> None:
    path.chmod(0o400)
    before = path.read_bytes()
    assert examine(path).entries == 10
    assert path.read_bytes() == before


def test_a_file_that_holds_no_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no database"), audit_log_of(tmp_path / "none"):
        pass
    run(tmp_path / "other.db", "CREATE TABLE x (y)")
    with (
        pytest.raises(UnavailableError, match=r"other\.db holds no audit log"),
        audit_log_of(tmp_path / "other.db") as log,
    ):
        log.audit_head()
    (tmp_path / "text").write_text("something else " * 100)
    with pytest.raises(UnavailableError, match="not a database"), audit_log_of(tmp_path / "text") as log:
        log.audit_head()
