"""Where uploads lie, and the software modules that they were uploaded to."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Module:
    """What a caller of hawkBit's Management API calls a software module.

    Attributes:
        id: number, from 1.
        name: as the caller says.
        version: likewise; what devices are told is the version in the statement.
        type: likewise.
        files: hashes (as in `Artifact.sha256`) of the artifacts in it, by the names they were uploaded under.
        statements: statements that wait for their files, by the names of these.
    """

    id: int
    name: str
    version: str
    type: str
    files: Mapping[str, str] = field(default_factory=dict)
    statements: Mapping[str, str] = field(default_factory=dict)


class Upload(Protocol):
    """The bytes of one file on their way in; gone at the end unless they were kept."""

    @property
    def sha256(self) -> str:
        """Hash of what has come, base64url without padding."""
        ...

    def write(self, chunk: bytes) -> None:
        """Add the next bytes."""
        ...

    def keep(self, name: str, statement: str) -> str:
        """Keep the bytes with their statement beside them; returns the address of the file."""
        ...


class Shelf(Protocol):
    """Modules and the bytes of artifacts, durable. Blocking; called in a thread.

    Every method raises `UnavailableError` where the folder cannot be read or written.
    """

    def module(self, number: int) -> Module | None:
        """Return a module."""
        ...

    def modules(self) -> list[Module]:
        """Return all modules, oldest first."""
        ...

    def add(self, name: str, version: str, type_: str) -> Module:
        """Make a module. Raises ConflictError if there is one of this name and version."""
        ...

    def save(self, module: Module) -> None:
        """Store what a module holds."""
        ...

    def remove(self, number: int) -> None:
        """Forget a module; its number is not given out again, and the bytes of artifacts stay."""
        ...

    def receive(self) -> AbstractContextManager[Upload]:
        """Take in the bytes of one file."""
        ...

    def discard(self, uri: str) -> None:
        """Delete what was kept under an address, and was refused."""
        ...
