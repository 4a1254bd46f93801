"""`ota keys`: make the keys of a deployment, and show the public ones.

Rules:
- Private keys never appear on the screen; what is printed may be pasted into a ticket.
- After making keys we say for each file where it belongs, because that is where the security comes from.
"""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli import show

_ADVICE = {
    "artifact.pem": "signs artifact statements. Keep it off the daemon's host: at the build, or offline.",
    "trigger.pem": "signs triggers. Give it to the daemon alone, best as a systemd credential.",
}


@click.group("keys")
def keys_group() -> None:
    """Make and show the keys of a deployment."""


@keys_group.command("init")
@click.option("--dir", "directory", default="keys", show_default=True, type=click.Path(path_type=Path))
@click.option("--deployment", required=True, help="Identifier that devices are pinned to, such as `my-fleet`.")
@click.option("--epoch", default=1, show_default=True, type=click.IntRange(1), help="Key epoch.")
@click.option("--replace", is_flag=True, help="Overwrite existing keys. Devices in the field then refuse everything.")
@show.output_option
def init_command(directory: Path, deployment: str, epoch: int, replace: bool, output: str) -> None:
    """Make an artifact key, a trigger key and the public keys for devices."""
    from orchestrator.adapters.keys import PUBLIC_FILE, create_keys

    files = create_keys(directory, deployment, epoch=epoch, replace=replace)
    made = [{"path": str(file.path), "kid": file.kid, "typ": file.typ} for file in files]
    public = str(directory / PUBLIC_FILE)
    show.emit({"deployment": deployment, "epoch": epoch, "private": made, "public": public}, output, _draw_files)


@keys_group.command("show")
@click.option("--keys", "path", default="keys/device-keys.json", show_default=True, type=click.Path(path_type=Path))
@show.output_option
def show_command(path: Path, output: str) -> None:
    """Show the deployment, epoch and public keys that devices are provisioned with."""
    from orchestrator.adapters.keys import load_device_keys

    keyset = load_device_keys(path)
    keys = [{"kid": key.kid, "typ": key.typ} for key in keyset.keys.values()]
    show.emit({"deployment": keyset.iss, "epoch": keyset.ep, "keys": keys}, output, _draw_keys)


def _draw_files(data: show.View) -> None:
    for file in data["private"]:
        click.echo(f"{file['path']}  key {file['kid']}\n    {_ADVICE[Path(file['path']).name]}")
    click.echo(f"{data['public']}  both public keys\n    goes onto every device and to the daemon; it is not secret.")


def _draw_keys(data: show.View) -> None:
    click.echo(f"deployment {data['deployment']}, key epoch {data['epoch']}")
    for key in data["keys"]:
        click.echo(f"{key['kid']}  {key['typ']}")
