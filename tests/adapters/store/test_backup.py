"""Backups: one snapshot under load, whole or not there at all, and put back equal."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.store import SqlStore, backup, open_store
from orchestrator.adapters.store.backup import CHECKPOINTS, DATABASE, MANIFEST, State, back_up, read_manifest, restore
from orchestrator.adapters.store.lease import UNKNOWN
from orchestrator.errors import ConflictError, NotFoundError, OrchestratorError, TrustError, UnavailableError
from orchestrator.ports import Lane, Tx

NOW = 1_800_000_000.0
VOUCHED = b"first checkpoint\nsecond checkpoint\n"
BATCH = 20


def state_of(folder: Path) -> State:
    return State("fleet-1", folder / "state.db", folder / "state.db.checkpoints")


def open_(folder: Path, *, after_restore: bool = False) -> SqlStore:
    return open_store(f"sqlite:///{folder / 'state.db'}", after_restore=after_restore, now=lambda: NOW)


def _note(tx: Tx) -> None:
    """Add a batch of entries: a copy that holds a part of a batch is no snapshot."""
    for _ in range(BATCH):
        tx.audit("somebody", "did", "thing", {"padding": "x" * 2000}, NOW)


def with_store(folder: Path, work: Callable[[SqlStore], Any], *, after_restore: bool = False) -> Any:
    async def run() -> Any:
        store = open_(folder, after_restore=after_restore)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


def noted(folder: Path, batches: int = 1) -> None:
    async def work(store: SqlStore) -> None:
        for _ in range(batches):
            await store.transact(Lane.OPERATOR, _note)

    with_store(folder, work)


def dump(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as found:
        return list(found.iterdump())


def entries(database: Path) -> int:
    with closing(sqlite3.connect(database)) as found:
        return int(found.execute("SELECT count(*) FROM audit").fetchone()[0])


def unpacked(file: Path, folder: Path) -> Path:
    with tarfile.open(file) as archive:
        content = archive.extractfile(DATABASE)
        assert content is not None
        (folder / "unpacked.db").write_bytes(content.read())
    return folder / "unpacked.db"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    noted(folder, 3)
    (folder / "state.db.checkpoints").write_bytes(VOUCHED + b"half a li")
    return folder


def test_a_backup_says_what_it_is_and_only_its_owner_reads_it(home: Path, tmp_path: Path) -> None:
    made = back_up(state_of(home), tmp_path / "b.tar", NOW)
    assert read_manifest(tmp_path / "b.tar") == made
    assert (made.deployment, made.made_at, made.audit_n) == ("fleet-1", NOW, 3 * BATCH)
    with tarfile.open(tmp_path / "b.tar") as archive:
        assert archive.getnames() == [MANIFEST, DATABASE, CHECKPOINTS]
        kept = archive.extractfile(CHECKPOINTS)
        assert kept is not None
        assert kept.read() == VOUCHED
    assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar", "home"]


def test_round_trip_is_equal_and_the_numbers_go_on_above_all_that_were_given_out(home: Path, tmp_path: Path) -> None:
    before = dump(home / "state.db")
    back_up(state_of(home), tmp_path / "b.tar", NOW)

    async def reserve(store: SqlStore) -> int:
        await store.transact(Lane.OPERATOR, _note)
        await store.pin(await store.read(lambda tx: tx.audit_head()))
        return await store.transact(Lane.OPERATOR, lambda tx: tx.reserve(7))

    given = with_store(home, reserve)
    lost = dump(home / "state.db")
    (home / "state.db.checkpoints").write_bytes(VOUCHED + b"third\n")
    done = restore(tmp_path / "b.tar", state_of(home), NOW)
    assert dump(home / "state.db") == before
    assert done.replaced == home / "state.db.replaced-20270115T080000Z"
    assert dump(done.replaced) == lost
    assert (done.checkpoints, (home / "state.db.checkpoints").read_bytes()) == (False, VOUCHED + b"third\n")
    with pytest.raises(ConflictError, match="--after-restore"):
        open_(home)
    assert with_store(
        home, lambda store: store.transact(Lane.OPERATOR, lambda tx: tx.reserve(1)), after_restore=True
    ) > (given + UNKNOWN)


def test_a_new_machine_gets_the_checkpoints_too_and_asks_for_after_restore(home: Path, tmp_path: Path) -> None:
    back_up(state_of(home), tmp_path / "b.tar", NOW)
    other = tmp_path / "other"
    other.mkdir()
    done = restore(tmp_path / "b.tar", state_of(other), NOW)
    assert (done.replaced, done.checkpoints) == (None, True)
    assert (other / "state.db.checkpoints").read_bytes() == VOUCHED
    assert dump(other / "state.db") == dump(home / "state.db")
    assert (other / "state.db").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConflictError, match="--after-restore"):
        open_(other)


def test_backups_under_load_are_snapshots(home: Path, tmp_path: Path) -> None:
    """A store writes batch after batch; whatever moment a copy takes, it holds whole batches, and ever more."""
    stop, started = threading.Event(), threading.Event()

    async def work(store: SqlStore) -> None:
        while not stop.is_set():
            await store.transact(Lane.OPERATOR, _note)
            started.set()

    writing = threading.Thread(target=lambda: with_store(home, work))
    writing.start()
    try:
        assert started.wait(30)
        counts = []
        for number in range(8):
            made = back_up(state_of(home), tmp_path / f"{number}.tar", NOW)
            counts.append(entries(unpacked(tmp_path / f"{number}.tar", tmp_path)))
            assert made.audit_n == counts[-1]
    finally:
        stop.set()
        writing.join(30)
    assert [count % BATCH for count in counts] == [0] * 8
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]
    assert entries(home / "state.db") > counts[-1]


KILLED = """
import sys
from pathlib import Path
from orchestrator.adapters.store import backup
state = backup.State("fleet-1", Path(sys.argv[1]), Path(sys.argv[1] + ".checkpoints"))
reached = getattr(backup, sys.argv[3])
def stopping(*words):
    print("here", flush=True)
    sys.stdin.read()
    return reached(*words)
