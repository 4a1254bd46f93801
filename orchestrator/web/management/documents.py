"""The documents that callers of hawkBit's Management API read.

Rules:
- A target is a device, an action its update in a rollout of its own or of many, a set a release, a module a folder.
- An action says what is known here: success is said once it is proven, and not when a client says that it is done.
- Times are milliseconds since the epoch. An error has the shape of theirs and the words of ours.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Sequence
from typing import Any

from orchestrator.core.model import Artifact, Device, Phase, Release, Rollout, Update, UpdateState
from orchestrator.core.update import FAILURES, IN_FLIGHT, NEUTRAL
from orchestrator.engine.rollouts.single import CLOSED
from orchestrator.errors import OrchestratorError
from orchestrator.ports import Line
from orchestrator.ports.shelf import Module
from orchestrator.wire.report import Kind

View = dict[str, Any]
PREFIX = "hawkbit-"
"""Releases that are sets have names that begin so, and end with the number of the set."""

S = UpdateState
_TYPES = {
    Kind.ACCEPTED: "running",
    Kind.PROGRESS: "download",
    Kind.DOWNLOADED: "downloaded",
    Kind.INSTALLED: "running",
    Kind.RUNNING: "running",
    Kind.CONFIRMED: "finished",
    Kind.FAILED: "error",
    Kind.ROLLED_BACK: "error",
    Kind.REFUSED: "warning",
    Kind.RECALLED: "canceled",
    Kind.TOO_LATE: "warning",
}
_SCHEDULED = "it is planned and waits for its turn"


def target(device: Device, last: Update | None, rollout: Rollout | None, place: str, token: str = "") -> View:
    """Return a target; its token only to whom it may be shown."""
    found: View = {
        "controllerId": device.id,
        "name": device.id,
        "createdAt": _ms(device.registered_at),
        "updateStatus": _standing(device, last, rollout),
        "requestAttributes": not device.version,
    }
    if device.seen_at is not None:
        found["lastControllerRequestAt"] = _ms(device.seen_at)
    if token:
        found["securityToken"] = token
    here = f"{place}/targets/{device.id}"
    return found | links(self=here, attributes=f"{here}/attributes", actions=f"{here}/actions")


def module(item: Module, place: str) -> View:
    """Return a software module."""
    here = f"{place}/softwaremodules/{item.id}"
    told = {"id": item.id, "name": item.name, "version": item.version, "type": item.type}
    return told | links(self=here, artifacts=f"{here}/artifacts")


def artifact(item: Artifact, file_name: str, module_id: int, place: str) -> View:
    """Return an artifact of a module."""
    sha256 = urlsafe_b64decode(item.sha256 + "=").hex()
    number = artifact_number(item.sha256)
    return {
        "id": number,
        "providedFilename": file_name,
        "size": item.size_bytes,
        "hashes": {"sha1": item.sha1, "md5": item.md5, "sha256": sha256},
    } | links(self=f"{place}/softwaremodules/{module_id}/artifacts/{number}")


def artifact_number(sha256: str) -> int:
    """Return the number of an artifact: 31 bits of its hash."""
    return int.from_bytes(urlsafe_b64decode(sha256 + "=")[:4], "big") & 0x7FFFFFFF or 1


def distribution_set(release: Release, place: str) -> View:
    """Return a distribution set."""
    number = set_number(release)
    told = {"id": number, "name": release.name, "version": release.version, "createdAt": _ms(release.created_at)}
    return told | {"complete": True} | links(self=f"{place}/distributionsets/{number}")


def set_number(release: Release) -> int:
    """Return the number of the set that a release is, 0 if it is none."""
    text = release.name.removeprefix(PREFIX) if release.name.startswith(PREFIX) else ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 and not text.startswith("0") else 0


def action(update: Update, rollout: Rollout, place: str) -> View:
    """Return an action."""
    detail = detail_of(update, rollout)
    here = f"{place}/targets/{update.device_id}/actions/{update.id}"
    return {
        "id": update.id,
        "type": "cancel" if detail in ("canceled", "canceling") else "update",
        "status": "pending" if is_active(update, rollout) else "finished",
        "detailStatus": detail,
        "forceType": "forced",
        "lastModifiedAt": _ms(update.state_at),
        "rolloutName": rollout.plan.name,
    } | links(self=here, target=f"{place}/targets/{update.device_id}", status=f"{here}/status")


def is_active(update: Update, rollout: Rollout) -> bool:
    """Say whether anything more is expected of an action."""
    if rollout.phase is Phase.ABORTED:
        return update.state in IN_FLIGHT
    return update.state not in CLOSED


def detail_of(update: Update, rollout: Rollout) -> str:
    """Return how an action stands, in hawkBit's words."""
    match update.state:
        case S.CONFIRMED:
            return "finished"
        case S.RECALLED | S.SUPERSEDED:
            return "canceled"
        case S.RECALLING:
            return "canceling"
        case state if state in FAILURES:
            return "error"
        case state if state in NEUTRAL and rollout.phase is Phase.ABORTED:
            return "canceled"
        case S.REFUSED:
            return "error"
        case S.PENDING:
            return "scheduled"
        case S.DOWNLOADED:
            return "downloaded"
    return "running"


def statuses(update: Update, rollout: Rollout, lines: Sequence[Line]) -> list[View]:
    """Return what was said of an action, oldest first; the end of it also where no device said it."""
    found = [(_TYPES[Kind(line.kind)], line.text or line.code, line.at) for line in lines]
    detail = detail_of(update, rollout)
    if not found or (not is_active(update, rollout) and found[-1][0] != detail):
        found.append((detail, update.code or _said_of(update, rollout), update.state_at))
    return [
        {"id": number, "type": type_, "messages": [text] if text else [], "reportedAt": _ms(at)}
        for number, (type_, text, at) in enumerate(found, 1)
    ]


def page(entries: Sequence[View], total: int) -> View:
    """Return a part of a list."""
    return {"content": list(entries), "total": total, "size": len(entries)}


def links(**places: str) -> View:
    """Return links by their relations."""
    return {"_links": {name: {"href": href} for name, href in places.items()}}


def refusal(error: OrchestratorError, proposal: int | None = None) -> View:
    """Return an error as callers read it; with the number of the proposal that others must approve, if it waits."""
    found: View = {"exceptionClass": type(error).__name__, "errorCode": f"ota.{error.code}", "message": error.message}
    return found if proposal is None else found | {"parameters": {"proposal": proposal}}


def _said_of(update: Update, rollout: Rollout) -> str:
    return rollout.reason.text if rollout.phase is Phase.ABORTED else _SCHEDULED if update.state is S.PENDING else ""


def _standing(device: Device, last: Update | None, rollout: Rollout | None) -> str:
    if last is None or rollout is None:
        return "unknown" if device.seen_at is None else "registered"
    if is_active(last, rollout):
        return "pending"
    return {"finished": "in_sync", "error": "error"}.get(detail_of(last, rollout), "registered")


def _ms(at: float) -> int:
    return round(at * 1000)
