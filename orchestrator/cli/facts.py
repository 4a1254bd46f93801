"""`ota device set` and `ota device import`: what operators say of devices.

Rules:
- A file is read and checked as a whole before anything is sent; every fault has its line.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from orchestrator.cli import completion, show
from orchestrator.cli.client import connect, fail
from orchestrator.cli.dialects import Dialect
from orchestrator.cli.exits import EXIT_ERROR
from orchestrator.core.reason import counted

_CHUNK = 1000
_MAX_FAULTS = 100
_TEXTS = ("revision", "site", "time_zone", "dialect")
_LISTS = ("groups", "tags", "enforces")
_COLUMNS = ("id", *_TEXTS, *_LISTS)
_ATTRIBUTE = "attr."

View = dict[str, Any]


class _Entry(NamedTuple):
    """One device of a file.

    Attributes:
        line: where it stands, from 1.
        body: what is said of it.
        fault: what is wrong with the line as such, "" if nothing.
    """

    line: int
    body: View
    fault: str = ""


@click.command("set")
@click.argument("ids", nargs=-1, required=True, shell_complete=completion.devices)
@click.option("--site", help='Where they stand; "" forgets it.')
@click.option("--time-zone", help="Their time zone, such as Europe/Berlin.")
@click.option("--revision", help="Their hardware revision.")
@click.option("--tag", multiple=True, help="Add a tag; repeat for more.")
@click.option("--untag", multiple=True, help="Take a tag away.")
@click.option("--group", "join", multiple=True, help="Add to a group; repeat for more.")
@click.option("--no-group", "leave", multiple=True, help="Take out of a group.")
@click.option("--dialect", type=Dialect(), help="What they speak.")
@click.option("--enforces", multiple=True, help='Image signature that they enforce; repeat for more, "" for none.')
@click.option("--attr", "attributes", multiple=True, metavar="NAME=VALUE", help="Set a value; NAME= forgets it.")
@show.output_option
@click.pass_context
def set_command(
    context: click.Context, /, ids: tuple[str, ...], attributes: tuple[str, ...], output: str, **words: Any
) -> None:
    """Say where devices stand, what they are called, and to which groups they belong."""
    said = {name: value for name, value in words.items() if value not in (None, ())}
    if "enforces" in said:
        said["enforces"] = [word for word in said["enforces"] if word]
    if attributes:
        said["attributes"] = dict(_pair(text) for text in attributes)
    if not said:
        fail("say what shall be different, such as --site or --tag")
    changed = _send(context, [{"id": name, **said} for name in dict.fromkeys(ids)])
    show.emit({"changed": changed}, output, lambda _: click.echo(f"{counted(len(changed), 'device')} changed"))


@click.command("import")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@show.output_option
@click.pass_context
def import_command(context: click.Context, path: Path, output: str) -> None:
    """Read what is said of devices from a file: CSV with a head line, or one JSON object a line (.jsonl)."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{path} cannot be read: {error}")
    entries = list(_json_lines(text) if path.suffix == ".jsonl" else _csv_lines(text))
    faults = [f"{path}:{line}: {fault}" for line, fault in _faults(entries)]
    if faults:
        for fault in faults[:_MAX_FAULTS]:
            click.echo(f"error: {show.plain(fault)}", err=True)
        if len(faults) > _MAX_FAULTS:
            click.echo(f"error: and {len(faults) - _MAX_FAULTS} more", err=True)
        raise SystemExit(EXIT_ERROR)
    changed = _send(context, [entry.body for entry in entries])
    show.emit({"changed": changed}, output, lambda _: click.echo(f"{len(changed)} of {len(entries)} devices changed"))


def _send(context: click.Context, bodies: list[View]) -> list[str]:
    client = connect(context)
    changed: list[str] = []
    for start in range(0, len(bodies), _CHUNK):
        changed += client.post("/devices/facts", {"devices": bodies[start : start + _CHUNK]})["changed"]
    return changed


def _pair(text: str) -> tuple[str, str | None]:
    name, sign, value = text.partition("=")
    if not sign:
        fail(f"--attr {text[:80]}: write NAME=VALUE, or NAME= to forget it")
    return name, value or None


def _json_lines(text: str) -> Iterator[_Entry]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            body = json.loads(line)
        except ValueError as error:
            yield _Entry(number, {}, f"not JSON: {error}")
            continue
        fault = _fault_in(body)
        yield _Entry(number, {} if fault else body, fault)


def _fault_in(body: object) -> str:
    """Return what is wrong with the shape of a JSON line, "" if nothing."""
    if not isinstance(body, dict):
        return "not an object"
    for name, value in body.items():
        if name not in (*_COLUMNS, "attributes"):
            return f"unknown key {name[:40]!r}; there are {', '.join(_COLUMNS)}, attributes"
        if name in _LISTS and not (isinstance(value, list) and all(isinstance(word, str) for word in value)):
            return f"{name} is a list of texts"
        if name in ("id", *_TEXTS) and not isinstance(value, str):
            return f"{name} is a text"
    found = body.get("attributes", {})
    if not (isinstance(found, dict) and all(value is None or isinstance(value, str) for value in found.values())):
        return "attributes is an object of texts"
    return ""


def _csv_lines(text: str) -> Iterator[_Entry]:
    reader = csv.reader(text.splitlines(), strict=True)
    try:
        head = [name.strip() for name in next(reader, [])]
        unknown = [name for name in head if name not in _COLUMNS and not name.startswith(_ATTRIBUTE)]
        if unknown or len(set(head)) != len(head) or "id" not in head:
            what = f"unknown column {unknown[0][:40]!r}" if unknown else "the columns must be different, with id"
            yield _Entry(1, {}, f"{what}; there are {', '.join(_COLUMNS)}, attr.NAME")
            return
        for row in reader:
            if row:
                yield _csv_entry(reader.line_num, head, row)
    except csv.Error as error:
        yield _Entry(reader.line_num, {}, f"not CSV: {error}")


def _csv_entry(number: int, head: list[str], row: list[str]) -> _Entry:
    if len(row) != len(head):
        return _Entry(number, {}, f"{len(row)} values for {len(head)} columns")
    cells = {name: cell.strip() for name, cell in zip(head, row, strict=True)}
    body: View = {name: cells[name] for name in ("id", *_TEXTS) if name in cells}
    body |= {name: [word for word in cells[name].split(";") if word] for name in _LISTS if name in cells}
    attributes = {name.removeprefix(_ATTRIBUTE): cells[name] or None for name in head if name.startswith(_ATTRIBUTE)}
    return _Entry(number, body | ({"attributes": attributes} if attributes else {}))


def _faults(entries: list[_Entry]) -> Iterator[tuple[int, str]]:
    from orchestrator.core.targeting.facts import Change
    from orchestrator.engine.targeting.facts import faults_of
    from orchestrator.wire.topics import is_identifier

    first: dict[str, int] = {}
    for line, body, fault in entries:
        if fault:
            yield line, fault
            continue
        name = body.get("id", "")
        if not is_identifier(name):
            yield line, f"id: {name[:80]!r} is no identifier"
        elif name in first:
            yield line, f"{name} stands in line {first[name]} already"
        first.setdefault(name, line)
        said: dict[str, Any] = {key: tuple(value) if key in _LISTS else value for key, value in body.items()}
        said.pop("id", None)
        for text in faults_of(Change(**said)):
            yield line, text
