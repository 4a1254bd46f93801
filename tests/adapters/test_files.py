"""Local folders: links, special files, and files that change under the reader."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.adapters.files import FileSource
from orchestrator.errors import ForbiddenError, NotFoundError, RequestError, TrustError, UnavailableError
from orchestrator.ports import ArtifactSource, Locator


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def source(root: Path) -> FileSource:
    return FileSource((root,))


async def _read(source: FileSource, uri: str) -> bytes:
    return b"".join([chunk async for chunk in source.read(Locator(uri), limit_bytes=1 << 24)])


async def _list(source: FileSource, uri: str) -> list[str]:
    return [found.locator.uri async for found in source.list(uri)]


async def test_the_version_is_size_and_modification_time(root: Path, source: FileSource) -> None:
    file = root / "fw.bin"
    file.write_bytes(b"12345")
    os.utime(file, ns=(0, 1_700_000_000_123_456_789))
    found = await source.stat(file.as_uri())
    assert found.locator == Locator(file.as_uri(), "5-1700000000123456789")
    assert found.etag == "5-1700000000123456789"


async def test_a_link_inside_is_followed_and_one_that_leads_out_is_not(
    tmp_path: Path, root: Path, source: FileSource
) -> None:
    (root / "real").write_bytes(b"inside")
    (root / "inner").symlink_to(root / "real")
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "secret").write_bytes(b"secret")
    (root / "outer").symlink_to(tmp_path / "beside")
    (root / "leak").symlink_to(tmp_path / "beside" / "secret")
    assert await _read(source, (root / "inner").as_uri()) == b"inside"
    for name in ("outer/secret", "leak"):
        with pytest.raises(ForbiddenError) as refused:
            await source.stat(f"{root.as_uri()}/{name}")
        assert refused.value.code == "outside_roots"
        assert "add its folder to the file roots" in refused.value.message
    assert await _list(source, root.as_uri()) == [(root / name).as_uri() for name in ("inner", "real")]


async def test_a_folder_with_the_same_beginning_is_another_folder(
    tmp_path: Path, root: Path, source: FileSource
) -> None:
    (tmp_path / "root-of-others").mkdir()
    (tmp_path / "root-of-others" / "x").write_bytes(b"x")
    with pytest.raises(ForbiddenError):
        await source.stat((tmp_path / "root-of-others" / "x").as_uri())


async def test_a_root_may_be_a_link_itself(tmp_path: Path, root: Path) -> None:
    (root / "fw.bin").write_bytes(b"x")
    (tmp_path / "alias").symlink_to(root)
    source = FileSource((tmp_path / "alias",))
    assert await _read(source, f"{(tmp_path / 'alias').as_uri()}/fw.bin") == b"x"


async def test_without_roots_nothing_is_served(root: Path) -> None:
    (root / "fw.bin").write_bytes(b"x")
    with pytest.raises(ForbiddenError):
        await FileSource(()).stat((root / "fw.bin").as_uri())


async def test_links_in_a_circle_are_refused(root: Path, source: FileSource) -> None:
    (root / "a").symlink_to(root / "b")
    (root / "b").symlink_to(root / "a")
    with pytest.raises(RequestError):
        await source.stat((root / "a").as_uri())


async def test_folders_and_pipes_are_no_files(root: Path, source: FileSource) -> None:
    (root / "folder").mkdir()
    os.mkfifo(root / "pipe")
    for name in ("folder", "pipe"):
        uri = (root / name).as_uri()
        for attempt in (source.stat(uri), _read(source, uri)):
            with pytest.raises(RequestError) as refused:
                await attempt
            assert refused.value.code == "not_a_file"
    assert await _list(source, root.as_uri()) == []


async def test_a_folder_that_is_not_there_is_not_found(root: Path, source: FileSource) -> None:
    (root / "file").write_bytes(b"")
    for name in ("missing", "file"):
        with pytest.raises(NotFoundError) as missing:
            await _list(source, (root / name).as_uri())
        assert missing.value.code == "no_such_folder"


async def test_a_file_used_as_a_folder_is_not_found(root: Path, source: FileSource) -> None:
    (root / "file").write_bytes(b"")
    with pytest.raises(NotFoundError) as missing:
        await source.stat((root / "file" / "x").as_uri())
    assert missing.value.code == "no_such_file"


async def test_a_file_that_grows_while_it_is_read_has_changed(root: Path, source: FileSource) -> None:
    file = root / "fw.bin"
    file.write_bytes(b"x" * (2 << 20))
    reading = source.read(Locator(file.as_uri()), limit_bytes=1 << 24)
    await anext(reading)
    with file.open("ab") as more:
        more.write(b"y")
    with pytest.raises(TrustError) as refused:
        [chunk async for chunk in reading]
    assert refused.value.code == "changed"


async def test_a_file_replaced_while_it_is_read_gives_the_old_bytes(root: Path, source: FileSource) -> None:
    file = root / "fw.bin"
    file.write_bytes(b"x" * (2 << 20))
    reading = source.read(Locator(file.as_uri()), limit_bytes=1 << 24)
    pieces = [await anext(reading)]
    (root / "new").write_bytes(b"y")
    (root / "new").rename(file)
    pieces += [chunk async for chunk in reading]
    assert b"".join(pieces) == b"x" * (2 << 20)


async def test_what_the_system_refuses_is_said(root: Path, source: FileSource, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = (root / "fw.bin").as_uri()
    (root / "fw.bin").write_bytes(b"x")

    def refuse(number: int) -> None:
        def fail(*args: object, **more: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "open", fail)

    refuse(13)
    with pytest.raises(ForbiddenError, match="allow the daemon's user to read it"):
        await _read(source, uri)
    refuse(5)
    with pytest.raises(UnavailableError, match="Input/output error; try again later"):
        await _read(source, uri)


async def test_there_is_no_url_to_a_file(root: Path, source: FileSource) -> None:
    port: ArtifactSource = source
    assert await port.download_url(Locator((root / "x").as_uri()), valid_s=60) is None
