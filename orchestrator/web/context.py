"""What the HTTP edge needs from the rest, and who is calling.

Rules:
- An operator's token and a device's are different things; neither opens the other's door. `access` knows the operators.
- A device is looked up by the hash of its token. A wrong or missing token is 401 and says nothing about what exists.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from orchestrator.core.model import Artifact, Device
from orchestrator.engine.insight.feed import Feed
from orchestrator.engine.offers.known import Known
from orchestrator.engine.reports.contacts import Contacts
from orchestrator.engine.reports.recorder import Recorder
from orchestrator.engine.rollouts.conductor import Conductor
from orchestrator.engine.trust.approvals import Rules
from orchestrator.engine.trust.keyring import Keyring
from orchestrator.errors import OrchestratorError, UnavailableError
from orchestrator.ports import ArtifactSource, Store
from orchestrator.web.certificates import Certificates, certified_device
from orchestrator.web.identity import MAX_TOKEN_CHARS, check_dialect, device_of_token
from orchestrator.web.management.settings import Management
from orchestrator.web.rates import Rates
from orchestrator.web.turns import Turns


class UnauthorisedError(OrchestratorError):
    """The caller did not prove who it is."""

    default_code = "unauthorised"


class BusyError(UnavailableError):
    """The caller has to wait for its turn.

    Args:
        message: one sentence for a person.
        again_s: when to come again.
    """

    default_code = "busy"

    def __init__(self, message: str, again_s: int) -> None:
        super().__init__(message)
        self.again_s = again_s


async def _nothing() -> None:
    """Nobody has to be told."""


async def _nothing_measured() -> bytes:
    """Nobody measures."""
    return b""


def _unnoticed(device_id: str) -> None:
    """Nobody counts who polls."""


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
class CdnSettings:
    """A CDN before a bucket.

    Attributes:
        origin: prefix of the addresses of what it has, such as `s3://releases/`.
        url: base to which the rest of such an address is added; "" for no CDN.
    """

    origin: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """What routes work with.

    Attributes:
        store: durable state.
        conductor: moves rollouts.
        recorder: records reports.
        known: what polls are answered from.
        contacts: when devices asked last.
        import_artifact: imports one URI, on behalf of an account.
        sources: where artifacts lie.
        now: the clock.
        hearing: whether devices can be heard.
        planned: called when deliveries were planned.
        keyring: which keys devices hold.
        operator_token: the token of the token file, which opens the shared account; empty where that is off.
        presign_lifetime_s: how long a presigned URL works.
        status: short facts about the daemon, for `GET /api/v1/status`.
        unready: what keeps the daemon from its work and why, by part; nothing if it can do it.
        scrape: returns what is measured, as Prometheus reads it.
        may_ask: whether the configuration lets a service be asked.
        rules: when approvals are asked for.
        rekeyed: called when a keyset was taken.
        admin_uids: users besides root and our own who are admins at the admin socket.
        beat: returns a fresh beat, None if there is none.
        public_url: base under which devices reach us.
        ddi: how clients of hawkBit's API are served.
        cdn: where devices are sent instead of to the bucket.
        turns: who downloads at which site.
        certificates: reads what proxies say of client certificates.
        polled: told who polls.
        poll_s: when devices that poll shall ask again, where the dialect has no rhythm of its own.
        management: how hawkBit's Management API is served, None for not at all.
        esp_idf_follows: whether clients of ESP-IDF follow a redirection to where an artifact lies.
        rates: how often an account may ask.
        feed: what changes, told to who listens; None where nobody can.
    """

    store: Store
    conductor: Conductor
    recorder: Recorder
    known: Known
    contacts: Contacts
    import_artifact: Callable[[str, str], Awaitable[Artifact]]
    sources: Sequence[ArtifactSource]
    now: Callable[[], float]
    hearing: Callable[[], bool]
    planned: Callable[[], None]
    keyring: Keyring
    operator_token: str
    presign_lifetime_s: int
    status: Callable[[], dict[str, object]]
    unready: Callable[[], Mapping[str, str]] = dict
    scrape: Callable[[], Awaitable[bytes]] = _nothing_measured
    may_ask: Callable[[str], bool] = bool
    rules: Rules = Rules()
    rekeyed: Callable[[], Awaitable[None]] = _nothing
    admin_uids: frozenset[int] = frozenset()
    beat: Callable[[], Awaitable[bytes | None]] = _no_beat
    public_url: str = "http://127.0.0.1:8080"
    ddi: DdiSettings = DdiSettings()
    cdn: CdnSettings = CdnSettings()
    turns: Turns = field(default_factory=Turns)
    certificates: Certificates = field(default_factory=Certificates)
    polled: Callable[[str], None] = _unnoticed
    poll_s: float = 300.0
    management: Management | None = None
    esp_idf_follows: bool = False
    rates: Rates = field(default_factory=lambda: Rates(0.0, 1, time.monotonic))
    feed: Feed | None = None


async def require_device(connection: HTTPConnection, context: Context, *, dialect: str = "") -> Device:
    """Return the calling device; with `dialect` only one that speaks it.

    Raises:
        UnauthorisedError: no token, or an unknown one.
        ForbiddenError: a client certificate that is none of a device, or a device of another dialect.
    """
    device = await certified_device(connection, context) or await device_of_token(context, bearer(connection))
    if device is None:
        raise UnauthorisedError("the device token is missing or unknown; enrol the device with `ota device add`")
    if dialect:
        check_dialect(device, dialect)
    return device


def bearer(connection: HTTPConnection) -> str:
    """Return the bearer token of a request, "" if it has none that could be ours."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and len(token) <= MAX_TOKEN_CHARS else ""
