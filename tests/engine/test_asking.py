"""Devices that poll: their silence means nothing before they had a chance to speak."""

from __future__ import annotations

from structlog.testing import capture_logs

from orchestrator.core.model import Delivery
from orchestrator.core.targeting.facts import Change
from orchestrator.engine.reports import asking
from orchestrator.engine.reports.asking import FLOOR, LONGEST_S, Asking
from orchestrator.engine.reports.hearing import STALL_S
from orchestrator.engine.targeting import facts, unsigned
from tests.support.builders import make_plan
from tests.support.clock import Clock
from tests.support.factory import Plant

EVERY_S = 300.0
CHANCE_S = 375.0


class Fleet:
    """Devices that poll, each at its own time, and a daemon that looks every second."""

    def __init__(self, size: int) -> None:
        self.size, self.clock = size, Clock(7.0)
        self.asking = Asking(EVERY_S, self.clock)
        self._heard = self.asking()

    def heard(self) -> bool:
        return self._heard

    def go_on(self, seconds: float, size: int | None = None) -> None:
        for _ in range(int(seconds)):
            self.clock.advance(1.0)
            for number in range(self.size if size is None else size):
                if (self.clock.at + 17 * number) % EVERY_S < 1.0:
                    self.asking.note(f"d{number}")
            self._heard = self.asking()


def test_where_nobody_polls_nobody_is_waited_for() -> None:
    fleet = Fleet(0)
    fleet.go_on(1)
    assert fleet.heard() and not fleet.asking.ceased()


def test_whoever_is_on_the_way_at_a_start_gets_the_time_of_a_poll() -> None:
    fleet = Fleet(1)
    fleet.asking.expect(EVERY_S)
    fleet.go_on(CHANCE_S - 1)
    assert not fleet.heard() and not fleet.asking.ceased()
    fleet.go_on(1)
    assert fleet.heard()
    fleet.asking.expect(0.0)
    assert fleet.asking(), "nobody was on the way"


def test_a_fleet_that_ceases_to_ask_is_not_judged_before_it_is_back_and_had_its_chance() -> None:
    fleet = Fleet(40)
    fleet.go_on(3 * CHANCE_S)
    assert fleet.heard()
    with capture_logs() as logs:
        fleet.go_on(CHANCE_S, 0)
        assert not fleet.heard() and fleet.asking.ceased()
        fleet.go_on(10 * CHANCE_S, 0)
        assert fleet.asking.ceased(), "what is usual is not forgotten meanwhile"
        fleet.go_on(CHANCE_S)
        assert not fleet.asking.ceased() and not fleet.heard()
        fleet.go_on(CHANCE_S)
    assert fleet.heard()
    assert [item["event"] for item in logs] == ["polls.ceased", "polls.resumed"]


def test_a_part_of_a_fleet_may_go() -> None:
    fleet = Fleet(40)
    fleet.go_on(3 * CHANCE_S)
    fleet.go_on(3 * CHANCE_S, 30)
    assert fleet.heard()
    fleet.go_on(3 * CHANCE_S, 20)
    assert fleet.heard(), "who goes slowly is not missed all at once"


def test_a_few_devices_prove_nothing_by_their_silence() -> None:
    fleet = Fleet(FLOOR // 2 - 1)
    fleet.go_on(3 * CHANCE_S)
    fleet.go_on(3 * CHANCE_S, 0)
    assert fleet.heard()


def test_who_is_gone_for_a_day_is_gone() -> None:
    fleet = Fleet(40)
    fleet.go_on(3 * CHANCE_S)
    with capture_logs() as logs:
        fleet.go_on(LONGEST_S + CHANCE_S, 0)
    assert fleet.heard() and not fleet.asking.ceased()
    assert [item["event"] for item in logs] == ["polls.ceased", "polls.given_up"]


def test_a_time_in_which_nobody_listened_is_no_silence() -> None:
    fleet = Fleet(3)
    fleet.go_on(CHANCE_S)
    assert fleet.heard()
    fleet.clock.advance(STALL_S + 1)
    assert not fleet.asking()
    fleet.go_on(CHANCE_S)
    assert fleet.heard()


async def test_it_knows_who_is_on_the_way(it: Plant) -> None:
    await it.enrol(2)
    await it.write(lambda tx: facts.change(tx, {"d000": Change(dialect="ddi")}, it.clock(), actor="ann"))
    await it.write(lambda tx: unsigned.settle(tx, "a laboratory", it.clock()))
    assert await it.store.read(asking.on_their_way) == set()
    await it.running(make_plan(name="hybrid"))
    assert await it.store.read(asking.on_their_way) == {"ddi"}


async def test_a_rollout_by_poll_alone_waits_for_all_of_its_devices(it: Plant) -> None:
    await it.enrol(1)
    rollout = await it.running(make_plan(delivery=Delivery.POLL))
    assert await it.store.read(asking.on_their_way) == {"otad"}
    await it.confirm(await it.updates(rollout))
    assert await it.store.read(asking.on_their_way) == set(), "it is home"


def test_each_dialect_has_its_pace() -> None:
    assert asking.longest_s(set(), {"ddi": 60.0}, EVERY_S) == 0.0
    assert asking.longest_s({"ddi"}, {"ddi": 60.0}, EVERY_S) == 60.0
    assert asking.longest_s({"ddi", "pico"}, {"ddi": 60.0}, EVERY_S) == EVERY_S
