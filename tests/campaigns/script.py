"""What happens in one campaign, as plain data: a fleet, one to three rollouts, and the steps of a bad day.

Rules:
- A script is drawn from a source of chance alone; the same source gives the same script.
- A step is a word and two numbers, which are read against what there is when its turn comes: every part of a script is
  a script, so that one that failed can be made shorter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any, NamedTuple

from orchestrator.core.judging.health import HealthRule, Side
from orchestrator.core.judging.outside import IfUnmet, ServiceGate
from orchestrator.core.model import Deadlines, Delivery, HaltRule, Plan, Urgency
from orchestrator.core.pace.ceiling import Ceiling
from orchestrator.core.pace.ramp import Ramp
from orchestrator.core.pace.requirement import Consent, ConsentRule, Requirements
from orchestrator.core.pace.retry import Retry, RetryPolicy
from orchestrator.core.pace.window import Window, Windows
from tests.campaigns.devices import CHARACTERS, DIES, EMPTY, HONEST, HOT, LATE, TEMPERATURE, WARM
from tests.support.builders import REST, make_plan

LARGEST = 1000
_RARELY = 0.15
"""The numbers of a step are below this."""

DEADLINES = Deadlines(accept_s=500.0, download_s=200.0, install_s=100.0, confirm_s=50.0)
_SIZES: tuple[tuple[int, ...], ...] = ((REST,), (1, REST), (3, 5, REST), (10, 20, REST), (2, 0, REST), (4, 4))
_RULES = (
    HaltRule(),
    HaltRule(tolerated=0.2),
    HaltRule(tolerated=0.2, lost_after_reboot=False),
    HaltRule(tolerated=0.3, lost_after_reboot=False),
    HaltRule(max_failures=3),
)
_RETRY = RetryPolicy(
    transient=Retry(attempts=3, base_s=60.0, cap_s=600.0),
    unexplained=Retry(attempts=2, base_s=120.0),
    quarantine_after=2,
)
_ODD = (*CHARACTERS, DIES, DIES, DIES)
_URGENCIES = (Urgency.BACKGROUND, Urgency.NORMAL, Urgency.SECURITY)  # an emergency needs a warrant
_HOURS = ((420, 600), (480, 540), (480, 485), (480, 485), (1200, 240), (0, 1440))
"""From when to when windows are open, in minutes; campaigns begin at eight."""

_GATES = tuple(ServiceGate("http://health.example/now", "ok == true", if_unmet=word) for word in IfUnmet)
_WEIGHTS = {
    "round": 8,
    "conduct": 7,
    "seal": 4,
    "dispatch": 8,
    "stop_midway": 6,
    "hear": 5,
    "act": 8,
    "deliver": 10,
    "lose": 2,
    "poll": 4,
    "greet": 4,
    "will": 1,
    "lie": 2,
    "command": 8,
    "wait": 6,
    "set_clock": 2,
    "judge": 3,
    "restart": 1,
    "link": 3,
    "join": 2,
    "start": 2,
    "quarantine": 1,
    "edit": 3,
    "rollback": 1,
    "ask": 2,
    "blackout": 1,
    "dawn": 2,
}
STEPS = tuple(name for name, weight in _WEIGHTS.items() for _ in range(weight))


class Step(NamedTuple):
    """One thing that happens.

    Attributes:
        name: what; see `Campaign`.
        what: to whom, or which.
        how: how many, how long, and whether the process dies in the middle of it.
    """

    name: str
    what: int
    how: int


@dataclass(frozen=True, slots=True)
class Script:
    """One campaign.

    Attributes:
        characters: of the devices.
        plans: rollouts in the order in which they begin; the first one begins before the first step.
        ceiling: over all rollouts.
        steps: what happens.
    """

    characters: tuple[str, ...]
    plans: tuple[Plan, ...]
    ceiling: Ceiling
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        plans = "\n".join(f"  {plan}" for plan in self.plans)
        steps = "\n".join(f"  {at}: {step.name} {step.what} {step.how}" for at, step in enumerate(self.steps))
        return f"devices: {' '.join(self.characters)}\nceiling: {self.ceiling.floor}\nplans:\n{plans}\nsteps:\n{steps}"


def draw(chance: Random) -> Script:
    """Draw a script."""
    size = chance.randint(8, chance.choice((10, 12, 12, 16, 24, 40)))
    usual = chance.choice((HONEST, HONEST, HONEST, *CHARACTERS))
    odd = chance.choice((0.0, 0.1, 0.3))
    characters = [chance.choice(_ODD) if chance.random() < odd else usual for _ in range(size)]
    if set(characters) == {LATE}:
        characters[0] = HONEST
    plans = tuple(_plan(chance, at) for at in range(chance.choice((1, 1, 2, 3))))
    ceiling = Ceiling(share=0.0, floor=chance.choice((8, 30, 500)))
    steps = tuple(
        Step(chance.choice(STEPS), chance.randrange(LARGEST), chance.randrange(LARGEST))
        for _ in range(chance.randint(15, 50))
    )
    return Script(tuple(characters), plans, ceiling, steps)


def shorter(script: Script, fails: Callable[[Script], bool]) -> Script:
    """Return a script that still fails, and of which no single step, plan or half of the devices can be left out."""
    piece = max(len(script.steps) // 2, 1)
    while True:
        before = script
        for at in range(0, len(script.steps), piece):
            tried = replace(script, steps=script.steps[:at] + script.steps[at + piece :])
            if tried != script and fails(tried):
                script = tried
                break
        if script is before and piece == 1:
            break
        if script is before:
            piece //= 2
    for tried in (
        replace(script, plans=script.plans[:1]),
        replace(script, plans=script.plans[:2]),
        replace(script, characters=script.characters[: max(len(script.characters) // 2, 1)]),
    ):
        if tried != script and fails(tried):
            return shorter(tried, fails)
    return script


def _plan(chance: Random, at: int) -> Plan:
    sizes = chance.choice(_SIZES)
    limits = [chance.choice((None, 0.95, 0.6)) for _ in sizes]
    rel = chance.choice((at + 2, 2))
    plan = make_plan(
        sizes,
        limits,
        chance.choice((0.0, 0.0, 30.0)),
        name=f"rollout-{at}",
        release=f"radio-{rel}.0.0",
        delivery=chance.choice(tuple(Delivery)),
        urgency=chance.choice(_URGENCIES),
        in_flight=chance.choice((3, 8, 12, 100)),
        halt=chance.choice(_RULES),
        deadlines=DEADLINES,
        retry=_RETRY,
        open_cohort=chance.random() < 0.4,
        stratify=chance.choice(("", "", "model")),
        max_unreached=chance.choice((0.5, 1.0)),
        seed=chance.randrange(LARGEST),
        **_extras(chance),
    )
    approved = tuple(replace(stage, approve=chance.random() < _RARELY / 2) for stage in plan.stages)
    return replace(plan, stages=approved)


def _extras(chance: Random) -> dict[str, Any]:
    """Draw what most plans do without."""
    begins, ends = chance.choice(_HOURS)
    drawn = {
        "windows": Windows((Window(begins * 60, ends * 60),)),
        "consent": ConsentRule(Consent.ASK),
        "require": Requirements(battery_pct=EMPTY + 1),
        "health": (HealthRule(TEMPERATURE, Side.BELOW, (HOT + WARM) / 2),),
        "gate": chance.choice(_GATES),
        "ramp": Ramp(base=2, factor=2.0, cap=8, every_s=60.0),
        "jitter_s": 90.0,
    }
    return {name: value for name, value in drawn.items() if chance.random() < _RARELY}
