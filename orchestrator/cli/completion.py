"""`ota completion`: words for the shell, and the names that the daemon knows.

Rules:
- A name that is asked for at the prompt may keep nobody waiting: what has not come within `PATIENCE_S` does not come.
- Nothing is ever said while a word is completed: no error, no warning.
"""

from __future__ import annotations

import contextlib
import io
import signal
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.client import connect

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

PATIENCE_S = 1.0
MOST = 100
VARIABLE = "_OTA_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete the words of `ota`.

    The names of rollouts, releases and devices are asked from the daemon, which gets a second for it.
    """
    from click.shell_completion import get_completion_class

    known = get_completion_class(shell)
    assert known is not None, "click knows each of SHELLS"
    click.echo(known(context.find_root().command, {}, "ota", VARIABLE).source())


def rollouts(context: click.Context, _parameter: click.Parameter, start: str) -> list[CompletionItem]:
    """Complete the name of a rollout."""
    return _named(context, start, "/rollouts", "name", "phase")


def releases(context: click.Context, _parameter: click.Parameter, start: str) -> list[CompletionItem]:
    """Complete the name of a release."""
    return _named(context, start, "/releases", "name", "version")


def artifacts(context: click.Context, _parameter: click.Parameter, start: str) -> list[CompletionItem]:
    """Complete the hash of an artifact."""
    return _named(context, start, "/artifacts", "sha256", "name")


def devices(context: click.Context, _parameter: click.Parameter, start: str) -> list[CompletionItem]:
    """Complete the identifier of a device; of a large fleet only those that begin so are asked for."""
    if any(letter in '"*?\\' for letter in start):
        return []
    where = {"where": f'id like "{start}*"'} if start else {}
    return _named(context, start, "/devices", "id", "model", limit=MOST, **where)


def _named(
    context: click.Context, start: str, path: str, name: str, helping: str, **query: object
) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    try:
        with (
            contextlib.redirect_stderr(io.StringIO()),
            _within(PATIENCE_S),
            contextlib.closing(connect(context)) as client,
        ):
            found: list[dict[str, Any]] = client.get(path, **query)
    except (Exception, SystemExit):
        return []
    return [CompletionItem(item[name], help=item[helping]) for item in found if str(item[name]).startswith(start)][
        :MOST
    ]


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    """End a block after so long, wherever it waits."""

    def late(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
