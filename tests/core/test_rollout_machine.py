"""Both machines together against a world that delays, loses, repeats and reorders, and a person who interferes.

What is asserted at the moment of an offer (slots, phase) stands in `toy_store.py`.
"""

from __future__ import annotations

from hypothesis import event
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.core import rollout as machine
from orchestrator.core.judging import evidence, judgement
from orchestrator.core.model import Deadlines, HaltRule, Phase, Rollout, UpdateState
from orchestrator.core.rollout import TABLE, Command
from orchestrator.core.update import IN_FLIGHT, Fact, FactKind
from tests.core.toy_store import ABSENT, DIES, GOOD, HANGS, REFUSES, RELAPSES, ROLLS_BACK, ToyStore
from tests.support.builders import REST, make_plan

P = Phase
FLEETS = st.sampled_from([1, 3, 5, 12, 30, 60, 120])
ODD_ONES = st.dictionaries(
    st.integers(0, 29), st.sampled_from([ABSENT, DIES, HANGS, REFUSES, RELAPSES, ROLLS_BACK]), max_size=4
)
STAGES = st.sampled_from([(REST,), (1, REST), (10, 20, REST), (5, 0, 20, REST), (4, 4)])
LIMITS = st.lists(st.sampled_from([None, 0.9, 0.5, 0.2]), max_size=3)
RULES = st.sampled_from([HaltRule(), HaltRule(max_failures=2), HaltRule(tolerated=0.05, lost_after_reboot=False)])
COMMANDS = st.sampled_from([Command.PAUSE, Command.HALT, Command.RESUME, Command.RESUME, Command.RESUME])
DEADLINES = Deadlines(accept_s=500.0, download_s=200.0, install_s=100.0, confirm_s=50.0)

WAITS_FOR_A_PERSON = {
    P.DRAFT: {"created"},
    P.PAUSED: {"operator_pause"},
    P.HALTED: {"operator_halt", "evidence", "lost_after_reboot", "max_failures", "max_failure_rate"},
    P.INCONCLUSIVE: {"inconclusive", "unreached"},
}
AUTOMATIC = {(P.RUNNING, P.DONE), (P.RUNNING, P.INCONCLUSIVE)} | {(phase, P.HALTED) for phase in machine.JUDGED}


