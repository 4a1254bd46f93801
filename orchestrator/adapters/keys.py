"""Key files: making key pairs, and the document of public keys that devices are provisioned with.

Rules:
- Private keys are written with mode 0600 into a directory with mode 0700, and never over an existing file
  unless that is asked for.
- One key, one role: a key signs one type of token.
- `device-keys.json` is public and is all that a device, the daemon's import and a simulator need.
- The checkpoint key vouches for the daemon's own audit log; devices never hear of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)

from orchestrator.errors import ConflictError, ForbiddenError, NotFoundError, RequestError, TrustError
from orchestrator.verifier import Keyset, PublicKey, Refused, load_keyset
from orchestrator.wire.token import TokenType, encode64, key_id
from orchestrator.wire.topics import is_identifier

PUBLIC_FILE = "device-keys.json"
CHECKPOINT = "ota-checkpoint+jws"
ROLES: Mapping[str, TokenType] = {
    "root": TokenType.KEYS,
    "artifact": TokenType.ARTIFACT,
    "trigger": TokenType.TRIGGER,
    "beat": TokenType.BEAT,
    "cosign": TokenType.COSIGN,
}
_MAX_PUBLIC_BYTES = 16_384
_CHECKPOINT_FILES = ("checkpoint.pem", "checkpoint.pub.pem")


@dataclass(frozen=True, slots=True)
class KeyFile:
    """One private key file that was written.

    Attributes:
        path: where it lies.
        kid: identifier of the key.
        typ: the one type of token it signs.
        role: what people call that: `root`, `artifact`, `trigger`, `beat`, `cosign` or `checkpoint`.
        who: the person that holds a cosigner key, else "".
    """

    path: Path
    kid: str
    typ: str
    role: str
    who: str = ""


@dataclass(frozen=True, slots=True)
class KeyPlan:
    """Which keys a new deployment gets.

    Attributes:
        roots: number of root keys, 0 for a deployment whose keys can never be changed over the air.
        need_root: how many of them must sign a keyset.
        cosigners: persons that may authorise an emergency.
        need_cosign: how many of them must.
        expires_at: role: epoch seconds from which on its keys sign nothing more; no end for roles not named.
    """

    roots: int = 3
    need_root: int = 2
    cosigners: Sequence[str] = ()
    need_cosign: int = 2
    expires_at: Mapping[str, int] | None = None


def create_keys(
    directory: Path, deployment: str, *, epoch: int = 1, replace: bool = False, plan: KeyPlan | None = None
) -> list[KeyFile]:
    """Make the keys of a deployment, and the document of the public halves that devices hold.

    Args:
        directory: made if it does not exist.
        deployment: identifier that devices are pinned to.
        epoch: key epoch, at least 1.
        replace: overwrite files that exist; devices provisioned with the old keys then refuse everything.
        plan: which keys; three roots of which two must sign, and no cosigners, if not given.

    Returns:
        Artifact, trigger and beat key, the roots, the cosigners, the checkpoint key.

    Raises:
        RequestError: `deployment` or a person is not an identifier, or the numbers do not fit.
        ConflictError: a file exists and `replace` is not set.
        ForbiddenError: the directory or a file cannot be written.
    """
    plan = plan or KeyPlan()
    for name in (deployment, *plan.cosigners):
        check_name(name)
    named = _named(plan)
    names = [*(name for name, _, _ in named), *_CHECKPOINT_FILES, PUBLIC_FILE]
    if len(set(names)) != len(names):
        raise RequestError("a cosigner is named twice; each person has one key", code="cosigner_twice")
    existing = [name for name in names if (directory / name).exists()]
    if existing and not replace:
        raise ConflictError(
            f"{directory} already holds {', '.join(existing)}; choose another directory, or replace them on purpose",
            code="keys_exist",
        )
    private = {name: new_key() for name, _, _ in named}
    ends = plan.expires_at or {}
    keys = {name: public_key(private[name].public_key(), role, who, ends.get(role)) for name, role, who in named}
    need = (plan.need_root, plan.need_cosign) if plan.roots else (0, 0)
    held = Keyset(deployment, epoch, {key.kid: key for key in keys.values()}, *need)
    document = check_document(document_of(held))
    checkpoint = new_key()
    for name, key in (private | {_CHECKPOINT_FILES[0]: checkpoint}).items():
        write_file(directory / name, pem_of(key), 0o600, replace=replace)
    write_file(directory / _CHECKPOINT_FILES[1], public_pem(checkpoint.public_key()), 0o644, replace=replace)
    write_file(directory / PUBLIC_FILE, document, 0o644, replace=replace)
    files = [KeyFile(directory / name, keys[name].kid, keys[name].typ, role, who) for name, role, who in named]
    return [
        *files,
        KeyFile(directory / _CHECKPOINT_FILES[0], kid_of(checkpoint.public_key()), CHECKPOINT, "checkpoint"),
    ]


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a key whose identifier does not look like an option on a command line."""
    while kid_of((key := ec.generate_private_key(ec.SECP256R1())).public_key()).startswith("-"):
        pass
    return key


