"""The sections about pace: what they read, what they refuse and with which words, and the examples of the guide."""

from __future__ import annotations

import re
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator import strict_yaml
from orchestrator.core.pace.ramp import Ramp
from orchestrator.core.pace.requirement import Consent, ConsentRule, Link, Requirements, Unknown
from orchestrator.core.pace.retry import Retry, RetryPolicy
from orchestrator.core.pace.window import EVERY_DAY, WEEKDAYS, Freeze, Window, Windows
from orchestrator.plans.faults import sentence
from orchestrator.plans.hours import Day, Factor, Hours, ZoneName
from orchestrator.plans.pace import (
    ConsentBody,
    FreezeBody,
    QuarantineBody,
    RampBody,
    RequireBody,
    RetryBody,
    WindowBody,
    to_retries,
    to_windows,
)
from orchestrator.plans.section import Section

GUIDE = (Path(__file__).parents[2] / "docs" / "pace.md").read_text(encoding="utf-8")
SECTIONS: dict[str, type[Section]] = {
    "window": WindowBody,
    "freeze": FreezeBody,
    "ramp": RampBody,
    "require": RequireBody,
    "consent": ConsentBody,
    "retry": RetryBody,
    "quarantine": QuarantineBody,
}


def refused(section: type[Section], document: object) -> str:
    with pytest.raises(ValidationError) as error:
        section.model_validate(document)
    return " / ".join(sentence(fault) for fault in error.value.errors())


def test_the_defaults_are_those_of_the_core() -> None:
    assert to_windows(WindowBody(), ()) == Windows()
    assert RequireBody().to_core() == Requirements()
    assert ConsentBody().to_core() == ConsentRule()
    assert to_retries(RetryBody(), QuarantineBody()) == RetryPolicy()


def test_windows_and_freezes() -> None:
    window = WindowBody.model_validate({"open": ["Mon-Fri 22:00-04:00"], "fallback": "Europe/Berlin"})
    freeze = FreezeBody.model_validate({"first": "1970-01-02", "last": "1970-01-02", "why": "the fair"})
    night = Window(22 * 3600, 4 * 3600, frozenset({0, 1, 2, 3, 4}))
    assert to_windows(window, (freeze,)) == Windows((night,), (Freeze(1, 1, "the fair"),), "Europe/Berlin")


def test_the_other_sections_say_everything_that_the_core_can_be_told() -> None:
    require = {
        "battery": "29%",
        "charging": True,
        "free": "1MiB",
        "links": ["wifi"],
        "unmetered": True,
        "uptime": "10m",
        "max_age": "2h",
        "unknown": "allow",
    }
    wanted = Requirements(29, True, 2**20, frozenset({Link.WIFI}), True, 600.0, 7200.0, Unknown.ALLOW)
    assert RequireBody.model_validate(require).to_core() == wanted
    assert len(require) == len(fields(Requirements))
    ramp = RampBody.model_validate({"start": 60, "factor": 3, "cap": 600, "every": "5m"})
    assert ramp.to_core() == Ramp(60, 3.0, 600, 300.0)
    consent = ConsentBody.model_validate({"mode": "ask", "deferrals": 0, "longest": "1d"})
    assert consent.to_core() == ConsentRule(Consent.ASK, 0, 86_400.0)


def test_a_part_of_a_retry_keeps_the_defaults_of_its_class() -> None:
    retry = RetryBody.model_validate({"suspicious": {"attempts": 2}, "transient": {"longest": "5m", "jitter": "0%"}})
    policy = to_retries(retry, QuarantineBody.model_validate({"after": 5}))
    assert policy.suspicious == Retry(2, 3600.0)
    assert policy.transient == Retry(5, 300.0, 2.0, 300.0, 0.0)
    assert policy.quarantine_after == 5


