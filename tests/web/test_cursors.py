"""Lists in pages: whole and without repetition, and cursors that are refused."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.core.trust.roles import Role
from orchestrator.errors import RequestError
from orchestrator.web.cursors import Pages
from tests.web.site import PLAN, Site, problem


async def walk(web: Site, path: str) -> list[list[Any]]:
    """Return the pages of a list."""
    pages: list[list[Any]] = []
    following = f"/api/v1{path}"
    while following:
        answer = await web.ops("GET", following.removeprefix("/api/v1"))
        assert answer.status_code == 200
        pages.append(answer.json())
        found = re.fullmatch(r'<(.+)>; rel="next"', answer.headers.get("link", ""))
        following = found[1] if found else ""
    return pages


async def test_devices_come_whole_and_once(web: Site) -> None:
    names = [f"d{number}" for number in range(7)]
    await web.enrol(*names)
    await web.enrol("other", model="m2")
    pages = await walk(web, "/devices?limit=3&where=model%20%3D%3D%20%22m1%22")
    assert [[item["id"] for item in page] for page in pages] == [names[:3], names[3:6], names[6:]]


async def test_the_last_page_has_no_link(web: Site) -> None:
    await web.enrol("d1", "d2")
    assert "link" not in (await web.ops("GET", "/devices?limit=2")).headers
    assert "link" in (await web.ops("GET", "/devices?limit=1")).headers


async def test_every_list_has_pages(web: Site) -> None:
    await web.enrol("d1")
    for rel in (2, 3, 4):
        await web.release(b"x" * rel * 100, rel=rel)
        await web.ops("POST", "/rollouts", PLAN | {"name": f"r{rel}", "release": f"radio-{rel}"})
    await web.operator("bo", Role.VIEWER)
    await web.operator("al", Role.VIEWER)
    for path, count in (("/artifacts", 3), ("/releases", 3), ("/rollouts", 3), ("/operators", 2), ("/audit", 8)):
        whole = (await web.ops("GET", path)).json()
        assert len(whole) >= count
        pages = await walk(web, f"{path}?limit=2")
        assert sum(pages, []) == whole
        assert max(map(len, pages)) == 2
    names = [item["name"] for item in (await web.ops("GET", "/rollouts")).json()]
    assert names == ["r4", "r3", "r2"]
    assert await walk(web, "/rollouts/r2/history?limit=1") == [(await web.ops("GET", "/rollouts/r2/history")).json()]


async def test_a_list_that_grows_leaves_nothing_out(web: Site) -> None:
    for name in ("r1", "r2", "r3"):
        await web.release() if name == "r1" else None
        await web.ops("POST", "/rollouts", PLAN | {"name": name})
    first = await web.ops("GET", "/rollouts?limit=2")
    await web.ops("POST", "/rollouts", PLAN | {"name": "r4"})
    link = re.match("<(.+)>", first.headers["link"])
    assert link is not None
    rest = await web.ops("GET", link[1].removeprefix("/api/v1"))
    assert [item["name"] for item in [*first.json(), *rest.json()]] == ["r3", "r2", "r1"]


async def test_rollouts_by_phase_and_name(web: Site) -> None:
    await web.release()
    for name in ("spring-a", "spring-b", "autumn"):
        await web.ops("POST", "/rollouts", PLAN | {"name": name})
    await web.ops("POST", "/rollouts/spring-b/abort", {"reason": "x"})

    async def names(query: str) -> list[str]:
        return [item["name"] for item in (await web.ops("GET", f"/rollouts?{query}")).json()]

    assert await names("name=spring") == ["spring-b", "spring-a"]
    assert await names("phase=draft") == ["autumn", "spring-a"]
    assert await names("phase=draft&phase=aborted&name=spring") == ["spring-b", "spring-a"]
    assert problem(await web.ops("GET", "/rollouts?phase=nowhere")) == (422, "invalid")


async def test_selectors_that_are_refused_say_where(web: Site) -> None:
    assert problem(await web.ops("GET", "/devices?where=model%20%3D%3D"))[0] == 400
    assert problem(await web.ops("GET", "/devices?where=tag(a)&select=tag(b)")) == (400, "bad_request")


async def test_cursors_of_another_list_are_refused(web: Site) -> None:
    await web.enrol("d1", "d2")
    link = (await web.ops("GET", "/devices?limit=1")).headers["link"]
    cursor = re.search("cursor=([^>&]+)", link)
    assert cursor is not None
    assert (await web.ops("GET", f"/devices?cursor={cursor[1]}")).json()[0]["id"] == "d2"
    for path in (f"/devices?quarantined=true&cursor={cursor[1]}", f"/releases?cursor={cursor[1]}", "/devices?cursor=x"):
        assert problem(await web.ops("GET", path)) == (400, "bad_cursor")


def pages(cursor: str | None, response: Response | None = None) -> Pages:
    scope = {"type": "http", "path": "/api/v1/x", "query_string": b"limit=2", "headers": []}
    request = Request(scope | {"method": "GET", "root_path": "", "server": ("a", 80), "scheme": "http"})
    return Pages(request, response or Response(), cursor, 2)


@given(st.text(max_size=60) | st.binary(max_size=40).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_nonsense_is_refused_and_never_breaks(text: str) -> None:
    try:
        pages(text)
    except RequestError as error:
        assert error.code == "bad_cursor"
    else:
        raise AssertionError("it was taken")


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists))
def test_a_cursor_that_somebody_made_opens_nothing_else(value: Any) -> None:
    whole = json.dumps(["/api/v1/x", []]).encode()
    text = json.dumps(value).encode()
    total = hashlib.sha256(whole + b"\0" + text).digest()[:12]
    cursor = base64.urlsafe_b64encode(total + text).decode().rstrip("=")
    try:
        last = pages(cursor).last
    except RequestError as error:
        assert error.code == "bad_cursor"
    else:
        assert type(last) in (str, int)
        assert last == value


@given(st.lists(st.integers(min_value=0, max_value=1000), unique=True, max_size=9))
def test_the_pages_of_a_list_are_the_list(numbers: list[int]) -> None:
    found: list[int] = []
    cursor: str | None = None
    for _ in range(9):
        response = Response()
        found += pages(cursor, response).cut_all(numbers, int)
        link = re.search("cursor=([^>&]+)", response.headers.get("link", ""))
        if link is None:
            break
        cursor = link[1]
    assert found == numbers
