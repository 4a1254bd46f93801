"""The real RAUC of Debian and the client `rauc-hawkbit` of PyPI as a device, on a bus of their own.

Rules:
- The programs are unchanged. The client's patience after an error is one second, where it has a minute, and the one
  attribute that it knows, `MAC`, says the version: its configuration is all that a bundle could bring it.
- RAUC mounts bundles, for which it is root, in a namespace of mounts of its own. It ends when its input does, so that
  nothing outlives whoever started it.
- Slots are files, and nothing is written but in the device's folder. Its marks there let a test hold an installation.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.real_clients import Enrolled

ATTRIBUTE = "MAC"
"""The attribute by which the client says the version."""

CLIENT = Path(__file__).parents[2] / ".venv" / "clients" / "rauc-hawkbit"
"""Where `scripts/setup clients` installs the client."""

_PATIENCE_S = 60.0
_NEEDED = ("rauc", "dbus-daemon", "mksquashfs", "unshare", "openssl")
_MANIFEST = """[update]
compatible={name}
version={version}

[bundle]
format=plain

[image.rootfs]
filename=rootfs.img
"""
_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:tmpdir=/tmp</listen>
  <policy context="default">
    <allow user="*"/>
    <allow own="de.pengutronix.rauc"/>
    <allow send_destination="*"/>
    <allow send_type="signal"/>
    <allow receive_type="*"/>
  </policy>
</busconfig>
"""
_SYSTEM = """[system]
compatible={name}
bootloader=noop
mountprefix={home}/mounts
statusfile={home}/status

[keyring]
path={authority}

[handlers]
pre-install={home}/pre-install

[slot.rootfs.0]
device={home}/slot-0
type=raw
bootname=A

[slot.rootfs.1]
device={home}/slot-1
type=raw
bootname=B
"""
_HOLD = """#!/bin/sh
touch {home}/installing
while [ -e {home}/hold ]; do sleep 0.05; done
"""
_CLIENT = """[client]
hawkbit_server = {host}
ssl = false
tenant_id = DEFAULT
target_name = {name}
auth_token = {token}
mac_address = {version}
bundle_download_location = {home}/bundle.raucb
log_level = debug
"""
_IMPATIENT = """
import functools, runpy, sys
from rauc_hawkbit.rauc_dbus_ddi_client import RaucDBUSDDIClient as Client
Client.start_polling = functools.partialmethod(Client.start_polling, wait_on_error=1)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
_UNTIL_ITS_INPUT_ENDS = '"$@" & read -r _; kill -9 $!; wait'


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs bundles.

    Attributes:
        key: private key.
        certificate: its certificate, which devices hold.
    """

    key: Path
    certificate: Path


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where bundles are made.

    Attributes:
        folder: for everything.
        signer: whom devices trust.
        stranger: whom they do not.
    """

    folder: Path
    signer: Signer
    stranger: Signer

    def bundle(self, name: str, version: str, payload: bytes, signer: Signer | None = None) -> Path:
        """Make a bundle that puts a payload into the other slot of devices of this name, and return its file."""
        place, file = self.folder / f"{name}-content", self.folder / f"{name}.raucb"
        place.mkdir()
        (place / "rootfs.img").write_bytes(payload)
        (place / "manifest.raucm").write_text(_MANIFEST.format(name=name, version=version))
        by = signer or self.signer
        _run("rauc", "bundle", "--cert", by.certificate, "--key", by.key, place, file)
        return file


def workshop(folder: Path) -> Workshop:
    """Return a workshop in an existing folder."""
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if missing or not (CLIENT / "bin" / "rauc-hawkbit-client").exists():
        pytest.skip(f"{', '.join([*missing, 'rauc-hawkbit'])} not installed; run scripts/setup clients")
    if os.geteuid() and subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode:
        pytest.skip("RAUC mounts bundles, for which it has to be root; allow sudo without a password")
    return Workshop(folder, _signer(folder, "authority"), _signer(folder, "stranger"))


@dataclass(frozen=True, slots=True)
class Unit(Enrolled):
    """A device with RAUC.

    Attributes:
        made: where its bundles are made.
    """

    made: Workshop

    def slot(self, number: int) -> bytes:
        """Return what stands in a slot."""
        return (self.home / f"slot-{number}").read_bytes()

    def hold(self) -> None:
        """Let the next installation wait before it writes."""
        self.home.mkdir(exist_ok=True)
        (self.home / "hold").touch()

    async def installs(self) -> None:
        """Wait until an installation has begun."""
        await self._until((self.home / "installing").exists)

    async def wrote(self, payload: bytes) -> None:
        """Wait until a payload stands in the other slot."""
        await self._until(lambda: self.slot(1) == payload)

    async def logs(self, text: str) -> None:
        """Wait until one of its programs writes something."""
        await self._until(lambda: text in self.log)

    def go_on(self) -> None:
        """Let the installation that waits go on."""
        (self.home / "hold").unlink()

    @contextlib.asynccontextmanager
    async def running(self, version: str, slot: str = "A") -> AsyncIterator[None]:
        """Run the device while it has booted a slot and its firmware says that it is of this version."""
        self._prepare(version)
        async with contextlib.AsyncExitStack() as stack:
            bus = await stack.enter_async_context(
                _process("dbus-daemon", f"--config-file={self.home / 'bus.conf'}", "--nofork", "--print-address=1")
            )
            assert bus.stdout is not None
            address = (await bus.stdout.readline()).decode().strip()
            await stack.enter_async_context(self._service(address, slot))
            program = (CLIENT / "bin" / "python", "-c", _IMPATIENT, CLIENT / "bin" / "rauc-hawkbit-client")
            with (self.home / "log").open("ab") as log:
                client = _process(*program, "-c", self.home / "client.cfg", log=log.fileno(), bus=address)
                await stack.enter_async_context(client)
            yield

    @contextlib.asynccontextmanager
    async def _service(self, address: str, slot: str) -> AsyncIterator[None]:
        """Run RAUC on a bus, from when it answers there."""
        root = ["sudo", "-n"] if os.geteuid() else []
        words = ("env", f"DBUS_SYSTEM_BUS_ADDRESS={address}", "unshare", "--mount", "sh", "-c", _UNTIL_ITS_INPUT_ENDS)
        rauc = ("rauc", f"--conf={self.home / 'system.conf'}", "service", f"--override-boot-slot={slot}")
        with (self.home / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(*root, *words, "sh", *rauc), stdin=PIPE, stdout=log, stderr=log, start_new_session=True
            )
        assert process.stdin is not None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while not await self._answers(address):
                    await asyncio.sleep(0.05)
            yield
        finally:
            process.stdin.close()
            await process.wait()

    async def _answers(self, address: str) -> bool:
        words = ("rauc", f"--conf={self.home / 'system.conf'}", "status", "--output-format=json")
        env = os.environ | {"DBUS_SYSTEM_BUS_ADDRESS": address}
        asked = await asyncio.create_subprocess_exec(*words, stdout=DEVNULL, stderr=DEVNULL, env=env)
        return await asked.wait() == 0

    def _prepare(self, version: str) -> None:
        self.home.mkdir(exist_ok=True)
        (self.home / "installing").unlink(missing_ok=True)
        (self.home / "mounts").mkdir(exist_ok=True)
        for number in range(2):
            slot = self.home / f"slot-{number}"
            if not slot.exists():
                slot.write_bytes(b"old")
        said = {"home": self.home, "name": self.name, "version": version, "token": self.token}
        said |= {"authority": self.made.signer.certificate, "host": self.server.removeprefix("http://")}
        files = {"bus.conf": _BUS, "system.conf": _SYSTEM, "client.cfg": _CLIENT, "pre-install": _HOLD}
        for name, text in files.items():
            (self.home / name).write_text(text if name == "bus.conf" else text.format(**said))
        (self.home / "pre-install").chmod(0o755)

    async def _until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            while not done():
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def _process(*command: str | Path, log: int = DEVNULL, bus: str = "") -> AsyncIterator[Process]:
    """Run a program, whose output is read or logged."""
    env = os.environ | ({"DBUS_SYSTEM_BUS_ADDRESS": bus} if bus else {})
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdin=DEVNULL, stdout=log if bus else PIPE, stderr=log, env=env, start_new_session=True
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def _signer(folder: Path, name: str) -> Signer:
    key, certificate = folder / f"{name}.key", folder / f"{name}.crt"
    _run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate),
        *("-subj", f"/CN={name}", "-days", "30"),
    )
    return Signer(key, certificate)


def _run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
