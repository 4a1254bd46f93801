"""How hawkBit's Management API is served."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.errors import RequestError
from orchestrator.ports.shelf import Shelf


@dataclass(frozen=True, slots=True)
class Management:
    """How hawkBit's Management API is served.

    Attributes:
        shelf: where modules and uploads lie, None where none are taken.
        limit_bytes: largest file that is taken.
        model: hardware model of new targets, None where none are made.
        enforces: native signatures that the clients of new targets enforce by themselves.
    """

    shelf: Shelf | None = None
    limit_bytes: int = 2 * 2**30
    model: str | None = None
    enforces: tuple[str, ...] = ()

    @property
    def open_shelf(self) -> Shelf:
        """Where modules and uploads lie.

        Raises:
            RequestError: nowhere.
        """
        if self.shelf is None:
            text = "no folder for uploads is configured: set hawkbit.uploads, or import with `ota artifact import`"
            raise RequestError(text, code="no_uploads")
        return self.shelf