def create_key(path: Path) -> ec.EllipticCurvePublicKey:
    """Make one private key file; returns the public half.

    Raises:
        ConflictError: the file exists.
        ForbiddenError: it cannot be written.
    """
    key = new_key()
    write_file(path, pem_of(key), 0o600, replace=False)
    return key.public_key()


def load_device_keys(path: Path) -> Keyset:
    """Read the document of public keys.

    Raises:
        NotFoundError: no such file.
        TrustError: the document is not valid.
    """
    try:
        return load_keyset(path.read_bytes())
    except OSError as error:
        text = f"public keys {path}: {error.strerror}; name the device-keys.json that devices were provisioned with"
        raise NotFoundError(text, code="no_public_keys") from None
    except Refused as refusal:
        raise TrustError(f"public keys {path} are not valid: {refusal}", code="bad_public_keys") from None


def load_public_key(path: Path) -> ec.EllipticCurvePublicKey:
    """Read a PEM file with a public P-256 key.

    Raises:
        NotFoundError: no such file.
        RequestError: it is no such key.
    """
    try:
        with path.open("rb") as file:
            key = load_pem_public_key(file.read(_MAX_PUBLIC_BYTES))
    except OSError as error:
        text = f"public key {path}: {error.strerror}; name a .pub.pem such as `ota keys make` writes"
        raise NotFoundError(text, code="no_key") from None
    except (ValueError, UnsupportedAlgorithm):
        raise RequestError(f"{path} is not a PEM public key", code="bad_key") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RequestError(f"{path} holds another kind of key; ES256 needs P-256", code="wrong_curve")
    return key


def public_key(
    key: ec.EllipticCurvePublicKey, role: str, who: str = "", expires_at: int | None = None, hw: Sequence[str] = ()
) -> PublicKey:
    """Return a key as it stands in a keyset, its identifier derived from the point."""
    x, y = _point(key)
    return PublicKey(key_id(x, y), ROLES[role], x, y, exp=expires_at, who=who, hw=tuple(hw))


def kid_of(key: ec.EllipticCurvePublicKey) -> str:
    """Return the identifier of a key."""
    return key_id(*_point(key))


def role_of(typ: str) -> str:
    """Return what people call a type of key."""
    return next((role for role, token_type in ROLES.items() if token_type == typ), typ)


def entry_of(key: PublicKey) -> dict[str, object]:
    """Return a key as an object of the document; what it does not limit is left out."""
    entry: dict[str, object] = {"kid": key.kid, "typ": key.typ, "x": encode64(key.x), "y": encode64(key.y)}
    limits = {"nbf": key.nbf or None, "exp": key.exp, "who": key.who or None, "hw": list(key.hw) or None}
    return entry | {name: value for name, value in limits.items() if value is not None}


def document_of(keyset: Keyset) -> bytes:
    """Return the document that devices are provisioned with to hold a keyset."""
    document: dict[str, object] = {"v": 1, "iss": keyset.iss, "ep": keyset.ep}
    document["keys"] = [entry_of(key) for key in keyset.keys.values()]
    if keyset.need_root:
        document["need"] = {"root": keyset.need_root, "cosign": keyset.need_cosign}
    return json.dumps(document, indent=2).encode() + b"\n"


def check_document(document: bytes) -> bytes:
    """Return a document that devices would take.

    Raises:
        RequestError: they would not; with the reason.
    """
    try:
        load_keyset(document)
    except Refused as refusal:
        raise RequestError(f"devices would refuse such keys: {refusal}", code=refusal.code) from None
    return document


def check_name(name: str) -> None:
    """Refuse what can name neither a deployment nor a person.

    Raises:
        RequestError: with the form that is wanted.
    """
    if not is_identifier(name):
        raise RequestError(
            f"{name!r} cannot name a deployment or a person: lower-case letters, digits, '.', '_', '-', at most 64",
            code="bad_identifier",
        )


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key in PEM (PKCS #8)."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return a public key in PEM."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def write_file(path: Path, content: bytes, mode: int, *, replace: bool) -> None:
    """Write a file, to the disk; its directory is made with mode 0700, and what is replaced stays until the end.

    Raises:
        ConflictError: it exists and `replace` is not set.
        ForbiddenError: it cannot be written.
    """
    place = path.with_name(f".{path.name}.part") if replace else path
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if replace:
            place.unlink(missing_ok=True)
        with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        place.replace(path)
    except FileExistsError:
        raise ConflictError(f"{path} exists; move it away or choose another name", code="keys_exist") from None
    except OSError as error:
        raise ForbiddenError(f"cannot write keys to {path.parent}: {error.strerror}", code="unwritable") from None


def _named(plan: KeyPlan) -> list[tuple[str, str, str]]:
    """Return file name, role and person of every key that devices hold."""
    single = [(f"{role}.pem", role, "") for role in ("artifact", "trigger", "beat")]
    roots = [(f"root-{number}.pem", "root", "") for number in range(1, plan.roots + 1)]
    return [*single, *roots, *((f"cosign-{who}.pem", "cosign", who) for who in plan.cosigners)]


def _point(key: ec.EllipticCurvePublicKey) -> tuple[bytes, bytes]:
    numbers = key.public_numbers()
    return numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
