"""Logins and rights for mosquitto's dynamic security plugin, as the document that the plugin loads.

Rules:
- Everything is denied unless it stands here, subscriptions included.
- Each device has a role of its own with literal topics: patterns with the login in them work from mosquitto 2.1 only.
- A login is bound to the client identifier of the same name.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterable
from typing import Any

from orchestrator.doctor.party import Login
from orchestrator.errors import RequestError
from orchestrator.wire import topics
from orchestrator.wire.topics import Channel

DAEMON = "ota-orchestrator"
WITNESS = "ota-doctor"
BRIDGE = "ota-bridge"
LISTENER = "ota-events"
ITERATIONS = 101
"""Of PBKDF2, as mosquitto does it. It is little: passwords of devices must be random, not chosen."""
_SALT_BYTES = 12

_OURS = (DAEMON, WITNESS, BRIDGE, LISTENER)

Json = dict[str, Any]


def document(logins: Iterable[Login], salt: Callable[[int], bytes] = os.urandom) -> Json:
    """Return the plugin's document.

    Args:
        logins: the daemon (`ota-orchestrator`), the witness of the doctor (`ota-doctor`), the bridge between two
            brokers (`ota-bridge`) and whoever listens to events (`ota-events`) where they are wanted, and the devices;
            a login without a password comes in by its certificate.
        salt: source of random bytes.

    Raises:
        RequestError: a login is there twice, is no identifier, or the daemon's is missing.
    """
    known: dict[str, Login] = {}
    for login in logins:
        if not topics.is_identifier(login.name):
            raise RequestError(f"{login.name[:80]!r} cannot be a login: it is no identifier", code="bad_identifier")
        if login.name in known:
            raise RequestError(f"the login {login.name} is there twice", code="login_twice")
        known[login.name] = login
    if DAEMON not in known:
        raise RequestError(f"the login {DAEMON} of the daemon is missing; add it", code="no_daemon_login")
    devices = [name for name in known if name not in _OURS]
    others = [role() for name, role in ((BRIDGE, _bridge_role), (LISTENER, _listener_role)) if name in known]
    return {
        "defaultACLAccess": {
            "publishClientSend": False,
            "publishClientReceive": False,
            "subscribe": False,
            "unsubscribe": True,
        },
        "clients": [_client(login, salt) for login in known.values()],
        "groups": [],
        "roles": [_daemon_role(), _witness_role(), *others, _common_role(), *map(_device_role, devices)],
    }


def _client(login: Login, salt: Callable[[int], bytes]) -> Json:
    roles = [login.name] if login.name in _OURS else ["device", f"device-{login.name}"]
    client: Json = {
        "username": login.name,
        "clientid": login.name,
        "roles": [{"rolename": role, "priority": 0} for role in roles],
    }
    if login.password is not None:
        seasoning = salt(_SALT_BYTES)
        hashed = hashlib.pbkdf2_hmac("sha512", login.password.encode(), seasoning, ITERATIONS)
        client["password"] = base64.b64encode(hashed).decode()
        client["salt"] = base64.b64encode(seasoning).decode()
        client["iterations"] = ITERATIONS
    return client


def _daemon_role() -> Json:
    said = [topics.command("+"), topics.KEYSETS, topics.beat_of("+"), topics.group_command("+"), topics.EVENTS]
    return _role(DAEMON, says=said, hears=[topics.EVERYTHING])


def _witness_role() -> Json:
    role = _role(
        WITNESS, says=[topics.command("+"), topics.beat_of(WITNESS), topics.event(WITNESS)], hears=[topics.EVERYTHING]
    )
    # It joins a group of its own, to see whether a device can join as well.
    shared = f"$share/{WITNESS}/{topics.uplink('+', Channel.REPORT)}"
    return {**role, "acls": [*role["acls"], _allow("subscribeLiteral", shared)]}


def _bridge_role() -> Json:
    return _role(BRIDGE, says=[topics.EVERYTHING], hears=[topics.EVERYTHING])


def _listener_role() -> Json:
    return _role(LISTENER, says=[], hears=[topics.EVENTS])


def _common_role() -> Json:
    return _role("device", says=[], hears=[topics.KEYSETS, topics.beat_of("+")])


def _device_role(device: str) -> Json:
    said = [topics.uplink(device, channel) for channel in Channel]
    return _role(f"device-{device}", says=said, hears=[topics.command(device)])


def _role(name: str, *, says: Iterable[str], hears: Iterable[str]) -> Json:
    heard = list(hears)
    acls = [_allow("publishClientSend", topic) for topic in says]
    acls += [_allow("subscribePattern", topic) for topic in heard]
    acls += [_allow("publishClientReceive", topic) for topic in heard]
    return {"rolename": name, "acls": acls}


def _allow(kind: str, topic: str) -> Json:
    return {"acltype": kind, "topic": topic, "priority": 0, "allow": True}
