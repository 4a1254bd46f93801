"""Which HTTP status an error of ours is."""

from __future__ import annotations

from orchestrator.errors import (
    ConfigError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    OrchestratorError,
    PayloadError,
    RequestError,
    TrustError,
    UnavailableError,
)
from orchestrator.web.context import UnauthorisedError
from orchestrator.web.once import ChangedError, ReusedKeyError
from orchestrator.web.rates import TooManyError

_STATUS: tuple[tuple[type[OrchestratorError], int], ...] = (
    (UnauthorisedError, 401),
    (NotFoundError, 404),
    (ChangedError, 412),
    (ReusedKeyError, 422),
    (TooManyError, 429),
    (ConflictError, 409),
    (ForbiddenError, 403),
    (ConfigError, 422),
    (TrustError, 422),
    (PayloadError, 400),
    (RequestError, 400),
    (UnavailableError, 503),
)


def status_of(error: OrchestratorError) -> int:
    """Return the status that answers an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
