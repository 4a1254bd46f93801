"""Checkpoints of the audit log as tokens: JWS Compact of the type `ota-checkpoint+jws`.

Rules:
- The envelope is that of `otad/1`; devices never see a checkpoint, and its key signs nothing else.
- Reading takes exactly what is written here, in one spelling, and raises `PayloadError` for anything else.
- No cryptography here: reading gives the bytes that were signed and the signature.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from orchestrator.core.trust.audit import Checkpoint
from orchestrator.errors import PayloadError
from orchestrator.wire.token import encode64

TYPE = "ota-checkpoint+jws"
MAX_BYTES = 1024
_TOKEN = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})")
_HEADER = re.compile(rb'\{"alg":"ES256","kid":"([A-Za-z0-9_-]{1,64})","typ":"ota-checkpoint\+jws"\}')
_Number = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]


class _Claims(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: Literal[1]
    n: _Number
    hash: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    at: float
    seq: _Number


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(_Claims)


@dataclass(frozen=True, slots=True)
class Opened:
    """A token that was read, but not believed yet.

    Attributes:
        kid: identifier of the key that it names.
        signed: the bytes that the signature covers.
        signature: 64 bytes `r || s`.
        checkpoint: what it says.
    """

    kid: str
    signed: bytes
    signature: bytes
    checkpoint: Checkpoint


def signing_input(kid: str, checkpoint: Checkpoint) -> bytes:
    """Return the bytes to sign: `<header>.<payload>`, both in base64url."""
    header = f'{{"alg":"ES256","kid":"{kid}","typ":"{TYPE}"}}'.encode()
    claims = _Claims(1, checkpoint.n, checkpoint.hash, checkpoint.at, checkpoint.seq)
    return f"{encode64(header)}.{encode64(_ENCODER.encode(claims))}".encode()


def read(token: bytes) -> Opened:
    """Take a token apart.

    Raises:
        PayloadError: it is no checkpoint.
    """
    parts = _TOKEN.fullmatch(token) if len(token) <= MAX_BYTES else None
    if parts is None:
        raise PayloadError("not a checkpoint: it is no token")
    header = _HEADER.fullmatch(_decode64(parts[1]))
    if header is None:
        raise PayloadError("not a checkpoint: its header is another one")
    try:
        claims = _DECODER.decode(_decode64(parts[2]))
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise PayloadError("not a checkpoint: it says something else") from None
    checkpoint = Checkpoint(claims.n, claims.hash, claims.at, claims.seq)
    return Opened(header[1].decode(), parts[1] + b"." + parts[2], _decode64(parts[3]), checkpoint)


def _decode64(text: bytes) -> bytes:
    try:
        raw = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        raise PayloadError("not a checkpoint: it is not base64url") from None
    if encode64(raw).encode() != text:
        raise PayloadError("not a checkpoint: it is not in canonical base64url")
    return raw
