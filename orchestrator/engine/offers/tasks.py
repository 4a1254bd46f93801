"""What a device that verifies no trigger is told to do, once a poll brought it something.

Rules:
- The offer is the one that a trigger would carry; here it gets its artifact, for a client that fetches that by itself.
- An image that the device does not enforce a signature of is not named to it, whatever was decided before: what
  operators say of a device may have changed since.
- To a device in quarantine that has not begun, nothing is named either.
- A device that has begun hears on until it closes; what it may fetch is judged each time.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.model import Artifact, Device, Update, UpdateState
from orchestrator.engine.offers.polling import Brings
from orchestrator.engine.rollouts.releases import by_model, release_of, signing_rule
from orchestrator.ports import EXPOSED, DeliveryKind, Tx
from orchestrator.wire.report import Kind


@dataclass(frozen=True, slots=True)
class Task:
    """An update as the client of a dialect sees it.

    Attributes:
        update: the update.
        artifact: what it brings.
        recall: whether it is being recalled.
        may_fetch: whether the bytes may be had.
    """

    update: Update
    artifact: Artifact
    recall: bool
    may_fetch: bool


def task_of(tx: Tx, device: Device, brings: Brings) -> Task | None:
    """Return what a device is told of what a poll brought, None if it may not know."""
    rollout = tx.rollout(brings.update.rollout_id)
    assert rollout is not None, "an update always belongs to a rollout"
    brought = by_model(tx, release_of(tx, rollout))
    artifact = brought.get(device.model)
    if artifact is None or device.model != brings.model:
        return None  # it was offered as what it no longer is
    may_fetch = not brings.recall and signing_rule(tx, brought).left_out(device) is None
    if not (may_fetch or brings.recall or brings.update.begun):
        return None
    if device.quarantine and not (brings.recall or brings.update.begun):
        return None
    return Task(brings.update, artifact, brings.recall, may_fetch)


def round_of(tx: Tx, update: Update) -> int:
    """Return by which trigger a device goes at its present attempt, as its `seq`; 0 if it was given none.

    An attempt that is offered again after a recall, or after silence, is the same attempt and another round.
    """
    given = [item for item in tx.parcels(update.id) if item.kind is DeliveryKind.INSTALL and item.state in EXPOSED]
    return max((item.seq or 0 for item in given if item.attempt == update.attempt), default=0)


def artifact_of(tx: Tx, device: Device, update: Update) -> Artifact | None:
    """Return what an update brings its device, None if the device is of another model now."""
    rollout = tx.rollout(update.rollout_id)
    assert rollout is not None, "an update always belongs to a rollout"
    return by_model(tx, release_of(tx, rollout)).get(device.model)


def shows(tx: Tx, device: Device, version: str) -> tuple[int, Update | None]:
    """Return what it means that a device says which version it runs.

    Args:
        tx: the transaction.
        device: as it was before.
        version: what it says.

    Returns:
        Release counter of that version, as far as it is known; and the update that this proves, None for none: it
        ran another version before, and said that it installs this one.

    What differs from all that is known has the counter 0, so that it is never taken for the release that ran before.
    """
    rels = {item.rel for item in tx.artifacts() if item.version == version and device.model in item.hardware}
    if rels:
        known = device.rel if device.rel in rels else min(rels)
    elif version == device.version or (not device.version and not _is_brought(tx, device, device.rel)):
        known = device.rel
    else:
        known = _before(tx, device)
    for update in tx.updates_of([device.id], _INSTALLS):
        artifact = artifact_of(tx, device, update)
        if artifact is None or version == device.version or artifact.version != version:
            continue
        if update.state is UpdateState.INSTALLED or device.version:
            return update.rel, update
    return known, None


def _before(tx: Tx, device: Device) -> int:
    """Return the release counter of a version that no artifact brings, once another one was known to run.

    If the device took an update while it ran what no artifact brings, it is back there; else nobody knows what it is.
    """
    for update in sorted(tx.updates_of([device.id], _BEHIND), key=lambda item: -item.id):
        taken = [line for line in tx.lines(update.id) if line.kind == Kind.ACCEPTED and line.attempt == update.attempt]
        if taken:
            rel = taken[-1].rel or 0
            return 0 if _is_brought(tx, device, rel) else rel
    return 0


def _is_brought(tx: Tx, device: Device, rel: int) -> bool:
    return any(item.rel == rel and device.model in item.hardware for item in tx.artifacts())


_INSTALLS = (UpdateState.ACCEPTED, UpdateState.DOWNLOADED, UpdateState.INSTALLED)
_BEHIND = (*_INSTALLS, UpdateState.RUNNING, UpdateState.CONFIRMED)
