from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.sim.draw import chosen, dealt, draw, within

SHARES = st.floats(0, 1)
SEEDS = st.integers(0, 2**63 - 1)
DEVICES = [f"sim-{number:05d}" for number in range(137)]


@given(SEEDS, st.text(), st.text())
def test_a_draw_is_a_fraction_and_stays(seed: int, word: str, device: str) -> None:
    assert 0 <= draw(seed, word, device) < 1
    assert draw(seed, word, device) == draw(seed, word, device)


@given(SEEDS, SHARES)
def test_a_share_is_met_exactly(seed: int, share: float) -> None:
    assert len(chosen(seed, "bad", DEVICES, share)) == round(share * len(DEVICES))


@given(SEEDS, SHARES, SHARES)
def test_a_larger_share_contains_the_smaller(seed: int, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert chosen(seed, "bad", DEVICES, low) <= chosen(seed, "bad", DEVICES, high)


@given(SEEDS, st.lists(st.floats(0, 100), min_size=1, max_size=5).filter(lambda parts: sum(parts) > 0))
def test_dealing_gives_every_device_one_value_by_part(seed: int, parts: list[float]) -> None:
    shares = {f"v{number}": part for number, part in enumerate(parts)}
    result = dealt(seed, "model", DEVICES, shares)
    counts = Counter(result.values())
    assert set(result) == set(DEVICES)
    for value, part in shares.items():
        assert abs(counts[value] - part / sum(parts) * len(DEVICES)) <= 1


def test_which_devices_are_chosen_does_not_depend_on_their_order() -> None:
    assert chosen(3, "bad", DEVICES, 0.3) == chosen(3, "bad", DEVICES[::-1], 0.3)


def test_faults_and_seeds_choose_other_devices() -> None:
    bad = chosen(3, "bad", DEVICES, 0.3)
    assert bad != chosen(3, "silent", DEVICES, 0.3)
    assert bad != chosen(4, "bad", DEVICES, 0.3)


def test_within_spans_its_bounds() -> None:
    assert [within((2.0, 8.0), fraction) for fraction in (0.0, 0.5, 1.0)] == [2.0, 5.0, 8.0]
