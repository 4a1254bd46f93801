"""Brings a database to the newest schema. Forward only; old data is never dropped."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Engine

from orchestrator.errors import RequestError

_SCRIPTS = Path(__file__).parent / "migrations"


def alembic_config() -> Config:
    """Return the configuration of the migrations, without a database."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    return config


def migrate(engine: Engine) -> None:
    """Run every migration that the database has not seen. Blocks.

    Raises:
        RequestError: the database has seen migrations that this program does not know.
    """
    config = alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            text = f"the database was brought up by a newer version; run that version ({error})"
            raise RequestError(text, code="newer_schema") from None
