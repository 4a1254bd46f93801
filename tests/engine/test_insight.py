"""Who still runs a vulnerable version, and how fast a rollout protects, on a real store."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from orchestrator.core.model import Rollout, UpdateState
from orchestrator.core.rollout import Command
from orchestrator.core.targeting.advisory import Severity
from orchestrator.core.trust.approval import Matter, Proposal, State, Vote
from orchestrator.engine.insight import curve, exposure
from orchestrator.engine.insight.exposure import Question
from orchestrator.engine.rollouts import operations
from orchestrator.engine.rollouts.operations import NewDevice
from orchestrator.errors import NotFoundError, RequestError
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant, stock

S = UpdateState
View = dict[str, Any]
CVE = "CVE-2026-1234"


async def asked(it: Plant, **question: Any) -> View:
    found: View = await it.store.read(lambda tx: exposure.count(tx, Question(**question), it.clock()))
    return found


async def listed(it: Plant, **question: Any) -> dict[str, str]:
    return {
        line["id"]: line["status"] async for page in exposure.lines(it.store, Question(**question)) for line in page
    }


async def fleet(it: Plant) -> None:
    devices = [
        NewDevice("a1", "m1", ("lab",), "1.0.0", 1),
        NewDevice("a2", "m1", ("lab", "canary"), "1.1.0", 2),
        NewDevice("a3", "m1", (), "2.0.0", 3),
        NewDevice("a4", "m1"),
        NewDevice("b1", "m2", (), "1.0.0", 1),
        NewDevice("c1", "m9", (), "0.1.0", 1),
        NewDevice("c2", "m9"),
    ]
    await it.write(lambda tx: operations.enrol(tx, devices, it.clock()))

    def place(tx: Any) -> None:
        tx.set_facts([replace(item, site="berlin") for item in tx.devices_named(["a1", "b1"])], it.clock())

    await it.write(place)


async def mending(it: Plant, **changes: Any) -> Rollout:
    await fleet(it)
    await it.write(lambda tx: stock(tx, 3, ("m1", "m2")))
    return await it.create(make_plan((REST,), release="radio-3.0.0", **({"advisories": (CVE,)} | changes)))


def named(found: View) -> dict[str, tuple[int, int]]:
    return {item["name"]: (item["vulnerable"], item["unknown"]) for item in found["named"]}


# Who is exposed


async def test_vulnerable_is_whoever_runs_less_than_what_mends_it(it: Plant) -> None:
    await mending(it)
    found = await asked(it, rollout="spring")
    assert (found["vulnerable"], found["unknown"], found["fleet"]) == (3, 1, 7)
    assert found["below"] == {"m1": 3, "m2": 3}
    assert named(found["models"]) == {"m1": (2, 1), "m2": (1, 0)}
    assert named(found["sites"]) == {"berlin": (2, 0), "": (1, 1)}
    assert named(found["groups"]) == {"lab": (2, 0), "canary": (1, 0), "": (1, 1)}
    assert await listed(it, rollout="spring") == {
        "a1": "vulnerable",
        "a2": "vulnerable",
        "a4": "unknown",
        "b1": "vulnerable",
    }


async def test_a_plan_may_say_below_what_devices_are_vulnerable(it: Plant) -> None:
    await mending(it, fixes_below=2)
    assert await listed(it, rollout="spring") == {"a1": "vulnerable", "a4": "unknown", "b1": "vulnerable"}


async def test_an_advisory_means_all_rollouts_that_mend_it(it: Plant) -> None:
    await mending(it, fixes_below=2)
    await it.write(lambda tx: stock(tx, 4, ("m1",)))
    await it.create(make_plan((REST,), name="summer", release="radio-4.0.0", advisories=(CVE,)))
    found = await asked(it, advisory=CVE)
    assert (found["below"], found["advisory"]) == ({"m1": 4, "m2": 2}, CVE)
    assert found["vulnerable"] == 4


async def test_a_release_counter_means_every_model(it: Plant) -> None:
    await fleet(it)
    found = await asked(it, below_rel=2)
    assert (found["vulnerable"], found["unknown"], found["below_rel"]) == (3, 3 - 1, 2)
    assert set(await listed(it, below_rel=2)) == {"a1", "a4", "b1", "c1", "c2"}


async def test_vulnerable_devices_are_counted_by_when_they_were_seen(it: Plant) -> None:
    await it.enrol(4)

    def speak(tx: Any, device: str, at: float) -> None:
        from orchestrator.wire.report import State as Online

        tx.mark_online([Online(v=1, dev=device, online=True)], at)

    now = it.clock()
    for device, ago in (("d000", 60), ("d001", 7200), ("d002", 40 * 86_400)):
        await it.write(partial(speak, device=device, at=now - ago))
    found = await asked(it, below_rel=2)
    assert [(item["name"], item["devices"]) for item in found["seen"]] == [
        ("within 1h", 1),
        ("within 1d", 1),
        ("within 7d", 0),
        ("within 30d", 0),
        ("longer ago, or never", 2),
    ]


async def test_a_list_comes_in_pages(it: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposure, "PAGE", 3)
    await it.enrol(7)
    pages = [page async for page in exposure.lines(it.store, Question(below_rel=9))]
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [line["id"] for page in pages for line in page] == [f"d00{at}" for at in range(7)]


async def test_only_so_many_names_are_in_a_count(it: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposure, "MOST_NAMED", 1)
    await mending(it)
    found = await asked(it, rollout="spring")
    assert (named(found["models"]), found["models"]["others"]) == ({"m1": (2, 1)}, 1)


@pytest.mark.parametrize(
    ("question", "fault", "words"),
    [
        ({}, RequestError, "name one of"),
        ({"rollout": "spring", "below_rel": 3}, RequestError, "name one of"),
        ({"advisory": "cve-1"}, RequestError, "is no advisory"),
        ({"advisory": "CVE-2026-9999"}, NotFoundError, "no rollout names CVE-2026-9999"),
        ({"rollout": "none"}, NotFoundError, "no rollout named 'none'"),
    ],
)
async def test_a_question_that_means_nothing_is_refused(
    it: Plant, question: View, fault: type[Exception], words: str
) -> None:
    with pytest.raises(fault, match=words):
        await asked(it, **question)
    with pytest.raises(fault, match=words):
        await listed(it, **question)


async def test_a_plan_that_says_it_mends_what_its_release_does_not_is_refused(it: Plant) -> None:
    with pytest.raises(RequestError, match="it would not mend them"):
        await it.create(make_plan((REST,), fixes_below=3))


async def test_what_a_rollout_mends_stands_in_the_audit_log_at_its_start(it: Plant) -> None:
    await it.enrol(2)
    await it.running(make_plan((REST,), severity=Severity.HIGH, advisories=(CVE,), fixes_below=2))
    entries = await it.store.read(lambda tx: tx.audit_entries(0, 100))
    told = [item.action for item in entries if '"advisories":["CVE-2026-1234"],' in item.detail]
    assert told == ["rollout.created", "rollout.moved"]


# How fast


async def drawn(it: Plant) -> View:
    found: View = await it.store.read(lambda tx: curve.of_rollout(tx, "spring"))
    return found


async def test_a_draft_has_no_curve(it: Plant) -> None:
    await it.create()
    found = await drawn(it)
    assert (found["since"], found["points"]) == (None, [])


async def test_the_curve_counts_offers_and_confirmations_over_time(it: Plant) -> None:
    await it.enrol(10)
    rollout = await it.create(make_plan((REST,)))
    await it.command(rollout, Command.START)
    began = it.clock()
    it.clock.advance(it.settings.grace_s)
    await it.advance(rollout)
    for count in (5, 4):
        it.clock.advance(60)
        await it.confirm((await it.updates(rollout, S.OFFERED))[:count])
    found = await drawn(it)
    assert (found["since"], found["approved_at"], found["cohort_size"]) == (began, None, 10)
    assert found["offered"] == {"devices": 10, "t50_s": 30, "t90_s": 30, "t95_s": 30}
    assert found["confirmed"] == {"devices": 9, "t50_s": 90, "t90_s": 150, "t95_s": None}
    assert found["width_s"] == 5
    steps = {item["after_s"]: (item["offered"], item["confirmed"]) for item in found["points"]}
    assert (steps[30], steps[35], steps[90], steps[95], steps[155]) == ((0, 0), (10, 0), (10, 0), (10, 5), (10, 9))
    assert len(steps) == 31


async def test_time_counts_from_the_last_approval_of_the_start(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.create(make_plan((REST,)))
    votes = (Vote("bob", "bob", True, "", it.clock() - 50), Vote("cy", "cy", True, "", it.clock() - 20))
    asked_ = Proposal(0, Matter.START, "spring", "", "", "ann", "ann", "", 0.0, 1e12, 2)
    made = await it.write(lambda tx: tx.add_proposal(asked_))
    await it.write(lambda tx: tx.save_proposal(replace(made, state=State.USED, votes=votes)))
    await it.command(rollout, Command.START)
    found = await drawn(it)
    assert found["began_at"] - found["since"] == 20
    assert found["approved_at"] == found["since"]


async def test_an_offer_that_was_withdrawn_was_none(it: Plant) -> None:
    await it.enrol(3)
    rollout = await it.running(make_plan((REST,)))
    await it.command(rollout, Command.PAUSE)
    assert (await drawn(it))["offered"]["devices"] == 0
