"""Events for operators' programs: the catalogue, what an entry of the audit log says as an event, and signatures.

Rules:
- An event is made of one entry of the audit log and of nothing else: made again, it is the same, byte for byte.
- Its identifier never changes and is never given to another event; who is told twice knows it by that.
- Fields may be added to an event, none changes its meaning. What an older entry did not say is left out.
- Signatures follow Standard Webhooks: HMAC-SHA256 over identifier, time and body, one for each secret that is good.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from orchestrator.core.trust.audit import Entry
from orchestrator.errors import RequestError

ALL = "*"
SECRET_PREFIX = "whsec_"
SECRET_BYTES = 32
TEST = "webhook.test"


class Data(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What every event says.

    Attributes:
        object: what it happened to.
        actor: the account that did it, or `orchestrator` for what the daemon decided.
    """

    object: str
    actor: str


class RolloutCreated(Data, frozen=True):
    """A rollout was made; it is a draft.

    Attributes:
        release: what it brings.
        urgency: of its plan.
        stages: how many it has.
    """

    release: str | None = None
    urgency: str | None = None
    stages: int | None = None


class RolloutMoved(Data, frozen=True):
    """A rollout went from one phase to another, or a person did something within one.

    Attributes:
        before: phase before; the same one where a person did something within it.
        phase: phase after.
        stage: its stage now, from 0.
        code: why, for machines.
        reason: why, for a person.
    """

    before: str | None = None
    phase: str | None = None
    stage: int | None = None
    code: str | None = None
    reason: str | None = None


class StagePassed(RolloutMoved, frozen=True):
    """A stage passed, and the next one opened.

    Attributes:
        passed: the stage that passed, from 0; `stage` is the one that opened.
    """

    passed: int | None = None


class RolloutAsks(Data, frozen=True):
    """The gate of a stage asks a person: the evidence is enough, and the plan wants somebody to say so too.

    Attributes:
        stage: which one, from 0.
        reason: what the evidence says.
    """

    stage: int | None = None
    reason: str | None = None


class RolloutEdited(Data, frozen=True):
    """The plan of a rollout was changed.

    Attributes:
        version: of the plan.
        reason: why.
    """

    version: int | None = None
    reason: str | None = None


class ApprovalMoved(Data, frozen=True):
    """A proposal was made, used or closed.

    Attributes:
        proposal: its number.
        text: what it proposes.
        needed: how many approvals it needs.
    """

    proposal: int | None = None
    text: str | None = None
    needed: int | None = None


class ApprovalVoted(Data, frozen=True):
    """A person approved or rejected a proposal; `object` is its number.

    Attributes:
        approves: which of both.
        person: who.
        state: of the proposal, after it.
        reason: why.
    """

    approves: bool | None = None
    person: str | None = None
    state: str | None = None
    reason: str | None = None


class GlassBroken(Data, frozen=True):
    """Something was done without the approvals that it needs; another person has to review it.

    Attributes:
        review: its number.
        text: what was done.
        reason: why there was no time.
    """

    review: int | None = None
    text: str | None = None
    reason: str | None = None


class DevicesMoved(Data, frozen=True):
    """Devices were quarantined, or let back; `object` names the one, or says how many.

    Attributes:
        count: how many.
        reason: why.
    """

    count: int | None = None
    reason: str | None = None


class ArtifactImported(Data, frozen=True):
    """An artifact was imported; `object` is its SHA-256.

    Attributes:
        name: of the artifact.
        version: of the artifact.
        rel: its release counter.
        size_bytes: its size.
    """

    name: str | None = None
    version: str | None = None
    rel: int | None = None
    size_bytes: int | None = None


class ArtifactRefused(Data, frozen=True):
    """An artifact was refused; `object` is where it lies.

    Attributes:
        code: why, for machines.
        reason: why, for a person.
    """

    code: str | None = None
    reason: str | None = None


class ExpiryNear(Data, frozen=True):
    """A key or a certificate ends within the threshold that it passed, or has ended.

    Attributes:
        expires_at: when, in seconds since the epoch.
        threshold_days: the threshold.
    """

    expires_at: float | None = None
    threshold_days: int | None = None


class LinkMoved(Data, frozen=True):
    """The link to the broker has been lost for long, or is back after that.

    Attributes:
        since: since when it was lost, in seconds since the epoch.
        lasted_s: how long it was lost, once it is back.
    """

    since: float | None = None
    lasted_s: int | None = None


class Outage(Data, frozen=True):
    """Many devices that no rollout touched went away together, or that is over.

    Attributes:
        gone: how many are away.
        connected: how many are connected.
        lasted_s: how long it lasted, once it is over.
    """

    gone: int | None = None
    connected: int | None = None
    lasted_s: int | None = None


class WebhookMoved(Data, frozen=True):
    """A destination of events takes none, takes them again, or is being tried; `object` is its identifier.

    Attributes:
        reason: why.
    """

    reason: str | None = None


class Event(msgspec.Struct, frozen=True):
    """What is sent.

    Attributes:
        id: identifier of the event; the same whenever it is sent again.
        type: what happened, a word of the catalogue.
        timestamp: when, in RFC 3339.
        deployment: of which deployment.
        data: more of it, by type.
    """

    id: str
    type: str
    timestamp: str
    deployment: str
    data: Data


_PHASES = ("preparing", "running", "paused", "halted", "inconclusive", "done", "aborted")
_STAGE_PASSED, _NOTED = "rollout.stage_passed", "rollout.noted"

