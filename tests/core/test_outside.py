"""What a service answers against its condition, and what it does to the rollout."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import rollout as machine
from orchestrator.core.judging import judgement
from orchestrator.core.judging.outside import (
    CONDITION,
    MAX_BODY_BYTES,
    Answer,
    IfUnmet,
    Outage,
    Outside,
    ServiceGate,
    Verdict,
    read,
)
from orchestrator.core.model import Phase, Reason, Rollout
from orchestrator.core.rollout import Command, Decision
from tests.support.builders import REST, make_plan, make_rollout, make_tally

V, P = Verdict, Phase
URL = "https://metrics.example.net/ota?token=secret"
GATE = ServiceGate(URL, 'status == "ok"', every_s=60.0, timeout_s=10.0)
HEALTHY = make_tally({"confirmed": 20})


def asked(condition: str, body: object, if_unmet: IfUnmet = IfUnmet.HOLD) -> Verdict:
    assert re.fullmatch(CONDITION.removesuffix("$"), condition)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read(ServiceGate(URL, condition, if_unmet=if_unmet), data)[0]


@pytest.mark.parametrize(
    ("condition", "body", "verdict"),
    [
        ('status == "ok"', {"status": "ok"}, V.PASS),
        ('status == "ok"', {"status": "bad"}, V.HOLD),
        ('status != "bad"', {"status": "ok"}, V.PASS),
        ("errors.rate < 0.01", {"errors": {"rate": 0.009}}, V.PASS),
        ("errors.rate < 0.01", {"errors": {"rate": 0.01}}, V.HOLD),
        ("data.result[1].value >= 3", {"data": {"result": [{"value": 9}, {"value": 3}]}}, V.PASS),
        ("alerts == 0", {"alerts": 0}, V.PASS),
        ("alerts == 0", {"alerts": False}, V.HOLD),
        ("quiet == true", {"quiet": True}, V.PASS),
        ("quiet == true", {"quiet": 1}, V.HOLD),
        ("owner == null", {"owner": None}, V.PASS),
        ("owner != null", {"owner": "ann"}, V.PASS),
        ("alerts < 5", {"alerts": None}, V.HOLD),
        ("alerts < 5", {"alerts": "3"}, V.HOLD),
        ("alerts < 5", {}, V.HOLD),
        ("a[3] == 1", {"a": [1]}, V.HOLD),
        ("a[0] == 1", {"a": {"0": 1}}, V.HOLD),
        ("a.b == 1", {"a": 1}, V.HOLD),
        ("a == 1", [1], V.HOLD),
        ("a < 1", b'{"a": NaN}', V.HOLD),
        ("a > 1", b'{"a": 1e999}', V.HOLD),
        ("a > -1", b'{"a": ', V.HOLD),
        ("a > -1", b"\xff", V.HOLD),
        ("a > -1", b"[" * 60_000, V.HOLD),
        ("a > -1", b'{"a": 1}' + b" " * MAX_BODY_BYTES, V.HOLD),
    ],
)
def test_a_condition_is_met_or_holds(condition: str, body: object, verdict: Verdict) -> None:
    assert asked(condition, body) is verdict


def test_only_a_clear_no_halts() -> None:
    assert asked("alerts == 0", {"alerts": 3}, IfUnmet.HALT) is V.HALT
    assert asked("alerts == 0", {"alerts": "3"}, IfUnmet.HALT) is V.HOLD
    assert asked("alerts == 0", b"<html>", IfUnmet.HALT) is V.HOLD


@given(st.from_regex(CONDITION.replace("$", r"\Z"), fullmatch=True), st.binary(max_size=200))
def test_no_answer_breaks_the_reader(condition: str, body: bytes) -> None:
    verdict, text = read(ServiceGate(URL, condition), body)
    assert verdict in Verdict
    assert text


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "b"]), inner),
        max_leaves=8,
    )
)
def test_an_answer_of_another_kind_never_passes(value: object) -> None:
    met = value == 1.0 and isinstance(value, float)
    assert (asked("a == 1", {"a": value}) is V.PASS) is met


def rollout(**stage: object) -> Rollout:
    """Return a rollout whose first stage has all its evidence, resolved at 50, since when it is running."""
    plan = make_plan((20, 60, REST), soak_s=30.0)
    first = replace(plan.stages[0], **stage)  # type: ignore[arg-type]
    made = make_rollout(replace(plan, stages=(first, *plan.stages[1:])), 200)
    stages = (replace(made.stages[0], opened_at=10.0, resolved_at=50.0), *made.stages[1:])
    return replace(made, stages=stages)


def step(rollout: Rollout, answer: Answer | None = None, now: float = 100.0, outage: Outage | None = None) -> Decision:
    return judgement.step(rollout, HEALTHY, now, outside=Outside(answer, outage))


def answer(verdict: Verdict = V.PASS, asked_at: float = 85.0, stage: int = 0) -> Answer:
    return Answer(stage, asked_at, verdict, "because")


def test_a_stage_waits_for_its_service_and_passes_by_it() -> None:
    asks = rollout(gate=GATE)
    assert step(asks).reason.code == "service_gate"
    assert "secret" not in step(asks).reason.text
    decision = step(asks, answer())
    assert (decision.reason.code, decision.rollout.stage) == ("passed", 1)


@pytest.mark.parametrize(
    "given",
    [
        answer(V.HOLD),
        answer(asked_at=79.0),  # before the soak was over
        answer(stage=1),
    ],
)
def test_any_other_answer_holds_the_stage(given: Answer) -> None:
    decision = step(rollout(gate=GATE), given)
    assert (decision.reason.code, decision.rollout.stage, decision.effects) == ("service_gate", 0, ())


def test_silence_of_a_service_never_advances() -> None:
    late = 85.0 + GATE.fresh_s
    assert step(rollout(gate=GATE), answer(), late).reason.code == "passed"
    assert step(rollout(gate=GATE), answer(), late + 1).reason.code == "service_gate"


def test_the_service_of_the_plan_is_asked_where_a_stage_has_none() -> None:
    plain = rollout()
    asks = replace(plain, plan=replace(plain.plan, gate=GATE))
    assert judgement.gate_of(asks) == GATE
    assert step(asks).reason.code == "service_gate"


def test_an_answer_halts_at_any_time_but_not_one_from_before_the_last_move() -> None:
    asks = replace(rollout(gate=GATE), moved_at=60.0)
    halted = step(asks, answer(V.HALT, asked_at=61.0), now=62.0)
    assert (halted.rollout.phase, halted.reason) == (P.HALTED, Reason("service_gate", "because"))
    resumed = machine.operate(halted.rollout, HEALTHY, Command.RESUME, actor="ann", reason="looked", now=70.0).rollout
    assert step(resumed, answer(V.HALT, asked_at=61.0), now=71.0).rollout.phase is P.RUNNING
    assert step(resumed, answer(V.HALT, asked_at=71.0), now=72.0).rollout.phase is P.HALTED


def test_without_a_gate_no_answer_matters() -> None:
    assert step(rollout(), answer(V.HALT)).reason.code == "passed"


def test_a_manual_gate_waits_for_a_person_and_no_longer() -> None:
    waits = rollout(approve=True)
    decision = step(waits)
    assert (decision.reason.code, decision.rollout.phase, decision.rollout.stage) == ("manual_gate", P.RUNNING, 0)
    said = machine.operate(waits, HEALTHY, Command.ADVANCE, actor="ann", reason="seen", now=101.0).rollout
    passed = step(said, now=102.0)
    assert (passed.rollout.stage, passed.rollout.actor) == (1, "ann")


def test_evidence_comes_before_the_manual_gate() -> None:
    decision = judgement.step(rollout(approve=True, limit=0.01), HEALTHY, 100.0)
    assert decision.reason.code == "inconclusive"


def test_resuming_an_inconclusive_stage_leaves_its_gates_closed() -> None:
    asked_person = replace(rollout(gate=GATE, limit=0.0), phase=P.INCONCLUSIVE)
    resumed = machine.operate(asked_person, HEALTHY, Command.RESUME, actor="ann", reason="fine", now=90.0).rollout
    assert step(resumed).reason.code == "service_gate"
    assert step(resumed, answer(asked_at=91.0)).rollout.stage == 1


def test_an_outage_holds_everything_but_the_halt() -> None:
    outage = Outage(90.0, 300, 0.3)
    held = step(rollout(), outage=outage)
    assert (held.reason.code, held.effects, held.rollout.stage) == ("outage", (), 0)
    assert "300" in held.reason.text
    offers = judgement.step(make_rollout(), make_tally({"pending": 20}), 100.0, outside=Outside(None, outage))
    assert offers.effects == ()
    broken = judgement.step(rollout(), make_tally({"confirmed": 5, "failed": 15}), 100.0, outside=Outside(None, outage))
    assert broken.rollout.phase is P.HALTED
