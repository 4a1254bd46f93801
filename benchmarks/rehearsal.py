"""What a rehearsal costs: processor time for each device that a run brings a release to, from the offer to the end."""

from __future__ import annotations

import time

from orchestrator import plans
from orchestrator.rehearsal.fleet import Fleet
from orchestrator.rehearsal.run import Scenario, rehearse

DEVICES = 2000
MOST_MS = 0.6
"""2,000 devices, 1,000 times, within ten minutes on two cores."""


def run(rounds: int) -> None:
    """Print the figure: the best of some runs of the template `standard` with a build that fails on 1 %."""
    scenario = Scenario(plans.read_plan(plans.template("standard")), Fleet(DEVICES, bad_share=0.01))
    spent = min(_spent_ms(scenario, number) for number in range(rounds))
    print(f"rehearsal {spent:.2f} ms a device and run; at most {MOST_MS} ms: ratio {spent / MOST_MS:.2f}")


def _spent_ms(scenario: Scenario, number: int) -> float:
    begun = time.process_time()
    offered = rehearse(scenario, number).offered
    return (time.process_time() - begun) / offered * 1000
