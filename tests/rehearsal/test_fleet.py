"""What virtual devices are like."""

from __future__ import annotations

from random import Random

from orchestrator.core.update import FactKind
from orchestrator.rehearsal.fleet import ABSENT, DIES, HEALTHY, ROLLS_BACK, Fleet, Spread, draw

MANY = 4000


def parts(fleet: Fleet) -> list[tuple[FactKind, ...]]:
    chance = Random(1)
    return [draw(fleet, chance).part for _ in range(MANY)]


def test_shares_are_met() -> None:
    drawn = parts(Fleet(1, bad_share=0.2, lost_share=0.5, liars=0.1, offline=0.25))
    assert abs(drawn.count(ABSENT) / MANY - 0.25) < 0.03
    assert abs(drawn.count(DIES) / MANY - 0.75 * 0.2 * 0.9 * 0.5) < 0.02
    assert abs(drawn.count(ROLLS_BACK) / MANY - 0.75 * 0.2 * 0.9 * 0.5) < 0.02


def test_a_liar_always_confirms() -> None:
    assert set(parts(Fleet(1, bad_share=1.0, liars=1.0))) == {HEALTHY}


def test_a_good_build_fails_nowhere() -> None:
    assert set(parts(Fleet(1))) == {HEALTHY}


def test_options_change_nothing_but_what_they_are_about() -> None:
    good, bad = Random(7), Random(7)
    for _ in range(50):
        assert draw(Fleet(1), good).pauses_s == draw(Fleet(1, bad_share=0.5, liars=0.3), bad).pauses_s


def test_half_of_the_devices_take_longer_than_the_median() -> None:
    spread = Spread(120.0, 0.7)
    chance = Random(3)
    drawn = [spread.at(chance.gauss(0.0, 1.0)) for _ in range(MANY)]
    assert abs(sum(item > 120.0 for item in drawn) / MANY - 0.5) < 0.03
    assert min(drawn) > 0


def test_late_devices_are_so_many_of_each_model_and_of_each_group() -> None:
    fleet = Fleet(1, late=0.2, grouped=0.1)
    late = [place for place in range(MANY) if fleet.is_late(place)]
    assert abs(len(late) / MANY - 0.2) < 0.005
    assert abs(sum(fleet.is_grouped(place) for place in late) / len(late) - 0.1) < 0.02
    assert not any(Fleet(1).is_late(place) for place in range(MANY))
    assert all(Fleet(1, late=1.0).is_late(place) for place in range(MANY))


def test_strata_have_names_of_their_own() -> None:
    assert Fleet(10, strata=3).models == ("model-1", "model-2", "model-3")
