"""The claims of every token: what is said, before it is signed.

Rules:
- The fields that trigger and statement share come from one function, so that they cannot differ.
- Times on the wire are whole seconds: the issue is rounded down, and so is the expiry.
- Member order is fixed: equal input gives equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.model import Artifact
from orchestrator.core.pace.requirement import Requirements

_LARGEST = 2**53 - 1
_LONGEST_S = 400 * 86_400


@dataclass(frozen=True, slots=True)
class Issue:
    """What a trigger and a recall have in common: from whom, to whom, about which attempt, until when.

    Attributes:
        deployment: identifier of the deployment that devices are pinned to.
        epoch: key epoch.
        device: device identifier.
        rollout: rollout identifier.
        update_id: update, positive.
        attempt: attempt of that update, from 1.
        seq: sequence number, never used before under this deployment and epoch.
        jti: random identifier, 12 to 43 characters of base64url.
        issued_at: epoch seconds.
        expires_at: epoch seconds; at least one second later, at most 400 days.
    """

    deployment: str
    epoch: int
    device: str
    rollout: str
    update_id: int
    attempt: int
    seq: int
    jti: str
    issued_at: float
    expires_at: float


def install_claims(
    issue: Issue,
    artifact: Artifact,
    *,
    stage: int,
    urls: Sequence[str],
    statement_hash: str,
    urgency: int = 1,
    policy: Mapping[str, object] | None = None,
    act: str = "install",
) -> dict[str, object]:
    """Return the claims of a trigger to install `artifact`.

    Args:
        issue: from whom, to whom, about which attempt, until when.
        artifact: what to install.
        stage: number of the stage, from 0.
        urls: one to four stable locators; never presigned ones.
        statement_hash: token hash of the artifact's statement.
        urgency: how urgent it is: the position in `model.Urgency`.
        policy: limits for the device: `jit` spreads the start and `dl` bounds the download, in seconds; and the
            `conditions` that it must meet.
        act: `install`, or `rollback` where the artifact is older than what the device runs.
    """
    claims = _issue_claims(issue, act, artifact.component) | {"wave": stage} | _artifact_claims(artifact)
    claims |= {"url": list(urls), "ast": statement_hash, "urg": urgency}
    if policy:
        claims["pol"] = dict(policy)
    return claims


def conditions(required: Requirements) -> dict[str, object]:
    """Return what a device must meet at the moment it begins, as members of the policy of its trigger.

    A number beyond what a device can read becomes the largest one: no device ever has so much.
    """
    asked = {
        "bat": required.battery_pct or None,
        "chg": 1 if required.charging else None,
        "free": None if required.free_bytes is None else min(required.free_bytes, _LARGEST),
        "link": sorted(link.value for link in required.links) or None,
        "unm": 1 if required.unmetered else None,
        "up": math.ceil(min(required.uptime_s, _LONGEST_S)) if required.uptime_s else None,
    }
    return {name: value for name, value in asked.items() if value is not None}


def recall_claims(issue: Issue, *, component: str, token_hash: str) -> dict[str, object]:
    """Return the claims of a recall.

    Args:
        issue: from whom, to whom, about which attempt; its `seq` is a new one.
        component: component that the recalled trigger named.
        token_hash: token hash of the recalled trigger.
    """
    return _issue_claims(issue, "cancel", component) | {"tok": token_hash}


def statement_claims(artifact: Artifact, *, issued_at: float, expires_at: float | None = None) -> dict[str, object]:
    """Return the claims of the artifact statement; `artifact.statement` and its place are not looked at."""
    claims = {"v": 1} | _artifact_claims(artifact) | {"iat": int(issued_at)}
    if artifact.leaves:
        claims["dn"] = list(artifact.leaves)
    if expires_at is not None:
        claims["exp"] = int(expires_at)
    return claims


def warrant_claims(
    *,
    deployment: str,
    epoch: int,
    rollout: str,
    statement_hashes: Sequence[str],
    audience: Sequence[str],
    most: int,
    issued_at: float,
    expires_at: float,
) -> dict[str, object]:
    """Return the claims of a warrant, with which cosigners allow an emergency.

    Args:
        deployment: identifier of the deployment.
        epoch: key epoch.
        rollout: rollout that is allowed.
        statement_hashes: token hashes of the artifact statements that are allowed, one to eight.
        audience: `d:`, `g:` or `m:` and a name, one to eight; devices want to find one of their own names there.
        most: largest number of devices; the daemon counts.
        issued_at: epoch seconds.
        expires_at: epoch seconds; at least one second later, at most 30 days.
    """
    return {
        "v": 1,
        "iss": deployment,
        "ep": epoch,
        "cid": rollout,
        "asts": list(statement_hashes),
        "aud": list(audience),
        "most": most,
        "iat": int(issued_at),
        "exp": int(expires_at),
    }


def beat_claims(
    *, deployment: str, epoch: int, seq: int, floor: int, issued_at: float, expires_at: float
) -> dict[str, object]:
    """Return the claims of a beat.

    Args:
        deployment: identifier of the deployment.
        epoch: key epoch.
        seq: highest sequence number given out, 0 before the first.
        floor: lowest sequence number that is still good, 0 for all.
        issued_at: epoch seconds.
        expires_at: epoch seconds; at least one second later, at most 7 days.
    """
    return {
        "v": 1,
        "iss": deployment,
        "ep": epoch,
        "seq": seq,
        "floor": floor,
        "iat": int(issued_at),
        "exp": int(expires_at),
    }


def keyset_claims(
    *,
    deployment: str,
    epoch: int,
    keys: Sequence[Mapping[str, object]],
    need_root: int,
    need_cosign: int,
    issued_at: float,
    expires_at: float | None = None,
) -> dict[str, object]:
    """Return the claims of a keyset.

    Args:
        deployment: identifier of the deployment.
        epoch: key epoch: one more than that of the keyset before.
        keys: one to sixteen of `kid`, `typ`, `x`, `y`; `nbf` and `exp` in any; `who` in cosigner keys; `hw` in
            artifact keys.
        need_root: root keys that must sign a keyset, 1 to 8.
        need_cosign: persons that must sign a warrant, 1 to 8.
        issued_at: epoch seconds.
        expires_at: epoch seconds from which on no device takes it any more, None for never.
    """
    claims = {
        "v": 1,
        "iss": deployment,
        "ep": epoch,
        "iat": int(issued_at),
        "keys": [dict(key) for key in keys],
        "need": {"root": need_root, "cosign": need_cosign},
    }
    if expires_at is not None:
        claims["exp"] = int(expires_at)
    return claims


def _issue_claims(issue: Issue, act: str, component: str) -> dict[str, object]:
    return {
        "v": 1,
        "iss": issue.deployment,
        "ep": issue.epoch,
        "aud": [f"d:{issue.device}"],
        "comp": component,
        "cid": issue.rollout,
        "act": act,
        "seq": issue.seq,
        "jti": issue.jti,
        "att": f"{issue.update_id}.{issue.attempt}",
        "iat": int(issue.issued_at),
        "exp": int(issue.expires_at),
    }


def _artifact_claims(artifact: Artifact) -> dict[str, object]:
    return {
        "name": artifact.name,
        "ver": artifact.version,
        "rel": artifact.rel,
        "sec": artifact.sec,
        "comp": artifact.component,
        "hw": list(artifact.hardware),
        "from": artifact.min_from,
        "size": artifact.size_bytes,
        "sha256": artifact.sha256,
        "fmt": artifact.format,
    }
