"""`ota rollout preview`, and what `ota rollout create --dry-run` shows: which devices each stage would take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from orchestrator.cli import completion, show
from orchestrator.cli.client import connect, place


@click.command("preview")
@click.argument("name", shell_complete=completion.rollouts)
@show.output_option
@click.pass_context
def preview_command(context: click.Context, name: str, output: str) -> None:
    """Say which devices each stage of a draft takes, and who is left out and why."""
    lines = connect(context).lines("GET", place("rollouts", name, "preview"))
    show.emit(gather(lines), output, show.draw_preview)


def gather(lines: Iterator[Any]) -> show.View:
    """Return a preview as one object: the counts, each with its devices."""
    found: show.View = next(lines, {})  # an answer without its first line is not understood
    parts: dict[object, list[str]] = {}
    for item in (*found["stages"], *found["left_out"]):
        item["ids"] = parts[item.get("code", item.get("index"))] = []
    for line in lines:
        parts.setdefault(line.get("left_out", line.get("stage")), []).append(line["device"])
    return found
