"""A new keyset: stored, believed, and everything that is on its way made anew under it.

Rules:
- The lines are on disk before anybody believes them.
- A keyset under which we could sign no trigger is taken only on a person's word: nothing could be recalled.
- What was signed under the old keyset is worth nothing to a device that took the new one: queued tokens are void, and
  devices that have not begun get another token for the same attempt.
- A device that had accepted gives the attempt up by itself, says so, and is offered the release again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from orchestrator.core import rollout as machine
from orchestrator.core.trust import approval
from orchestrator.core.trust.approval import ApprovalNeededError, Matter, Need, Proposal
from orchestrator.engine.rollouts import effects
from orchestrator.engine.trust import approvals
from orchestrator.engine.trust.approvals import Ask, Rules, Wish
from orchestrator.engine.trust.footing import footing_of
from orchestrator.engine.trust.keyring import Keyring
from orchestrator.errors import ConflictError, RequestError
from orchestrator.ports import Lane, Store, Tx
from orchestrator.verifier import TRIGGER, Keyset


async def take_keyset(
    store: Store,
    keyring: Keyring,
    lines: bytes,
    wish: Wish,
    rules: Rules,
    now: Callable[[], float],
    *,
    force: bool = False,
) -> Keyset:
    """Take the keyset that follows the present one.

    Args:
        store: where it is kept.
        keyring: believes it afterwards.
        lines: signed by the root keys.
        wish: who wants it.
        rules: when approvals are asked for.
        now: the clock.
        force: take it also if we can sign no trigger under it.

    Raises:
        TrustError: devices would not take it.
        ConflictError: we could sign no trigger under it, and nobody said that we shall take it all the same.
        RequestError: it is forced without a reason.
        ApprovalNeededError: another person must approve it first.
    """
    proposed = keyring.judge(lines)
    silent = _silence(keyring, proposed, wish, force=force)
    waits = await store.transact(Lane.OPERATOR, lambda tx: _store(tx, lines, proposed, wish, rules, now(), silent))
    if waits is not None:
        raise ApprovalNeededError(waits)
    return keyring.take(lines)


def _silence(keyring: Keyring, keyset: Keyset, wish: Wish, *, force: bool) -> str:
    """Return why we could sign no trigger under a keyset, "" if we could; refuse it unless it is forced."""
    found = " ".join(keyring.faults(TRIGGER, keyset))
    if found and not force:
        text = (
            f"{found} Taken now, keyset {keyset.ep} would leave the fleet without triggers and recalls. Give the "
            "daemon the new private key first (trust.next_trigger_key_file or trust.token_keys), restart it and submit "
            "again; `ota keys rotate --next` changes a key without haste; --force takes it all the same"
        )
        raise ConflictError(text, code="no_trigger_key")
    if found and not wish.reason.strip():
        raise RequestError("a keyset that is forced needs a --reason; it stands in the audit log", code="reason_needed")
    return found


def _store(tx: Tx, lines: bytes, keyset: Keyset, wish: Wish, rules: Rules, now: float, silent: str) -> Proposal | None:
    name = f"keyset {keyset.ep}"
    digest = hashlib.sha256(lines).hexdigest()
    if approvals.are_asked(tx, rules):
        ask = Ask(
            Matter.KEYSET,
            name,
            Need(1, "it replaces the keys that every device trusts"),
            approval.digest(name, digest, bool(silent)),
            f"taking {name} with {len(keyset.keys)} keys{', under which no trigger can be signed' if silent else ''}",
        )
        waits = approvals.admit(tx, ask, wish, rules, now)
        if waits is not None:
            return waits
    tx.add_keyset(keyset.ep, lines, now)
    tx.stand_on(footing_of(keyset), now)
    kids = {kid: key.typ for kid, key in sorted(keyset.keys.items())}
    said = {"sha256": digest, "keys": kids, "reason": wish.reason} | ({"forced": silent} if silent else {})
    tx.audit(wish.caller.name, "keyset.taken", name, said, now)
    for rollout in tx.rollouts(machine.UNFINISHED):
        effects.make_anew(tx, rollout, now)
    return None
