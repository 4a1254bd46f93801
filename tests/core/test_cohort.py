"""Who is in a cohort, in which order, and how it is cut into stages."""

from __future__ import annotations

import hmac
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model import Device, EvidenceRule, Plan, SizeKind, StagePlan
from orchestrator.core.targeting import cohort
from orchestrator.core.targeting.route import Stone, Way
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


# Queues: what stages are cut from

REGISTRY = [
    make_device(f"d{number}", "m1" if number % 3 else "m2", ["lab"] if number % 10 == 0 else [], site=f"s{number % 4}")
    for number in range(200)
]


def queue_of(plan: Plan, taken: dict[str, int] | None = None) -> tuple[cohort.Queue, list[cohort.Member]]:
    queue = cohort.Queue(taken)
    found = list(cohort.members(SECRET, REGISTRY, plan))
    queue.add(found)
    return queue, found


@given(st.lists(st.integers(0, 90), max_size=5))
def test_a_queue_is_cut_in_the_order_of_the_hash(sizes: list[int]) -> None:
    queue, found = queue_of(make_plan())
    taken, cuts = list[str](), list[cohort.Cut]()
    for size in sizes:
        cuts.append(queue.cut(size))
        here = [item for item in found if cuts[-1].takes(item) and not any(cut.takes(item) for cut in cuts[:-1])]
        assert len(here) == cuts[-1].count == sum(cuts[-1].strata.values())
        taken += [member.device_id for member in sorted(here)]
    assert taken == [member.device_id for member in sorted(found)][: sum(sizes)]
    assert queue.left() == max(200 - sum(sizes), 0)


def test_a_stage_of_a_group_takes_from_the_group_alone() -> None:
    plan = make_plan(stages=(StagePlan(SizeKind.REST, 0, group="lab"), StagePlan(SizeKind.REST, 0)))
    queue, found = queue_of(plan)
    assert queue.left("lab") == 20
    first = queue.cut(5, "lab")
    assert [item.groups for item in found if first.takes(item)] == [("lab",)] * 5
    assert (queue.left("lab"), queue.left()) == (15, 195)
    assert queue.cut(100, "lab").count == 15
    assert queue.cut(1000).count == 180


# Late devices

WEEK_S = 604_800.0
WITNESSES = EvidenceRule(registered_s=WEEK_S)


@pytest.mark.parametrize(
    ("registered_at", "late"), [(0.0, False), (5000.0, False), (5000.1, True), (WEEK_S + 5000.0, True), (9e9, True)]
)
def test_who_registered_less_than_asked_before_the_start_is_late(registered_at: float, late: bool) -> None:
    device, started_at = make_device(registered_at=registered_at), WEEK_S + 5000.0
    reason = cohort.late(device, make_plan(evidence=WITNESSES), started_at)
    assert (reason is not None) is late
    if reason is not None:
        assert reason.code == "registered_late"
        assert "less than 168 h before the rollout started" in reason.text
    assert cohort.late(device, make_plan(), started_at) is None
    assert cohort.late(device, make_plan(evidence=WITNESSES), None) is None


def is_new(device_id: str) -> bool:
    return int(device_id[1:]) % 5 < 2


def mixed(plan: Plan, taken: dict[str, int] | None = None) -> tuple[cohort.Queue, list[cohort.Member]]:
    """Return a queue of which two in five devices are late."""
    devices = [replace(item, registered_at=9e9 if is_new(item.id) else 0.0) for item in REGISTRY]
    found = list(cohort.members(SECRET, devices, plan, WEEK_S))
    queue = cohort.Queue(taken)
    queue.add(found)
    return queue, found


@given(st.lists(st.integers(0, 90), min_size=1, max_size=5), st.sampled_from(["", "site"]), st.booleans())
def test_late_devices_are_taken_by_the_last_cut_alone(sizes: list[int], stratify: str, whole: bool) -> None:
    plan = make_plan(stratify=stratify, evidence=WITNESSES)
    queue, found = mixed(plan, {} if stratify else None)
    assert {member.device_id for member in found if member.late} == {item.id for item in REGISTRY if is_new(item.id)}
    old = sum(not member.late for member in found)
    for size in sizes:
        before = queue.left()
        cut = queue.cut(size, late=False)
        assert [member for member in found if member.late and cut.takes(member)] == []
        assert cut.count == min(size, old)
        old -= cut.count
        assert queue.left() == before - cut.count
    left = queue.left()
    last = queue.cut(left if whole else left // 2)
    assert last.count == (left if whole else left // 2)
    if whole:
        assert all(last.takes(member) for member in found if member.late)


def test_what_is_taken_before_the_last_stage_is_the_order_of_the_old_ones() -> None:
    queue, found = mixed(make_plan(evidence=WITNESSES))
    cut = queue.cut(30, late=False)
    assert [item for item in sorted(found) if cut.takes(item)] == [item for item in sorted(found) if not item.late][:30]


def test_cuts_are_fair_to_the_old_devices_of_each_stratum() -> None:
    queue, _ = mixed(make_plan(stratify="site", evidence=WITNESSES), {})
    assert sorted(queue.cut(20, late=False).strata.values()) == [5, 5, 5, 5]
    assert queue.strata() == {f"s{site}": 45 for site in range(4)}


def test_late_devices_of_a_group_wait_as_well() -> None:
    plan = make_plan(stages=(StagePlan(SizeKind.REST, 0, group="lab"), StagePlan(SizeKind.REST, 0)), evidence=WITNESSES)
    queue, found = mixed(plan)
    assert queue.left("lab") == 20
    assert queue.cut(20, "lab", late=False).count == 0  # all of them are new
    assert queue.left("lab") == 20
    assert queue.cut(200).count == len(found)


@pytest.mark.parametrize("size", [1, 7, 40, 199])
def test_a_stratified_cut_is_fair_to_every_stratum(size: int) -> None:
    queue, found = queue_of(make_plan(stratify="site"), {})
    cut = queue.cut(size)
    assert sum(cut.strata.values()) == size
    assert all(abs(cut.strata.get(f"s{site}", 0) - size / 4) < 1 for site in range(4))
    by_stratum = {site: sorted(item for item in found if item.stratum == site) for site in cut.strata}
    for site, members in by_stratum.items():
        assert [cut.takes(item) for item in members] == [at < cut.strata[site] for at in range(len(members))]


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 60), min_size=1), st.lists(st.integers(1, 40), max_size=6)
)
def test_cuts_that_follow_each_other_are_those_of_one_large_cut(sizes: dict[str, int], counts: list[int]) -> None:
    taken: dict[str, int] = {}
    for count in counts:
        left = {name: size - taken.get(name, 0) for name, size in sizes.items()}
        given_ = cohort.shares(taken, left, count)
        assert sum(given_.values()) == min(count, sum(left.values()))
        taken = {name: taken.get(name, 0) + given_.get(name, 0) for name in sizes}
    whole = cohort.shares({}, sizes, sum(counts))
    assert {name: count for name, count in taken.items() if count} == {name: n for name, n in whole.items() if n}


