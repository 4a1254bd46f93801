"""The real SWUpdate of Debian as a device: updates that it takes, and the client itself.

Rules:
- It runs as in the field: it installs, and after the "reboot", which is another start, it says how that went.
- Its log is its own: a client writes down the presigned URL that it was sent to, which we would never do.
- Each instance has a folder and a TMPDIR of its own; it is ended by its own process number.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.real_clients import Enrolled

_DESCRIPTION = """software =
{{
  version = "{version}";
  hardware-compatibility = [ "1.0" ];
  files: ( {{ filename = "payload"; path = "{path}"; type = "rawfile"; sha256 = "{sha256}"; }} );
}}
"""
_PATIENCE_S = 60.0
_CONFIG = """globals: {{ public-key-file = "{certificate}"; verbose = true; loglevel = 5; }};
suricatta: {{ userid = {uid}; groupid = {gid}; }};
identify: ( {{ name = "version"; value = "{version}"; }}, {{ name = "hw_boardname"; value = "board"; }} );
"""


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where updates are made.

    Attributes:
        folder: for everything.
        program: SWUpdate.
        key: private key that updates are signed with.
        certificate: its certificate, which devices hold.
    """

    folder: Path
    program: str
    key: Path
    certificate: Path

    def update(self, name: str, version: str, payload: bytes, path: Path) -> Path:
        """Make a signed update that puts a payload at a path of the device, and return its file."""
        place = self.folder / name
        place.mkdir()
        (place / "payload").write_bytes(payload)
        digest = hashlib.sha256(payload).hexdigest()
        (place / "sw-description").write_text(_DESCRIPTION.format(version=version, path=path, sha256=digest))
        _run(
            *("openssl", "cms", "-sign", "-in", place / "sw-description", "-out", place / "sw-description.sig"),
            *("-signer", self.certificate, "-inkey", self.key, "-outform", "DER", "-nosmimecap", "-binary"),
        )
        names = b"sw-description\nsw-description.sig\npayload\n"
        command = ["cpio", "-o", "-H", "crc", "--quiet"]
        made = subprocess.run(command, cwd=place, input=names, check=True, capture_output=True)
        file = self.folder / f"{name}.swu"
        file.write_bytes(made.stdout)
        return file


def workshop(folder: Path) -> Workshop:
    """Return a workshop in an existing folder."""
    program = shutil.which("swupdate", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None or shutil.which("cpio") is None:
        pytest.skip("swupdate and cpio are not installed; run scripts/setup clients")
    key, certificate = folder / "image.key", folder / "image.crt"
    _run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate),
        *("-subj", "/CN=images", "-days", "30", "-addext", "extendedKeyUsage=emailProtection"),
    )
    return Workshop(folder, program, key, certificate)


@dataclass(frozen=True, slots=True)
class Unit(Enrolled):
    """A device with SWUpdate.

    Attributes:
        made: where its updates are made.
    """

    made: Workshop

    async def logs(self, text: str) -> None:
        """Wait until its client writes something."""
        async with asyncio.timeout(_PATIENCE_S):
            while text not in self.log:
                await asyncio.sleep(0.1)

    @contextlib.asynccontextmanager
    async def running(self, version: str, *options: str) -> AsyncIterator[None]:
        """Run the client while its firmware says that it is of this version."""
        self.home.mkdir(exist_ok=True)
        (self.home / "tmp").mkdir(exist_ok=True)
        config, certificate = self.home / "swupdate.cfg", self.made.certificate
        config.write_text(_CONFIG.format(certificate=certificate, uid=os.getuid(), gid=os.getgid(), version=version))
        words = ["-t", "default", "-u", self.server, "-i", self.name, "-k", self.token]
        words += ["-p", "1", "-r", "5", "-w", "1", "-m", "1", *options]
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", 'exec "$@" >>log 2>&1', "sh"),
            *(self.made.program, "-f", str(config), "-H", "board:1.0", "-v", "-u", " ".join(words)),
            cwd=self.home,
            env=os.environ | {"TMPDIR": str(self.home / "tmp")},
            start_new_session=True,
        )
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)  # its helpers are its children, in a group of their own
            await process.wait()


def _run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
