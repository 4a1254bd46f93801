"""Every reason that holds a device back from a release, not only the first, and when each may change.

Rules:
- Whoever is out of the cohort is told all that keeps it out, by the function that judges (`core.targeting.cohort`).
- Whoever waits is told what its rollout waits for, and what else it is busy with.
- What a person must do, or the device itself, has no time; a deadline, a soak or a window has.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from orchestrator.core import rollout as machine
from orchestrator.core.model import Device, Phase, Rollout, Update, UpdateState
from orchestrator.core.rollout import Decision, Offer
from orchestrator.core.targeting import cohort
from orchestrator.core.update import IN_FLIGHT
from orchestrator.engine.offers import holds
from orchestrator.engine.reports.outcomes import CURRENT
from orchestrator.engine.rollouts.releases import release_of, ways
from orchestrator.engine.targeting import unsigned
from orchestrator.engine.targeting.audience import as_fixed, audience_of
from orchestrator.ports import Tx

S = UpdateState

_SETTLED = frozenset({S.CONFIRMED, S.SUPERSEDED, S.FAILED, S.EXPIRED, S.LOST, S.ROLLED_BACK})
"""States in which nothing is offered by itself any more."""

_CLOSED_TEXTS = {
    "quarantined": "it came into quarantine, which closed its update",
    CURRENT: "it runs the release, or a later one, without having begun this update, which closed it",
}
_KEPT_TEXT = "it was not offered the release: it was held for too long ({code}); it will be once nothing holds it"


class Obstacle(NamedTuple):
    """One reason.

    Attributes:
        code: short, stable word.
        text: a clause for a person.
        may_change_at: when time alone may change it; None where something else must happen.
    """

    code: str
    text: str
    may_change_at: float | None = None


def obstacles(
    tx: Tx, device: Device, rollout: Rollout, update: Update | None, standing: Decision, now: float
) -> list[Obstacle]:
    """Return every reason that holds a device back, the first ones in the way first; none if nothing does.

    Args:
        tx: the transaction.
        device: the device.
        rollout: a rollout that is not over, or one that has taken the device in.
        update: the device's update in it, None if it was not taken in.
        standing: what the rollout decides at present.
        now: present time.
    """
    if update is None:
        outside = list(_left_out(tx, device, rollout))
        late = () if outside else _late(device, rollout)
        turn = [*late, *_not_taken(rollout, settled=bool(outside))]
        return [*outside, *turn, *_elsewhere(tx, device, rollout), *_away(device)]
    if update.state is S.CONFIRMED:
        return []
    if update.state in _SETTLED:
        return [Obstacle(update.state.value, sentence(update))]
    if update.state in IN_FLIGHT:
        return [Obstacle(update.state.value, sentence(update), update.deadline_at), *_away(device)]
    found = [
        *_own(update),
        *_unfit(tx, device, rollout),
        *_stopped(rollout),
        *_waiting(tx, rollout, update, standing, now),
        *_elsewhere(tx, device, rollout),
        *_away(device),
    ]
    return list(dict.fromkeys(found))  # its age also holds it, while its rollout runs


def sentence(update: Update) -> str:
    """Return where an update stands, as a clause for a person."""
    if update.state is S.UNREACHED and update.code:
        return _KEPT_TEXT.format(code=update.code)
    if update.state is S.SUPERSEDED and update.code in _CLOSED_TEXTS:
        return _CLOSED_TEXTS[update.code]
    return _STATE_TEXT[update.state].format(code=update.code or "no reason given")


def _left_out(tx: Tx, device: Device, rollout: Rollout) -> Iterator[Obstacle]:
    audience = audience_of(tx, rollout)
    [judged] = as_fixed(tx, [device], audience.fixed_at)
    for reason in audience.all_left_out(judged):
        yield Obstacle(reason.code, reason.text)


def _unfit(tx: Tx, device: Device, rollout: Rollout) -> Iterator[Obstacle]:
    too_low = cohort.too_low(device, ways(tx, release_of(tx, rollout)), moves=rollout.moves)
    for reason in (too_low, unsigned.rule_of(tx, rollout).left_out(device)):
        if reason is not None:
            yield Obstacle(reason.code, reason.text)


def _late(device: Device, rollout: Rollout) -> Iterator[Obstacle]:
    reason = cohort.late(device, rollout.plan, rollout.cohort_at)
    if reason is not None and not rollout.is_in_last_stage:
        yield Obstacle(reason.code, reason.text)


def _not_taken(rollout: Rollout, *, settled: bool) -> Iterator[Obstacle]:
    if rollout.phase is Phase.DRAFT:
        yield Obstacle("not_started", "the rollout is not started")
    elif rollout.phase is Phase.PREPARING:
        yield Obstacle("preparing", "the cohort is being counted")
    else:
        if not settled:
            text = f"its turn has not come: stage {rollout.stage + 1} of {len(rollout.plan.stages)} is open"
            yield Obstacle("stage_not_open", text)
        yield from _stopped(rollout)


def _stopped(rollout: Rollout) -> Iterator[Obstacle]:
    if rollout.phase not in (Phase.RUNNING, Phase.DRAFT, Phase.PREPARING):
        yield Obstacle(rollout.phase.value, f"the rollout is {rollout.phase}: {rollout.reason.text}")


def _own(update: Update) -> Iterator[Obstacle]:
    if update.state is not S.PENDING:
        yield Obstacle(update.state.value, sentence(update), update.deadline_at)


def _waiting(tx: Tx, rollout: Rollout, update: Update, standing: Decision, now: float) -> Iterator[Obstacle]:
    """Say what keeps a rollout from offering its release to a device that waits for it, or may come back."""
    if rollout.phase in machine.FINISHED or update.state not in (S.PENDING, S.UNREACHED):
        return
    held = [
        Obstacle(item.reason.code, item.reason.text, item.until) for item in holds.reasons(tx, rollout, update, now)
    ]
    yield from held
    if held or update.state is S.UNREACHED or rollout.phase is not Phase.RUNNING:
        return
    if any(isinstance(effect, Offer) for effect in standing.effects):
        yield Obstacle("order", "devices before it in the order of the rollout are offered the release first")
    else:
        yield Obstacle(standing.reason.code, standing.reason.text, standing.wake_at)


def _elsewhere(tx: Tx, device: Device, rollout: Rollout) -> Iterator[Obstacle]:
    for other in tx.updates_of([device.id]):
        if other.rollout_id == rollout.id:
            continue
        found = tx.rollout(other.rollout_id)
        assert found is not None, "an update always belongs to a rollout"
        if other.state in IN_FLIGHT:
            text = f"it is busy with the update of rollout {found.plan.name}: {sentence(other)}"
            yield Obstacle("busy", text, other.deadline_at)
        elif found.id > rollout.id and _wants_it_too(found, rollout) and other.state not in _SETTLED:
            yield Obstacle("newer_rollout", f"rollout {found.plan.name}, which is newer, owns it")


def _wants_it_too(newer: Rollout, rollout: Rollout) -> bool:
    return newer.phase not in machine.FINISHED and newer.moves is rollout.moves


def _away(device: Device) -> Iterator[Obstacle]:
    if device.online is False:
        since = "it was registered" if device.seen_at is None else _clock(device.seen_at)
        yield Obstacle("offline", f"it has been offline since {since}")


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))


_STATE_TEXT = {
    S.PENDING: "its stage is open; it waits for an in-flight slot or for the rollout to run",
    S.OFFERED: "it was offered the release and has not answered yet",
    S.UNREACHED: "it did not answer before the accept deadline; it gets another chance when it says hello",
    S.REFUSED: "it refused the offer: {code}",
    S.POSTPONED: "it refused the offer for a reason that passes ({code}) and will be offered the release again",
    S.ACCEPTED: "it is downloading",
    S.DOWNLOADED: "it is installing",
    S.RECALLING: "it is being recalled and has not answered yet",
    S.RETRYING: "it gave up for a reason that passes ({code}) and will be offered the release again",
    S.RECALLED: "it was recalled before it installed anything",
    S.TOO_LATE: "it was recalled too late and is installing",
    S.INSTALLED: "it is rebooting into the release",
    S.RUNNING: "it runs the release and tests itself",
    S.CONFIRMED: "it runs the release and is healthy",
    S.EXPIRED: "it began and then fell silent; silence counts as failure",
    S.LOST: "it fell silent after the reboot; silence counts as failure",
    S.FAILED: "it failed: {code}",
    S.ROLLED_BACK: "it went back to its old release: {code}",
    S.SUPERSEDED: "a newer rollout took this device over",
}
