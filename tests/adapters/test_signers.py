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

from orchestrator.adapters.signers import FileSigner
from orchestrator.errors import ForbiddenError, NotFoundError, RequestError
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
