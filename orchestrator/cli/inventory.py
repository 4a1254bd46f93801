"""`ota device`, `ota release`, `ota artifact`: what there is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TextIO

import click

from orchestrator.cli import completion, show
from orchestrator.cli.client import Client, connect, fail, place
from orchestrator.cli.dialects import Dialect
from orchestrator.cli.exits import EXIT_NOT_FOUND
from orchestrator.cli.facts import import_command, set_command
from orchestrator.cli.inspect import inspect_command
from orchestrator.cli.quarantine import quarantine_command, release_command
from orchestrator.cli.sign import measure, sign_command, verify_command
from orchestrator.core.reason import counted

_CHUNK = 1000


@click.group("device")
def device_group() -> None:
    """Enrol, list and explain devices."""


@device_group.command("add")
@click.argument("ids", nargs=-1, shell_complete=completion.devices)
@click.option("--model", required=True, help="Hardware model of these devices.")
@click.option("--group", "groups", multiple=True, help="Group they belong to; repeat for more.")
@click.option("--dialect", type=Dialect(), help="What they speak; otad unless they are known.")
@click.option("--enforces", multiple=True, help="Image signature that they enforce by themselves; repeat for more.")
@click.option("--count", type=int, help="Make so many identifiers from --pattern instead of naming them.")
@click.option("--pattern", default="dev-{:05d}", show_default=True, help="Identifier pattern for --count.")
@click.option(
    "--credentials",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="File for the tokens, one JSON object per line; created with mode 0600.",
)
@click.pass_context
def add(
    context: click.Context,
    ids: tuple[str, ...],
    model: str,
    groups: tuple[str, ...],
    dialect: str | None,
    enforces: tuple[str, ...],
    count: int | None,
    pattern: str,
    path: Path,
) -> None:
    """Enrol devices, or renew their tokens; each token is shown this once, in the credentials file."""
    names = [*ids, *_numbered(pattern, count or 0)]
    if not names:
        fail("name devices, or say how many with --count")
    client = connect(context)
    with _opened(path) as file:
        for start in range(0, len(names), _CHUNK):
            chunk = names[start : start + _CHUNK]
            said = {"model": model, "groups": groups, "dialect": dialect, "enforces": enforces or None}
            body = {"devices": [{"id": name, **said} for name in chunk]}
            tokens = client.post("/devices", body)["tokens"]
            for name in chunk:
                file.write(json.dumps({"device": name, "model": model, "token": tokens[name]}) + "\n")
    click.echo(f"{counted(len(names), 'device')} enrolled; their tokens are in {path}")


def _numbered(pattern: str, count: int) -> list[str]:
    from orchestrator.sim.behaviour import ID_PATTERN

    if count and ID_PATTERN.fullmatch(pattern) is None:
        fail(f"--pattern {pattern!r} cannot hold a number; write one such as 'dev-{{:05d}}'")
    return [pattern.format(number) for number in range(count)]


def _opened(path: Path) -> TextIO:
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w")
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}; name another file with --credentials")


@device_group.command("list")
@click.option("--after", default="", help="Continue after this identifier.")
@click.option("--limit", type=int, default=100, show_default=True)
@click.option("--select", default="", metavar="EXPR", help="Only those, such as 'site like \"berlin-*\"'.")
@click.option("--quarantined", is_flag=True, help="Only those in quarantine, with the reason.")
@show.output_option
@click.pass_context
def list_devices(context: click.Context, after: str, limit: int, select: str, quarantined: bool, output: str) -> None:
    """List devices in the order of their identifiers."""
    query = {"after": after, "limit": limit, "select": select, "quarantined": quarantined}
    found = connect(context).get("/devices", **query)
    show.emit(found, output, show.draw_quarantined if quarantined else show.draw_devices)


@device_group.command("get")
@click.argument("device_id", shell_complete=completion.devices)
@show.output_option
@click.pass_context
def get_device(context: click.Context, device_id: str, output: str) -> None:
    """Show a device and its updates."""
    show.emit(connect(context).get(place("devices", device_id)), output, show.draw_device)


@device_group.command("explain")
@click.argument("device_id", shell_complete=completion.devices)
@show.output_option
@click.pass_context
def explain_device(context: click.Context, device_id: str, output: str) -> None:
    """Say why a device has or has not each release."""
    show.emit(connect(context).get(place("devices", device_id, "explain")), output, show.draw_device_reason)


device_group.add_command(set_command)
device_group.add_command(import_command)
device_group.add_command(quarantine_command)
device_group.add_command(release_command)


@click.group("release")
def release_group() -> None:
    """Make and list releases."""


@release_group.command("create")
@click.argument("name")
@click.option(
    "--artifact", "artifacts", multiple=True, required=True, help="Its SHA-256, or the file itself; repeat it."
)
@show.output_option
@click.pass_context
def create_release(context: click.Context, name: str, artifacts: tuple[str, ...], output: str) -> None:
    """Make a release of imported artifacts: one version, at most one artifact per hardware model."""
    hashes = [measure(Path(word))[1] if Path(word).is_file() else word for word in artifacts]
    made = connect(context).post("/releases", {"name": name, "artifacts": hashes})
    show.emit(made, output, lambda data: show.draw_releases([data]))


@release_group.command("list")
@show.output_option
@click.pass_context
def list_releases(context: click.Context, output: str) -> None:
    """List releases, newest first."""
    show.emit(connect(context).get("/releases"), output, show.draw_releases)


@click.group("artifact")
def artifact_group() -> None:
    """Inspect, sign, verify, import, list and show artifacts."""


@artifact_group.command("import")
@click.argument("uri")
@show.output_option
@click.pass_context
def import_artifact(context: click.Context, uri: str, output: str) -> None:
    """Import s3://bucket/key or file:///path after checking its statement and every byte."""
    made = connect(context).post("/artifacts", {"uri": uri})
    show.emit(made, output, show.draw_artifact)


@artifact_group.command("list")
@show.output_option
@click.pass_context
def list_artifacts(context: click.Context, output: str) -> None:
    """List imported artifacts, newest first."""
    show.emit(connect(context).get("/artifacts"), output, show.draw_artifacts)


@artifact_group.command("show")
@click.argument("artifact", metavar="SHA256|URI", shell_complete=completion.artifacts)
@show.output_option
@click.pass_context
def show_artifact(context: click.Context, artifact: str, output: str) -> None:
    """Show all that is known of an artifact, named by its hash, by enough of its beginning, or by where it lies."""
    client = connect(context)
    sha256 = _lying_at(client, artifact) if "://" in artifact else artifact
    show.emit(client.get(place("artifacts", sha256)), output, show.draw_artifact_detail)


def _lying_at(client: Client, uri: str) -> str:
    """Return the hash of the artifact that lies at an address."""
    found = client.get("/artifacts", uri=uri)
    if not found:
        fail(f"no artifact is imported from {uri}; see `ota artifact list`", EXIT_NOT_FOUND)
    if len(found) > 1:
        hashes = ", ".join(str(item["sha256"]) for item in found)
        fail(f"{len(found)} artifacts were imported from {uri}, one after the other; name the hash: {hashes}")
    return str(found[0]["sha256"])


artifact_group.add_command(inspect_command)
artifact_group.add_command(sign_command)
artifact_group.add_command(verify_command)
