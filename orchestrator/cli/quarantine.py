"""`ota device quarantine` and `ota device release`: devices that no rollout takes in."""

from __future__ import annotations

import click

from orchestrator.cli import completion
from orchestrator.cli.client import connect
from orchestrator.core.reason import counted

_CHUNK = 1000
_ids = click.argument("ids", nargs=-1, required=True, shell_complete=completion.devices)
_why = click.option("--reason", required=True, help="Why; kept in the record.")


@click.command("quarantine")
@_ids
@_why
@click.pass_context
def quarantine_command(context: click.Context, ids: tuple[str, ...], reason: str) -> None:
    """Leave devices out of all rollouts until they are released; what they have begun goes on."""
    changed, count = _send(context, "/devices/quarantine", ids, reason)
    click.echo(f"{counted(changed, 'device')} quarantined{_rest(count - changed, 'were quarantined already')}")


@click.command("release")
@_ids
@_why
@click.pass_context
def release_command(context: click.Context, ids: tuple[str, ...], reason: str) -> None:
    """Let quarantined devices back: stages that open from now on may take them."""
    changed, count = _send(context, "/devices/release", ids, reason)
    click.echo(f"{counted(changed, 'device')} released{_rest(count - changed, 'were not quarantined')}")


def _send(context: click.Context, path: str, ids: tuple[str, ...], reason: str) -> tuple[int, int]:
    client = connect(context)
    names = list(dict.fromkeys(ids))
    chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
    return sum(client.post(path, {"devices": chunk, "reason": reason})["changed"] for chunk in chunks), len(names)


def _rest(count: int, text: str) -> str:
    return f"; {count} {text}" if count else ""