class Rollouts(RuleBasedStateMachine):
    """One rollout on a toy fleet."""

    store: ToyStore
    finished: Rollout | None = None

    @initialize(
        size=FLEETS,
        usual=st.sampled_from([GOOD, GOOD, GOOD, ROLLS_BACK, DIES]),
        odd_ones=ODD_ONES,
        sizes=STAGES,
        limits=LIMITS,
        in_flight=st.sampled_from([1, 4, 100]),
        strata=st.integers(1, 2),
        soak_s=st.sampled_from([0.0, 30.0]),
        rule=RULES,
    )
    def create(self, size, usual, odd_ones, sizes, limits, in_flight, strata, soak_s, rule):  # type: ignore[no-untyped-def]
        plan = make_plan(sizes, limits[: len(sizes)], soak_s, in_flight=in_flight, halt=rule, deadlines=DEADLINES)
        parts = [odd_ones.get(at % 30, usual) for at in range(size)]
        self.store = ToyStore(plan, parts, ("m1", "m2")[:strata])
        self.store.operate(Command.START)

    @rule(hearing=st.sampled_from([True, True, True, False]))
    def step(self, hearing: bool) -> None:
        before, offers = self.store.rollout, self.store.offers
        self.store.step(hearing=hearing)
        after = self.store.rollout
        assert after.phase is before.phase or (before.phase, after.phase) in AUTOMATIC
        if not hearing:
            assert (self.store.offers, after.stage, after.phase is P.DONE) == (
                offers,
                before.stage,
                before.phase is P.DONE,
            )

    @rule(rounds=st.integers(1, 20))
    def good_rounds(self, rounds: int) -> None:
        for _ in range(rounds):
            self.store.round()

    @rule(command=COMMANDS)
    def operate(self, command: Command) -> None:
        if command in TABLE[self.store.rollout.phase]:
            self.store.operate(command)

    @precondition(lambda self: self.store.rollout.stage)
    @rule(sure=st.booleans())
    def abort(self, sure: bool) -> None:
        if sure and self.store.rollout.phase not in machine.FINISHED:
            self.store.operate(Command.ABORT)

    @rule(count=st.integers(1, 50))
    def claim(self, count: int) -> None:
        self.store.claim(count)

    @rule(data=st.data())
    def devices_act(self, data: st.DataObject) -> None:
        for device_id in data.draw(st.lists(st.sampled_from(sorted(self.store.devices)), max_size=20)):
            self.store.act(device_id)

    @precondition(lambda self: self.store.mail)
    @rule(data=st.data(), again=st.booleans())
    def deliver(self, data: st.DataObject, again: bool) -> None:
        for _ in range(data.draw(st.integers(1, len(self.store.mail)))):
            before = self._evidence()
            self.store.deliver(data.draw(st.integers(0, len(self.store.mail) - 1)), again=again)
            self._evidence_did_not_fall(before)

    @precondition(lambda self: self.store.mail)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self.store.mail.pop(data.draw(st.integers(0, len(self.store.mail) - 1)))

    @rule(seconds=st.sampled_from([1.0, 30.0, 60.0, 250.0, 600.0]))
    def advance(self, seconds: float) -> None:
        before = self._evidence()
        self.store.advance(seconds)
        self._evidence_did_not_fall(before)

    @precondition(lambda self: self.store.rollout.phase not in machine.FINISHED)
    @rule()
    def unreached_devices_come_back(self) -> None:
        for item in self.store.in_state(UpdateState.UNREACHED):
            self.store.devices[item.device_id].part = GOOD
            self.store.fold(item.device_id, Fact(FactKind.RETURN))

    @rule(count=st.integers(1, 10))
    def devices_leave_the_registry(self, count: int) -> None:
        self.store.forget(count)

    @invariant()
    def tallies_equal_the_recount(self) -> None:
        assert self.store.tally == self.store.recount()

    @invariant()
    def no_stage_takes_more_than_it_may(self) -> None:
        for at, stage in enumerate(self.store.rollout.stages):
            counts = evidence.stage_counts(self.store.tally, at)
            assert counts.opened <= stage.target <= judgement.LARGEST_EXTENSION * stage.base

    @invariant()
    def a_finished_rollout_stays_as_it_is(self) -> None:
        rollout = self.store.rollout
        if self.finished is not None:
            assert rollout is self.finished
        if rollout.phase in machine.FINISHED:
            self.finished = rollout

    @invariant()
    def nothing_is_queued_unless_it_runs(self) -> None:
        assert self.store.rollout.phase in (P.RUNNING, P.DONE) or not self.store.queued

    def teardown(self) -> None:
        event(f"left at {self.store.rollout.phase}, stage {self.store.rollout.stage}, epoch {self.store.rollout.epoch}")
        offers, phase = self.store.offers, self.store.rollout.phase
        self.store.settle()
        rollout = self.store.rollout
        event(f"ended {rollout.phase} {rollout.reason.code}")
        assert rollout.phase in machine.FINISHED or rollout.reason.code in WAITS_FOR_A_PERSON[rollout.phase]
        assert phase in (P.RUNNING, P.PREPARING) or self.store.offers == offers
        assert not self.store.in_state(*IN_FLIGHT)
        if rollout.phase is P.DONE:
            assert not self.store.in_state(UpdateState.PENDING)

    def _evidence(self) -> tuple[evidence.Evidence, ...]:
        return evidence.halt_evidence(self.store.rollout, self.store.tally)

    def _evidence_did_not_fall(self, before: tuple[evidence.Evidence, ...]) -> None:
        """What is reported can only raise E, unless a device that counted as never begun had begun after all."""
        earlier = {item.stratum: item for item in before}
        for item in self._evidence():
            known = earlier.get(item.stratum)
            if known is not None and item.exposed <= known.exposed:
                assert item.e_value >= known.e_value


TestRollouts = Rollouts.TestCase
