"""What a simulated device keeps when power fails.

Rules:
- Whatever is not in `Flash` is gone after a reboot.
- Bytes are hashed as they are written; an image is made of them only if size and hash are right.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from orchestrator.sim.image import HEAD_BYTES, crashes
from orchestrator.sim.slots import Image, Slots
from orchestrator.verifier import Component, Keyset
from orchestrator.wire.report import Report

if TYPE_CHECKING:
    from hashlib import _Hash

_sha256: Callable[[], _Hash] = hashlib.sha256


@dataclass(frozen=True, slots=True)
class Attempt:
    """The update that a device is busy with, as its verified trigger said.

    Attributes:
        att: attempt identity.
        seq: sequence number of the trigger.
        version: version to come.
        rel: release counter to come.
        sec: security epoch to come.
        sha256: hash of the artifact, base64url.
        size_bytes: size of the artifact.
        urls: where to fetch it.
        deadline_at: when the download must be over, or None.
        installed: whether the image was written and chosen for the next boot.
    """

    att: str
    seq: int
    version: str
    rel: int
    sec: int
    sha256: str
    size_bytes: int
    urls: tuple[str, ...]
    deadline_at: float | None
    installed: bool = False

    @classmethod
    def of(cls, claims: Mapping[str, Any], now: float) -> Attempt:
        """Take from verified claims what a device must remember."""
        deadline_s = claims.get("pol", {}).get("dl")
        return cls(
            att=claims["att"],
            seq=claims["seq"],
            version=claims["ver"],
            rel=claims["rel"],
            sec=claims["sec"],
            sha256=claims["sha256"],
            size_bytes=claims["size"],
            urls=tuple(claims["url"]),
            deadline_at=None if deadline_s is None else now + deadline_s,
        )


@dataclass(frozen=True, slots=True)
class Writing:
    """The part of an artifact that lies in the spare slot so far."""

    received_bytes: int = 0
    head: bytes = b""
    sha: _Hash = field(default_factory=_sha256)

    def write(self, data: bytes) -> Writing:
        """Return the writing with `data` appended; this one stays as it is."""
        sha = self.sha.copy()
        sha.update(data)
        return Writing(self.received_bytes + len(data), (self.head + data[:HEAD_BYTES])[:HEAD_BYTES], sha)

    def image(self, attempt: Attempt) -> Image | None:
        """Return the image if these bytes are the ones that the trigger named, else None."""
        digest = base64.urlsafe_b64encode(self.sha.digest()).rstrip(b"=").decode()
        if self.received_bytes != attempt.size_bytes or digest != attempt.sha256:
            return None
        return Image(attempt.version, attempt.rel, digest, crashes(self.head))


@dataclass(frozen=True, slots=True)
class Flash:
    """Durable state of one device.

    Attributes:
        slots: the two image slots.
        component: the verifier's durable state.
        keyset: the keys that the device trusts now.
        floor: lowest sequence number that is still good, from the last beat.
        beat_iat: when that beat was made.
        boots: boot counter.
        attempt: the update in progress, None if there is none.
        writing: what is in the spare slot of its artifact.
        last: last report about the attempt held; repeated when the trigger is repeated.
        reset: why the device went down last.
        cut: attempt during which power was lost by the profile.
    """

    slots: Slots
    component: Component
    keyset: Keyset
    floor: int = 0
    beat_iat: int = 0
    boots: int = 0
    attempt: Attempt | None = None
    writing: Writing = field(default_factory=Writing)
    last: Report | None = None
    reset: str = ""
    cut: str = ""

    def closed(self) -> Flash:
        """Return the state after the update in progress came to its end."""
        return replace(self, attempt=None, writing=Writing())
