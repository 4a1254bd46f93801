"""`ota artifact sign` and `ota artifact verify`, as a user types them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from subprocess import run

import pytest
from click import Choice, Command
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from orchestrator.adapters.signers.file import FileSigner
from orchestrator.cli.keys import keys_group
from orchestrator.cli.sign import sign_command, verify_command
from orchestrator.errors import ConflictError, ForbiddenError, NotFoundError, OrchestratorError, RequestError
from orchestrator.verifier import ARTIFACT, load_keys, open_token
from orchestrator.wire.token import hash_of
from tests.support.softhsm import SoftToken


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(keys_group, ["init", "--deployment", "my-fleet"]).exit_code == 0
    Path("door.bin").write_bytes(b"image" * 1000)
    return tmp_path


def sign(*extra: str, key: str = "keys/artifact.pem", file: str = "door.bin") -> Result:
    fields = ["--name", "door", "--version", "1.2.0", "--rel", "3", "--hw", "esp32", "--hw", "esp32-c3"]
    return CliRunner().invoke(sign_command, [file, "--key", key, *fields, *extra])


def verify(*extra: str) -> Result:
    return CliRunner().invoke(verify_command, ["door.bin", *extra])


def error_of(result: Result) -> OrchestratorError:
    assert isinstance(result.exception, OrchestratorError), result.output
    return result.exception


def test_what_was_signed_is_verified() -> None:
    assert sign("--sec", "1", "--from", "2", "--comp", "boot", "--format", "zst").exit_code == 0
    token = Path("door.bin.statement").read_bytes()
    claims = open_token(token, ARTIFACT, load_keys(Path("keys/device-keys.json").read_bytes()))
    assert {name: claims[name] for name in ("name", "ver", "rel", "sec", "from", "comp", "fmt", "hw", "size")} == {
        "name": "door",
        "ver": "1.2.0",
        "rel": 3,
        "sec": 1,
        "from": 2,
        "comp": "boot",
        "fmt": "zst",
        "hw": ["esp32", "esp32-c3"],
        "size": 5000,
    }
    result = verify("-o", "json")
    assert (result.exit_code, json.loads(result.output)["valid"]) == (0, True)
    assert "esp32 esp32-c3" in verify().output


def test_a_statement_says_which_newer_releases_may_be_left_for_it() -> None:
    for words, expected in (((), None), (("--leave", "4", "--leave", "5", "--replace"), [4, 5])):
        assert sign(*words).exit_code == 0
        token = Path("door.bin.statement").read_bytes()
        claims = open_token(token, ARTIFACT, load_keys(Path("keys/device-keys.json").read_bytes()))
        assert claims.get("dn") == expected


def test_verifying_names_the_statement_as_warrants_do() -> None:
    sign()
    shown = json.loads(verify("-o", "json").output)
    assert shown["ast"] == hash_of(Path("door.bin.statement").read_bytes())


def test_signing_says_what_it_did() -> None:
    shown = json.loads(sign("-o", "json").output)
    assert (shown["statement"], shown["size"], len(shown["sha256"])) == ("door.bin.statement", 5000, 43)
    assert sign("--replace", "-o", "table").output.splitlines()[0] == "statement door.bin.statement"


@pytest.mark.parametrize(
    ("code", "damage"),
    [
        ("unsigned", lambda: Path("door.bin.statement").unlink()),
        ("size_mismatch", lambda: Path("door.bin").write_bytes(b"image" * 1001)),
        ("hash_mismatch", lambda: Path("door.bin").write_bytes(b"imagE" * 1000)),
        ("bad_signature", lambda: tamper(-70)),
        ("bad_base64", lambda: tamper(3, b"*")),
        ("not_a_token", lambda: Path("door.bin.statement").write_bytes(b"")),
    ],
)
def test_damage_is_refused_with_1(code: str, damage: object) -> None:
    sign()
    assert callable(damage)
    damage()
    result = verify()
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"[{code}]" in result.stderr
    shown = json.loads(verify("-o", "json").stdout)
    assert (shown["valid"], shown["code"]) == (False, code)


def tamper(place: int, new: bytes | None = None) -> None:
    token = bytearray(Path("door.bin.statement").read_bytes())
    token[place : place + 1 or None] = new or (b"A" if token[place] != ord("A") else b"B")
    Path("door.bin.statement").write_bytes(token)


def test_foreign_keys_refuse() -> None:
    sign()
    CliRunner().invoke(keys_group, ["init", "--deployment", "other", "--dir", "other"])
    result = verify("--keys", "other/device-keys.json")
    assert (result.exit_code, "[unknown_key]" in result.stderr) == (1, True)


def test_an_expired_statement_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.adapters.signers.file import FileSigner
    from orchestrator.wire.token import TokenType, assemble, signing_input

    sign()
    keys = load_keys(Path("keys/device-keys.json").read_bytes())
    claims = open_token(Path("door.bin.statement").read_bytes(), ARTIFACT, keys)
    signer = FileSigner.load(Path("keys/artifact.pem"))
    signed = signing_input(TokenType.ARTIFACT, signer.kid, claims | {"iat": 1, "exp": 2})
    Path("door.bin.statement").write_bytes(assemble(signed, signer.sign(signed)))
    assert "[statement_expired]" in verify().stderr


def test_a_statement_is_replaced_on_purpose_only() -> None:
    sign()
    error = error_of(sign())
    assert (type(error), error.code) == (ConflictError, "statement_exists")
    assert sign("--replace").exit_code == 0


def test_the_trigger_key_signs_no_artifact() -> None:
    error = error_of(sign(key="keys/trigger.pem"))
    assert (type(error), error.code) == (RequestError, "wrong_role")
    assert "use artifact.pem" in error.message


def test_a_key_without_public_document_beside_it_signs(workplace: Path) -> None:
    (workplace / "offline").mkdir()
    (workplace / "keys" / "artifact.pem").rename(workplace / "offline" / "artifact.pem")
    assert sign(key="offline/artifact.pem").exit_code == 0
    assert verify().exit_code == 0


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("bad_field", ["--hw", "ESP32"]),
        ("bad_field", ["--rel", "0"]),
        ("bad_number", ["--sec", "-1"]),
        ("bad_field", ["--version", "9" * 65]),
        ("bad_json", ["--name", "door\n"]),
        ("oversize", ["--name", "d" * 1200]),
    ],
)
def test_what_devices_would_refuse_is_not_signed(code: str, arguments: list[str]) -> None:
    error = error_of(sign(*arguments))
    assert (type(error), error.code) == (RequestError, code)
    assert not Path("door.bin.statement").exists()


def test_files_that_are_not_there() -> None:
    assert error_of(sign(file="nothing.bin")).code == "no_file"
    assert error_of(sign(key="keys/nothing.pem")).code == "no_key"
    assert error_of(sign(file="keys")).code == "unreadable"
    assert isinstance(error_of(verify("--keys", "nothing.json")), NotFoundError)


def test_a_statement_that_cannot_be_written() -> None:
    Path("door.bin.statement").mkdir()
    assert isinstance(error_of(sign("--replace")), ForbiddenError)


@pytest.mark.parametrize("command", [*keys_group.commands.values(), sign_command, verify_command])
def test_answers_are_printed_as_by_all_other_commands(command: Command) -> None:
    output = next(parameter for parameter in command.params if parameter.name == "output")
    assert output.opts == ["-o", "--output"]
    assert isinstance(output.type, Choice)
    assert list(output.type.choices) == ["table", "json", "yaml"]


def test_the_commands_load_nothing_heavy() -> None:
    code = "import sys, orchestrator.cli.keys, orchestrator.cli.sign; sys.exit('cryptography' in sys.modules)"
    assert run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


def test_an_artifact_key_in_a_token_signs(soft_token: SoftToken) -> None:
    pem = Path("keys/artifact.pem").read_bytes()
    key = load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    uri = soft_token.uri(soft_token.put_key(key), pin=False)
    signed = sign("--pin-file", str(soft_token.pin_file), "-o", "json", key=uri)
    assert signed.exit_code == 0, signed.output
    assert json.loads(signed.stdout)["kid"] == FileSigner.load(Path("keys/artifact.pem")).kid
    assert verify().exit_code == 0


def test_a_key_in_a_token_is_checked_by_its_role_too(soft_token: SoftToken) -> None:
    uri = soft_token.uri(soft_token.put_key(ec.generate_private_key(ec.SECP256R1())))
    assert error_of(sign(key=uri)).code == "wrong_role"
    assert not Path("door.bin.statement").exists()
