"""What a rollout brings: its release, the artifacts of that, and which one each hardware model gets.

Rules:
- A rollout names a release that exists, and a release names artifacts that are imported; both are never deleted.
"""

from __future__ import annotations

from orchestrator.core.model import Artifact, Release, Rollout
from orchestrator.ports import Tx


def release_of(tx: Tx, rollout: Rollout) -> Release:
    """Return the release that a rollout brings."""
    release = tx.release(rollout.plan.release)
    assert release is not None, "a rollout names a release that exists"
    return release


def artifacts_of(tx: Tx, release: Release) -> list[Artifact]:
    """Return the artifacts of a release."""
    found = [tx.artifact(sha256) for sha256 in release.artifacts]
    return [item for item in found if item is not None]


def by_model(tx: Tx, release: Release) -> dict[str, Artifact]:
    """Return the artifact that each hardware model gets."""
    return {model: artifact for artifact in artifacts_of(tx, release) for model in artifact.hardware}
