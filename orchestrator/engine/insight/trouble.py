"""What keeps triggers from working: nobody can sign them, or devices do not take them.

Rules:
- That no key is good holds a rollout only while there is something to sign; then it is the reason that is told.
- A refusal is told with its meaning, in the words of the verifier that devices have.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from orchestrator.core.judging import evidence
from orchestrator.core.judging.evidence import EVENTS
from orchestrator.core.judging.health import METRIC_MISSING, UNHEALTHY
from orchestrator.core.model import Phase, Rollout, Tally, Update, UpdateState
from orchestrator.core.reason import Reason
from orchestrator.core.update import FAILURES, REFUSALS
from orchestrator.ports import DeliveryState, Line, Parcel, Tx
from orchestrator.verifier import REASONS
from orchestrator.wire.report import Kind

View = dict[str, Any]


def standing(tx: Tx, rollout: Rollout, tally: Tally, reason: Reason, faults: Sequence[str]) -> Reason:
    """Return why a rollout stands where it stands.

    Args:
        tx: the transaction.
        rollout: the rollout.
        tally: its counts.
        reason: why, as far as the rollout itself can tell.
        faults: what is wrong with the keys that sign triggers, nothing if one is good.
    """
    waits = bool(faults) and rollout.phase is Phase.RUNNING and bool(evidence.pending(tally) or tx.planned(1))
    return _unsigned(faults) if waits else reason


def unsigned(parcels: Sequence[Parcel], faults: Sequence[str]) -> Reason | None:
    """Return why none of these deliveries leaves, if that is because nobody can sign."""
    return _unsigned(faults) if faults and any(item.state is DeliveryState.PLANNED for item in parcels) else None


def refusals(tx: Tx, rollout: Rollout, tally: Tally) -> list[View]:
    """Return how many devices have refused for which reason, the most frequent first."""
    return [_reason(code, count, REASONS.get(code, "")) for code, count in _codes(tx, rollout, tally, REFUSALS)]


def failures(tx: Tx, rollout: Rollout, tally: Tally) -> list[View]:
    """Return how many devices have failed for which reason; a sick measure with what it must be."""
    bounds = ", ".join(f"{rule.metric} must be {rule.side} {rule.bound:g}" for rule in rollout.plan.health)
    means = {UNHEALTHY: bounds, METRIC_MISSING: bounds}
    return [_reason(code, count, means.get(code, "")) for code, count in _codes(tx, rollout, tally, FAILURES)]


def summary(found: Sequence[View], tally: Tally) -> list[str]:
    """Return the refusals as one line, none if there are none."""
    if not found:
        return []
    refused = sum(item["devices"] for item in found)
    taken = sum(count for key, count in tally.items() if key.state not in EVENTS)
    codes = found[0]["code"] if len(found) == 1 else ", ".join(f"{item['devices']} {item['code']}" for item in found)
    return [f"{refused} of {taken} devices refused: {codes}"]


def _codes(tx: Tx, rollout: Rollout, tally: Tally, states: Collection[UpdateState]) -> list[tuple[str, int]]:
    if not any(key.state in states and count for key, count in tally.items()):
        return []
    return tx.codes(rollout.id, states).most_common()


def _reason(code: str, count: int, text: str) -> View:
    return {"code": code or "none", "devices": count, "text": text}


def last_refusal(update: Update, lines: Sequence[Line]) -> View | None:
    """Return what a device said when it refused last, None if it never did."""
    said = [item for item in lines if item.kind == Kind.REFUSED.value]
    if not said:
        return None
    now = update.state in REFUSALS
    code = said[-1].code
    return {"at": said[-1].at, "code": code, "text": said[-1].text, "means": REASONS.get(code, ""), "stands": now}


def _unsigned(faults: Sequence[str]) -> Reason:
    return Reason("no_signer", f"no trigger can be signed: {' '.join(faults)}")
