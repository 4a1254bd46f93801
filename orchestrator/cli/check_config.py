"""`ota check-config`: say every fault of a configuration at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from orchestrator.cli import show

_DEFAULT_CONFIG = "/etc/ota-orchestrator/config.yaml"


def config_option(text: str) -> Callable[[Any], Any]:
    """Return the option that names the configuration, which a command takes as `path`."""
    return click.option(
        "--config",
        "path",
        envvar="OTA_CONFIG",
        default=_DEFAULT_CONFIG,
        show_default=True,
        type=click.Path(path_type=Path),
        help=text,
    )


@click.command("check-config")
@config_option("The YAML file to check.")
@click.option("--print-effective", is_flag=True, help="Print what file, environment and defaults make together.")
@show.output_option
@click.pass_context
def check_config_command(context: click.Context, path: Path, print_effective: bool, output: str) -> None:
    """Check the configuration; list all faults and end with 1 if there are any."""
    from orchestrator import config, strict_yaml
    from orchestrator.errors import ConfigError

    try:
        settings = config.load(path, os.environ)
    except ConfigError as error:
        show.emit({"config": str(path), "faults": error.faults}, output, _draw_faults)
        context.exit(1)
    effective = config.effective(settings)
    if output != "table":
        parsed = {"effective": strict_yaml.parse(effective.encode())} if print_effective else {}
        show.emit({"config": str(path), "faults": []} | parsed, output, _draw_faults)
    else:
        click.echo(effective if print_effective else f"{path}: no faults", nl=not print_effective)


def _draw_faults(data: show.View) -> None:
    for fault in data["faults"]:
        click.echo(fault, err=True)
