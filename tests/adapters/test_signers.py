"""File signers: what is loaded, what is refused, and with which sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.signers import SPOT_CHECK, CheckedSigner, open_signer
from orchestrator.adapters.signers.file import FileSigner, check_mode, low_s
from orchestrator.errors import ForbiddenError, NotFoundError, OrchestratorError, RequestError, UnavailableError
from orchestrator.wire.token import key_id

KEY = ec.generate_private_key(ec.SECP256R1())


def write(path: Path, key: PrivateKeyTypes, encryption: KeySerializationEncryption | None = None) -> Path:
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()))
    path.chmod(0o600)
    return path


def test_a_key_is_loaded_and_signs_equal_bytes_equally(tmp_path: Path) -> None:
    signer = FileSigner.load(write(tmp_path / "trigger.pem", KEY))
    assert signer.kid == key_id(signer.x, signer.y)
    assert signer.sign(b"data") == FileSigner(KEY).sign(b"data")
    assert signer.sign(b"data") != signer.sign(b"date")


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="make one with `ota keys init`") as error:
        FileSigner.load(tmp_path / "trigger.pem")
    assert error.value.code == "no_key"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o622, 0o601])
def test_a_key_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "trigger.pem", KEY)
    path.chmod(mode)
    with pytest.raises(ForbiddenError, match="run `chmod 600") as error:
        FileSigner.load(path)
    assert error.value.code == "key_exposed"


def test_a_credential_of_another_owner_may_show_a_group_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "trigger-key", KEY)
    path.chmod(0o440)
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert FileSigner.load(path).kid == FileSigner(KEY).kid
    path.chmod(0o444)
    with pytest.raises(ForbiddenError, match="open to others"):
        FileSigner.load(path)


def test_a_key_of_another_user_is_refused_even_where_nobody_else_may_read_it(tmp_path: Path) -> None:
    path = write(tmp_path / "trigger.pem", KEY)
    status = list(path.stat())
    status[4] = os.geteuid() + 1  # st_uid
    with pytest.raises(ForbiddenError, match=f"belongs to another user; run `chown {os.geteuid()} ") as error:
        check_mode(os.stat_result(status), path)
    assert error.value.code == "key_exposed"


@pytest.mark.parametrize(
    ("code", "key"),
    [
        ("wrong_curve", ec.generate_private_key(ec.SECP384R1())),
        ("wrong_curve", ec.generate_private_key(ec.SECP256K1())),
        ("wrong_curve", ed25519.Ed25519PrivateKey.generate()),
        ("wrong_curve", rsa.generate_private_key(65537, 2048)),
    ],
)
def test_another_kind_of_key_is_refused(tmp_path: Path, code: str, key: PrivateKeyTypes) -> None:
    with pytest.raises(RequestError, match="ES256 needs P-256") as error:
        FileSigner.load(write(tmp_path / "trigger.pem", key))
    assert error.value.code == code


def test_an_encrypted_key_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "trigger.pem", KEY, BestAvailableEncryption(b"secret"))
    with pytest.raises(RequestError, match="is encrypted") as error:
        FileSigner.load(path)
    assert error.value.code == "encrypted_key"


@pytest.mark.parametrize("content", [b"", b"hello", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trigger.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(RequestError, match="not a PEM private key") as error:
        FileSigner.load(path)
    assert error.value.code == "bad_key"


def test_a_directory_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="Is a directory") as error:
        FileSigner.load(tmp_path)
    assert error.value.code == "bad_key"


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)  # root may read everything, so the refusal is made here
    with pytest.raises(ForbiddenError, match="cannot be read by this user") as error:
        FileSigner.load(tmp_path / "trigger.pem")
    assert error.value.code == "key_unreadable"


class Faulty(FileSigner):
    """A signer whose signatures go wrong from one on, by a changed bit or another key."""

    def __init__(self, wrong_from: int, wrong: bytes = b"") -> None:
        super().__init__(KEY)
        self.count, self.wrong_from, self.wrong = 0, wrong_from, wrong

    def sign(self, data: bytes) -> bytes:
        self.count += 1
        good = super().sign(data)
        return good if self.count < self.wrong_from else self.wrong or bytes([good[0] ^ 1]) + good[1:]


def high(signature: bytes) -> bytes:
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    return signature[:32] + (order - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")


@pytest.mark.parametrize(
    "wrong",
    [b"", bytes(64), b"\xff" * 64, b"short", high(FileSigner(KEY).sign(b"data"))],
    ids=["a bit", "zero", "too large", "short", "high s"],
)
def test_a_signature_that_does_not_hold_is_never_handed_out(wrong: bytes) -> None:
    signer = CheckedSigner(Faulty(2, wrong), 1)
    signer.sign(b"data")
    with pytest.raises(UnavailableError, match="signs nothing more") as error:
        signer.sign(b"data")
    assert error.value.code == "faulty_signer"


def test_a_signer_that_failed_once_is_not_asked_again() -> None:
    faulty = Faulty(1)
    signer = CheckedSigner(faulty, SPOT_CHECK)
    for _ in range(3):
        with pytest.raises(UnavailableError):
            signer.sign(b"data")
    assert faulty.count == 1


def test_our_own_work_is_looked_at_now_and_then() -> None:
    signer = CheckedSigner(Faulty(2), SPOT_CHECK)
    for _ in range(SPOT_CHECK):
        signer.sign(b"data")
    with pytest.raises(UnavailableError):
        signer.sign(b"data")


def test_an_error_of_the_signer_is_no_fault_of_the_key() -> None:
    class Away(FileSigner):
        away = True

        def sign(self, data: bytes) -> bytes:
            if self.away:
                raise UnavailableError("the token is away")
            return super().sign(data)

    held = Away(KEY)
    signer = CheckedSigner(held, 1)
    with pytest.raises(UnavailableError, match="the token is away"):
        signer.sign(b"data")
    held.away = False
    assert signer.sign(b"data") == FileSigner(KEY).sign(b"data")


def test_a_signature_of_another_length_has_no_low_s() -> None:
    assert low_s(high(FileSigner(KEY).sign(b"data"))) == FileSigner(KEY).sign(b"data")
    with pytest.raises(ValueError, match="64 bytes, not 63"):
        low_s(bytes(63))


@given(st.binary(max_size=300))
def test_any_file_is_a_key_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    pem = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = tmp_path_factory.getbasetemp() / "fuzzed.pem"
    for candidate in (content, pem[: len(content)] + content, pem.replace(pem[40:44], content[:4])):
        path.write_bytes(candidate)
        path.chmod(0o600)
        try:
            assert open_signer(path).kid
        except OrchestratorError as error:
            assert error.code in ("bad_key", "wrong_curve", "encrypted_key")
            assert "PRIVATE" not in error.message
