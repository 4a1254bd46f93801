"""When devices are offered a release: hours by their own clock, the ramp, what they said, what their users want."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from msgspec import structs

from orchestrator.core.model import Delivery, Phase, Plan, Rollout, Update, UpdateState, Urgency
from orchestrator.core.pace import hold, ramp
from orchestrator.core.pace.hold import Candidate, Hold
from orchestrator.core.pace.requirement import Consent, ConsentRule, Requirements, Unknown
from orchestrator.core.pace.window import Window, Windows
from orchestrator.core.rollout import Command
from orchestrator.core.targeting.cohort import rank
from orchestrator.core.targeting.facts import Change
from orchestrator.core.trust.roles import SHARED, Caller
from orchestrator.engine.insight import explain
from orchestrator.engine.offers import holds
from orchestrator.engine.reports import recording
from orchestrator.engine.rollouts import editing
from orchestrator.engine.rollouts.editing import Wanted
from orchestrator.engine.targeting import facts
from orchestrator.engine.trust.approvals import Rules, Wish
from orchestrator.ports import DeliveryState, Tx
from orchestrator.wire.report import Hello, Kind, OwnFacts
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant, claims_of

S = UpdateState
BERLIN, TOKYO = "Europe/Berlin", "Asia/Tokyo"
NIGHT = Windows((Window(2 * 3600, 3 * 3600),), fallback=BERLIN)


def local(zone: str, year: int, month: int, day: int, hour: int) -> float:
    return datetime(year, month, day, hour, tzinfo=ZoneInfo(zone)).timestamp()


def hello(device_id: str = "d000", **said: Any) -> Hello:
    return Hello(v=1, dev=device_id, model="m1", ver="1.0.0", rel=1, facts=OwnFacts(**said))


async def settle_in(it: Plant, **zones: str) -> None:
    """Enrol devices and say where they are."""
    await it.enrol(len(zones))
    changes = {f"d{at:03}": Change(time_zone=zone) for at, zone in enumerate(zones.values())}
    await it.write(lambda tx: facts.change(tx, changes, it.clock(), actor="ann"))


async def begun_at(it: Plant, plan: Plan, at: float) -> Rollout:
    """Start a rollout at a time, with the link up long enough."""
    it.clock.at = at - it.settings.grace_s
    return await it.running(plan)


async def offered(it: Plant, rollout: Rollout) -> set[str]:
    return {item.device_id for item in await it.updates(rollout, S.OFFERED)}


async def why(it: Plant, device_id: str = "d000") -> list[dict[str, Any]]:
    view = await it.store.read(lambda tx: explain.explain_device(tx, device_id, it.clock(), hearing=it.hearing()))
    found: list[dict[str, Any]] = view["rollouts"][0]["reasons"]
    return found


async def test_each_device_waits_for_its_own_night(it: Plant) -> None:
    await settle_in(it, a=BERLIN, b=TOKYO, c="")
    rollout = await begun_at(it, make_plan((REST,), windows=NIGHT), local(BERLIN, 2027, 6, 1, 12))
    assert await offered(it, rollout) == set()
    wakes = it.conductor._wake_at[rollout.id]
    assert wakes == local(TOKYO, 2027, 6, 2, 2)
    it.clock.at = wakes
    await it.advance(rollout)
    assert await offered(it, rollout) == {"d001"}
    it.clock.at = it.conductor._wake_at[rollout.id]
    assert it.clock.at == local(BERLIN, 2027, 6, 2, 2)
    await it.advance(rollout)
    assert await offered(it, rollout) == {"d000", "d001", "d002"}


async def test_a_window_that_the_clock_skips_opens_a_day_later(it: Plant) -> None:
    await settle_in(it, a=BERLIN)
    rollout = await begun_at(it, make_plan((REST,), windows=NIGHT), local(BERLIN, 2027, 3, 28, 0))
    assert it.conductor._wake_at[rollout.id] == local(BERLIN, 2027, 3, 29, 2)
    it.clock.at = local(BERLIN, 2027, 3, 28, 3)  # the hour after 01:59
    await it.advance(rollout)
    assert await offered(it, rollout) == set()
    it.clock.at = local(BERLIN, 2027, 3, 29, 2)
    await it.advance(rollout)
    assert await offered(it, rollout) == {"d000"}


async def test_a_trigger_is_good_until_the_window_closes_and_comes_again_when_it_opens(it: Plant) -> None:
    await settle_in(it, a=BERLIN)
    plan = make_plan((REST,), windows=NIGHT, delivery=Delivery.POLL)
    opens = local(BERLIN, 2027, 6, 1, 2)
    rollout = await begun_at(it, plan, opens)
    await it.seal()
    [parcel] = await it.parcels(rollout)
    assert claims_of(parcel.token)["exp"] == opens + 3600
    it.clock.at = opens + 3600.0
    assert (await it.poll("d000")) == type(await it.poll("d000"))()
    assert [item.state for item in await it.parcels(rollout)] == [DeliveryState.SEALED]
    it.clock.at = opens + 22 * 3600.0
    assert (await it.poll("d000")).token == ""
    it.clock.at = opens + 23 * 3600.0 + 3600.0
    await it.recorder.judge_silence_once()  # the time for an answer is over
    assert await it.states(rollout) == Counter(unreached=1)
    await it.poll("d000")
    await it.advance(rollout)
    await it.seal()
    assert claims_of((await it.poll("d000")).token)["exp"] == opens + 25 * 3600


async def test_a_hello_outside_of_the_window_brings_no_trigger(it: Plant) -> None:
    await settle_in(it, a=BERLIN)
    opens = local(BERLIN, 2027, 6, 1, 2)
    rollout = await begun_at(it, make_plan((REST,), windows=NIGHT), opens)
    await it.send()
    it.clock.at = opens + 3600.0
    await it.record(hellos=[hello()])
    assert len(await it.parcels(rollout)) == 1


async def test_a_trigger_that_is_late_is_not_sealed(it: Plant) -> None:
    await settle_in(it, a=BERLIN)
    opens = local(BERLIN, 2027, 6, 1, 2)
    rollout = await begun_at(it, make_plan((REST,), windows=NIGHT), opens)
    it.clock.at = opens + 3600.0
    await it.seal()
    assert [item.state for item in await it.parcels(rollout)] == [DeliveryState.VOID]


async def test_the_ramp_counts_every_start_also_of_late_joiners(it: Plant) -> None:
    await it.enrol(30)
    limit = ramp.Ramp(base=6, factor=2.0, cap=12, every_s=600.0)
    plan = make_plan((REST,), ramp=limit, in_flight=10_000, open_cohort=True)
    rollout = await it.running(plan)
    began = it.clock()
    counts = [len(await offered(it, rollout))]
    for _ in range(4):
        wakes = it.conductor._wake_at[rollout.id]
        assert wakes > it.clock()
        it.clock.at = wakes
        await it.advance(rollout)
        counts.append(len(await offered(it, rollout)))
    assert counts == [1, 2, 3, 4, 5]
    assert it.clock() == pytest.approx(began + 40.0)
    standing = await it.store.read(lambda tx: explain.explain_rollout(tx, "spring", it.clock(), hearing=True))
    assert (standing["code"], standing["because"]) == ("ramp", "5 devices waiting for the ramp; 6 may start per minute")
    await it.enrol(60, prefix="late")
    it.clock.advance(600.0)
    await it.advance(rollout)
    assert len(await offered(it, rollout)) == 5 + 2  # ten seconds' worth of the rate that has doubled
    await it.tallies_hold(rollout)


async def test_jitter_spreads_offers_by_a_hash_that_nobody_can_choose(it: Plant) -> None:
    await it.enrol(8)
    rollout = await it.running(make_plan((REST,), jitter_s=600.0, in_flight=100))
    key = await it.store.read(lambda tx: tx.secret(rollout.id))
    opened = it.clock()
    places = {f"d{at:03}": ramp.delay_s(key, f"d{at:03}", 1, 600.0) for at in range(8)}
    for device_id, delay_s in sorted(places.items(), key=lambda pair: pair[1]):
        assert device_id not in await offered(it, rollout)
        it.clock.at = opened + delay_s + 0.001
        await it.advance(rollout)
        assert device_id in await offered(it, rollout)
    assert len(await offered(it, rollout)) == 8


async def test_what_a_device_says_lets_it_in_at_once(it: Plant) -> None:
    await it.enrol(1)
    plan = make_plan((REST,), require=Requirements(battery_pct=30, links=frozenset()))
    rollout = await it.running(plan)
    assert [item["code"] for item in await why(it)] == ["battery_unknown"]
    done = await it.record(hellos=[hello(bat=29)])
    assert done.rollouts == {rollout.id}
    await it.advance(rollout)
    [reason] = await why(it)
    assert reason["text"] == "its battery is at 29 %, and must be at 30 %"
    await it.record(hellos=[hello(charging=True)])
    await it.advance(rollout)
    assert await offered(it, rollout) == {"d000"}


async def test_old_devices_say_their_charge_in_the_hello_itself(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running(make_plan((REST,), require=Requirements(battery_pct=30)))
    await it.record(hellos=[Hello(v=1, dev="d000", model="m1", rel=1, bat=30)])
    await it.advance(rollout)
    assert await offered(it, rollout) == {"d000"}


async def test_every_reason_is_told_with_the_time_when_it_may_change(it: Plant) -> None:
    await settle_in(it, a=BERLIN)
    noon = local(BERLIN, 2027, 6, 1, 12)
    plan = make_plan(
        (REST,),
        windows=NIGHT,
        require=Requirements(free_bytes=1000, uptime_s=90_000.0),
        consent=ConsentRule(Consent.ASK),
    )
    rollout = await begun_at(it, plan, noon)
    later = int(noon) + 3 * 86_400
    await it.record(hellos=[hello(free=1500, uptime=10, later=later, slot=1111)])
    await it.advance(rollout)
    found = {item["code"]: item["may_change_at"] for item in await why(it)}
    assert found == {
        "window": local(BERLIN, 2027, 6, 2, 2),
        "slot": None,
        "free_space": None,
        "uptime": noon + 89_990.0,
        "deferred": float(later),
    }


async def test_a_user_agrees_to_one_update(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running(make_plan((REST,), consent=ConsentRule(Consent.ASK, deferrals=1)))
    for at in (1, 1, 2):  # said twice it is one deferral; the second one is one too many
        await it.record(hellos=[hello(later=int(it.clock()) // 100 * 100 + 1000 * at)])
        await it.advance(rollout)
        assert await offered(it, rollout) == set()
        assert [item["code"] for item in await why(it)] == ["deferred" if at == 1 else "consent"]
    await it.record(hellos=[hello(agreed=True)])
    await it.advance(rollout)
    assert await offered(it, rollout) == {"d000"}


async def test_who_puts_it_off_by_turns_as_two_releases_does_not_hold_up_the_others(it: Plant) -> None:
    await it.enrol(2)
    rule = ConsentRule(Consent.ASK, deferrals=2, longest_s=50_000.0)
    rollout = await it.running(make_plan((REST,), limits=(1.0,), consent=rule))
    await it.record(hellos=[hello("d000", agreed=True)])
    await it.confirm(await it.updates(await it.advance(rollout), S.OFFERED))
    for turn in range(4):
        found = await it.advance(rollout)
        assert found.phase is Phase.RUNNING, "a deferral that the plan allows is waited for"
        later = int(it.clock()) + 40_000 + turn
        await it.record(hellos=[structs.replace(hello("d001", later=later), rel=1 + 2 * (turn % 2))])
        it.clock.advance(rule.longest_s / 2)
        it.hearing()
    it.clock.advance(1.0)
    found = await it.advance(rollout)
    assert await it.states(rollout) == {"confirmed": 1, "unreached": 1}
    assert found.phase is not Phase.RUNNING


async def test_who_never_meets_what_is_required_does_not_hold_up_the_others(it: Plant) -> None:
    await it.enrol(5)
    rollout = await it.running(make_plan((REST,), limits=(1.0,), require=Requirements(charging=True)))
    await it.record(hellos=[hello(f"d{at:03}", charging=True) for at in range(4)])
    rollout = await it.advance(rollout)
    await it.confirm(await it.updates(rollout, S.OFFERED))
    assert (await it.advance(rollout)).phase is Phase.RUNNING
    it.clock.advance(86_400.0)
    rollout = await it.advance(rollout)
    assert await it.states(rollout) == Counter(confirmed=4, unreached=1)
    assert rollout.phase is Phase.DONE
    await it.tallies_hold(rollout)


async def test_who_is_kept_from_it_and_goes_on_asking_holds_up_nobody(it: Plant) -> None:
    await it.enrol(2)
    rollout = await it.running(make_plan((REST,), limits=(1.0,), consent=ConsentRule(Consent.ASK)))
    await it.record(hellos=[hello("d001", agreed=True)])
    await it.advance(rollout)
    it.clock.advance(86_400.0)
    await it.advance(rollout)
    kept = Counter(offered=1, unreached=1)
    assert await it.states(rollout) == kept
    await it.poll("d000")
    await it.record(hellos=[hello("d000")])
    assert await it.states(rollout) == kept
    await it.record(hellos=[hello("d000", agreed=True)])
    assert await it.states(rollout) == Counter(offered=1, pending=1)


async def staged(it: Plant, require: Requirements, *said: Hello) -> tuple[Rollout, list[str]]:
    """Start a rollout of two stages whose devices met what it requires; returns the devices of the first stage."""
    await it.enrol(20)
    rollout = await it.create(make_plan((6, REST), (0.9,), require=require))
    await it.record(hellos=said)
    await it.command(rollout, Command.START)
    it.clock.advance(it.settings.grace_s)
    key = await it.store.read(lambda tx: tx.secret(rollout.id))
    return rollout, sorted((item.dev for item in said), key=lambda name: rank(key, name))[:6]


async def test_a_device_that_boots_every_hour_does_not_hold_its_stage_for_ever(it: Plant) -> None:
    ready = [hello(f"d{at:03}", uptime=90_000) for at in range(20)]
    rollout, [one, *others] = await staged(it, Requirements(uptime_s=7200.0), *ready)
    await it.record(hellos=[hello(one, uptime=1)])
    await it.advance(rollout)
    assert await offered(it, rollout) == set(others)
    await it.confirm(await it.updates(rollout, S.OFFERED))
    for hour in range(1, 26):
        it.clock.advance(3600.0)
        it.hearing()
        await it.record(hellos=[hello(one, uptime=1)])
        assert (await it.advance(rollout)).stage == (hour >= 24)


async def test_who_is_up_for_long_enough_after_all_comes_back_by_itself(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running(make_plan((REST,), max_unreached=1.0, require=Requirements(uptime_s=7200.0)))
    it.clock.advance(86_400.0 - 10.0)
    await it.record(hellos=[hello(uptime=1)])
    it.clock.advance(10.0)
    await it.write(lambda tx: holds.free(tx, rollout, 1, it.clock()))
    [kept] = await it.updates(rollout, S.UNREACHED)
    assert (kept.code, kept.deadline_at) == ("uptime", it.clock() - 10.0 + 7199.0)
    it.clock.advance(3600.0)
    await it.record(hellos=[hello(uptime=1)])  # it boots once more
    await it.poll("d000")
    [kept] = await it.updates(rollout, S.UNREACHED)
    assert [item["may_change_at"] for item in await why(it) if item["code"] == "uptime"] == [it.clock() + 7199.0]
    it.clock.advance(7199.0)
    it.hearing()
    assert await it.recorder.judge_silence_once() == 1
    await it.advance(rollout)
    assert await offered(it, rollout) == {"d000"}
    await it.tallies_hold(rollout)


async def test_two_devices_that_take_turns_do_not_hold_their_stage(it: Plant) -> None:
    ready = [hello(f"d{at:03}", bat=90) for at in range(20)]
    rollout, [one, two, *_] = await staged(it, Requirements(battery_pct=50), *ready)
    await it.record(hellos=[hello(one, bat=5)])
    await it.advance(rollout)
    await it.send()
    await it.confirm([item for item in await it.updates(rollout, S.OFFERED) if item.device_id != two])
    it.clock.advance(43_200.0)
    it.hearing()
    refuser = next(item for item in await it.updates(rollout) if item.device_id == two)
    await it.say([refuser], Kind.REFUSED, code="low_battery", rel=1, facts=OwnFacts(bat=5))
    it.clock.advance(600.0)
    await it.recorder.judge_silence_once()
    await it.advance(rollout)
    assert await it.states(rollout) == Counter(confirmed=4, pending=2)
    for _ in range(3):  # half a day each: one is unreached, the other is still waited for
        it.clock.advance(43_200.0)
        it.hearing()
        await it.advance(rollout)
        for item in await it.updates(rollout, S.UNREACHED):
            await it.record(hellos=[hello(item.device_id, bat=90)])
            await it.record(hellos=[hello(item.device_id, bat=5)])
        rollout = await it.advance(rollout)
    assert rollout.stage == 1
    assert len(await it.parcels(rollout)) == 4 + 1


async def test_who_was_kept_from_it_waits_for_its_night_without_being_waited_for(it: Plant) -> None:
    await settle_in(it, a=BERLIN)
    plan = make_plan((REST,), max_unreached=1.0, windows=NIGHT, require=Requirements(battery_pct=50))
    rollout = await begun_at(it, plan, local(BERLIN, 2027, 6, 1, 2))
    it.clock.advance(86_400.0)
    await it.write(lambda tx: holds.free(tx, rollout, 1, it.clock()))
    it.clock.at = local(BERLIN, 2027, 6, 2, 12)
    await it.record(hellos=[hello(bat=90)])
    [kept] = await it.updates(rollout, S.UNREACHED)
    assert kept.deadline_at == local(BERLIN, 2027, 6, 3, 2)
    await it.record(hellos=[hello(bat=5)])
    [kept] = await it.updates(rollout, S.UNREACHED)
    assert kept.deadline_at is None
    await it.record(hellos=[hello(bat=90)])
    it.clock.at = local(BERLIN, 2027, 6, 3, 2)
    it.hearing()
    await it.recorder.judge_silence_once()
    await it.advance(rollout)
    assert await offered(it, rollout) == {"d000"}


async def test_who_was_offered_it_too_often_is_not_called_back(it: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MOST_OFFERS", 1)
    await it.enrol(1)
    rollout = await it.running(make_plan((REST,), require=Requirements(uptime_s=7200.0, unknown=Unknown.ALLOW)))
    await it.send()
    it.clock.advance(86_400.0)
    it.hearing()
    await it.recorder.judge_silence_once()
    await it.record(hellos=[hello(uptime=1)])
    [kept] = await it.updates(rollout, S.UNREACHED)
    assert kept.deadline_at is None


async def test_devices_that_come_back_together_are_judged_together(it: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    await it.enrol(5)
    rollout = await it.running(make_plan((REST,), require=Requirements(battery_pct=50)))
    it.clock.advance(86_400.0)
    await it.advance(rollout)
    assert await it.states(rollout) == Counter(unreached=5)
    sizes: list[int] = []
    judge = holds.judge

    def watched(tx: Tx, rollout: Rollout, waiting: Sequence[Update], now: float) -> dict[int, Hold]:
        sizes.append(len(waiting))
        return judge(tx, rollout, waiting, now)

    monkeypatch.setattr(holds, "judge", watched)
    await it.record(hellos=[hello(f"d{at:03}", bat=90 if at < 2 else 5) for at in range(5)])
    assert sizes == [5]
    assert await it.states(rollout) == Counter(pending=2, unreached=3)


async def test_a_device_that_refuses_for_now_is_held_until_it_says_better(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running(make_plan((REST,), require=Requirements(battery_pct=30)))
    await it.record(hellos=[hello(bat=50)])
    await it.advance(rollout)
    await it.send()
    [update] = await it.updates(rollout)
    await it.say([update], Kind.REFUSED, code="low_battery", facts=OwnFacts(bat=20))
    assert await it.states(rollout) == Counter(postponed=1)
    assert (await it.advance(rollout)).phase is Phase.RUNNING
    it.clock.advance(86_400.0)
    await it.record(hellos=[hello(bat=20)])
    await it.recorder.judge_silence_once()
    await it.advance(rollout)
    assert await it.states(rollout) == Counter(pending=1)
    await it.record(hellos=[hello(bat=80)])
    await it.advance(rollout)
    [again] = await it.updates(rollout, S.OFFERED)
    assert (again.attempt, again.device_id) == (2, "d000")


async def test_the_next_look_costs_what_is_due(it: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "PIECE", 5)
    await it.enrol(12)
    rollout = await it.running(make_plan((REST,), require=Requirements(charging=True)))
    looked: list[str] = []
    judge = hold.judge

    def watched(plan: Plan, key: bytes, device: Candidate, now: float) -> Hold | None:
        looked.append(device.device_id)
        return judge(plan, key, device, now)

    monkeypatch.setattr(hold, "judge", watched)
    await it.record(hellos=[hello("d007", charging=True)])
    await it.advance(rollout)
    assert await offered(it, rollout) == {"d007"}
    assert looked == ["d007"]
    queries = await it.store.read(
        lambda tx: [
            str(row)
            for query in (
                "SELECT id FROM updates WHERE rollout_id = 1 AND state = 'pending' AND held_until_at IS NULL",
                "SELECT id FROM updates WHERE rollout_id = 1 AND state = 'pending' AND held_until_at IS NOT NULL "
                "AND held_until_at <= 5 ORDER BY held_until_at",
            )
            for row in tx._connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")  # type: ignore[attr-defined]
        ]
    )
    assert ["ix_updates_pending" in queries[0], "ix_updates_held" in queries[1]] == [True, True]


async def test_a_pause_does_not_forget_who_is_held(it: Plant) -> None:
    await settle_in(it, a=BERLIN)
    rollout = await begun_at(it, make_plan((REST,), windows=NIGHT), local(BERLIN, 2027, 6, 1, 12))
    await it.command(rollout, Command.PAUSE)
    await it.advance(rollout)
    it.clock.at = local(BERLIN, 2027, 6, 2, 2)
    await it.command(rollout, Command.RESUME)
    await it.advance(rollout)
    assert await offered(it, rollout) == {"d000"}


async def test_an_emergency_overrides_the_window_with_one_entry(it: Plant) -> None:
    await settle_in(it, a=BERLIN, b=TOKYO)
    plan = make_plan((1, REST), limits=(1.0,), windows=NIGHT, urgency=Urgency.SECURITY, urgent_from=Urgency.SECURITY)
    rollout = await begun_at(it, plan, local(BERLIN, 2027, 6, 1, 12))
    await it.confirm(await it.updates(rollout, S.OFFERED))
    await it.advance(rollout)
    assert len(await offered(it, rollout)) == 1
    entries = await it.store.read(lambda tx: tx.audit_entries(0, 1000))
    [entry] = [item for item in entries if item.action == "rollout.overrides"]
    assert (entry.object, json.loads(entry.detail)["overrides"]) == ("spring", ["windows"])


async def test_another_time_zone_counts_at_once(it: Plant) -> None:
    await settle_in(it, a=BERLIN)
    rollout = await begun_at(it, make_plan((REST,), windows=NIGHT), local(TOKYO, 2027, 6, 2, 2))
    assert await offered(it, rollout) == set()
    await it.write(lambda tx: facts.change(tx, {"d000": Change(time_zone=TOKYO)}, it.clock(), actor="ann"))
    await it.advance(rollout)
    assert await offered(it, rollout) == {"d000"}


async def test_an_edited_plan_is_looked_at_anew(it: Plant) -> None:
    await settle_in(it, a=BERLIN)
    plan = make_plan((REST,), windows=NIGHT)
    rollout = await begun_at(it, plan, local(BERLIN, 2027, 6, 1, 12))
    wanted = Wanted("spring", replace(plan, windows=Windows(fallback=BERLIN)))
    wish = Wish(Caller("ann", "ann", SHARED), "no need to wait")
    await editing.carry_out(it.conductor, it.store, Rules(), it.clock, wanted, wish)
    await it.advance(rollout)
    assert await offered(it, rollout) == {"d000"}
