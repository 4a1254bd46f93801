"""Which devices a rollout takes, and in which order.

Rules:
- The order is a keyed hash per rollout: nobody can place a device among the first ones, and no
  device is first each time.
- A stage is one cut of that order. Nothing here holds the whole fleet: a cut keeps `count` devices.
"""

from __future__ import annotations

import hashlib
import heapq
import hmac
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orchestrator.core.model import Device, Plan, SizeKind, Stage

RANK_BITS = 62
"""Ranks fit a signed 64-bit column of any database."""


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """A device in the order of one rollout.

    Attributes:
        rank: position, the first bits of the keyed hash.
        device_id: the device.
        model: its hardware model.
    """

    rank: int
    device_id: str
    model: str


def secret_from_seed(seed: int) -> bytes:
    """Return the rollout secret of a rehearsal, 32 bytes."""
    return hashlib.sha256(f"ota-orchestrator rehearsal {seed}".encode()).digest()


def rank(secret: bytes, device_id: str) -> int:
    """Return where a device stands in the order of the rollout with this secret."""
    digest = hmac.digest(secret, device_id.encode(), "sha256")
    return int.from_bytes(digest[:8], "big") >> (64 - RANK_BITS)


def belongs(device: Device, plan: Plan, hardware: frozenset[str], rel: int) -> bool:
    """Say whether a device is in the cohort of a plan.

    Args:
        device: the device.
        plan: names models and groups.
        hardware: models that the release has an artifact for.
        rel: release counter of the release; a device that runs it, or a later one, needs no update.
    """
    if device.model not in hardware or device.rel >= rel:
        return False
    if plan.models and device.model not in plan.models:
        return False
    return not plan.groups or not set(plan.groups).isdisjoint(device.groups)


def members(secret: bytes, devices: Iterable[Device]) -> Iterator[Member]:
    """Rank devices, in the order given."""
    for device in devices:
        yield Member(rank(secret, device.id), device.id, device.model)


def cut(candidates: Iterable[Member], above: int, count: int) -> list[Member]:
    """Return the first `count` members whose rank is greater than `above`, in order."""
    return heapq.nsmallest(count, (member for member in candidates if member.rank > above))


def stages_for(plan: Plan, cohort_size: int) -> tuple[Stage, ...]:
    """Return the stages of a plan for a cohort of known size; a stage may come out empty."""
    left = cohort_size
    stages = []
    for wanted in plan.stages:
        size = {
            SizeKind.COUNT: wanted.size,
            SizeKind.PPM: -(-wanted.size * cohort_size // 1_000_000),
            SizeKind.REST: left,
        }[wanted.kind]
        base = min(size, left)
        left -= base
        stages.append(Stage(base=base, target=base))
    return tuple(stages)
