"""The recorder: what is acknowledged, when, and what becomes of what cannot be stored."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from orchestrator.core.model import Delivery, Phase, Update, UpdateState
from orchestrator.core.pace.rate import Pace
from orchestrator.core.rollout import Command
from orchestrator.engine.reports.recorder import Recorder, RecorderSettings
from orchestrator.engine.reports.recording import record
from orchestrator.errors import UnavailableError
from orchestrator.wire.report import Hello, Kind, Report, State, encode
from orchestrator.wire.topics import Channel, uplink
from tests.support.builders import REST, make_plan
from tests.support.clock import running, until
from tests.support.factory import Plant, make_report

S = UpdateState


async def offered(it: Plant, count: int = 3) -> list[Update]:
    """Return updates of devices that were sent a trigger."""
    await it.enrol(count)
    rollout = await it.running(make_plan((REST,)))
    await it.send()
    return await it.updates(rollout)


def deliver(it: Plant, *said: Report | Hello | State) -> None:
    channels = {Report: Channel.REPORT, Hello: Channel.HELLO, State: Channel.STATE}
    for item in said:
        it.bus.deliver(uplink(item.dev, channels[type(item)]), encode(item))


async def listened(it: Plant, count: int) -> None:
    """Listen until so many messages were acknowledged in all."""
    async with running(it.recorder.listen()):
        await until(lambda: len(it.bus.acked) >= count)


async def state_of(it: Plant, update: Update) -> str:
    return (await it.store.read(lambda tx: tx.updates([update.id])))[update.id].state.value


# Acknowledging


async def test_nothing_is_acknowledged_before_it_is_on_disk(it: Plant) -> None:
    [update] = await offered(it, 1)
    acked_at_commit: list[int] = []
    it.store.fails, it.store.transactions = 3, 0
    it.store.breaks = lambda: acked_at_commit.append(len(it.bus.acked))
    deliver(it, make_report(update, Kind.ACCEPTED))
    with capture_logs() as logs:
        await listened(it, 1)
    assert it.store.transactions == 4
    assert acked_at_commit == [0]
    assert await state_of(it, update) == S.ACCEPTED
    assert [entry["event"] for entry in logs] == ["store.unavailable"] * 3
    assert it.recorder.counts == {"reports": 1, "acknowledged": 1, "ignored_repeated": 0}


async def test_what_was_stored_but_not_acknowledged_comes_again_and_changes_nothing(it: Plant) -> None:
    [update] = await offered(it, 1)
    deliver(it, make_report(update, Kind.ACCEPTED))
    it.store.breaks = it.bus.go_down  # the link breaks while the transaction runs
    async with running(it.recorder.listen()):
        await until(lambda: it.recorder.counts["acknowledged"] == 1)
        assert it.bus.acked == []
        it.store.breaks = None
        it.bus.come_up()
        await until(lambda: it.bus.acked)
    assert it.recorder.counts["ignored_repeated"] == 1
    assert len(await it.store.read(lambda tx: tx.lines(update.id))) == 1


async def test_a_batch_is_one_transaction_in_the_order_of_arrival(it: Plant) -> None:
    updates = await offered(it, 3)
    kinds = (Kind.ACCEPTED, Kind.DOWNLOADED, Kind.INSTALLED, Kind.FAILED)
    said = [make_report(item, kind, n, code=kind.value) for n, kind in enumerate(kinds) for item in updates]
    deliver(it, *said)
    it.store.transactions = 0
    await listened(it, len(said))
    assert it.store.transactions == 1
    assert [message.payload for message in it.bus.acked] == [encode(item) for item in said]
    found = await it.store.read(lambda tx: tx.updates(item.id for item in updates))
    assert {(item.state, item.code, item.progress) for item in found.values()} == {(S.FAILED, "failed", 100)}


async def test_a_full_batch_is_not_waited_for_and_not_exceeded(it: Plant) -> None:
    it.settings.batch = 2
    await it.restart()
    updates = await offered(it, 3)
    deliver(it, *(make_report(item, Kind.ACCEPTED) for item in updates))
    it.store.transactions = 0
    await listened(it, 3)
    assert it.store.transactions == 2


async def test_changed_rollouts_are_named_after_the_commit(it: Plant) -> None:
    [update] = await offered(it, 1)
    it.conductor._dirty.clear()
    deliver(it, make_report(update, Kind.ACCEPTED))
    await listened(it, 1)
    assert it.conductor._dirty == {update.rollout_id}


# What cannot be stored, or should not


REPORT_OF_D1 = b'{"v":1,"dev":"d001","att":"1.1","boot":"b","n":0,"kind":"failed"}'
BAD_MESSAGES = {
    "bad_topic": ("ota/v1/d/d000/secrets", b"{}", False),
    "malformed": ("ota/v1/d/d000/report", b"{", False),
    "foreign_device": ("ota/v1/d/d000/report", REPORT_OF_D1, False),
    "oversize": ("ota/v1/d/d000/hello", b" " * 3000, False),
    "bad_identifier": ("ota/v1/d/d000/hello", b'{"v":1,"dev":"d000","model":"M 1"}', False),
    "retained": ("ota/v1/d/d001/report", REPORT_OF_D1, True),
}


async def test_what_cannot_be_decoded_is_counted_logged_and_acknowledged(it: Plant) -> None:
    [update] = await offered(it, 1)
    for topic, payload, retained in BAD_MESSAGES.values():
        it.bus.deliver(topic, payload, retained)
    deliver(it, make_report(update, Kind.ACCEPTED))
    with capture_logs() as logs:
        await listened(it, 7)
    refused = {name.removeprefix("refused_") for name in it.recorder.counts if name.startswith("refused_")}
    assert refused == set(BAD_MESSAGES)
    assert [entry["code"] for entry in logs if entry["event"] == "message.refused"] == list(BAD_MESSAGES)
    assert await state_of(it, update) == S.ACCEPTED


async def test_a_cleared_retained_message_is_nobodys_fault(it: Plant) -> None:
    it.bus.deliver("ota/v1/d/d000/report", b"", retained=True)
    await listened(it, 1)
    assert it.recorder.counts == {"acknowledged": 1}


async def test_duplicates_unknown_attempts_and_foreign_devices_change_nothing(it: Plant) -> None:
    one, two, three = await offered(it, 3)
    failed = make_report(one, Kind.ACCEPTED)
    deliver(
        it,
        failed,
        failed,
        make_report(two._replace(id=999), Kind.FAILED),
        make_report(two, Kind.FAILED, dev=three.device_id),
        make_report(three, Kind.FAILED, att=f"{three.id}.2"),
    )
    await listened(it, 5)
    assert [await state_of(it, item) for item in (one, two, three)] == [S.ACCEPTED, S.OFFERED, S.OFFERED]
    counts = it.recorder.counts
    assert (counts["ignored_repeated"], counts["ignored_unknown_attempt"], counts["ignored_other_attempt"]) == (1, 2, 1)


async def test_a_poisoned_piece_does_not_hold_up_the_rest(it: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    updates = await offered(it, 3)
    bad = make_report(updates[1], Kind.ACCEPTED)
    broken = iter([UnavailableError("away for a moment")])

    def poison(record: Callable[..., object]) -> Callable[..., object]:
        def recording(tx: object, batch: object, *args: object, **kwargs: object) -> object:
            reports = batch.reports  # type: ignore[attr-defined]
            if bad in reports:
                raise ZeroDivisionError
            if reports == [make_report(updates[2], Kind.ACCEPTED)]:
                for error in broken:
                    raise error
            return record(tx, batch, *args, **kwargs)

        return recording

    monkeypatch.setattr("orchestrator.engine.reports.recorder.record", poison(record))
    deliver(it, *(make_report(item, Kind.ACCEPTED) for item in updates))
    with capture_logs() as logs:
        await listened(it, 3)
    assert [await state_of(it, item) for item in updates] == [S.ACCEPTED, S.OFFERED, S.ACCEPTED]
    assert it.recorder.counts["poisoned"] == 1
    assert [entry["device"] for entry in logs if entry["event"] == "report.poisoned"] == [bad.dev]


async def test_closed_enrolment_takes_no_strangers(it: Plant) -> None:
    it.settings.enrol = False
    await it.restart()
    await it.enrol(1)
    deliver(it, Hello(1, "d000", "m1", "1.0.0", 1), Hello(1, "stranger", "m1"), State(1, "stranger", True))
    with capture_logs() as logs:
        await listened(it, 3)
    assert await it.store.read(lambda tx: (tx.fleet_size(), tx.device("stranger"))) == (1, None)
    assert [(entry["event"], entry["examples"]) for entry in logs] == [("device.unknown", ["stranger"])]


async def test_open_enrolment_registers_with_the_first_hello(it: Plant) -> None:
    deliver(it, Hello(1, "d7", "m1", "1.0.0", 1), State(1, "d7", True))
    await listened(it, 2)
    device = await it.store.read(lambda tx: tx.device("d7"))
    assert device is not None
    assert (device.model, device.rel, device.online, device.seen_at) == ("m1", 1, True, it.clock())


# Those who say too much


class Slow:
    """A recorder of the plant whose clock for the pace is moved by the test."""

    def __init__(self, it: Plant, pace: Pace) -> None:
        self.at = 0.0
        settings = RecorderSettings(batch=it.settings.batch, pace=pace)
        self.recorder = Recorder(
            it.store, it.bus, settings, it.clock, lambda: True, lambda _: None, ticks=lambda: self.at
        )
        self._it = it

    async def listened(self) -> Counter[str]:
        """Listen until everything is acknowledged; returns what was counted in all."""
        waiting = len(self._it.bus.acked) + self._it.bus.waiting
        async with running(self.recorder.listen()):
            await until(lambda: len(self._it.bus.acked) >= waiting)
        return self.recorder.counts


async def test_a_device_that_says_too_much_loses_progress_first(it: Plant) -> None:
    chatty, calm = await offered(it, 2)
    slow = Slow(it, Pace(burst=3, interval_s=5))
    deliver(it, *(make_report(chatty, Kind.PROGRESS, n, pct=n) for n in range(10)))
    deliver(it, make_report(chatty, Kind.FAILED, 10), make_report(calm, Kind.ACCEPTED))
    with capture_logs() as logs:
        counts = await slow.listened()
    assert (counts["refused_rate"], counts["reports"], counts["acknowledged"]) == (7, 5, 12)
    assert [await state_of(it, item) for item in (chatty, calm)] == [S.FAILED, S.ACCEPTED]
    (line,) = [entry for entry in logs if entry["event"] == "message.refused"]
    assert (line["code"], line["topic"], line["counted"]) == ("rate", f"ota/v1/d/{chatty.device_id}/report", 1)


async def test_a_flood_is_refused_before_it_is_decoded(it: Plant) -> None:
    slow = Slow(it, Pace(burst=2, interval_s=5))
    for _ in range(20):
        it.bus.deliver("ota/v1/d/d1/report", b"rubbish")
    counts = await slow.listened()
    assert (counts["refused_malformed"], counts["refused_rate"], counts["acknowledged"]) == (10, 10, 20)
    slow.at += 5
    for _ in range(2):
        it.bus.deliver("ota/v1/d/d1/report", b"rubbish")
    assert (await slow.listened())["refused_malformed"] == 11


async def test_what_says_who_is_there_has_a_pace_of_its_own(it: Plant) -> None:
    """A device whose link flaps says hello again and again; its report is heard all the same."""
    (update,) = await offered(it, 1)
    slow = Slow(it, Pace(burst=1, interval_s=5))
    deliver(it, *[State(1, update.device_id, True)] * 50, make_report(update, Kind.CONFIRMED))
    counts = await slow.listened()
    assert (counts["refused_rate"], counts["reports"]) == (45, 1)
    assert await state_of(it, update) == S.CONFIRMED


async def test_without_a_burst_nobody_is_held_back(it: Plant) -> None:
    slow = Slow(it, Pace(burst=0))
    deliver(it, *[State(1, "d000", True)] * 300)
    counts = await slow.listened()
    assert (counts["refused_rate"], counts["acknowledged"]) == (0, 300)


# By HTTP


async def test_submitting_returns_after_the_commit(it: Plant) -> None:
    updates = await offered(it, 3)
    it.store.transactions = 0
    async with running(it.recorder.serve()):
        await asyncio.gather(*(it.recorder.submit(make_report(item, Kind.ACCEPTED)) for item in updates))
    assert it.store.transactions == 1
    assert [await state_of(it, item) for item in updates] == [S.ACCEPTED] * 3


async def test_submitting_fails_when_the_store_is_away(it: Plant) -> None:
    [update] = await offered(it, 1)
    it.store.fails = 1
    async with running(it.recorder.serve()):
        with pytest.raises(UnavailableError, match="away"):
            await it.recorder.submit(make_report(update, Kind.ACCEPTED))
        await it.recorder.submit(make_report(update, Kind.ACCEPTED))
    assert await state_of(it, update) == S.ACCEPTED


async def test_submitting_is_refused_when_too_much_waits(it: Plant) -> None:
    it.settings.batch = 1
    await it.restart()
    said = [asyncio.ensure_future(it.recorder.submit(State(1, f"d{at}", True))) for at in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError) as caught:
        await it.recorder.submit(State(1, "d5", True))
    assert caught.value.code == "busy"
    said[0].cancel()
    async with running(it.recorder.serve()):
        await asyncio.gather(*said[1:])


async def test_a_poisoned_submission_does_not_hold_up_the_rest(it: Plant) -> None:
    [update] = await offered(it, 1)
    errors = iter([ZeroDivisionError()])

    def fail_once() -> None:
        for error in errors:
            raise error

    it.store.breaks = fail_once
    async with running(it.recorder.serve()):
        await asyncio.gather(
            it.recorder.submit(State(1, "d000", True)), it.recorder.submit(make_report(update, Kind.ACCEPTED))
        )
    assert await state_of(it, update) == S.ACCEPTED


# Devices that come back


async def test_a_hello_brings_an_unreached_device_back(it: Plant) -> None:
    [update] = await offered(it, 1)
    it.clock.advance(90_000)
    assert await it.recorder.judge_silence_once() == 1
    assert await state_of(it, update) == S.UNREACHED
    done = await it.record(hellos=[Hello(1, "d000", "m1", "1.0.0", 1)])
    assert done.rollouts == {update.rollout_id}
    assert await state_of(it, update) == S.PENDING


async def test_a_hello_brings_nobody_back_into_a_rollout_that_is_over(it: Plant) -> None:
    [update] = await offered(it, 1)
    it.clock.advance(90_000)
    await it.recorder.judge_silence_once()
    await it.command(await it.rollout(update.rollout_id), Command.ABORT)
    await it.record(hellos=[Hello(1, "d000", "m1", "1.0.0", 1)])
    assert await state_of(it, update) == S.UNREACHED


async def test_a_hello_wakes_the_sealer_for_a_trigger_that_was_missed(it: Plant) -> None:
    [update] = await offered(it, 1)
    it.planned.clear()
    hello = Hello(1, "d000", "m1", "1.0.0", 1)
    deliver(it, hello)
    await listened(it, 1)
    assert not it.planned.is_set()  # it was sent a moment ago
    it.clock.advance(10)
    deliver(it, hello)
    await listened(it, 2)
    assert it.planned.is_set()
    it.clock.advance(10)
    deliver(it, hello)
    await listened(it, 3)
    parcels = await it.store.read(lambda tx: tx.parcels(update.id))
    assert [(item.attempt, item.state.value) for item in parcels] == [(1, "sent"), (1, "planned")]
    [(_, again, _)] = await it.send()
    assert again != parcels[0].token.encode()


async def test_a_missed_trigger_is_not_made_again_while_the_rollout_rests(it: Plant) -> None:
    [update] = await offered(it, 1)
    await it.command(await it.rollout(update.rollout_id), Command.PAUSE)
    it.clock.advance(60)
    done = await it.record(hellos=[Hello(1, "d000", "m1", "1.0.0", 1)])
    assert not done.planned
    assert len(await it.store.read(lambda tx: tx.parcels(update.id))) == 1


async def test_a_poll_only_trigger_is_made_again_for_a_poll(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running(make_plan((REST,), delivery=Delivery.POLL))
    await it.seal()
    assert (await it.poll("d000")).token
    it.clock.advance(60)
    done = await it.record(hellos=[Hello(1, "d000", "m1", "1.0.0", 1)])
    assert done.planned
    assert [item.push for item in await it.parcels(rollout)] == [False, False]


async def test_the_release_that_a_device_proves_to_run_is_kept(it: Plant) -> None:
    one, two, three = await offered(it, 3)
    await it.record(
        make_report(one, Kind.CONFIRMED, ver="2.0.0"),
        make_report(two, Kind.ACCEPTED, ver="2.0.0"),
        make_report(three, Kind.ROLLED_BACK, ver="1.0.0", rel=1),
    )
    devices = await it.store.read(lambda tx: tx.devices("", 9))
    by_id = {item.id: (item.version, item.rel) for item in devices}
    assert [by_id[item.device_id] for item in (one, two, three)] == [("2.0.0", 2), ("1.0.0", 1), ("1.0.0", 1)]


async def test_a_device_that_runs_something_else_has_failed(it: Plant) -> None:
    [update] = await offered(it, 1)
    await it.record(make_report(update, Kind.CONFIRMED, rel=1))
    rollout = await it.advance(await it.rollout(update.rollout_id))
    assert await state_of(it, update) == S.FAILED
    assert rollout.phase is Phase.INCONCLUSIVE
    await it.tallies_hold(rollout)


# Silence


async def test_silence_is_judged_by_where_the_device_stands(it: Plant) -> None:
    updates = await offered(it, 4)
    for item, kinds in zip(updates, ((), (Kind.ACCEPTED,), (Kind.INSTALLED,), (Kind.RUNNING,)), strict=True):
        for kind in kinds:
            await it.record(make_report(item, kind))
    it.clock.advance(90_000)
    assert await it.recorder.judge_silence_once() == 1
    assert [await state_of(it, item) for item in updates] == [S.UNREACHED, S.EXPIRED, S.LOST, S.LOST]
    assert await it.recorder.judge_silence_once() == 0


async def test_silence_is_judged_in_pieces(it: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.engine.reports.recorder.SILENCE_CHUNK", 2)
    updates = await offered(it, 5)
    it.clock.advance(90_000)
    assert await it.recorder.judge_silence_once() == 3
    assert [await state_of(it, item) for item in updates] == [S.UNREACHED] * 5


async def test_nobody_is_judged_while_nobody_can_be_heard(it: Plant) -> None:
    [update] = await offered(it, 1)
    it.bus.go_down()
    it.clock.advance(90_000)
    assert await it.recorder.judge_silence_once() == 0
    it.bus.come_up()
    assert await it.recorder.judge_silence_once() == 0
    it.clock.advance(29)
    assert await it.recorder.judge_silence_once() == 0
    it.clock.advance(1)
    assert await it.recorder.judge_silence_once() == 1
    assert await state_of(it, update) == S.UNREACHED


async def test_a_restart_is_a_broken_link(it: Plant) -> None:
    [update] = await offered(it, 1)
    it.clock.advance(90_000)
    await it.restart()
    assert await it.recorder.judge_silence_once() == 0
    it.clock.advance(30)
    assert await it.recorder.judge_silence_once() == 1
    assert await state_of(it, update) == S.UNREACHED


async def test_the_judge_survives_a_store_that_is_away(it: Plant) -> None:
    [update] = await offered(it, 1)
    it.clock.advance(90_000)
    turns = 0

    async def pause(seconds: float) -> None:
        nonlocal turns
        assert seconds == 1.0
        turns += 1
        await asyncio.sleep(0)

    it.store.fails = 2
    with capture_logs() as logs:
        async with running(it.recorder.judge_silence(pause)):
            await until(lambda: turns >= 4)
    assert [entry["event"] for entry in logs] == ["store.unavailable"] * 2
    assert await state_of(it, update) == S.UNREACHED
