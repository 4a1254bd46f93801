"""What can go wrong between a program and the daemon."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.errors import OrchestratorError


class ClientError(OrchestratorError):
    """Base of all errors of the client."""

    default_code = "client"


class UnreachableError(ClientError):
    """The daemon does not answer; nobody knows whether it has done what it was asked."""

    default_code = "unreachable"


class ForeignError(ClientError):
    """Something answers that is not our daemon."""

    default_code = "foreign"


class RefusedError(ClientError):
    """The daemon refuses.

    Args:
        status: of HTTP.
        code: stable word for machines.
        message: one sentence for a person.
        faults: all that is wrong, one by one.
        proposal: what others must approve first, None if it waits for nobody.
    """

    def __init__(
        self, status: int, code: str, message: str, faults: Sequence[str] = (), proposal: int | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.status = status
        self.faults = tuple(faults)
        self.proposal = proposal
