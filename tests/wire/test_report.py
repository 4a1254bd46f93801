"""What devices say: round trips, every refusal by its code, and bytes of any kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.core.update import FactKind
from orchestrator.errors import PayloadError
from orchestrator.wire import report as wire
from orchestrator.wire.report import MAX_REPORT_BYTES, Hello, Kind, OwnFacts, Report, State
from orchestrator.wire.topics import is_identifier

Decode = Callable[[bytes, str], Any]

REPORT = {"v": 1, "dev": "d1", "att": "31.1", "boot": "b7", "n": 0, "kind": "accepted"}
HELLO = {"v": 1, "dev": "d1", "model": "m1"}
STATE = {"v": 1, "dev": "d1", "online": True}
DECODERS: list[tuple[Decode, dict[str, Any]]] = [
    (wire.decode_report, REPORT),
    (wire.decode_hello, HELLO),
    (wire.decode_state, STATE),
]

short = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=64)
counters = st.integers(0, 2**53 - 1)
percents = st.none() | st.integers(0, 100)
identifiers = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)
own_facts = st.builds(
    OwnFacts,
    bat=percents,
    charging=st.none() | st.booleans(),
    free=st.none() | counters,
    slot=st.none() | st.integers(1, 2**53 - 1),
    link=st.none() | st.sampled_from(["wifi", "ethernet", "cellular"]),
    metered=st.none() | st.booleans(),
    uptime=st.none() | counters,
    agreed=st.none() | st.booleans(),
    later=st.none() | counters,
)
measured = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True),
    st.floats(allow_nan=False, allow_infinity=False),
    max_size=16,
)
reports = st.builds(
    Report,
    v=st.just(1),
    dev=identifiers,
    att=st.from_regex(r"[1-9][0-9]{0,17}\.[1-9][0-9]{0,3}", fullmatch=True),
    boot=short,
    n=counters,
    kind=st.sampled_from(Kind),
    ver=short,
    rel=counters,
    seq=st.none() | counters,
    pct=percents,
    code=st.just("") | st.from_regex(r"[a-z][a-z0-9_]{0,47}", fullmatch=True),
    msg=st.text(st.characters(exclude_categories=["Cs"]), max_size=512),
    boots=st.none() | counters,
    bat=percents,
    sha=short,
    facts=st.none() | own_facts,
    metrics=measured,
)
hellos = st.builds(
    Hello,
    v=st.just(1),
    dev=identifiers,
    model=identifiers,
    ver=short,
    rel=counters,
    boot=short,
    boots=st.none() | counters,
    groups=st.lists(identifiers, max_size=16).map(tuple),
    bat=percents,
    facts=st.none() | own_facts,
    metrics=measured,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def said(base: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps(base | changes).encode()


def without(base: dict[str, Any], member: str) -> bytes:
    return json.dumps({name: value for name, value in base.items() if name != member}).encode()


def refusal(decode: Decode, payload: bytes, device: str = "d1") -> str:
    with pytest.raises(PayloadError) as refused:
        decode(payload, device)
    return refused.value.code


@given(reports)
def test_reports_round_trip(report: Report) -> None:
    payload = wire.encode(report)
    assume(len(payload) <= MAX_REPORT_BYTES)
    assert wire.decode_report(payload, report.dev) == report


@given(hellos)
def test_hellos_round_trip(hello: Hello) -> None:
    payload = wire.encode(hello)
    assume(len(payload) <= MAX_REPORT_BYTES)
    assert wire.decode_hello(payload, hello.dev) == hello


@pytest.mark.parametrize("online", [True, False])
def test_states_round_trip(online: bool) -> None:
    state = State(v=1, dev="d1", online=online)
    assert wire.encode(state) == b'{"v":1,"dev":"d1","online":%s}' % str(online).lower().encode()
    assert wire.decode_state(wire.encode(state), "d1") == state


def test_what_is_not_said_is_not_sent() -> None:
    report = Report(v=1, dev="d1", att="31.1", boot="b7", n=0, kind=Kind.ACCEPTED)
    assert json.loads(wire.encode(report)) == REPORT
    assert json.loads(wire.encode(Hello(v=1, dev="d1", model="m1"))) == HELLO


def test_an_attempt_names_update_and_number() -> None:
    report = wire.decode_report(said(REPORT, att="123456789012345678.9999"), "d1")
    assert report.named == (123456789012345678, 9999)


def test_every_kind_of_report_is_a_fact() -> None:
    assert {str(kind) for kind in Kind} <= {str(kind) for kind in FactKind}


def test_a_full_report_fits() -> None:
    report = Report(
        v=1,
        dev="d" * 64,
        att="123456789012345678.9999",
        boot="b" * 64,
        n=2**53 - 1,
        kind=Kind.ROLLED_BACK,
        ver="v" * 64,
        rel=2**53 - 1,
        seq=2**53 - 1,
        pct=100,
        code="c" * 48,
        msg="m" * 512,
        boots=2**53 - 1,
        bat=100,
        sha="s" * 64,
    )
    payload = wire.encode(report)
    assert len(payload) < MAX_REPORT_BYTES
    assert wire.decode_report(payload, "d" * 64) == report


@pytest.mark.parametrize(("decode", "base"), DECODERS)
def test_members_of_a_later_format_are_ignored(decode: Decode, base: dict[str, Any]) -> None:
    assert decode(said(base, later={"deep": [1, 2]}), "d1") == decode(said(base), "d1")


@pytest.mark.parametrize(("decode", "base"), DECODERS)
def test_size_is_judged_before_anything_else(decode: Decode, base: dict[str, Any]) -> None:
    room = MAX_REPORT_BYTES - len(said(base))
    assert decode(said(base) + b" " * room, "d1") == decode(said(base), "d1")
    assert refusal(decode, said(base) + b" " * (room + 1)) == "oversize"
    assert refusal(decode, b"\xff" * 5000) == "oversize"


@pytest.mark.parametrize(("decode", "base"), DECODERS)
@pytest.mark.parametrize("payload", [b"", b"{", b"null", b"[]", b"1", b"\xff\xfe", b"\x00", b"[" * 2048, b'{"v":1}'])
def test_malformed(decode: Decode, base: dict[str, Any], payload: bytes) -> None:
    assert refusal(decode, payload) == "malformed"
    assert refusal(decode, said(base) + b"{}") == "malformed"
    assert refusal(decode, b"\xef\xbb\xbf" + said(base)) == "malformed"


@pytest.mark.parametrize(("decode", "base"), DECODERS)
def test_every_member_that_is_needed_is_missed(decode: Decode, base: dict[str, Any]) -> None:
    assert {refusal(decode, without(base, member)) for member in base} == {"malformed"}


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 0},
        {"v": 2},
        {"v": "1"},
        {"v": True},
        {"n": -1},
        {"n": 2**53},
        {"n": 1.5},
        {"n": "0"},
        {"rel": -1},
        {"seq": 2**53},
        {"pct": 101},
        {"pct": -1},
        {"bat": 101},
        {"boots": -1},
        {"kind": "pending"},
        {"kind": "Accepted"},
        {"kind": None},
        {"dev": 1},
        {"att": "1" * 65},
        {"boot": "b" * 65},
        {"ver": "v" * 65},
        {"sha": "s" * 65},
        {"code": "c" * 49},
        {"msg": "m" * 513},
        {"msg": None},
    ],
    ids=str,
)
def test_members_out_of_range(changes: dict[str, Any]) -> None:
    assert refusal(wire.decode_report, said(REPORT, **changes)) == "malformed"


def test_a_surrogate_alone_is_no_text() -> None:
    assert refusal(wire.decode_report, said(REPORT, msg="x").replace(b'"x"', b'"\\ud800"')) == "malformed"


@pytest.mark.parametrize(("decode", "base"), DECODERS)
@pytest.mark.parametrize("device", ["d2", "D1", "d1 ", "d", ""])
def test_nobody_speaks_for_another_device(decode: Decode, base: dict[str, Any], device: str) -> None:
    assert refusal(decode, said(base), device) == "foreign_device"


@pytest.mark.parametrize(
    "attempt", ["", "31", "31.", ".1", "0.1", "31.0", "031.1", "31.01", "-1.1", "31.1.1", "a.b", "１.1"]
)
def test_bad_attempts(attempt: str) -> None:
    assert refusal(wire.decode_report, said(REPORT, att=attempt)) == "bad_attempt"


@pytest.mark.parametrize("attempt", ["1234567890123456789.1", "31.10000"])
def test_attempts_that_no_column_holds(attempt: str) -> None:
    assert refusal(wire.decode_report, said(REPORT, att=attempt)) == "bad_attempt"


@pytest.mark.parametrize("ensure_ascii", [True, False])
@pytest.mark.parametrize("word", ["\x00", "b\n", "\tb", "b\x1fb", "\x7f"])
def test_words_stay_on_one_line(word: str, ensure_ascii: bool) -> None:
    for decode, base, fields in (
        (wire.decode_report, REPORT, ("boot", "ver", "sha", "att")),
        (wire.decode_hello, HELLO, ("ver", "boot")),
    ):
        for name in fields:
            payload = json.dumps(base | {name: word}, ensure_ascii=ensure_ascii).encode()
            assert refusal(decode, payload) == "malformed"
    assert refusal(wire.decode_hello, said(HELLO, groups=[word])) == "malformed"


@pytest.mark.parametrize("word", ['a"b', "a\\b", "é\u2028", "😀"])
def test_words_may_hold_anything_else(word: str) -> None:
    assert wire.decode_report(said(REPORT, ver=word), "d1").ver == word


@pytest.mark.parametrize("code", ["No_space", "no space", "no-space", "1st", "_x", "x\n", "é"])
def test_bad_codes(code: str) -> None:
    assert refusal(wire.decode_report, said(REPORT, kind="failed", code=code)) == "bad_code"


@pytest.mark.parametrize("kind", list(Kind))
def test_health_must_say_what_runs(kind: Kind) -> None:
    if kind in (Kind.RUNNING, Kind.CONFIRMED):
        assert refusal(wire.decode_report, said(REPORT, kind=kind)) == "missing_rel"
    assert wire.decode_report(said(REPORT, kind=kind, rel=0), "d1").kind is kind


@pytest.mark.parametrize(
    "changes",
    [{"model": "ESP32"}, {"model": ""}, {"model": "a/b"}, {"groups": ["lab", "#"]}, {"groups": [""]}],
    ids=str,
)
def test_models_and_groups_are_identifiers(changes: dict[str, Any]) -> None:
    assert refusal(wire.decode_hello, said(HELLO, **changes)) == "bad_identifier"


@pytest.mark.parametrize("changes", [{"groups": ["g"] * 17}, {"groups": "lab"}, {"bat": 101}, {"rel": -1}], ids=str)
def test_hellos_out_of_range(changes: dict[str, Any]) -> None:
    assert refusal(wire.decode_hello, said(HELLO, **changes)) == "malformed"


@pytest.mark.parametrize("online", [None, 0, 1, "true"])
def test_a_state_is_true_or_false(online: Any) -> None:
    assert refusal(wire.decode_state, said(STATE, online=online)) == "malformed"


@given(st.binary(max_size=300))
@pytest.mark.parametrize("decode", [decode for decode, _ in DECODERS])
def test_any_bytes_are_refused_with_a_reason(decode: Decode, payload: bytes) -> None:
    assert refusal(decode, payload) in {"malformed", "foreign_device"}


@given(json_values, st.data())
@pytest.mark.parametrize(("decode", "base"), DECODERS)
def test_any_value_in_any_member_is_taken_whole_or_refused(
    decode: Decode, base: dict[str, Any], value: Any, data: st.DataObject
) -> None:
    member = data.draw(st.sampled_from(sorted({*base, "rel", "pct", "bat", "code", "msg", "groups", "boots"})))
    try:
        found = decode(said(base, **{member: value}), "d1")
    except PayloadError as error:
        assert error.code in {"malformed", "oversize", "foreign_device", "bad_attempt", "bad_code", "bad_identifier"}
    else:
        assert found.dev == "d1"
        assert is_identifier(getattr(found, "model", "m1"))


@given(st.data())
@pytest.mark.parametrize(("decode", "base"), DECODERS)
def test_cut_and_changed_messages_never_break_the_decoder(
    decode: Decode, base: dict[str, Any], data: st.DataObject
) -> None:
    payload = bytearray(said(base))
    for at in data.draw(st.lists(st.integers(0, len(payload) - 1), max_size=4)):
        payload[at] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(payload[: data.draw(st.integers(0, len(payload)))]), "d1")
    except PayloadError as error:
        assert error.message


@pytest.mark.parametrize(
    "facts",
    [
        {"bat": 101},
        {"bat": -1},
        {"slot": 0},
        {"free": 2**53},
        {"link": "radio"},
        {"metered": 1},
        {"later": -1},
        {"uptime": 1.5},
        [],
        "wifi",
    ],
)
@pytest.mark.parametrize(("decode", "known"), DECODERS[:2])
def test_facts_out_of_bounds_are_refused(decode: Decode, known: dict[str, Any], facts: object) -> None:
    with pytest.raises(PayloadError) as caught:
        decode(json.dumps(known | {"facts": facts}).encode(), "d1")
    assert caught.value.code == "malformed"


@pytest.mark.parametrize(("decode", "known"), DECODERS[:2])
def test_facts_that_are_not_known_are_ignored_and_none_are_needed(decode: Decode, known: dict[str, Any]) -> None:
    assert decode(json.dumps(known).encode(), "d1").facts is None
    assert decode(json.dumps(known | {"facts": {"bat": 7, "mood": "good"}}).encode(), "d1").facts == OwnFacts(bat=7)


@pytest.mark.parametrize(("decode", "base"), DECODERS[:2])
@pytest.mark.parametrize(
    "metrics",
    [
        None,
        [],
        {"Upper": 1},
        {"": 1},
        {"with space": 1},
        {"a\n": 1},
        {"a" * 33: 1},
        {"a": None},
        {"a": "1"},
        {"a": True},
        {"a": [1]},
        {f"m{at}": at for at in range(17)},
    ],
    ids=str,
)
def test_metrics_out_of_bounds_refuse_the_message(decode: Decode, base: dict[str, Any], metrics: object) -> None:
    assert refusal(decode, said(base, metrics=metrics)) == "malformed"


@pytest.mark.parametrize("number", ["1e999", "NaN", "Infinity", "-1e999"])
def test_a_number_that_no_double_holds_is_refused(number: str) -> None:
    payload = said(REPORT, metrics={"a": 1}).replace(b'"a": 1', f'"a": {number}'.encode())
    assert number.encode() in payload
    assert refusal(wire.decode_report, payload) == "malformed"


def test_what_is_kept_for_a_person_holds_text_and_numbers() -> None:
    report = wire.decode_report(said(REPORT, msg="warm", metrics={"temperature": 61.5, "p95": 80}), "d1")
    assert report.said == "warm; temperature=61.5, p95=80"