CATALOGUE: dict[str, type[Data]] = {
    "rollout.created": RolloutCreated,
    **{f"rollout.{phase}": RolloutMoved for phase in _PHASES},
    _STAGE_PASSED: StagePassed,
    _NOTED: RolloutMoved,
    "rollout.asks": RolloutAsks,
    "rollout.edited": RolloutEdited,
    "approval.proposed": ApprovalMoved,
    "approval.vote": ApprovalVoted,
    "approval.used": ApprovalMoved,
    "approval.expired": ApprovalMoved,
    "approval.void": ApprovalMoved,
    "glass.broken": GlassBroken,
    "devices.quarantined": DevicesMoved,
    "devices.released": DevicesMoved,
    "artifact.imported": ArtifactImported,
    "artifact.refused": ArtifactRefused,
    "expiry.near": ExpiryNear,
    "expiry.expired": ExpiryNear,
    "link.lost": LinkMoved,
    "link.back": LinkMoved,
    "outage.began": Outage,
    "outage.ended": Outage,
    "webhook.failing": WebhookMoved,
    "webhook.recovered": WebhookMoved,
    "webhook.disabled": WebhookMoved,
    TEST: WebhookMoved,
}
"""Every type of event, and what its `data` holds."""


def event_of(entry: Entry, deployment: str) -> Event | None:
    """Return what an entry of the audit log says as an event, None if it is none."""
    if entry.action != "rollout.moved" and entry.action not in CATALOGUE:
        return None
    detail: dict[str, Any] = json.loads(entry.detail)
    kind = _moved(detail) if entry.action == "rollout.moved" else entry.action
    said = detail | {"object": entry.object, "actor": entry.actor}
    said |= {new: detail[old] for old, new in (("from", "before"), ("to", "phase")) if old in detail}
    at = datetime.fromtimestamp(entry.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    try:
        data = msgspec.convert(said, CATALOGUE[kind])
    except msgspec.ValidationError:  # an entry that says it otherwise must not stand in the way of those behind it
        data = CATALOGUE[kind](object=entry.object, actor=entry.actor)
    return Event(f"evt_{entry.n}_{entry.hash[:16]}", kind, at, deployment, data)


def encode(event: Event) -> bytes:
    """Return the body of an event."""
    return msgspec.json.encode(event)


def is_meant(wanted: Iterable[str], kind: str) -> bool:
    """Say whether words such as `*`, `rollout.*` or `rollout.halted` mean a type of event."""
    return any(word in (ALL, kind) or (word.endswith(".*") and kind.startswith(word[:-1])) for word in wanted)


def check_wanted(wanted: Sequence[str]) -> None:
    """Check which events somebody wants to hear of.

    Raises:
        RequestError: a word means no event.
    """
    if not wanted:
        raise RequestError("say which events: `*` for all of them", code="bad_events")
    for word in wanted:
        if not any(is_meant([word], kind) for kind in CATALOGUE):
            text = f"{word[:80]!r} means no event; known are {', '.join(sorted(CATALOGUE))}, and `rollout.*` or `*`"
            raise RequestError(text, code="bad_events")


def secret_text(secret: bytes) -> str:
    """Return a secret as it is handed over."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def signature(secrets: Iterable[str], identifier: str, at: int, body: bytes) -> str:
    """Return the value of `webhook-signature`: one signature for each secret.

    Args:
        secrets: as `secret_text` makes them.
        identifier: value of `webhook-id`.
        at: value of `webhook-timestamp`.
        body: what is sent.
    """
    signed = f"{identifier}.{at}.".encode() + body
    return " ".join(f"v1,{_b64(hmac.digest(_key(secret), signed, hashlib.sha256))}" for secret in secrets)


def headers_of(secrets: Iterable[str], identifier: str, at: int, body: bytes) -> Mapping[str, str]:
    """Return the headers that an event is sent with."""
    return {
        "content-type": "application/json",
        "webhook-id": identifier,
        "webhook-timestamp": str(at),
        "webhook-signature": signature(secrets, identifier, at, body),
    }


def schema() -> dict[str, Any]:
    """Return the catalogue as a JSON Schema (2020-12) of what is sent."""
    kinds = sorted(set(CATALOGUE.values()), key=lambda kind: kind.__name__)
    _, parts = msgspec.json.schema_components([Event, *kinds], ref_template="#/$defs/{name}")
    envelope = parts.pop("Event")
    del envelope["properties"]["data"], parts["Data"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Event",
        "description": "What is sent, by type.",
        **{name: value for name, value in envelope.items() if name not in ("title", "description")},
        "oneOf": [
            {"properties": {"type": {"const": kind}, "data": {"$ref": f"#/$defs/{data.__name__}"}}}
            for kind, data in CATALOGUE.items()
        ],
        "$defs": {name: _with_text(name, part) for name, part in parts.items()},
    }


def _with_text(name: str, part: dict[str, Any]) -> dict[str, Any]:
    """Say of a type what its docstring says in its first line."""
    kinds = {kind.__name__: kind for kind in CATALOGUE.values()}
    return part | {"description": (kinds[name].__doc__ or "").partition("\n")[0]}


def _moved(detail: Mapping[str, Any]) -> str:
    if "passed" in detail and detail.get("to") == "running":
        return _STAGE_PASSED
    kind = f"rollout.{detail.get('to')}"
    return kind if detail.get("from") != detail.get("to") and kind in CATALOGUE else _NOTED


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX))


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
