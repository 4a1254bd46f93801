"""`--watch`: looks again and again, and shows what changed.

Rules:
- On a terminal the picture is drawn again in its place; anywhere else each line that is new is printed once.
- As JSON each answer that differs from the one before is one line, as YAML one document.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stdout
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from orchestrator.cli import show
from orchestrator.cli.durations import Duration

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

Command = TypeVar("Command", bound=Callable[..., Any])


def watch_options(command: Command) -> Command:
    """Give a command `--watch` and `--interval`."""
    interval = click.option("--interval", "interval_s", type=Duration(), default="1s", help="Pause between two looks.")
    return click.option("-w", "--watch", is_flag=True, help="Go on looking, and show what changes.")(interval(command))


class Picture(NamedTuple):
    """How an answer is shown while it is watched.

    Attributes:
        lines: lines for a pipe; each new one is printed.
        live: picture for a terminal; None to draw the lines.
    """

    lines: Callable[[Any], Sequence[str]]
    live: Callable[[Any], RenderableType] | None = None


def follow(
    fetch: Callable[[], Any],
    picture: Picture,
    output: str,
    interval_s: float,
    ended: Callable[[Any], int | None] = lambda _: None,
) -> int:
    """Show answers until one says that it is over, and return the exit code that it means.

    Args:
        fetch: asks once.
        picture: how an answer is shown.
        output: `table`, `json` or `yaml`.
        interval_s: pause between two looks.
        ended: exit code of an answer that ends it, None to go on.
    """
    with ExitStack() as stack:
        screen = stack.enter_context(_screen()) if output == "table" and on_terminal() else None
        last: Any = None
        said: Sequence[str] = ()
        while True:
            data = fetch()
            if data != last and screen is not None:
                screen.update(_drawn(picture, data), refresh=True)
            elif data != last:
                said = _told(picture, data, output, said)
            last = data
            if (code := ended(data)) is not None:
                return code
            time.sleep(interval_s)


def on_terminal() -> bool:
    """Return whether somebody sees a terminal on which something can be drawn again."""
    return sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb")


def lines_of(draw: Callable[[Any], None], data: Any) -> list[str]:
    """Return what a function prints, as lines."""
    with redirect_stdout(io.StringIO()) as printed:
        draw(data)
    return printed.getvalue().splitlines()


def rollout_picture(*, whole: bool = False) -> Picture:
    """Return how a rollout is watched: a bar for each stage, its evidence, and what it waits for.

    Args:
        whole: whether a pipe gets all lines that changed, else one line for each change.
    """
    return Picture(show.rollout_lines if whole else lambda data: [show.rollout_summary(data)], _rollout)


def _told(picture: Picture, data: Any, output: str, said: Sequence[str]) -> Sequence[str]:
    if output == "json":
        click.echo(json.dumps(data))
        return ()
    if output == "yaml":
        click.echo("---")
        show.emit(data, output, lambda _: None)
        return ()
    lines = picture.lines(data)
    for line in lines:
        if line not in said:
            click.echo(line)
    return lines


def _screen() -> Live:
    from rich.console import Console
    from rich.live import Live

    return Live(console=Console(highlight=False), auto_refresh=False, vertical_overflow="visible")


def _drawn(picture: Picture, data: Any) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    if picture.live is not None:
        return picture.live(data)
    return Group(*(Text(line, no_wrap=True, overflow="ellipsis") for line in picture.lines(data)))


def _rollout(data: show.View) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    lines = [Text.from_ansi(line) for line in show.rollout_lines(data)]
    stages = Table.grid(padding=(0, 1))
    for stage in data["stages"]:
        total = max(stage["target"] or 0, stage["opened"], 1)
        bar = ProgressBar(total=total, completed=min(stage["confirmed"], total), width=show.BAR)
        failed = Text(f"{stage['failures']} failed", style="red" if stage["failures"] else "dim")
        counts = f"{stage['confirmed']}/{'?' if stage['target'] is None else stage['target']} healthy"
        under_way = f"{stage['in_flight']} in flight"
        phase = Text(f"[{stage['phase']}]")
        stages.add_row(f"  stage {stage['index'] + 1}", bar, counts, failed, under_way, phase)
    others = [line for line in lines[1:] if not line.plain.startswith("  stage ")]
    return Group(lines[0], stages, *others)
