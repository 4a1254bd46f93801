"""The four things the engine needs from outside, as protocols.

Rules:
- A port speaks core and wire words only; no library type crosses it.
- Every port has one contract suite in `tests/contract` that runs on each implementation.
- Not ports, on purpose: the clock (a callable), randomness (a keyed hash), logging.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Locator:
    """Where one object lies, pinned to the version that was looked at.

    Attributes:
        uri: `s3://bucket/key` or `file:///absolute/path`.
        version: the source's own version (S3 VersionId, or the ETag where the bucket keeps no
            versions; for files size and modification time), or None for "the newest".
    """

    uri: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """One object as the source describes it, before any byte is read.

    Attributes:
        locator: pinned place of the object.
        size_bytes: size as the source states it.
        etag: opaque change marker; never integrity.
    """

    locator: Locator
    size_bytes: int
    etag: str


class ArtifactSource(Protocol):
    """A place that artifacts are pulled from.

    Every method raises `NotFoundError` (no such bucket or key), `ForbiddenError` (access denied),
    `RequestError` (the address cannot be right) or `UnavailableError` (after its own retries).
    """

    def serves(self, uri: str) -> bool:
        """Say whether this source is responsible for `uri`."""
        ...

    async def stat(self, uri: str) -> Found:
        """Look at an object and pin its present version."""
        ...

    def read(self, locator: Locator, *, limit_bytes: int) -> AsyncIterator[bytes]:
        """Stream the pinned bytes in chunks of at most 1 MiB.

        Raises:
            TrustError: more than `limit_bytes` arrive, or the object changed while it was read.
        """
        ...

    def list(self, prefix: str) -> AsyncIterator[Found]:
        """List the objects below a prefix (`s3://bucket/prefix` or a folder)."""
        ...

    async def download_url(self, locator: Locator, *, valid_s: int) -> str | None:
        """Return a URL that any holder may fetch for `valid_s` seconds.

        None where the source has no such thing and the daemon must serve the bytes itself.
        """
        ...


class Signer(Protocol):
    """Holds one private ES256 key and signs with it. Blocking; called in a thread."""

    @property
    def kid(self) -> str:
        """Identifier of the key."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte `r || s` signature over SHA-256 of `data`, with low S."""
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """One message from a device, not yet acknowledged.

    Attributes:
        topic: full topic.
        payload: raw bytes.
        retained: whether the broker replayed it from its retained store.
        receipt: the adapter's own handle; give it back to `Bus.ack`.
    """

    topic: str
    payload: bytes
    retained: bool
    receipt: int


class Bus(Protocol):
    """The message broker, seen from the daemon."""

    @property
    def connected(self) -> bool:
        """Whether the session is up and subscribed."""
        ...

    async def run(self) -> None:
        """Connect, subscribe and stay connected until cancelled; reconnects by itself."""
        ...

    async def receive(self, limit: int) -> Sequence[Message]:
        """Wait for messages and return at most `limit` of them, oldest first."""
        ...

    def ack(self, messages: Sequence[Message]) -> None:
        """Acknowledge messages whose effect is durable. Unknown or outdated receipts are ignored."""
        ...

    async def publish(self, topic: str, payload: bytes, *, expiry_s: int) -> None:
        """Publish at QoS 1 and return once the broker has acknowledged.

        Raises:
            UnavailableError: the connection broke before the acknowledgement.
        """
        ...
