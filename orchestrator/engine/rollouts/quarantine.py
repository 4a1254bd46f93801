"""Quarantine: devices that no rollout takes in, because they failed too often or because a person says so.

Rules:
- A device that failed finally in its last rollouts, one after the other, is left out until a person lets it back. One
  failure never does that: a bad release must not keep its victims from the release that mends it.
- What waits for an offer is closed, so that nothing waits for it; what it has begun goes on. What it was offered and
  did not begin is named to no client that verifies no trigger, and ends by its time.
- Every entry and every release is in the audit log, with who and why.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from orchestrator.core.model import DAEMON, Device, Update, UpdateState
from orchestrator.core.trust.audit import names_hash
from orchestrator.core.update import FAILURES, IDLE, Fact, FactKind
from orchestrator.engine.reports.folding import Recorded, fold
from orchestrator.errors import NotFoundError
from orchestrator.ports import Tx

MOST = 1000
"""Devices that one act may name."""


def after_failures(tx: Tx, before: Mapping[int, Update], after: Mapping[int, Update], now: float) -> None:
    """Quarantine the devices whose last rollouts all ended in a final failure, those of `after` included."""
    failed = {
        item.device_id: item.rollout_id
        for item in after.values()
        if item.state in FAILURES and item.deadline_at is None and before[item.id].state not in FAILURES
    }
    if not failed:
        return
    history: defaultdict[str, list[Update]] = defaultdict(list)
    for item in tx.updates_of(failed):
        history[item.device_id].append(item)
    for device_id, rollout_id in failed.items():
        rollout = tx.rollout(rollout_id)
        assert rollout is not None, "an update always belongs to a rollout"
        limit = rollout.plan.retry.quarantine_after
        if limit and _failures_in_a_row(history[device_id]) >= limit:
            why = f"failed in its last {limit} rollouts, at last with {history[device_id][-1].code or 'silence'}"
            enter(tx, [device_id], why, now, actor=DAEMON)


def enter(tx: Tx, device_ids: Sequence[str], reason: str, now: float, *, actor: str) -> int:
    """Quarantine devices; those that are quarantined keep the reason that they have.

    Returns:
        How many of them were not quarantined before.

    Raises:
        NotFoundError: one of them is not registered.
    """
    free = [item.id for item in _registered(tx, device_ids) if not item.quarantine]
    tx.quarantine(free, reason, now)
    idle = tx.updates_of(free, IDLE)
    fold(tx, [(item, Fact(FactKind.SUPERSEDE, code="quarantined")) for item in idle], now, Recorded())
    if free:
        said = {"count": len(free), "sha256": names_hash(free), "reason": reason}
        tx.audit(actor, "devices.quarantined", _named(free), said, now)
    return len(free)


def leave(tx: Tx, device_ids: Sequence[str], reason: str, now: float, *, actor: str) -> int:
    """Let devices back: stages that open from now on may take them.

    Returns:
        How many of them were quarantined before.

    Raises:
        NotFoundError: one of them is not registered.
    """
    held = [item.id for item in _registered(tx, device_ids) if item.quarantine]
    tx.release_quarantine(held)
    if held:
        said = {"count": len(held), "sha256": names_hash(held), "reason": reason}
        tx.audit(actor, "devices.released", _named(held), said, now)
    return len(held)


def _registered(tx: Tx, device_ids: Iterable[str]) -> list[Device]:
    wanted = list(dict.fromkeys(device_ids))
    found = tx.devices_named(wanted)
    missing = sorted(set(wanted) - {item.id for item in found})
    if missing:
        raise NotFoundError(f"there is no device {missing[0][:80]!r}; {len(missing)} of {len(wanted)} are not known")
    return found


def _failures_in_a_row(history: Sequence[Update]) -> int:
    """Return how many of the last updates that ended in success or failure are failures, newest first."""
    count = 0
    for item in reversed(history):
        if item.state in FAILURES and item.deadline_at is None:
            count += 1
        elif item.state is UpdateState.CONFIRMED:
            break
    return count


def _named(device_ids: Sequence[str]) -> str:
    return device_ids[0] if len(device_ids) == 1 else f"{len(device_ids)} devices"
