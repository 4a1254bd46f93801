"""What every artifact source promises, on real folders and on a real S3 server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.adapters.files import FileSource
from orchestrator.adapters.s3 import S3Source
from orchestrator.demo import bucket
from orchestrator.errors import NotFoundError, RequestError, TrustError
from orchestrator.ports import ArtifactSource, Found, Locator
from tests.support.bucket import bucket_endpoint, new_name, opened, settings

__all__ = ["bucket_endpoint"]

MIB = 1 << 20
DATA = bytes(range(256)) * 4096 * 3 + b"tail"
OTHER = DATA[::-1]


@dataclass(frozen=True)
class Place:
    """A source, a folder in it, and a way to put things there."""

    source: ArtifactSource
    root: str
    put: Callable[[str, bytes], Awaitable[None]]
    uri: Callable[[str], str]
    escapes: tuple[str, ...]

    async def read(self, locator: Locator, limit_bytes: int = 64 * MIB) -> bytes:
        return b"".join([chunk async for chunk in self.source.read(locator, limit_bytes=limit_bytes)])

    async def list(self, name: str) -> list[Found]:
        return [found async for found in self.source.list(self.uri(name))]


@pytest.fixture(params=["files", "s3 with versions", "s3 without versions"])
async def place(request: pytest.FixtureRequest, tmp_path: Path, bucket_endpoint: str) -> AsyncIterator[Place]:
    if request.param == "files":
        yield _folder(tmp_path)
        return
    name = new_name()
    await bucket.create(bucket_endpoint, name, versioned=request.param == "s3 with versions")

    async def put(key: str, data: bytes) -> None:
        await bucket.put(bucket_endpoint, name, f"root/{key}", data)

    root = f"s3://{name}/root"
    escapes = (f"{root}/../x", f"s3://{name}/./x", "s3://../x", "s3:///x", f"{root}/a\nb", "file:///etc/passwd")
    with opened(S3Source(settings(bucket_endpoint))) as source:
        yield Place(source, root, put, lambda key: f"{root}/{key}", escapes)


def _folder(tmp_path: Path) -> Place:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "secret")

    async def put(key: str, data: bytes) -> None:
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    escapes = (
        f"{root.as_uri()}/../secret",
        f"{root.as_uri()}/%2e%2e/secret",
        f"{root.as_uri()}/link",
        "file:///etc/passwd",
        f"file://elsewhere{root}/x",
        "file:relative",
        f"{root.as_uri()}/a%00b",
        "s3://bucket/key",
    )
    return Place(FileSource((root,)), root.as_uri(), put, lambda key: (root / key).as_uri(), escapes)


async def test_it_serves_its_own_addresses_only(place: Place) -> None:
    assert place.source.serves(place.uri("a"))
    assert not place.source.serves("https://example.com/a")
    assert not place.source.serves("/etc/passwd")


async def test_stat_tells_size_and_pins_the_version(place: Place) -> None:
    await place.put("fw.bin", DATA)
    found = await place.source.stat(place.uri("fw.bin"))
    assert found.locator.uri == place.uri("fw.bin")
    assert found.size_bytes == len(DATA)
    assert found.locator.version
    assert found == await place.source.stat(place.uri("fw.bin"))


async def test_other_bytes_are_another_version(place: Place) -> None:
    await place.put("fw.bin", DATA)
    before = await place.source.stat(place.uri("fw.bin"))
    await place.put("fw.bin", OTHER)
    after = await place.source.stat(place.uri("fw.bin"))
    assert after.locator != before.locator
    assert after.etag != before.etag


async def test_read_gives_the_bytes_in_pieces_of_a_mebibyte_at_most(place: Place) -> None:
    await place.put("fw.bin", DATA)
    found = await place.source.stat(place.uri("fw.bin"))
    pieces = [len(piece) async for piece in place.source.read(found.locator, limit_bytes=len(DATA))]
    assert pieces == [MIB, MIB, MIB, 4]
    assert await place.read(found.locator) == DATA


async def test_read_without_a_version_gives_the_newest(place: Place) -> None:
    await place.put("fw.bin", DATA)
    await place.put("fw.bin", OTHER)
    assert await place.read(Locator(place.uri("fw.bin"))) == OTHER


async def test_an_empty_object_is_read_as_nothing(place: Place) -> None:
    await place.put("empty", b"")
    found = await place.source.stat(place.uri("empty"))
    assert found.size_bytes == 0
    assert await place.read(found.locator, limit_bytes=0) == b""


async def test_names_may_hold_anything_printable(place: Place) -> None:
    name = "sub dir/ü+%41?x=1#&.bin"
    await place.put(name, b"odd")
    found = await place.source.stat(place.uri(name))
    assert await place.read(found.locator) == b"odd"
    assert [found.locator.uri for found in await place.list("sub dir")] == [place.uri(name)]


async def test_what_changed_after_stat_is_never_taken_for_it(place: Place) -> None:
    await place.put("fw.bin", DATA)
    found = await place.source.stat(place.uri("fw.bin"))
    await place.put("fw.bin", OTHER)
    assert await _old_or_changed(place, found) in (DATA, None)


async def test_what_changes_while_it_is_read_is_never_mixed(place: Place) -> None:
    await place.put("fw.bin", DATA)
    found = await place.source.stat(place.uri("fw.bin"))
    reading = place.source.read(found.locator, limit_bytes=len(DATA))
    pieces = [await anext(reading)]
    await place.put("fw.bin", OTHER)
    try:
        pieces += [piece async for piece in reading]
    except TrustError as error:
        assert error.code == "changed"
        assert found.locator.uri in error.message
    else:
        assert b"".join(pieces) == DATA


async def test_more_than_the_limit_is_refused(place: Place) -> None:
    await place.put("fw.bin", DATA)
    found = await place.source.stat(place.uri("fw.bin"))
    received = 0
    with pytest.raises(TrustError) as refused:
        async for piece in place.source.read(found.locator, limit_bytes=len(DATA) - 1):
            received += len(piece)
    assert refused.value.code == "too_large"
    assert found.locator.uri in refused.value.message
    assert received < len(DATA)


async def test_a_reader_may_stop_early(place: Place) -> None:
    await place.put("fw.bin", DATA)
    found = await place.source.stat(place.uri("fw.bin"))
    reading = place.source.read(found.locator, limit_bytes=len(DATA))
    assert await anext(reading) == DATA[:MIB]
    await reading.aclose()  # type: ignore[attr-defined]
    assert await place.read(found.locator) == DATA


async def test_a_part_is_those_bytes_and_no_others(place: Place) -> None:
    await place.put("fw.bin", DATA)
    found = await place.source.stat(place.uri("fw.bin"))
    for locator in (found.locator, Locator(found.locator.uri)):
        for start, end in ((0, 1), (1000, 263_144), (len(DATA) - 4, len(DATA)), (0, len(DATA)), (MIB - 1, 2 * MIB + 1)):
            assert await place.source.read_part(locator, start, end) == DATA[start:end]


async def test_a_part_behind_the_end_is_not_what_was_looked_at(place: Place) -> None:
    await place.put("fw.bin", b"12345")
    found = await place.source.stat(place.uri("fw.bin"))
    for start, end in ((3, 6), (5, 6), (100, 200)):
        with pytest.raises(TrustError) as refused:
            await place.source.read_part(found.locator, start, end)
        assert refused.value.code == "changed"


async def test_a_part_is_of_the_pinned_version(place: Place) -> None:
    await place.put("fw.bin", DATA)
    found = await place.source.stat(place.uri("fw.bin"))
    await place.put("fw.bin", OTHER)
    try:
        assert await place.source.read_part(found.locator, 10, 20) == DATA[10:20]
    except TrustError as error:
        assert error.code == "changed"
        assert found.locator.uri in error.message


async def test_what_is_not_there_is_not_found(place: Place) -> None:
    uri = place.uri("missing.bin")
    with pytest.raises(NotFoundError, match="missing.bin"):
        await place.source.read_part(Locator(uri), 0, 1)
    with pytest.raises(NotFoundError, match="missing.bin"):
        await place.source.stat(uri)
    with pytest.raises(NotFoundError, match="missing.bin"):
        await place.read(Locator(uri))


async def test_list_names_everything_below_and_nothing_beside(place: Place) -> None:
    for name in ("in/b.bin", "in/a.bin", "in/deep/er/c.bin", "out/d.bin"):
        await place.put(name, name.encode())
    listed = await place.list("in")
    assert [found.locator.uri for found in listed] == [
        place.uri(name) for name in ("in/a.bin", "in/b.bin", "in/deep/er/c.bin")
    ]
    assert [found.size_bytes for found in listed] == [8, 8, 16]
    for found in listed:
        assert found.etag == (await place.source.stat(found.locator.uri)).etag
        assert place.uri((await place.read(found.locator)).decode()) == found.locator.uri


async def test_no_address_leads_out(place: Place) -> None:
    await place.put("x", b"x")
    for uri in place.escapes:
        with pytest.raises(RequestError) as refused:
            await place.source.stat(uri)
        assert refused.value.code in ("bad_uri", "outside_roots"), uri
        with pytest.raises(RequestError):
            await place.read(Locator(uri))
        with pytest.raises(RequestError):
            await place.source.read_part(Locator(uri), 0, 1)
        if place.source.serves(uri) and place.root.startswith("file"):
            with pytest.raises(RequestError):
                await place.source.local_path(Locator(uri))
        with pytest.raises(RequestError):
            [found async for found in place.source.list(uri + "/")]


async def test_a_device_is_served_by_a_file_or_by_a_url_of_the_pinned_version(place: Place) -> None:
    await place.put("fw.bin", DATA)
    found = await place.source.stat(place.uri("fw.bin"))
    path = await place.source.local_path(found.locator)
    assert (path is None) != (await place.source.download_url(found.locator, valid_s=60) is None)
    if path is not None:
        assert path.read_bytes() == DATA
        assert await place.source.local_path(Locator(found.locator.uri)) == path
        await place.put("fw.bin", OTHER)
        with pytest.raises(TrustError) as refused:
            await place.source.local_path(found.locator)
        assert refused.value.code == "changed"


async def _old_or_changed(place: Place, found: Found) -> bytes | None:
    try:
        return await place.read(found.locator)
    except TrustError as error:
        assert error.code == "changed"
        return None
