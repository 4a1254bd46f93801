"""SoftHSM tokens for tests: made once for the whole process, because a PKCS#11 module is initialised once."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pkcs11
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

PIN = "271828"
_MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so")
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class SoftToken:
    """An initialised token.

    Attributes:
        module: the PKCS#11 library.
        program: `softhsm2-util`.
        label: name of the token.
        pin_file: file with the PIN.
    """

    module: Path
    program: str
    label: str
    pin_file: Path

    def uri(self, label: str, *, pin: bool = True) -> str:
        """Return the URI of a key, with or without the place of the PIN."""
        source = f"&pin-source=file:{self.pin_file}" if pin else ""
        return f"pkcs11:token={self.label};object={label}?module-path={self.module}{source}"

    def put_key(self, key: ec.EllipticCurvePrivateKey) -> str:
        """Put a key pair into the token, from another process as in the field; returns its label."""
        number = next(_numbers)
        label, path = f"key-{number}", self.pin_file.with_name(f"key-{number}.pem")
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.run("--import", str(path), "--token", self.label, "--label", label, "--id", f"{number:04x}")
        return label

    def run(self, *arguments: str) -> None:
        """Run `softhsm2-util` as the user."""
        subprocess.run([self.program, *arguments, "--pin", PIN], check=True, capture_output=True)


@pytest.fixture(scope="session")
def soft_tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SoftToken, SoftToken]]:
    """Return two empty tokens of SoftHSM."""
    program, module = shutil.which("softhsm2-util"), next(filter(os.path.exists, _MODULES), None)
    assert program and module, "softhsm2 is not installed; run scripts/setup token"
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
    (folder / "pin").write_text(PIN + "\n")
    (folder / "pin").chmod(0o600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
        first, second = (SoftToken(Path(module), program, label, folder / "pin") for label in ("first", "second"))
        for token in (first, second):
            token.run("--init-token", "--free", "--label", token.label, "--so-pin", PIN)
        yield first, second
        pkcs11.unload(module)


@pytest.fixture
def soft_token(soft_tokens: tuple[SoftToken, SoftToken]) -> SoftToken:
    """Return the token that tests share."""
    return soft_tokens[0]
