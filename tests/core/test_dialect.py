"""Devices that verify no trigger: what keeps which images from them."""

from __future__ import annotations

import pytest

from orchestrator.core.model import Device
from orchestrator.core.targeting import cohort, facts
from orchestrator.core.targeting.dialect import DIALECTS, SIGNATURES, STRICT, SigningRule
from orchestrator.core.targeting.facts import Change
from orchestrator.images import findings
from tests.support.builders import make_plan


def device(dialect: str = "ddi", *enforces: str, model: str = "m1") -> Device:
    return Device("d1", model, (), "1.0.0", 1, 0.0, None, None, dialect=dialect, enforces=enforces)


@pytest.mark.parametrize(
    ("item", "signature", "allowed", "kept"),
    [
        (device("otad"), "", "", False),
        (device("ddi"), "", "", True),
        (device("ddi"), "rauc", "", True),
        (device("ddi", "swupdate"), "", "", True),
        (device("ddi", "swupdate"), "rauc", "", True),
        (device("ddi", "rauc", "swupdate"), "rauc", "", False),
        (device("ddi"), "", "a laboratory", False),
        (device("ddi", "rauc", model="m2"), "rauc", "", True),
    ],
)
def test_what_a_device_cannot_verify_is_kept_from_it(item: Device, signature: str, allowed: str, kept: bool) -> None:
    reason = SigningRule({"m1": signature}, allowed).left_out(item)
    assert (None if reason is None else reason.code) == ("unsigned_client" if kept else None)


def test_nothing_that_an_image_does_not_carry_is_enforced() -> None:
    assert STRICT.left_out(device("ddi", *SIGNATURES)) is not None
    assert "" not in SIGNATURES


def test_a_device_is_told_why() -> None:
    reason = STRICT.left_out(device("ddi"))
    assert reason is not None
    assert reason.text == (
        "it speaks ddi and verifies no trigger; the image carries no native signature that is known, "
        "and it is not known to enforce any"
    )
    reason = SigningRule({"m1": "rauc"}).left_out(device("esp32", "esp32-arduino"))
    assert reason is not None
    assert reason.text.endswith("the image carries the signature rauc, and it enforces esp32-arduino")


def test_the_cohort_is_strict_unless_it_knows_better() -> None:
    plan, hardware = make_plan(), frozenset({"m1"})
    assert cohort.left_out(device("otad"), plan, hardware, 2) is None
    reason = cohort.left_out(device("ddi", "rauc"), plan, hardware, 2)
    assert reason is not None
    assert reason.code == "unsigned_client"
    assert cohort.left_out(device("ddi", "rauc"), plan, hardware, 2, signing=SigningRule({"m1": "rauc"})) is None


def test_a_device_for_which_there_is_nothing_is_told_that_alone() -> None:
    reasons = cohort.all_left_out(device("ddi", model="m9"), make_plan(), frozenset({"m1"}), 2)
    assert [reason.code for reason in reasons] == ["no_artifact"]


def test_words_are_those_that_images_are_recognised_by() -> None:
    assert set(SIGNATURES) == set(findings.SIGNATURES)
    assert len(SIGNATURES) == len(set(SIGNATURES))


def test_only_known_words_are_taken() -> None:
    for dialect in DIALECTS:
        assert not list(facts.faults_of(Change(dialect=dialect, enforces=SIGNATURES)))
    faults = list(facts.faults_of(Change(dialect="dd", enforces=("swupdate", "pgp"))))
    assert [fault.partition(";")[0] for fault in faults] == [
        "dialect 'dd' is not known",
        "'pgp' is no signature that a device enforces",
    ]


def test_a_change_says_what_shall_be_different() -> None:
    before = device("ddi", "rauc").facts
    assert facts.changed(before, Change()) == before
    after = facts.changed(before, Change(dialect="pico", enforces=("swupdate", "pico", "pico")))
    assert (after.dialect, after.enforces) == ("pico", ("pico", "swupdate"))
    assert facts.changed(before, Change(enforces=())).enforces == ()
