"""A new keyset: stored, believed, and everything that is on its way made anew under it.

Rules:
- The lines are on disk before anybody believes them.
- What was signed under the old keyset is worth nothing to a device that took the new one: queued tokens are void, and
  devices that have not begun get another token for the same attempt.
- A device that had accepted gives the attempt up by itself, says so, and is offered the release again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from orchestrator.core import approval
from orchestrator.core import rollout as machine
from orchestrator.core.approval import ApprovalNeededError, Matter, Need, Proposal
from orchestrator.core.model import Phase
from orchestrator.engine import approvals, effects
from orchestrator.engine.approvals import Ask, Rules, Wish
from orchestrator.engine.keyring import Keyring
from orchestrator.ports import Lane, Store, Tx
from orchestrator.verifier import Keyset

_LIVE = frozenset(Phase) - machine.FINISHED


async def take_keyset(
    store: Store, keyring: Keyring, lines: bytes, wish: Wish, rules: Rules, now: Callable[[], float]
) -> Keyset:
    """Take the keyset that follows the present one.

    Args:
        store: where it is kept.
        keyring: believes it afterwards.
        lines: signed by the root keys.
        wish: who wants it.
        rules: when approvals are asked for.
        now: the clock.

    Raises:
        TrustError: devices would not take it.
        ApprovalNeededError: another person must approve it first.
    """
    proposed = keyring.judge(lines)
    waits = await store.transact(Lane.OPERATOR, lambda tx: _store(tx, lines, proposed, wish, rules, now()))
    if waits is not None:
        raise ApprovalNeededError(waits)
    return keyring.take(lines)


def _store(tx: Tx, lines: bytes, keyset: Keyset, wish: Wish, rules: Rules, now: float) -> Proposal | None:
    name = f"keyset {keyset.ep}"
    digest = hashlib.sha256(lines).hexdigest()
    if approvals.are_asked(tx, rules):
        ask = Ask(
            Matter.KEYSET,
            name,
            Need(1, "it replaces the keys that every device trusts"),
            approval.digest(name, digest),
            f"taking {name} with {len(keyset.keys)} keys",
        )
        waits = approvals.admit(tx, ask, wish, rules, now)
        if waits is not None:
            return waits
    tx.add_keyset(keyset.ep, lines, now)
    kids = {kid: key.typ for kid, key in sorted(keyset.keys.items())}
    tx.audit(wish.caller.name, "keyset.taken", name, {"sha256": digest, "keys": kids, "reason": wish.reason}, now)
    for rollout in tx.rollouts(_LIVE):
        effects.make_anew(tx, rollout, now)
    return None
