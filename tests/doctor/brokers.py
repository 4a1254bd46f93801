"""Real mosquittos on the shipped files, in both modes of access and both modes of logging in."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.demo.broker import HOST, SHIPPED, find_mosquitto, free_port, render
from orchestrator.doctor import dynsec
from orchestrator.doctor.party import Address, Login, Party
from tests.adapters.mqtt.certificates import Authority

NAMES = (dynsec.DAEMON, dynsec.WITNESS, dynsec.LISTENER, "dev-a", "dev-b")
STRANGER = "stranger"
"""Somebody with a certificate, or with a password that the broker does not know."""


@dataclass(frozen=True)
class Place:
    """A running broker and who may come in."""

    address: Address
    logins: dict[str, Login]

    def __getitem__(self, name: str) -> Login:
        return self.logins[name]

    def enter(self, name: str) -> Party:
        return Party(self.address, self.logins[name])


@contextmanager
def place(folder: Path, access: str, identity: str) -> Iterator[Place]:
    """Run mosquitto as shipped.

    Args:
        folder: where its files go.
        access: `acl`, `dynsec`, `loose` where devices may speak to the plugin, or `none` for no rules at all.
        identity: `passwords` or `certificates`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    address, logins, listener = _identity(folder, identity)
    lines = [f"persistence_location {folder}/", "log_dest stderr", _limits(), _access(folder, access, logins), listener]
    if os.geteuid() == 0:
        lines.insert(0, "user root")
    with running("\n".join(lines), folder, address.port):
        yield Place(address, logins)


@contextmanager
def running(configuration: str, folder: Path, port: int) -> Iterator[None]:
    """Run mosquitto on a configuration."""
    program = find_mosquitto()
    assert program, "mosquitto is not installed; run scripts/setup broker"
    (folder / "mosquitto.conf").write_text(configuration)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-c", str(folder / "mosquitto.conf")], stderr=log)
    try:
        _await_port(process, port, folder / "log")
        yield
    finally:
        process.terminate()
        process.wait(10)


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection((HOST, port), 1).close()
            return
        except OSError:
            time.sleep(0.01)
    raise AssertionError(log.read_text())


def _limits() -> str:
    return render((SHIPPED / "ota.conf").read_text(), {"listener": f"{free_port()} {HOST}"})


def _access(folder: Path, access: str, logins: dict[str, Login]) -> str:
    if access == "none":
        return "allow_anonymous true\n"
    known = [logins[name] for name in NAMES]
    if access in ("dynsec", "loose"):
        document = folder / "dynsec.json"
        rights = dynsec.document(known)
        if access == "loose":
            (common,) = [role for role in rights["roles"] if role["rolename"] == "device"]
            for kind in ("publishClientSend", "publishClientReceive", "subscribePattern"):
                common["acls"].append({"acltype": kind, "topic": "$CONTROL/#", "allow": True, "priority": 0})
        document.write_text(json.dumps(rights))
        shipped = (SHIPPED / "ota-dynsec.conf").read_text()
        (plugin,) = Path("/usr/lib").glob("*/mosquitto_dynamic_security.so")
        return render(shipped, {"plugin": str(plugin), "plugin_opt_config_file": str(document)})
    passwords = folder / "passwd"
    passwords.touch(mode=0o600)
    passwords.write_text("".join(f"{login.name}:{login.password or 'unused'}\n" for login in known))
    subprocess.run(["mosquitto_passwd", "-U", str(passwords)], check=True)
    changes: dict[str, str | None] = {"password_file": str(passwords), "acl_file": str(SHIPPED / "acl")}
    return render((SHIPPED / "ota-acl.conf").read_text(), changes)


def _identity(folder: Path, identity: str) -> tuple[Address, dict[str, Login], str]:
    authority = Authority(folder, "ours")
    server, port = authority.issue("broker"), free_port()
    address = Address(HOST, port, tls=True, ca_file=authority.cert)
    changes: dict[str, str | None] = {"listener": f"{port} {HOST}", "certfile": server.cert, "keyfile": server.key}
    if identity == "certificates":
        pairs = {name: authority.issue(name) for name in (*NAMES, STRANGER)}
        logins = {name: Login(name, cert_file=pair.cert, key_file=pair.key) for name, pair in pairs.items()}
        return (
            address,
            logins,
            render((SHIPPED / "ota-certificates.conf").read_text(), changes | {"cafile": authority.cert}),
        )
    logins = {name: Login(name, secrets.token_hex(8)) for name in (*NAMES, STRANGER)}
    return address, logins, render((SHIPPED / "ota-tls.conf").read_text(), changes)
