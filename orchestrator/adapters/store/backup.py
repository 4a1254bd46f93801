"""Backups of the database: made while the daemon writes, put back while none runs.

Rules:
- A backup is one tar file: `manifest.json`, `state.db` and, where there are any, `state.db.checkpoints`. It is there
  whole, checked and on disk, or not at all; what a crash left lies in the folder `FILE.part`, and the next backup to
  the same place removes it.
- The copy is one snapshot: everything that was acknowledged before it began, and half of nothing.
- The lease stays out, and is never touched: it belongs to the machine, and shows the daemon what was restored.
- A backup is believed when its hashes hold and SQLite finds nothing wrong, and put back only under the schema of this
  program. What it replaces is kept beside it.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import sqlite3
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Final, Literal
from urllib.parse import quote

import msgspec
from alembic.script import ScriptDirectory

from orchestrator import __version__
from orchestrator.adapters.durable import sync_folder
from orchestrator.adapters.store.migrate import alembic_config
from orchestrator.adapters.store.store import take_lock
from orchestrator.errors import ConflictError, NotFoundError, TrustError, UnavailableError

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
DATABASE: Final = "state.db"
CHECKPOINTS: Final = "state.db.checkpoints"
MAX_MANIFEST_BYTES: Final = 64 * 1024
_CHUNK_BYTES = 1 << 20
_BUSY_S = 30.0
_Size = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
_Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a backup.

    Attributes:
        size_bytes: how long it is.
        sha256: its hash in hex.
    """

    size_bytes: _Size
    sha256: _Hash


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a backup says of itself.

    Attributes:
        format: number of this format.
        deployment: whose state it is.
        version: of the program that made it.
        schema: the last migration that the database has seen.
        made_at: when it was made.
        audit_n: number of the last audit entry, 0 for none.
        files: what is in it, by name.
    """

    format: Literal[1]
    deployment: str
    version: str
    schema: str
    made_at: float
    audit_n: _Size
    files: dict[Literal["state.db", "state.db.checkpoints"], Part]


_DECODER = msgspec.json.Decoder(Manifest)


@dataclass(frozen=True, slots=True)
class State:
    """What a backup is made of, and what it is put back as.

    Attributes:
        deployment: whose state it is.
        database: file of the database.
        checkpoints: file of the checkpoints of the audit log; it need not exist.
    """

    deployment: str
    database: Path
    checkpoints: Path


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did.

    Attributes:
        manifest: of the backup that was put back.
        replaced: where the database lies that was there before, None if there was none.
        checkpoints: whether the checkpoints were put back as well; those that are there are never replaced.
    """

    manifest: Manifest
    replaced: Path | None
    checkpoints: bool


def back_up(state: State, target: Path, now: float) -> Manifest:
    """Write a backup of a database, in use or not. Blocks.

    Args:
        state: what to copy.
        target: the new file.
        now: present time.

    Raises:
        NotFoundError: there is no such database.
        ConflictError: the target is there, or is being written by another backup.
        TrustError: the database is damaged; nothing was written.
        UnavailableError: the database cannot be read, or the target not be written.
    """
    database = state.database
    if not database.is_file():
        raise NotFoundError(f"there is no database {database}")
    if target.exists():
        raise ConflictError(f"{target} is there already; name a new file", code="backup_exists")
    try:
        with _staging(target) as folder:
            kept = _complete_lines(state.checkpoints)  # before the copy: they never vouch for more than it holds
            copy = folder / DATABASE
            _copy(database, copy)
            schema, audit_n = examine(copy, f"the database {database}")
            parts: dict[str, Part] = {DATABASE: _part_of(copy)}
            if kept is not None:
                (folder / CHECKPOINTS).write_bytes(kept)
                parts[CHECKPOINTS] = _part_of(folder / CHECKPOINTS)
            said = {"format": FORMAT, "deployment": state.deployment, "version": __version__, "schema": schema}
            manifest = msgspec.convert({**said, "made_at": now, "audit_n": audit_n, "files": parts}, Manifest)
            _pack(folder, manifest).replace(target)
            sync_folder(target.parent)
    except OSError as error:
        raise UnavailableError(f"{target} cannot be written: {error.strerror}", code="backup") from None
    return manifest


