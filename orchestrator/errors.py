"""Errors by remedy: who must act, and whether trying again can help.

Rules:
- Every error we raise on purpose is an `OrchestratorError`; anything else is our own bug.
- The class says whose fault it is; `code` is stable and machine-readable; the text says what to do next.
- Only the outermost layer (command line, HTTP edge) turns an error into an exit code or a status.
"""

from __future__ import annotations


class OrchestratorError(Exception):
    """Base of all errors of this project.

    Args:
        message: one sentence for a person, with the next step where there is one.
        code: stable word for machines, lower case with underscores.
    """

    default_code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code


class RequestError(OrchestratorError):
    """The caller asked for something that cannot be done; asking differently helps."""

    default_code = "bad_request"


class NotFoundError(RequestError):
    """The thing named does not exist."""

    default_code = "not_found"


class ConflictError(RequestError):
    """The thing exists, but is in a state in which this cannot be done."""

    default_code = "conflict"


class ForbiddenError(RequestError):
    """The caller is not who it must be, or may not do this."""

    default_code = "forbidden"


class PayloadError(OrchestratorError):
    """A peer sent bytes that are not what the wire format says; the peer must be mended."""

    default_code = "malformed"


class UnavailableError(OrchestratorError):
    """Something outside is not there now; trying again later may help."""

    default_code = "unavailable"


class TrustError(OrchestratorError):
    """A signature, hash or size does not hold; trying again never helps."""

    default_code = "untrusted"


class ConfigError(OrchestratorError):
    """The configuration is refused; `faults` lists every fault at once.

    Args:
        faults: one sentence per fault, each naming the key.
    """

    default_code = "bad_config"

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults
