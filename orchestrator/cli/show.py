"""How answers look: tables and bars for people, JSON for machines.

Rules:
- Data goes to standard output. JSON is exactly what the API said.
- Colours and live drawing only on a terminal.
- What devices and people wrote is hostile: control and invisible characters are drawn as escapes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import click

View = dict[str, Any]
output_option = click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="How to print it."
)
_PHASE_COLOUR = {"running": "cyan", "done": "green", "halted": "red", "aborted": "red", "inconclusive": "yellow"}
_BAR = 40


def emit(data: Any, output: str, draw: Callable[[Any], None]) -> None:
    """Print data as JSON, or draw it."""
    if output == "json":
        click.echo(json.dumps(data, indent=2))
    else:
        draw(data)


def table(columns: Sequence[str], lines: Sequence[Sequence[object]]) -> None:
    """Print a plain table; columns are as wide as they need to be."""
    cells = [[plain(cell) for cell in line] for line in lines]
    widths = [max(len(name), *(len(line[i]) for line in cells), 0) for i, name in enumerate(columns)]
    click.secho(
        "  ".join(name.upper().ljust(width) for name, width in zip(columns, widths, strict=True)).rstrip(), bold=True
    )
    for line in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def plain(text: object) -> str:
    """Return a text that cannot steer a terminal."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in str(text)
    )


def when(at: float | None) -> str:
    """Return a time for people, in UTC."""
    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))


def rollout_lines(data: View) -> list[str]:
    """Return a rollout as lines: head, stages with bars, evidence, what it waits for."""
    phase = click.style(data["phase"], fg=_PHASE_COLOUR.get(data["phase"]), bold=True)
    size = "?" if data["cohort_size"] is None else data["cohort_size"]
    lines = [
        f"{data['name']}  {phase}  release {data['release']}  {size} devices  {data['in_flight']} in flight",
        *(_stage_line(stage) for stage in data["stages"]),
        *(_evidence_line(item) for item in data["evidence"]),
    ]
    if data["bound"] is not None:
        bound = data["bound"]
        lines.append(f"  pass    k={bound['k']} n={bound['n']}  bound {bound['upper']:.1%}, limit {bound['limit']:.1%}")
    lines.append(f"  because {plain(data['standing']['text'])}")
    return lines


def draw_rollout(data: View) -> None:
    """Print a rollout."""
    for line in rollout_lines(data):
        click.echo(line)


def draw_rollouts(data: list[View]) -> None:
    """Print the list of rollouts."""
    table(
        ("name", "release", "phase", "stage", "devices", "healthy", "failed", "in flight"),
        [
            (
                item["name"],
                item["release"],
                item["phase"],
                f"{item['stage'] + 1}/{item['stages']}",
                item["cohort_size"] if item["cohort_size"] is not None else "?",
                item["confirmed"],
                item["failures"],
                item["in_flight"],
            )
            for item in data
        ],
    )


def draw_rollout_reason(data: View) -> None:
    """Print why a rollout stands where it stands."""
    click.echo(f"{data['name']} is {data['phase']} because {plain(data['because'])}")
    for line in data["next"]:
        click.echo(f"  {line}")
    for item in data["evidence"]:
        click.echo(_evidence_line(item))
    click.echo("history:")
    for event in data["events"]:
        place = f"{event['phase']}, stage {event['stage'] + 1}"
        click.echo(f"  {when(event['at'])}  {place:24}  {plain(event['text'])}  ({event['actor']})")


def draw_devices(data: list[View]) -> None:
    """Print the list of devices."""
    table(
        ("id", "model", "version", "rel", "online", "seen"),
        [
            (
                item["id"],
                item["model"],
                item["version"] or "-",
                item["rel"],
                _yes(item["online"]),
                when(item["seen_at"]),
            )
            for item in data
        ],
    )


def draw_device(data: View) -> None:
    """Print a device and its updates."""
    draw_devices([data])
    if data["updates"]:
        table(
            ("rollout", "state", "since", "stage", "attempt", "code"),
            [
                (u["rollout"], u["state"], when(u["state_at"]), u["stage"] + 1, u["attempt"], u["code"] or "-")
                for u in data["updates"]
            ],
        )


def draw_device_reason(data: View) -> None:
    """Print why a device has or has not each release."""
    draw_devices([data["device"]])
    for item in data["rollouts"]:
        click.echo(f"{item['rollout']} ({item['phase']}): {item['state'] or 'not taken'}: {plain(item['because'])}")
        for delivery in item.get("deliveries", []):
            click.echo(
                f"  {when(delivery['planned_at'])}  {delivery['kind']} {delivery['state']} seq {delivery['seq']}"
            )
        for report in item.get("reports", []):
            detail = plain(" ".join(filter(None, (report["code"], report["text"]))))
            click.echo(f"  {when(report['at'])}  said {report['kind']} {detail}".rstrip())


def draw_artifacts(data: list[View]) -> None:
    """Print the list of artifacts."""
    table(
        ("sha256", "name", "version", "rel", "hardware", "bytes", "uri"),
        [
            (a["sha256"], a["name"], a["version"], a["rel"], ",".join(a["hardware"]), a["size_bytes"], a["uri"])
            for a in data
        ],
    )


def draw_releases(data: list[View]) -> None:
    """Print the list of releases."""
    table(
        ("name", "version", "rel", "artifacts", "created"),
        [(r["name"], r["version"], r["rel"], len(r["artifacts"]), when(r["created_at"])) for r in data],
    )


def _stage_line(stage: View) -> str:
    total = max(stage["target"] or 0, stage["opened"], 1)
    good = round(_BAR * stage["confirmed"] / total)
    bad = -(-_BAR * stage["failures"] // total)
    under_way = min(round(_BAR * stage["in_flight"] / total), max(_BAR - good - bad, 0))
    rest = max(_BAR - good - bad - under_way, 0)
    bar = (
        click.style("█" * good, fg="green")
        + click.style("█" * bad, fg="red")
        + click.style("▒" * under_way, fg="cyan")
        + "·" * rest
    )
    target = "?" if stage["target"] is None else stage["target"]
    unreached = f", {stage['unreached']} unreached" if stage["unreached"] else ""
    return (
        f"  stage {stage['index'] + 1} {bar} {stage['confirmed']}/{target} healthy, "
        f"{stage['failures']} failed{unreached}  [{stage['phase']}]"
    )


def _evidence_line(item: View) -> str:
    where = f"k={item['k']} n={item['n']} ({item['stratum']})"
    return f"  halt    {where}  E {item['e']:.3g}, halts at {item['threshold']:.3g}"


def _yes(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"
