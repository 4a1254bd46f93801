"""The schema that migrations make is the schema that the code uses, on any file that may be found."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from orchestrator.adapters.store import open_store
from orchestrator.adapters.store.migrate import alembic_config, migrate
from orchestrator.adapters.store.schema import metadata
from orchestrator.adapters.store.store import sqlite_engine
from orchestrator.errors import RequestError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    made = sqlite_engine(f"sqlite:///{path}")
    yield made
    made.dispose()


def ask(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def schema_of(path: Path) -> list[tuple[object, ...]]:
    return ask(path, "SELECT type, name, sql FROM sqlite_master ORDER BY name")


def test_the_migrations_add_up_to_the_schema(engine: Engine) -> None:
    migrate(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_what_a_comparison_cannot_see_is_equal_as_well(engine: Engine, path: Path, tmp_path: Path) -> None:
    """Conditions of partial indexes, WITHOUT ROWID and constraint names, as SQLite itself has written them down."""
    migrate(engine)
    direct = sqlite_engine(f"sqlite:///{tmp_path / 'direct.db'}")
    metadata.create_all(direct)
    direct.dispose()
    for query in (
        "SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND name <> 'alembic_version' ORDER BY name",
        "SELECT name, replace(sql, '\n', '') FROM sqlite_master WHERE type = 'index' AND sql <> '' ORDER BY name",
    ):
        assert ask(path, query) == ask(tmp_path / "direct.db", query)
    assert ask(path, "SELECT wr FROM pragma_table_list WHERE name = 'reports'") == [(1,)]
    migrated, wanted = constraints_of(path), constraints_of(tmp_path / "direct.db")
    assert {table: wanted[table] for table in metadata.tables} == wanted
    assert {table: migrated[table] for table in metadata.tables} == wanted


def test_an_up_to_date_database_is_left_as_it_is(engine: Engine, path: Path) -> None:
    migrate(engine)
    before = schema_of(path)
    migrate(engine)
    assert schema_of(path) == before


def test_a_database_of_the_first_version_is_brought_up_and_keeps_its_data(path: Path) -> None:
    engine = sqlite_engine(f"sqlite:///{path}")
    migrate(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO counters VALUES ('seq', 41)")
    engine.dispose()
    again = sqlite_engine(f"sqlite:///{path}")
    migrate(again)
    again.dispose()
    assert ask(path, "SELECT * FROM counters") == [("seq", 41)]
    assert ask(path, "SELECT version_num FROM alembic_version") == [(head(),)]


def test_plans_of_rollouts_that_are_there_become_their_first_version(engine: Engine, path: Path) -> None:
    config = alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0008")
        connection.exec_driver_sql("INSERT INTO releases VALUES ('radio-2', '2.0.0', 2, 1.0)")
        connection.exec_driver_sql(
            "INSERT INTO rollouts VALUES (7, 'spring', 'radio-2', '{}', 'halted', '', '', 'ben', 9.0, 3, 0, '[]', "
            "NULL, NULL, 1, 0, x'00')"
        )
        connection.exec_driver_sql("INSERT INTO rollout_events VALUES (1, 7, 5.0, 'draft', 'created', '', 'ann', 0)")
        connection.exec_driver_sql("INSERT INTO rollout_events VALUES (2, 7, 9.0, 'halted', '', '', 'ben', 0)")
    migrate(engine)
    assert ask(path, "SELECT * FROM plan_versions") == [(7, 1, "{}", "[]", "ann", "", 5.0)]
    assert ask(path, "SELECT plan_version FROM rollouts") == [(1,)]


def test_there_is_one_line_of_migrations_from_the_first_to_the_newest() -> None:
    scripts = ScriptDirectory.from_config(alembic_config())
    assert len(scripts.get_heads()) == len(scripts.get_bases()) == 1


def test_a_database_of_a_newer_version_is_refused_with_a_way_out(path: Path) -> None:
    engine = sqlite_engine(f"sqlite:///{path}")
    migrate(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    with pytest.raises(RequestError, match="newer version") as caught:
        open_store(f"sqlite:///{path}")
    assert caught.value.code == "newer_schema"


def head() -> str | None:
    return ScriptDirectory.from_config(alembic_config()).get_current_head()


def constraints_of(path: Path) -> dict[str, list[str]]:
    """Return the named constraints of each table."""
    tables = ask(path, "SELECT name, sql FROM sqlite_master WHERE type = 'table'")
    return {
        str(name): sorted(re.findall(r"CONSTRAINT \w+ [A-Z ]+\([^)]*\)", str(sql)))
        for name, sql in tables
        if not str(name).startswith(("alembic", "sqlite"))
    }
