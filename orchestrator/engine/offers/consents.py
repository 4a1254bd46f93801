"""Whether the user of a device is asked now, for clients that ask by themselves whether there is something to ask.

Rules:
- A user is asked about an update for which nothing but time and such words are missing: its rollout runs, the device
  was taken in, may have the image, and is busy with nothing else.
- Whoever put an update off is asked again when that time is over, and not before.
- A standing agreement holds for every plan that asks, until it is taken back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from orchestrator.core.model import Artifact, Delivery, Device, Phase, Update, UpdateState
from orchestrator.core.pace.requirement import CONSENT, Consent, Standing
from orchestrator.core.targeting import dialect
from orchestrator.core.update import IN_FLIGHT
from orchestrator.engine.offers import holds
from orchestrator.engine.rollouts.releases import by_model, release_of
from orchestrator.ports import Tx

_WAITS = frozenset({UpdateState.PENDING, UpdateState.UNREACHED})


@dataclass(frozen=True, slots=True)
class Question:
    """What the user of a device is asked.

    Attributes:
        update: the update that waits for the answer.
        artifact: what it brings.
        longest_s: how far ahead the plan lets the user put it off.
    """

    update: Update
    artifact: Artifact
    longest_s: float


def are_asked(tx: Tx) -> bool:
    """Say whether any rollout that runs asks users."""
    return any(rollout.plan.consent.consent is Consent.ASK for rollout in tx.rollouts((Phase.RUNNING,)))


def question_for(tx: Tx, device: Device, now: float) -> Question | None:
    """Return what the user of a device is asked now, None for nothing."""
    found = tx.updates_of([device.id], IN_FLIGHT | _WAITS)
    if any(update.state in IN_FLIGHT for update in found):
        return None
    asked = (_question(tx, device, update, now) for update in reversed(found))
    return next((question for question in asked if question is not None), None)


def standing_of(tx: Tx, device: Device) -> Standing | None:
    """Return by which word the user of a device agrees to every update, None for none."""
    return tx.situations([device.id])[device.id].standing


def agree_always(tx: Tx, device: Device, standing: Standing | None) -> set[int]:
    """Keep that the user of a device agrees to every update, or no more; returns the rollouts that look at it again."""
    before = tx.situations([device.id])[device.id]
    if (before.standing is None) == (standing is None):
        return set()
    tx.save_situations({device.id: replace(before, standing=standing)})
    return tx.free_holds([device.id])


def _question(tx: Tx, device: Device, update: Update, now: float) -> Question | None:
    rollout = tx.rollout(update.rollout_id)
    assert rollout is not None, "an update always belongs to a rollout"
    rule = rollout.plan.consent
    if rollout.phase is not Phase.RUNNING or rollout.plan.delivery is Delivery.PUSH or rule.consent is not Consent.ASK:
        return None
    codes = {item.reason.code for item in holds.reasons(tx, rollout, update, now)}
    artifact = by_model(tx, release_of(tx, rollout)).get(device.model)
    if artifact is None or CONSENT not in codes or dialect.CODE in codes:
        return None
    return Question(update, artifact, rule.longest_s)
