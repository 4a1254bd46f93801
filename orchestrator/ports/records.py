"""What the store keeps besides the nouns of the core."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.edit import Change
from orchestrator.core.model import Phase, Plan


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
class Queue:
    """Deliveries that wait for the same.

    Attributes:
        state: where they stand.
        push: whether they are published over MQTT; the others wait for a poll.
        count: how many.
        oldest_at: when the oldest of them was planned.
    """

    state: DeliveryState
    push: bool
    count: int
    oldest_at: float


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
class PlanVersion:
    """One version of the plan of a rollout.

    Attributes:
        version: number, from 1.
        plan: the whole plan.
        changes: what is different from the version before, none for the first.
        actor: who made it.
        reason: why.
        at: when.
    """

    version: int
    plan: Plan
    changes: tuple[Change, ...]
    actor: str
    reason: str
    at: float


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
        rel: release counter that ran then, None if it did not say.
        boots: boot counter of the device then, None if it did not say.
    """

    at: float
    attempt: int
    boot: str
    n: int
    kind: str
    code: str
    text: str
    rel: int | None = None
    boots: int | None = None
