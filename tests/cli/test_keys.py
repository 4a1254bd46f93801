"""`ota keys`, as a user types it: from the first keys to a drill in which the trigger key is stolen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.adapters.keys import load_device_keys, public_pem
from orchestrator.adapters.signers.file import FileSigner
from orchestrator.cli.client import Client
from orchestrator.cli.keys import keys_group
from orchestrator.cli.main import cli
from orchestrator.errors import ConflictError, OrchestratorError, RequestError, TrustError
from orchestrator.verifier import adopt
from tests.support.softhsm import SoftToken

ROOTS = ("--root", "keys/root-1.pem", "--root", "keys/root-2.pem")
PUBLIC = Path("keys/device-keys.json")


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done("init", "--deployment", "my-fleet", "--cosigner", "anna", "--cosigner", "bob")


def keys(*words: str) -> Result:
    result = CliRunner().invoke(keys_group, list(words))
    assert "PRIVATE KEY" not in result.output
    return result


def done(*words: str) -> str:
    result = keys(*words)
    assert result.exit_code == 0, (words, result.output, result.exception)
    return result.stdout


def view(*words: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(done(*words, "-o", "json"))
    return shown


def error_of(*words: str) -> OrchestratorError:
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    result = keys(*words)
    assert isinstance(result.exception, OrchestratorError), result.output
    assert before == {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    return result.exception


def kid(role: str, who: str = "") -> str:
    found = [key["kid"] for key in view("list")["keys"] if (key["role"], key["who"]) == (role, who)]
    assert found
    return str(found[0])


def test_init_says_where_each_file_belongs() -> None:
    output = done("init", "--deployment", "my-fleet", "--dir", "more", "--cosigner", "anna", "--cosign-threshold", "1")
    assert "more/artifact.pem" in output
    assert "Keep it off the daemon's host" in output
    assert "Keep each root offline, on a medium of its own" in output
    assert "Give it to anna alone" in output
    assert error_of("init", "--deployment", "my-fleet", "--dir", "more").code == "keys_exist"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cosigner", "anna"), "1 cosigners are named, and 2 must sign; give more with --cosigner, or"),
        (("--roots", "1"), "1 root keys are made, and 2 must sign; give more with --roots, or --root-threshold 1"),
    ],
)
def test_init_with_too_few_for_a_threshold_says_what_to_write(words: tuple[str, ...], said: str) -> None:
    result = keys("init", "--deployment", "f", "--dir", "few", *words)
    assert (result.exit_code, said in result.stderr) == (2, True)
    assert not Path("few").exists()


def test_a_change_of_keys_says_what_comes_next() -> None:
    output = done("rotate", "--role", "trigger", *ROOTS)
    assert output.endswith("then: ota keys submit keys/keyset-2.jws --reason WHY\n")
    assert "its own device-keys.json stays" in output
    checked = keys("check", "keys/keyset-2.jws")
    assert (checked.exit_code, "--held is of keyset 2 already" in checked.stdout) == (1, True)


def test_init_and_list_as_json() -> None:
    document = view("init", "--deployment", "f", "--dir", "j", "--epoch", "4", "--valid", "trigger=90d")
    assert (document["deployment"], document["epoch"], document["public"]) == ("f", 4, "j/device-keys.json")
    listed = view("list", "--keys", "j/device-keys.json")
    assert (listed["deployment"], listed["epoch"], listed["need_root"]) == ("f", 4, 2)
    names = ("kid", "typ", "role", "who")
    assert [[key[name] for name in names] for key in listed["keys"]] == [
        [file[name] for name in names] for file in document["private"] if file["role"] != "checkpoint"
    ]
    days = {key["role"]: key["days_left"] for key in listed["keys"]}
    assert days == {"artifact": None, "trigger": 89, "beat": None, "root": None}
    lines = done("list", "--keys", "j/device-keys.json").splitlines()
    assert lines[0].startswith("deployment f, key epoch 4; 2 roots replace keys")
    assert [line.split()[-1] for line in lines if " trigger " in line] == ["89"]


@pytest.mark.parametrize("item", ["trigger", "trigger=", "driver=90d", "trigger=90", "trigger=soon"])
def test_a_wrong_validity_is_explained(item: str) -> None:
    result = keys("init", "--deployment", "f", "--dir", "other", "--valid", item)
    assert (result.exit_code, Path("other").exists()) == (2, False)
    assert item.partition("=")[2] in result.output


def test_the_drill_of_a_stolen_trigger_key() -> None:
    held, stolen = load_device_keys(PUBLIC), kid("trigger")
    shown = view("rotate", "--role", "trigger", *ROOTS, "--valid", "90d")
    assert (shown["epoch"], shown["removed"], shown["private"]) == (2, [stolen], "keys/trigger-ep2.pem")
    taken = adopt(Path(shown["keyset"]).read_bytes(), held, None)
    assert taken == load_device_keys(PUBLIC)
    assert stolen not in taken.keys and taken.keys[shown["kid"]].typ == "ota-trigger+jws"
    assert FileSigner.load(Path(shown["private"])).kid == shown["kid"]
    assert load_device_keys(Path("keys/device-keys-1.json")) == held


def test_a_successor_is_published_and_the_old_key_goes_later() -> None:
    old = kid("trigger")
    shown = view("rotate", "--role", "trigger", "--next", *ROOTS)
    assert shown["removed"] == []
    assert error_of("rotate", "--role", "trigger", *ROOTS).code == "ambiguous"
    assert view("revoke", old, *ROOTS)["epoch"] == 3
    assert kid("trigger") == shown["kid"]


@pytest.mark.parametrize(
    ("role", "file"), [("artifact", "artifact-ep2"), ("beat", "beat-ep2"), ("cosign:anna", "cosign-anna-ep2")]
)
def test_every_role_is_rotated(role: str, file: str) -> None:
    old = kid(*role.split(":"))
    assert view("rotate", "--role", role, *ROOTS)["private"] == f"keys/{file}.pem"
    assert kid(*role.split(":")) != old


def test_a_root_is_replaced_by_name() -> None:
    assert "say --replaces with one of" in error_of("rotate", "--role", "root", *ROOTS).message
    assert error_of("rotate", "--role", "root", "--replaces", "nobody", *ROOTS).code == "unknown_key"
    gone = FileSigner.load(Path("keys/root-3.pem")).kid
    assert view("rotate", "--role", "root", "--replaces", gone, *ROOTS)["removed"] == [gone]
    assert error_of("rotate", "--role", "beat", "--root", "keys/root-3.pem", *ROOTS).code == "wrong_role"
    assert view("rotate", "--role", "beat", "--root", "keys/root-ep2.pem", "--root", "keys/root-1.pem")["epoch"] == 3


def test_a_new_artifact_key_keeps_the_limits_of_the_old() -> None:
    done("rotate", "--role", "artifact", "--hw", "door-a", *ROOTS)
    done("rotate", "--role", "artifact", *ROOTS)
    assert [key["hw"] for key in view("list")["keys"] if key["role"] == "artifact"] == [["door-a"]]


def test_too_few_roots_write_nothing() -> None:
    error = error_of("rotate", "--role", "trigger", "--root", "keys/root-1.pem")
    assert (type(error), error.code) == (RequestError, "too_few_signers")
    assert error_of("revoke", kid("root"), "--root", "keys/root-1.pem").code == "too_few_signers"


@pytest.mark.parametrize("role", ["cosign", "trigger:anna", "driver", "cosign:Anna"])
def test_a_wrong_role_is_explained(role: str) -> None:
    result = keys("rotate", "--role", role, *ROOTS)
    assert result.exit_code in (1, 2)
    assert role.rpartition(":")[2] in result.output + str(result.exception)


def test_a_key_from_elsewhere_may_begin_with_a_dash() -> None:
    assert error_of("revoke", "-Kabcdef", *ROOTS).message.startswith("there is no key -Kabcdef;")


def test_nothing_gets_weaker_by_accident() -> None:
    error = error_of("revoke", kid("beat"), *ROOTS)
    assert (error.code, "--allow-lost-role" in error.message) == ("weaker_keyset", True)
    assert error_of("revoke", kid("cosign", "bob"), *ROOTS).code == "need_unmet"
    error = error_of("revoke", kid("cosign", "bob"), "--need-cosign", "1", *ROOTS)
    assert (error.code, "--allow-fewer-cosigners" in error.message) == ("weaker_keyset", True)
    shown = view("revoke", kid("cosign", "bob"), "--need-cosign", "1", "--allow-fewer-cosigners", *ROOTS)
    assert (shown["epoch"], view("list")["need_cosign"]) == (2, 1)


def test_roots_on_separate_machines() -> None:
    done("make", "carl/carl.pem")
    shown = view("propose", "--add", "cosign:carl=carl/carl.pub.pem", "--need-cosign", "3")
    assert (shown["keyset"], shown["accepted"], shown["held_roots"]) == ("keys/keyset-2.json", False, "0 of 2")
    Path("usb").mkdir()
    for name in ("keyset-2.json", "device-keys.json"):
        Path("usb", name).write_bytes(Path("keys", name).read_bytes())
    held = ("--held", "usb/device-keys.json")
    assert keys("check", "usb/keyset-2.json", *held).exit_code == 1
    done("sign", "usb/keyset-2.json", "--root", "keys/root-2.pem", *held)
    unready = keys("check", "usb/keyset-2.jws", *held)
    assert (unready.exit_code, "signed by 1 of 2 roots" in unready.output) == (1, True)
    assert FileSigner.load(Path("keys/root-3.pem")).kid in unready.output
    assert error_of("take", "usb/keyset-2.jws", *held).code == "too_few_signers"
    assert error_of("sign", "usb/keyset-2.json", "--root", "keys/root-2.pem", *held).code == "keys_exist"
    done("sign", "usb/keyset-2.jws", "--root", "keys/root-3.pem", *held)
    ready = keys("check", "usb/keyset-2.jws", *held)
    assert (ready.exit_code, "devices take it" in ready.output) == (0, True)
    assert f"+ cosign {shown['added'][0]['kid']} carl" in ready.output
    assert view("take", "usb/keyset-2.jws")["epoch"] == 2
    assert (kid("cosign", "carl"), view("list")["need_cosign"]) == (shown["added"][0]["kid"], 3)
    assert error_of("sign", "usb/keyset-2.jws", "--root", "keys/root-1.pem").code == "wrong_version"


def test_whoever_signs_sees_what_gets_weaker() -> None:
    done("propose", "--need-root", "1", "--allow-fewer-roots")
    error = error_of("sign", "keys/keyset-2.json", "--root", "keys/root-1.pem")
    assert error.code == "weaker_keyset"
    output = done("sign", "keys/keyset-2.json", "--root", "keys/root-1.pem", "--allow-fewer-roots")
    assert "weaker: 1 instead of 2 root keys will be able to replace every key" in output


def test_a_bent_keyset_is_not_taken() -> None:
    done("rotate", "--role", "beat", *ROOTS)
    path, held = Path("keys/keyset-2.jws"), "keys/device-keys-1.json"
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1][:-4] + (b"AAAA" if lines[1][-4:] != b"AAAA" else b"BBBB")
    path.write_bytes(b"\n".join(lines))
    result = keys("check", "keys/keyset-2.jws", "--held", held)
    assert (result.exit_code, "bad_signature" in result.output or "high_s" in result.output) == (1, True)
    assert isinstance(error_of("take", "keys/keyset-2.jws", "--held", held), TrustError)


def test_a_root_in_a_token_signs(soft_token: SoftToken) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    Path("token.pem").write_bytes(public_pem(key.public_key()))
    uri = soft_token.uri(soft_token.put_key(key), pin=False)
    done("propose", "--add", "root=token.pem")
    done("sign", "keys/keyset-2.json", "--root", "keys/root-1.pem")
    done("sign", "keys/keyset-2.jws", "--root", "keys/root-2.pem")
    done("take", "keys/keyset-2.jws")
    pin = ("--pin-file", str(soft_token.pin_file))
    assert view("rotate", "--role", "trigger", "--root", uri, "--root", "keys/root-1.pem", *pin)["epoch"] == 3


def test_a_keyset_that_lies_there_already_is_not_passed_over() -> None:
    done("propose", "--need-cosign", "1", "--allow-fewer-cosigners")
    done("sign", "keys/keyset-2.json", "--root", "keys/root-1.pem", "--allow-fewer-cosigners")
    error = error_of("rotate", "--role", "beat", *ROOTS)
    assert (error.code, "keyset-2.jws exists" in error.message) == ("keys_exist", True)
    spare = FileSigner.load(Path("keys/root-3.pem")).kid
    assert error_of("revoke", spare, *ROOTS).code == "keys_exist"


def test_export_writes_every_form() -> None:
    text = done("export")
    assert '#define OTA_DEPLOYMENT "my-fleet"' in text
    assert json.loads(done("export", "--format", "json")) == json.loads(PUBLIC.read_text())
    assert done("export", "--format", "pem").count("BEGIN PUBLIC KEY") == len(load_device_keys(PUBLIC).keys)
    assert done("export", "--file", "ota_keys.h") == "wrote ota_keys.h\n"
    assert Path("ota_keys.h").read_text() == text
    assert view("export", "--format", "pem")["text"].startswith("# artifact")


def test_a_key_is_made_once() -> None:
    shown = view("make", "one.pem")
    assert (shown["private"], shown["public"]) == ("one.pem", "one.pub.pem")
    assert FileSigner.load(Path("one.pem")).kid == shown["kid"]
    assert isinstance(error_of("make", "one.pem"), ConflictError)


def test_a_keyset_goes_to_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[Any, ...]] = []

    def post(self: Client, path: str, body: object, *, wait: bool = False) -> Any:
        sent.append((path, body, wait))
        return {"deployment": "my-fleet", "epoch": 2, "faults": ["No trigger key at hand is good."]}

    monkeypatch.setattr(Client, "post", post)
    done("rotate", "--role", "beat", *ROOTS)
    Path("token").write_text("a-token\n")
    words = ["keys", "submit", "keys/keyset-2.jws", "--reason", "a year is over", "--wait"]
    result = CliRunner().invoke(cli, ["--token-file", "token", *words])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "the daemon and all devices of my-fleet go on with keyset 2",
        "  No trigger key at hand is good.",
    ]
    lines = Path("keys/keyset-2.jws").read_text()
    assert sent == [("/keyset", {"lines": lines, "reason": "a year is over", "break_glass": "", "force": False}, True)]
