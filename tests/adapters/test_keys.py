"""Key files: modes, no clobbering, and a document that devices can read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from orchestrator.adapters.keys import create_keys, load_device_keys
from orchestrator.adapters.signers import FileSigner
from orchestrator.errors import ConflictError, ForbiddenError, NotFoundError, RequestError, TrustError


def test_keys_are_made_for_their_roles(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "keys"
    files = create_keys(directory, "my-fleet", epoch=2)
    assert [(file.path.name, file.typ.value) for file in files] == [
        ("artifact.pem", "ota-artifact+jws"),
        ("trigger.pem", "ota-trigger+jws"),
    ]
    keyset = load_device_keys(directory / "device-keys.json")
    assert (keyset.iss, keyset.ep) == ("my-fleet", 2)
    assert {kid: key.typ for kid, key in keyset.keys.items()} == {file.kid: file.typ.value for file in files}
    assert [FileSigner.load(file.path).kid for file in files] == [file.kid for file in files]


def test_private_files_are_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        create_keys(tmp_path / "keys", "my-fleet")
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()}
    assert modes == {"artifact.pem": 0o600, "trigger.pem": 0o600, "device-keys.json": 0o644}
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["artifact.pem", "trigger.pem", "device-keys.json"])
def test_nothing_is_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(ConflictError, match=name) as error:
        create_keys(tmp_path, "my-fleet")
    assert error.value.code == "keys_exist"
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "precious")]


def test_keys_are_replaced_on_purpose(tmp_path: Path) -> None:
    first = create_keys(tmp_path, "my-fleet")
    (tmp_path / "trigger.pem").chmod(0o644)
    second = create_keys(tmp_path, "my-fleet", replace=True)
    assert not {file.kid for file in first} & {file.kid for file in second}
    assert FileSigner.load(tmp_path / "trigger.pem").kid == second[1].kid
    assert set(load_device_keys(tmp_path / "device-keys.json").keys) == {file.kid for file in second}


def test_a_deployment_needs_an_identifier(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="'My Fleet' cannot name a deployment"):
        create_keys(tmp_path, "My Fleet")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ForbiddenError, match="cannot write keys"):
        create_keys(tmp_path / "file" / "keys", "my-fleet")


def test_missing_and_broken_documents(tmp_path: Path) -> None:
    path = tmp_path / "device-keys.json"
    with pytest.raises(NotFoundError, match="No such file"):
        load_device_keys(path)
    create_keys(tmp_path, "my-fleet")
    document = json.loads(path.read_text())
    document["keys"][1] = document["keys"][0]
    path.write_text(json.dumps(document))
    with pytest.raises(TrustError, match="is there twice") as error:
        load_device_keys(path)
    assert error.value.code == "bad_public_keys"
