"""What devices are provisioned with: all forms say the same."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from orchestrator.adapters.keys import KeyPlan, create_keys, kid_of, load_device_keys
from orchestrator.adapters.provisioning import as_c_header, as_json, as_pem
from orchestrator.verifier import Keyset, load_keyset

FIELD = re.compile(r" {8}\.([a-z]+) = (.*?),\n(?= {8}\.| {4}\})", re.DOTALL)


@pytest.fixture
def keyset(tmp_path: Path) -> Keyset:
    create_keys(tmp_path, "my-fleet", epoch=3, plan=KeyPlan(cosigners=("anna", "bob"), expires_at={"trigger": 2**33}))
    made = load_device_keys(tmp_path / "device-keys.json")
    first = dataclasses.replace(next(iter(made.keys.values())), nbf=7, hw=("door-a", "door-b"))
    return dataclasses.replace(made, keys=made.keys | {first.kid: first})


def test_json_is_the_document(keyset: Keyset) -> None:
    assert load_keyset(as_json(keyset).encode()) == keyset


def test_pem_holds_every_key_below_its_name(keyset: Keyset) -> None:
    blocks = as_pem(keyset).split("# ")[1:]
    assert len(blocks) == len(keyset.keys)
    for key, block in zip(keyset.keys.values(), blocks, strict=True):
        assert block.split()[1] == key.kid
        assert kid_of(load_pem_public_key(block.partition("\n")[2].encode())) == key.kid  # type: ignore[arg-type]
    assert blocks[-1].splitlines()[0] == f"cosign {list(keyset.keys)[-1]} bob"


def test_the_c_header_says_what_the_keyset_says(keyset: Keyset) -> None:
    text = as_c_header(keyset)
    names = dict(re.findall(r"^#define (\w+) (.*)$", text, re.MULTILINE))
    assert names["OTA_DEPLOYMENT"] == '"my-fleet"'
    assert (names["OTA_KEY_EPOCH"], names["OTA_NEED_ROOT"], names["OTA_NEED_COSIGN"]) == ("3ULL", "2", "2")
    assert names["OTA_KEY_COUNT"] == str(len(keyset.keys))
    entries = text.partition("ota_keys[OTA_KEY_COUNT] = {")[2].split("    {\n")[1:]
    for key, entry in zip(keyset.keys.values(), entries, strict=True):
        fields = dict(FIELD.findall(entry))
        assert fields["kid"] == f'"{key.kid}"'
        assert bytes(int(word, 16) for word in re.findall(r"0x([0-9a-f]{2})", fields["x"])) == key.x
        assert bytes(int(word, 16) for word in re.findall(r"0x([0-9a-f]{2})", fields["y"])) == key.y
        assert (fields["nbf"], fields["exp"]) == (f"{key.nbf}ULL", f"{key.exp or 0}ULL")
        assert (fields["who"], fields["hw"]) == (f'"{key.who}"', f'"{" ".join(key.hw)}"')
        assert fields["typ"] in names