def test_strata() -> None:
    device = make_device(site="berlin", attributes={"region": "eu"})
    assert cohort.stratum_of(device, "") == cohort.stratum_of(device, "model") == "m1"
    assert cohort.stratum_of(device, "site") == "berlin"
    assert cohort.stratum_of(device, "attr.region") == "eu"
    assert cohort.stratum_of(device, "attr.other") == cohort.stratum_of(make_device(), "site") == cohort.NOWHERE


def test_an_open_cohort_leaves_room_for_the_strata_of_late_joiners() -> None:
    hardware = frozenset({"m1", "m2", "m3"})
    assert cohort.most_strata(make_plan(), hardware, 1) == 1
    assert cohort.most_strata(make_plan(open_cohort=True), hardware, 1) == 3
    assert cohort.most_strata(make_plan(open_cohort=True, models=("m1", "m2")), hardware, 1) == 2
    assert cohort.most_strata(make_plan(open_cohort=True, stratify="site"), hardware, 5) == cohort.MAX_STRATA
    assert cohort.most_strata(make_plan(open_cohort=True, stratify="site"), hardware, 65) == 65


def test_late_joiners_bring_no_more_strata_than_can_be_told_apart() -> None:
    taken = {f"s{at}": 1 for at in range(62)}
    found = [cohort.Member(at, f"d{at}", "m1", f"s{stratum}") for at, stratum in enumerate((0, 62, 63, 64, 62))]
    strata = [member.stratum for member in cohort.bounded(found, taken)]
    assert strata == ["s0", "s62", cohort.OTHER, cohort.OTHER, "s62"]
    assert len({*taken, *strata}) == cohort.MAX_STRATA


def test_stages_of_a_group_are_sized_by_it() -> None:
    stages = (
        StagePlan(SizeKind.REST, 0, group="lab"),
        StagePlan(SizeKind.PPM, 500_000, group="night"),
        StagePlan(SizeKind.COUNT, 30, group="none"),
        StagePlan(SizeKind.PPM, 100_000),
        StagePlan(SizeKind.REST, 0),
    )
    found = cohort.stages_for(make_plan(stages=stages), 200, {"lab": 8, "night": 20})
    assert [stage.base for stage in found] == [8, 10, 0, 20, 162]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"rel": 2}, "current"),
        ({"model": "m9"}, "no_artifact"),
        ({"model": "m2"}, "model"),
        ({"groups": ()}, "group"),
        ({"site": "paris"}, "not_selected"),
        ({"registered_at": 9.0}, "late"),
    ],
)
def test_who_is_left_out_is_told_why(changes: dict[str, Any], code: str | None) -> None:
    plan = make_plan(models=("m1",), groups=("lab",), select="site == berlin")
    device = make_device(groups=["lab"], **({"site": "berlin"} | {k: v for k, v in changes.items() if k != "groups"}))
    device = replace(device, groups=()) if "groups" in changes else device
    reason = cohort.left_out(device, plan, frozenset({"m1", "m2"}), 2, fixed_at=8.0)
    assert (reason.code if reason else None) == code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"rel": 2}, "from_too_low"),
        ({"rel": 3}, None),
        ({"rel": 7}, "current"),
        ({"rel": 2, "model": "m2"}, None),  # any device of that model may jump
        ({"rel": 0, "version": "0.1"}, "from_too_low"),
        ({"rel": 0, "version": ""}, None),  # nobody knows what it runs; it will say so itself
    ],
)
def test_who_is_too_old_to_jump_is_left_out(changes: dict[str, Any], code: str | None) -> None:
    ways = {"m1": Way(Stone(7, 3, "radio-7"), (Stone(3, 0, "radio-3"),))}
    device = replace(make_device(), **changes)
    reason = cohort.left_out(device, make_plan(), frozenset({"m1", "m2"}), 7, ways=ways)
    assert (reason.code if reason else None) == code


def test_a_sieve_says_what_a_database_can_check() -> None:
    plan = make_plan(models=("m1", "m3"), select="site == berlin and model != m7 and rel < 9")
    found = cohort.sieve(plan, frozenset({"m1", "m2"}), 5, 7.0)
    assert found == cohort.Sieve({"site": frozenset({"berlin"}), "model": frozenset({"m1"})}, 5, 7.0)
    assert cohort.sieve(plan, frozenset({"m1", "m2"}), 5, 7.0, moves=True) == replace(found, moves=True)
