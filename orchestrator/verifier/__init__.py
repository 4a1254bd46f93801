"""The reference device verifier of `otad/1`: what a device may believe, and nothing else.

Rules:
- Nothing but the standard library and `cryptography`; no I/O, no clock, no state of its own.
- Whatever is not allowed is refused with one code out of `REASONS`; no other exception leaves this package.
- Straight-line code with fixed limits, so that a port to C or MicroPython is a translation.

Read in this order: `reasons`, `claims` (fields), `envelope` (bytes to authentic claims), `verdict`.
"""

from orchestrator.verifier.claims import ARTIFACT, TRIGGER
from orchestrator.verifier.envelope import (
    MAX_TOKEN_BYTES,
    Keyset,
    PublicKey,
    load_keys,
    load_keyset,
    open_token,
    token_hash,
)
from orchestrator.verifier.reasons import REASONS, Refused
from orchestrator.verifier.verdict import Component, Device, Verdict, check_url, verify

__all__ = [
    "ARTIFACT",
    "MAX_TOKEN_BYTES",
    "REASONS",
    "TRIGGER",
    "Component",
    "Device",
    "Keyset",
    "PublicKey",
    "Refused",
    "Verdict",
    "check_url",
    "load_keys",
    "load_keyset",
    "open_token",
    "token_hash",
    "verify",
]
