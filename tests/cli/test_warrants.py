"""`ota warrant`: a draft on a stick, one line per cosigner, and what is refused before it is signed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.cli.main import cli
from orchestrator.verifier import COSIGN
from orchestrator.verifier.token import check_line, read_lines
from tests.cli.house import house
from tests.engine.test_warrants import ANN_KEY, BEN_KEY, COSIGNERS

CLAIMS = {
    "v": 1,
    "iss": "test-fleet",
    "ep": 1,
    "cid": "7",
    "asts": ["A" * 43],
    "aud": ["m:m1"],
    "most": 10,
    "iat": 1_700_000_000,
    "exp": 1_700_086_400,
}


def sign(path: Path, key: int, *words: str, stdin: str | None = None) -> Result:
    """Sign with a cosigner key, given by its number."""
    file = path.parent / f"{key}.pem"
    encoded = ec.derive_private_key(key, ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(encoded)
    file.chmod(0o600)
    return CliRunner().invoke(cli, ["warrant", "sign", str(path), "--key", str(file), *words], input=stdin)


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    path = tmp_path / "spring.json"
    path.write_text(json.dumps(CLAIMS))
    return path


def test_two_persons_sign_one_after_the_other(draft: Path) -> None:
    first = sign(draft, 21, "--yes")
    assert (first.exit_code, first.stderr) == (0, "")
    assert "up to 10 devices" in first.stdout
    assert "of m:m1, until 2023-11-15 22:13:20Z" in first.stdout
    warrant = draft.with_suffix(".jws")
    second = sign(warrant, 22, stdin="y\n")
    assert second.exit_code == 0
    assert second.stdout.endswith(f"2 signed; the warrant is {warrant}\n")
    lines = read_lines(warrant.read_bytes().strip().split(b"\n"), COSIGN)
    assert [check_line(line, COSIGNERS, None).kid for line in lines] == [ANN_KEY.kid, BEN_KEY.kid]


def test_nobody_signs_twice_and_nothing_is_signed_unasked(draft: Path) -> None:
    assert sign(draft, 21, stdin="n\n").exit_code == 1
    warrant = draft.with_suffix(".jws")
    assert not warrant.exists()
    sign(draft, 21, "--yes")
    before = warrant.read_bytes()
    again = sign(warrant, 21, "--yes")
    assert (again.exit_code, "is no draft of a warrant" in again.stderr) == (1, True)
    assert warrant.read_bytes() == before


def test_a_key_that_is_no_cosigners_is_refused_before_it_signs(draft: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(draft.parent)
    made = ["keys", "init", "--deployment", "test-fleet", "--cosigner", "ann", "--cosigner", "ben"]
    assert CliRunner().invoke(cli, made).exit_code == 0
    for words in ((), ("--held", "keys/device-keys.json")):
        refused = sign(draft, 21, "--yes", *words)
        assert (refused.exit_code, "is no cosigner's; use one of" in refused.stderr) == (1, True)
    assert "(ann)" in refused.stderr
    assert not draft.with_suffix(".jws").exists()
    for key in ("cosign-ann", "cosign-ben"):
        path = draft.with_suffix(".json" if key == "cosign-ann" else ".jws")
        command = ["warrant", "sign", str(path), "--key", f"keys/{key}.pem", "--yes"]
        assert CliRunner().invoke(cli, command).exit_code == 0


def test_a_draft_is_not_submitted(draft: Path) -> None:
    result = CliRunner().invoke(cli, ["warrant", "submit", "spring", str(draft)])
    assert (result.exit_code, "is a draft that nobody has signed" in result.stderr) == (1, True)


@pytest.mark.parametrize("text", ["", "[]", "{}", '"x"', "nonsense", json.dumps(CLAIMS | {"most": -1}), "\x00"])
def test_what_is_no_draft_is_not_signed(draft: Path, text: str) -> None:
    draft.write_text(text)
    result = sign(draft, 21, "--yes")
    assert (result.exit_code, "is no draft of a warrant" in result.stderr) == (1, True)
    assert not draft.with_suffix(".jws").exists()


def test_the_daemon_says_why_it_drafts_and_takes_none(tmp_path: Path) -> None:
    (tmp_path / "w.jws").write_text("a.b.c\n")
    with house(tmp_path) as live:
        live.do(live.site.release())
        plan = {"name": "spring", "release": "radio-2", "stages": [{"devices": "rest"}]}
        live.do(live.site.ops("POST", "/rollouts", plan))
        for words in (("draft", "spring"), ("submit", "spring", str(tmp_path / "w.jws"))):
            result = live.ota("warrant", *words)
            assert (result.exit_code, result.stderr) == (1, "error: spring is no emergency and needs no warrant\n")
        assert live.ota("warrant", "draft", "autumn").exit_code == 5


def test_machines_get_json_and_persons_still_see_what_they_sign(draft: Path) -> None:
    result = sign(draft, 21, "-o", "json", stdin="y\n")
    assert result.exit_code == 0
    said = json.loads(result.stdout)
    assert (said["warrant"], said["signed"], said["claims"]["most"]) == (str(draft.with_suffix(".jws")), 1, 10)
    assert "up to 10 devices" in result.stderr