setattr(backup, sys.argv[3], stopping)
backup.back_up(state, Path(sys.argv[2]), 1.0)
"""


@pytest.mark.parametrize("step", ["_copy", "examine", "_pack", "sync_folder"])
def test_a_backup_that_is_killed_is_whole_or_not_there_and_in_nobodys_way(
    home: Path, tmp_path: Path, step: str
) -> None:
    target, before = tmp_path / "b.tar", dump(home / "state.db")
    words = [sys.executable, "-c", KILLED, str(home / "state.db"), str(target), step]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        with pytest.raises(ConflictError, match="is being made|is there already"):
            back_up(state_of(home), target, NOW)
        process.send_signal(signal.SIGKILL)
    assert target.exists() == (step == "sync_folder")
    assert dump(home / "state.db") == before
    if target.exists():
        assert dump(unpacked(target, tmp_path)) == before
    target.unlink(missing_ok=True)
    back_up(state_of(home), target, NOW)
    assert dump(unpacked(target, tmp_path)) == before
    assert not (tmp_path / "b.tar.part").exists()


class Died(BaseException):
    """The process ends here."""


def deaths(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Let the process die before the `at`-th step that changes a name or makes it last."""
    left = iter(range(at))

    def dying(real: Any) -> Any:
        def step(*words: Any, **more: Any) -> Any:
            if next(left, None) is None:
                raise Died
            return real(*words, **more)

        return step

    for name in ("replace", "hardlink_to"):
        monkeypatch.setattr(Path, name, dying(getattr(Path, name)))
    monkeypatch.setattr(os, "fsync", dying(os.fsync))


