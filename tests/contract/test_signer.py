"""The contract of `ports.Signer`, run on every implementation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.adapters.keys import create_keys
from orchestrator.adapters.signers import open_signer
from orchestrator.adapters.signers.file import FileSigner
from orchestrator.ports import Signer
from orchestrator.verifier import TRIGGER, PublicKey, load_keys, open_token
from orchestrator.wire.token import TokenType, assemble, signing_input
from tests.golden import kit
from tests.support.softhsm import SoftToken

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
Pair = tuple[Signer, dict[str, PublicKey]]


def _from_file(directory: Path) -> Pair:
    create_keys(directory, "test-fleet")
    return FileSigner.load(directory / "trigger.pem"), load_keys((directory / "device-keys.json").read_bytes())


def _checked_file(directory: Path) -> Pair:
    _, keys = _from_file(directory)
    return open_signer(directory / "trigger.pem"), keys


def _in_memory(_: Path) -> Pair:
    signer = FileSigner(ec.generate_private_key(ec.SECP256R1()))
    return signer, {signer.kid: PublicKey(signer.kid, TRIGGER, signer.x, signer.y)}


def _in_token(token: SoftToken) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    known = FileSigner(key)
    signer = open_signer(token.uri(token.put_key(key)))
    return signer, {known.kid: PublicKey(known.kid, TRIGGER, known.x, known.y)}


@pytest.fixture(params=[_from_file, _checked_file, _in_memory, _in_token], ids=["file", "checked", "memory", "token"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    make: Callable[..., Pair] = request.param
    return make(request.getfixturevalue("soft_token") if make is _in_token else tmp_path / "keys")


def test_devices_verify_what_is_signed(pair: Pair) -> None:
    signer, keys = pair
    for seq in range(1, 51):
        claims = kit.offer({"seq": seq, "ast": kit.IMAGE})
        signed = signing_input(TokenType.TRIGGER, signer.kid, claims)
        assert open_token(assemble(signed, signer.sign(signed)), TRIGGER, keys) == claims


def test_signatures_are_64_bytes_with_low_s(pair: Pair) -> None:
    signer, _ = pair
    for number in range(100):
        signature = signer.sign(str(number).encode())
        assert len(signature) == 64
        assert 0 < int.from_bytes(signature[32:], "big") <= ORDER // 2


def test_the_kid_is_the_one_that_devices_know(pair: Pair) -> None:
    signer, keys = pair
    assert keys[signer.kid].typ == TRIGGER
