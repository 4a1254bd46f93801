"""Every fault of a plan at once, each with its line and column, in words."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator import strict_yaml
from orchestrator.core.model import Plan, SizeKind, StagePlan
from orchestrator.errors import ConfigError
from orchestrator.plans import Fault, PlanError, parse_plan, read_document, read_plan
from tests.plans.shapes import JUNK

LEAST = "name: spring\nrelease: radio-2\nstages: [{devices: rest}]\n"


def faults_in(text: str | bytes) -> tuple[Fault, ...]:
    with pytest.raises(PlanError) as caught:
        read_plan(text, "f.yaml")
    return caught.value.places


def test_a_plan_is_read() -> None:
    plan = Plan("spring", "radio-2", (StagePlan(SizeKind.REST, 0),))
    assert read_plan(LEAST) == read_plan(LEAST.encode()) == plan
    assert read_document(LEAST) == {"name": "spring", "release": "radio-2", "stages": [{"devices": "rest"}]}


def test_all_faults_come_at_once_in_the_order_of_their_lines() -> None:
    text = """\
# a comment
name: UP
stages:
  - devices: rest
    soak: 30
  - devices: 5
    soaks: 3h
    devices: 7
  - soak: 1h
halt:
  alpah: 1%
  tolerated: 41%
alpha: 5%
in_flight: "100"
target:
1: x
"""
    with pytest.raises(ConfigError) as caught:
        read_plan(text, "f.yaml")
    assert [fault.partition("; ")[0] for fault in caught.value.faults] == [
        "f.yaml:2:1: release: is missing",
        "f.yaml:2:7: name: 'UP' is no identifier",
        'f.yaml:4:14: stages.0.devices: only the last stage may take "rest"',
        "f.yaml:5:11: stages.0.soak: 30 is not allowed",
        "f.yaml:7:5: stages.1.soaks: unknown key",
        "f.yaml:8:5: duplicate key 'devices'",
        "f.yaml:9:5: stages.2.devices: is missing",
        "f.yaml:11:3: halt.alpah: unknown key",
        "f.yaml:12:14: halt.tolerated: '41%' is not allowed",
        "f.yaml:13:1: alpha: unknown key",
        "f.yaml:14:12: in_flight: '100' is not allowed",
        "f.yaml:15:1: target: nothing is not allowed",
        "f.yaml:16:1: a key must be text",
    ]
    assert all("; " in fault for fault in caught.value.faults)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("in_fligth: 5", (4, 1, "in_fligth", "unknown key; did you mean 'in_flight'?")),
        ("alpha: 5%", (4, 1, "alpha", "unknown key; it belongs under halt")),
        ("halt: {seed: 1}", (4, 8, "halt.seed", "unknown key; it belongs at the top, outside any section")),
        (
            "deadlines: {xyzzy: 1}",
            (4, 13, "deadlines.xyzzy", "unknown key; allowed here: accept, download, install, confirm"),
        ),
        ("seed: -1", (4, 7, "seed", "-1 is not allowed; write at least 0")),
        ("seed: 9007199254740992", (4, 7, "seed", "9007199254740992 is not allowed; write at most 9007199254740991")),
        ("in_flight: 1.5", (4, 12, "in_flight", "1.5 is not allowed; write a whole number")),
        ("in_flight: true", (4, 12, "in_flight", "True is not allowed; write a whole number")),
        ("in_flight:", (4, 1, "in_flight", "nothing is not allowed; write a whole number or leave the key out")),
        ("delivery: pigeon", (4, 11, "delivery", "'pigeon' is not allowed; write 'push', 'poll' or 'hybrid'")),
        ("target: [m1]", (4, 9, "target", "['m1'] is not allowed; write keys with their values")),
        ("target: {models: m1}", (4, 18, "target.models", "'m1' is not allowed; write a list")),
        ("halt: {lost_after_reboot: 1}", (4, 27, "halt.lost_after_reboot", "1 is not allowed; write true or false")),
        (
            "halt: {tolerated: 0.01}",
            (
                4,
                19,
                "halt.tolerated",
                '0.01 is not allowed; write a percentage above "0%" and below "40%", such as "1%" or "0.5%"',
            ),
        ),
        (
            "deadlines: {confirm: 0s}",
            (
                4,
                22,
                "deadlines.confirm",
                "'0s' is not allowed; write a duration above zero with its unit (ms, s, m, h or d), such as \"30m\" or "
                '"1.5h"',
            ),
        ),
        (
            "target: {groups: [lab, Lab 1]}",
            (
                4,
                24,
                "target.groups.1",
                "'Lab 1' is no identifier; write 1 to 64 lower-case letters, digits, dots, underscores and hyphens, "
                "the first a letter or a digit",
            ),
        ),
    ],
)
def test_a_fault_says_what_is_wrong_and_what_is_allowed(line: str, fault: tuple[int, int, str, str]) -> None:
    assert faults_in(LEAST + line + "\n") == (Fault(*fault),)


def test_a_fault_is_one_line_whatever_a_key_holds() -> None:
    with pytest.raises(PlanError) as caught:
        read_plan(LEAST + '"a\\nf.yaml:1:1: name": 1\n', "f.yaml")
    (fault,) = caught.value.faults
    assert fault.startswith("f.yaml:4:1: a\\nf.yaml:1:1: name: unknown key; ")
    assert "\n" not in fault


def test_too_few_and_too_many_stages() -> None:
    head = "name: a\nrelease: b\n"
    (few,) = faults_in(head + "stages: []\n")
    (many,) = faults_in(head + "stages: [" + "{devices: 1}, " * 51 + "]\n")
    assert few == Fault(3, 9, "stages", "0 entries are not allowed; write at least 1")
    assert many == Fault(3, 9, "stages", "51 entries are not allowed; write at most 50")


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", (1, 1, "")),
        (b"- a\n- b\n", (1, 1, "")),
        (b"name: a\nx: [\n", (3, 1, "")),
        (b"a: &x 1\n", (1, 4, "")),
        (b"name: a\nb: \xff\n", (1, 1, "")),
        (b'name: a\nb: "\\ud800"\n', (2, 4, "")),
        (b'name: a\n"\\ud800": 1\n', (2, 1, "")),
        (b"#" * (strict_yaml.MAX_BYTES + 1), (1, 1, "")),
    ],
)
def test_what_is_no_plan_at_all_is_one_fault(data: bytes, fault: tuple[int, int, str]) -> None:
    (found,) = faults_in(data)
    assert (found.line, found.column, found.path) == fault
    assert found.text


def test_no_words_of_the_validation_library_reach_a_person() -> None:
    text = "name: 1\nrelease: [x]\nstages: 5\nhalt: 7\nseed: x\ndelivery: 3\nconfidence: 1\nmax_unreached: -\n"
    for fault in faults_in(text):
        assert "nput should" not in fault.text
        assert "pattern" not in fault.text
        assert "not allowed" in fault.text or "no identifier" in fault.text


LINES = st.sampled_from(
    LEAST.splitlines() + ["halt:", "  alpha: 1%", "  alpha:", "seed: 5", '"\\ud800": 1', "- x", "name: [", "? a"]
)


@given(st.lists(LINES, max_size=8).map("\n".join) | st.text(max_size=60))
def test_whatever_is_written_is_a_plan_or_faults_within_the_text(text: str) -> None:
    try:
        plan = read_plan(text)
    except PlanError as error:
        assert error.faults
        for fault in error.places:
            assert 1 <= fault.line <= len(text.splitlines()) + 1
            assert fault.column >= 1
    else:
        assert plan == parse_plan(strict_yaml.parse(text.encode()))


@given(st.dictionaries(st.sampled_from(["name", "release", "stages", "halt", "target", "seed"]), JUNK))
def test_text_and_document_are_judged_alike(document: dict[str, object]) -> None:
    text = "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in document.items())
    try:
        assume(strict_yaml.parse(text.encode()) == (document or None))
    except strict_yaml.FaultError:
        assume(False)
    places = {fault.path for fault in faults_in(text)}
    with pytest.raises(ConfigError) as caught:
        parse_plan(document or None)
    assert {fault.partition(": ")[0].replace("the plan", "") for fault in caught.value.faults} == places
