"""Reads the registry for a rollout, in pieces: who is in the cohort and waits, and who is left out and why.

Rules:
- A piece is one read of at most `CHUNK` devices; nobody holds the fleet, and nothing else waits for it.
- What the database can check it checks; the rest is asked of each device.
- A fixed cohort is judged by what operators said when it was fixed. What devices say of themselves counts as it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from orchestrator.core.model import Device, Facts, Plan, Reason, Rollout
from orchestrator.core.targeting import cohort
from orchestrator.core.targeting.cohort import Member, Sieve, Ways
from orchestrator.core.targeting.dialect import STRICT, SigningRule
from orchestrator.engine.rollouts.releases import by_model, release_of, signing_rule, ways
from orchestrator.ports import Store, Tx

CHUNK = 2000


@dataclass(frozen=True, slots=True)
class Audience:
    """Whom a plan speaks to.

    Attributes:
        plan: the plan.
        hardware: models that its release has an artifact for.
        rel: release counter of its release.
        secret: what orders the cohort.
        rollout_id: rollout whose devices do not wait any more, None for a plan that was never started.
        fixed_at: when the cohort was fixed, None while it is not, or is open.
        ways: what devices may take that are too old to jump to the release.
        started_at: when its rollout was started, or would be; None while nobody asks who waits for the last stage.
        moves: whether the release brings endpoints.
        signing: what keeps its images from devices that verify no trigger.
    """

    plan: Plan
    hardware: frozenset[str]
    rel: int
    secret: bytes
    rollout_id: int | None = None
    fixed_at: float | None = None
    ways: Ways = field(default_factory=dict)
    started_at: float | None = None
    moves: bool = False
    signing: SigningRule = STRICT

    def left_out(self, device: Device) -> Reason | None:
        """Return why a device is not in the cohort, None if it is."""
        return next(self.all_left_out(device), None)

    def all_left_out(self, device: Device) -> Iterator[Reason]:
        """Yield every reason why a device is not in the cohort."""
        asked = (self.plan, self.hardware, self.rel, self.fixed_at, self.ways)
        return cohort.all_left_out(device, *asked, moves=self.moves, signing=self.signing)

    def sieve(self) -> Sieve:
        """Return what a database can check of that."""
        return cohort.sieve(self.plan, self.hardware, self.rel, self.fixed_at, moves=self.moves)


def audience_of(tx: Tx, rollout: Rollout) -> Audience:
    """Return whom a rollout speaks to."""
    release = release_of(tx, rollout)
    fixed_at = None if rollout.plan.open_cohort else rollout.cohort_at
    brought = by_model(tx, release)
    hardware, signing = frozenset(brought), signing_rule(tx, brought)
    secret = tx.secret(rollout.id)
    ways_, began_at = ways(tx, release), rollout.cohort_at
    moves = release.moves
    known = (release.rel, secret, rollout.id, fixed_at, ways_, began_at, moves, signing)
    return Audience(rollout.plan, hardware, *known)


def as_fixed(tx: Tx, devices: Sequence[Device], fixed_at: float | None) -> list[Device]:
    """Return devices with what operators said of them when the cohort was fixed."""
    changed = [] if fixed_at is None else [item.id for item in devices if (item.facts_at or 0.0) > fixed_at]
    if fixed_at is None or not changed:
        return list(devices)
    past = tx.past_facts(changed, fixed_at)
    return [_with(device, past[device.id]) if device.id in past else device for device in devices]


async def waiting(store: Store, audience: Audience) -> AsyncIterator[list[Member]]:
    """Yield the members of the cohort that its rollout has not taken in, in pieces, by their identifiers."""
    after = ""
    while True:
        last, members = await store.read(partial(_waiting, audience=audience, after=after))
        if last is None:
            return
        after = last
        yield members


async def everybody(store: Store, audience: Audience) -> AsyncIterator[list[tuple[Device, Reason | None]]]:
    """Yield all devices in pieces, by their identifiers, each with why it is left out, None if it is not."""
    after = ""
    while True:
        devices = await store.read(partial(_judged, audience=audience, after=after))
        if not devices:
            return
        after = devices[-1][0].id
        yield devices


def _waiting(tx: Tx, audience: Audience, after: str) -> tuple[str | None, list[Member]]:
    devices = tx.devices(after, CHUNK, audience.sieve())
    if not devices:
        return None, []
    judged = as_fixed(tx, devices, audience.fixed_at)
    taken = _taken(tx, audience, devices)
    chosen = [device for device in judged if device.id not in taken and audience.left_out(device) is None]
    return devices[-1].id, list(cohort.members(audience.secret, chosen, audience.plan, audience.started_at))


def _judged(tx: Tx, audience: Audience, after: str) -> list[tuple[Device, Reason | None]]:
    devices = tx.devices(after, CHUNK)
    if not devices:
        return []
    taken = _taken(tx, audience, devices)
    inside = Reason("taken", "the rollout has taken it in already")
    judged = as_fixed(tx, devices, audience.fixed_at)
    return [(device, inside if device.id in taken else audience.left_out(device)) for device in judged]


def _taken(tx: Tx, audience: Audience, devices: Sequence[Device]) -> set[str]:
    if audience.rollout_id is None:
        return set()
    return tx.taken(audience.rollout_id, devices[0].id, devices[-1].id)


def _with(device: Device, facts: Facts) -> Device:
    return replace(
        device,
        groups=facts.groups,
        revision=facts.revision,
        site=facts.site,
        time_zone=facts.time_zone,
        tags=facts.tags,
        attributes=facts.attributes,
    )
