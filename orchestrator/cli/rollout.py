"""`ota rollout ...`: make, move, watch and explain rollouts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from orchestrator.cli import completion, plans, show, watching
from orchestrator.cli.acts import edit_command, history_command, rollback_command
from orchestrator.cli.asking import confirmed
from orchestrator.cli.client import connect, fail, place
from orchestrator.cli.durations import Duration
from orchestrator.cli.exits import EXIT_ERROR, EXIT_HALTED, EXIT_TIMEOUT
from orchestrator.cli.fleet import curve_command
from orchestrator.cli.operators import approval_options
from orchestrator.cli.preview import gather, preview_command
from orchestrator.cli.rehearse import rehearse_command

_OVER = {"done": 0, "halted": EXIT_HALTED, "aborted": EXIT_HALTED, "inconclusive": EXIT_HALTED}
_rollout_argument = click.argument("name", shell_complete=completion.rollouts)


@click.group("rollout")
def rollout_group() -> None:
    """Bring a release to devices, in stages, by evidence."""


@rollout_group.command("create")
@click.option("-f", "--file", "path", required=True, type=plans.plan_file)
@click.option("--dry-run", is_flag=True, help="Make nothing; say which devices each stage would take.")
@show.output_option
@click.pass_context
def create(context: click.Context, path: Path, dry_run: bool, output: str) -> None:
    """Make a rollout in draft from a plan in YAML."""
    from orchestrator.plans import PlanError

    try:
        plan = plans.read(path)
    except PlanError as error:
        for fault in error.faults:
            click.echo(f"error: {show.plain_lines(fault)}", err=True)
        raise SystemExit(EXIT_ERROR) from None
    if dry_run:
        lines = connect(context).lines("POST", "/rollouts/preview", plan)
        show.emit(gather(lines), output, show.draw_preview)
        return
    made = connect(context).post("/rollouts", plan)
    for warning in made.get("warnings", ()):
        click.echo(f"warning: {show.plain(warning)}", err=True)
    show.emit(made, output, show.draw_rollout)


@rollout_group.command("list")
@watching.watch_options
@show.output_option
@click.pass_context
def list_(context: click.Context, watch: bool, interval_s: float, output: str) -> None:
    """List rollouts, newest first."""
    client = connect(context)
    if watch:
        picture = watching.Picture(lambda data: watching.lines_of(show.draw_rollouts, data))
        context.exit(watching.follow(lambda: client.get("/rollouts"), picture, output, interval_s))
    show.emit(client.get("/rollouts"), output, show.draw_rollouts)


@rollout_group.command("get")
@_rollout_argument
@watching.watch_options
@show.output_option
@click.pass_context
def get(context: click.Context, name: str, watch: bool, interval_s: float, output: str) -> None:
    """Show a rollout with its stages and evidence; with --watch until it ends, as `ota rollout watch`."""
    client, path = connect(context), place("rollouts", name)
    if watch:
        picture = watching.rollout_picture()
        context.exit(watching.follow(lambda: client.get(path), picture, output, interval_s, _ended))
    show.emit(client.get(path), output, show.draw_rollout)


@rollout_group.command("explain")
@_rollout_argument
@show.output_option
@click.pass_context
def explain(context: click.Context, name: str, output: str) -> None:
    """Say why a rollout stands where it stands, and what would change that."""
    show.emit(connect(context).get(place("rollouts", name, "explain")), output, show.draw_rollout_reason)


@rollout_group.command("watch")
@_rollout_argument
@click.option("--timeout", "timeout_s", type=Duration(), help="Give up after so long, such as 10m, with exit code 4.")
@click.option("--interval", "interval_s", type=Duration(), default="1s", show_default=True, help="Pause between looks.")
@show.output_option
@click.pass_context
def watch(context: click.Context, name: str, timeout_s: float | None, interval_s: float, output: str) -> None:
    """Follow a rollout until it ends: exit code 0 when done, 3 when halted, aborted or inconclusive."""
    client, path = connect(context), place("rollouts", name)
    ends_at = None if timeout_s is None else time.monotonic() + timeout_s

    def ended(data: dict[str, Any]) -> int | None:
        code = _ended(data)
        if code is None and ends_at is not None and time.monotonic() >= ends_at:
            fail(f"{name} is still {data['phase']}", EXIT_TIMEOUT)
        return code

    picture = watching.rollout_picture(whole=True)
    context.exit(watching.follow(lambda: client.get(path), picture, output, interval_s, ended))


def _ended(data: dict[str, Any]) -> int | None:
    return _OVER.get(data["phase"])


def _add(command: str, text: str, *, confirm: bool = False, approved: bool = False) -> None:
    @_rollout_argument
    @click.option("--reason", default="", help="Why; kept in the record.")
    @click.option("-y", "--yes", is_flag=True, help="Do not ask.")
    @click.pass_context
    def run(
        context: click.Context, name: str, reason: str, yes: bool, wait: bool = False, break_glass: str = ""
    ) -> None:
        if confirm:
            confirmed(context, f"{command} {name} cannot be undone", yes=yes)
        body = {"reason": reason, "break_glass": break_glass}
        done = connect(context).post(place("rollouts", name, command), body, wait=wait)
        show.draw_rollout(done)
        if not done["changed"]:
            click.echo(f"  nothing changed: {show.plain(done['answer'])}")

    rollout_group.command(command, help=text)(approval_options(run) if approved else run)


_add("start", "Begin: fix the cohort and open the first stage.", approved=True)
_add("pause", "Offer nothing more; what has begun goes on.")
_add("resume", "Go on after a pause; after a halt or an inconclusive stage a --reason is needed.", approved=True)
_add("halt", "Stop now: withdraw queued triggers and recall offered ones.")
_add("retry", "Give failed devices another attempt; their failures stay evidence.")
_add("advance", "Pass the stage now, without the rest of its evidence; needs a --reason.", approved=True)
_add("skip", "Pass the stage now, and leave its other devices to the next one; needs a --reason.", approved=True)
_add("abort", "End for good, with recall.", confirm=True)

rollout_group.add_command(preview_command)
rollout_group.add_command(curve_command)
rollout_group.add_command(edit_command)
rollout_group.add_command(history_command)
rollout_group.add_command(rollback_command)
for plan_command in (plans.validate_command, plans.schema_command, plans.template_command, rehearse_command):
    rollout_group.add_command(plan_command)
