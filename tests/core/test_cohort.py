"""Who is in a cohort, in which order, and how it is cut into stages."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import cohort
from orchestrator.core.model import Device, Plan, SizeKind, StagePlan
from tests.support.builders import REST, make_device, make_plan

DEVICES = [make_device(f"d{number}") for number in range(200)]
SECRET = cohort.secret_from_seed(1)


def order(secret: bytes) -> list[str]:
    return [member.device_id for member in sorted(cohort.members(secret, DEVICES))]


def test_order_is_that_of_the_keyed_hash() -> None:
    digest = hmac.digest(SECRET, b"d1", "sha256")
    assert cohort.rank(SECRET, "d1") == int.from_bytes(digest, "big") >> (256 - cohort.RANK_BITS)


def test_another_secret_is_another_order() -> None:
    other = order(cohort.secret_from_seed(2))
    assert sorted(other) == sorted(order(SECRET))
    assert other != order(SECRET)
    assert other[:20] != order(SECRET)[:20]


def test_seed_fixes_the_secret_and_each_seed_has_its_own() -> None:
    secrets = {cohort.secret_from_seed(seed) for seed in range(200)}
    assert len(secrets) == 200
    assert {len(secret) for secret in secrets} == {32}
    assert cohort.secret_from_seed(1) == SECRET


@given(st.binary(max_size=64), st.text(max_size=64))
def test_ranks_fit_a_signed_column(secret: bytes, device_id: str) -> None:
    assert 0 <= cohort.rank(secret, device_id) < 2**cohort.RANK_BITS


def test_ranks_use_the_whole_range() -> None:
    ranks = [cohort.rank(SECRET, device.id) for device in DEVICES]
    assert len(set(ranks)) == len(DEVICES)
    assert max(ranks) > 0.95 * 2**cohort.RANK_BITS
    assert min(ranks) < 0.05 * 2**cohort.RANK_BITS


@given(st.permutations(DEVICES[:40]), st.integers(0, 45))
def test_cut_does_not_depend_on_the_order_of_the_registry(devices: list[Device], count: int) -> None:
    found = cohort.cut(cohort.members(SECRET, devices), -1, count)
    assert found == sorted(cohort.members(SECRET, DEVICES[:40]))[:count]


@given(st.lists(st.integers(0, 90), max_size=5))
def test_cuts_that_follow_each_other_share_no_device_and_leave_no_gap(sizes: list[int]) -> None:
    above, taken = -1, list[str]()
    for size in sizes:
        found = cohort.cut(cohort.members(SECRET, DEVICES), above, size)
        above = found[-1].rank if found else above
        taken += [member.device_id for member in found]
    assert taken == order(SECRET)[: sum(sizes)]


def test_cut_leaves_out_the_rank_it_starts_above() -> None:
    first, second = sorted(cohort.members(SECRET, DEVICES))[:2]
    assert cohort.cut(cohort.members(SECRET, DEVICES), first.rank, 1) == [second]


@pytest.mark.parametrize(
    ("models", "groups", "hardware", "expected"),
    [
        ((), (), {"m1"}, True),
        ((), (), {"m2"}, False),
        (("m1",), (), {"m1", "m2"}, True),
        (("m2",), (), {"m1", "m2"}, False),
        ((), ("lab",), {"m1"}, True),
        ((), ("lab", "field"), {"m1"}, True),
        ((), ("field",), {"m1"}, False),
        (("m1",), ("lab",), {"m1"}, True),
    ],
)
def test_who_belongs(models: tuple[str, ...], groups: tuple[str, ...], hardware: set[str], expected: bool) -> None:
    device = make_device(groups=["lab", "night"])
    plan = make_plan(models=models, groups=groups)
    assert cohort.belongs(device, plan, frozenset(hardware), rel=2) is expected


@pytest.mark.parametrize(("running", "expected"), [(0, True), (1, True), (2, False), (3, False)])
def test_a_device_that_runs_the_release_or_a_later_one_needs_none(running: int, expected: bool) -> None:
    device = make_device(rel=running)
    assert cohort.belongs(device, make_plan(), frozenset({"m1"}), rel=2) is expected


def bases(plan: Plan, size: int) -> list[int]:
    stages = cohort.stages_for(plan, size)
    assert all(stage.target == stage.base for stage in stages)
    assert all(stage.opened_at is stage.resolved_at is stage.passed_at is None for stage in stages)
    return [stage.base for stage in stages]


@pytest.mark.parametrize(
    ("size", "expected"),
    [(200, [20, 60, 120]), (80, [20, 60, 0]), (50, [20, 30, 0]), (5, [5, 0, 0]), (0, [0, 0, 0])],
)
def test_counts_and_the_rest(size: int, expected: list[int]) -> None:
    assert bases(make_plan((20, 60, REST)), size) == expected


@pytest.mark.parametrize(("size", "expected"), [(1000, [10, 500, 490]), (50, [1, 25, 24]), (1, [1, 0, 0])])
def test_shares_are_rounded_up_so_that_a_small_fleet_has_a_canary(size: int, expected: list[int]) -> None:
    shares = (StagePlan(SizeKind.PPM, 10_000), StagePlan(SizeKind.PPM, 500_000), StagePlan(SizeKind.REST, 0))
    assert bases(make_plan(stages=shares), size) == expected


@given(st.integers(0, 10_000_000), st.lists(st.integers(1, 1_000_000), min_size=1, max_size=8))
def test_stages_never_take_more_than_the_cohort(size: int, shares: list[int]) -> None:
    plan = make_plan(stages=tuple(StagePlan(SizeKind.PPM, share) for share in shares))
    assert sum(bases(plan, size)) == min(size, sum(-(-share * size // 1_000_000) for share in shares))
