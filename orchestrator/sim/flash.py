"""What a simulated device keeps when power fails.

Rules:
- Whatever is not in `Flash` is gone after a reboot.
- Bytes are hashed as they are written; an image is made of them only if size and hash are right.
- Of a document of endpoints all bytes are kept, of an image its head: the longest document is the measure.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from orchestrator.sim.image import crashes
from orchestrator.sim.slots import Image, Slots
from orchestrator.verifier import Component, Keyset
from orchestrator.wire.endpoints import COMPONENT as ENDPOINTS
from orchestrator.wire.endpoints import MAX_DOCUMENT_BYTES, Endpoints
from orchestrator.wire.report import Report

if TYPE_CHECKING:
    from hashlib import _Hash

_sha256: Callable[[], _Hash] = hashlib.sha256


@dataclass(frozen=True, slots=True)
class Attempt:
    """The update that a device is busy with, as its verified trigger said.

    Attributes:
        component: what is updated.
        att: attempt identity.
        seq: sequence number of the trigger.
        version: version to come.
        rel: release counter to come.
        sec: security epoch to come.
        sha256: hash of the artifact, base64url.
        size_bytes: size of the artifact.
        urls: where to fetch it.
        deadline_at: when the download must be over, or None.
        installed: whether the image was written and chosen for the next boot, or the trial of new addresses began.
    """

    component: str
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
            component=claims["comp"],
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

    @property
    def moves(self) -> bool:
        """Whether it changes the addresses that the device goes by, and no image."""
        return self.component == ENDPOINTS

    def confirmed(self, component: Component) -> Component:
        """Return the state of the component once what this attempt brought was confirmed."""
        return replace(component, rel=self.rel, sec=self.sec, sha256=self.sha256)


@dataclass(frozen=True, slots=True)
class Writing:
    """The part of an artifact that is there so far; an image lies in the spare slot."""

    received_bytes: int = 0
    head: bytes = b""
    sha: _Hash = field(default_factory=_sha256)

    def write(self, data: bytes) -> Writing:
        """Return the writing with `data` appended; this one stays as it is."""
        sha = self.sha.copy()
        sha.update(data)
        room = MAX_DOCUMENT_BYTES - len(self.head)
        return Writing(self.received_bytes + len(data), self.head + data[:room], sha)

    def holds(self, attempt: Attempt) -> bool:
        """Say whether these bytes are the ones that the trigger named."""
        digest = base64.urlsafe_b64encode(self.sha.digest()).rstrip(b"=").decode()
        return self.received_bytes == attempt.size_bytes and digest == attempt.sha256

    def image(self, attempt: Attempt) -> Image:
        """Return the image that these bytes are; they must be the ones that the trigger named."""
        assert self.holds(attempt), "only checked bytes are installed"
        return Image(attempt.version, attempt.rel, attempt.sha256, crashes(self.head))


@dataclass(frozen=True, slots=True)
class Way:
    """The addresses that a device goes by.

    Attributes:
        rel: release counter of the document that names them, 0 for those that the device was provisioned with.
        endpoints: what the document says, None for those.
    """

    rel: int = 0
    endpoints: Endpoints | None = None


@dataclass(frozen=True, slots=True)
class Flash:
    """Durable state of one device.

    Attributes:
        slots: the two image slots.
        component: the verifier's durable state of what runs.
        keyset: the keys that the device trusts now.
        floor: lowest sequence number that is still good, from the last beat.
        beat_iat: when that beat was made.
        boots: boot counter.
        endpoints: the verifier's durable state of the addresses.
        way: the addresses that it goes by, unless others are on trial.
        attempt: the update in progress, None if there is none.
        writing: what there is of its artifact.
        last: component -> last report about the attempt held; repeated when the trigger is repeated.
        reset: why the device went down last.
        cut: attempt during which power was lost by the profile.
    """

    slots: Slots
    component: Component
    keyset: Keyset
    floor: int = 0
    beat_iat: int = 0
    boots: int = 0
    endpoints: Component = Component(name=ENDPOINTS, rel=0, sec=0, seq=0)
    way: Way = Way()
    attempt: Attempt | None = None
    writing: Writing = field(default_factory=Writing)
    last: Mapping[str, Report] = field(default_factory=dict)
    reset: str = ""
    cut: str = ""

    @property
    def components(self) -> dict[str, Component]:
        """The verifier's durable state, by component."""
        return {each.name: each for each in (self.component, self.endpoints)}

    def closed(self) -> Flash:
        """Return the state after the update in progress came to its end."""
        return replace(self, attempt=None, writing=Writing())
