"""The file of checkpoints: one signed token per line, beside the database or, better, on another machine.

Rules:
- A checkpoint is kept when its line is on disk. What a crash left of a line is cut off before the next one.
- Reading believes only lines that the given key signed; each other line is a fault, and the rest is read on.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from orchestrator.adapters.durable import sync_folder
from orchestrator.core.trust.audit import Checkpoint
from orchestrator.errors import NotFoundError, PayloadError, RequestError, TrustError, UnavailableError
from orchestrator.wire import checkpoint as wire

MAX_KEY_FILE_BYTES = 16_384
MAX_FAULTS = 10
"""So many faulty lines are told one by one."""
_ALGORITHM = ec.ECDSA(hashes.SHA256())


class CheckpointFile:
    """A `ports.Witness` that adds lines to a file.

    Args:
        path: the file; made if it does not exist, in a folder that does.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, token: bytes) -> None:
        """See `ports.Witness.keep`."""
        try:
            fresh = not self._path.exists()
            with os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o640), "r+b", buffering=0) as file:
                file.seek(self._end(file.fileno()))
                file.truncate()
                _write(file.fileno(), token + b"\n")
                os.fsync(file.fileno())
            if fresh:
                sync_folder(self._path.parent)
        except OSError as error:
            text = f"checkpoints cannot be written to {self._path}: {error.strerror}; see audit.checkpoint_file"
            raise UnavailableError(text, code="checkpoints") from None

    @staticmethod
    def _end(file: int) -> int:
        """Return where the last whole line ends."""
        size = os.fstat(file).st_size
        tail = os.pread(file, 2 * wire.MAX_BYTES, max(size - 2 * wire.MAX_BYTES, 0))
        return size - len(tail) + tail.rfind(b"\n") + 1 if b"\n" in tail or size == len(tail) else size


def load_checkpoint_key(path: Path) -> ec.EllipticCurvePublicKey:
    """Load the public half of the checkpoint key from a PEM file.

    Raises:
        NotFoundError: the file cannot be read.
        RequestError: it holds no such key.
    """
    try:
        with path.open("rb") as file:
            key = load_pem_public_key(file.read(MAX_KEY_FILE_BYTES))
    except OSError as error:
        text = f"checkpoint key {path}: {error.strerror}; name the checkpoint.pub.pem that `ota keys init` wrote"
        raise NotFoundError(text, code="no_key") from None
    except (ValueError, UnsupportedAlgorithm):
        raise RequestError(f"{path} is not a PEM public key, such as checkpoint.pub.pem", code="bad_key") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RequestError(f"{path} holds another kind of key; checkpoints need P-256", code="wrong_curve")
    return key


def open_checkpoint(token: bytes, key: ec.EllipticCurvePublicKey) -> Checkpoint:
    """Return what a checkpoint says.

    Raises:
        PayloadError: it is no checkpoint.
        TrustError: another key signed it.
    """
    opened = wire.read(token)
    r, s = (int.from_bytes(half, "big") for half in (opened.signature[:32], opened.signature[32:]))
    try:
        key.verify(encode_dss_signature(r, s), opened.signed, _ALGORITHM)
    except InvalidSignature:
        raise TrustError("the checkpoint is not signed with this key", code="bad_signature") from None
    return opened.checkpoint


def load_checkpoints(path: Path, key: ec.EllipticCurvePublicKey) -> tuple[list[Checkpoint], list[str]]:
    """Read a file of checkpoints; also says what is wrong with which line.

    Raises:
        NotFoundError: the file cannot be read.
    """
    found, faults = [], []
    try:
        with path.open("rb") as file:
            lines = file.read().split(b"\n")
    except OSError as error:
        text = f"checkpoints {path}: {error.strerror}; name a copy of the daemon's audit.checkpoint_file"
        raise NotFoundError(text, code="no_checkpoints") from None
    if lines[-1]:
        faults.append(f"line {len(lines)} of the checkpoints is not whole")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            found.append(open_checkpoint(line, key))
        except (PayloadError, TrustError) as error:
            faults.append(f"line {number} of the checkpoints: {error.message}")
    if faults and not found:
        wrong = f"none of the {len(faults)} lines of {path} is a checkpoint of this key, beginning with {faults[0]}"
        return found, [f"{wrong}; is it the right file, and the right key?"]
    if len(faults) > MAX_FAULTS:
        faults[MAX_FAULTS:] = [f"{len(faults) - MAX_FAULTS} more lines of the checkpoints are faulty"]
    return found, faults


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
