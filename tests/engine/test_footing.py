"""On which keyset the daemon stands, and which documents it is kept from believing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from orchestrator.engine.trust.footing import check_footing, footing_of, remember
from orchestrator.errors import ConfigError
from orchestrator.ports import Tx
from orchestrator.verifier import Keyset
from tests.support.factory import DEPLOYMENT, KEYS, Plant


def keyset(epoch: int, *, keys: int = len(KEYS)) -> Keyset:
    return Keyset(DEPLOYMENT, epoch, dict(list(KEYS.items())[:keys]), 1, 1)


def test_the_first_start_stands_on_what_it_is_given() -> None:
    check_footing(keyset(7), None)


def test_the_same_keyset_in_another_order_is_the_same() -> None:
    turned = replace(keyset(3), keys=dict(reversed(KEYS.items())))
    assert list(turned.keys) != list(keyset(3).keys)
    check_footing(turned, footing_of(keyset(3)))


@pytest.mark.parametrize(
    ("found", "last", "said"),
    [
        (
            keyset(4),
            keyset(3),
            "trust.public_keys_file: it holds keyset 4, and keyset 3 is the last that devices were given. Put the "
            "document of keyset 3 (`ota keys` keeps it as device-keys-3.json) there, start, and hand keyset-4.jws to "
            "`ota keys submit`, one after the other. If all devices were provisioned anew with it, start once with "
            "`ota serve --accept-keyset 4`",
        ),
        (keyset(6), keyset(3), "hand keyset-4.jws and keyset-6.jws to `ota keys submit`, one after the other"),
        (keyset(2), keyset(3), "it leads to keyset 2, and devices were given keyset 3. Put the document of keyset 3 "),
        (keyset(3), keyset(3, keys=1), "it holds another keyset 3 than the one that devices were given"),
        (keyset(3), replace(keyset(3), need_root=2), "it holds another keyset 3"),
        (keyset(3), replace(keyset(3), iss="another"), "it holds another keyset 3"),
    ],
    ids=["ahead", "far ahead", "behind", "other keys", "other threshold", "other deployment"],
)
def test_another_keyset_is_refused_until_a_person_says_that_devices_hold_it(
    found: Keyset, last: Keyset, said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        check_footing(found, footing_of(last))
    assert said in error.value.message
    check_footing(found, footing_of(last), found.ep)


def test_what_a_person_says_is_no_leave_for_other_keysets() -> None:
    with pytest.raises(
        ConfigError, match="--accept-keyset 4: the document of trust.public_keys_file leads to keyset 5"
    ):
        check_footing(keyset(5), footing_of(keyset(3)), 4)


async def test_what_is_believed_is_on_disk_and_in_the_audit_log(it: Plant) -> None:
    def told(tx: Tx) -> list[tuple[str, str, str]]:
        found = [item for item in tx.audit_entries(0, 100) if item.action == "keyset.trusted"]
        return [(item.actor, item.object, json.loads(item.detail)["why"]) for item in found]

    for made in (keyset(3), keyset(3), keyset(9)):
        await it.write(lambda tx, made=made: remember(tx, made, 5.0))
        assert await it.store.read(lambda tx: tx.footing()) == footing_of(made)
    assert await it.store.read(told) == [
        ("orchestrator", "keyset 3", "none was known before"),
        ("orchestrator", "keyset 9", "a person says that devices hold it; it was 3 before"),
    ]
