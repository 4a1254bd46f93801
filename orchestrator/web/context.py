"""What the HTTP edge needs from the rest, and who is calling.

Rules:
- An operator holds the one token of the token file; a device holds its own. Neither opens the other's door.
- Tokens are compared in constant time (operators) or looked up by their hash (devices).
- A wrong or missing token is 401 and says nothing about what exists.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from orchestrator.core.model import Artifact, Device
from orchestrator.engine.conductor import Conductor
from orchestrator.engine.operations import token_hash
from orchestrator.engine.recorder import Recorder
from orchestrator.errors import OrchestratorError
from orchestrator.ports import ArtifactSource, Store

MAX_TOKEN_CHARS = 128


class UnauthorisedError(OrchestratorError):
    """The caller did not prove who it is."""

    default_code = "unauthorised"


@dataclass(frozen=True, slots=True)
class Context:
    """What routes work with.

    Attributes:
        store: durable state.
        conductor: moves rollouts.
        recorder: records reports.
        import_artifact: imports one URI.
        sources: where artifacts lie.
        now: the clock.
        hearing: whether silence may be judged.
        planned: called when deliveries were planned.
        operator_token: the operators' token.
        presign_lifetime_s: how long a presigned URL works.
        status: short facts about the daemon, for `GET /api/v1/status`.
    """

    store: Store
    conductor: Conductor
    recorder: Recorder
    import_artifact: Callable[[str], Awaitable[Artifact]]
    sources: Sequence[ArtifactSource]
    now: Callable[[], float]
    hearing: Callable[[], bool]
    planned: Callable[[], None]
    operator_token: str
    presign_lifetime_s: int
    status: Callable[[], dict[str, object]]


def require_operator(connection: HTTPConnection, context: Context) -> str:
    """Return the name of the calling operator.

    Raises:
        UnauthorisedError: no token, or a wrong one.
    """
    if not hmac.compare_digest(_bearer(connection).encode(), context.operator_token.encode()):
        raise UnauthorisedError("the operator token is missing or wrong; see http.operator_token_file")
    return "operator"


async def require_device(connection: HTTPConnection, context: Context) -> Device:
    """Return the calling device.

    Raises:
        UnauthorisedError: no token, or an unknown one.
    """
    token = _bearer(connection)
    device = await context.store.read(lambda tx: tx.device_by_token(token_hash(token))) if token else None
    if device is None:
        raise UnauthorisedError("the device token is missing or unknown; enrol the device with `ota device add`")
    return device


def _bearer(connection: HTTPConnection) -> str:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and len(token) <= MAX_TOKEN_CHARS else ""
