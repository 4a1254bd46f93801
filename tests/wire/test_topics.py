"""Topic names: what may stand in them, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import PayloadError
from orchestrator.wire import topics
from orchestrator.wire.topics import Channel, DeviceTopic

identifiers = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)


@pytest.mark.parametrize("text", ["a", "0", "d-1", "esp32.v2", "a_b", "a..b", "z" * 64])
def test_identifiers(text: str) -> None:
    assert topics.is_identifier(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "z" * 65,
        "D1",
        "-a",
        ".a",
        "..",
        "_a",
        "+",
        "#",
        "a+",
        "a#",
        "$share",
        "a/b",
        "a b",
        "a\n",
        "a\0",
        "é",
        "ｄ１",
        "١",
    ],
)
def test_not_identifiers(text: str) -> None:
    assert not topics.is_identifier(text)


def test_names() -> None:
    assert topics.command("d1") == "ota/v1/d/d1/cmd"
    assert [topics.uplink("d1", channel) for channel in Channel] == [
        "ota/v1/d/d1/report",
        "ota/v1/d/d1/state",
        "ota/v1/d/d1/hello",
    ]


def test_filters_cover_every_channel_and_not_the_commands() -> None:
    assert topics.uplink_filters() == ("ota/v1/d/+/report", "ota/v1/d/+/state", "ota/v1/d/+/hello")


@given(identifiers, st.sampled_from(Channel))
def test_round_trip(device: str, channel: Channel) -> None:
    assert topics.parse_uplink(topics.uplink(device, channel)) == DeviceTopic(device, channel)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "ota/v1/d/d1",
        "ota/v1/d/d1/cmd",
        "ota/v1/d/d1/REPORT",
        "ota/v1/d/d1/report/",
        "ota/v1/d/d1/report/x",
        "ota/v1/d/d1/x/report",
        "ota/v1/d//report",
        "ota/v1/d/+/report",
        "ota/v1/d/#",
        "ota/v1/d/D1/report",
        "ota/v1/d/../report",
        "ota/v1/g/d1/report",
        "ota/v2/d/d1/report",
        "/ota/v1/d/d1/report",
        "OTA/v1/d/d1/report",
        "$share/x/ota/v1/d/d1/report",
    ],
)
def test_foreign_topics_are_refused(topic: str) -> None:
    with pytest.raises(PayloadError) as refused:
        topics.parse_uplink(topic)
    assert refused.value.code == "bad_topic"


@given(st.one_of(st.text(), st.lists(st.text(max_size=8), max_size=7).map("/".join)))
def test_any_text_is_a_device_topic_or_refused(text: str) -> None:
    try:
        found = topics.parse_uplink(text)
    except PayloadError as error:
        assert error.code == "bad_topic"
        assert len(error.message) < 1500
    else:
        assert topics.uplink(found.device, found.channel) == text


@pytest.mark.parametrize("topic", [topics.BEAT, topics.beat_of("eu.west"), topics.keyset(1), topics.keyset(2**40)])
def test_what_the_daemon_retains(topic: str) -> None:
    assert topics.may_lie_retained(topic)
    assert not topics.is_command(topic)


@pytest.mark.parametrize("topic", [topics.command("d1"), topics.group_command("all")])
def test_commands_are_never_retained(topic: str) -> None:
    assert topics.is_command(topic)
    assert not topics.may_lie_retained(topic)


@pytest.mark.parametrize(
    "topic",
    ["ota/v1/keys/0", "ota/v1/keys/01", "ota/v1/keys/1/x", "ota/v1/g/A/beat", "ota/v1/g//cmd", "ota/v1/x/d1/cmd", ""],
)
def test_foreign_topics(topic: str) -> None:
    assert not topics.may_lie_retained(topic)
    assert not topics.is_command(topic)
