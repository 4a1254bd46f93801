"""Whose turn it is to download at a site, with the clock moved."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model import Device
from orchestrator.web.turns import Turns

LASTS_S = 100.0


def device(name: str, site: str = "berlin") -> Device:
    return Device(name, "m1", (), "1.0.0", 1, 0.0, None, None, site=site)


ANN, BOB, CID = map(device, ("ann", "bob", "cid"))


def test_only_so_many_at_once_and_a_device_has_one_turn() -> None:
    turns = Turns(2, LASTS_S)
    assert [turns.take(each, 0.0) for each in (ANN, BOB, CID, ANN)] == [True, True, False, True]
    assert turns.take(replace(CID, site="bonn"), 0.0)


def test_no_limit_and_no_site_are_never_counted() -> None:
    for turns, site in ((Turns(), "berlin"), (Turns(1, LASTS_S), "")):
        assert all(turns.take(device(f"d{n}", site), 0.0) for n in range(10))
        with turns.flowing(device("d1", site), float) as done:
            done()
        assert turns.silent(site) == {}


def test_a_turn_ends_with_the_time_and_asking_again_makes_it_longer() -> None:
    turns = Turns(1, LASTS_S)
    assert turns.take(ANN, 0.0)
    assert not turns.take(BOB, LASTS_S - 1)
    assert turns.take(ANN, LASTS_S - 1)
    assert not turns.take(BOB, 2 * LASTS_S - 2)
    assert turns.take(BOB, 2 * LASTS_S - 1)
    assert not turns.take(ANN, 2 * LASTS_S)


def test_it_lasts_while_bytes_flow_and_a_while_after_they_broke_off() -> None:
    turns = Turns(1, LASTS_S)
    turns.take(ANN, 0.0)
    with turns.flowing(ANN, lambda: 1000.0):
        assert not turns.take(BOB, 900.0)
        turns.end("berlin", ["ann"])
        assert not turns.take(BOB, 900.0)
    assert not turns.take(BOB, 1000.0 + LASTS_S - 1)
    assert turns.take(BOB, 1000.0 + LASTS_S)


def test_it_ends_with_the_last_byte_of_the_last_answer() -> None:
    turns = Turns(1, LASTS_S)
    turns.take(ANN, 0.0)
    with turns.flowing(ANN, float) as done:
        with turns.flowing(ANN, float) as other:
            other()
        assert not turns.take(BOB, 0.0)
        done()
    assert turns.take(BOB, 0.0)


def test_who_is_done_makes_room() -> None:
    turns = Turns(1, LASTS_S)
    turns.take(ANN, 0.0)
    assert turns.silent("berlin") == {"ann": 0.0}
    turns.end("berlin", ["bob"])
    assert not turns.take(BOB, 0.0)
    turns.end("berlin", ["ann"])
    assert turns.take(BOB, 0.0)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["take", "end"]), st.floats(0, 200))))
def test_there_are_never_more_than_may(steps: list[tuple[str, str, float]]) -> None:
    turns, now = Turns(2, LASTS_S), 0.0
    until: dict[str, float] = {}
    for name, what, later_s in steps:
        now += later_s
        until = {each: end for each, end in until.items() if end > now or each == name}
        if what == "end":
            turns.end("berlin", [name])
            until.pop(name, None)
        elif turns.take(device(name), now):
            until[name] = now + LASTS_S
        else:
            assert len(until) == 2
        assert len(until) <= 2
