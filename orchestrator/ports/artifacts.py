"""Where artifacts lie."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
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

    async def read_part(self, locator: Locator, start: int, end: int) -> bytes:
        """Return the pinned bytes from `start` up to, and without, `end`; at most a few hundred KiB are asked for.

        Raises:
            TrustError: the object changed since it was looked at, or has no such bytes.
        """
        ...

    def list(self, prefix: str) -> AsyncIterator[Found]:
        """List the objects below a prefix (`s3://bucket/prefix` or a folder)."""
        ...

    async def local_path(self, locator: Locator) -> Path | None:
        """Return the file to serve to devices where the bytes lie on this machine, else None.

        Raises:
            TrustError: the file is not the pinned version any more.
        """
        ...

    async def download_url(self, locator: Locator, *, valid_s: int) -> str | None:
        """Return a URL that any holder may fetch for `valid_s` seconds.

        None where the source has no such thing and the daemon must serve the bytes itself.
        """
        ...
