"""The command `ota`. The only place that turns errors into exit codes.

Rules:
- What the exit codes mean stands in `exits`, which help, manual and documentation show.
- Heavy imports stay inside the commands, so that every command starts fast.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from orchestrator import __version__
from orchestrator.cli import examples
from orchestrator.cli.audit import audit_group
from orchestrator.cli.backup import backup_command, restore_command
from orchestrator.cli.broker import broker_group
from orchestrator.cli.check_config import check_config_command, config_option
from orchestrator.cli.client import DEFAULT_SERVER, DEFAULT_TOKEN_FILES
from orchestrator.cli.completion import completion_command
from orchestrator.cli.doctor import doctor_group
from orchestrator.cli.endpoints import endpoints_group
from orchestrator.cli.exits import EXIT_ERROR, EXIT_INTERRUPTED, MEANINGS
from orchestrator.cli.fleet import fleet_group
from orchestrator.cli.inventory import artifact_group, device_group, release_group
from orchestrator.cli.keys import keys_group
from orchestrator.cli.openapi import openapi_command
from orchestrator.cli.operators import (
    approvals_command,
    approve_command,
    operator_group,
    reject_command,
    review_command,
)
from orchestrator.cli.rollout import rollout_group
from orchestrator.cli.show import plain_lines
from orchestrator.cli.simulate import simulate_command
from orchestrator.cli.status import status_command
from orchestrator.cli.warrants import warrant_group
from orchestrator.cli.webhooks import webhook_group
from orchestrator.errors import ConfigError, OrchestratorError

_EXITS = "\b\nExit codes:\n" + "\n".join(f"  {code:<4} {meaning}" for code, meaning in MEANINGS.items())


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, epilog=_EXITS)
@click.option("--server", envvar="OTA_SERVER", default=DEFAULT_SERVER, show_default=True, help="Origin of the daemon.")
@click.option(
    "--token-file",
    envvar="OTA_TOKEN_FILE",
    type=click.Path(path_type=Path),
    help=f"File with the operator token.  [default: the first of {' and '.join(DEFAULT_TOKEN_FILES)}]",
)
@click.option(
    "--socket",
    envvar="OTA_SOCKET",
    type=click.Path(path_type=Path),
    help="Admin socket of the daemon on this machine; it needs no token, but root's rights or the daemon's.",
)
@click.option("--no-input", is_flag=True, help="Ask nobody; what needs a yes then needs --yes.")
@click.version_option(__version__, prog_name="ota")
@click.pass_context
def cli(context: click.Context, server: str, token_file: Path | None, socket: Path | None, no_input: bool) -> None:
    """Bring signed releases to device fleets, and halt the bad ones by evidence."""
    del server, token_file, socket, no_input  # read from the context by `client.connect` and `asking`
    if os.environ.get("NO_COLOR"):
        context.color = False


@cli.command("serve")
@config_option("The YAML file.")
@click.option("--after-restore", is_flag=True, help="The database was restored from a backup; go on from there.")
@click.option(
    "--accept-keyset",
    type=click.IntRange(1),
    metavar="NUMBER",
    help="All devices were provisioned anew with this keyset, the one of trust.public_keys_file.",
)
def serve_command(path: Path, after_restore: bool, accept_keyset: int | None) -> None:
    """Run the daemon until SIGTERM or SIGINT."""
    from orchestrator import config, daemon

    settings = config.load(path, os.environ)
    daemon.serve(settings, after_restore=after_restore, accept_keyset=accept_keyset)


for command in (
    check_config_command,
    status_command,
    keys_group,
    artifact_group,
    release_group,
    rollout_group,
    device_group,
    fleet_group,
    endpoints_group,
    audit_group,
    operator_group,
    approvals_command,
    approve_command,
    reject_command,
    review_command,
    warrant_group,
    webhook_group,
    simulate_command,
    doctor_group,
    backup_command,
    restore_command,
    completion_command,
    broker_group,
    openapi_command,
):
    cli.add_command(command)
examples.attach(cli)


def main() -> None:
    """Run `ota`; never returns."""
    try:
        sys.exit(cli(standalone_mode=False, prog_name="ota"))
    except ConfigError as error:
        for fault in error.faults:
            click.echo(f"error: {plain_lines(fault)}", err=True)
        sys.exit(EXIT_ERROR)
    except OrchestratorError as error:
        click.echo(f"error: {plain_lines(error.message)}", err=True)
        sys.exit(EXIT_ERROR)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort as error:
        click.echo("aborted", err=True)
        sys.exit(EXIT_INTERRUPTED if isinstance(error.__context__, KeyboardInterrupt) else EXIT_ERROR)
    except OSError as error:  # such as a full disk under the file that standard output is
        click.echo(f"error: {error}; nothing more was done", err=True)
        sys.exit(EXIT_ERROR)
