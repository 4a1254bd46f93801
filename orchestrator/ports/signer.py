"""Who signs."""

from __future__ import annotations

from typing import Protocol


class Signer(Protocol):
    """Holds one private ES256 key and signs with it. Blocking; called in a thread."""

    @property
    def kid(self) -> str:
        """Identifier of the key."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte `r || s` signature over SHA-256 of `data`, with low S."""
        ...
