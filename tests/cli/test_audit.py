"""`ota audit` against a running daemon and against its file."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from orchestrator.adapters.checkpoints import CheckpointFile
from orchestrator.adapters.signers.file import FileSigner
from orchestrator.adapters.store import open_store
from orchestrator.cli.main import cli
from orchestrator.core.trust.audit import Entry, Head
from orchestrator.engine.trust.audit import Auditor
from tests.cli.house import House, house

PRIVATE = ec.derive_private_key(41, ec.SECP256R1())


class Pins:
    """What a daemon without a lease would have: nothing is pinned."""

    async def pin(self, head: Head) -> None:
        return None


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    """A daemon with two sealed batches and a checkpoint; one entry is younger than that."""
    with house(tmp_path) as made:
        made.do(_live(made, tmp_path))
        yield made


async def _live(home: House, folder: Path) -> None:
    site = home.site
    await site.enrol("d1", "d2", "d3")
    await site.release()
    site.plant.settings.batch = 2
    await site.roll_out()
    object.__setattr__(site.plant.sealer._settings, "batch", 2)
    await site.plant.seal()
    witness = CheckpointFile(folder / "checkpoints")
    auditor = Auditor(site.plant.store, Pins(), FileSigner(PRIVATE), witness, site.plant.clock)
    await auditor.start({})
    (folder / "key.pem").write_bytes(PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    await site.enrol("d4")


def vouched(folder: Path) -> list[str]:
    return ["--checkpoints", str(folder / "checkpoints"), "--key", str(folder / "key.pem")]


def tamper(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "state.db")) as database:
        for statement in ("DROP TRIGGER audit_no_update", "DROP TRIGGER audit_no_delete", *statements):
            database.execute(statement)
        database.commit()


def test_list_shows_entries_and_goes_on_after_one(home: House) -> None:
    text = home.well("audit", "list")
    assert text.splitlines()[0].split() == ["N", "AT", "ACTOR", "ACTION", "OBJECT", "DETAIL"]
    assert "devices.enrolled" in text
    everything = json.loads(home.well("audit", "list", "-o", "json"))
    assert [item["n"] for item in everything] == list(range(1, len(everything) + 1))
    assert json.loads(home.well("audit", "list", "-o", "json", "--after", "2", "--limit", "1")) == everything[2:3]


@pytest.mark.parametrize("offline", [False, True])
def test_verify_says_what_it_saw_and_what_is_vouched_for(home: House, tmp_path: Path, offline: bool) -> None:
    where = ["--database", str(tmp_path / "state.db")] if offline else []
    text = home.well("audit", "verify", *vouched(tmp_path), *where)
    last = len(json.loads(home.well("audit", "list", "-o", "json", "--limit", "1000")))
    assert f"{last} entries, the last is {last} with hash " in text
    assert "2 sealed batches with 3 deliveries\n" in text
    assert f"1 checkpoints agree; they vouch for all up to entry {last - 1}\n" in text
    assert text.endswith("the log is whole\n")
    found = json.loads(home.well("audit", "verify", "-o", "json", *where))
    assert (found["entries"], found["vouched"], found["faults"]) == (last, 0, [])
    assert "no checkpoint vouches for any of it" in home.well("audit", "verify", *where)


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE audit SET actor = 'eve' WHERE n = 2", "entry 2 was changed"),
        ("DELETE FROM audit WHERE n >= 3", "is missing, and a checkpoint vouches for it"),
        ("UPDATE deliveries SET token_hash = 'x' WHERE seq = 2", "the deliveries 1 to 2 are not those"),
        ("DELETE FROM deliveries WHERE seq = 3", "the deliveries 3 to 3 are not those"),
    ],
)
def test_verify_fails_on_what_was_changed(
    home: House, tmp_path: Path, offline: bool, statement: str, fault: str
) -> None:
    tamper(tmp_path, statement)
    where = ["--database", str(tmp_path / "state.db")] if offline else []
    result = home.ota("audit", "verify", *vouched(tmp_path), *where)
    assert result.exit_code == 1
    assert fault in result.stderr
    assert "the log is NOT whole" in result.stdout


def test_a_restore_is_shown_as_a_note(tmp_path: Path) -> None:
    """The lease says that the database had an entry that it has not."""
    open_sqlite = partial(open_store, f"sqlite:///{tmp_path / 'state.db'}")
    asyncio.run(open_sqlite().close())
    path = tmp_path / "state.db.lease"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"audit_n": 7, "audit_hash": "a" * 64}))
    asyncio.run(open_sqlite(after_restore=True).close())
    result = CliRunner().invoke(cli, ["audit", "verify", "--database", str(tmp_path / "state.db")])
    assert result.exit_code == 0
    assert "note: entries 1 to 7 were lost in the restore that entry 8 tells of\n" in result.stdout


def test_verify_fails_on_checkpoints_that_the_key_did_not_sign(home: House, tmp_path: Path) -> None:
    with (tmp_path / "checkpoints").open("ab") as file:
        file.write(b"nonsense\n")
    result = home.ota("audit", "verify", *vouched(tmp_path))
    assert (result.exit_code, result.stderr) == (
        1,
        "error: line 2 of the checkpoints: not a checkpoint: it is no token\n",
    )


def test_checkpoints_and_key_go_together(home: House, tmp_path: Path) -> None:
    result = home.ota("audit", "verify", "--checkpoints", str(tmp_path / "checkpoints"))
    assert result.exit_code == 2
    assert "--checkpoints and --key go together" in result.stderr


@pytest.mark.parametrize("offline", [False, True])
def test_export_writes_every_entry_to_a_new_file(home: House, tmp_path: Path, offline: bool) -> None:
    where = ["--database", str(tmp_path / "state.db")] if offline else []
    file = tmp_path / "log.jsonl"
    text = home.well("audit", "export", str(file), *where)
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert text == f"{len(lines)} entries written to {file}\n"
    assert lines == json.loads(home.well("audit", "list", "-o", "json", "--limit", "1000"))
    assert [Entry(**line).n for line in lines] == list(range(1, len(lines) + 1))
    again = json.loads(home.well("audit", "export", str(tmp_path / "again"), "-o", "json", *where))
    assert again == {"file": str(tmp_path / "again"), "entries": len(lines)}
    result = home.ota("audit", "export", str(file), *where)
    assert result.exit_code == 1
    assert "cannot be written: File exists" in result.stderr


def test_a_database_that_is_not_there_is_named(home: House, tmp_path: Path) -> None:
    result = home.ota("audit", "verify", "--database", str(tmp_path / "none.db"))
    assert result.exit_code == 1
    assert "there is no database" in str(result.exception)
