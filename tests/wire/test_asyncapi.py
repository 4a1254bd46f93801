"""`docs/asyncapi.yaml`: the topics are those of the code, its schemas take what we encode and nothing that we refuse.

Rules:
- Patterns are those of ECMA-262, as JSON Schema wants it: `$` is the end, and not before a last line feed.
- Claims are judged by the golden vectors, which neither the code nor the document made.
- What AsyncAPI demands of a document is checked here as far as we use it: no package holds its schema.
"""

from __future__ import annotations

import base64
import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.errors import PayloadError
from orchestrator.wire import events, report, topics
from orchestrator.wire.topics import Channel
from tests.golden import kit, make_vectors
from tests.wire.test_report import HELLO, REPORT, STATE, hellos, json_values, reports

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT: dict[str, Any] = yaml.safe_load((DOCS / "asyncapi.yaml").read_text(encoding="utf-8"))
CHANNELS: dict[str, dict[str, Any]] = DOCUMENT["channels"]
COMPONENTS: dict[str, dict[str, Any]] = DOCUMENT["components"]
PLACE = re.compile(r"\{(\w+)\}")

TOPICS = {
    "command": topics.command("{device}"),
    "group_command": topics.group_command("{group}"),
    "beat_of": topics.beat_of("{group}"),
    "keyset": topics.keyset(7).replace("7", "{epoch}"),
    "event": topics.event("{object}.{what}"),
    **{f"uplink {channel}": topics.uplink("{device}", channel) for channel in Channel},
}
"""Every topic that `topics` makes, by the function that makes it."""
COMPARED = {
    "beat-eight-days",
    "beat-ends-before-issue",
    "warrant-thirty-one-days",
    "ends-before-issue",
    "expiry-at-issue",
    "expiry-before-issue",
    "expiry-401-days",
    "statement-expiry",
}
"""Vectors that are wrong only in how two times compare, which a schema cannot say."""

VECTORS = [vector for vector in make_vectors.read() if vector["call"] in ("bundle", "keyset", "beat")]
GOOD = [vector for vector in VECTORS if "reason" not in vector["expected"]]
BAD = [vector for vector in VECTORS if vector["expected"].get("reason") in ("missing_field", "bad_field")]


def _as_ecma(_: Any, pattern: str, value: object, __: object) -> Iterator[jsonschema.ValidationError]:
    if isinstance(value, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), value):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")


Judge = jsonschema.validators.extend(jsonschema.Draft7Validator, {"pattern": _as_ecma})


def judge(schema: dict[str, Any]) -> Any:
    """Return what judges values by a schema of the document."""
    return Judge(schema | {"components": {"schemas": COMPONENTS["schemas"]}})


def resolve(reference: str) -> Any:
    """Return what a reference within the document means."""
    found: Any = DOCUMENT
    for word in reference.removeprefix("#/").split("/"):
        found = found[word]
    return found


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def lines_of(bundle: str) -> list[tuple[str, dict[str, Any]]]:
    """Return type and claims of the lines of a message that have claims of their own."""
    found = []
    for line in bundle.split("\n"):
        header, payload, _ = line.split(".")
        if payload:
            parts = [json.loads(base64.urlsafe_b64decode(part + "==").decode()) for part in (header, payload)]
            found.append((parts[0]["typ"], parts[1]))
    return found