def read_manifest(backup: Path) -> Manifest:
    """Return what a backup says of itself; nothing is proven by that.

    Raises:
        NotFoundError: there is no such file.
        TrustError: it is no backup.
        UnavailableError: it cannot be read.
    """
    with _opened(backup) as archive:
        return _manifest_in(archive, backup)


def restore(backup: Path, state: State, now: float) -> Restored:
    """Put a backup in the place of a database that no daemon works on. Blocks.

    Args:
        backup: file that `back_up` wrote.
        state: what to put it back as; the database need not exist.
        now: present time, for the name of what is replaced.

    Raises:
        NotFoundError: there is no such backup.
        ConflictError: a daemon runs, or the backup is of another deployment or another schema.
        TrustError: the backup is damaged; nothing was changed.
        UnavailableError: something cannot be read or written.
    """
    database, checkpoints = state.database, state.checkpoints
    if not database.parent.is_dir():
        raise UnavailableError(f"the folder {database.parent} does not exist; create it", code="store")
    with _opened(backup) as archive, _alone(database):
        manifest = _manifest_in(archive, backup)
        _check_fit(manifest, backup, state.deployment)
        fresh, beside = (Path(f"{place}.restoring") for place in (database, checkpoints))
        try:
            _unpack(archive, backup, manifest, {DATABASE: fresh, CHECKPOINTS: beside})
            schema, audit_n = examine(fresh, f"the backup {backup}")
            if (schema, audit_n) != (manifest.schema, manifest.audit_n):
                raise TrustError(f"{backup} does not hold what its manifest says; take another one", code="bad_backup")
            replaced = _replace(database, fresh, now)
            vouching = beside.exists() and not checkpoints.exists()
            if vouching:
                beside.replace(checkpoints)
            sync_folder(database.parent)
        except OSError as error:
            raise UnavailableError(f"{database} cannot be replaced: {error.strerror}", code="backup") from None
        finally:
            for left in (fresh, beside):
                left.unlink(missing_ok=True)
    return Restored(manifest, replaced, vouching)


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """Make the folder in which a backup grows, and remove it at the end; only one backup at a time has it."""
    folder = target.with_name(f"{target.name}.part")
    folder.mkdir(mode=0o700, exist_ok=True)
    holding = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(holding, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConflictError(f"another backup to {target} is being made; wait for it", code="backup_busy") from None
        for left in folder.iterdir():
            left.unlink()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(holding)


def _copy(database: Path, copy: Path) -> None:
    source = f"file:{quote(str(database.resolve()))}?mode=ro"
    try:
        with (
            closing(sqlite3.connect(source, uri=True, timeout=_BUSY_S)) as reading,
            closing(sqlite3.connect(copy)) as writing,
        ):
            reading.backup(writing)  # all pages in one step: one snapshot, however much is written beside it
            writing.execute("PRAGMA journal_mode = DELETE")  # the copy is one file, and needs no log beside it
    except sqlite3.Error as error:
        text = f"the database {database} cannot be copied to {copy.parent}: {error}"
        raise UnavailableError(text, code="store") from None


def schemas() -> list[str]:
    """Return the schemas that this program knows, its own first."""
    return [script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()]


def examine(database: Path, what: str) -> tuple[str, int]:
    """Return schema and last audit entry of a database that is sound. Blocks; changes nothing.

    Args:
        database: the file.
        what: what it is, for the error.

    Raises:
        TrustError: it is damaged.
    """
    source = f"file:{quote(str(database.resolve()))}?mode=ro"
    try:
        with closing(sqlite3.connect(source, uri=True, timeout=_BUSY_S)) as found:
            faults = [row[0] for row in found.execute("PRAGMA integrity_check(3)") if row[0] != "ok"]
            faults += [f"a row of {row[0]} refers to nothing" for row in found.execute("PRAGMA foreign_key_check")][:3]
            schema = found.execute("SELECT version_num FROM alembic_version").fetchone()
            last = found.execute("SELECT max(n) FROM audit").fetchone()
    except sqlite3.Error as error:
        faults, schema, last = [str(error)], None, None
    if faults or schema is None or last is None:
        text = f"{what} is damaged ({'; '.join(faults) or 'it has no schema'}); keep the last good backup"
        raise TrustError(text, code="damaged")
    return str(schema[0]), int(last[0] or 0)


def _complete_lines(checkpoints: Path) -> bytes | None:
    try:
        content = checkpoints.read_bytes()
    except FileNotFoundError:
        return None
    return content[: content.rfind(b"\n") + 1]


def _part_of(path: Path) -> Part:
    with path.open("rb") as file:
        return Part(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _pack(folder: Path, manifest: Manifest) -> Path:
    packed = folder / "backup.tar"
    said = msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"
    with os.fdopen(os.open(packed, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            archive.addfile(_member(MANIFEST, len(said), manifest.made_at), io.BytesIO(said))
            for name, part in manifest.files.items():
                with (folder / name).open("rb") as content:
                    archive.addfile(_member(name, part.size_bytes, manifest.made_at), content)
        file.flush()
        os.fsync(file.fileno())
    return packed


def _member(name: str, size_bytes: int, made_at: float) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size_bytes, int(made_at), 0o600
    return member


@contextmanager
def _opened(backup: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(backup, "r:") as archive:
            yield archive
    except FileNotFoundError:
        raise NotFoundError(f"there is no backup {backup}") from None
    except (tarfile.TarError, EOFError):
        raise _bad(backup) from None
    except OSError as error:
        raise UnavailableError(f"{backup} cannot be read: {error.strerror}", code="backup") from None


def _manifest_in(archive: tarfile.TarFile, backup: Path) -> Manifest:
    content = _next(archive, MANIFEST, backup).read(MAX_MANIFEST_BYTES + 1)
    try:
        manifest = _DECODER.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _bad(backup) from None
    if DATABASE not in manifest.files:
        raise _bad(backup)
    return manifest


def _next(archive: tarfile.TarFile, name: str, backup: Path) -> IO[bytes]:
    member = archive.next()
    content = None if member is None or member.name != name or not member.isreg() else archive.extractfile(member)
    if content is None:
        raise _bad(backup)
    return content


def _bad(backup: Path) -> TrustError:
    return TrustError(
        f"{backup} is no backup that `ota backup` wrote, or is damaged; take another one", code="bad_backup"
    )


def _check_fit(manifest: Manifest, backup: Path, deployment: str) -> None:
    if manifest.deployment != deployment:
        text = f"{backup} is of the deployment {manifest.deployment[:64]!r}, and this is {deployment!r}"
        raise ConflictError(text, code="other_deployment")
    known = schemas()
    if manifest.schema == known[0]:
        return
    age, then = ("older", ", start it, then update") if manifest.schema in known else ("newer", "")
    text = (
        f"{backup} has the {age} schema {manifest.schema[:64]!r}, and this program has {known[0]!r}; "
        f"restore it with the version that made it, {manifest.version[:64]!r}{then}"
    )
    raise ConflictError(text, code=f"{age}_schema")


@contextmanager
def _alone(database: Path) -> Iterator[None]:
    lock = Path(f"{database}.lock")
    held = take_lock(lock)
    try:
        _give_to_owner(lock)
        yield
    finally:
        held.close()


def _unpack(archive: tarfile.TarFile, backup: Path, manifest: Manifest, places: dict[str, Path]) -> None:
    for name, part in manifest.files.items():
        content = _next(archive, name, backup)
        place, hashed, left = places[name], hashlib.sha256(), part.size_bytes
        place.unlink(missing_ok=True)
        with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            while left and (chunk := content.read(min(left, _CHUNK_BYTES))):
                left -= len(chunk)
                hashed.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if left or content.read(1) or hashed.hexdigest() != part.sha256:
            raise _bad(backup)
        _give_to_owner(place)


def _replace(database: Path, fresh: Path, now: float) -> Path | None:
    """Put a file in the place of a database, and return where that is kept; at any moment one of both is whole."""
    kept = None
    if database.exists():
        _settle(database)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        kept = database.with_name(f"{database.name}.replaced-{stamp}")
        kept.unlink(missing_ok=True)
        kept.hardlink_to(database)
    # What is in a log belongs to the old database: SQLite would play it into the new one.
    log = Path(f"{database}-wal")
    if kept is not None and log.exists():
        log.replace(f"{kept}-wal")
    for left in (log, Path(f"{database}-shm")):
        left.unlink(missing_ok=True)
    fresh.replace(database)
    return kept


def _settle(database: Path) -> None:
    """Bring the log of a database into its file; one that is too damaged for that is kept with its log."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(database, timeout=_BUSY_S)) as found:
        found.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _give_to_owner(path: Path) -> None:
    """Root restores for the daemon: what it makes must belong to whom the folder belongs to."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
