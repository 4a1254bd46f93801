"""Key files: modes, no clobbering, and a document that devices can read."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters import keys
from orchestrator.adapters.keys import (
    KeyPlan,
    check_document,
    create_key,
    create_keys,
    document_of,
    load_device_keys,
    load_public_key,
    public_key,
    public_pem,
    write_file,
)
from orchestrator.adapters.signers.file import FileSigner
from orchestrator.errors import ConflictError, ForbiddenError, NotFoundError, RequestError, TrustError
from orchestrator.verifier import REASONS, load_keyset

ROLES = ["artifact", "trigger", "beat", "root", "root", "root"]


def test_keys_are_made_for_their_roles(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "keys"
    files = create_keys(directory, "my-fleet", epoch=2)
    assert [(file.path.name, file.typ) for file in files] == [
        ("artifact.pem", "ota-artifact+jws"),
        ("trigger.pem", "ota-trigger+jws"),
        ("beat.pem", "ota-beat+jws"),
        ("root-1.pem", "ota-keys+jws"),
        ("root-2.pem", "ota-keys+jws"),
        ("root-3.pem", "ota-keys+jws"),
        ("checkpoint.pem", "ota-checkpoint+jws"),
    ]
    assert [file.role for file in files] == [*ROLES, "checkpoint"]
    keyset = load_device_keys(directory / "device-keys.json")
    assert (keyset.iss, keyset.ep, keyset.need_root, keyset.need_cosign) == ("my-fleet", 2, 2, 2)
    assert {kid: key.typ for kid, key in keyset.keys.items()} == {file.kid: file.typ for file in files[:-1]}
    assert [FileSigner.load(file.path).kid for file in files] == [file.kid for file in files]
    assert public_key(load_public_key(directory / "checkpoint.pub.pem"), "root").kid == files[-1].kid


def test_a_plan_says_which_keys(tmp_path: Path) -> None:
    plan = KeyPlan(2, 1, ("anna", "bob"), 1, {"trigger": 2_000_000_000})
    files = create_keys(tmp_path, "my-fleet", plan=plan)
    assert [(file.path.name, file.who) for file in files[3:]] == [
        ("root-1.pem", ""),
        ("root-2.pem", ""),
        ("cosign-anna.pem", "anna"),
        ("cosign-bob.pem", "bob"),
        ("checkpoint.pem", ""),
    ]
    keyset = load_device_keys(tmp_path / "device-keys.json")
    assert (keyset.need_root, keyset.need_cosign) == (1, 1)
    assert [(key.who, key.exp) for key in keyset.keys.values()] == [
        ("", None),
        ("", 2_000_000_000),
        *[("", None)] * 3,
        ("anna", None),
        ("bob", None),
    ]


def test_without_roots_the_document_says_nothing_of_them(tmp_path: Path) -> None:
    create_keys(tmp_path, "my-fleet", plan=KeyPlan(roots=0))
    assert "need" not in json.loads((tmp_path / "device-keys.json").read_text())
    assert load_device_keys(tmp_path / "device-keys.json").need_root == 0


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        (KeyPlan(roots=1, need_root=2), "need_unmet"),
        (KeyPlan(cosigners=("anna",), need_cosign=2), "need_unmet"),
        (KeyPlan(cosigners=("anna", "anna")), "cosigner_twice"),
        (KeyPlan(cosigners=("Anna", "bob")), "bad_identifier"),
        (KeyPlan(cosigners=tuple(f"person-{number}" for number in range(11))), "bad_field"),
    ],
)
def test_a_plan_that_devices_would_refuse_makes_nothing(tmp_path: Path, plan: KeyPlan, code: str) -> None:
    with pytest.raises(RequestError) as error:
        create_keys(tmp_path, "my-fleet", plan=plan)
    assert error.value.code == code
    assert list(tmp_path.iterdir()) == []


def test_private_files_are_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        create_keys(tmp_path / "keys", "my-fleet")
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()}
    private = ["artifact", "trigger", "beat", "root-1", "root-2", "root-3", "checkpoint"]
    public = {"device-keys.json": 0o644, "checkpoint.pub.pem": 0o644}
    assert modes == {f"{name}.pem": 0o600 for name in private} | public
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["artifact.pem", "root-3.pem", "checkpoint.pub.pem", "device-keys.json"])
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
    assert set(load_device_keys(tmp_path / "device-keys.json").keys) == {file.kid for file in second[:-1]}
    assert FileSigner.load(tmp_path / "trigger.pem").kid != first[1].kid
    assert not list(tmp_path.glob(".*"))


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


def test_the_document_says_all_that_a_keyset_holds(tmp_path: Path) -> None:
    create_keys(tmp_path, "my-fleet", plan=KeyPlan(cosigners=("anna", "bob"), expires_at={"root": 5, "artifact": 9}))
    keyset = load_device_keys(tmp_path / "device-keys.json")
    limited = dataclasses.replace(next(iter(keyset.keys.values())), nbf=3, hw=("door-a", "door-b"))
    keyset = dataclasses.replace(keyset, keys=keyset.keys | {limited.kid: limited})
    assert load_keyset(document_of(keyset)) == keyset


def test_a_public_key_comes_back_from_its_file(tmp_path: Path) -> None:
    made = create_key(tmp_path / "one.pem")
    (tmp_path / "one.pub.pem").write_bytes(public_pem(made))
    assert load_public_key(tmp_path / "one.pub.pem") == made
    with pytest.raises(ConflictError, match=r"one\.pem exists"):
        create_key(tmp_path / "one.pem")
    with pytest.raises(RequestError, match="not a PEM public key"):
        load_public_key(tmp_path / "one.pem")
    with pytest.raises(NotFoundError):
        load_public_key(tmp_path / "two.pub.pem")
    (tmp_path / "p384.pem").write_bytes(public_pem(ec.generate_private_key(ec.SECP384R1()).public_key()))
    with pytest.raises(RequestError, match="ES256 needs P-256"):
        load_public_key(tmp_path / "p384.pem")


def test_no_key_looks_like_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter(["-first", "second"])
    monkeypatch.setattr(keys, "key_id", lambda *_: next(names))
    keys.new_key()
    assert list(names) == []


def test_what_is_replaced_stays_until_the_new_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "keys.json").write_text("precious")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ForbiddenError, match="No space left"):
        write_file(tmp_path / "keys.json", b"new", 0o644, replace=True)
    assert (tmp_path / "keys.json").read_text() == "precious"


@given(st.binary(max_size=400) | st.text(alphabet='{}[]":,0123456789visepkynd ', max_size=200).map(str.encode))
def test_any_document_is_taken_or_refused(content: bytes) -> None:
    try:
        check_document(content)
    except RequestError as error:
        assert error.code in REASONS
