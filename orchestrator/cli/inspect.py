"""`ota artifact inspect`: what a firmware image is, and what is wrong with it, before it is signed.

Rules:
- Nothing is sent anywhere: the file is read here.
- Answers yes with 0 and no with 1; a warning is a yes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from orchestrator.cli import show

if TYPE_CHECKING:
    from orchestrator.images import Fault, Findings, Table

_Result = TypeVar("_Result")
_path = click.Path(path_type=Path)
_LONGEST_KEY_BYTES = 1 << 16


@click.command("inspect")
@click.argument("file", type=_path)
@click.option("--format", "declared", default="raw", show_default=True, help="Format that its statement shall declare.")
@click.option("--chip", default="", help="Chip of the devices, such as esp32s3.")
@click.option("--secure-version", type=click.IntRange(0), help="Highest secure version that a device has.")
@click.option("--partitions", "table_path", type=_path, help="Partition table of the devices, CSV or binary.")
@click.option("--public-key", "key_path", type=_path, help="Key by which the devices check signatures.")
@show.output_option
@click.pass_context
def inspect_command(
    context: click.Context,
    file: Path,
    declared: str,
    chip: str,
    secure_version: int | None,
    table_path: Path | None,
    key_path: Path | None,
    output: str,
) -> None:
    """Say what FILE is, and what speaks against offering it."""
    from orchestrator.images import against, as_declared, as_signed, inspect, load_key, read_partitions
    from orchestrator.images.partitions import MOST_BYTES

    table = None if table_path is None else read_partitions(_opened(table_path, lambda: _begin(table_path, MOST_BYTES)))
    key = None if key_path is None else load_key(_opened(key_path, lambda: _begin(key_path, _LONGEST_KEY_BYTES)))
    findings = _opened(file, lambda: inspect(file, key=key))
    slot_bytes = table.slot_bytes if table else None
    faults = [
        *findings.faults,
        *as_declared(findings, declared),
        *(as_signed(findings) if key is not None else ()),
        *against(findings, slot_bytes=slot_bytes, chip=chip, secure_version=secure_version),
        *(table.faults if table else ()),
    ]
    show.emit(_view(file, findings, faults, table), output, _draw)
    if faults:
        context.exit(1)


def _begin(path: Path, most_bytes: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(most_bytes + 1)


def _opened(path: Path, read: Callable[[], _Result]) -> _Result:
    from orchestrator.errors import NotFoundError, RequestError

    try:
        return read()
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {path}", code="no_file") from None
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror or error}", code="unreadable") from None


def _view(file: Path, findings: Findings, faults: Sequence[Fault], table: Table | None) -> show.View:
    return {
        "file": str(file),
        "format": findings.format,
        "chip": findings.chip,
        "version": findings.version,
        "secure_version": findings.security_version,
        "signature": findings.signature,
        "signed_bytes": findings.signed_bytes,
        "verified": findings.verified,
        "key_digests": list(findings.key_digests),
        "size_bytes": findings.size_bytes,
        "slot_bytes": table.slot_bytes if table else None,
        "facts": [{"name": name, "value": value} for name, value in findings.facts],
        "faults": [_told(fault) for fault in faults],
        "warnings": [_told(warning) for warning in findings.warnings],
    }


def _told(fault: Fault) -> dict[str, str]:
    return {"code": fault.code, "text": fault.text, "remedy": fault.remedy}


def _draw(data: show.View) -> None:
    names = {"format": "format", "chip": "chip", "version": "version", "secure_version": "secure version"}
    shown = [(name, data[key]) for key, name in names.items() if data[key] not in ("", None)]
    shown.append(("size", _size(data)))
    shown += [(item["name"], item["value"]) for item in data["facts"]]
    for name, value in shown:
        click.echo(f"{show.plain(name):<24}{show.plain(value)}")
    for kind, colour in (("warnings", "yellow"), ("faults", "red")):
        for item in data[kind]:
            word = click.style(kind[:-1], fg=colour, bold=True)
            click.echo(f"{word}: {show.plain(item['text'])}; {show.plain(item['remedy'])} [{item['code']}]")


def _size(data: show.View) -> str:
    size, slot = data["size_bytes"], data["slot_bytes"]
    return f"{size} bytes" if slot is None else f"{size} bytes, {size * 100 / slot:.1f} % of a slot of {slot}"
