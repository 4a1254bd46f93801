"""`ota endpoints`: the document that moves devices to other addresses, and where they are.

Rules:
- What is written was read again as a device reads it; a wrong address is refused here, and not by the fleet.
- The document is an artifact like any other afterwards: signed, imported, rolled out.
"""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli import show
from orchestrator.cli.client import connect


@click.group("endpoints")
def endpoints_group() -> None:
    """Make and show documents of the addresses under which devices reach us."""


@endpoints_group.command("make")
@click.option("--deployment", required=True, help="Identifier that devices are pinned to.")
@click.option("--mqtt", multiple=True, help="Broker, such as mqtts://broker.example.net:8883; repeat it, best first.")
@click.option("--http", multiple=True, help="HTTP server, such as https://ota.example.net; repeat it, best first.")
@click.option("--origin", "origins", multiple=True, help="Origin that artifacts may come from; none changes nothing.")
@click.option(
    "--out",
    "-o",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; it may not exist.",
)
def make_command(
    deployment: str, mqtt: tuple[str, ...], http: tuple[str, ...], origins: tuple[str, ...], out: Path
) -> None:
    """Write a document of endpoints; sign it with `ota artifact sign`."""
    from orchestrator.errors import ConflictError, ForbiddenError
    from orchestrator.wire.endpoints import COMPONENT, FORMAT, Endpoints, encode_endpoints

    document = encode_endpoints(Endpoints(deployment, mqtt, http, origins))
    _read(document, deployment)
    try:
        with out.open("xb") as file:
            file.write(document)
    except FileExistsError:
        raise ConflictError(f"{out} exists; name another file with --out", code="document_exists") from None
    except OSError as error:
        raise ForbiddenError(f"{out} cannot be written: {error.strerror}", code="unwritable") from None
    click.echo(
        f"{out} has {len(document)} bytes; sign it: ota artifact sign {out} --comp {COMPONENT} --format {FORMAT} ..."
    )


@endpoints_group.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--deployment", help="Whose it must be; without it any.")
@show.output_option
def show_command(file: Path, deployment: str | None, output: str) -> None:
    """Check FILE as a device does, and show what it says."""
    from orchestrator.errors import NotFoundError, RequestError
    from orchestrator.wire.endpoints import MAX_DOCUMENT_BYTES

    try:
        with file.open("rb") as stream:
            document = stream.read(MAX_DOCUMENT_BYTES + 1)
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {file}", code="no_file") from None
    except OSError as error:
        raise RequestError(f"cannot read {file}: {error.strerror}", code="unreadable") from None
    show.emit(_read(document, deployment), output, _draw)


@click.command("endpoints")
@show.output_option
@click.pass_context
def count_command(context: click.Context, output: str) -> None:
    """Say how many devices go by which endpoints: once all go by the new ones, the old are not needed."""
    show.emit(connect(context).get("/endpoints"), output, _draw_count)


def _read(document: bytes, deployment: str | None) -> show.View:
    from orchestrator.errors import PayloadError, RequestError
    from orchestrator.wire.endpoints import decode_endpoints

    try:
        found = decode_endpoints(document, deployment)
    except PayloadError as error:
        raise RequestError(f"devices would refuse this document: {error.message}", code=error.code) from None
    addresses = {"mqtt": list(found.mqtt), "http": list(found.http), "origins": list(found.origins)}
    return {"deployment": found.iss, **addresses, "bytes": len(document)}


def _draw(data: show.View) -> None:
    click.echo(f"for the deployment {data['deployment']}, {data['bytes']} bytes")
    for name in ("mqtt", "http", "origins"):
        for address in data[name]:
            click.echo(f"  {name:<8}{address}")
    if not data["origins"]:
        click.echo("  origins as they are")


def _draw_count(data: show.View) -> None:
    lines = [(item["rel"] or "0 (as provisioned)", item["devices"]) for item in data["endpoints"]]
    if data["unknown"]:
        lines.append(("cannot be moved", data["unknown"]))
    show.table(("endpoints", "devices"), lines)
