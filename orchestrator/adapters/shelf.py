"""Uploads in a folder: `modules/<number>.json`, and `artifacts/<SHA-256>/<name>` with its statement beside it.

Rules:
- A file is whole and on disk before its name stands there; what was never finished is deleted.
- A name comes from a stranger: it is cleaned before it becomes a path.
- Nothing here vouches for bytes: that is the import's.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import IO
from urllib.parse import unquote, urlsplit

from orchestrator.adapters.durable import sync_folder
from orchestrator.errors import ConflictError, UnavailableError
from orchestrator.ports.shelf import Module

SUFFIX = ".statement"
_UNCLEAN = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_NAME = 96


class FolderShelf:
    """Implements `ports.shelf.Shelf`.

    Args:
        root: the folder; it exists.
    """

    def __init__(self, root: Path) -> None:
        self._modules = root / "modules"
        self._artifacts = root / "artifacts"
        self._lock = Lock()

    def module(self, number: int) -> Module | None:
        """See `ports.shelf.Shelf.module`."""
        with _explained(self._modules):
            return _read(self._place(number))

    def modules(self) -> list[Module]:
        """See `ports.shelf.Shelf.modules`."""
        with _explained(self._modules):
            found = [_read(self._place(number)) for number in self._numbers()]
        return [item for item in found if item is not None]

    def add(self, name: str, version: str, type_: str) -> Module:
        """See `ports.shelf.Shelf.add`."""
        with self._lock:
            if any((item.name, item.version) == (name, version) for item in self.modules()):
                text = f"there is a module {name[:80]!r} {version[:80]!r} already"
                raise ConflictError(text, code="exists")
            with _explained(self._modules):
                module = Module(max(self._numbers(), default=0) + 1, name, version, type_)
            self.save(module)
        return module

    def save(self, module: Module) -> None:
        """See `ports.shelf.Shelf.save`."""
        self._write(module.id, json.dumps(asdict(module)))

    def remove(self, number: int) -> None:
        """See `ports.shelf.Shelf.remove`."""
        if self.module(number) is not None:
            self._write(number, "")

    @contextmanager
    def receive(self) -> Iterator[FolderUpload]:
        """See `ports.shelf.Shelf.receive`."""
        with _explained(self._artifacts):
            self._artifacts.mkdir(mode=0o700, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._artifacts, prefix=".part-", delete=False) as file:
                try:
                    yield FolderUpload(self._artifacts, file)
                finally:
                    Path(file.name).unlink(missing_ok=True)

    def discard(self, uri: str) -> None:
        """See `ports.shelf.Shelf.discard`."""
        folder = Path(unquote(urlsplit(uri).path)).parent
        if folder.parent == self._artifacts:
            shutil.rmtree(folder, ignore_errors=True)

    def _place(self, number: int) -> Path:
        return self._modules / f"{number}.json"

    def _numbers(self) -> list[int]:
        names = [path.stem for path in self._modules.glob("*.json")]
        return sorted(int(name) for name in names if name.isascii() and name.isdecimal())

    def _write(self, number: int, text: str) -> None:
        with _explained(self._modules):
            self._modules.mkdir(mode=0o700, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._modules, prefix=".part-", delete=False) as file:
                file.write(text)
                _settle(file)
            Path(file.name).replace(self._place(number))
            sync_folder(self._modules)


class FolderUpload:
    """Implements `ports.shelf.Upload`."""

    def __init__(self, root: Path, file: IO[bytes]) -> None:
        self._root = root
        self._file = file
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Hash of what has come, base64url without padding."""
        return urlsafe_b64encode(self._hash.digest()).decode().rstrip("=")

    def write(self, chunk: bytes) -> None:
        """See `ports.shelf.Upload.write`."""
        with _explained(self._root):
            self._file.write(chunk)
        self._hash.update(chunk)

    def keep(self, name: str, statement: str) -> str:
        """See `ports.shelf.Upload.keep`."""
        folder = self._root / self._hash.hexdigest()
        path = folder / (_UNCLEAN.sub("-", name).lstrip(".-")[:_MAX_NAME] or "file")
        with _explained(self._root):
            _settle(self._file)
            folder.mkdir(mode=0o700, exist_ok=True)
            Path(self._file.name).replace(path)
            with Path(f"{path}{SUFFIX}").open("w") as beside:
                beside.write(statement)
                _settle(beside)
            for place in (folder, self._root):
                sync_folder(place)
        return path.as_uri()


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        text = (
            f"the folder for uploads cannot be used ({error.strerror}); look at hawkbit.uploads and its {folder.name}"
        )
        raise UnavailableError(text) from None


def _read(path: Path) -> Module | None:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    return Module(**json.loads(text)) if text else None


def _settle(file: IO[bytes] | IO[str]) -> None:
    file.flush()
    os.fsync(file.fileno())
