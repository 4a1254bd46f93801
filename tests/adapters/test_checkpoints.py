"""The file of checkpoints: whole lines on disk, and only those that the key signed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from orchestrator.adapters.checkpoints import (
    MAX_FAULTS,
    CheckpointFile,
    load_checkpoint_key,
    load_checkpoints,
    open_checkpoint,
)
from orchestrator.adapters.signers.file import FileSigner
from orchestrator.core.trust.audit import Checkpoint
from orchestrator.errors import NotFoundError, RequestError, TrustError, UnavailableError
from orchestrator.wire import checkpoint as wire
from orchestrator.wire.token import assemble

PRIVATE = ec.derive_private_key(21, ec.SECP256R1())
KEY = PRIVATE.public_key()
SIGNER = FileSigner(PRIVATE)
OTHER = FileSigner(ec.derive_private_key(22, ec.SECP256R1()))


def point(n: int) -> Checkpoint:
    return Checkpoint(n, f"{n:064x}", 1000.0 + n, n * 10)


def token(n: int, signer: FileSigner = SIGNER) -> bytes:
    signed = wire.signing_input(signer.kid, point(n))
    return assemble(signed, signer.sign(signed))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def test_what_was_kept_is_read_in_order(path: Path) -> None:
    for n in (64, 128):
        CheckpointFile(path).keep(token(n))
    assert load_checkpoints(path, KEY) == ([point(64), point(128)], [])
    assert path.stat().st_mode & 0o777 == 0o640 & ~_umask()


def test_a_line_is_on_disk_when_it_is_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[bool, int]] = []
    real = os.fsync

    def note(file: int) -> None:
        status = os.fstat(file)
        synced.append((stat.S_ISDIR(status.st_mode), status.st_size))
        real(file)

    monkeypatch.setattr(os, "fsync", note)
    line = token(64)
    CheckpointFile(path).keep(line)
    assert synced[0] == (False, len(line) + 1)
    assert synced[1][0], "the folder of a new file is synced as well"
    CheckpointFile(path).keep(line)
    assert synced[2:] == [(False, 2 * len(line) + 2)]


@pytest.mark.parametrize("torn", [1, 100, 300])
def test_what_a_crash_left_of_a_line_is_cut_off(path: Path, torn: int) -> None:
    keeper = CheckpointFile(path)
    path.write_bytes(token(64)[:torn])  # in the very first line
    keeper.keep(token(64))
    for n in range(65, 75):
        keeper.keep(token(n))
    with path.open("ab") as file:
        file.write(token(75)[:torn])
    assert load_checkpoints(path, KEY)[1] == ["line 12 of the checkpoints is not whole"]
    keeper.keep(token(75))
    assert load_checkpoints(path, KEY) == ([point(n) for n in range(64, 76)], [])


def test_a_disk_that_takes_only_a_part_is_written_to_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[[int, bytes], int] = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:10]))
    CheckpointFile(path).keep(token(64))
    assert load_checkpoints(path, KEY) == ([point(64)], [])


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"none/checkpoints: No such file .*audit\.checkpoint_file") as caught:
        CheckpointFile(tmp_path / "none" / "checkpoints").keep(token(1))
    assert caught.value.code == "checkpoints"


def test_lines_that_the_key_did_not_sign_are_faults(path: Path) -> None:
    changed = token(3).replace(wire.signing_input(SIGNER.kid, point(3)), wire.signing_input(SIGNER.kid, point(4)))
    lines = [token(1), token(2, OTHER), changed, b"nonsense", b"", token(5)]
    path.write_bytes(b"\n".join(lines) + b"\n")
    found, faults = load_checkpoints(path, KEY)
    assert found == [point(1), point(5)]
    assert faults == [
        "line 2 of the checkpoints: the checkpoint is not signed with this key",
        "line 3 of the checkpoints: the checkpoint is not signed with this key",
        "line 4 of the checkpoints: not a checkpoint: it is no token",
        "line 5 of the checkpoints: not a checkpoint: it is no token",
    ]


def test_a_signature_of_zeros_is_refused() -> None:
    signed = wire.signing_input(SIGNER.kid, point(1))
    with pytest.raises(TrustError):
        open_checkpoint(assemble(signed, bytes(64)), KEY)


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(NotFoundError, match="checkpoints: No such file"):
        load_checkpoints(path, KEY)


def test_the_public_key_comes_from_a_pem_file(path: Path) -> None:
    path.write_bytes(KEY.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert load_checkpoint_key(path).public_numbers() == KEY.public_numbers()


def test_other_keys_are_refused(path: Path) -> None:
    with pytest.raises(NotFoundError, match="No such file"):
        load_checkpoint_key(path)
    path.write_text("nonsense")
    with pytest.raises(RequestError, match="not a PEM public key"):
        load_checkpoint_key(path)
    for other in (ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)):
        path.write_bytes(other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        with pytest.raises(RequestError, match="needs? P-256"):
            load_checkpoint_key(path)


def _umask() -> int:
    old = os.umask(0)
    os.umask(old)
    return old


def test_a_wrong_file_is_one_fault_with_a_count(path: Path) -> None:
    path.write_bytes(b"not a checkpoint\n" * 500)
    [fault] = load_checkpoints(path, KEY)[1]
    assert fault.startswith(f"none of the 500 lines of {path} is a checkpoint of this key, beginning with line 1 of ")
    assert fault.endswith("; is it the right file, and the right key?")


def test_many_faulty_lines_are_counted_after_the_first(path: Path) -> None:
    CheckpointFile(path).keep(token(64))
    with path.open("ab") as file:
        file.write(b"not a checkpoint\n" * 500)
    found, faults = load_checkpoints(path, KEY)
    assert (found, len(faults)) == ([point(64)], MAX_FAULTS + 1)
    assert faults[-1] == f"{500 - MAX_FAULTS} more lines of the checkpoints are faulty"
