"""What a transaction touches, noted by the database itself. Implements what `ports.Watched` tells.

Rules:
- Triggers of the one connection that writes note it, so that no statement can forget to; the file has none of them.
- What they note is rolled back with the transaction, and taken out of it before the commit.
- A device counts as changed by any column but those of `_QUIET`; another column counts by itself.
- They call nothing: a function of ours would wait for the interpreter at each row.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, event

from orchestrator.adapters.store.schema import devices
from orchestrator.core.model import UpdateState
from orchestrator.core.rollout import FINISHED
from orchestrator.core.update import IN_FLIGHT
from orchestrator.ports.touched import Touched

_DEVICE, _DUE, _EVERYONE = 0, 1, 2
_QUIET = frozenset({"seen_at", "situation", "gone_at"})
"""What a device said last, and when: it changes with every word, and no poll is answered by it."""


def _listed(values: frozenset[str]) -> str:
    return ", ".join(f"'{value}'" for value in sorted(values))


_FLYING = _listed(frozenset(state.value for state in IN_FLIGHT))
_HEARS = _listed(frozenset(state.value for state in IN_FLIGHT | {UpdateState.UNREACHED}))
"""States of an update of which a poll may bring something."""
_OVER = _listed(frozenset(phase.value for phase in FINISHED))
_LOUD = [f'"{column.name}"' for column in devices.c if column.name not in _QUIET]
_CHANGES = " OR ".join(f"OLD.{name} IS NOT NEW.{name}" for name in _LOUD)
_NOTE = "INSERT INTO touched (kind, device_id) VALUES"
_ARM = (
    "CREATE TEMP TABLE touched (kind INTEGER NOT NULL, device_id TEXT NOT NULL)",
    f"CREATE TEMP TRIGGER touched_device AFTER UPDATE OF {', '.join(_LOUD)} ON main.devices WHEN {_CHANGES} "
    f"BEGIN {_NOTE} ({_DEVICE}, OLD.id); END",
    f"CREATE TEMP TRIGGER touched_gone AFTER DELETE ON main.devices BEGIN {_NOTE} ({_DEVICE}, OLD.id); END",
    f"CREATE TEMP TRIGGER touched_new AFTER INSERT ON main.updates WHEN NEW.state IN ({_HEARS}) "
    f"BEGIN {_NOTE} ({_DUE}, NEW.device_id); END",
    "CREATE TEMP TRIGGER touched_due AFTER UPDATE OF state ON main.updates "
    f"WHEN NEW.state IN ({_HEARS}) AND OLD.state NOT IN ({_FLYING}) BEGIN {_NOTE} ({_DUE}, NEW.device_id); END",
    # Which way a rollout brings its triggers, and whether it takes anybody back, are words on all its updates at once.
    "CREATE TEMP TRIGGER touched_rollout AFTER UPDATE OF plan, phase ON main.rollouts "
    "WHEN json_extract(OLD.plan, '$.delivery') IS NOT json_extract(NEW.plan, '$.delivery') "
    f"OR (OLD.phase IN ({_OVER}) AND NEW.phase NOT IN ({_OVER})) "
    f"BEGIN {_NOTE} ({_EVERYONE}, ''); END",
)
_TAKE = "DELETE FROM temp.touched RETURNING kind, device_id"


def arm(engine: Engine) -> None:
    """Let the connection of an engine note what it touches; the database must have its newest schema."""

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        for statement in _ARM:
            connection.execute(statement)

    engine.dispose()  # what is connected would note nothing


def take(connection: Connection) -> Touched | None:
    """Return what this transaction touched, and forget it; None for nothing."""
    found: list[tuple[int, str]] = [tuple(row) for row in connection.exec_driver_sql(_TAKE)]
    if not found:
        return None
    return Touched(
        frozenset(name for kind, name in found if kind == _DEVICE),
        frozenset(name for kind, name in found if kind == _DUE),
        any(kind == _EVERYONE for kind, _ in found),
    )
