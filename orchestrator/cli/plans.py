"""`ota rollout validate`, `schema` and `template`: plans before any daemon sees them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from orchestrator.cli import show
from orchestrator.cli.client import fail
from orchestrator.cli.exits import EXIT_ERROR
from orchestrator.errors import ConfigError, OrchestratorError

plan_file = click.Path(exists=True, dir_okay=False, path_type=Path)


def read(path: Path) -> dict[str, Any]:
    """Return what a plan says.

    Raises:
        PlanError: with every fault, its line and its column.
    """
    from orchestrator import plans, strict_yaml

    try:
        with path.open("rb") as file:
            return plans.read_document(file.read(strict_yaml.MAX_BYTES + 1), str(path))
    except OSError as error:
        fail(f"{path}: cannot be read ({error.strerror})")


@click.command("validate")
@click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=plan_file)
@show.output_option
@click.pass_context
def validate_command(context: click.Context, paths: tuple[Path, ...], output: str) -> None:
    """Check plans without a daemon; list all faults with their lines and end with 1 if there are any."""
    from orchestrator.plans import PlanError

    found: list[dict[str, Any]] = []
    for path in paths:
        try:
            read(path)
        except PlanError as error:
            faults, lines = [dataclasses.asdict(fault) for fault in error.places], error.faults
        else:
            faults, lines = [], []
        found.append({"file": str(path), "faults": faults})
        for line in lines if output == "table" else ():
            click.echo(show.plain_lines(line), err=True)
        if output == "table" and not lines:
            click.echo(f"{path}: no faults")
    if output != "table":
        show.emit(found, output, lambda _: None)
    context.exit(EXIT_ERROR if any(item["faults"] for item in found) else 0)


@click.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of a plan, for editors."""
    from orchestrator import plans

    click.echo(plans.schema_text(), nl=False)


@click.command("template")
@click.argument("template", metavar="TEMPLATE", required=False)
@click.option("--name", "rollout", help="What the rollout shall be called.")
@click.option("--release", help="The release that it shall bring.")
@click.option("--list", "listing", is_flag=True, help="List the templates, and what each is for.")
def template_command(template: str | None, rollout: str | None, release: str | None, listing: bool) -> None:
    """Print a plan to copy: `ota rollout template standard > plan.yaml`."""
    from orchestrator import plans

    if listing:
        show.table(("template", "for what"), [(name, plans.purpose(name)) for name in plans.TEMPLATES])
        return
    if template is None:
        raise click.UsageError(f"name a template: {', '.join(plans.TEMPLATES)}; --list says what each is for")
    try:
        click.echo(plans.template(template, rollout=rollout, release=release), nl=False)
    except ConfigError as error:
        fail("; ".join(error.faults))
    except OrchestratorError as error:
        fail(error.message)
