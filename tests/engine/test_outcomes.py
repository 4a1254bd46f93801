"""What hellos show of updates, on a real store: rollbacks without a report, drift, and that reports have the word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import msgspec
import pytest

from orchestrator.core.model import Delivery, Phase, Rollout, Update, UpdateState
from orchestrator.core.update import Fact, FactKind
from orchestrator.engine.insight import explain
from orchestrator.engine.reports.folding import Recorded, fold
from orchestrator.engine.reports.recording import record_silence
from orchestrator.engine.rollouts import operations
from orchestrator.engine.rollouts.operations import NewDevice
from orchestrator.ports import DeliveryState, Lane, Tx
from orchestrator.wire.report import Hello, Kind, OwnFacts, Report
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant, make_report, stock

S = UpdateState
INSTALLS = (Kind.ACCEPTED, Kind.DOWNLOADED, Kind.INSTALLED)


def hello(rel: int, boot: str = "b2", boots: int | None = 11, **changes: Any) -> Hello:
    return Hello(1, "d000", "m1", f"{rel}.0.0" if rel else "", rel, boot, boots, **changes)


async def installing(it: Plant, said: Sequence[Kind] = INSTALLS, **changes: Any) -> Rollout:
    """Let one device that ran release counter 1 get as far as it says."""
    await it.enrol(1)
    rollout = await it.running(make_plan((REST,), (0.9,), **changes))
    [update] = await it.updates(rollout)
    for number, kind in enumerate(said):
        boot = {"boot": "b2", "boots": 11, "rel": 2} if kind is Kind.RUNNING else {"boot": "b1", "boots": 10, "rel": 1}
        await it.record(make_report(update, kind, number, **boot))
    return rollout


async def stands(it: Plant, rollout: Rollout) -> tuple[S, str]:
    [found] = await it.updates(rollout)
    await it.tallies_hold(rollout)
    return found.state, found.code


async def past_deadline(it: Plant, rollout: Rollout) -> tuple[S, str]:
    [found] = await it.updates(rollout)
    assert found.deadline_at is not None
    it.clock.advance(found.deadline_at - it.clock())
    await silence(it)
    return await stands(it, rollout)


async def silence(it: Plant) -> Recorded:
    return await it.store.transact(Lane.REPORTS, lambda tx: record_silence(tx, it.clock(), 100))


@pytest.mark.parametrize(
    ("said", "seen", "state", "code"),
    [
        (INSTALLS, [], S.LOST, ""),
        (INSTALLS, [hello(1, boots=12)], S.ROLLED_BACK, "booted_twice"),
        (INSTALLS, [hello(1)], S.FAILED, "never_ran"),
        (INSTALLS, [hello(1, boots=None)], S.FAILED, "never_ran"),
        (INSTALLS[:2], [hello(1)], S.FAILED, "never_ran"),
        (INSTALLS[:2], [], S.EXPIRED, ""),
        # it has not booted yet: what it runs shows nothing
        (INSTALLS, [hello(1, "b1", 10)], S.LOST, ""),
        (INSTALLS, [hello(0)], S.LOST, ""),
        # it ran the release, and does no more, by its own word or by its hello
        ((*INSTALLS, Kind.RUNNING), [hello(1, "b3")], S.ROLLED_BACK, "ran_it"),
        (INSTALLS, [hello(2), hello(1, "b3", None)], S.ROLLED_BACK, "ran_it"),
        (INSTALLS, [hello(2), hello(1, "b3", None), hello(1, "b4", None)], S.ROLLED_BACK, "ran_it"),
        # it came up once more, and then fell silent
        (INSTALLS, [hello(2)], S.LOST, "on_trial"),
        (INSTALLS, [hello(1), hello(2, "b3", 12)], S.LOST, "on_trial"),
    ],
)
async def test_what_a_device_ran_last_is_judged_at_the_deadline(
    it: Plant, said: Sequence[Kind], seen: Sequence[Hello], state: S, code: str
) -> None:
    rollout = await installing(it, said)
    before, _ = await stands(it, rollout)
    for item in seen:
        it.clock.advance(1)
        await it.record(hellos=[item])
        assert (await stands(it, rollout))[0] is before  # its own word may still come
    assert await past_deadline(it, rollout) == (state, code)


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (hello(7), "third_release"),
        (hello(2, "b9", 14, facts=OwnFacts(uptime=20)), "boots_again"),
    ],
)
async def test_what_no_report_could_change_counts_at_once(it: Plant, seen: Hello, code: str) -> None:
    rollout = await installing(it)
    await it.record(hellos=[seen])
    assert await stands(it, rollout) == (S.FAILED, code)


@pytest.mark.parametrize(
    ("seen", "state", "code"),
    [
        (hello(2, facts=OwnFacts(uptime=600)), S.CONFIRMED, "stayed"),
        (hello(2, facts=OwnFacts(uptime=599)), S.FAILED, "not_healthy"),
        (hello(2), S.FAILED, "not_healthy"),
        (hello(2, "b1", 10, facts=OwnFacts(uptime=900)), S.FAILED, "never_booted"),
        (hello(1), S.FAILED, "never_ran"),
        (hello(1, boots=12), S.ROLLED_BACK, "booted_twice"),
    ],
)
async def test_a_hello_after_the_deadline_decides(it: Plant, seen: Hello, state: S, code: str) -> None:
    rollout = await installing(it)
    [update] = await it.updates(rollout)
    it.clock.advance((update.deadline_at or 0.0) - it.clock())
    await it.record(hellos=[seen])
    assert await stands(it, rollout) == (state, code)


async def test_who_did_not_say_what_it_ran_before_is_judged_by_silence_alone(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running(make_plan((REST,), (0.9,)))
    [update] = await it.updates(rollout)
    await it.record(make_report(update, Kind.INSTALLED, rel=None))
    await it.record(hellos=[hello(1, boots=12), hello(7)])
    assert await past_deadline(it, rollout) == (S.LOST, "")


async def speaks(it: Plant, dialect: str) -> None:
    """Let one device that ran release counter 1 speak this, when it is registered."""
    new = NewDevice("d000", "m1", (), "1.0.0", 1, dialect=dialect, enforces=("swupdate",))

    def work(tx: Tx) -> None:
        stock(tx)
        [artifact] = tx.artifacts()
        tx.restate(replace(artifact, signature="swupdate"))
        operations.enrol(tx, [new], it.clock())

    await it.write(work)


async def test_who_verifies_nothing_and_runs_the_release_is_not_waited_for(it: Plant) -> None:
    await speaks(it, "ddi")
    rollout = await it.running(make_plan((REST,), delivery=Delivery.POLL))
    await it.seal()
    await it.record(hellos=[hello(1)])
    assert await stands(it, rollout) == (S.OFFERED, "")
    await it.record(hellos=[hello(2)])
    assert await stands(it, rollout) == (S.SUPERSEDED, "current")
    [update] = await it.updates(rollout)
    parcels = await it.store.read(lambda tx: tx.parcels(update.id))
    assert {item.state for item in parcels} == {DeliveryState.VOID}
    assert (await it.advance(rollout)).phase is not Phase.RUNNING


async def test_what_a_device_that_verifies_triggers_began_unheard_still_counts(it: Plant) -> None:
    """Its hello comes before the reports of what it did while it was away."""
    await it.enrol(1)
    rollout = await it.running(make_plan((REST,)))
    await it.send()
    await it.record(hellos=[hello(2)])
    assert await stands(it, rollout) == (S.OFFERED, "")
    [update] = await it.updates(rollout)
    for report in story(update, well=False):
        await it.record(report)
    assert (await stands(it, rollout))[0] is S.ROLLED_BACK


@pytest.mark.parametrize("rel", [2, 3])
async def test_who_runs_the_release_by_now_is_not_offered_it(it: Plant, rel: int) -> None:
    await it.enrol(2)
    rollout = await it.running(make_plan((REST,), in_flight=1))
    [waits] = [item for item in await it.updates(rollout) if item.state is S.PENDING]
    [first] = [item for item in await it.updates(rollout) if item.state is S.OFFERED]
    await it.record(hellos=[msgspec.structs.replace(hello(rel), dev=waits.device_id)])
    await it.send()
    await it.confirm([first])
    await it.advance(rollout)
    states = {item.id: (item.state, item.code) for item in await it.updates(rollout)}
    assert states == {first.id: (S.CONFIRMED, ""), waits.id: (S.SUPERSEDED, "current")}
    await it.tallies_hold(rollout)


def story(update: Update, *, well: bool) -> list[Report]:
    """Return what a device says of its attempt, in its order."""
    before = [make_report(update, kind, n, boot="b1", boots=10, rel=1) for n, kind in enumerate(INSTALLS)]
    if well:
        new = {"boot": "b2", "boots": 11, "rel": 2}
        return [
            *before,
            *(make_report(update, kind, n, **new) for n, kind in enumerate((Kind.RUNNING, Kind.CONFIRMED))),
        ]
    back = make_report(update, Kind.ROLLED_BACK, boot="b3", boots=12, rel=1, code="self_test_crash")
    return [*before, make_report(update, Kind.RUNNING, boot="b2", boots=11, rel=2), back]


@pytest.mark.parametrize("well", [True, False])
async def test_in_no_order_does_a_hello_contradict_a_report(it: Plant, well: bool) -> None:
    seen = [hello(1, "b1", 10), hello(2), hello(2, "b2", 11) if well else hello(1, "b3", 12)]
    ends = (S.CONFIRMED, "") if well else (S.ROLLED_BACK, "self_test_crash")
    orders = list(permutations(range(7)))[::21]
    await it.enrol(len(orders))
    rollout = await it.running(make_plan((REST,), (0.9,)))
    waiting = await it.updates(rollout, S.PENDING)
    await it.write(lambda tx: fold(tx, [(item, Fact(FactKind.OFFER)) for item in waiting], it.clock(), Recorded()))
    updates = await it.updates(rollout, S.OFFERED)
    told = {item.id: story(item, well=well) for item in updates}
    await it.record(*(told[item.id][0] for item in updates))
    for step in range(7):
        reports, hellos = [], []
        for update, order in zip(updates, orders, strict=True):
            if order[step] < 4:
                reports.append(told[update.id][1 + order[step]])
            else:
                hellos.append(msgspec.structs.replace(seen[order[step] - 4], dev=update.device_id))
        await it.record(*reports, hellos=hellos)
    assert Counter((item.state, item.code) for item in await it.updates(rollout)) == {ends: len(orders)}
    await it.tallies_hold(rollout)


# Drift after health


async def confirmed(it: Plant) -> tuple[Rollout, Update]:
    await it.enrol(2)
    rollout = await it.running(make_plan((1, REST), (0.1, 0.9)))
    [update] = await it.updates(rollout)
    await it.confirm([update])
    return rollout, update


async def test_who_was_healthy_and_runs_something_else_drifted(it: Plant) -> None:
    rollout, update = await confirmed(it)
    said = Hello(1, update.device_id, "m1", "1.0.0", 1, "b7")
    await it.record(hellos=[said])
    assert await stands(it, rollout) == (S.FAILED, "drifted")
    view = await it.store.read(lambda tx: explain.explain_device(tx, update.device_id, it.clock(), hearing=True))
    assert view["rollouts"][0]["because"] == "it failed: drifted"


@pytest.mark.parametrize(
    "said",
    [
        {"ver": "2.0.0", "rel": 2, "boot": "b7"},  # it runs it
        {"ver": "1.0.0", "rel": 1, "boot": "b1"},  # the boot that it reported in
        {"ver": "1.0.0", "rel": 1},  # no boot, no proof that it is later
        {"boot": "b7"},  # it does not say what it runs
    ],
)
async def test_what_is_no_proof_of_drift_is_none(it: Plant, said: dict[str, Any]) -> None:
    rollout, update = await confirmed(it)
    await it.record(hellos=[Hello(1, update.device_id, "m1", **said)])
    assert await stands(it, rollout) == (S.CONFIRMED, "")


async def test_whom_a_newer_rollout_took_on_did_not_drift(it: Plant) -> None:
    rollout, update = await confirmed(it)
    newer = await it.running(make_plan((REST,), (0.9,), name="summer", release="radio-3.0.0"), rel=3)
    [mine] = [item for item in await it.updates(newer) if item.device_id == update.device_id]
    await it.confirm([mine])
    await it.record(hellos=[Hello(1, update.device_id, "m1", "3.0.0", 3, "b9")])
    assert (await stands(it, rollout))[0] is S.CONFIRMED
