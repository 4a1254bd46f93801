"""Artifacts in local folders.

Rules:
- Only what lies below a configured root is served, judged after every link and `..` is resolved.
- The version of a file is its size and modification time; whether these held is checked after the last byte.
- All file access runs in threads: a folder may be a slow network mount.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

from orchestrator.errors import ForbiddenError, NotFoundError, RequestError, TrustError, UnavailableError
from orchestrator.ports import Found, Locator

CHUNK_BYTES: Final = 1 << 20
_SCHEME = "file://"

_Result = TypeVar("_Result")


class FileSource:
    """`ports.ArtifactSource` for `file:///absolute/path`.

    Args:
        roots: absolute folders below which files may be read.
    """

    def __init__(self, roots: tuple[Path, ...]) -> None:
        self._roots = tuple(root.resolve() for root in roots)

    def serves(self, uri: str) -> bool:
        """Say whether `uri` is the address of a local file."""
        return uri.startswith(_SCHEME)

    async def stat(self, uri: str) -> Found:
        """Look at a file and pin its present version; see `ports.ArtifactSource`."""
        return await _in_thread(uri, lambda: _found(uri, self._resolve(uri).stat()))

    async def read(self, locator: Locator, *, limit_bytes: int) -> AsyncIterator[bytes]:
        """Stream the pinned bytes; see `ports.ArtifactSource`."""
        uri = locator.uri
        file = await _in_thread(uri, lambda: _open(uri, self._resolve(uri)))
        try:
            version = _version(os.fstat(file.fileno()))
            if locator.version not in (None, version):
                raise _changed(uri)
            received = 0
            while chunk := await _in_thread(uri, lambda: file.read(CHUNK_BYTES)):
                received += len(chunk)
                if received > limit_bytes:
                    raise TrustError(f"{uri} has more than the {limit_bytes} bytes allowed", code="too_large")
                yield chunk
            if _version(os.fstat(file.fileno())) != version:
                raise _changed(uri)
        finally:
            file.close()

    async def read_part(self, locator: Locator, start: int, end: int) -> bytes:
        """Return some of the pinned bytes; see `ports.ArtifactSource`."""
        uri = locator.uri

        def job() -> bytes:
            with _open(uri, self._resolve(uri)) as file:
                part = os.pread(file.fileno(), end - start, start)
                version = _version(os.fstat(file.fileno()))
            if len(part) != end - start or locator.version not in (None, version):
                raise _changed(uri)
            return part

        return await _in_thread(uri, job)

    async def list(self, prefix: str) -> AsyncIterator[Found]:
        """List the files of a folder and of those in it, by name; see `ports.ArtifactSource`."""
        for found in await _in_thread(prefix, lambda: tuple(self._walk(prefix))):
            yield found

    async def local_path(self, locator: Locator) -> Path:
        """Return the resolved file, if it is still the pinned one; see `ports.ArtifactSource`."""

        def look() -> Path:
            path = self._resolve(locator.uri)
            if locator.version not in (None, _found(locator.uri, path.stat()).locator.version):
                raise _changed(locator.uri)
            return path

        return await _in_thread(locator.uri, look)

    async def download_url(self, locator: Locator, *, valid_s: int) -> None:
        """Return None: the daemon must serve local files itself."""
        del locator, valid_s

    def _resolve(self, uri: str) -> Path:
        try:
            path = _path(uri).resolve()
        except (ValueError, RuntimeError):  # RuntimeError: links in a circle
            raise RequestError(f"{uri!r} cannot be a file; write file:///absolute/path", code="bad_uri") from None
        if not self._allows(path):
            text = f"{uri} is not below a configured folder; add its folder to the file roots, or copy it into one"
            raise ForbiddenError(text, code="outside_roots")
        return path

    def _allows(self, path: Path) -> bool:
        return any(path.is_relative_to(root) for root in self._roots)

    def _walk(self, prefix: str) -> Iterator[Found]:
        folder = self._resolve(prefix)
        if not folder.is_dir():
            raise NotFoundError(f"there is no folder {prefix}; create it or correct the prefix", code="no_such_folder")
        for path in sorted(folder.rglob("*")):
            # A link may lead out of the roots, and a file may go while we look.
            if path.is_file() and self._allows(path.resolve()):
                with suppress(FileNotFoundError):
                    yield _found(path.as_uri(), path.stat())


async def _in_thread(uri: str, work: Callable[[], _Result]) -> _Result:
    def job() -> _Result:
        with _explained(uri):
            return work()

    return await asyncio.to_thread(job)


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"{uri} does not exist; copy it there or correct the path", code="no_such_file") from None
    except PermissionError:
        text = f"{uri} cannot be read; allow the daemon's user to read it and to enter its folders"
        raise ForbiddenError(text, code="access_denied") from None
    except OSError as error:
        text = f"{uri} cannot be read now: {error.strerror}; try again later"
        raise UnavailableError(text) from None


def _path(uri: str) -> Path:
    parts = urlsplit(uri)
    path = Path(os.fsdecode(unquote_to_bytes(parts.path)))
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise ValueError(uri)
    if not path.is_absolute():
        raise ValueError(uri)
    return path


def _open(uri: str, path: Path) -> FileIO:
    # The path is resolved: a link here is newer than the check. Without O_NONBLOCK a pipe would hold the thread.
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _found(uri, os.fstat(number))
    except RequestError:
        os.close(number)
        raise
    return FileIO(number)


def _version(state: os.stat_result) -> str:
    return f"{state.st_size}-{state.st_mtime_ns}"


def _found(uri: str, state: os.stat_result) -> Found:
    if not stat.S_ISREG(state.st_mode):
        raise RequestError(f"{uri} is not a regular file; name a file", code="not_a_file")
    return Found(Locator(uri, _version(state)), state.st_size, _version(state))


def _changed(uri: str) -> TrustError:
    return TrustError(f"{uri} changed after it was looked at; import it again", code="changed")