@pytest.mark.parametrize(
    ("section", "document", "text"),
    [
        (FreezeBody, {"first": "2026-12-24", "last": "2026-12-23", "why": "x"}, "the last day is before the first one"),
        (RampBody, {"start": 60, "cap": 59}, "the cap 59 is below the start 60"),
        (RetryBody, {"transient": {"longest": "299s"}}, "the longest wait is shorter than the first one"),
        (WindowBody, {"open": ["Mon-Fri 22:00-25:00"]}, "'Mon-Fri 22:00-25:00' are no hours; write a time of day"),
        (WindowBody, {"open": [1320]}, "1320 are no hours"),
        (WindowBody, {"fallback": "Berlin"}, "'Berlin' is no time zone; write a name of the IANA database"),
        (WindowBody, {"close": []}, "unknown key"),
        (RequireBody, {"battery": 30}, "30 is not allowed; write a percentage"),
        (RequireBody, {"free": 1024}, "1024 is not allowed; write a size"),
        (RequireBody, {"links": ["radio"]}, "'radio' is not allowed; write 'wifi', 'ethernet' or 'cellular'"),
        (RampBody, {"start": 0, "cap": 1}, "0 is not allowed; write at least 1"),
        (RampBody, {"start": 1, "cap": 1, "factor": 0.5}, "0.5 is not allowed; write a number from 1 to 100"),
    ],
)
def test_what_cannot_be_meant_is_refused(section: type[Section], document: object, text: str) -> None:
    assert text in refused(section, document)


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("22:00-04:00", Window(79_200, 14_400)),
        ("00:00-24:00", Window(0, 86_400)),
        ("Mon 08:30-17:00", Window(30_600, 61_200, frozenset({0}))),
        ("Sat,Sun 00:00-24:00", Window(0, 86_400, frozenset({5, 6}))),
        ("Fri-Mon 01:00-02:00", Window(3600, 7200, frozenset({4, 5, 6, 0}))),
        ("Mon-Tue,Thu 01:00-02:00", Window(3600, 7200, frozenset({0, 1, 3}))),
        ("Tue-Mon 01:00-02:00", Window(3600, 7200, EVERY_DAY)),
    ],
)
def test_hours(text: str, window: Window) -> None:
    assert Hours().read(text) == window


clocks = st.tuples(st.integers(0, 23), st.integers(0, 59))


@given(clocks, clocks | st.just((24, 0)), st.frozensets(st.sampled_from(WEEKDAYS)))
def test_hours_are_read_as_they_are_written(begin: tuple[int, int], end: tuple[int, int], days: frozenset[str]) -> None:
    named = ",".join(sorted(days)) + " " if days else ""
    window = Hours().read(f"{named}{begin[0]:02}:{begin[1]:02}-{end[0]:02}:{end[1]:02}")
    assert (window.begins_s, window.ends_s) == (begin[0] * 3600 + begin[1] * 60, end[0] * 3600 + end[1] * 60)
    assert window.days == (frozenset(map(WEEKDAYS.index, days)) or EVERY_DAY)


@given(st.dates())
def test_days_are_read_as_they_are_written(day: date) -> None:
    assert Day().read(day.isoformat()) == (day - date(1970, 1, 1)).days


JUNK = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.lists(st.integers())
NEARLY = st.text(alphabet="0123456789:-, MonTueSat\n", max_size=20)


@given(JUNK | NEARLY, st.sampled_from((Hours(), Day(), ZoneName(), Factor())))
def test_a_value_is_read_or_refused_in_words(value: Any, kind: Hours | Day | ZoneName | Factor) -> None:
    try:
        kind.read(value)
    except ValueError as error:
        assert "; write " in str(error) and len(str(error)) < 400


@given(JUNK | NEARLY)
def test_what_the_schema_refuses_is_not_read(value: Any) -> None:
    schema = WindowBody.model_json_schema()
    try:
        WindowBody.model_validate({"open": [value]})
    except ValidationError:
        return
    jsonschema.validate({"open": [value]}, schema)


@pytest.mark.parametrize("day", ["2026-02-29", "2026-13-01", "20261224", "2026-12-24T00:00", date(2026, 12, 24), None])
def test_what_is_no_day_is_refused(day: object) -> None:
    with pytest.raises(ValueError, match='is no day; write year, month and day in quotes, such as "2026-12-24"'):
        Day().read(day)


def test_every_key_says_in_the_schema_what_it_does() -> None:
    for section in SECTIONS.values():
        schema = section.model_json_schema()
        for part in (schema, *schema.get("$defs", {}).values()):
            for key, value in part.get("properties", {}).items():
                assert value.get("description"), key


def examples() -> list[tuple[str, Any]]:
    blocks = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    return [pair for block in blocks for pair in strict_yaml.parse(block.encode()).items()]


@pytest.mark.parametrize(("key", "value"), [pytest.param(key, value, id=key) for key, value in examples()])
def test_every_example_of_the_guide_is_a_section(key: str, value: Any) -> None:
    if key == "jitter":
        assert value == "10m"
        return
    documents = value if key == "freeze" else [value]
    for document in documents:
        section = SECTIONS[key].model_validate(document)
        jsonschema.validate(document, SECTIONS[key].model_json_schema())
        assert set(document) == set(type(section).model_fields) or key == "retry", "an example shows every key"


def test_every_section_has_its_example() -> None:
    assert {key for key, _ in examples()} == {*SECTIONS, "jitter"}
