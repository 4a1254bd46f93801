from __future__ import annotations

from collections import Counter
from dataclasses import replace

from orchestrator.sim.behaviour import Behaviour
from orchestrator.sim.profile import FAULTS, Profile, cast
from tests.sim.issuer import Issuer

FLEET = Behaviour(
    devices=20,
    seed=42,
    bad_share=0.3,
    lie_share=0.1,
    silent_share=0.05,
    offline_share=0.05,
    power_loss_share=0.1,
    duplicate_share=0.1,
    reorder_share=0.1,
    replay_share=0.05,
    unreachable_share=0.1,
    models={"sim-a": 3, "sim-b": 1},
    channels={"push": 2, "poll": 1, "both": 1},
)


def models(behaviour: Behaviour) -> dict[str, str | None]:
    return dict.fromkeys(behaviour.device_ids())


def assignment(profiles: list[Profile]) -> dict[str, list[int]]:
    return {fault: [int(each.device[4:]) for each in profiles if each.has(fault)] for fault in FAULTS}


def test_the_same_seed_gives_the_same_fleet(issuer: Issuer) -> None:
    profiles = cast(FLEET, models(FLEET), issuer.trust(), run="a")
    assert assignment(profiles) == {
        "bad": [0, 3, 6, 8, 10, 18],
        "lie": [1, 6],
        "silent": [18],
        "offline": [10],
        "power_loss": [4, 17],
        "duplicate": [8, 15],
        "reorder": [7, 13],
        "replay": [2],
        "unreachable": [8, 10],
    }
    assert Counter(profile.model for profile in profiles) == {"sim-a": 15, "sim-b": 5}
    assert Counter(profile.channel for profile in profiles) == {"push": 10, "poll": 5, "both": 5}


def test_another_seed_gives_another_fleet(issuer: Issuer) -> None:
    one = assignment(cast(FLEET, models(FLEET), issuer.trust(), run="a"))
    other = assignment(cast(replace(FLEET, seed=43), models(FLEET), issuer.trust(), run="a"))
    assert one != other
    assert [len(devices) for devices in one.values()] == [len(devices) for devices in other.values()]


def test_the_run_changes_nothing_but_boot_identifiers(issuer: Issuer) -> None:
    one = cast(FLEET, models(FLEET), issuer.trust(), run="a")
    other = cast(FLEET, models(FLEET), issuer.trust(), run="b")
    assert [replace(profile, run="a") for profile in other] == one


def test_speed_divides_every_duration(issuer: Issuer) -> None:
    slow = cast(FLEET, models(FLEET), issuer.trust(), run="a")[0].pace
    fast = cast(replace(FLEET, speed=10.0), models(FLEET), issuer.trust(), run="a")[0].pace
    for name in ("download_s", "install_s", "reboot_s", "selftest_s", "retry_s", "poll_s"):
        assert abs(getattr(slow, name) - 10 * getattr(fast, name)) < 1e-9


def test_values_lie_in_their_ranges(issuer: Issuer) -> None:
    for profile in cast(FLEET, models(FLEET), issuer.trust(), run="a"):
        assert 40 <= profile.battery <= 100
        assert 2 <= profile.pace.download_s <= 8
        assert 5 <= profile.pace.selftest_s <= 15


def test_credentials_overrule_the_model(issuer: Issuer) -> None:
    profiles = cast(FLEET, {"d1": "board-9", "d2": None}, issuer.trust(), run="a")
    assert profiles[0].model == "board-9"
    assert profiles[1].model in ("sim-a", "sim-b")
