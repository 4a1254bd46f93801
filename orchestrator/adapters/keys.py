"""Key files: making key pairs, and the document of public keys that devices are provisioned with.

Rules:
- Private keys are written with mode 0600 into a directory with mode 0700, and never over an existing file
  unless that is asked for.
- One key, one role: a key signs one type of token.
- `device-keys.json` is public and is all that a device, the daemon's import and a simulator need.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from orchestrator.errors import ConflictError, ForbiddenError, NotFoundError, RequestError, TrustError
from orchestrator.verifier import Keyset, Refused, load_keyset
from orchestrator.wire.token import TokenType, encode64, key_id
from orchestrator.wire.topics import is_identifier

PUBLIC_FILE = "device-keys.json"
PRIVATE_FILES: Mapping[str, TokenType] = {"artifact.pem": TokenType.ARTIFACT, "trigger.pem": TokenType.TRIGGER}


@dataclass(frozen=True, slots=True)
class KeyFile:
    """One private key file that was written.

    Attributes:
        path: where it lies.
        kid: identifier of the key.
        typ: the one type of token it signs.
    """

    path: Path
    kid: str
    typ: TokenType


def create_keys(directory: Path, deployment: str, *, epoch: int = 1, replace: bool = False) -> list[KeyFile]:
    """Make an artifact key, a trigger key and the document of their public halves.

    Args:
        directory: made if it does not exist.
        deployment: identifier that devices are pinned to.
        epoch: key epoch, at least 1.
        replace: overwrite files that exist; devices provisioned with the old keys then refuse everything.

    Raises:
        RequestError: `deployment` is not an identifier.
        ConflictError: a file exists and `replace` is not set.
        ForbiddenError: the directory or a file cannot be written.
    """
    if not is_identifier(deployment):
        raise RequestError(
            f"{deployment!r} cannot name a deployment: lower-case letters, digits, '.', '_', '-', at most 64",
            code="bad_identifier",
        )
    existing = [name for name in (*PRIVATE_FILES, PUBLIC_FILE) if (directory / name).exists()]
    if existing and not replace:
        raise ConflictError(
            f"{directory} already holds {', '.join(existing)}; choose another directory, or replace them on purpose",
            code="keys_exist",
        )
    private_keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in PRIVATE_FILES}
    entries = [_entry(private_keys[name], typ) for name, typ in PRIVATE_FILES.items()]
    document = {"v": 1, "iss": deployment, "ep": epoch, "keys": entries}
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, key in private_keys.items():
            _write(directory / name, _pem(key), 0o600, replace=replace)
        _write(directory / PUBLIC_FILE, json.dumps(document, indent=2).encode() + b"\n", 0o644, replace=replace)
    except OSError as error:
        raise ForbiddenError(f"cannot write keys to {directory}: {error.strerror}", code="unwritable") from None
    return [
        KeyFile(directory / name, entry["kid"], typ)
        for (name, typ), entry in zip(PRIVATE_FILES.items(), entries, strict=True)
    ]


def load_device_keys(path: Path) -> Keyset:
    """Read the document of public keys.

    Raises:
        NotFoundError: no such file.
        TrustError: the document is not valid.
    """
    try:
        return load_keyset(path.read_bytes())
    except OSError as error:
        raise NotFoundError(f"public keys {path}: {error.strerror}", code="no_public_keys") from None
    except Refused as refusal:
        raise TrustError(f"public keys {path} are not valid: {refusal}", code="bad_public_keys") from None


def _entry(key: ec.EllipticCurvePrivateKey, typ: TokenType) -> dict[str, str]:
    numbers = key.public_key().public_numbers()
    x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
    return {"kid": key_id(x, y), "typ": typ.value, "x": encode64(x), "y": encode64(y)}


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes, mode: int, *, replace: bool) -> None:
    if replace:
        path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
