"""The plain version endpoint for devices that only poll: what they state, marks, and when to come again."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from orchestrator.errors import PayloadError
from orchestrator.web.devices import WORDS
from orchestrator.web.stated import MAX_CHARS, stated
from tests.web.site import Site, problem

POLL = "/api/v1/firmware/version"
IMAGE = bytes(range(256)) * 20


async def offered(web: Site) -> None:
    await web.release(IMAGE)
    await web.enrol("d1")
    await web.roll_out()
    await web.plant.seal()


async def test_a_device_may_state_who_it_is_in_query_or_headers(web: Site) -> None:
    await web.enrol("d1")
    in_headers = {"Ota-Device": "d1", "Ota-Model": "m1", "Ota-Version": "1.0.0"}
    for query, headers in (
        ("?device=d1&model=m1&current=1.0.0", {}),
        ("", in_headers),
        ("?device=d1&current=1.0.0", in_headers),
        ("?device=&model=&unknown=word", {}),
    ):
        assert (await web.as_device("d1", "GET", POLL + query, headers=headers)).status_code == 204


@pytest.mark.parametrize(
    ("query", "headers", "refused"),
    [
        ("?device=d2", {}, (400, "foreign_device")),
        ("", {"Ota-Device": "d2"}, (400, "foreign_device")),
        ("?model=m2", {}, (409, "other_model")),
        ("", {"Ota-Model": "m2"}, (409, "other_model")),
        ("?current=1&current=2", {}, (400, "said_twice")),
        ("?model=m1", {"Ota-Model": "m2"}, (400, "said_twice")),
        ("?channel=%0a", {}, (400, "malformed")),
        ("?current=%201", {}, (400, "malformed")),
        ("?current=" + "1" * 65, {}, (400, "oversize")),
        ("", {"Ota-Version": "1" * 65}, (400, "oversize")),
    ],
)
async def test_what_disagrees_is_refused(
    web: Site, query: str, headers: dict[str, str], refused: tuple[int, str]
) -> None:
    await offered(web)
    assert problem(await web.as_device("d1", "GET", POLL + query, headers=headers)) == refused


async def test_a_device_hears_its_channel_and_chooses_none(web: Site) -> None:
    await offered(web)
    changed = {"devices": [{"id": "d1", "attributes": {"channel": "beta ü"}}]}
    said = await web.ops("POST", "/devices/facts", changed)
    assert said.status_code == 200, said.text
    answer = await web.as_device("d1", "GET", f"{POLL}?channel=stable")
    assert (answer.status_code, answer.headers["ota-channel"]) == (200, "beta%20%C3%BC")
    assert "ota-channel" not in (await web.as_device("d1", "GET", POLL)).headers
    shown = (await web.ops("GET", "/devices/d1")).json()
    assert shown["attributes"] == {"channel": "beta ü"}


async def test_who_has_the_bundle_is_told_so(web: Site) -> None:
    await offered(web)
    first = await web.as_device("d1", "GET", POLL)
    assert first.status_code == 200
    mark = first.headers["etag"]
    again = await web.as_device("d1", "GET", POLL, headers={"If-None-Match": f'"other", {mark}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", mark)
    assert 225 <= int(again.headers["retry-after"]) <= 300
    assert again.headers["ota-key-epoch"] == first.headers["ota-key-epoch"]
    other = await web.as_device("d1", "GET", POLL, headers={"If-None-Match": '"other"'})
    assert (other.status_code, other.content) == (200, first.content)


async def test_a_recall_has_another_mark_than_the_trigger(web: Site) -> None:
    await offered(web)
    mark = (await web.as_device("d1", "GET", POLL)).headers["etag"]
    await web.ops("POST", "/rollouts/spring/halt", {"reason": "smoke"})
    await web.plant.seal()
    recall = await web.as_device("d1", "GET", POLL, headers={"If-None-Match": mark})
    assert recall.status_code == 200
    assert recall.headers["etag"] != mark


async def test_nothing_to_do_says_when_to_come_again_and_writes_nothing(web: Site) -> None:
    await web.enrol("d1")
    web.plant.store.transactions = 0
    answer = await web.as_device("d1", "GET", f"{POLL}?current=1.0.0", headers={"If-None-Match": '"x"'})
    assert (answer.status_code, answer.content) == (204, b"")
    assert 225 <= int(answer.headers["retry-after"]) <= 300
    assert web.plant.store.transactions == 0


@given(st.binary(max_size=300), st.lists(st.tuples(st.sampled_from(sorted(WORDS)), st.binary(max_size=80))))
def test_any_words_are_read_or_refused(query: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    request = Request({"type": "http", "query_string": query, "headers": headers})
    with suppress(PayloadError):
        found = stated(request, WORDS)
        assert set(found) <= set(WORDS.values())
        assert all(text.isprintable() and 0 < len(text) <= MAX_CHARS for text in found.values())
