"""Whether devices that verify no trigger may be offered images without a native signature that they enforce.

Rules:
- The configuration says so, with a reason; the store keeps it, so that who decides and who explains ask the same.
- A change of it is on the record.
"""

from __future__ import annotations

from orchestrator.core.model import DAEMON, Device, Rollout
from orchestrator.core.rollout import UNFINISHED
from orchestrator.core.targeting.dialect import SigningRule
from orchestrator.engine.offers import holds
from orchestrator.engine.rollouts.releases import by_model, release_of, signing_rule
from orchestrator.ports import Tx


def settle(tx: Tx, reason: str, now: float) -> None:
    """Store what the configuration says.

    Args:
        tx: the transaction.
        reason: why such devices may be offered such images, "" if they may not.
        now: present time.
    """
    if tx.unsigned_clients() == reason:
        return
    tx.allow_unsigned_clients(reason, now)
    for rollout in tx.rollouts(UNFINISHED):
        holds.look_anew(tx, rollout)
    action = "unsigned_clients.allowed" if reason else "unsigned_clients.forbidden"
    tx.audit(DAEMON, action, "configuration", {"reason": reason}, now)


def rule_of(tx: Tx, rollout: Rollout) -> SigningRule:
    """Return what keeps the images of a rollout from devices that verify no trigger."""
    return signing_rule(tx, by_model(tx, release_of(tx, rollout)))


def exception_for(tx: Tx, device: Device, rollout: Rollout) -> str | None:
    """Return why a device may be offered an image of a rollout whose origin it cannot verify, None if it can."""
    rule = rule_of(tx, rollout)
    return rule.allowed or None if not rule.covers(device) else None
