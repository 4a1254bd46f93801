"""A move to other addresses: the pure device, and what must hold for it whatever happens on the way."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.sim.events import Beat, Command, Effect, Event, NewKeys, PowerCut, Reached, Tick, Up
from orchestrator.sim.flash import Way
from orchestrator.sim.slots import SlotState
from orchestrator.sim.unit import Phase
from orchestrator.wire.endpoints import MAX_DOCUMENT_BYTES
from orchestrator.wire.report import Kind, Report, decode_hello, decode_report, encode
from tests.sim.issuer import NOW, ORIGIN, Bench, Build, Issuer, profile_with

D = "sim-00000"
ISSUER = Issuer()
NEW, OTHER = "mqtts://new.example.net", "mqtts://other.example.net:8884"
CDN = "https://cdn.example.net"
FIRST = Build.move(1, mqtt=(NEW,), http=("https://new.example.net",))
SECOND = Build.move(2, mqtt=(OTHER,))
FIRMWARE = Build.make("1.1.0", 2, size_bytes=600)
ROAD = [Kind.ACCEPTED, Kind.DOWNLOADED, Kind.INSTALLED, Kind.RUNNING, Kind.CONFIRMED]
BACK = [*ROAD[:-1], Kind.ROLLED_BACK]
ALL = (0, 1, 2)


class Net(Bench):
    """A device in a network: by some addresses it is connected, and by some of these the daemon is heard."""

    def __init__(
        self, build: Build = FIRST, *, reached: Collection[int] = ALL, heard: Collection[int] = ALL, **changes: Any
    ) -> None:
        self.reached = reached
        self.heard = heard
        self.greeted = 0
        super().__init__(profile_with(ISSUER, **changes), build)

    @property
    def hellos(self) -> list[Up]:
        return [effect for effect in self.effects if isinstance(effect, Up)]

    @property
    def way(self) -> Way:
        return self.unit.way

    def advance(self) -> bool:
        if len(self.hellos) > self.greeted and self.unit.phase is not Phase.OFF and self.way.rel in self.reached:
            self.greeted = len(self.hellos)
            self.feed(Reached(self.way.rel))
        elif self.unit.phase is Phase.TRYING and self.way.rel in self.heard and self.way.rel in self.reached:
            self.now += 1
            self.feed(self.beat(self.way.rel))
        else:
            return super().advance()
        return True

    def beat(self, way: int, made_at: float | None = None) -> Beat:
        return Beat(ISSUER.beat(1, 0, self.now if made_at is None else made_at), way)

    def move(self, build: Build, att: str = "1.1", **changes: Any) -> list[Report]:
        self.build = build
        return self.command(ISSUER.install(D, build, att, now=self.now, **changes))

    @property
    def said(self) -> list[Kind]:
        return [kind for kind in self.kinds if kind is not Kind.PROGRESS]


def moved(build: Build = FIRST) -> Net:
    net = Net(build)
    net.move(build)
    net.settle()
    return net


def trying(**network: Any) -> Net:
    """A device whose trial has begun, by addresses at which nothing was heard yet."""
    net = Net(heard=(0,), **network)
    net.move(FIRST)
    net.until(Phase.TRYING)
    return net


# -- the straight road -------------------------------------------------------------------------------


def test_a_device_keeps_addresses_by_which_it_heard_the_daemon() -> None:
    net = moved()
    assert net.said == ROAD
    assert net.unit.flash.way == Way(1, net.way.endpoints)
    assert net.way.endpoints is not None and net.way.endpoints.mqtt == (NEW,)
    assert (net.unit.phase, net.unit.trial, net.unit.flash.attempt) == (Phase.IDLE, None, None)
    assert net.events == ["accepted", "trying", "moved"]


def test_a_move_has_marks_and_counters_of_its_own() -> None:
    net = moved()
    before = Net().unit.flash
    after = net.unit.flash
    assert (after.endpoints.rel, after.endpoints.sha256, after.endpoints.att) == (1, FIRST.sha256, "1.1")
    assert after.endpoints.seq > 0
    assert (after.component, after.slots, after.boots) == (before.component, before.slots, 1)
    assert [report.rel for report in net.reports if report.kind is not Kind.PROGRESS] == [0, 0, 0, 1, 1]
    assert {report.ver for report in net.reports} == {"1.0.0"}
    assert all(decode_report(encode(report), D) == report for report in net.reports)


def test_a_hello_says_which_addresses_the_device_goes_by() -> None:
    net = moved()
    assert [(up.hello.eps, up.hello.rel, up.hello.boots) for up in net.hellos] == [(0, 1, 1), (1, 1, 1)]
    assert all(decode_hello(encode(up.hello), D) == up.hello for up in net.hellos)
    net.feed(PowerCut())
    net.settle()
    assert net.hellos[-1].hello.eps == 1


def test_running_is_said_once_and_only_by_the_new_addresses() -> None:
    net = trying()
    net.feed(Reached(0))
    assert net.said == ROAD[:3]
    net.feed(Reached(1))
    net.feed(Reached(1))
    assert net.said == ROAD[:4]


def test_firmware_and_addresses_follow_one_another() -> None:
    net = moved()
    net.move(FIRMWARE, "2.1")
    net.settle()
    assert (net.unit.running.version, net.way.rel, net.unit.flash.boots) == ("1.1.0", 1, 2)
    slots = net.unit.flash.slots
    net.move(SECOND, "3.1")
    net.settle()
    assert (net.unit.running.version, net.way.rel) == ("1.1.0", 2)
    assert net.unit.flash.slots == slots
    assert [slot.state for slot in slots.pair] == [SlotState.VALID, SlotState.VALID]


def test_the_same_document_under_another_number_is_confirmed_at_once() -> None:
    net = moved()
    said = net.move(Build(FIRST.data, "again", 5, "endpoints"), "2.1")
    assert [(report.kind, report.rel) for report in said] == [(Kind.ACCEPTED, 1), (Kind.CONFIRMED, 5)]
    assert (net.way.rel, net.unit.flash.endpoints.rel, net.hellos[-1].hello.eps) == (5, 5, 5)
    assert net.way.endpoints is not None and net.way.endpoints.mqtt == (NEW,)


def test_origins_of_a_document_replace_those_that_were_provisioned() -> None:
    there = [f"{CDN}/v1/dl/{FIRMWARE.sha256}"]
    net = Net(Build.move(1, mqtt=(NEW,), origins=(CDN,)))
    assert [report.code for report in net.move(FIRMWARE, "1.1", url=there)] == ["url_origin"]
    net.move(Build.move(1, mqtt=(NEW,), origins=(CDN,)), "2.1")
    net.settle()
    assert [report.code for report in net.move(FIRMWARE, "3.1")] == ["url_origin"]
    assert [report.kind for report in net.move(FIRMWARE, "4.1", url=there)] == [Kind.ACCEPTED]


def test_without_origins_in_the_document_the_old_ones_stay() -> None:
    assert moved().unit.identity.allowed_origins == (ORIGIN,)


# -- trials that fail --------------------------------------------------------------------------------


@pytest.mark.parametrize("reached", [(0, 1), (0,)], ids=["nobody behind it", "no way there"])
def test_without_a_beat_the_device_goes_back_and_says_so_there(reached: tuple[int, ...]) -> None:
    net = Net(reached=reached, heard=(0,), trial_s=300.0)
    net.move(FIRST)
    net.until(Phase.TRYING)
    began_at = net.now
    net.settle()
    assert net.now == began_at + 300
    assert net.said == [kind for kind in BACK if kind is not Kind.RUNNING or 1 in reached]
    last = net.reports[-1]
    assert (last.kind, last.code, last.rel) == (Kind.ROLLED_BACK, "endpoint_unreachable", 0)
    assert (net.unit.flash.way, net.unit.flash.endpoints.rel, net.unit.flash.boots) == (Way(), 0, 1)
    assert [up.hello.eps for up in net.hellos] == [0, 1, 0]
    assert net.events == ["accepted", "trying", "moved_back"]


def test_nothing_is_said_of_the_way_back_before_the_old_addresses_are_reached() -> None:
    net = trying()
    net.tick()
    assert net.unit.phase is Phase.RETURNING
    for event in (Reached(1), net.beat(1), Tick()):
        net.feed(event)
    assert net.said == ROAD[:3]
    net.feed(Reached(0))
    assert net.reports[-1].kind is Kind.ROLLED_BACK


def test_from_kept_addresses_a_device_goes_back_to_these() -> None:
    net = moved()
    net.heard = (0, 1)
    net.move(SECOND, "2.1")
    net.settle()
    assert (net.way.rel, net.reports[-1].kind, net.reports[-1].rel) == (1, Kind.ROLLED_BACK, 1)
    assert net.unit.flash.endpoints.rel == 1


def test_another_attempt_may_succeed() -> None:
    net = Net(heard=(0,))
    net.move(FIRST)
    net.settle()
    net.heard = ALL
    net.move(FIRST, "1.2")
    net.settle()
    assert (net.reports[-1].kind, net.reports[-1].att, net.way.rel) == (Kind.CONFIRMED, "1.2", 1)


# -- what is a proof ---------------------------------------------------------------------------------


def test_only_a_fresh_beat_by_the_new_addresses_is_a_proof() -> None:
    net = trying()
    net.feed(Reached(1))
    switched_at, net.now = net.now, net.now + 10
    foreign = Beat(Issuer().beat(1, 0, net.now), 1)
    for beat in (
        net.beat(0),
        net.beat(2),
        net.beat(1, switched_at - 1),
        net.beat(1, switched_at - 90_000),
        foreign,
        Beat(b"", 1),
        Beat(ISSUER.trigger_key.sign({"v": 1}), 1),
    ):
        net.feed(beat)
        assert net.unit.phase is Phase.TRYING
    net.feed(net.beat(1))
    assert (net.unit.phase, net.reports[-1].kind) == (Phase.IDLE, Kind.CONFIRMED)


def test_an_old_beat_proves_nothing_though_a_newer_one_was_heard_elsewhere() -> None:
    net = trying()
    switched_at, net.now = net.now, net.now + 10
    net.feed(net.beat(0))
    assert net.unit.flash.beat_iat >= switched_at
    net.feed(net.beat(1, switched_at - 5))
    assert net.unit.phase is Phase.TRYING


def test_a_beat_of_the_trial_raises_the_floor_too() -> None:
    net = trying()
    net.feed(Beat(ISSUER.beat(900, 800, net.now + 1), 1))
    assert (net.unit.flash.floor, net.way.rel, net.unit.phase) == (800, 1, Phase.IDLE)


def test_new_keys_in_the_middle_of_a_trial_change_who_signs_the_proof() -> None:
    issuer = Issuer()
    net = Bench(profile_with(issuer), FIRST)
    net.command(issuer.install(D, FIRST))
    net.until(Phase.TRYING)
    old = Beat(issuer.beat(1, 0, net.now + 1), 1)
    issuer.epoch = 2
    net.feed(NewKeys(issuer.keyset(2, *issuer.root_keys[:2])))
    assert (net.unit.flash.keyset.ep, net.unit.flash.endpoints.seq) == (2, 0)
    net.feed(old)
    assert net.unit.phase is Phase.TRYING
    net.feed(Beat(issuer.beat(1, 0, net.now + 1), 1))
    assert (net.unit.phase, net.unit.flash.way.rel) == (Phase.IDLE, 1)


# -- documents that are of no use --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "code", "changes"),
    [
        (Build(b"no json", "x", 1, "endpoints"), "malformed", {}),
        (Build(b'{"v":1,"iss":"other","mqtt":["mqtts://a.b"]}', "x", 1, "endpoints"), "foreign_deployment", {}),
        (Build(b'{"v":1,"iss":"fleet","mqtt":["mqtts://A.b"]}', "x", 1, "endpoints"), "bad_address", {}),
        (Build.move(1), "no_address", {}),
        (SECOND, "no_address", {"channels": {"poll": 1}}),
        (Build.move(1, http=("https://a.b",)), "no_address", {"channels": {"both": 1}}),
        (Build.move(1, mqtt=("mqtt://127.0.0.1",)), "url_scheme", {}),
        (Build.move(1, mqtt=(NEW,), http=("http://localhost:8080",)), "url_scheme", {}),
    ],
)
def test_a_document_that_a_device_cannot_go_by_changes_nothing(
    document: Build, code: str, changes: dict[str, Any]
) -> None:
    net = Net(document, **changes)
    net.move(document)
    net.settle()
    assert net.said == [Kind.ACCEPTED, Kind.DOWNLOADED, Kind.FAILED]
    assert (net.reports[-1].code, net.reports[-1].rel) == (code, 0)
    assert (net.unit.flash.way, net.unit.phase, len(net.hellos)) == (Way(), Phase.IDLE, 1)


def test_a_document_that_is_too_long_is_not_even_downloaded() -> None:
    longest = Build(b" " * MAX_DOCUMENT_BYTES, "x", 1, "endpoints")
    assert [report.kind for report in Net().move(longest)] == [Kind.ACCEPTED]
    (report,) = Net().move(Build(longest.data + b" ", "x", 1, "endpoints"))
    assert (report.kind, report.code, report.rel) == (Kind.REFUSED, "too_large", 0)


def test_a_document_that_comes_in_small_parts_is_whole() -> None:
    lists = {"mqtt": (NEW, OTHER), "http": ("https://a.example.net",) * 4, "origins": (f"https://{'o' * 60}.net",) * 16}
    document = Build.move(1, **lists)
    net = Net(document)
    net.move(document)
    net.until(Phase.DOWNLOADING)
    net.serve(chunk_bytes=7)
    net.settle()
    assert net.way.endpoints is not None
    assert (net.way.endpoints.mqtt, len(net.way.endpoints.origins)) == ((NEW, OTHER), 16)


# -- commands on the way -----------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.TRYING, Phase.RETURNING])
def test_a_device_on_trial_or_on_its_way_back_is_busy(phase: Phase) -> None:
    net = trying()
    if phase is Phase.RETURNING:
        net.tick()
    (report,) = net.move(FIRMWARE, "2.1")
    assert (report.kind, report.code, report.att, report.rel) == (Kind.REFUSED, "busy", "2.1", 1)
    recall = ISSUER.recall(D, ISSUER.install(D, FIRST), component="endpoints")
    (late,) = net.command(recall)
    assert (late.kind, late.att) == (Kind.TOO_LATE, "1.1")
    net.build = FIRST
    net.settle()
    assert net.reports[-1].kind is Kind.ROLLED_BACK


def test_a_move_that_has_not_begun_is_recalled() -> None:
    net = Net()
    net.move(FIRST, pol={"jit": 60})
    (report,) = net.command(ISSUER.recall(D, ISSUER.install(D, FIRST), component="endpoints"))
    assert (report.kind, report.rel) == (Kind.RECALLED, 0)
    net.settle()
    assert net.way == Way()


def test_each_component_keeps_its_last_word() -> None:
    net = Net()
    update = ISSUER.install(D, FIRMWARE)
    net.build = FIRMWARE
    net.command(update)
    net.settle()
    confirmed = net.reports[-1]
    net.heard = (0,)
    net.move(FIRST, "2.1")
    net.settle()
    back = net.reports[-1]
    assert net.command(update) == [confirmed]
    assert net.command(ISSUER.install(D, FIRST, "2.1", now=net.now)) == [back]
    (late,) = net.command(ISSUER.recall(D, update))
    assert (late.kind, late.att, late.rel) == (Kind.TOO_LATE, "1.1", 2)


# -- whatever happens --------------------------------------------------------------------------------


def steps(**network: Any) -> int:
    net = Net(**network)
    net.move(FIRST)
    count = 0
    while net.advance():
        count += 1
    return count


@pytest.mark.parametrize(
    "network",
    [{}, {"heard": (0,)}, {"reached": (0,)}],
    ids=["all is well", "nobody behind it", "no way there"],
)
def test_power_lost_at_any_point_ends_on_addresses_that_work(network: dict[str, Any]) -> None:
    ended = set()
    for cut_after in range(steps(**network) + 1):
        for cuts in (1, 2):
            net = Net(**network)
            net.move(FIRST)
            for _ in range(cut_after):
                net.advance()
            for _ in range(cuts):
                net.feed(PowerCut())
                net.tick()
            net.settle()
            assert net.way.rel in net.heard and net.way.rel in net.reached
            assert net.way.rel == net.unit.flash.endpoints.rel == net.hellos[-1].hello.eps
            assert (net.unit.phase, net.unit.flash.attempt) == (Phase.IDLE, None)
            ended.add((net.way.rel, net.kinds[-1], net.reports[-1].code))
    back, there = (0, Kind.ROLLED_BACK, "endpoint_unreachable"), (1, Kind.CONFIRMED, "")
    assert ended == ({back} if network else {back, there})


# Addresses 1 work. By addresses 2 a device is connected, and what comes there is old or not ours: no proof.
OFFERS = {
    "first": ISSUER.install(D, FIRST),
    "first again": ISSUER.install(D, FIRST, "1.2"),
    "second": ISSUER.install(D, SECOND, "2.1"),
    "second again": ISSUER.install(D, SECOND, "2.2"),
    "firmware": ISSUER.install(D, FIRMWARE, "3.1"),
}
BUILDS = {"first": FIRST, "first again": FIRST, "second": SECOND, "second again": SECOND, "firmware": FIRMWARE}
EVENTS: dict[str, Event] = {
    **{name: Command(bundle) for name, bundle in OFFERS.items()},
    "recall of the first": Command(ISSUER.recall(D, OFFERS["first"], "1.1", component="endpoints")),
    "recall of the second": Command(ISSUER.recall(D, OFFERS["second"], "2.1", component="endpoints")),
    "tick": Tick(),
    "power cut": PowerCut(),
    **{f"reached {way}": Reached(way) for way in ALL},
    **{f"old beat by {way}": Beat(ISSUER.beat(1, 0, NOW - 60), way) for way in ALL},
    "forged beat by 2": Beat(Issuer().beat(1, 0, NOW + 80_000), 2),
    "late beat by 0": Beat(ISSUER.beat(1, 0, NOW + 80_000), 0),
}
MOVES = st.lists(st.sampled_from([*EVENTS, "onward", "onward", "onward", "beat by 1"]), max_size=40)


def offered(net: Net, effects: tuple[Effect, ...]) -> None:
    """Serve from now on what the device accepted last."""
    attempt = net.unit.flash.attempt
    if effects and attempt is not None:
        net.build = next(BUILDS[name] for name in BUILDS if BUILDS[name].sha256 == attempt.sha256)


@settings(max_examples=300, deadline=None)
@given(MOVES)
def test_no_order_leaves_a_device_where_nobody_hears_it(names: list[str]) -> None:
    net = Net(heard=(0, 1))
    for name in names:
        before = net.unit.flash
        if name == "onward":
            net.advance()
        elif name == "beat by 1":
            net.feed(net.beat(1, net.now + 1))
        else:
            offered(net, net.feed(EVENTS[name]))
        after = net.unit.flash
        assert after.way.rel in (0, 1)
        assert after.way.rel == before.way.rel or (name in ("onward", "beat by 1") and before.attempt is not None)
        assert after.way.rel == after.endpoints.rel
        assert (after.endpoints.seq, after.component.seq) >= (before.endpoints.seq, before.component.seq)
        assert SlotState.VALID in [slot.state for slot in after.slots.pair]
    net.settle()
    assert net.unit.phase is Phase.IDLE
    assert net.way.rel in (0, 1)
    assert net.way == net.unit.flash.way
