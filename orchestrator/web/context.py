"""What the HTTP edge needs from the rest, and who is calling.

Rules:
- An operator's token and a device's are different things; neither opens the other's door. `access` knows the operators.
- A device is looked up by the hash of its token. A wrong or missing token is 401 and says nothing about what exists.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from orchestrator.core.model import Artifact, Device
from orchestrator.engine.reports.recorder import Recorder
from orchestrator.engine.rollouts.conductor import Conductor
from orchestrator.engine.rollouts.operations import token_hash
from orchestrator.engine.trust.approvals import Rules
from orchestrator.engine.trust.keyring import Keyring
from orchestrator.errors import OrchestratorError
from orchestrator.ports import ArtifactSource, Store

MAX_TOKEN_CHARS = 128


class UnauthorisedError(OrchestratorError):
    """The caller did not prove who it is."""

    default_code = "unauthorised"


async def _nothing() -> None:
    """Nobody has to be told."""


async def _no_beat() -> None:
    """There is none."""


@dataclass(frozen=True, slots=True)
class DdiSettings:
    """How clients of hawkBit's API are served.

    Attributes:
        tenant: what stands first in their paths, in any case.
        poll_s: when they ask again.
        version_attribute: the attribute by which they say what they run.
        gateway_token: with it any device of the dialect may be spoken for; empty for never.
    """

    tenant: str = "DEFAULT"
    poll_s: float = 300.0
    version_attribute: str = "version"
    gateway_token: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """What routes work with.

    Attributes:
        store: durable state.
        conductor: moves rollouts.
        recorder: records reports.
        import_artifact: imports one URI, on behalf of an account.
        sources: where artifacts lie.
        now: the clock.
        hearing: whether silence may be judged.
        planned: called when deliveries were planned.
        keyring: which keys devices hold.
        operator_token: the token of the token file, which opens the shared account; empty where that is off.
        presign_lifetime_s: how long a presigned URL works.
        status: short facts about the daemon, for `GET /api/v1/status`.
        fault: why the store cannot be written, "" if it can.
        may_ask: whether the configuration lets a service be asked.
        rules: when approvals are asked for.
        rekeyed: called when a keyset was taken.
        admin_uids: users besides root and our own who are admins at the admin socket.
        beat: returns a fresh beat, None if there is none.
        public_url: base under which devices reach us.
        ddi: how clients of hawkBit's API are served.
    """

    store: Store
    conductor: Conductor
    recorder: Recorder
    import_artifact: Callable[[str, str], Awaitable[Artifact]]
    sources: Sequence[ArtifactSource]
    now: Callable[[], float]
    hearing: Callable[[], bool]
    planned: Callable[[], None]
    keyring: Keyring
    operator_token: str
    presign_lifetime_s: int
    status: Callable[[], dict[str, object]]
    fault: Callable[[], str] = str
    may_ask: Callable[[str], bool] = bool
    rules: Rules = Rules()
    rekeyed: Callable[[], Awaitable[None]] = _nothing
    admin_uids: frozenset[int] = frozenset()
    beat: Callable[[], Awaitable[bytes | None]] = _no_beat
    public_url: str = "http://127.0.0.1:8080"
    ddi: DdiSettings = DdiSettings()


async def require_device(connection: HTTPConnection, context: Context) -> Device:
    """Return the calling device.

    Raises:
        UnauthorisedError: no token, or an unknown one.
    """
    token = bearer(connection)
    device = await context.store.read(lambda tx: tx.device_by_token(token_hash(token))) if token else None
    if device is None:
        raise UnauthorisedError("the device token is missing or unknown; enrol the device with `ota device add`")
    return device


def bearer(connection: HTTPConnection) -> str:
    """Return the bearer token of a request, "" if it has none that could be ours."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and len(token) <= MAX_TOKEN_CHARS else ""
