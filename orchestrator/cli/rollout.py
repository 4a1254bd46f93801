"""`ota rollout ...`: make, move, watch and explain rollouts."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from orchestrator.cli import plans, show
from orchestrator.cli.acts import edit_command, history_command, rollback_command
from orchestrator.cli.client import EXIT_ERROR, EXIT_HALTED, EXIT_TIMEOUT, connect, fail, place
from orchestrator.cli.durations import Duration
from orchestrator.cli.fleet import curve_command
from orchestrator.cli.operators import approval_options
from orchestrator.cli.preview import gather, preview_command
from orchestrator.cli.rehearse import rehearse_command

_OVER = {"done": 0, "halted": EXIT_HALTED, "aborted": EXIT_HALTED, "inconclusive": EXIT_HALTED}


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
@show.output_option
@click.pass_context
def list_(context: click.Context, output: str) -> None:
    """List rollouts, newest first."""
    show.emit(connect(context).get("/rollouts"), output, show.draw_rollouts)


@rollout_group.command("get")
@click.argument("name")
@show.output_option
@click.pass_context
def get(context: click.Context, name: str, output: str) -> None:
    """Show a rollout with its stages and evidence."""
    show.emit(connect(context).get(place("rollouts", name)), output, show.draw_rollout)


@rollout_group.command("explain")
@click.argument("name")
@show.output_option
@click.pass_context
def explain(context: click.Context, name: str, output: str) -> None:
    """Say why a rollout stands where it stands, and what would change that."""
    show.emit(connect(context).get(place("rollouts", name, "explain")), output, show.draw_rollout_reason)


@rollout_group.command("watch")
@click.argument("name")
@click.option("--timeout", "timeout_s", type=Duration(), help="Give up after so long, such as 10m, with exit code 4.")
@click.option("--interval", "interval_s", type=Duration(), default="1s", show_default=True, help="Pause between looks.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_context
def watch(context: click.Context, name: str, timeout_s: float | None, interval_s: float, output: str) -> None:
    """Follow a rollout until it ends: exit code 0 when done, 3 when halted, aborted or inconclusive."""
    client = connect(context)
    ends_at = None if timeout_s is None else time.monotonic() + timeout_s
    follow = _Follower(live=output == "table" and sys.stdout.isatty(), as_json=output == "json")
    while True:
        data = client.get(place("rollouts", name))
        follow.show(data)
        if data["phase"] in _OVER:
            raise SystemExit(_OVER[data["phase"]])
        if ends_at is not None and time.monotonic() >= ends_at:
            fail(f"{name} is still {data['phase']}", EXIT_TIMEOUT)
        time.sleep(interval_s)


class _Follower:
    """Draws a rollout again in place, or prints it when it changed."""

    def __init__(self, *, live: bool, as_json: bool) -> None:
        self._live = live
        self._as_json = as_json
        self._drawn = 0
        self._last: Any = None

    def show(self, data: dict[str, Any]) -> None:
        if data == self._last:
            return
        self._last = data
        if self._as_json:
            import json

            click.echo(json.dumps(data))
            return
        lines = show.rollout_lines(data)
        if self._live and self._drawn:
            click.echo(f"\x1b[{self._drawn}A\x1b[J", nl=False)
        self._drawn = len(lines)
        for line in lines:
            click.echo(line)


def _add(command: str, text: str, *, confirm: bool = False, approved: bool = False) -> None:
    @click.argument("name")
    @click.option("--reason", default="", help="Why; kept in the record.")
    @click.option("-y", "--yes", is_flag=True, help="Do not ask.")
    @click.pass_context
    def run(
        context: click.Context, name: str, reason: str, yes: bool, wait: bool = False, break_glass: str = ""
    ) -> None:
        if confirm and not yes:
            if not sys.stdin.isatty():
                fail(f"{command} cannot be undone; confirm it with --yes")
            click.confirm(f"{command} {name}: this cannot be undone. Go on?", abort=True)
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
