"""Whom rollouts take, on a real store: stages of groups, strata, fixed and open cohorts, and their previews."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.model import Device, EvidenceRule, Phase, Plan, Rollout, SizeKind, StagePlan, UpdateState
from orchestrator.core.rollout import Command
from orchestrator.core.targeting.facts import Change
from orchestrator.engine.insight import explain
from orchestrator.engine.rollouts.operations import NewDevice, create_release, enrol
from orchestrator.engine.targeting import facts, preview
from orchestrator.engine.targeting.joining import PACE_S, STONES_S, Joining
from orchestrator.errors import ConfigError, ConflictError, NotFoundError, RequestError
from orchestrator.wire.report import Hello, Kind
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant, make_artifact, stock

P, S = Phase, UpdateState
ALL = StagePlan(SizeKind.REST, 0)


async def say(it: Plant, ids: Sequence[str], **changes: Any) -> None:
    """Let an operator say something of devices, a second later."""
    it.clock.advance(1)
    change = Change(**changes)
    await it.write(lambda tx: facts.change(tx, dict.fromkeys(ids, change), it.clock(), actor="ann"))


def named(*numbers: int) -> list[str]:
    return [f"d{number:03}" for number in numbers]


async def finish(it: Plant, rollout: Rollout) -> Rollout:
    """Confirm every device in flight until none is left."""
    while flying := await it.updates(rollout, S.OFFERED):
        await it.confirm(flying)
        rollout = await it.advance(rollout)
    return rollout


async def taken(it: Plant, rollout: Rollout) -> dict[int, set[str]]:
    """Return the devices of each stage."""
    found: dict[int, set[str]] = {}
    for item in await it.updates(rollout):
        found.setdefault(item.stage, set()).add(item.device_id)
    return found


async def drawn(it: Plant, seen: preview.Preview) -> tuple[dict[int, set[str]], dict[str, set[str]]]:
    """Return what a preview says: the devices of each stage, and who is left out by reason."""
    stages: dict[int, set[str]] = {}
    out: dict[str, set[str]] = {}
    async for piece in preview.lines(it.store, seen):
        for line in piece:
            if "stage" in line:
                stages.setdefault(line["stage"], set()).add(line["device"])
            else:
                out.setdefault(line["left_out"], set()).add(line["device"])
    summary = seen.summary()
    assert {item["index"]: item["devices"] for item in summary["stages"] if item["devices"]} == {
        index: len(devices) for index, devices in stages.items()
    }
    assert {item["code"]: item["devices"] for item in summary["left_out"]} == {
        code: len(devices) for code, devices in out.items()
    }
    return stages, out


# Selection, groups and strata


async def test_a_selector_says_whom_a_rollout_takes(it: Plant) -> None:
    await it.enrol(20)
    await say(it, named(1, 2, 3, 4, 5), site="berlin-1", attributes={"region": "eu"})
    await say(it, named(4), tag=("canary",))
    plan = make_plan((REST,), select='site like "berlin-*" and attr.region in (eu, us) and not tag(canary)')
    rollout = await it.running(plan)
    assert rollout.cohort_size == 4
    assert await taken(it, rollout) == {0: set(named(1, 2, 3, 5))}


async def test_a_stage_of_a_group_goes_first_and_the_others_follow_the_hash(it: Plant) -> None:
    await it.enrol(40)
    await say(it, named(7, 8, 9), join=("lab",))
    stages = (StagePlan(SizeKind.REST, 0, limit=0.9, group="lab"), StagePlan(SizeKind.COUNT, 10, limit=0.9), ALL)
    rollout = await it.running(make_plan(stages=stages))
    assert await taken(it, rollout) == {0: set(named(7, 8, 9))}
    rollout = await finish(it, rollout)
    assert (rollout.phase, [stage.target for stage in rollout.stages]) == (P.DONE, [3, 10, 27])
    assert {stage: len(found) for stage, found in (await taken(it, rollout)).items()} == {0: 3, 1: 10, 2: 27}
    await it.tallies_hold(rollout)


async def test_a_group_that_shrank_corrects_its_stage_and_not_the_cohort(it: Plant) -> None:
    await it.enrol(30)
    await say(it, named(0, 1, 2, 3), join=("lab",))
    stages = (StagePlan(SizeKind.COUNT, 5, limit=0.9), StagePlan(SizeKind.REST, 0, limit=0.9, group="lab"), ALL)
    rollout = await it.running(make_plan(stages=stages))
    early = {name for name in named(0, 1, 2, 3) if name in (await taken(it, rollout))[0]}
    gone = next(name for name in named(0, 1, 2, 3) if name not in early)
    await it.record(hellos=[Hello(1, gone, "m1", "2.0.0", 2)])
    rollout = await finish(it, rollout)
    found = await taken(it, rollout)
    assert found[1] == set(named(0, 1, 2, 3)) - early - {gone}
    assert (rollout.phase, len(await it.updates(rollout))) == (P.DONE, 29)


async def test_a_stage_of_a_group_is_not_extended_but_asks_a_person(it: Plant) -> None:
    await it.enrol(30)
    await say(it, named(0, 1), join=("lab",))
    rollout = await it.running(make_plan(stages=(StagePlan(SizeKind.REST, 0, limit=0.1, group="lab"), ALL)))
    rollout = await finish(it, rollout)
    assert (rollout.phase, rollout.reason.code) == (P.INCONCLUSIVE, "inconclusive")
    assert "a stage of a group is not extended" in rollout.reason.text


async def test_each_stage_is_a_fair_sample_of_the_strata_and_evidence_is_kept_by_them(it: Plant) -> None:
    await it.enrol(60)
    await say(it, named(*range(30)), site="berlin")
    await say(it, named(*range(30, 50)), site="paris")
    plan = make_plan((6, 12, REST), (0.9, 0.9, 0.9), stratify="site")
    rollout = await finish(it, await it.running(plan))
    assert (rollout.phase, rollout.strata) == (P.DONE, 3)
    counts = Counter((item.stage, item.stratum) for item in await it.updates(rollout))
    assert [counts[0, site] for site in ("berlin", "paris", "(none)")] == [3, 2, 1]
    assert [counts[1, site] for site in ("berlin", "paris", "(none)")] == [6, 4, 2]
    tally = await it.store.read(lambda tx: tx.tally(rollout.id))
    assert {key.stratum for key in tally} == {"berlin", "paris", "(none)"}
    assert {item.model for item in await it.parcels(rollout)} == {"m1"}
    await it.tallies_hold(rollout)


async def test_more_strata_than_can_be_told_apart_are_refused_with_a_way_out(it: Plant) -> None:
    await it.enrol(65)
    for number in range(65):
        await say(it, named(number), site=f"site-{number}")
    rollout = await it.running(make_plan(stratify="site"))
    assert (rollout.phase, rollout.reason.code) == (P.DRAFT, "too_many_strata")
    assert "more than 64 values" in rollout.reason.text
    with pytest.raises(RequestError, match="more than 64 values"):
        await preview.of_rollout(it.store, rollout.plan.name, it.clock())


# Fixed cohorts


async def test_a_fixed_cohort_keeps_those_whom_it_had_whatever_is_said_later(it: Plant) -> None:
    await it.enrol(20)
    await say(it, named(*range(10)), site="berlin")
    rollout = await it.running(make_plan((5, REST), (0.9, 0.9), select="site == berlin"))
    assert rollout.cohort_size == 10
    await say(it, named(*range(10)), site="paris")
    await say(it, named(*range(10, 20)), site="berlin")
    await say(it, named(*range(5)), site="berlin", tag=("twice",))
    rollout = await finish(it, rollout)
    assert (rollout.phase, {item.device_id for item in await it.updates(rollout)}) == (P.DONE, set(named(*range(10))))


async def test_groups_given_by_enrolling_again_count_as_said_later(it: Plant) -> None:
    await it.enrol(4)
    await say(it, named(0, 1), join=("lab",))
    rollout = await it.running(make_plan((1, REST), (0.99, 0.99), groups=("lab",)))
    it.clock.advance(1)
    again = [NewDevice(name, "m1", ("lab",)) for name in named(2, 3)] + [
        NewDevice("d000", "m1"),
        NewDevice("d001", "m1"),
    ]
    await it.write(lambda tx: enrol(tx, again, it.clock()))
    rollout = await finish(it, rollout)
    assert {item.device_id for item in await it.updates(rollout)} == set(named(0, 1))


async def test_nothing_is_kept_of_the_past_while_no_fixed_cohort_is_on_its_way(it: Plant) -> None:
    await it.enrol(2)
    await it.running(make_plan((REST,), open_cohort=True))
    await say(it, named(0), site="berlin")
    assert await it.store.read(lambda tx: tx.past_facts(named(0), 0.0)) == {}


# Open cohorts


def joining(it: Plant) -> Joining:
    return Joining(it.store, it.clock, it.conductor.changed)


async def test_late_joiners_wait_for_a_later_stage(it: Plant) -> None:
    await it.enrol(20)
    rollout = await it.running(make_plan((5, REST), (0.9, 0.9), open_cohort=True))
    await it.enrol(7, prefix="late")
    assert await joining(it).look() == 7
    assert (await it.rollout(rollout.id)).cohort_size == 27
    assert len(await it.updates(await it.advance(rollout))) == 5
    rollout = await finish(it, rollout)
    assert (rollout.phase, await it.states(rollout)) == (P.DONE, {"confirmed": 27})
    await it.tallies_hold(rollout)


async def test_late_joiners_of_the_last_stage_keep_to_its_limits(it: Plant) -> None:
    await it.enrol(12)
    rollout = await it.running(make_plan((REST,), (0.9,), open_cohort=True, in_flight=5))
    await say(it, [], site="")
    await it.enrol(30, prefix="late")
    usher = joining(it)
    assert await usher.look() == 30
    rollout = await it.advance(rollout)
    assert rollout.stages[0].target == 42
    assert await it.states(rollout) == {"offered": 5, "pending": 37}
    assert await usher.look() == 0
    rollout = await finish(it, rollout)
    assert await it.states(rollout) == {"confirmed": 42}


async def test_whoever_comes_to_match_joins_as_well(it: Plant) -> None:
    await it.enrol(6)
    await say(it, named(0, 1), tag=("beta",))
    rollout = await it.running(make_plan((REST,), open_cohort=True, select="tag(beta)"))
    await say(it, named(4), tag=("beta",))
    assert await joining(it).look() == 1
    assert await taken(it, await it.advance(rollout)) == {0: set(named(0, 1, 4))}


async def test_the_registry_is_counted_only_after_a_change_and_not_too_often(it: Plant) -> None:
    await it.enrol(6)
    rollout = await it.running(make_plan((2, REST), open_cohort=True))
    usher = joining(it)
    assert await usher.look() == 0
    await it.enrol(1, prefix="one")
    assert await usher.look() == 0
    it.clock.advance(PACE_S)
    assert await usher.look() == 1
    it.clock.advance(PACE_S)
    reads = it.store.read
    asked = []

    async def count(work: Any) -> Any:
        asked.append(work)
        return await reads(work)

    usher._store = it.store
    it.store.read = count  # type: ignore[method-assign]
    assert await usher.look() == 0
    assert len(asked) == 1
    it.store.read = reads  # type: ignore[method-assign]
    await it.command(rollout, Command.ABORT)
    await it.enrol(1, prefix="two")
    it.clock.advance(PACE_S)
    assert await usher.look() == 0


async def test_who_is_too_old_is_left_out_and_joins_when_it_reached_the_stone(it: Plant) -> None:
    await it.enrol(2, rel=3)
    await it.enrol(2, prefix="old")
    await it.write(lambda tx: enrol(tx, [NewDevice("mute", "m1")], it.clock()))
    await it.write(lambda tx: stock(tx, 2))
    await it.write(lambda tx: stock(tx, 3))
    target = make_artifact(4, min_from=2)
    await it.write(lambda tx: tx.add_artifact(target, 0.0))
    await it.write(lambda tx: create_release(tx, "radio-4", [target.sha256], 0.0))
    plan = make_plan((REST,), (0.9,), release="radio-4", open_cohort=True)
    seen = await preview.of_plan(it.store, plan, it.clock())
    assert (await drawn(it, seen))[1] == {"from_too_low": {"old000", "old001"}}
    assert (seen.summary()["devices"], seen.summary()["unknown"]) == (3, 1)
    rollout = await it.running(plan)
    assert await taken(it, rollout) == {0: {"d000", "d001", "mute"}}
    late = joining(it)
    assert await late.look() == 0
    [view] = [await it.store.read(lambda tx: explain.explain_device(tx, "old000", it.clock(), hearing=True))]
    assert view["rollouts"][0]["because"] == (
        "it runs release counter 1, and the release takes 2 or later; radio-3.0.0 is the next step on its way"
    )
    await it.record(hellos=[Hello(1, "old000", "m1", "3.0.0", 3)])
    it.clock.advance(STONES_S - 1)
    assert await late.look() == 0
    it.clock.advance(1)
    assert await late.look() == 1
    assert await taken(it, await it.advance(rollout)) == {0: {"d000", "d001", "mute", "old000"}}


async def test_nobody_joins_a_fixed_cohort(it: Plant) -> None:
    await it.enrol(6)
    rollout = await it.running(make_plan((2, REST)))
    it.clock.advance(1)
    await it.enrol(3, prefix="late")
    assert await joining(it).look() == 0
    assert (await it.rollout(rollout.id)).cohort_size == 6


# Late devices

WEEK_S = 604_800.0
WITNESSES = EvidenceRule(registered_s=WEEK_S)


async def mixed(it: Plant, old: int, new: int) -> None:
    """Register devices, and others more than a week later."""
    await it.enrol(old)
    it.clock.advance(WEEK_S + 60)
    await it.enrol(new, prefix="n")
    it.clock.advance(60)


async def test_devices_that_just_registered_wait_for_the_last_stage(it: Plant) -> None:
    await mixed(it, 30, 30)
    rollout = await it.running(make_plan((10, 20, REST), (0.9, 0.9, 0.9), evidence=WITNESSES))
    assert [stage.base for stage in rollout.stages] == [10, 20, 30]
    [view] = [await it.store.read(lambda tx: explain.explain_device(tx, "n000", it.clock(), hearing=True))]
    assert [item["code"] for item in view["rollouts"][0]["reasons"]] == ["registered_late", "stage_not_open"]
    rollout = await finish(it, rollout)
    assert rollout.phase is P.DONE
    found = await taken(it, rollout)
    assert {stage: {name[0] for name in names} for stage, names in found.items()} == {0: {"d"}, 1: {"d"}, 2: {"n"}}
    assert not any(stage.drained for stage in rollout.stages)
    await it.tallies_hold(rollout)


async def test_too_few_old_devices_are_taken_and_that_is_on_the_record(it: Plant) -> None:
    await mixed(it, 14, 46)
    rollout = await finish(it, await it.running(make_plan((10, 20, REST), (0.9, 0.9, 0.9), evidence=WITNESSES)))
    assert (rollout.phase, [stage.target for stage in rollout.stages]) == (P.DONE, [10, 4, 46])
    assert [stage.drained for stage in rollout.stages] == [False, True, False]
    events = await it.store.read(lambda tx: tx.events(rollout.id))
    [event] = [item for item in events if item.code == "registered_late"]
    assert (event.stage, event.text) == (1, "4 of 20 devices; 46 were registered too late for this stage")


async def test_where_all_are_new_a_person_is_asked_before_anything_is_offered(it: Plant) -> None:
    await it.enrol(20)
    rollout = await it.running(make_plan((5, REST), evidence=WITNESSES))
    assert (rollout.phase, rollout.reason.code) == (P.INCONCLUSIVE, "inconclusive")
    assert (await it.updates(rollout), rollout.cohort_size) == ([], 20)
    await it.command(rollout, Command.RESUME)
    rollout = await finish(it, await it.advance(rollout))
    assert (rollout.phase, await taken(it, rollout)) == (P.DONE, {1: set(named(*range(20)))})


async def test_an_extension_takes_the_old_devices_that_are_left_and_then_asks(it: Plant) -> None:
    await mixed(it, 13, 47)
    plan = make_plan((10, REST), (0.3,), evidence=WITNESSES)
    rollout = await it.running(replace(plan, halt=replace(plan.halt, lost_after_reboot=False)))
    first, *others = await it.updates(rollout, S.OFFERED)
    await it.say([first], Kind.FAILED, n=9)
    await it.confirm(others)
    rollout = await finish(it, await it.advance(rollout))
    assert (rollout.phase, rollout.reason.code) == (P.INCONCLUSIVE, "inconclusive")
    assert (rollout.current.target, rollout.current.drained) == (13, True)
    assert "registered too late" in rollout.reason.text


async def test_who_registers_into_an_open_cohort_enters_the_last_stage(it: Plant) -> None:
    await mixed(it, 20, 0)
    rollout = await it.running(make_plan((5, 10, REST), (0.9, 0.9, 0.9), open_cohort=True, evidence=WITNESSES))
    await it.enrol(7, prefix="late")
    assert await joining(it).look() == 7
    rollout = await finish(it, await it.advance(rollout))
    found = await taken(it, rollout)
    assert [len(found[stage]) for stage in range(3)] == [5, 10, 12]
    assert {name for name in found[0] | found[1] if name.startswith("late")} == set()
    assert rollout.phase is P.DONE


async def test_a_preview_and_explain_say_which_stage_can_never_have_enough_strata(it: Plant) -> None:
    await it.enrol(40)
    await say(it, named(*range(4)), site="berlin")
    plan = make_plan((10, REST), (0.9, 0.9), stratify="site", evidence=EvidenceRule(strata=2))
    rollout = await it.create(plan)
    [warned] = (await preview.of_rollout(it.store, plan.name, it.clock())).summary()["warnings"]
    assert (warned["stage"], warned["code"]) == (0, "strata")
    assert "and 1 can be: berlin has 1;" in warned["text"]
    await it.command(rollout, Command.START)
    it.clock.advance(30)
    rollout = await it.advance(rollout)
    view = await it.store.read(lambda tx: explain.explain_rollout(tx, plan.name, it.clock(), hearing=True))
    assert warned["text"] in view["next"]
    await it.confirm(await it.updates(rollout))
    rollout = await it.advance(rollout)
    assert (rollout.phase, rollout.reason.code) == (P.INCONCLUSIVE, "strata")


@pytest.mark.parametrize("changes", [{}, {"stratify": "site"}])
async def test_a_preview_says_who_is_late_and_which_stage_finds_too_few(it: Plant, changes: dict[str, Any]) -> None:
    await mixed(it, 14, 26)
    await say(it, named(*range(7)), site="berlin")
    plan = make_plan((10, 20, REST), (0.9, 0.9, 0.9), evidence=WITNESSES, **changes)
    rollout = await it.create(plan)
    seen = await preview.of_rollout(it.store, plan.name, it.clock())
    stages, out = await drawn(it, seen)
    summary = seen.summary()
    assert (summary["late"], out) == (26, {})
    assert [(item["wanted"], item["devices"]) for item in summary["stages"]] == [(10, 10), (20, 4), (26, 26)]
    told = [line async for piece in preview.lines(it.store, seen) for line in piece]
    assert {line["device"] for line in told if line.get("late")} == stages[2]
    await it.command(rollout, Command.START)
    it.clock.advance(30)
    rollout = await finish(it, await it.advance(rollout))
    assert await taken(it, rollout) == stages


async def test_a_stage_that_too_few_strata_praise_says_so(it: Plant) -> None:
    await it.enrol(60)
    await say(it, named(*range(57)), site="berlin")
    plan = make_plan((20, REST), (0.9, 0.9), stratify="site", evidence=EvidenceRule(strata=2))
    rollout = await it.running(plan)

    async def told() -> dict[str, Any]:
        return await it.store.read(lambda tx: explain.explain_rollout(tx, "spring", it.clock(), hearing=True))

    await it.confirm((await it.updates(rollout, S.OFFERED))[:1])
    assert [item["need"] for item in (await told())["waits_for"] if item["code"] == "strata"] == [2]
    rollout = await finish(it, rollout)
    assert (rollout.phase, rollout.reason.code) == (P.INCONCLUSIVE, "strata")
    found = await told()
    assert (found["gate"]["rule"], found["diversity"]["needed"], found["diversity"]["green"]) == ("strata", 2, 1)
    assert found["diversity"]["strata"] == [
        {"stratum": "(none)", "green": False, "healthy": 1, "k": 0, "n": 1, "allowed": 0},
        {"stratum": "berlin", "green": True, "healthy": 19, "k": 0, "n": 19, "allowed": 14},
    ]
    await it.command(rollout, Command.RESUME)
    rollout = await finish(it, await it.advance(rollout))
    assert rollout.phase is P.DONE


# Previews

PLANS = [
    make_plan((5, 10, REST), (0.9, 0.9, 0.9)),
    make_plan((5, 10), (0.9, 0.9)),
    make_plan((5, 10, REST), (0.9, 0.9, 0.9), stratify="site"),
    make_plan(
        stages=(StagePlan(SizeKind.REST, 0, limit=0.9, group="lab"), StagePlan(SizeKind.PPM, 200_000, limit=0.9), ALL)
    ),
    make_plan((4, REST), (0.9, 0.9), select="not site == paris and not group(lab)"),
]


@pytest.mark.parametrize("plan", PLANS)
async def test_a_preview_names_exactly_the_devices_that_each_stage_takes(it: Plant, plan: Plan) -> None:
    await it.enrol(40)
    await it.enrol(3, "other", "x")
    await it.enrol(2, "m1", "new", rel=2)
    await say(it, named(*range(10)), site="berlin", join=("lab",))
    await say(it, named(*range(10, 25)), site="paris")
    rollout = await it.create(plan)
    stages, out = await drawn(it, await preview.of_rollout(it.store, plan.name, it.clock()))
    await it.command(rollout, Command.START)
    it.clock.advance(30)
    rollout = await finish(it, await it.advance(rollout))
    assert rollout.phase is P.DONE
    assert await taken(it, rollout) == stages
    assert out["no_artifact"] == {"x000", "x001", "x002"}
    assert out["current"] == {"new000", "new001"}
    assert sum(map(len, stages.values())) + sum(map(len, out.values())) == 45
    with pytest.raises(ConflictError, match="was started"):
        await preview.of_rollout(it.store, plan.name, it.clock())


async def test_a_plan_is_drawn_before_it_is_a_rollout(it: Plant) -> None:
    await it.enrol(20)
    await it.write(stock)
    example = await preview.of_plan(it.store, make_plan((5, 5)), it.clock())
    stages, out = await drawn(it, example)
    assert (example.exact, {stage: len(found) for stage, found in stages.items()}) == (False, {0: 5, 1: 5})
    assert {code: len(found) for code, found in out.items()} == {"no_stage": 10}
    fixed = [await drawn(it, await preview.of_plan(it.store, make_plan((5, 5), seed=4), it.clock())) for _ in range(2)]
    assert fixed[0] == fixed[1]
    with pytest.raises(NotFoundError, match="no release named"):
        await preview.of_plan(it.store, make_plan(release="none"), it.clock())
    with pytest.raises(NotFoundError, match="no rollout named"):
        await preview.of_rollout(it.store, "none", it.clock())


# Facts


async def device(it: Plant, name: str) -> Device:
    found = await it.store.read(lambda tx: tx.device(name))
    assert found is not None
    return found


async def test_what_is_said_of_a_device_is_kept_and_audited(it: Plant) -> None:
    await it.enrol(2)
    await say(it, ["d000"], site="berlin", time_zone="Europe/Berlin", revision="1.2", tag=("b", "a"), join=("lab",))
    await say(it, ["d000"], untag=("b",), attributes={"region": "eu", "slot": "1"})
    await say(it, ["d000"], attributes={"slot": None})
    found = await device(it, "d000")
    assert (found.site, found.time_zone, found.revision) == ("berlin", "Europe/Berlin", "1.2")
    assert (found.tags, found.groups, found.attributes) == (("a",), ("lab",), {"region": "eu"})
    assert found.facts_at == it.clock()
    before = await it.store.read(lambda tx: tx.registry_version())
    assert await it.write(lambda tx: facts.change(tx, {"d000": Change(site="berlin")}, 99.0, actor="ann")) == []
    assert await it.store.read(lambda tx: tx.registry_version()) == before


async def test_a_device_changes_none_of_what_operators_say_of_it(it: Plant) -> None:
    await it.enrol(1)
    await say(it, ["d000"], site="berlin", tag=("a",), join=("lab",))
    before = (await device(it, "d000")).facts
    await it.record(hellos=[Hello(1, "d000", "m1", "9", 9, groups=("vip",))])
    assert (await device(it, "d000")).facts == before


async def test_a_batch_with_a_fault_changes_nothing_and_tells_every_fault(it: Plant) -> None:
    await it.enrol(2)
    changes = {
        "d000": Change(site="ok", time_zone="Mars/Olympus"),
        "d001": Change(tag=("No!",), attributes={"X": "1", "y": "\n"}, site=" x"),
        "none": Change(site="ok"),
    }
    with pytest.raises(ConfigError) as caught:
        await it.write(lambda tx: facts.change(tx, changes, 1.0, actor="ann"))
    assert [fault.split(": ")[0] for fault in caught.value.faults] == ["d000", *["d001"] * 4, "none"]
    assert (await device(it, "d000")).site == ""
    many = Change(tags=tuple(f"t{at}" for at in range(33)))
    with pytest.raises(ConfigError, match="d000: 33 tags are too many"):
        await it.write(lambda tx: facts.change(tx, {"d000": many}, 1.0, actor="ann"))


async def test_a_selection_is_listed_in_pieces(it: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.engine.targeting.facts.CHUNK", 3)
    await it.enrol(10)
    await say(it, named(1, 4, 5, 9), site="berlin")
    for text in ("site == berlin", 'site like "ber*"'):
        found = await facts.selected(it.store, text, "", 3)
        assert [item.id for item in found] == named(1, 4, 5)
        assert [item.id for item in await facts.selected(it.store, text, "d005", 3)] == named(9)
    with pytest.raises(RequestError, match="column 6"):
        await facts.selected(it.store, "site = 3", "", 3)
