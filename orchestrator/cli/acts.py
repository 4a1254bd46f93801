"""`ota rollout edit`, `history` and `rollback`: other plans for rollouts that are on their way, and the way back.

Rules:
- What an edit makes different is printed before it is done, and what of it loosens a limit is marked.
- What is done is what was printed: if somebody edited the plan in between, nothing happens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from orchestrator.cli import completion, plans, show
from orchestrator.cli.client import connect, place
from orchestrator.cli.exits import EXIT_ERROR
from orchestrator.cli.operators import approval_options

View = dict[str, Any]


@click.command("edit")
@click.argument("name", shell_complete=completion.rollouts)
@click.option("-f", "--file", "path", required=True, type=plans.plan_file, help="The whole plan as it shall be.")
@click.option("--reason", default="", help="Why; kept with the version, and needed unless it is a dry run.")
@click.option("--expect", type=click.IntRange(min=1), metavar="VERSION", help="Only if the plan is this version still.")
@click.option("--dry-run", is_flag=True, help="Change nothing; print what would be different.")
@approval_options
@click.pass_context
def edit_command(
    context: click.Context,
    name: str,
    path: Path,
    reason: str,
    expect: int | None,
    dry_run: bool,
    wait: bool,
    break_glass: str,
) -> None:
    """Give a rollout another plan: pace, limits and stages that have not begun; what loosens must be approved."""
    from orchestrator.plans import PlanError

    try:
        plan = plans.read(path)
    except PlanError as error:
        for fault in error.faults:
            click.echo(f"error: {show.plain_lines(fault)}", err=True)
        raise SystemExit(EXIT_ERROR) from None
    client, where = connect(context), place("rollouts", name, "edit")
    found = client.post(where, {"plan": plan, "expect": expect, "dry_run": True})
    _draw_changes(found["changes"])
    if dry_run or not found["changes"]:
        return
    seen = found["version"] - 1
    body = {"plan": plan, "reason": reason, "expect": seen, "break_glass": break_glass}
    done = client.post(where, body, wait=wait)
    click.echo(f"{name} has plan version {done['version']}")


@click.command("rollback")
@click.argument("name", shell_complete=completion.rollouts)
@click.option(
    "--to",
    shell_complete=completion.releases,
    help="The earlier release; without it the newest that its statements allow.",
)
@click.option("--name", "new", help="What the rollback shall be called; without it NAME-rollback.")
@click.option("--reason", required=True, help="Why; kept in the record.")
@show.output_option
@click.pass_context
def rollback_command(
    context: click.Context, name: str, to: str | None, new: str | None, reason: str, output: str
) -> None:
    """Make the draft of a rollout that takes the devices of NAME back; start it like any other."""
    body = {"to": to, "name": new, "reason": reason}
    show.emit(connect(context).post(place("rollouts", name, "rollback"), body), output, show.draw_rollout)


@click.command("history")
@click.argument("name", shell_complete=completion.rollouts)
@show.output_option
@click.pass_context
def history_command(context: click.Context, name: str, output: str) -> None:
    """List the versions of a plan: who edited it when, what became different, and why."""
    show.emit(connect(context).get(place("rollouts", name, "history")), output, _draw_history)


def _draw_history(data: list[View]) -> None:
    for item in data:
        why = f": {show.plain(item['reason'])}" if item["reason"] else ""
        click.echo(f"version {item['version']}  {show.when(item['at'])}  {show.plain(item['actor'])}{why}")
        _draw_changes(item["changes"], first=item["version"] == 1)


def _draw_changes(changes: list[View], *, first: bool = False) -> None:
    for item in changes:
        before, after = (show.plain(item[name] or "-") for name in ("before", "after"))
        mark = click.style("  loosens", fg="yellow") if item["loosens"] else ""
        click.echo(f"  {show.plain(item['path'])}: {before} -> {after}{mark}")
    if not changes and not first:
        click.echo("  nothing is different")
