"""Keys in tokens: the URI, what a token refuses, and what happens when it goes away."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pkcs11
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.signers import open_signer
from orchestrator.adapters.signers.file import FileSigner
from orchestrator.adapters.signers.pkcs11 import TokenKey, TokenSigner, parse_uri
from orchestrator.errors import ForbiddenError, NotFoundError, OrchestratorError, RequestError, UnavailableError
from tests.support.softhsm import PIN, SoftToken

KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="session")
def label(soft_tokens: tuple[SoftToken, SoftToken]) -> str:
    return soft_tokens[0].put_key(KEY)


def test_a_uri_is_read() -> None:
    text = (
        "pkcs11:token=My%20token;serial=01;object=trigger;id=%00%01;type=private?module-path=/m.so&pin-source=file:/pin"
    )
    assert parse_uri(text) == TokenKey(Path("/m.so"), "My token", b"01", "trigger", bytes([0, 1]), Path("/pin"))
    assert parse_uri("pkcs11:token=a;object=b?module-path=/m.so").pin_file is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "begin it with pkcs11:"),
        ("pkcs11:" + "a" * 1024, "below 1,024"),
        ("pkcs11:token=a;object=b", "module-path must be an absolute path"),
        ("pkcs11:token=a;object=b?module-path=m.so", "module-path must be an absolute path"),
        ("pkcs11:token=a;object=b?module-path=/m.so&pin-source=pin", "pin-source must be an absolute path"),
        ("pkcs11:token=a;object=b?module-path=/m.so&pin-value=123456", "a PIN never stands in it"),
        ("pkcs11:token=a;object=b;pin-value=123456?module-path=/m.so", "a PIN never stands in it"),
        ("pkcs11:object=b?module-path=/m.so", "name the token by"),
        ("pkcs11:token=a?module-path=/m.so", "and the key by"),
        ("pkcs11:token=a;object=b;type=public?module-path=/m.so", "type must be private"),
        ("pkcs11:token=a;object=b;slot-id=1?module-path=/m.so", "'slot-id' is not looked at"),
        ("pkcs11:token=a;token=a;object=b?module-path=/m.so", "token must stand there once"),
        ("pkcs11:token=a;object=?module-path=/m.so", "object must stand there once"),
        ("pkcs11:token=a;object=b c?module-path=/m.so", "other signs are written as %XX"),
        ("pkcs11:token=a;object=b%2?module-path=/m.so", "other signs are written as %XX"),
        ("pkcs11:token=%ff;object=b?module-path=/m.so", "is not text"),
        ("pkcs11:token=%0a;object=b?module-path=/m.so", "control characters"),
    ],
)
def test_a_wrong_uri_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(RequestError, match="the pkcs11: URI cannot be used") as error:
        parse_uri(text)
    assert reason in error.value.message
    assert error.value.code == "bad_pkcs11_uri"
    assert "123456" not in error.value.message


@given(
    st.text(max_size=200) | st.from_regex(r"pkcs11:((token|object|id|serial)=[a%0-9;]*)*\?[a-z/=&-]*", fullmatch=True)
)
def test_any_text_is_a_place_or_refused(text: str) -> None:
    for candidate in (text, f"pkcs11:{text}", f"pkcs11:token=a;object=b?module-path=/m.so&pin-source={text}"):
        try:
            place = parse_uri(candidate)
        except RequestError as error:
            assert error.code == "bad_pkcs11_uri"
        else:
            assert place.module.is_absolute() and (place.token or place.serial) and (place.label or place.id)


def test_a_token_signs_what_the_same_key_in_a_file_would(soft_token: SoftToken, label: str) -> None:
    signer = TokenSigner.load(soft_token.uri(label))
    assert (signer.kid, signer.x, signer.y) == (FileSigner(KEY).kid, FileSigner(KEY).x, FileSigner(KEY).y)
    assert open_signer(soft_token.uri(label, pin=False), soft_token.pin_file).kid == signer.kid


def test_two_keys_of_one_token_sign_side_by_side(soft_token: SoftToken, label: str) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    signers = [open_signer(soft_token.uri(name)) for name in (label, soft_token.put_key(other))]
    assert [signer.kid for signer in signers] == [FileSigner(KEY).kid, FileSigner(other).kid]
    for number in range(4):
        assert len(signers[number % 2].sign(b"data")) == 64


def test_what_is_not_there(soft_token: SoftToken, label: str, tmp_path: Path) -> None:
    def refusal(uri: str) -> OrchestratorError:
        with pytest.raises(OrchestratorError) as error:
            open_signer(uri)
        return error.value

    uri = soft_token.uri(label)
    assert (type(error := refusal(uri.replace(label, "none"))), error.code) == (NotFoundError, "no_key")
    assert (type(error := refusal(uri.replace("=first", "=third"))), error.code) == (NotFoundError, "no_token")
    missing = uri.replace(str(soft_token.module), "/nonexistent.so")
    assert (type(error := refusal(missing)), error.code) == (NotFoundError, "no_module")
    (tmp_path / "module.so").write_text("not a library")
    broken = uri.replace(str(soft_token.module), str(tmp_path / "module.so"))
    assert (type(error := refusal(broken)), error.code) == (RequestError, "bad_module")
    no_pin = uri.replace(str(soft_token.pin_file), str(tmp_path / "pin"))
    assert (type(error := refusal(no_pin)), error.code) == (NotFoundError, "no_pin")


@pytest.mark.parametrize("content", [b"", b"\n", b"12\n34\n", b"\xff\xff", b"1" * 257])
def test_a_pin_file_holds_one_line(soft_token: SoftToken, label: str, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pin").write_bytes(content)
    (tmp_path / "pin").chmod(0o600)
    with pytest.raises(RequestError, match="PIN file") as error:
        open_signer(soft_token.uri(label, pin=False), tmp_path / "pin")
    assert error.value.code == "bad_pin"


def test_a_pin_that_others_may_read_is_refused(soft_token: SoftToken, label: str, tmp_path: Path) -> None:
    (tmp_path / "pin").write_text(PIN)
    (tmp_path / "pin").chmod(0o640)
    with pytest.raises(ForbiddenError, match="run `chmod 600") as error:
        open_signer(soft_token.uri(label, pin=False), tmp_path / "pin")
    assert PIN not in error.value.message


def test_a_wrong_pin_is_said_and_not_repeated(soft_tokens: tuple[SoftToken, SoftToken], tmp_path: Path) -> None:
    second = soft_tokens[1]  # nobody has logged in to this one: a login holds for all of the process
    label = second.put_key(KEY)
    with pytest.raises(ForbiddenError, match="shows no such key without a PIN"):
        open_signer(second.uri(label, pin=False))
    (tmp_path / "pin").write_text("31415926")
    (tmp_path / "pin").chmod(0o600)
    with pytest.raises(ForbiddenError, match="refuses the PIN") as error:
        open_signer(second.uri(label, pin=False), tmp_path / "pin")
    assert error.value.code == "pin_refused"
    assert "31415926" not in error.value.message


def test_another_curve_is_refused(soft_token: SoftToken) -> None:
    label = soft_token.put_key(ec.generate_private_key(ec.SECP384R1()))
    with pytest.raises(RequestError, match="ES256 needs P-256"):
        open_signer(soft_token.uri(label))


def test_several_keys_of_one_name_are_not_guessed_between(soft_token: SoftToken) -> None:
    label = soft_token.put_key(ec.generate_private_key(ec.SECP256R1()))
    path = soft_token.pin_file.with_name(f"{label}.pem")
    soft_token.run("--import", str(path), "--token", "first", "--label", label, "--id", "ffff", "--force")
    with pytest.raises(RequestError, match="several fit") as error:
        open_signer(soft_token.uri(label))
    assert error.value.code == "ambiguous"
    assert open_signer(soft_token.uri(f"{label};id=%ff%ff")).kid


class Away:
    """A key object whose token was pulled out, or answers nonsense."""

    def __init__(self, answer: Exception | bytes) -> None:
        self.answer = answer

    def sign(self, *_: Any, **__: Any) -> bytes:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("answer", [pkcs11.DeviceRemoved(), pkcs11.SessionHandleInvalid(), b"short"])
def test_a_token_that_went_away_is_found_again(soft_token: SoftToken, label: str, answer: Exception | bytes) -> None:
    signer = TokenSigner.load(soft_token.uri(label))
    signer._key = Away(answer)
    with pytest.raises(UnavailableError, match="does not work now") as error:
        signer.sign(b"data")
    assert error.value.code == "token_away"
    assert len(signer.sign(b"data")) == 64


def test_a_token_that_comes_back_with_another_key_signs_nothing(soft_token: SoftToken, label: str) -> None:
    signer = TokenSigner.load(soft_token.uri(label))
    signer._key, signer.x = None, bytes(32)
    with pytest.raises(UnavailableError, match="holds another key by now"):
        signer.sign(b"data")


def test_a_token_that_stays_away_is_waited_for(
    soft_token: SoftToken, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: TokenKey) -> None:
        raise pkcs11.NoSuchToken

    signer = TokenSigner.load(soft_token.uri(label))
    signer._key = None
    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.adapters.signers.pkcs11._token", gone)
        with pytest.raises(UnavailableError, match="is not there"):
            signer.sign(b"data")
    assert len(signer.sign(b"data")) == 64


def test_a_token_that_does_not_work_is_not_the_callers_fault(
    soft_token: SoftToken, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise pkcs11.DeviceError

    monkeypatch.setattr(TokenSigner, "_session", fail)
    with pytest.raises(UnavailableError, match=r"does not work now \(DeviceError\)"):
        open_signer(soft_token.uri(label))


def test_a_pin_that_was_refused_is_never_tried_again(
    soft_token: SoftToken, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def refuse(self: TokenSigner, token: Any) -> None:
        tries.append(token)
        raise pkcs11.PinIncorrect

    signer = TokenSigner.load(soft_token.uri(label))
    signer._key = None
    monkeypatch.setattr(TokenSigner, "_session", refuse)
    for _ in range(3):
        with pytest.raises(UnavailableError, match="refuses the PIN"):
            signer.sign(b"data")
    assert len(tries) == 1


def test_without_the_package_we_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "orchestrator.adapters.signers.pkcs11", None)
    with pytest.raises(RequestError, match=r"install ota-orchestrator\[pkcs11\]") as error:
        open_signer("pkcs11:token=a;object=b?module-path=/m.so")
    assert error.value.code == "no_pkcs11"
