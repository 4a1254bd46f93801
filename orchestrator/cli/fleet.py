"""`ota fleet` and `ota rollout curve`: who still runs a vulnerable version, and how fast that changes."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import click

from orchestrator.cli import completion, show
from orchestrator.cli.client import connect, fail, place
from orchestrator.cli.endpoints import count_command
from orchestrator.core.reason import counted
from orchestrator.units import format_duration

_COLUMNS = ("id", "status", "model", "version", "rel", "site", "groups", "online", "seen_at")
_BLOCKS = " ▁▂▃▄▅▆▇█"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet would take a cell that begins so for a formula, and devices choose the version that they say."""


@click.group("fleet")
def fleet_group() -> None:
    """Look at all devices at once."""


@fleet_group.command("exposed")
@click.argument("rollout", default="", shell_complete=completion.rollouts)
@click.option("--advisory", default="", help="What all rollouts with this advisory mend, such as CVE-2026-1234.")
@click.option("--below-rel", "below", type=int, help="Devices that run a lower release counter.")
@click.option("--export", type=click.Choice(["csv", "json"]), help="List every device, one a line.")
@show.output_option
@click.pass_context
def exposed(
    context: click.Context, rollout: str, advisory: str, below: int | None, export: str | None, output: str
) -> None:
    """Say who still runs a vulnerable version: of what ROLLOUT mends, of an advisory, or below a release counter."""
    if [bool(rollout), bool(advisory), below is not None].count(True) != 1:
        fail("name one of a rollout, --advisory and --below-rel, and no two of them")
    given: dict[str, object] = {"rollout": rollout, "advisory": advisory, "below": below}
    query = {name: value for name, value in given.items() if value not in ("", None)}
    if export is None:
        show.emit(connect(context).get("/exposed", **query), output, _draw_exposed)
        return
    lines = connect(context).lines("GET", f"/exposed/devices?{urlencode(query)}")
    if export == "json":
        for line in lines:
            click.echo(json.dumps(line))
    else:
        _write_csv(lines)


fleet_group.add_command(count_command)


@click.command("curve")
@click.argument("name", shell_complete=completion.rollouts)
@click.option("-o", "--output", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@click.pass_context
def curve_command(context: click.Context, name: str, output: str) -> None:
    """Show how many devices were offered the release and are protected, over time."""
    data = connect(context).get(place("rollouts", name, "curve"))
    if output == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(("after_s", "offered", "confirmed"))
        writer.writerows((item["after_s"], item["offered"], item["confirmed"]) for item in data["points"])
    else:
        show.emit(data, output, _draw_curve)


def _write_csv(lines: Iterator[Any]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for line in lines:
        writer.writerow([_cell(line[name]) for name in _COLUMNS])


def _cell(value: object) -> str:
    if isinstance(value, list):
        return _cell(";".join(str(item) for item in value))
    text = "" if value is None else show.plain(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _draw_exposed(data: show.View) -> None:
    run = "runs" if data["vulnerable"] == 1 else "run"
    click.echo(f"{data['vulnerable']} of {counted(data['fleet'], 'device')} {run} a vulnerable version")
    if data["unknown"]:
        click.echo(f"of {counted(data['unknown'], 'device')} more nobody knows what runs there")
    for model, below in data["below"].items():
        click.echo(f"  vulnerable on {show.plain(model)}: below release counter {below}")
    for title in ("models", "sites", "groups"):
        found = data[title]
        if found["named"]:
            rows = [(item["name"] or "(none)", item["vulnerable"], item["unknown"]) for item in found["named"]]
            show.table((title, "vulnerable", "not known"), rows)
        if found["others"]:
            click.echo(f"  and {found['others']} more {title}; --export names every device")
    show.table(("last seen", "vulnerable"), [(item["name"], item["devices"]) for item in data["seen"]])


def _draw_curve(data: show.View) -> None:
    size = data["cohort_size"]
    click.echo(f"{data['name']}  {data['phase']}  {'?' if size is None else size} devices")
    if data["since"] is None:
        click.echo("  it was not started")
        return
    what = "the approval" if data["approved_at"] is not None else "the start"
    click.echo(f"  time from {what} at {show.when(data['since'])}; a column is {format_duration(data['width_s'])}")
    for name in ("offered", "confirmed"):
        found = data[name]
        shares = ", ".join(f"{share} % after {_after(found[f't{share}_s'])}" for share in (50, 90, 95))
        click.echo(f"  {name:<10} {_bars([item[name] for item in data['points']], size or 0)}  {found['devices']}")
        click.echo(f"  {'':<10} {shares}")


def _bars(counts: list[int], whole: int) -> str:
    """Return one block for each count, the full one for the whole; what is above nothing is never drawn as nothing."""
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[min(-(-top * count // whole), top) if whole else 0] for count in counts)


def _after(seconds: float | None) -> str:
    return "-" if seconds is None else format_duration(round(seconds))
