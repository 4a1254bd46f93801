"""What a hello shows of an update that is on its way, or that was healthy: the core's table over what is stored.

Rules:
- A device says itself what becomes of its update, and its hello comes before its report. So a failure that a hello
  shows is only noted before the deadline; at the deadline, without a report, it counts.
- At once counts what no report of the device could change: a third release, and boots without end.
- What the device ran before is what it said when it took the update; without that, silence alone is judged.
- A release that was left again after it was healthy is a relapse, unless another update of ours took the device on.
- Who has not begun and runs the release needs it no more. That closes the updates of clients that verify no trigger at
  once, for they begin with us alone; of others a report may be on its way, and their next offer is looked at instead.
- No boot lies between a device and its new endpoints: while it moves only its reports count, and their absence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from orchestrator.core import rollout as rollout_machine
from orchestrator.core import update as machine
from orchestrator.core.judging import outcome
from orchestrator.core.judging.outcome import Offered, Seen, Trial, Verdict
from orchestrator.core.model import OTAD, Rollout, Update, UpdateState
from orchestrator.core.targeting import cohort
from orchestrator.core.update import NEUTRAL, Fact, FactKind
from orchestrator.ports import QUEUED, DeliveryState, Line, Tx
from orchestrator.wire.report import Hello, Kind

DRIFTED = "drifted"
"""Code of a device that was healthy on the release and runs another one."""

CURRENT = "current"
"""Code of an update that was closed because its device runs the release, or a later one, without having begun."""

_TRIAL = Trial()
_S = UpdateState
_AWAITED = frozenset({_S.DOWNLOADED, _S.INSTALLED, _S.RUNNING})
_TAKEN = (Kind.ACCEPTED, Kind.DOWNLOADED, Kind.INSTALLED)
_ON_TRIAL, _RAN_IT = "on_trial", "ran_it"
_NOTED = {"never_ran": FactKind.FAILED, "booted_twice": FactKind.ROLLED_BACK, _RAN_IT: FactKind.ROLLED_BACK}
_MEANS = {
    Verdict.CONFIRMED: FactKind.CONFIRMED,
    Verdict.ROLLED_BACK: FactKind.ROLLED_BACK,
    Verdict.FAILED_INSTALL: FactKind.FAILED,
    Verdict.DRIFTED: FactKind.FAILED,
    Verdict.UNSTABLE: FactKind.FAILED,
}


def shown(tx: Tx, hellos: Sequence[Hello], now: float) -> list[tuple[Update, Fact]]:
    """Return what hellos mean to the updates of their devices; what only the deadline can decide is noted.

    Args:
        tx: the transaction.
        hellos: of devices that are registered, in the order of arrival.
        now: present time.
    """
    latest = {hello.dev: hello for hello in hellos if hello.rel or hello.ver or hello.eps is not None}
    live = {rollout.id: rollout for rollout in tx.rollouts(rollout_machine.UNFINISHED)} if latest else {}
    found = tx.updates_of(latest, (*_AWAITED, _S.CONFIRMED, _S.OFFERED)) if live else []
    waits: list[Update] = []
    rollout_of = cache(tx.rollout)
    facts: list[tuple[Update, Fact]] = []
    noted: list[Update] = []
    for update in found:
        hello = latest[update.device_id]
        rollout = live.get(update.rollout_id) or rollout_of(update.rollout_id)
        assert rollout is not None, "an update always belongs to a rollout"
        runs = said_rel(hello, moves=rollout.moves)
        if runs is None:
            continue
        if update.state is _S.OFFERED:
            waits += [update] if update.rollout_id in live and not update.begun and runs >= update.rel else []
        elif update.state in _AWAITED:
            means = update.code if rollout.moves else _awaited(tx, update, hello, now)
            if isinstance(means, Fact):
                facts.append((update, means))
            elif means != update.code:
                noted.append(update._replace(code=means))
        elif update.rollout_id in live and runs != update.rel and _left(tx, update, hello, rollout):
            facts.append((update, Fact(FactKind.FAILED, code=DRIFTED)))
    tx.save_updates(noted, ())
    return facts + [(item, Fact(FactKind.SUPERSEDE, code=CURRENT)) for item in _current(tx, waits, live, now)]


def said_rel(hello: Hello, *, moves: bool) -> int | None:
    """Return the release counter that a hello says of firmware or, with `moves`, of endpoints; None if it does not."""
    if moves:
        return hello.eps
    return hello.rel if hello.rel or hello.ver else None


def overdue(update: Update) -> Fact:
    """Return what a passed deadline means for an update, with what the hellos of its device showed."""
    kind = machine.silence(update)
    if kind is not FactKind.SILENT or update.state not in _AWAITED:
        return Fact(kind)
    return Fact(_NOTED.get(update.code, kind), code=update.code)


def _awaited(tx: Tx, update: Update, hello: Hello, now: float) -> Fact | str:
    """Return what a hello means to an update that is on its way, or the code under which it is noted."""
    taken = _taken(tx.lines(update.id), update.attempt)
    if taken is None or taken.rel is None or update.deadline_at is None:
        return update.code
    offered = Offered(update.rel, taken.rel, taken.boot, taken.boots, update.deadline_at)
    ran_new = update.state is _S.RUNNING or update.code in (_ON_TRIAL, _RAN_IT)
    uptime_s = None if hello.facts is None else hello.facts.uptime
    seen = Seen(hello.rel, hello.boot, hello.boots, uptime_s, ran_new)
    verdict, reason = outcome.judge(offered, seen, _TRIAL, now)
    if now < update.deadline_at and (reason.code in _NOTED or reason.code == _ON_TRIAL):
        return reason.code
    kind = _MEANS.get(verdict)
    if kind is None:
        return update.code
    return Fact(kind, code=reason.code, rel=hello.rel, metrics=tuple(hello.metrics.items()))


def _current(tx: Tx, updates: Sequence[Update], live: Mapping[int, Rollout], now: float) -> list[Update]:
    """Return those of the updates whose devices verify no trigger and need the release no more; void what is queued."""
    devices = {item.id: item for item in tx.devices_named({item.device_id for item in updates}) if item.dialect != OTAD}
    found: list[Update] = []
    for item in updates:
        rollout = live[item.rollout_id]
        device = devices.get(item.device_id)
        if device is not None and cohort.is_current(device, item.rel, rollout.plan.leaves, moves=rollout.moves):
            found.append(item)
            tx.settle([each.id for each in tx.parcels(item.id) if each.state in QUEUED], DeliveryState.VOID, now)
    return found


def _taken(lines: Sequence[Line], attempt: int) -> Line | None:
    """Return what the device said last of this attempt before it could run the release."""
    found = [line for line in lines if line.attempt == attempt and line.kind in _TAKEN]
    return max(found, key=lambda line: (_TAKEN.index(Kind(line.kind)), line.at), default=None)


def _left(tx: Tx, update: Update, hello: Hello, rollout: Rollout) -> bool:
    """Say whether a device left its release by itself, in a boot that never spoke of this update."""
    if not hello.boot or hello.boot in {line.boot for line in tx.lines(update.id)}:
        return False
    others = tx.updates_of([update.device_id])
    later = [item.rollout_id for item in others if item.rollout_id > update.rollout_id and item.state not in NEUTRAL]
    return not any(other.moves is rollout.moves for other in map(tx.rollout, later) if other is not None)
