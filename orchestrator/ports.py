"""The four things the engine needs from outside, as protocols.

Rules:
- A port speaks core and wire words only; no library type crosses it.
- Every port has one contract suite in `tests/contract` that runs on each implementation.
- Not ports, on purpose: the clock (a callable), randomness (a keyed hash), logging.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from orchestrator.core.cohort import Member
from orchestrator.core.model import Artifact, Device, Phase, Release, Rollout, Tally, TallyKey, Update, UpdateState
from orchestrator.wire.report import Hello, Report, State

Result = TypeVar("Result")


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


class Signer(Protocol):
    """Holds one private ES256 key and signs with it. Blocking; called in a thread."""

    @property
    def kid(self) -> str:
        """Identifier of the key."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte `r || s` signature over SHA-256 of `data`, with low S."""
        ...


class Message(NamedTuple):
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
    def link(self) -> int:
        """Number of the present connection, rising with each; 0 while there is none."""
        ...

    async def run(self) -> None:
        """Connect, subscribe and stay connected until cancelled; reconnects by itself."""
        ...

    async def receive(self, limit: int, *, wait: bool = True) -> Sequence[Message]:
        """Return at most `limit` messages, oldest first; waits for the first one unless `wait` is false."""
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


class Lane(IntEnum):
    """Whose turn it is at the single writer; a lower lane goes first."""

    OPERATOR = 0
    REPORTS = 1
    BULK = 2


class DeliveryKind(StrEnum):
    """What a delivery carries."""

    INSTALL = "install"
    CANCEL = "cancel"


class DeliveryState(StrEnum):
    """Where a delivery stands; only `planned` and `sealed` can still be withdrawn."""

    PLANNED = "planned"
    SEALED = "sealed"
    CLAIMED = "claimed"
    SENT = "sent"
    VOID = "void"
    UNKNOWN = "unknown"


QUEUED = (DeliveryState.PLANNED, DeliveryState.SEALED)
"""States of a delivery that can still be withdrawn."""

EXPOSED = (DeliveryState.CLAIMED, DeliveryState.SENT, DeliveryState.UNKNOWN)
"""States of a delivery that may have reached its device."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One delivery: a signed trigger or recall on its way to one device.

    Attributes:
        id: number, in planning order.
        kind: what it carries.
        state: where it stands.
        update_id: the update it belongs to.
        attempt: attempt of that update.
        device_id: who gets it.
        model: hardware model of that device.
        rollout_id: the rollout.
        rollout_version: version of the rollout when it was planned.
        push: whether it is published over MQTT; otherwise it waits for a poll.
        planned_at: when it was planned.
        expires_at: expiry of the token, None until sealed.
        seq: sequence number, None until sealed.
        token: the bundle, "" until sealed.
        token_hash: hash of the trigger, "" until sealed.
        stage: stage of the update.
    """

    id: int
    kind: DeliveryKind
    state: DeliveryState
    update_id: int
    attempt: int
    device_id: str
    model: str
    rollout_id: int
    rollout_version: int
    push: bool
    planned_at: float
    expires_at: float | None
    seq: int | None
    token: str
    token_hash: str
    stage: int


@dataclass(frozen=True, slots=True)
class Event:
    """One change of a rollout, for the record.

    Attributes:
        at: when.
        phase: phase after it.
        code: reason code.
        text: reason for a person.
        actor: who.
        stage: current stage after it.
    """

    at: float
    phase: Phase
    code: str
    text: str
    actor: str
    stage: int


@dataclass(frozen=True, slots=True)
class Line:
    """One stored report, for the record.

    Attributes:
        at: when it was stored.
        attempt: attempt it speaks of.
        boot: boot identifier of the device.
        n: counter within that boot.
        kind: what it says.
        code: reason code, "" if none.
        text: text of the device, "" if none.
    """

    at: float
    attempt: int
    boot: str
    n: int
    kind: str
    code: str
    text: str


class Registry(Protocol):
    """The devices."""

    def enrol(self, devices: Iterable[tuple[Device, str]]) -> int:
        """Add devices with the hash of their token ("" for none), or renew the token; returns how many are new."""
        ...

    def greet(self, hellos: Sequence[Hello], now: float, *, enrol: bool) -> set[str]:
        """Store what devices say of themselves; returns the identifiers that are registered."""
        ...

    def mark_online(self, states: Iterable[State], now: float) -> None:
        """Store connection states."""
        ...

    def mark_running(self, reports: Iterable[Report], now: float) -> None:
        """Store which release devices run, as their reports prove."""
        ...

    def device(self, device_id: str) -> Device | None:
        """Return a device."""
        ...

    def device_by_token(self, token_hash: str) -> Device | None:
        """Return the device whose token has this hash."""
        ...

    def devices(self, after: str, limit: int) -> list[Device]:
        """Return devices in the order of their identifiers, from after `after`."""
        ...

    def fleet_size(self) -> int:
        """Return how many devices are registered."""
        ...


class Catalogue(Protocol):
    """Artifacts and releases."""

    def add_artifact(self, artifact: Artifact, now: float) -> bool:
        """Register an artifact; False if these bytes are known. Raises TrustError `rel_reused`."""
        ...

    def artifact(self, sha256: str) -> Artifact | None:
        """Return an artifact."""
        ...

    def artifacts(self) -> list[Artifact]:
        """Return all artifacts, newest first."""
        ...

    def sight(self, uri: str, etag: str) -> bool:
        """Remember that this object was looked at; False if it was remembered already."""
        ...

    def sighted(self, uri: str, etag: str) -> bool:
        """Say whether this object was looked at."""
        ...

    def add_release(self, release: Release) -> None:
        """Store a release. Raises ConflictError if the name is taken."""
        ...

    def release(self, name: str) -> Release | None:
        """Return a release."""
        ...

    def releases(self) -> list[Release]:
        """Return all releases, newest first."""
        ...


