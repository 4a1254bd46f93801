"""What is known of one artifact: by its hash, by the beginning of it, and by where it lies."""

from __future__ import annotations

import pytest

from orchestrator.core.trust.roles import Role
from orchestrator.engine.insight import listing
from orchestrator.web import artifacts
from tests.support.factory import ARTIFACT_KEY
from tests.web.site import Site, problem


async def test_an_artifact_with_its_import_and_its_releases(web: Site) -> None:
    sha256 = await web.release()
    (line,) = (await web.ops("GET", "/artifacts")).json()
    at = web.plant.clock()
    web.plant.clock.advance(60.0)
    again = await web.ops("POST", "/artifacts", {"uri": line["uri"]})
    assert again.status_code == 201
    found = (await web.ops("GET", f"/artifacts/{sha256}")).json()
    assert found == line | {
        "key": ARTIFACT_KEY.kid,
        "security_epoch": found["security_epoch"],
        "min_from": found["min_from"],
        "leaves": [],
        "sha1": found["sha1"],
        "md5": found["md5"],
        "releases": ["radio-2"],
        "imported_at": at,
        "imported_by": "operator",
    }
    assert (len(found["sha1"]), len(found["md5"])) == (40, 32)


async def test_who_imported_it_is_told(web: Site) -> None:
    token = await web.operator("bo", Role.ADMIN, Role.OPERATOR)
    made = (await web.ops("POST", "/artifacts", {"uri": web.put_image(b"image")}, token=token)).json()
    found = (await web.ops("GET", f"/artifacts/{made['sha256']}")).json()
    assert (found["imported_by"], found["releases"]) == ("bo", [])


async def test_the_beginning_of_a_hash_is_enough_where_it_means_one(web: Site) -> None:
    hashes: list[str] = []
    while len({sha256[0] for sha256 in hashes}) == len(hashes):  # until two begin alike
        number = len(hashes)
        uri = web.put_image(b"image %d" % number, rel=number + 1, name=f"{number}.bin")
        hashes.append((await web.ops("POST", "/artifacts", {"uri": uri})).json()["sha256"])
    twice = hashes[-1][0]
    answer = await web.ops("GET", f"/artifacts/{twice}")
    assert problem(answer) == (409, "ambiguous")
    assert answer.json()["detail"].startswith(f"2 artifacts begin with {twice!r}: ")
    assert hashes[-1] in answer.json()["detail"]
    assert (await web.ops("GET", f"/artifacts/{hashes[-1][:20]}")).json()["sha256"] == hashes[-1]
    assert problem(await web.ops("GET", f"/artifacts/{hashes[-1]}A")) == (404, "not_found")


async def test_artifacts_are_found_by_where_they_lie(web: Site) -> None:
    for number in (1, 2):
        uri = web.put_image(b"image %d" % number, rel=number, name=f"{number}.bin")
        assert (await web.ops("POST", "/artifacts", {"uri": uri})).status_code == 201
    found = (await web.ops("GET", "/artifacts", params={"uri": uri})).json()
    assert [item["uri"] for item in found] == [uri]
    assert (await web.ops("GET", "/artifacts", params={"uri": "s3://b/k"})).json() == []


async def test_an_import_that_lies_too_far_back_is_not_looked_for(web: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = await web.release()
    monkeypatch.setattr(listing, "MOST_ENTRIES", 1)
    monkeypatch.setattr(listing, "PIECE", 1)
    monkeypatch.setattr(artifacts, "MOST_LOOKS", 1)
    found = (await web.ops("GET", f"/artifacts/{sha256}")).json()
    assert (found["imported_at"], found["imported_by"], found["releases"]) == (None, None, ["radio-2"])
