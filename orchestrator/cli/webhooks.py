"""`ota webhook`: where events go."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from orchestrator.cli import show
from orchestrator.cli.client import connect, fail, place
from orchestrator.cli.exits import EXIT_TIMEOUT
from orchestrator.cli.secret_file import hand_over

LOOK_S = 0.5

_secret_file = click.option(
    "--secret-out",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="New file for the secret, made with mode 0600; needed for every address but mqtt:.",
)


@click.group("webhook")
def webhook_group() -> None:
    """Send events to other programs, by signed HTTP requests or over MQTT."""


@webhook_group.command("add")
@click.argument("url")
@click.option("--events", "events", multiple=True, default=("*",), help="A type, `rollout.*` or `*`; repeat for more.")
@_secret_file
@show.output_option
@click.pass_context
def add(context: click.Context, url: str, events: tuple[str, ...], path: Path | None, output: str) -> None:
    """Add a destination: https://HOST/PATH, or mqtt: for the broker. It hears of what happens from now on."""
    body = {"url": url, "events": [word for given in events for word in given.split(",") if word]}
    if url == "mqtt:":
        made = connect(context).post("/webhooks", body)
        show.emit(made, output, lambda _: click.echo(f"{made['id']}: events go to the broker"))
        return
    hand_over(
        _file(path),
        "secret",
        "--secret-out",
        lambda: connect(context).post("/webhooks", body),
        output,
        lambda made: f"{made['id']}: events go to {show.plain(made['url'])}; its secret is in {path}",
    )


@webhook_group.command("list")
@show.output_option
@click.pass_context
def list_(context: click.Context, output: str) -> None:
    """List destinations, how they are, and how far behind."""
    show.emit(connect(context).get("/webhooks"), output, _draw)


@webhook_group.command("test")
@click.argument("webhook_id")
@click.option("--timeout", type=float, default=30.0, show_default=True, help="Seconds to wait for it to arrive.")
@show.output_option
@click.pass_context
def test(context: click.Context, webhook_id: str, timeout: float, output: str) -> None:
    """Send the event `webhook.test` behind all that waits, and say whether it has arrived."""
    client = connect(context)
    number = client.post(place("webhooks", webhook_id, "test"), {})["n"]
    deadline = time.monotonic() + timeout
    while (found := client.get(place("webhooks", webhook_id)))["cursor"] < number:
        if time.monotonic() >= deadline:
            why = show.plain(found["error"]) or "no attempt was made yet"
            fail(f"the test did not arrive within {timeout:g} s: {why}", EXIT_TIMEOUT)
        time.sleep(LOOK_S)
    show.emit(found, output, lambda _: click.echo(f"the test arrived at {webhook_id}"))


@webhook_group.command("rotate")
@click.argument("webhook_id")
@click.option("--overlap", type=float, default=24.0, show_default=True, help="Hours that the secret before signs too.")
@_secret_file
@show.output_option
@click.pass_context
def rotate(context: click.Context, webhook_id: str, overlap: float, path: Path | None, output: str) -> None:
    """Make another secret; the one before signs as well for a while."""
    hand_over(
        _file(path),
        "secret",
        "--secret-out",
        lambda: connect(context).post(place("webhooks", webhook_id, "rotate"), {"overlap_h": overlap}),
        output,
        lambda made: f"the new secret of {webhook_id} is in {path}; the old one ends {show.when(made['old_until'])}",
    )


@webhook_group.command("resume")
@click.argument("webhook_id")
@click.option("--skip", is_flag=True, help="Leave out what waits for it, and go on with what happens from now on.")
@show.output_option
@click.pass_context
def resume(context: click.Context, webhook_id: str, skip: bool, output: str) -> None:
    """Try a destination at once, also one that was disabled."""
    found = connect(context).post(place("webhooks", webhook_id, "resume"), {"skip": skip})
    show.emit(found, output, lambda _: click.echo(f"{webhook_id} is {found['state']} and is tried now"))


@webhook_group.command("remove")
@click.argument("webhook_id")
@show.output_option
@click.pass_context
def remove(context: click.Context, webhook_id: str, output: str) -> None:
    """Remove a destination; what waits for it reaches it no more."""
    gone = connect(context).post(place("webhooks", webhook_id, "remove"), {})
    show.emit(gone, output, lambda _: click.echo(f"{webhook_id} is removed"))


@webhook_group.command("catalogue")
def catalogue() -> None:
    """Print the JSON Schema of all events."""
    import json

    from orchestrator.wire import events

    click.echo(json.dumps(events.schema(), indent=2))


def _file(path: Path | None) -> Path:
    if path is None:
        raise click.UsageError("name a new file for the secret with --secret-out")
    return path


def _draw(data: list[dict[str, Any]]) -> None:
    show.table(
        ("id", "state", "events", "to", "delivered", "last", "behind", "next try", "error"),
        [
            (
                item["id"],
                item["state"],
                ",".join(item["events"]),
                item["url"],
                item["delivered"],
                show.when(item["delivered_at"]),
                item["behind"],
                show.when(item["next_at"]),
                item["error"] or "-",
            )
            for item in data
        ],
    )
