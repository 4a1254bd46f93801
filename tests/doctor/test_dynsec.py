from __future__ import annotations

import base64
import hashlib

import pytest

from orchestrator.doctor.dynsec import BRIDGE, DAEMON, LISTENER, WITNESS, document
from orchestrator.doctor.party import Login
from orchestrator.errors import RequestError

BASE = [Login(DAEMON, "d"), Login("dev-a", "a"), Login("dev-b")]


def test_a_device_has_its_own_topics_by_name_and_nothing_else() -> None:
    roles = {role["rolename"]: role["acls"] for role in document(BASE)["roles"]}
    assert {(acl["acltype"], acl["topic"]) for acl in roles["device-dev-a"]} == {
        ("publishClientSend", "ota/v1/d/dev-a/report"),
        ("publishClientSend", "ota/v1/d/dev-a/state"),
        ("publishClientSend", "ota/v1/d/dev-a/hello"),
        ("subscribePattern", "ota/v1/d/dev-a/cmd"),
        ("publishClientReceive", "ota/v1/d/dev-a/cmd"),
    }
    assert {(acl["acltype"], acl["topic"]) for acl in roles["device"]} == {
        ("subscribePattern", "ota/v1/keys/+"),
        ("publishClientReceive", "ota/v1/keys/+"),
        ("subscribePattern", "ota/v1/g/+/beat"),
        ("publishClientReceive", "ota/v1/g/+/beat"),
    }
    assert set(roles) == {DAEMON, WITNESS, "device", "device-dev-a", "device-dev-b"}


def test_a_login_is_one_client() -> None:
    clients = document([*BASE, Login(WITNESS, "w")])["clients"]
    assert all(client["clientid"] == client["username"] for client in clients)
    assert {client["username"]: [role["rolename"] for role in client["roles"]] for client in clients} == {
        DAEMON: [DAEMON],
        "dev-a": ["device", "device-dev-a"],
        "dev-b": ["device", "device-dev-b"],
        WITNESS: [WITNESS],
    }


def test_who_listens_to_events_hears_them_and_says_nothing() -> None:
    found = document([*BASE, Login(LISTENER, "x")])
    (acls,) = [role["acls"] for role in found["roles"] if role["rolename"] == LISTENER]
    assert {(acl["acltype"], acl["topic"]) for acl in acls} == {
        ("subscribePattern", "ota/v1/events/#"),
        ("publishClientReceive", "ota/v1/events/#"),
    }


def test_a_bridge_has_a_role_only_where_there_is_one() -> None:
    found = document([*BASE, Login(BRIDGE, "x")])
    (acls,) = [role["acls"] for role in found["roles"] if role["rolename"] == BRIDGE]
    assert {acl["topic"] for acl in acls} == {"ota/v1/#"}
    assert [each["roles"] for each in found["clients"] if each["username"] == BRIDGE] == [
        [{"rolename": BRIDGE, "priority": 0}]
    ]
    assert BRIDGE not in {role["rolename"] for role in document(BASE)["roles"]}


def test_passwords_are_hashed_and_certificates_need_none() -> None:
    daemon, device, certified = document(BASE, salt=lambda size: b"s" * size)["clients"]
    hashed = hashlib.pbkdf2_hmac("sha512", b"a", base64.b64decode(device["salt"]), device["iterations"])
    assert base64.b64decode(device["password"]) == hashed
    assert daemon["password"] != device["password"]
    assert "password" not in certified


def test_what_is_not_allowed_is_denied() -> None:
    access = document(BASE)["defaultACLAccess"]
    assert [name for name, allowed in access.items() if allowed] == ["unsubscribe"]


@pytest.mark.parametrize(
    ("logins", "code"),
    [
        ([Login("dev-a")], "no_daemon_login"),
        ([*BASE, Login("dev-a")], "login_twice"),
        ([*BASE, Login("dev/#")], "bad_identifier"),
    ],
)
def test_a_list_that_cannot_be_right_is_refused(logins: list[Login], code: str) -> None:
    with pytest.raises(RequestError) as caught:
        document(logins)
    assert caught.value.code == code