def test_a_restore_that_dies_anywhere_leaves_the_old_or_the_new_and_can_be_done_again(
    home: Path, tmp_path: Path
) -> None:
    back_up(state_of(home), tmp_path / "b.tar", NOW)
    new = dump(home / "state.db")
    noted(home)
    old = dump(home / "state.db")
    seen = []
    for at in range(20):
        folder = tmp_path / f"run-{at}"
        shutil.copytree(home, folder)
        with pytest.MonkeyPatch.context() as patch:
            deaths(patch, at)
            try:
                restore(tmp_path / "b.tar", state_of(folder), NOW)
            except Died:
                pass
            else:
                break
        there = dump(folder / "state.db")
        assert there in (old, new)
        seen.append(there == new)
        restore(tmp_path / "b.tar", state_of(folder), NOW)
        assert dump(folder / "state.db") == new
    assert set(seen) == {False, True}
    assert dump(folder / "state.db") == new


@pytest.mark.parametrize("settled", [True, False])
def test_the_log_of_a_crashed_daemon_is_kept_and_never_played_into_the_new_database(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settled: bool
) -> None:
    back_up(state_of(home), tmp_path / "b.tar", NOW)
    expected, crashed = dump(home / "state.db"), tmp_path / "crashed"
    crashed.mkdir()

    async def work(store: SqlStore) -> None:
        await store.transact(Lane.OPERATOR, _note)
        for name in ("state.db", "state.db-wal"):
            shutil.copy(home / name, crashed / name)

    with_store(home, work)
    if not settled:  # as where the database is too damaged for that
        monkeypatch.setattr(backup, "_settle", lambda _: None)
    done = restore(tmp_path / "b.tar", state_of(crashed), NOW)
    assert dump(crashed / "state.db") == expected
    assert done.replaced is not None
    assert Path(f"{done.replaced}-wal").exists() != settled
    assert entries(done.replaced) == 4 * BATCH


def test_a_running_daemon_is_left_alone(home: Path, tmp_path: Path) -> None:
    back_up(state_of(home), tmp_path / "b.tar", NOW)

    async def work(_: SqlStore) -> None:
        with pytest.raises(UnavailableError, match="stop it first") as caught:
            restore(tmp_path / "b.tar", state_of(home), NOW)
        assert caught.value.code == "store_in_use"

    with_store(home, work)


def rewritten(file: Path, change: Callable[[str, bytes], bytes]) -> Path:
    other = file.with_name("changed.tar")
    with tarfile.open(file) as archive, tarfile.open(other, "w") as out:
        for member in archive:
            content = archive.extractfile(member)
            assert content is not None
            data = change(member.name, content.read())
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
    return other


def said(old: bytes, new: bytes) -> Callable[[str, bytes], bytes]:
    return lambda name, data: data.replace(old, new) if name == MANIFEST else data


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        (lambda name, data: data[:-1] + bytes([data[-1] ^ 1]) if name == DATABASE else data, "bad_backup", "damaged"),
        (lambda name, data: data[:-4096] if name == DATABASE else data, "bad_backup", "damaged"),
        (lambda name, data: data + b"x" if name == CHECKPOINTS else data, "bad_backup", "damaged"),
        (said(b"fleet-1", b"fleet-2"), "other_deployment", "'fleet-2', and this is 'fleet-1'"),
        (said(b'"format": 1', b'"format": 2'), "bad_backup", "no backup"),
        (said(b'"audit_n": 60', b'"audit_n": 61'), "bad_backup", "manifest"),
    ],
)
def test_what_is_no_good_changes_nothing(
    home: Path, tmp_path: Path, change: Callable[[str, bytes], bytes], code: str, text: str
) -> None:
    back_up(state_of(home), tmp_path / "b.tar", NOW)
    changed = rewritten(tmp_path / "b.tar", change)
    before = sorted(path.name for path in home.iterdir())
    with pytest.raises(OrchestratorError, match=text) as caught:
        restore(changed, state_of(home), NOW)
    assert caught.value.code == code
    assert sorted({path.name for path in home.iterdir()} - {"state.db.lock"}) == sorted(set(before) - {"state.db.lock"})


