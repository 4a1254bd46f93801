"""What a plan would do if it began now: which devices each stage takes, and who is left out and why.

Rules:
- It is drawn by the cuts that stages are opened with, on the same order; for a plan without a seed that is no rollout
  yet the order is not known, and an example is drawn.
- The registry is read twice in pieces, first for the cuts and then for the answer; nobody holds the fleet.
- A preview changes nothing. What is registered or changed later may come out differently.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.core import rollout as machine
from orchestrator.core.judging import diversity, evidence
from orchestrator.core.model import Device, Plan, Reason, Rollout
from orchestrator.core.targeting import cohort
from orchestrator.core.targeting.cohort import Cut, Member, Queue
from orchestrator.engine import named
from orchestrator.engine.rollouts import operations
from orchestrator.engine.rollouts.releases import by_model, signing_rule, ways
from orchestrator.engine.targeting.audience import Audience, audience_of, everybody
from orchestrator.errors import ConflictError, RequestError
from orchestrator.ports import Store, Tx

NO_STAGE = Reason("no_stage", "it matches, but the stages of the plan are full without it")

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Preview:
    """What a plan would do.

    Attributes:
        audience: whom it speaks to.
        cuts: what each stage would take.
        left_out: how many devices are left out, by reason.
        wanted: devices that the plan means each stage to take.
        late: devices of the cohort that wait for the last stage.
        strata: over how many strata the evidence is split.
        unknown: devices of the cohort of which nobody knows what they run.
        fleet: devices that are registered.
        exact: whether the order is that of the rollout, and not only an example.
    """

    audience: Audience
    cuts: Sequence[Cut]
    wanted: Sequence[int]
    left_out: Counter[Reason]
    late: int
    strata: int
    unknown: int
    fleet: int
    exact: bool

    def summary(self) -> Line:
        """Return the counts."""
        stages = [
            {
                "index": index,
                "group": stage.group or None,
                "devices": cut.count,
                "wanted": wanted,
                "strata": dict(sorted(cut.strata.items())),
            }
            for index, (stage, cut, wanted) in enumerate(
                zip(self.audience.plan.stages, self.cuts, self.wanted, strict=True)
            )
        ]
        return {
            "name": self.audience.plan.name,
            "release": self.audience.plan.release,
            "exact": self.exact,
            "fleet": self.fleet,
            "devices": sum(cut.count for cut in self.cuts),
            "late": self.late,
            "unknown": self.unknown,
            "stages": stages,
            "warnings": self._warnings(),
            "left_out": [
                {"code": reason.code, "text": reason.text, "devices": count}
                for reason, count in self.left_out.most_common()
            ],
        }

    def _warnings(self) -> list[Line]:
        """Return which stages must ask a person however healthy their devices are; later ones have more of them."""
        found: list[Line] = []
        taken: Counter[str] = Counter()
        for index, cut in enumerate(self.cuts):
            taken.update(cut.strata)
            text = diversity.too_few(self.audience.plan, self.strata, taken)
            if text and cut.count:
                found.append({"stage": index, "code": "strata", "text": text})
        return found


async def of_plan(store: Store, plan: Plan, now: float) -> Preview:
    """Return what a plan would do that is no rollout yet, if it began now.

    Raises:
        NotFoundError: its release does not exist.
        RequestError: the release has nothing for a model of the plan, or there are too many strata.
    """
    secret = secrets.token_bytes(32) if plan.seed is None else cohort.secret_from_seed(plan.seed)
    audience = await store.read(lambda tx: _audience(tx, plan, secret))
    return await _draw(store, replace(audience, started_at=now), plan.seed is not None)


async def of_rollout(store: Store, name: str, now: float) -> Preview:
    """Return what a rollout in draft would do if it began now.

    Raises:
        NotFoundError: there is none of this name.
        ConflictError: it was started.
        RequestError: there are too many strata.
    """
    audience = await store.read(lambda tx: audience_of(tx, _draft(tx, name)))
    return await _draw(store, replace(audience, started_at=now), True)


async def lines(store: Store, preview: Preview) -> AsyncIterator[list[Line]]:
    """Yield each device in pieces, by their identifiers: the stage that would take it, or why it is left out."""
    async for chunk in everybody(store, preview.audience):
        inside = iter(_ranked(preview.audience, [device for device, reason in chunk if reason is None]))
        piece: list[Line] = []
        for device, reason in chunk:
            member = None if reason is not None else next(inside)
            stage = next((index for index, cut in enumerate(preview.cuts) if member and cut.takes(member)), None)
            if member is not None and stage is not None:
                told = {"device": device.id, "stage": stage, "stratum": member.stratum}
                piece.append(told | ({"late": True} if member.late else {}))
            else:
                piece.append({"device": device.id, "left_out": (reason or NO_STAGE).code})
        yield piece


async def _draw(store: Store, audience: Audience, exact: bool) -> Preview:
    plan = audience.plan
    queue = Queue({} if plan.stratify else None)
    left_out: Counter[Reason] = Counter()
    fleet = unknown = late = 0
    async for chunk in everybody(store, audience):
        fleet += len(chunk)
        inside = [device for device, reason in chunk if reason is None]
        unknown += sum(1 for device in inside if cohort.has(device, moves=audience.moves) is None)
        ranked = list(_ranked(audience, inside))
        late += sum(1 for member in ranked if member.late)
        queue.add(ranked)
        left_out.update(_told(reason) for _, reason in chunk if reason is not None)
    if plan.stratify and len(queue.strata()) > cohort.MAX_STRATA:
        raise RequestError(machine.too_many_strata(plan), code="too_many_strata")
    strata = cohort.most_strata(plan, audience.hardware, len(queue.strata()))
    drawn = await asyncio.to_thread(_cuts, plan, queue)
    if queue.left():
        left_out[NO_STAGE] += queue.left()
    wanted, cuts = [size for size, _ in drawn], [cut for _, cut in drawn]
    return Preview(audience, cuts, wanted, left_out, late, strata, unknown, fleet, exact)


def _ranked(audience: Audience, devices: Sequence[Device]) -> Iterator[Member]:
    return cohort.members(audience.secret, devices, audience.plan, audience.started_at)


def _audience(tx: Tx, plan: Plan, secret: bytes) -> Audience:
    release, hardware = operations.brought(tx, plan)
    signing = signing_rule(tx, by_model(tx, release))
    known = (plan, frozenset(hardware), release.rel, secret)
    return Audience(*known, ways=ways(tx, release), moves=release.moves, signing=signing)


def _cuts(plan: Plan, queue: Queue) -> list[tuple[int, Cut]]:
    """Return what each stage wants, and what it takes."""
    whole = {stage.group: queue.left(stage.group) for stage in plan.stages}
    whole[""] = queue.left()
    drawn = []
    for index, stage in enumerate(plan.stages, start=1):
        wanted = cohort.size_of(stage, whole[stage.group], queue.left(stage.group))
        drawn.append((wanted, queue.cut(wanted, stage.group, late=index == len(plan.stages))))
    return drawn


def _told(reason: Reason) -> Reason:
    """Return a reason in words that do not differ from device to device."""
    return Reason(reason.code, _SUMS.get(reason.code, reason.text))


_SUMS = {
    "current": "it runs this release, or a later one",
    "from_too_low": "it is too old to jump to the release; `ota device explain` names its next step",
    "elsewhere": "it does not run the release that this takes devices back from",
    "no_artifact": "the release has no artifact for its model",
    "quarantined": "it is quarantined",
}


def _draft(tx: Tx, name: str) -> Rollout:
    rollout = named.rollout(tx, name)
    if evidence.opened(tx.tally(rollout.id)) or rollout.stages:
        raise ConflictError(f"rollout {name[:80]} was started; `ota rollout get` shows what its stages took")
    return rollout
