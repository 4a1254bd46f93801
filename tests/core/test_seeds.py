"""Two hundred seeded rollouts of 20, 60, rest over 200 devices: every bad one halts early, every good one ends."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from orchestrator.core.model import Phase, UpdateState
from orchestrator.core.rollout import Command
from orchestrator.core.targeting import cohort
from tests.core.toy_store import ENOUGH_ROUNDS, GOOD, ROLLS_BACK, Behaviour, ToyStore
from tests.support.builders import REST, make_plan

SEEDS = range(200)
FLEET = 200
PLAN = make_plan((20, 60, REST), (0.20, 0.08, 0.05))


def run(seed: int, parts: Sequence[Behaviour]) -> ToyStore:
    """Return the end of a rollout in which devices work side by side, each at its own pace."""
    dice = Random(seed)
    store = ToyStore(PLAN, parts, secret=cohort.secret_from_seed(seed))
    store.operate(Command.START)
    devices = sorted(store.devices)
    for _ in range(ENOUGH_ROUNDS):
        store.step()
        if store.rollout.phase is not Phase.RUNNING:
            break
        store.claim(FLEET)
        for device_id in dice.sample(devices, FLEET // 2):
            store.act(device_id)
        while store.mail:
            store.deliver(dice.randrange(len(store.mail)))
    return store


def test_a_bad_release_always_halts_before_it_reaches_45_of_200() -> None:
    reached = []
    for seed in SEEDS:
        bad = set(Random(f"bad {seed}").sample(range(FLEET), FLEET * 30 // 100))
        store = run(seed, [ROLLS_BACK if at in bad else GOOD for at in range(FLEET)])
        assert (store.rollout.phase, store.rollout.reason.code) == (Phase.HALTED, "evidence"), seed
        reached.append(store.offers)
    assert max(reached) < 45
    assert sum(reached) / len(reached) < 16


def test_a_good_release_always_reaches_everybody() -> None:
    for seed in SEEDS[:10]:
        store = run(seed, [GOOD] * FLEET)
        assert (store.rollout.phase, store.rollout.stage) == (Phase.DONE, 2), seed
        assert len(store.in_state(UpdateState.CONFIRMED)) == store.offers == FLEET


def test_two_bad_devices_in_200_are_tolerated() -> None:
    """One per cent is what the plan tolerates; only two in the first ten would look worse."""
    for seed in SEEDS[:10]:
        store = run(seed, [ROLLS_BACK] * 2 + [GOOD] * (FLEET - 2))
        assert store.rollout.phase is Phase.DONE, (seed, store.rollout.reason)
        assert len(store.in_state(UpdateState.ROLLED_BACK)) == 2