@pytest.mark.parametrize(("schema", "age"), [("0001", "older"), ("9999", "newer")])
def test_another_schema_is_refused_and_says_which_version_reads_it(
    home: Path, tmp_path: Path, schema: str, age: str
) -> None:
    made = back_up(state_of(home), tmp_path / "b.tar", NOW)
    changed = rewritten(tmp_path / "b.tar", said(f'"{made.schema}"'.encode(), f'"{schema}"'.encode()))
    with pytest.raises(ConflictError, match=f"the {age} schema '{schema}'.*restore it with the version"):
        restore(changed, state_of(home), NOW)


@pytest.mark.parametrize("content", [b"", b"x" * 5000, b"\0" * 10240])
def test_another_file_is_no_backup(home: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b.tar").write_bytes(content)
    with pytest.raises(TrustError, match="is no backup"):
        restore(tmp_path / "b.tar", state_of(home), NOW)


def test_a_damaged_database_makes_no_backup(home: Path, tmp_path: Path) -> None:
    with (home / "state.db").open("r+b") as file:
        file.seek(5 * 4096)
        file.write(b"\xff" * 8192)
    with pytest.raises((TrustError, UnavailableError), match="damaged|cannot be copied"):
        back_up(state_of(home), tmp_path / "b.tar", NOW)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


CRAMPED = """
import resource, sys
from pathlib import Path
from orchestrator.adapters.store.backup import State, back_up, restore
from orchestrator.errors import UnavailableError
verb, database, target, room = sys.argv[1:]
state = State("fleet-1", Path(database), Path(database + ".checkpoints"))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(room), int(room)))
try:
    back_up(state, Path(target), 1.0) if verb == "backup" else restore(Path(target), state, 1.0)
except UnavailableError as error:
    print(error.message)
"""


def cramped(verb: str, database: Path, target: Path, room: int) -> str:
    """Back up or restore where no file may be larger than this, and return what is said."""
    words = [sys.executable, "-c", CRAMPED, verb, str(database), str(target), str(room)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def test_a_backup_without_room_says_where_and_leaves_nothing(home: Path, tmp_path: Path) -> None:
    size, target = (home / "state.db").stat().st_size, tmp_path / "b.tar"
    copied = cramped("backup", home / "state.db", target, size // 2)
    assert copied.startswith(f"the database {home / 'state.db'} cannot be copied to {target}.part: ")
    packed = cramped("backup", home / "state.db", target, size + 1024)
    assert packed == f"{target} cannot be written: File too large"
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_restore_without_room_leaves_what_is_there(home: Path, tmp_path: Path) -> None:
    back_up(state_of(home), tmp_path / "b.tar", NOW)
    noted(home)
    before, files = dump(home / "state.db"), sorted(home.iterdir())
    said = cramped("restore", home / "state.db", tmp_path / "b.tar", (home / "state.db").stat().st_size // 2)
    assert said == f"{home / 'state.db'} cannot be replaced: File too large"
    assert (dump(home / "state.db"), sorted(home.iterdir())) == (before, files)


def test_what_is_there_is_never_overwritten_and_what_is_missing_is_named(home: Path, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_text("dear")
    with pytest.raises(ConflictError, match="name a new file"):
        back_up(state_of(home), tmp_path / "b.tar", NOW)
    with pytest.raises(NotFoundError, match="no database"):
        back_up(state_of(tmp_path), tmp_path / "c.tar", NOW)
    with pytest.raises(NotFoundError, match="no backup"):
        restore(tmp_path / "none.tar", state_of(home), NOW)
    with pytest.raises(UnavailableError, match="cannot be written"):
        back_up(state_of(home), tmp_path / "nowhere" / "c.tar", NOW)
    assert (tmp_path / "b.tar").read_text() == "dear"
