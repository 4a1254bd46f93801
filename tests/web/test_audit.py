"""The routes of the audit log."""

from __future__ import annotations

import pytest

from orchestrator.core.trust.audit import Entry, Examination
from tests.web.site import Site, problem


async def test_entries_are_paged_and_can_be_examined(web: Site) -> None:
    await web.enrol("d1")
    await web.release()
    entries = (await web.ops("GET", "/audit")).json()
    assert [item["action"] for item in entries] == ["devices.enrolled", "artifact.imported", "release.created"]
    assert (await web.ops("GET", "/audit?after=1&limit=1")).json() == entries[1:2]
    assert (await web.ops("GET", "/audit?after=3")).json() == []
    walk = Examination([], lambda first, last: [])
    for item in entries:
        walk.look(Entry(**item))
    assert walk.finish().faults == ()


async def test_sealed_deliveries_are_listed(web: Site) -> None:
    await web.enrol("d1", "d2")
    await web.release()
    await web.roll_out()
    await web.plant.seal()
    lines = (await web.ops("GET", "/audit/sealed?first=1&last=9")).json()
    assert [seq for seq, _ in lines] == [1, 2]
    assert (await web.ops("GET", "/audit/sealed?first=2&last=2")).json() == lines[1:]


@pytest.mark.parametrize(
    "query", ["?after=-1", "?limit=0", "?limit=1001", "?after=x", "/sealed", "/sealed?first=1&last=-1"]
)
async def test_queries_that_make_no_sense_are_refused(web: Site, query: str) -> None:
    assert problem(await web.ops("GET", f"/audit{query}")) == (422, "invalid")


@pytest.mark.parametrize("path", ["/audit", "/audit/sealed?first=1&last=2"])
async def test_only_who_is_known_may_read_it(web: Site, path: str) -> None:
    await web.enrol("d1")
    assert problem(await web.http.get(f"/api/v1{path}"))[0] == 401
    assert problem(await web.as_device("d1", "GET", f"/api/v1{path}"))[0] == 401