class Rollouts(Protocol):
    """Rollouts, their tallies and their record."""

    def add_rollout(self, rollout: Rollout, secret: bytes) -> Rollout:
        """Store a new rollout and give it its number. Raises ConflictError if the name is taken."""
        ...

    def rollout(self, rollout_id: int) -> Rollout | None:
        """Return a rollout, locked against others who decide on it until the transaction ends."""
        ...

    def rollout_named(self, name: str) -> Rollout | None:
        """Return a rollout by its name."""
        ...

    def rollouts(self, phases: Iterable[Phase] = ()) -> list[Rollout]:
        """Return rollouts in the given phases (all if none is given), newest first."""
        ...

    def save_rollout(self, rollout: Rollout, event: Event | None) -> None:
        """Store a rollout and, if given, an entry of its record."""
        ...

    def secret(self, rollout_id: int) -> bytes:
        """Return the secret that orders the cohort."""
        ...

    def events(self, rollout_id: int) -> list[Event]:
        """Return the record of a rollout, oldest first."""
        ...

    def change_tallies(self, rollout_id: int, changes: Counter[TallyKey]) -> None:
        """Add the tally changes of one batch."""
        ...

    def tally(self, rollout_id: int) -> Tally:
        """Return the tallies, changes included."""
        ...

    def fold(self, rollout_id: int) -> Tally:
        """Add the changes to the sums, drop them, and return the sums."""
        ...


class Updates(Protocol):
    """Updates and the reports about them."""

    def open_updates(self, rollout: Rollout, members: Sequence[Member], rel: int, now: float) -> list[Update]:
        """Create pending updates in the current stage; members that have one already are left out."""
        ...

    def updates(self, update_ids: Iterable[int]) -> dict[int, Update]:
        """Return updates by number."""
        ...

    def save_updates(self, updates: Iterable[Update], slots: Iterable[Update] | None = None) -> None:
        """Store changed updates; `slots` are those that took or gave up an in-flight slot, None for perhaps all."""
        ...

    def pending(self, rollout_id: int, limit: int) -> list[Update]:
        """Return the next pending updates, in cohort order, whose devices have nothing else in flight."""
        ...

    def updates_in(self, rollout_id: int, states: Iterable[UpdateState]) -> list[Update]:
        """Return the updates of a rollout that are in one of these states."""
        ...

    def updates_of(self, device_ids: Iterable[str], states: Iterable[UpdateState] = ()) -> list[Update]:
        """Return the updates of devices, oldest first, optionally only those in one of these states."""
        ...

    def overdue(self, now: float, limit: int) -> list[Update]:
        """Return in-flight updates whose deadline has passed; looks through all that are in flight."""
        ...

    def highest_rank(self, rollout_id: int) -> int:
        """Return the rank of the last device taken into a rollout, -1 if there is none."""
        ...

    def add_reports(self, reports: Sequence[Report], now: float) -> list[bool]:
        """Store reports; says for each whether it is new."""
        ...

    def lines(self, update_id: int) -> list[Line]:
        """Return the stored reports of an update, oldest first."""
        ...


class Outbox(Protocol):
    """Deliveries on their way: planned -> sealed -> claimed -> sent."""

    def plan(self, kind: DeliveryKind, updates: Sequence[Update], version: int, now: float, *, push: bool) -> None:
        """Plan one delivery per update."""
        ...

    def planned(self, limit: int) -> list[Parcel]:
        """Return the oldest planned deliveries, recalls first."""
        ...

    def sealed_waiting(self) -> int:
        """Return how many sealed deliveries wait for being published."""
        ...

    def reserve(self, count: int) -> int:
        """Take `count` sequence numbers for ever and return the first."""
        ...

    def seal(self, parcels: Sequence[Parcel]) -> int:
        """Store tokens of deliveries that are still planned under the same rollout version; returns how many."""
        ...

    def claim(self, limit: int, now: float) -> list[Parcel]:
        """Take the next sealed deliveries in order of `seq`, re-reading the version of their rollouts."""
        ...

    def settle(self, parcel_ids: Iterable[int], state: DeliveryState, now: float) -> None:
        """Store how claimed deliveries ended."""
        ...

    def claimed(self) -> list[Parcel]:
        """Return deliveries that were claimed and not settled, in order of `seq`."""
        ...

    def withdraw(self, rollout_id: int) -> list[int]:
        """Void the queued triggers of a rollout; returns the updates that were never exposed to one."""
        ...

    def parcels(self, update_id: int) -> list[Parcel]:
        """Return the deliveries of an update, oldest first."""
        ...

    def hand_over(self, parcel_id: int, now: float) -> bool:
        """Mark a delivery as given to a poll; False if it may not be given any more."""
        ...


class Tx(Registry, Catalogue, Rollouts, Updates, Outbox, Protocol):
    """Everything that can be read and written within one transaction."""


class Store(Protocol):
    """Durable state. A transaction that returned is on disk; one that raised left nothing behind."""

    async def transact(self, lane: Lane, work: Callable[[Tx], Result]) -> Result:
        """Run `work` in one write transaction, after those of lower lanes. `work` must not block on anything else."""
        ...

    async def read(self, work: Callable[[Tx], Result]) -> Result:
        """Run `work` on a consistent snapshot; writing in it is an error."""
        ...

    async def close(self) -> None:
        """Finish what was submitted and release the database."""
        ...
