"""`ota broker`: files for the broker.

Rules:
- Passwords go in by a file and come out hashed; the new file is readable by its owner alone.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from orchestrator.cli import show
from orchestrator.cli.client import fail


@click.group("broker")
def broker_group() -> None:
    """Make files for the broker."""


@broker_group.command("dynsec")
@click.option(
    "--credentials",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="All logins with their mqtt_password, as JSON lines (docs/broker.md).",
)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File to write.")
@show.output_option
def dynsec_command(credentials: Path, out: Path, output: str) -> None:
    """Make the logins and rights for mosquitto's dynamic security plugin.

    A login without a password comes in by its certificate. The broker reads the file when it starts.
    """
    from orchestrator.doctor import dynsec
    from orchestrator.doctor.party import Login
    from orchestrator.sim import credentials as files

    logins = [Login(item.device, item.mqtt_password) for item in files.load(credentials)]
    text = json.dumps(dynsec.document(logins), indent=1)
    written = out.with_name(f"{out.name}.new")
    try:
        with os.fdopen(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        written.replace(out)
    except OSError as error:
        fail(f"{out} cannot be written: {error.strerror}; name another file with --out")
    without = sum(login.password is None for login in logins)
    text = f"{len(logins)} logins are in {out}, {without} of them without a password: only certificates let those in"
    said = {"file": str(out), "logins": len(logins), "without_password": without}
    show.emit(said, output, lambda _: click.echo(text))
