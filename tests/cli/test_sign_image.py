"""`ota artifact sign --image-key`: the image is signed for its devices, then the statement made over what comes out."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from orchestrator.cli.inventory import artifact_group
from orchestrator.cli.keys import keys_group
from orchestrator.errors import ConflictError, ForbiddenError, NotFoundError, OrchestratorError, RequestError
from orchestrator.images import inspect
from orchestrator.verifier import ARTIFACT, load_keys, open_token
from orchestrator.wire.token import encode64
from tests.images import forge
from tests.images.updaters import pss_updater, word_updater

N = forge.rsa_key(2048).public_key().public_numbers().n
IMAGES = {
    "esp8266": forge.esp8266(),
    "esp8266-legacy": forge.esp8266(),
    "pico": forge.rp2040(),
    "esp32-arduino": forge.esp32(),
}


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(keys_group, ["init", "--deployment", "my-fleet"]).exit_code == 0
    Path("fw.bin").write_bytes(IMAGES["esp8266"])
    write_key("image.pem", forge.rsa_key(2048))
    return tmp_path


def write_key(name: str, key: object) -> None:
    assert hasattr(key, "private_bytes")
    Path(name).touch(0o600)
    Path(name).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def sign(*extra: str, file: str = "fw.bin", word: str = "esp8266", key: str = "image.pem") -> Result:
    fields = ["--name", "door", "--version", "1.2.0", "--rel", "3", "--hw", "door-a", "--format", word]
    own = ["--image-key", key] if key else []
    return CliRunner().invoke(artifact_group, ["sign", file, "--key", "keys/artifact.pem", *fields, *own, *extra])


def error_of(result: Result) -> OrchestratorError:
    assert isinstance(result.exception, OrchestratorError), result.output
    return result.exception


def left() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


BEFORE = ["fw.bin", "image.pem", "keys"]


@pytest.mark.parametrize("word", IMAGES)
def test_devices_take_the_image_and_its_statement_is_that_of_what_they_get(word: str) -> None:
    Path("fw.bin").write_bytes(IMAGES[word])
    result = sign(word=word)
    assert result.exit_code == 0, result.output
    made = Path("fw.bin.signed").read_bytes()
    if word == "esp32-arduino":
        assert pss_updater(made, N, "sha256")
    else:
        assert word_updater(made, N, legacy=word == "esp8266-legacy") == IMAGES[word]
    assert Path("fw.bin").read_bytes() == IMAGES[word]
    claims = open_token(
        Path("fw.bin.signed.statement").read_bytes(),
        ARTIFACT,
        load_keys(Path("keys/device-keys.json").read_bytes()),
    )
    assert (claims["size"], claims["sha256"], claims["fmt"]) == (
        len(made),
        encode64(hashlib.sha256(made).digest()),
        word,
    )
    verified = CliRunner().invoke(artifact_group, ["verify", "fw.bin.signed"])
    assert verified.exit_code == 0
    assert left() == [*BEFORE[:1], "fw.bin.signed", "fw.bin.signed.statement", *BEFORE[1:]]


def test_it_says_what_it_made() -> None:
    shown = json.loads(sign("-o", "json", "--image-out", "out.bin").stdout)
    assert (shown["image"], shown["signature"], shown["statement"]) == ("out.bin", "esp8266", "out.bin.statement")
    assert shown["size"] == len(IMAGES["esp8266"]) + 260
    assert "signature esp8266" in sign("--replace", "--image-out", "out.bin").stdout


def test_the_public_key_checks_it() -> None:
    sign()
    form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for bits, status in ((2048, 0), (4096, 1)):
        Path("public.pem").write_bytes(forge.rsa_key(bits).public_key().public_bytes(*form))
        result = CliRunner().invoke(
            artifact_group, ["inspect", "fw.bin.signed", "--public-key", "public.pem", "-o", "json"]
        )
        shown = json.loads(result.stdout)
        assert (result.exit_code, shown["verified"], shown["signature"]) == (status, not status, "esp8266")
        assert shown["signed_bytes"] == len(IMAGES["esp8266"])
    unsigned = CliRunner().invoke(artifact_group, ["inspect", "fw.bin", "--public-key", "public.pem"])
    assert (unsigned.exit_code, "[unverified]" in unsigned.output) == (1, True)


def test_a_compressed_image_is_signed_with_a_warning() -> None:
    Path("fw.bin.gz").write_bytes(forge.compressed(IMAGES["esp8266"]))
    result = sign(file="fw.bin.gz")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: it is compressed and signed")
    assert "[gzip_signed]" in result.stderr
    assert word_updater(Path("fw.bin.gz.signed").read_bytes(), N) == Path("fw.bin.gz").read_bytes()


def test_signed_and_then_compressed_is_refused() -> None:
    sign()
    Path("again.gz").write_bytes(forge.compressed(Path("fw.bin.signed").read_bytes()))
    error = error_of(sign(file="again.gz"))
    assert (error.code, "compress first, then sign" in error.message) == ("bad_image", True)
    assert not Path("again.gz.signed").exists()


def test_the_hash_is_that_of_the_sketch() -> None:
    Path("fw.bin").write_bytes(IMAGES["esp32-arduino"])
    assert sign("--image-hash", "sha512", word="esp32-arduino").exit_code == 0
    assert pss_updater(Path("fw.bin.signed").read_bytes(), N, "sha512")
    Path("fw.bin").write_bytes(IMAGES["pico"])
    assert error_of(sign("--image-hash", "sha512", "--replace", word="pico")).code == "wrong_hash"


def test_what_exists_is_replaced_on_purpose_only() -> None:
    sign()
    for gone, code in (("fw.bin.signed", "statement_exists"), ("fw.bin.signed.statement", "image_exists")):
        sign("--replace")
        Path(gone).unlink()
        error = error_of(sign())
        assert (type(error), error.code) == (ConflictError, code)
        assert not Path(gone).exists()
    write_key("image.pem", forge.rsa_key(4096))
    before = Path("fw.bin.signed").read_bytes()
    assert sign("--replace").exit_code == 0
    assert len(Path("fw.bin.signed").read_bytes()) == len(before) + 256


@pytest.mark.parametrize(
    ("code", "kind", "words", "word"),
    [
        ("bad_field", RequestError, ["--rel", "0"], "esp8266"),
        ("bad_image", RequestError, [], "pico"),
        ("not_signable", RequestError, [], "raw"),
        ("unwritable", ForbiddenError, ["--image-out", "nowhere/fw.bin"], "esp8266"),
        ("image_exists", ConflictError, ["--image-out", "keys"], "esp8266"),
        ("unwritable", ForbiddenError, ["--image-out", "keys", "--replace"], "esp8266"),
    ],
)
def test_nothing_is_left_where_anything_fails(code: str, kind: type, words: list[str], word: str) -> None:
    error = error_of(sign(*words, word=word))
    assert (error.code, type(error)) == (code, kind)
    assert left() == BEFORE


def test_keys_that_cannot_be_used_are_named() -> None:
    assert isinstance(error_of(sign(key="none.pem")), NotFoundError)
    assert error_of(sign(key="keys")).code in ("bad_key", "key_exposed")
    write_key("curve.pem", ec.derive_private_key(7, ec.SECP256R1()))
    assert error_of(sign(key="curve.pem")).code == "wrong_key"
    assert error_of(sign(key="fw.bin")).code == "key_exposed"
    Path("fw.bin").chmod(0o600)
    assert error_of(sign(key="fw.bin")).code == "bad_key"
    Path("image.pem").chmod(0o644)
    assert error_of(sign()).code == "key_exposed"
    assert sorted(left()) == sorted([*BEFORE, "curve.pem"])


def test_options_of_the_image_need_its_key() -> None:
    for words in (["--image-out", "x"], ["--image-hash", "sha384"]):
        assert error_of(sign(*words, key="")).code == "no_key"
    assert sign(key="").exit_code == 0
    assert left() == ["fw.bin", "fw.bin.statement", "image.pem", "keys"]


def test_files_that_are_not_there_are_named() -> None:
    assert isinstance(error_of(sign(file="none.bin")), NotFoundError)
    assert error_of(sign(file="keys")).code == "unreadable"


def test_the_signed_image_is_as_readable_as_the_one_of_the_build() -> None:
    Path("fw.bin").chmod(0o640)
    sign()
    assert Path("fw.bin.signed").stat().st_mode & 0o777 == 0o640
    assert inspect(Path("fw.bin.signed")).signature == "esp8266"


def test_a_disk_that_is_full_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    error = error_of(sign())
    assert (type(error), error.code, "No space left" in error.message) == (ForbiddenError, "unwritable", True)
    assert left() == BEFORE


def test_an_image_that_changes_meanwhile_is_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    other = forge.put(IMAGES["esp8266"], 0x800, b"changed")
    monkeypatch.setattr(shutil, "copyfileobj", lambda _, target: target.write(other))
    error = error_of(sign())
    assert (type(error), error.code) == (ConflictError, "changed")
    assert left() == BEFORE
