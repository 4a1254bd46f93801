from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import strict_yaml


def test_plain_values() -> None:
    data = b"a: 1\nb: [x, 2.5, null]\nc: {d: true}\n"
    assert strict_yaml.parse(data) == {"a": 1, "b": ["x", 2.5, None], "c": {"d": True}}


def test_nothing_is_none() -> None:
    assert strict_yaml.parse(b"# only a comment\n") is None


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"a: 1\nb: 2\na: 3\n", "line 3: duplicate key 'a'"),
        (b"a:\n  b: 1\n  b: 1\n", "line 3: duplicate key 'b'"),
        (b"a: &x 1\nb: *x\n", "line 1: anchors and aliases are not allowed"),
        (b"a: *x\n", "line 1: anchors and aliases are not allowed"),
        (b"a: !!python/name:os.system 1\n", "line 1: tags are not allowed"),
        (b"a: !mine 1\n", "line 1: tags are not allowed"),
        (b"<<: {a: 1}\n", "line 1: a key must be text; quote it"),
        (b"1: a\n", "line 1: a key must be text; quote it"),
        (b"? [a]\n: b\n", "line 1: a key must be text; quote it"),
        (b"a: 1\n--- \nb: 2\n", "line 2: but found another document"),
        (b"a: [1\nb: 2\n", "line 2: "),
        (b"\ta: 1\n", "line 1: "),
        (b"[" * 17 + b"]" * 17, "line 1: more than 16 levels"),
        (b"a: \xff\n", "byte 3 is not UTF-8"),
        (b"a: \x01\n", "not YAML: "),
        (b"#" * (strict_yaml.MAX_BYTES + 1), f"{strict_yaml.MAX_BYTES + 1} bytes; at most {strict_yaml.MAX_BYTES}"),
    ],
)
def test_traps_are_refused(data: bytes, fault: str) -> None:
    with pytest.raises(ValueError) as caught:
        strict_yaml.parse(data)
    assert str(caught.value).startswith(fault)
    assert "\n" not in str(caught.value)


def test_sixteen_levels_pass() -> None:
    assert strict_yaml.parse(b"[" * 16 + b"]" * 16) is not None


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_one_sentence(data: bytes) -> None:
    try:
        strict_yaml.parse(data)
    except ValueError as error:
        assert str(error)


def test_everything_has_its_place() -> None:
    document = strict_yaml.read(b"# head\na: 1\nb:\n  - {c: x}\n  -\nd:\n")
    assert document.value == {"a": 1, "b": [{"c": "x"}, None], "d": None}
    assert document.values == {
        (): (2, 1),
        ("a",): (2, 4),
        ("b",): (4, 3),
        ("b", 0): (4, 5),
        ("b", 0, "c"): (4, 9),
        ("b", 1): (5, 4),
        ("d",): (6, 1),
    }
    assert document.keys == {("a",): (2, 1), ("b",): (3, 1), ("b", 0, "c"): (4, 6), ("d",): (6, 1)}


def test_faults_that_leave_the_rest_readable_come_together() -> None:
    document = strict_yaml.read(b"a: 1\na: 2\n3: 4\nb: {c: 1, c: 2}\n")
    assert document.value == {"a": 1, "b": {"c": 1}}
    assert [(fault.problem, fault.mark) for fault in document.faults] == [
        ("duplicate key 'a'; it stands in line 1", (2, 1)),
        ("a key must be text; quote it", (3, 1)),
        ("duplicate key 'c'; it stands in line 4", (4, 11)),
    ]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b'a: 1\nb: "\\ud800"\n', "line 2: half of a surrogate pair is no text"),
        (b'a: 1\n"\\udc00": 1\n', "line 2: half of a surrogate pair is no text"),
        (b"a: 1\nb: %s\n" % (b"9" * 5000), "line 2: '999999999999999999999999999999999999999 is not understood: "),
    ],
)
def test_a_scalar_that_is_nothing_is_named(data: bytes, fault: str) -> None:
    with pytest.raises(strict_yaml.FaultError) as caught:
        strict_yaml.parse(data)
    assert str(caught.value).startswith(fault)


def test_a_day_is_the_text_that_was_written() -> None:
    assert strict_yaml.parse(b"a: 2026-12-20\nb: 2026-13-01\n") == {"a": "2026-12-20", "b": "2026-13-01"}
