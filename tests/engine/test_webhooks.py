"""Events on their way: none lost, in order, the same when they come again, and nobody waits for a dead destination.

Rules:
- Destinations are real HTTP servers on loopback; only time is moved.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as Yardstick

from orchestrator.adapters.webhooks import HttpPoster
from orchestrator.core.model import DAEMON, UpdateState
from orchestrator.core.rollout import Command
from orchestrator.core.trust.expiry import Expiry, Notice
from orchestrator.core.trust.roles import SHARED, Caller
from orchestrator.engine.events import courier as courier_module
from orchestrator.engine.events import notices, webhooks
from orchestrator.engine.events.courier import LONGEST_PAUSE_S, PATIENCE_S, Courier, pause_s
from orchestrator.engine.events.notices import LOST_AFTER_S, LinkWatch
from orchestrator.engine.events.webhooks import MOST, MQTT, Made
from orchestrator.errors import ConflictError, NotFoundError, RequestError, TrustError
from orchestrator.ports import Reply, Tx, Webhook, WebhookState
from orchestrator.wire import topics
from tests.support.builders import REST, make_plan
from tests.support.factory import Plant
from tests.support.receiver import Receiver, receiver

ADMIN = Caller("root@local", "", SHARED, local=True)
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


class Office:
    """A courier over a plant, which may die and come back.

    Attributes:
        plant: the engine behind it.
    """

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self.courier = self._courier()

    def _courier(self) -> Courier:
        plant = self.plant
        return Courier(plant.store, HttpPoster(LOOPBACK), plant.bus, "my-fleet", plant.clock, lambda: 1.0)

    async def restart(self) -> None:
        await self.plant.restart()
        self.courier = self._courier()

    async def add(self, url: str, *wanted: str) -> Made:
        made: Made = await self.plant.write(
            lambda tx: webhooks.add(tx, url, wanted or ("*",), ADMIN, self.plant.clock())
        )
        return made

    async def bring(self) -> None:
        """Bring all that is due now."""
        while True:
            before = dict(self.courier._places), dict(self.courier.counts)
            await self.courier.bring_due()
            if (dict(self.courier._places), dict(self.courier.counts)) == before:
                return

    async def get(self, made: Made) -> Webhook:
        found = await self.plant.store.read(lambda tx: tx.webhook(made.webhook.id))
        assert found is not None
        return found

    async def note(self, *names: str) -> None:
        """Let something happen."""
        for name in names:
            await self.plant.write(
                lambda tx, name=name: tx.audit("ann", "rollout.edited", name, {"version": 2}, self.plant.clock())
            )


@asynccontextmanager
async def office(folder: Path) -> AsyncIterator[Office]:
    plant = Plant(folder)
    try:
        yield Office(plant)
    finally:
        await plant.close()


def objects(there: Receiver) -> list[str]:
    return [got.event["data"]["object"] for got in there.got]


async def test_a_rollout_is_told_of_from_draft_to_halt(tmp_path: Path) -> None:
    async with office(tmp_path) as it, receiver() as there:
        made = await it.add(there.url, "rollout.*")
        await it.plant.enrol(4)
        rollout = await it.plant.running(make_plan(name="spring"))
        await it.plant.command(rollout, Command.HALT)
        await it.bring()
        assert there.types == ["rollout.created", "rollout.preparing", "rollout.running", "rollout.halted"]
        halted = there.got[-1].event
        assert halted["deployment"] == "my-fleet"
        assert halted["data"]["object"] == "spring"
        assert (halted["data"]["before"], halted["data"]["actor"]) == ("running", "ann")
        assert halted["data"]["reason"] == "because"
        for got in there.got:
            assert int(got.headers["webhook-timestamp"]) == int(it.plant.clock())
            sent = got.headers | {"webhook-id": got.id}
            signed = Yardstick(made.secret).sign(got.id, _utc(it.plant.clock()), got.body.decode())
            assert sent["webhook-signature"] == signed
        assert (await it.get(made)).delivered == 4


async def test_a_gate_that_asks_is_told_of_once_and_so_is_the_stage_that_passes(tmp_path: Path) -> None:
    async with office(tmp_path) as it, receiver() as there:
        await it.add(there.url, "rollout.asks", "rollout.stage_passed", "rollout.noted", "rollout.done")
        await it.plant.enrol(20)
        plan = make_plan((10, REST), (0.9, 0.9))
        plan = replace(plan, stages=(replace(plan.stages[0], approve=True), plan.stages[1]))
        rollout = await it.plant.running(plan)
        await it.plant.send()
        await it.plant.confirm(await it.plant.updates(rollout, UpdateState.OFFERED))
        for _ in range(3):
            rollout = await it.plant.advance(rollout)
            it.plant.clock.advance(3600.0)
        assert rollout.stage == 0
        await it.plant.command(rollout, Command.ADVANCE)
        rollout = await it.plant.advance(rollout)
        await it.bring()
        assert there.types == ["rollout.asks", "rollout.noted", "rollout.stage_passed"]
        asks, noted, passed = (got.event["data"] for got in there.got)
        assert asks["stage"] == 0
        assert "ota rollout advance" in asks["reason"]
        assert (noted["before"], noted["phase"], noted["code"]) == ("running", "running", "operator_advance")
        assert (passed["passed"], passed["stage"], rollout.stage) == (0, 1, 1)


async def test_only_what_is_wanted_and_only_from_then_on(tmp_path: Path) -> None:
    async with office(tmp_path) as it, receiver() as there, receiver() as other:
        await it.note("before")
        await it.add(there.url, "rollout.edited")
        await it.add(other.url, "devices.*", "rollout.halted")
        await it.note("after")
        await it.bring()
        assert objects(there) == ["after"]
        assert other.got == []


async def test_a_crash_between_answer_and_commit_repeats_the_same_identifier(tmp_path: Path) -> None:
    async with office(tmp_path) as it, receiver() as there:
        await it.add(there.url, "rollout.*")
        await it.note("a", "b", "c")
        it.plant.store.breaks = _after(1)  # b has come, and nobody could store that
        with pytest.raises(ConnectionError):
            await it.courier.bring_due()
        await it.restart()
        await it.note("d")
        await it.bring()
    assert objects(there) == ["a", "b", "b", "c", "d"]
    assert there.ids[1] == there.ids[2]
    assert there.got[1].body == there.got[2].body
    assert len(set(there.ids)) == 4


async def test_a_destination_that_is_away_gets_everything_later_in_order(tmp_path: Path) -> None:
    async with office(tmp_path) as it, receiver() as there:
        made = await it.add(there.url, "rollout.*")
        there.status = 503
        await it.note("a", "b")
        await it.bring()
        found = await it.get(made)
        assert (found.failures, found.error, found.next_at) == (1, "it answered 503", it.plant.clock() + 5.0)
        await it.bring()
        assert objects(there) == ["a"], "it is not tried before its time"
        await it.note("c")
        there.status = 200
        it.plant.clock.advance(5.0)
        await it.bring()
        found = await it.get(made)
    assert objects(there) == ["a", "a", "b", "c"]
    assert (found.failures, found.error, found.next_at, found.delivered) == (0, "", None, 3)


def test_pauses_grow_to_an_hour_and_are_scattered() -> None:
    assert [pause_s(failures, 1.0) for failures in (1, 2, 3, 10, 11, 10_000)] == [5, 10, 20, 2560, 3600, 3600]
    assert pause_s(1, 0.0) == 2.5


def test_a_pause_is_not_shorter_than_is_wanted_and_never_longer_than_an_hour() -> None:
    assert [pause_s(1, 0.0, wanted_s) for wanted_s in (0.0, 2.0, 90.0, 1e30)] == [2.5, 2.5, 90.0, LONGEST_PAUSE_S]
    assert pause_s(10, 1.0, 90.0) == 2560


@pytest.mark.parametrize(
    ("status", "said", "waits_s"),
    [
        (503, "120", 120.0),
        (429, "120", 120.0),
        (503, "{date}", 120.0),
        (429, "1", 5.0),
        (503, "99999999", LONGEST_PAUSE_S),
        (503, "soon", 5.0),
        (500, "120", 5.0),
    ],
)
async def test_who_says_when_to_come_again_is_not_tried_before(
    tmp_path: Path, status: int, said: str, waits_s: float
) -> None:
    async with office(tmp_path) as it, receiver() as there:
        made = await it.add(there.url, "rollout.*")
        date = format_datetime(_utc(it.plant.clock() + 120.0), usegmt=True)
        there.status, there.extra = status, f"Retry-After: {said.format(date=date)}\r\n"
        await it.note("a")
        await it.bring()
        assert (await it.get(made)).next_at == pytest.approx(it.plant.clock() + waits_s, abs=1.0)
        there.status, there.extra = 204, ""
        it.plant.clock.advance(waits_s - 2.0)
        await it.bring()
        assert len(there.got) == 1
        it.plant.clock.advance(2.0)
        await it.bring()
        assert objects(there) == ["a", "a"]
        assert (await it.get(made)).next_at is None


async def test_who_is_gone_is_not_tried_however_it_says_when_to_come_again(tmp_path: Path) -> None:
    async with office(tmp_path) as it, receiver() as there:
        made = await it.add(there.url, "rollout.*")
        there.status, there.extra = 410, "Retry-After: 1\r\n"
        await it.note("a")
        await it.bring()
        found = await it.get(made)
    assert (found.state, found.next_at) == (WebhookState.DISABLED, None)


async def test_who_fails_for_a_day_is_marked_once_told_of_and_tried_on(tmp_path: Path) -> None:
    async with office(tmp_path) as it, receiver() as dead, receiver() as alive:
        made = await it.add(dead.url, "rollout.*")
        await it.add(alive.url, "webhook.*")
        dead.status = 500
        await it.note("a")
        began = it.plant.clock()
        while it.plant.clock() - began <= PATIENCE_S + 2 * LONGEST_PAUSE_S:
            await it.bring()
            it.plant.clock.advance(LONGEST_PAUSE_S)
        found = await it.get(made)
        assert found.state is WebhookState.FAILING
        assert it.courier.view()["states"] == {"failing": 1, "active": 1}
        assert alive.types == ["webhook.failing"]
        assert alive.got[0].event["data"] == {
            "reason": "it answered 500",
            "object": made.webhook.id,
            "actor": DAEMON,
        }
        dead.status = 200
        it.plant.clock.advance(LONGEST_PAUSE_S)
        await it.bring()
        await it.bring()
        assert (await it.get(made)).state is WebhookState.ACTIVE
        assert alive.types == ["webhook.failing", "webhook.recovered"]
        assert set(objects(dead)) == {"a"}
        assert 24 <= len(dead.got) <= 48, "it was tried all the while, and not more than need be"


async def test_a_dead_destination_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier_module, "ANSWER_S", 0.2)
    async with office(tmp_path) as it, receiver() as dead, receiver() as alive:
        dead.hangs = True
        made = await it.add(dead.url, "rollout.*")
        await it.add(alive.url, "rollout.*")
        await it.note(*"abc")
        await it.courier.bring_due()
        assert objects(alive) == ["a", "b", "c"]
        assert objects(dead) == ["a"]
        assert (await it.get(made)).error == "no answer within 0 s"


async def test_410_ends_it_until_a_person_wants_it_back(tmp_path: Path) -> None:
    async with office(tmp_path) as it, receiver() as there:
        made = await it.add(there.url, "rollout.*")
        there.status = 410
        await it.note("a")
        await it.bring()
        there.status = 200
        it.plant.clock.advance(PATIENCE_S)
        await it.note("b")
        await it.bring()
        assert objects(there) == ["a"]
        assert (await it.get(made)).state is WebhookState.DISABLED
        with pytest.raises(ConflictError, match="is disabled"):
            await it.plant.write(lambda tx: webhooks.test(tx, made.webhook.id, ADMIN, 0.0))
        await it.plant.write(lambda tx: webhooks.resume(tx, made.webhook.id, ADMIN, it.plant.clock()))
        await it.bring()
        assert objects(there) == ["a", "a", "b"]


async def test_what_it_refuses_for_ever_can_be_skipped(tmp_path: Path) -> None:
    async with office(tmp_path) as it, receiver() as there:
        made = await it.add(there.url, "rollout.*")
        there.status = 400
        await it.note("a", "b")
        await it.bring()
        await it.plant.write(lambda tx: webhooks.resume(tx, made.webhook.id, ADMIN, it.plant.clock(), skip=True))
        there.status = 200
        await it.note("c")
        await it.bring()
    assert objects(there) == ["a", "c"]


async def test_a_redirection_is_a_failure(tmp_path: Path) -> None:
    async with office(tmp_path) as it, receiver() as there, receiver() as other:
        made = await it.add(there.url, "rollout.*")
        there.status, there.extra = 307, f"Location: {other.url}\r\n"
        await it.note("a")
        await it.bring()
        assert (await it.get(made)).error == "it answered 307"
    assert other.got == []


async def test_two_secrets_sign_while_one_takes_the_place_of_the_other(tmp_path: Path) -> None:
    async with office(tmp_path) as it, receiver() as there:
        made = await it.add(there.url, "rollout.*")
        again = await it.plant.write(lambda tx: webhooks.rotate(tx, made.webhook.id, 2.0, ADMIN, it.plant.clock()))
        assert again.secret != made.secret
        await it.note("a")
        await it.bring()
        at = _utc(it.plant.clock())
        both = [Yardstick(each.secret).sign(there.ids[0], at, there.got[0].body.decode()) for each in (again, made)]
        assert there.got[0].headers["webhook-signature"].split() == both
        it.plant.clock.advance(2 * 3600.0)
        await it.note("b")
        await it.bring()
        (only,) = there.got[1].headers["webhook-signature"].split()
        assert only == Yardstick(again.secret).sign(there.ids[1], _utc(it.plant.clock()), there.got[1].body.decode())


async def test_a_secret_that_was_replaced_signs_nothing_more_of_what_was_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with office(tmp_path) as it, receiver() as there:
        made = await it.add(there.url, "rollout.*")
        await it.note("a", "b")
        secrets, post = [made.secret], it.courier._poster.post

        async def replacing(url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
            reply = await post(url, body, headers)
            again = await it.plant.write(lambda tx: webhooks.rotate(tx, made.webhook.id, 0, ADMIN, it.plant.clock()))
            secrets.append(again.secret)
            return reply

        monkeypatch.setattr(it.courier._poster, "post", replacing)
        await it.courier.bring_due()
        at = _utc(it.plant.clock())
        signed = [Yardstick(secrets[n]).sign(got.id, at, got.body.decode()) for n, got in enumerate(there.got)]
    assert len(there.got) == 2
    assert [got.headers["webhook-signature"] for got in there.got] == signed


async def test_a_test_goes_to_the_one_that_is_tried_alone(tmp_path: Path) -> None:
    async with office(tmp_path) as it, receiver() as there, receiver() as other:
        made = await it.add(there.url, "devices.*")
        await it.add(other.url, "*")
        n = await it.plant.write(lambda tx: webhooks.test(tx, made.webhook.id, ADMIN, it.plant.clock()))
        await it.bring()
        assert there.types == ["webhook.test"]
        assert other.got == []
        assert (await it.get(made)).cursor == n


async def test_events_go_over_mqtt_too_and_wait_for_the_broker(tmp_path: Path) -> None:
    async with office(tmp_path) as it:
        made = await it.add(MQTT)
        assert made.secret == ""
        it.plant.bus.go_down()
        await it.note("a")
        await it.bring()
        assert (await it.get(made)).failures == 0, "a broker that is away is no failure"
        it.plant.bus.come_up()
        it.plant.bus.lose_acks_after = 0
        await it.bring()
        it.plant.bus.come_up()
        it.plant.clock.advance(5.0)
        await it.bring()
        first, second = it.plant.bus.published
        assert first == second, "it comes again as it was"
        assert first[0] == "ota/v1/events/rollout/edited" == topics.event("rollout.edited")
        assert json.loads(first[1])["data"]["object"] == "a"
        assert it.plant.bus.retained == {}
        with pytest.raises(RequestError, match="not signed"):
            await it.plant.write(lambda tx: webhooks.rotate(tx, made.webhook.id, 0, ADMIN, 0.0))


async def test_a_removed_destination_hears_nothing_more(tmp_path: Path) -> None:
    async with office(tmp_path) as it, receiver() as there:
        made = await it.add(there.url, "rollout.*")
        await it.note("a")
        await it.plant.write(lambda tx: webhooks.remove(tx, made.webhook.id, ADMIN, 0.0))
        await it.bring()
        assert there.got == []
        with pytest.raises(NotFoundError):
            await it.plant.write(lambda tx: webhooks.remove(tx, made.webhook.id, ADMIN, 0.0))


async def test_a_clock_that_was_set_back_keeps_nobody_waiting_for_it(tmp_path: Path) -> None:
    async with office(tmp_path) as it, receiver() as there:
        await it.add(there.url, "rollout.*")
        there.status = 500
        await it.note("a")
        await it.bring()
        there.status = 200
        it.plant.clock.advance(-10 * 86_400.0)
        await it.bring()
    assert objects(there) == ["a", "a"]


async def test_much_of_no_interest_moves_the_place_on(tmp_path: Path) -> None:
    async with office(tmp_path) as it, receiver() as there:
        made = await it.add(there.url, "rollout.*")

        def much(tx: Tx) -> None:
            for at in range(courier_module.KEPT_EVERY + courier_module.PAGE):
                tx.audit("daemon", "deliveries.sealed", f"seq {at}", {}, 0.0)

        await it.plant.write(much)
        await it.bring()
        assert (await it.get(made)).cursor >= made.webhook.cursor + courier_module.KEPT_EVERY
        assert it.courier.view()["waiting"] <= courier_module.PAGE
        assert there.got == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://hooks.example.net/",
        "https://",
        "https://user:word@hooks.example.net/",
        "https://hooks.example.net/#part",
        "https://hooks.example.net\\@evil.example/",
        "https://hooks.example.net/ x",
        "https://hooks.example.net:99999/",
        "https://169.254.169.254/",
        "https://metadata.google.internal/",
        "https://0x7f.1/",
        "https://[::ffff:10.0.0.1]/",
        "mqtt://broker",
        "https://hooks.example.net/" + "a" * 1024,
    ],
)
async def test_what_is_no_address_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(RequestError, match="the address of a webhook"):
        webhooks.check_url(url)


async def test_there_are_not_too_many_and_none_twice(tmp_path: Path) -> None:
    async with office(tmp_path) as it:
        for at in range(MOST):
            made = await it.add(f"https://hooks.example.net/{at}")
        with pytest.raises(ConflictError, match="remove one first"):
            await it.add("https://hooks.example.net/more")
        await it.plant.write(lambda tx: webhooks.remove(tx, made.webhook.id, ADMIN, 0.0))
        with pytest.raises(ConflictError, match="has this address"):
            await it.add("https://hooks.example.net/7")


async def test_no_secret_enters_the_audit_log(tmp_path: Path) -> None:
    async with office(tmp_path) as it:
        made = await it.add("https://hooks.example.net/T0/secret-path?token=secret-word")
        again = await it.plant.write(lambda tx: webhooks.rotate(tx, made.webhook.id, 1, ADMIN, 0.0))
        await it.plant.write(lambda tx: webhooks.remove(tx, made.webhook.id, ADMIN, 0.0))
        entries = await it.plant.store.read(lambda tx: tx.audit_entries(0, 100))
    told = " ".join(entry.detail + entry.object for entry in entries)
    for secret in (made.secret, again.secret, "secret-path", "secret-word"):
        assert secret not in told


async def test_a_refusal_by_the_watch_is_told_once_and_one_to_a_person_always(tmp_path: Path) -> None:
    error = TrustError("the bytes are others", code="hash_mismatch")
    async with office(tmp_path) as it, receiver() as there:
        await it.add(there.url, "artifact.*")
        for actor in (DAEMON, DAEMON, "ann", "ann"):
            await it.plant.write(lambda tx, who=actor: notices.tell_refusal(tx, "s3://b/fw", error, who, 0.0))
            await it.restart()
        await it.bring()
    assert [got.event["data"]["actor"] for got in there.got] == [DAEMON, "ann", "ann"]
    assert there.got[0].event["data"]["code"] == "hash_mismatch"


async def test_what_ends_is_told_once_for_each_threshold(tmp_path: Path) -> None:
    key = Expiry("trigger key", 1_800_100_000.0)
    async with office(tmp_path) as it, receiver() as there:
        await it.add(there.url, "expiry.*")
        for threshold in (7, 7, 1, 0, 0):
            await it.plant.write(lambda tx, days=threshold: notices.tell_expiry(tx, Notice(key, days), 0.0))
            await it.restart()
        await it.bring()
    assert there.types == ["expiry.near", "expiry.near", "expiry.expired"]
    assert [got.event["data"]["threshold_days"] for got in there.got] == [7, 1, 0]


async def test_a_link_that_is_lost_for_long_is_told_of_and_so_is_its_return(tmp_path: Path) -> None:
    async with office(tmp_path) as it, receiver() as there:
        await it.add(there.url, "link.*")

        def watch() -> LinkWatch:
            return LinkWatch(it.plant.store, it.plant.bus, it.plant.clock)

        link = watch()
        await link.look()
        it.plant.bus.go_down()
        await link.look()
        it.plant.clock.advance(LOST_AFTER_S - 1)
        await link.look()
        it.plant.bus.come_up()
        await link.look()
        it.plant.bus.go_down()
        await link.look()
        it.plant.clock.advance(LOST_AFTER_S)
        await link.look()
        await it.restart()
        it.plant.bus.go_down()
        link = watch()
        for _ in range(2):
            await link.look()
            it.plant.clock.advance(LOST_AFTER_S)
        await it.restart()
        it.plant.bus.come_up()
        for _ in range(2):
            await watch().look()
        await it.bring()
    assert there.types == ["link.lost", "link.back"], "a short loss is no event, and a restart tells nothing twice"
    assert there.got[1].event["data"]["lasted_s"] == 3 * LOST_AFTER_S


def _after(count: int) -> Any:
    """Let so many transactions pass, and all others fail."""
    left = iter(range(count))

    def fail() -> None:
        if next(left, None) is None:
            raise ConnectionError("the process died")

    return fail


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(int(at), UTC)
