"""Durable state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Protocol, TypeVar

from orchestrator.core.model import (
    Artifact,
    Device,
    Facts,
    Phase,
    Release,
    Rollout,
    Tally,
    TallyKey,
    Update,
    UpdateState,
)
from orchestrator.core.pace.hold import Hold, Situation
from orchestrator.core.targeting.cohort import Member, Sieve
from orchestrator.ports.acts import Answers
from orchestrator.ports.audit import AuditLog
from orchestrator.ports.events import Webhooks
from orchestrator.ports.insight import Insight
from orchestrator.ports.keysets import Keysets
from orchestrator.ports.operators import Approvals, Operators
from orchestrator.ports.records import DeliveryKind, DeliveryState, Event, Line, Parcel, PlanVersion, Queue
from orchestrator.ports.surroundings import Surroundings
from orchestrator.ports.times import Times
from orchestrator.wire.report import Hello, Report, State

Result = TypeVar("Result")


class Lane(IntEnum):
    """Whose turn it is at the single writer; a lower lane goes first."""

    OPERATOR = 0
    REPORTS = 1
    BULK = 2


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

    def mark_seen(self, seen: Mapping[str, float]) -> None:
        """Store when registered devices said something, where they said nothing later."""
        ...

    def mark_running(self, reports: Iterable[Report], now: float) -> None:
        """Store which release devices run, as their reports prove."""
        ...

    def mark_moved(self, reports: Iterable[Report], now: float) -> None:
        """Store by which endpoints devices go, as their reports about a move prove."""
        ...

    def device(self, device_id: str) -> Device | None:
        """Return a device."""
        ...

    def device_by_token(self, token_hash: str) -> Device | None:
        """Return the device whose token has this hash."""
        ...

    def devices(self, after: str, limit: int, sieve: Sieve | None = None) -> list[Device]:
        """Return devices in the order of their identifiers, from after `after`; all that the sieve lets through."""
        ...

    def devices_named(self, device_ids: Iterable[str]) -> list[Device]:
        """Return those of the named devices that are registered, in the order of their identifiers."""
        ...

    def set_facts(self, changed: Sequence[Device], now: float) -> None:
        """Store the facts of registered devices, and that they changed now."""
        ...

    def keep_facts(self, before: Sequence[Device], now: float) -> None:
        """Remember which facts held until now; the first ones of a moment stay."""
        ...

    def past_facts(self, device_ids: Iterable[str], at: float) -> dict[str, Facts]:
        """Return the facts that held at a time, of the devices whose facts were kept when they changed after it."""
        ...

    def quarantine(self, device_ids: Sequence[str], reason: str, now: float) -> None:
        """Store that no rollout may take these devices in, and why."""
        ...

    def release_quarantine(self, device_ids: Sequence[str]) -> None:
        """Store that rollouts may take these devices in again."""
        ...

    def situations(self, device_ids: Iterable[str]) -> dict[str, Situation]:
        """Return what the named devices that are registered said of themselves."""
        ...

    def save_situations(self, situations: Mapping[str, Situation]) -> None:
        """Store what devices said of themselves."""
        ...

    def unsigned_clients(self) -> str:
        """Return why devices that verify no trigger may be offered images without a signature, "" if they may not."""
        ...

    def allow_unsigned_clients(self, reason: str, now: float) -> None:
        """Store that they may, and why; "" that they may not."""
        ...

    def registry_version(self) -> int:
        """Return a number that rises when devices are registered or facts change."""
        ...

    def fleet_size(self) -> int:
        """Return how many devices are registered."""
        ...


class Catalogue(Protocol):
    """Artifacts and releases."""

    def add_artifact(self, artifact: Artifact, now: float) -> bool:
        """Register an artifact; False if these bytes are known. Raises TrustError `rel_reused`."""
        ...

    def restate(self, artifact: Artifact) -> None:
        """Store a later statement of an artifact, with what it may be installed over and what else was found of it."""
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

    def rollouts(
        self, phases: Iterable[Phase] = (), *, releases: Iterable[str] = (), select: str = ""
    ) -> list[Rollout]:
        """Return rollouts, newest first: of the given phases, releases and selector, where these are given."""
        ...

    def count_rollouts(self, releases: Collection[str], phases: Iterable[Phase] = ()) -> int:
        """Return how many rollouts there are of these releases, in the given phases (all if none is given)."""
        ...

    def took(self, releases: Collection[str], phases: Iterable[Phase], states: Iterable[UpdateState]) -> int:
        """Return how many updates are in one of these states, in all rollouts of these releases in these phases."""
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

    def add_plan_version(self, rollout_id: int, version: PlanVersion) -> None:
        """Keep a version of the plan of a rollout; no version is kept twice."""
        ...

    def plan_versions(self, rollout_id: int) -> list[PlanVersion]:
        """Return the versions of the plan of a rollout, oldest first."""
        ...

    def offers(self) -> dict[int, int]:
        """Return how many devices were offered a release, over all rollouts, by minute since the epoch."""
        ...

    def save_offers(self, offers: Mapping[int, int]) -> None:
        """Store the offers by minute in place of those that were stored."""
        ...

    def in_flight(self) -> dict[int, int]:
        """Return how many slots each rollout has taken, of those that have any."""
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
        """Return the next pending updates that are not held, in cohort order, with nothing else in flight."""
        ...

    def hold(self, held: Sequence[tuple[Update, Hold]]) -> None:
        """Store what holds pending updates, and until when they are not looked at."""
        ...

    def release_holds(self, rollout_id: int, now: float, limit: int) -> None:
        """Let up to `limit` held updates be looked at again, those whose time has come."""
        ...

    def free_holds(self, device_ids: Sequence[str], *, timed: bool = False) -> set[int]:
        """Let held updates of devices be looked at, with `timed` also by time alone; returns their rollouts."""
        ...

    def next_look(self, rollout_id: int) -> tuple[float, str] | None:
        """Return when the first held update is looked at and what holds it; None if any is not held, or none waits."""
        ...

    def updates_in(self, rollout_id: int, states: Iterable[UpdateState]) -> list[Update]:
        """Return the updates of a rollout that are in one of these states."""
        ...

    def codes(self, rollout_id: int, states: Iterable[UpdateState]) -> Counter[str]:
        """Return how many updates of a rollout are in one of these states, by the code that they are there for."""
        ...

    def updates_of(self, device_ids: Iterable[str], states: Iterable[UpdateState] = ()) -> list[Update]:
        """Return the updates of devices, oldest first, optionally only those in one of these states."""
        ...

    def overdue(self, now: float, limit: int) -> list[Update]:
        """Return in-flight updates whose deadline has passed; looks through all that are in flight."""
        ...

    def taken(self, rollout_id: int, after: str, last: str) -> set[str]:
        """Return the devices from `after` to `last`, both included, that a rollout has taken in."""
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

    def queues(self) -> list[Queue]:
        """Return how many deliveries wait for what, those that are void by now left out."""
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

    def reachable(self, rollout_id: int, now: float) -> list[int]:
        """Return updates that nobody waits for any more and whose device may still follow a trigger of theirs."""
        ...

    def were_exposed(self, update_ids: Collection[int]) -> set[int]:
        """Return those of these updates a trigger of which may have reached the device."""
        ...

    def parcels(self, update_id: int) -> list[Parcel]:
        """Return the deliveries of an update, oldest first."""
        ...

    def hand_over(self, parcel_id: int, now: float) -> bool:
        """Mark a delivery as given to a poll; False if it may not be given any more."""
        ...


class Pruning(Protocol):
    """What is deleted once nobody needs it any more."""

    def touch(self) -> None:
        """Write what means nothing, to see whether anything can be written."""
        ...

    def forget_updates(self, before: float, now: float, limit: int) -> int:
        """Delete up to `limit` updates of rollouts that were over before a time, with all that was said of them.

        Who is on its way, or may still act on a trigger, stays.

        Returns:
            How many were deleted; fewer than the limit once none is left.
        """
        ...

    def forget_facts(self, before: float, limit: int) -> int:
        """Delete up to `limit` kept facts that ceased to hold until a time; returns how many."""
        ...


class Tx(
    Registry,
    Catalogue,
    Rollouts,
    Updates,
    Outbox,
    Keysets,
    Operators,
    Approvals,
    AuditLog,
    Surroundings,
    Insight,
    Pruning,
    Times,
    Answers,
    Webhooks,
    Protocol,
):
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
