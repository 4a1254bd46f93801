"""The schema is the one in the documents, says everything, and draws the same line as the model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, validators
from pydantic import ValidationError

from orchestrator import plans, strict_yaml
from orchestrator.core.targeting import selector
from orchestrator.errors import RequestError
from orchestrator.plans import zones
from orchestrator.plans.hours import Day
from orchestrator.plans.model import PlanBody
from orchestrator.plans.read import sections
from tests.plans.shapes import VALUES, made, mutated

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SCHEMA = plans.schema()
MODELINE = "# yaml-language-server: $schema=plan.schema.json\n"


def _ecma(_: Any, pattern: str, value: object, __: Any) -> Iterator[jsonschema.ValidationError]:
    """Match as ECMA 262 does: `$` is the end of the text, never the newline before it."""
    if isinstance(value, str) and not re.search(pattern.replace("$", r"\Z"), value):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern}")


VALIDATOR = validators.extend(Draft202012Validator, {"pattern": _ecma})(SCHEMA)


def holds(document: Any) -> bool:
    try:
        PlanBody.model_validate(document)
    except ValidationError:
        return False
    return True


def cannot_be_said(document: Any) -> str:
    """Return which of the things a document holds that no schema can tell apart, or an empty text."""
    stages = document.get("stages") if isinstance(document, dict) else None
    for stage in stages[:-1] if isinstance(stages, list) else ():
        if isinstance(stage, dict) and stage.get("devices") == "rest" and stage.get("group") is None:
            return "rest before the last stage"
    if isinstance(document, dict) and isinstance(text := document.get("select"), str) and not _is_selector(text):
        return "a selector that is none"
    if text := _has_no_such(document):
        return text
    return "a whole number with a fraction" if _has_whole_float(document) else ""


def _has_no_such(value: Any) -> str:
    """Return what a document names that does not exist, or that ends before it begins."""
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if text := _has_no_such(inner):
            return text
    if not isinstance(value, dict):
        return ""
    if isinstance(zone := value.get("fallback"), str) and not zones.is_zone(zone):
        return "a zone that is none"
    if any(isinstance(value.get(key), str) and not _is_day(value[key]) for key in ("first", "last")):
        return "a day that is none"
    return "an end before its beginning" if _ends_early(value) else ""


def _ends_early(value: dict[str, Any]) -> bool:
    first, last = value.get("first"), value.get("last")
    start, cap = value.get("start"), value.get("cap")
    if isinstance(first, str) and isinstance(last, str):
        return last < first
    if isinstance(start, int) and isinstance(cap, int):
        return cap < start
    return "wait" in value or "longest" in value  # what is left out has the default of its class


def _is_day(text: str) -> bool:
    try:
        Day().read(text)
    except ValueError:
        return False
    return True


def _is_selector(text: str) -> bool:
    try:
        selector.parse(text)
    except RequestError:
        return False
    return True


def _has_whole_float(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_has_whole_float, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and value.is_integer()


def test_it_is_the_one_in_the_documents() -> None:
    kept = (EXAMPLES / "plan.schema.json").read_text(encoding="utf-8")
    assert kept == plans.schema_text(), "write it anew: ota rollout schema > docs/examples/plan.schema.json"


def test_it_is_a_schema_of_its_dialect() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_every_key_is_described_and_every_default_is_one_that_could_be_written() -> None:
    for _, section in sections():
        part = SCHEMA if section is PlanBody else SCHEMA["$defs"][section.__name__]
        assert set(part["properties"]) == set(section.model_fields)
        for key, value in part["properties"].items():
            assert value["description"].endswith("."), key
            assert ("default" in value) != (key in part["required"] if "required" in part else False), key
            if "default" in value:
                assert VALIDATOR.evolve(schema=value | {"$defs": SCHEMA["$defs"]}).is_valid(value["default"]), key


def test_writing_all_defaults_changes_nothing() -> None:
    least: dict[str, Any] = {"name": "a", "release": "b", "stages": [{"devices": "rest"}]}
    written: dict[str, Any] = {
        key: value["default"] for key, value in SCHEMA["properties"].items() if "default" in value
    }
    for key, value in SCHEMA["properties"].items():
        if "$ref" in value and "properties" in (part := SCHEMA["$defs"][value["$ref"].rpartition("/")[2]]):
            written[key] = {inner: field["default"] for inner, field in part["properties"].items()}
    assert plans.parse_plan(least | written) == plans.parse_plan(least)


@pytest.mark.parametrize("name", plans.TEMPLATES)
def test_templates_are_valid_and_name_the_schema(name: str) -> None:
    text = plans.template(name)
    assert text.startswith(MODELINE)
    assert list(VALIDATOR.iter_errors(strict_yaml.parse(text.encode()))) == []


def test_the_example_is_valid_and_names_the_schema() -> None:
    data = (EXAMPLES / "plan.yaml").read_bytes()
    assert data.decode().startswith(MODELINE)
    assert list(VALIDATOR.iter_errors(strict_yaml.parse(data))) == []


@pytest.mark.parametrize(
    ("changes", "exception"),
    [
        ({"stages": [{"devices": "rest"}, {"devices": 5}]}, "rest before the last stage"),
        ({"select": "and and"}, "a selector that is none"),
        ({"in_flight": 100.0}, "a whole number with a fraction"),
        ({"window": {"fallback": "Berlin"}}, "a zone that is none"),
        ({"freeze": [{"first": "2026-02-30", "last": "2026-03-01", "why": "x"}]}, "a day that is none"),
        ({"freeze": [{"first": "2026-03-02", "last": "2026-03-01", "why": "x"}]}, "an end before its beginning"),
        ({"ramp": {"start": 60, "cap": 59}}, "an end before its beginning"),
        ({"retry": {"transient": {"longest": "299s"}}}, "an end before its beginning"),
    ],
)
def test_what_a_schema_cannot_say_the_model_does(changes: dict[str, Any], exception: str) -> None:
    document = {"name": "a", "release": "b", "stages": [{"devices": 1}]} | changes
    assert (VALIDATOR.is_valid(document), holds(document)) == (True, False)
    assert cannot_be_said(document) == exception


def with_key(place: tuple[str | int, ...], key: str, value: Any) -> Any:
    """Return the least plan with one more key; a place in the stages is one in the only stage."""
    document: dict[str, Any] = {"name": "a", "release": "b", "stages": [{"devices": 1}]}
    part = document
    for step in place:
        part = document["stages"][0] if step == "stages" else part.setdefault(str(step), {})
    part[key] = value
    return document


@pytest.mark.parametrize(
    ("place", "key"), [(place, key) for place, section in sections() for key in section.model_fields]
)
def test_both_draw_the_same_line_at_the_limits_of_each_key(place: tuple[str | int, ...], key: str) -> None:
    for value in VALUES:
        document = with_key(place, key, value)
        if not cannot_be_said(document):
            assert VALIDATOR.is_valid(document) is holds(document), value


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(made(SCHEMA))
def test_what_the_schema_describes_the_model_accepts(document: Any) -> None:
    assert VALIDATOR.is_valid(document)
    assert holds(document) or cannot_be_said(document)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated(made(SCHEMA)) | st.dictionaries(st.sampled_from(sorted(SCHEMA["properties"])), st.text(max_size=4)))
def test_both_draw_the_same_line(document: Any) -> None:
    accepted = VALIDATOR.is_valid(document)
    event("accepted" if accepted else "refused")
    if exception := cannot_be_said(document):
        event(exception)
        assert accepted or not holds(document)
    else:
        assert accepted is holds(document)
