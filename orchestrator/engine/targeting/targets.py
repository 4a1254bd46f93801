"""Devices that come and go over hawkBit's Management API: enrolled with a token of the caller's, or taken out.

Rules:
- A device that was taken out is not deleted, for what it did stays on the record: nothing opens to it, whoever vouches
  for it, it is quarantined, and hawkBit's API knows it no more. Enrolled again, it starts with a new token and an
  unknown version.
- What it was offered and has not begun is closed, for it can never answer that.
- A quarantine for another reason is not lifted by that.
"""

from __future__ import annotations

import re

from orchestrator.core.model import Device, UpdateState
from orchestrator.core.update import Fact, FactKind
from orchestrator.engine.reports.folding import Recorded, fold
from orchestrator.engine.rollouts import operations, quarantine
from orchestrator.engine.rollouts.operations import NewDevice, token_hash
from orchestrator.errors import ConflictError, RequestError
from orchestrator.ports import QUEUED, DeliveryState, Tx
from orchestrator.wire.report import Hello

DIALECT = "ddi"
GONE = "deleted over hawkBit's Management API"
_TOKEN = re.compile(r"[\x21-\x7e]{16,128}")


def is_target(device: Device) -> bool:
    """Say whether hawkBit's API knows a device."""
    return device.dialect == DIALECT and device.quarantine != GONE


def add(tx: Tx, new: NewDevice, token: str, now: float, *, actor: str) -> str:
    """Enrol a device of this dialect.

    Args:
        tx: the transaction.
        new: the device.
        token: with which it shall log in, "" for one that is made here.
        now: present time.
        actor: who enrols it.

    Returns:
        Its token.

    Raises:
        RequestError: the identifier or the token cannot be one.
        ConflictError: there is such a device, or another one has this token.
    """
    known = tx.device(new.id)
    if known is not None and known.quarantine != GONE:
        raise ConflictError(f"there is a device {new.id!r} already", code="exists")
    if token and not _TOKEN.fullmatch(token):
        raise RequestError("a securityToken has 16 to 128 printable characters; leave it out to get a good one")
    if token and tx.device_by_token(token_hash(token)) is not None:
        raise ConflictError("another device has this securityToken; leave it out to get one of its own")
    made = operations.enrol(tx, [new], now, actor=actor)[new.id]
    if known is not None:
        quarantine.leave(tx, [new.id], "enrolled again over hawkBit's Management API", now, actor=actor)
        tx.greet([Hello(v=1, dev=new.id, model=new.model, boot="enrolled")], now, enrol=False)
    if token:
        tx.enrol((device, token_hash(token)) for device in tx.devices_named([new.id]))
    return token or made


def remove(tx: Tx, device: Device, now: float, *, actor: str) -> None:
    """Take a device out: its token opens nothing any more, and no rollout takes it in.

    Raises:
        ConflictError: it is quarantined for another reason.
    """
    check_removable(device)
    operations.enrol(tx, [NewDevice(device.id, device.model, device.groups)], now, actor=actor)  # nobody is told it
    quarantine.enter(tx, [device.id], GONE, now, actor=actor)
    waits = [item for item in tx.updates_of([device.id], (UpdateState.OFFERED,)) if not item.begun]
    parcels = [item for update in waits for item in tx.parcels(update.id)]
    tx.settle([item.id for item in parcels if item.state in QUEUED], DeliveryState.VOID, now)
    fold(tx, [(item, Fact(FactKind.SUPERSEDE, code="quarantined")) for item in waits], now, Recorded())


def check_removable(device: Device) -> None:
    """Check that a device may be taken out.

    Raises:
        ConflictError: it is quarantined for another reason.
    """
    if device.quarantine:
        text = f"{device.id} is quarantined ({device.quarantine}); `ota device release {device.id}` comes first"
        raise ConflictError(text, code="quarantined")
