"""`ota audit`: list, verify and export the audit log.

Rules:
- Verifying believes nobody: chain, checkpoints and sealed batches are computed anew here, from the API or,
  with --database, from the file itself.
- It says up to which entry a checkpoint vouches; what is younger could still be rewritten unseen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import show
from orchestrator.cli.client import Client, connect, fail
from orchestrator.cli.exits import EXIT_ERROR

if TYPE_CHECKING:
    from orchestrator.core.trust.audit import Checkpoint, Entry, Findings, Head

_PAGE = 1000
_database_option = click.option(
    "--database",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Read this database file instead of asking the daemon.",
)


@dataclass(frozen=True, slots=True)
class _Log:
    """An audit log to read, wherever it is.

    Attributes:
        page: returns entries after a number.
        sealed: returns (seq, token hash) of deliveries in a range.
        head: the head that is kept beside the entries, None where it cannot be had.
    """

    page: Callable[[int], Sequence[Entry]]
    sealed: Callable[[int, int], Sequence[tuple[int, str]]]
    head: Head | None

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Yield the entries after a number."""
        while found := self.page(after):
            yield from found
            after = found[-1].n


@click.group("audit")
def audit_group() -> None:
    """List, verify and export the audit log."""


@audit_group.command("list")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Continue after this entry.")
@click.option("--limit", type=click.IntRange(1, _PAGE), default=100, show_default=True)
@show.output_option
@click.pass_context
def list_entries(context: click.Context, after: int, limit: int, output: str) -> None:
    """List entries, oldest first."""
    show.emit(connect(context).get("/audit", after=after, limit=limit), output, _draw)


@audit_group.command("verify")
@click.option(
    "--checkpoints", type=click.Path(dir_okay=False, path_type=Path), help="File of checkpoints, best an exported one."
)
@click.option("--key", type=click.Path(dir_okay=False, path_type=Path), help="Public key of the checkpoints (PEM).")
@_database_option
@show.output_option
@click.pass_context
def verify(
    context: click.Context, checkpoints: Path | None, key: Path | None, database: Path | None, output: str
) -> None:
    """Compute the whole log anew and compare it with its checkpoints and with the deliveries."""
    if (checkpoints is None) != (key is None):
        raise click.UsageError("--checkpoints and --key go together")
    kept, torn = _checkpoints(checkpoints, key) if checkpoints and key else ([], [])
    with _opened(context, database) as log:
        found = _examine(log, kept)
    faults = [*torn, *found.faults]
    show.emit(asdict(found) | {"faults": faults}, output, _draw_findings)
    for fault in faults:
        click.echo(f"error: {show.plain(fault)}", err=True)
    if faults:
        raise SystemExit(EXIT_ERROR)


@audit_group.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_database_option
@show.output_option
@click.pass_context
def export(context: click.Context, file: Path, database: Path | None, output: str) -> None:
    """Write all entries to a new file, one JSON object per line."""
    with _opened(context, database) as log:
        lines = [json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in log.entries()]
    try:
        with file.open("x", encoding="utf-8") as out:
            out.writelines(lines)
    except OSError as error:
        fail(f"{file} cannot be written: {error.strerror}; name a new file")
    said = {"file": str(file), "entries": len(lines)}
    show.emit(said, output, lambda _: click.echo(f"{len(lines)} entries written to {file}"))


def _examine(log: _Log, kept: Sequence[Checkpoint]) -> Findings:
    from orchestrator.core.trust.audit import Examination

    walk = Examination(kept, log.sealed)
    for entry in log.entries():
        walk.look(entry)
    return walk.finish(log.head, to_the_end=log.head is not None)


def _checkpoints(file: Path, key: Path) -> tuple[list[Checkpoint], list[str]]:
    from orchestrator.adapters.checkpoints import load_checkpoint_key, load_checkpoints

    return load_checkpoints(file, load_checkpoint_key(key))


def _opened(context: click.Context, database: Path | None) -> AbstractContextManager[_Log]:
    return _over_http(connect(context)) if database is None else _from_file(database)


@contextmanager
def _from_file(path: Path) -> Iterator[_Log]:
    from orchestrator.adapters.store.offline import audit_log_of

    with audit_log_of(path) as log:
        everything = 2**31
        yield _Log(
            lambda after: log.audit_entries(after, _PAGE),
            lambda first, last: log.sealed_between(first, last, everything),
            log.audit_head(),
        )


@contextmanager
def _over_http(client: Client) -> Iterator[_Log]:
    from orchestrator.core.trust.audit import Entry

    def page(after: int) -> list[Entry]:
        return [Entry(**item) for item in client.get("/audit", after=after, limit=_PAGE)]

    def sealed(first: int, last: int) -> list[tuple[int, str]]:
        return [(seq, token_hash) for seq, token_hash in client.get("/audit/sealed", first=first, last=last)]

    yield _Log(page, sealed, None)


def _draw(entries: list[dict[str, Any]]) -> None:
    show.table(
        ("n", "at", "actor", "action", "object", "detail"),
        [
            (item["n"], show.when(item["at"]), item["actor"], item["action"], item["object"], item["detail"])
            for item in entries
        ],
    )


def _draw_findings(found: dict[str, Any]) -> None:
    click.echo(f"{found['entries']} entries, the last is {found['head']['n']} with hash {found['head']['hash']}")
    click.echo(f"{found['batches']} sealed batches with {found['triggers']} deliveries")
    if found["vouched"]:
        click.echo(f"{found['checkpoints']} checkpoints agree; they vouch for all up to entry {found['vouched']}")
    else:
        click.echo("no checkpoint vouches for any of it; name a file of them with --checkpoints")
    for note in found["notes"]:
        click.echo(f"note: {show.plain(note)}")
    click.echo(click.style("the log is NOT whole", fg="red") if found["faults"] else "the log is whole")
