"""`ota check-config`: say every fault of a configuration at once."""

from __future__ import annotations

import os
from pathlib import Path

import click

DEFAULT_CONFIG = "/etc/ota-orchestrator/config.yaml"


@click.command("check-config")
@click.option(
    "--config",
    "path",
    envvar="OTA_CONFIG",
    default=DEFAULT_CONFIG,
    show_default=True,
    type=click.Path(path_type=Path),
    help="The YAML file to check.",
)
@click.option("--print-effective", is_flag=True, help="Print what file, environment and defaults make together.")
@click.pass_context
def check_config_command(context: click.Context, path: Path, print_effective: bool) -> None:
    """Check the configuration; list all faults and end with 1 if there are any."""
    from orchestrator import config
    from orchestrator.errors import ConfigError

    try:
        settings = config.load(path, os.environ)
    except ConfigError as error:
        for fault in error.faults:
            click.echo(fault, err=True)
        context.exit(1)
    click.echo(config.effective(settings) if print_effective else f"{path}: no faults", nl=not print_effective)
