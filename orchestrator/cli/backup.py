"""`ota backup` and `ota restore`: the state of the daemon in one file, and back.

Rules:
- Both work on the files of this machine: a backup beside a running daemon, a restore only where none runs.
- Only what says where the database is must be right in the configuration: whoever restores has other worries.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli import show
from orchestrator.cli.asking import confirmed
from orchestrator.cli.check_config import config_option

if TYPE_CHECKING:
    from orchestrator.adapters.store.backup import State

_NEEDED = ("deployment", "store", "audit.checkpoint_file")


@click.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@config_option("The YAML file of the daemon.")
@show.output_option
def backup_command(file: Path, path: Path, output: str) -> None:
    """Write the state of the daemon to a new file, while it runs or not.

    It holds the database and the checkpoints of the audit log, and is checked before it is there. Configuration and
    keys are not in it.
    """
    from orchestrator.adapters.store.backup import back_up

    made = back_up(_state(path), file, time.time())
    sizes = {name: part.size_bytes for name, part in made.files.items()}
    said = {"file": str(file), "schema": made.schema, "audit_n": made.audit_n, "made_at": made.made_at, "bytes": sizes}
    show.emit(said, output, _draw_backup)


@click.command("restore")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@config_option("The YAML file of the daemon.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@show.output_option
@click.pass_context
def restore_command(context: click.Context, file: Path, path: Path, yes: bool, output: str) -> None:
    """Put a backup in the place of the database; the daemon must not run.

    What it replaces is kept beside it. The daemon then starts once with `ota serve --after-restore`, so that no
    sequence number is given out a second time.
    """
    from orchestrator.adapters.store.backup import read_manifest, restore

    state = _state(path)
    made_at = show.when(read_manifest(file).made_at)
    confirmed(context, f"restore: what was done since {made_at} has to be done again", yes=yes)
    done = restore(file, state, time.time())
    said = {
        "database": str(state.database),
        "made_at": done.manifest.made_at,
        "audit_n": done.manifest.audit_n,
        "replaced": None if done.replaced is None else str(done.replaced),
        "checkpoints": done.checkpoints,
        "next": "ota serve --after-restore",
    }
    show.emit(said, output, _draw_restore)


def _state(path: Path) -> State:
    from orchestrator import config
    from orchestrator.adapters.store.backup import State
    from orchestrator.errors import ConfigError

    settings, faults = config.look(path, os.environ)
    if stopping := [fault for fault in faults if fault.startswith(_NEEDED)]:
        raise ConfigError(stopping)
    return State(settings.deployment, settings.store.path, settings.checkpoint_path)


def _draw_backup(data: show.View) -> None:
    size = sum(data["bytes"].values()) / 2**20
    click.echo(f"{data['file']}: {size:.1f} MiB, schema {data['schema']}, up to audit entry {data['audit_n']}")


def _draw_restore(data: show.View) -> None:
    click.echo(f"{data['database']} is as it was at {show.when(data['made_at'])}, audit entry {data['audit_n']}")
    if data["replaced"]:
        click.echo(f"what was there before is kept as {data['replaced']}; remove it when all is well")
    click.echo("start the daemon once with `ota serve --after-restore`")
