"""The reference device verifier of `otad/1`: what a device may believe, and nothing else.

Rules:
- Nothing but the standard library and `cryptography`; no I/O, no clock, no state of its own.
- Whatever is not allowed is refused with one code out of `REASONS`; no other exception leaves this package.
- Fixed limits, tables as data, checks in the order of `docs/protocol.md`: a port to C or MicroPython is a translation.
"""

from orchestrator.verifier.bundle import EMERGENCY, MAX_SEQ_JUMP, Verdict, take_beat, take_keyset, verify
from orchestrator.verifier.device import MAX_URL_BYTES, Component, Device, check_url
from orchestrator.verifier.download import DOWNLOAD_REASONS, judge
from orchestrator.verifier.fields import (
    ARTIFACT,
    BEAT,
    COSIGN,
    KEYS,
    MAX_DEPTH,
    MAX_INTEGER,
    MAX_LIFETIME_S,
    TRIGGER,
)
from orchestrator.verifier.keyset import MAX_KEYS_BYTES, Keyset, adopt, load_keys, load_keyset
from orchestrator.verifier.reasons import REASONS, Refused
from orchestrator.verifier.token import (
    MAX_KEYSET_BYTES,
    MAX_KEYSET_TOKEN_BYTES,
    MAX_LINES,
    MAX_PAYLOAD_BYTES,
    MAX_TOKEN_BYTES,
    PublicKey,
    open_token,
    token_hash,
)

__all__ = [
    "ARTIFACT",
    "BEAT",
    "COSIGN",
    "DOWNLOAD_REASONS",
    "EMERGENCY",
    "KEYS",
    "MAX_DEPTH",
    "MAX_INTEGER",
    "MAX_KEYSET_BYTES",
    "MAX_KEYSET_TOKEN_BYTES",
    "MAX_KEYS_BYTES",
    "MAX_LIFETIME_S",
    "MAX_LINES",
    "MAX_PAYLOAD_BYTES",
    "MAX_SEQ_JUMP",
    "MAX_TOKEN_BYTES",
    "MAX_URL_BYTES",
    "REASONS",
    "TRIGGER",
    "Component",
    "Device",
    "Keyset",
    "PublicKey",
    "Refused",
    "Verdict",
    "adopt",
    "check_url",
    "judge",
    "load_keys",
    "load_keyset",
    "open_token",
    "take_beat",
    "take_keyset",
    "token_hash",
    "verify",
]