def message_of(lines: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Return the message of the document that consists of such lines."""
    types = [typ for typ, _ in lines]
    found: list[dict[str, Any]] = [
        item for item in COMPONENTS["messages"].values() if [line["typ"] for line in item.get("x-lines", ())] == types
    ]
    assert len(found) == 1
    return found[0]


def faults_of(bundle: str) -> list[str]:
    """Return what the document has against a message of tokens, and against its claims."""
    lines = lines_of(bundle)
    message = message_of(lines)
    faults = [error.message for error in judge(message["payload"]).iter_errors(bundle)]
    for (_, claims), line in zip(lines, message["x-lines"], strict=True):
        faults += [error.message for error in judge(line["claims"]).iter_errors(claims)]
    return faults


def name(vector: dict[str, Any]) -> str:
    return str(vector["name"])


def test_the_channels_are_the_topics() -> None:
    assert sorted(channel["address"] for channel in CHANNELS.values()) == sorted(TOPICS.values())
    made = {called: inspect.signature(maker) for called, maker in inspect.getmembers(topics, inspect.isfunction)}
    makers = {called for called, signature in made.items() if signature.return_annotation == "str"}
    assert {called.split()[0] for called in TOPICS} == makers


@pytest.mark.parametrize("channel", CHANNELS.values(), ids=CHANNELS)
def test_what_stands_for_something_in_a_topic_is_explained(channel: dict[str, Any]) -> None:
    assert sorted(channel["parameters"]) == sorted(PLACE.findall(channel["address"]))
    filled = PLACE.sub(lambda place: example(channel["parameters"][place[1]]), channel["address"])
    if any(operation["action"] == "receive" for operation in operations_on(channel)):
        assert topics.uplink(*topics.parse_uplink(filled)) == filled
    else:
        sends = {operation["bindings"]["mqtt"]["retain"] for operation in operations_on(channel)}
        assert topics.may_lie_retained(filled) is (sends == {True} and not topics.is_command(filled))


def example(parameter: dict[str, Any]) -> str:
    found = resolve(parameter["$ref"]) if "$ref" in parameter else parameter
    return str((found.get("examples") or found["enum"])[0])


def operations_on(channel: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in DOCUMENT["operations"].values() if resolve(each["channel"]["$ref"]) is channel]


def test_every_type_of_event_has_its_topic() -> None:
    channel = CHANNELS["event"]
    objects, whats = (channel["parameters"][place]["enum"] for place in ("object", "what"))
    told = [kind.split(".") for kind in events.CATALOGUE]
    assert (set(objects), set(whats)) == ({kind[0] for kind in told}, {kind[1] for kind in told})
    assert (len(objects), len(whats)) == (len(set(objects)), len(set(whats)))


@given(reports)
def test_reports_that_we_encode_are_taken(message: report.Report) -> None:
    judge(COMPONENTS["schemas"]["Report"]).validate(json.loads(report.encode(message)))


@given(hellos)
def test_hellos_that_we_encode_are_taken(message: report.Hello) -> None:
    judge(COMPONENTS["schemas"]["Hello"]).validate(json.loads(report.encode(message)))


SAID: list[tuple[str, Callable[[bytes, str], object], dict[str, Any]]] = [
    ("Report", report.decode_report, REPORT),
    ("Hello", report.decode_hello, HELLO),
    ("State", report.decode_state, STATE),
]


@pytest.mark.parametrize(("schema", "decode", "base"), SAID)
@given(data=st.data())
def test_what_the_document_takes_the_daemon_takes(
    schema: str, decode: Callable[[bytes, str], object], base: dict[str, Any], data: st.DataObject
) -> None:
    members = st.sampled_from(sorted(COMPONENTS["schemas"][schema]["properties"]))
    values = json_values | st.sampled_from(
        ["running", "confirmed", "31.1", "d1\n", "\x7f", {"bat": 101}, {"Heat": 1}, -1]
    )
    message = base | data.draw(st.dictionaries(members, values, max_size=3))
    for member in data.draw(st.sets(st.sampled_from(sorted(base)), max_size=1)):
        del message[member]
    assume(message.get("dev", "d1") == "d1")
    judged = judge(COMPONENTS["schemas"][schema])
    try:
        payload = json.dumps(message, allow_nan=False).encode()
    except ValueError:  # no JSON holds such a number
        return
    if len(payload) <= report.MAX_REPORT_BYTES and judged.is_valid(message):
        decode(payload, "d1")


BROKEN: list[tuple[str, dict[str, Any]]] = [
    ("Report", {"v": 2}),
    ("Report", {"dev": "D1"}),
    ("Report", {"att": "31"}),
    ("Report", {"boot": "b" * 65}),
    ("Report", {"boot": "b\n"}),
    ("Report", {"n": -1}),
    ("Report", {"n": 2**53}),
    ("Report", {"kind": "exploded"}),
    ("Report", {"kind": "confirmed"}),
    ("Report", {"pct": 101}),
    ("Report", {"code": "Bad"}),
    ("Report", {"msg": "x" * 513}),
    ("Report", {"metrics": {"Heat": 1}}),
    ("Report", {"metrics": {"heat": "hot"}}),
    ("Report", {"metrics": {f"m{number}": 1 for number in range(17)}}),
    ("Report", {"facts": {"link": "pigeon"}}),
    ("Hello", {"model": "M 1"}),
    ("Hello", {"groups": ["G"]}),
    ("Hello", {"groups": [f"g{number}" for number in range(17)]}),
    ("Hello", {"facts": {"slot": 0}}),
    ("Hello", {"eps": "1"}),
    ("State", {"online": 1}),
]


@pytest.mark.parametrize(("schema", "change"), BROKEN)
def test_what_the_daemon_refuses_the_document_refuses(schema: str, change: dict[str, Any]) -> None:
    decode, base = next((decode, base) for known, decode, base in SAID if known == schema)
    judged = judge(COMPONENTS["schemas"][schema])
    assert judged.is_valid(base)
    assert not judged.is_valid(base | change)
    with pytest.raises(PayloadError):
        decode(json.dumps(base | change).encode(), "d1")


@pytest.mark.parametrize(("schema", "decode", "base"), SAID)
def test_what_must_be_there_is_the_same(
    schema: str, decode: Callable[[bytes, str], object], base: dict[str, Any]
) -> None:
    for member in base:
        less = {known: value for known, value in base.items() if known != member}
        assert not judge(COMPONENTS["schemas"][schema]).is_valid(less)
        with pytest.raises(PayloadError):
            decode(json.dumps(less).encode(), "d1")


@pytest.mark.parametrize("vector", GOOD, ids=name)
def test_tokens_that_devices_take_are_taken(vector: dict[str, Any]) -> None:
    assert faults_of(vector["bundle"]) == []


@pytest.mark.parametrize("vector", BAD, ids=name)
def test_claims_with_a_wrong_or_missing_field_are_refused(vector: dict[str, Any]) -> None:
    assert bool(faults_of(vector["bundle"])) is (vector["name"] not in COMPARED)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("bundle", kit.bundle() + b"\n"),
        ("bundle", kit.recalled()),
        ("bundle", kit.emergency()),
        ("emergency", kit.bundle()),
        ("recall", kit.bundle()),
        ("recall", kit.recalled()[:-1]),
        ("recall", b"{}"),
        ("beat", kit.beat_key.token(kit.beat()).replace(b".", b"..", 1)),
        ("keyset", kit.several(kit.roots[:2] * 5, kit.keyset())),
        ("clearance", b"x"),
    ],
)
def test_other_lines_than_a_message_has_are_refused(message: str, text: bytes) -> None:
    assert not judge(COMPONENTS["messages"][message]["payload"]).is_valid(text.decode())


def test_events_are_those_of_the_schema_that_is_shipped() -> None:
    payload = COMPONENTS["messages"]["event"]["payload"]
    assert payload["schemaFormat"] == "application/schema+json;version=draft-2020-12"
    path = DOCS / payload["schema"]["$ref"]
    assert json.loads(path.read_text(encoding="utf-8")) == events.schema()
    judged = jsonschema.Draft202012Validator(json.loads(path.read_text(encoding="utf-8")))
    (line, *_) = path.with_name("events.jsonl").read_text(encoding="utf-8").splitlines()
    assert judged.is_valid(json.loads(line))
    assert not judged.is_valid(json.loads(line) | {"id": 7})


@pytest.mark.parametrize("message", COMPONENTS["messages"].values(), ids=COMPONENTS["messages"])
def test_examples_are_such_messages(message: dict[str, Any]) -> None:
    for shown in message.get("examples", ()):
        judge(message["payload"]).validate(shown["payload"])


def test_references_lead_somewhere_and_everything_is_used() -> None:
    found = set(references(DOCUMENT))
    for reference in found:
        assert resolve(reference) if reference.startswith("#/") else (DOCS / reference).is_file(), reference
    for kind in ("messages", "parameters", "schemas", "securitySchemes"):
        for known in COMPONENTS[kind]:
            assert f"#/components/{kind}/{known}" in found


def test_the_schemas_are_schemas() -> None:
    for schema in COMPONENTS["schemas"].values():
        Judge.check_schema(schema)


def test_each_operation_is_on_a_channel_and_sends_its_messages() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert set(DOCUMENT) == {
        *("asyncapi", "id", "info", "defaultContentType", "servers", "channels", "operations", "components")
    }
    said = set()
    for operation in DOCUMENT["operations"].values():
        assert set(operation) == {"action", "channel", "summary", "messages", "bindings"}
        assert operation["action"] in ("send", "receive")
        channel = operation["channel"]["$ref"]
        assert re.fullmatch(r"#/channels/\w+", channel)
        messages = [message["$ref"] for message in operation["messages"]]
        assert all(message.startswith(f"{channel}/messages/") for message in messages)
        said.update(messages)
    assert said == {
        f"#/channels/{key}/messages/{each}" for key, channel in CHANNELS.items() for each in channel["messages"]
    }
