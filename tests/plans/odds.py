"""How a plan ends on a fleet of which each device fails with the same probability: the arithmetic of the core, without
its machines. A wave is offered, all of it answers, the gate is asked."""

from __future__ import annotations

import random
from functools import cache
from typing import NamedTuple

from orchestrator import plans
from orchestrator.core.judging import gate
from orchestrator.core.judging.judgement import LARGEST_EXTENSION, RAMP_START
from orchestrator.core.model import Plan
from orchestrator.core.targeting.cohort import stages_for

PLANS = {name: plans.read_plan(plans.template(name), name) for name in plans.TEMPLATES}

e_value = cache(gate.e_value)
upper_bound = cache(gate.upper_bound)
devices_needed = cache(gate.devices_needed)


class End(NamedTuple):
    """How it ended: `done`, `halted` or `asked` (a person), and how many devices were offered the release."""

    word: str
    exposed: int


def play(plan: Plan, size: int, rate: float, chance: random.Random) -> End:
    """Play one rollout on a cohort of `size` of one model; every failure is one that is reported at once."""
    exposed = failures = 0
    bases = [stage.base for stage in stages_for(plan, size)]
    for at, wanted in enumerate(plan.stages):
        last = at + 1 == len(plan.stages)
        target = size - exposed if last else min(bases[at], size - exposed)
        taken = healthy = 0
        while True:
            while taken < target:
                wave = min(target - taken, plan.in_flight, max(RAMP_START, healthy))
                failed = sum(chance.random() < rate for _ in range(wave))
                taken, exposed, failures = taken + wave, exposed + wave, failures + failed
                healthy += wave - failed
                if e_value(failures, exposed, plan.halt.tolerated) >= 1 / plan.halt.alpha:
                    return End("halted", exposed)
            limit = wanted.limit or gate.default_limit(sum(bases[: at + 1]), plan.confidence)
            if target == 0 or upper_bound(failures, exposed, plan.confidence) <= limit:
                break
            more = max((devices_needed(failures, limit, plan.confidence) or size) - exposed, 1)
            if more > size - exposed or target + more > LARGEST_EXTENSION * bases[at]:
                return End("asked", exposed)
            target += more
    return End("done", exposed)
