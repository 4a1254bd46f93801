"""The selector language: what each form means, what a database may rely on, and how faults are shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model import Device
from orchestrator.core.targeting import selector
from orchestrator.core.targeting.selector import MAX_CHARS, MAX_DEPTH, MAX_VALUES, SelectorError, parse, version_key
from tests.support.builders import make_device

RADIO = make_device(
    "radio-7",
    "esp32-s3",
    ["lab", "night"],
    version="1.3.2",
    rel=13,
    revision="2.1",
    site="berlin-mitte",
    time_zone="Europe/Berlin",
    tags=("canary", "loud"),
    attributes={"region": "eu", "slots": "12", "note": 'say "hi"'},
)
BARE = make_device("bare", "m1", version="", rel=0)


def means(text: str, device: Device = RADIO) -> bool:
    return parse(text).matches(device)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("  ", True),
        ("model == esp32-s3", True),
        ('model == "esp32-s3"', True),
        ("model == esp32", False),
        ("model != esp32", True),
        ("id == radio-7", True),
        ("model in (esp32, esp32-s3)", True),
        ("model not in (esp32, esp32-s3)", False),
        ("model in (esp32)", False),
        ('site like "berlin-*"', True),
        ('site like "berlin"', False),
        ('site like "*[m]*"', False),
        ('site like "berlin-m?tte"', True),
        ('site not like "berlin-*"', False),
        ("time_zone == Europe/Berlin", True),
        ("version == 1.3.2", True),
        ("version < 1.4", True),
        ("version < 1.10", True),
        ("version <= 1.3.2", True),
        ("version >= 1.3.3", False),
        ("version > 1.3.2-rc.1", True),
        ("version in (1.3.1, 1.3.2)", True),
        ("version == 1.3.2.0", True),
        ("version == v1.3.2", True),
        ("revision >= 2", True),
        ("rel == 13", True),
        ("rel < 9", False),
        ("rel in (12, 13)", True),
        ("tag(canary)", True),
        ("tag(quiet)", False),
        ("group(lab)", True),
        ("not group(lab)", False),
        ("attr.region == eu", True),
        ('attr.region in ("eu", "us")', True),
        ("attr.slots > 9", True),
        ("attr.slots < 9", False),
        ("attr.slots == 12.0", False),
        ("attr.region > 9", False),
        ('attr.note == "say \\"hi\\""', True),
        ('attr.unknown == ""', True),
        ("attr.unknown != eu", True),
        ("attr.unknown < 1", False),
        ("not attr.unknown < 1", True),
        ("model == x or rel == 13 and tag(loud)", True),
        ("(model == x or rel == 13) and tag(quiet)", False),
        ("not model == x and not not tag(loud)", True),
    ],
)
def test_what_it_means(text: str, expected: bool) -> None:
    assert means(text) is expected


@pytest.mark.parametrize("test", ["version < 9", "version > 0", "version <= 9", "revision < 9", "attr.x > 0"])
def test_what_is_not_known_stands_in_no_order(test: str) -> None:
    assert not means(test, BARE)


def test_what_is_not_known_is_the_empty_text() -> None:
    assert means('version == "" and revision == "" and site == "" and attr.x == ""', BARE)
    assert means("version != 1.0 and site != berlin", BARE)


def test_versions_are_ordered_as_people_read_them() -> None:
    texts = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-rc.2", "1.0.0-rc.11", "1.0.0", "1.0.1", "1.2"]
    texts += ["1.10", "2", "10.0", "10.x"]
    keys = [version_key(text) for text in texts]
    assert keys == sorted(keys)  # type: ignore[type-var]
    assert len(set(keys)) == len(keys)
    assert version_key("1.4+build.7") == version_key("1.4.0") == version_key("v1.4")
    assert version_key("") is None


@pytest.mark.parametrize(
    ("text", "column", "what"),
    [
        ('model = "x"', 7, "write =="),
        ("model == x && site == y", 12, "write and"),
        ("!tag(x)", 1, "write not"),
        ("site == 'x'", 9, 'write "'),
        ("site < 3", 6, "site has no order"),
        ("model == x site == y", 12, '"and", "or" or the end'),
        ("(model == x", 12, "to close the bracket"),
        ("model", 6, "expected ==, !=,"),
        ("model not x", 11, 'expected "in" or "like"'),
        ("model in x", 10, '"(" after "in"'),
        ("model in (x y)", 13, '")" or ","'),
        ("model in ()", 11, "expected a value"),
        ("model == and", 10, "expected a value"),
        ("modell == x", 1, "there is no field modell"),
        ("and", 1, "expected a test"),
        ('"x" == model', 1, "expected a test"),
        ("attr.Region == x", 1, "lower case"),
        ("rel < x", 7, "ordered by number"),
        ("rel in (1, x)", 12, "is a number"),
        ("rel like 1", 10, "rel is a number"),
        ("site like x", 11, "a pattern in quotes"),
        ("tag", 4, "write tag(NAME)"),
        ("tag()", 5, "expected a value"),
        ("tag(x", 6, 'expected ")"'),
        ('site == "x', 9, "does not end"),
        ("site == x\x00", 10, "means nothing here"),
    ],
)
def test_a_fault_is_shown_under_a_caret(text: str, column: int, what: str) -> None:
    with pytest.raises(SelectorError) as caught:
        parse(text)
    first, shown, caret = caught.value.message.split("\n")
    assert first.startswith(f"column {column}: ")
    assert what in first
    assert shown == "  " + text.replace("\x00", " ")
    assert caret == " " * (column + 1) + "^"


def test_a_long_line_is_shown_around_the_fault() -> None:
    text = " or ".join(["model == x"] * 40) + " ! " + " or ".join(["model == x"] * 40)
    with pytest.raises(SelectorError) as caught:
        parse(text)
    _, shown, caret = caught.value.message.split("\n")
    assert len(shown) <= 122
    assert shown[len(caret) - 1] == "!"


def test_length_depth_and_values_are_bounded() -> None:
    with pytest.raises(SelectorError, match=f"at most {MAX_CHARS} characters"):
        parse(" " * (MAX_CHARS + 1))
    assert means("(" * (MAX_DEPTH - 1) + "rel == 13" + ")" * (MAX_DEPTH - 1))
    for deep in ("(" * MAX_DEPTH + "rel == 13" + ")" * MAX_DEPTH, "not " * MAX_DEPTH + "rel == 13"):
        with pytest.raises(SelectorError, match="nested deeper"):
            parse(deep)
    many = ",".join(["13"] * MAX_VALUES)
    assert means(f"rel in ({many})")
    with pytest.raises(SelectorError, match="more than 500 values"):
        parse(f"rel in ({many},14)")


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    hard = parse(f'attr.x like "{"a*" * 60}b"')
    assert not hard.matches(make_device(attributes={"x": "a" * 128}))


@given(st.text(max_size=80))
def test_any_text_is_a_selector_or_a_clear_fault(text: str) -> None:
    try:
        assert means(text) in (True, False)
    except SelectorError as error:
        assert len(error.message.split("\n")) == 3


MODELS, SITES = ("m1", "m2", "m3"), ("", "berlin", "paris")
TESTS = st.one_of(
    st.builds(lambda name: f"model == {name}", st.sampled_from(MODELS)),
    st.builds(lambda name: f"model != {name}", st.sampled_from(MODELS)),
    st.builds(lambda names: f"model in ({','.join(names)})", st.lists(st.sampled_from(MODELS), min_size=1, max_size=3)),
    st.builds(lambda name: f'site == "{name}"', st.sampled_from(SITES)),
    st.builds(lambda name: f'site not in ("{name}")', st.sampled_from(SITES)),
    st.builds(lambda rel: f"rel < {rel}", st.integers(0, 3)),
    st.sampled_from(["tag(a)", "tag(b)"]),
)
EXPRESSIONS = st.recursive(
    TESTS,
    lambda inner: st.one_of(
        st.builds(lambda one: f"not ({one})", inner),
        st.builds(lambda one, two: f"({one}) and {two}", inner, inner),
        st.builds(lambda one, two: f"({one} or {two})", inner, inner),
    ),
    max_leaves=6,
)
DEVICES = [
    make_device("d", model, site=site, rel=rel, tags=tags)
    for model in MODELS
    for site in SITES
    for rel in range(4)
    for tags in ((), ("a",), ("a", "b"))
]


@given(EXPRESSIONS, EXPRESSIONS)
def test_the_words_never_rule_out_a_device_that_is_meant(one: str, two: str) -> None:
    for text in (one, f"{one} and {two}", f"({one}) or {two}"):
        found = parse(text)
        for device in DEVICES:
            if found.matches(device):
                assert all(getattr(device, name) in values for name, values in found.words.items())


@given(EXPRESSIONS, EXPRESSIONS)
def test_and_or_not_are_those_of_logic(one: str, two: str) -> None:
    for device in DEVICES:
        first, second = means(one, device), means(two, device)
        assert means(f"({one}) and ({two})", device) is (first and second)
        assert means(f"({one}) or ({two})", device) is (first or second)
        assert means(f"not ({one})", device) is not first


def test_the_words_of_a_conjunction_are_pushed_down() -> None:
    found = parse('model in (m1, m2) and site == "berlin" and model == m1 and (rel < 3 or site == x)')
    assert found.words == {"model": {"m1"}, "site": {"berlin"}}
    assert parse("model == m1 or model == m2").words == {"model": {"m1", "m2"}}
    assert parse("not model == m1").words == {}
    assert parse("model == m1 and model == m2").words == {"model": frozenset()}
    assert set(selector.FIELDS) >= {"id", "model", "site", "version", "rel"}
