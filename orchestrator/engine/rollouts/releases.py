"""What a rollout brings: its release, the artifacts of that, which one each hardware model gets, and from where on.

Rules:
- A rollout names a release that exists, and a release names artifacts that are imported; both are never deleted.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.model import Artifact, Release, Rollout
from orchestrator.core.targeting import route
from orchestrator.core.targeting.dialect import SigningRule
from orchestrator.core.targeting.route import Stone, Way
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


def signing_rule(tx: Tx, brought: Mapping[str, Artifact]) -> SigningRule:
    """Return what keeps artifacts, given by hardware model, from devices that verify no trigger."""
    return SigningRule({model: artifact.signature for model, artifact in brought.items()}, tx.unsigned_clients())


def ways(tx: Tx, release: Release) -> dict[str, Way]:
    """Return what each hardware model may take on its way to a release, without those that any device may jump to."""
    guarded = {model: artifact for model, artifact in by_model(tx, release).items() if artifact.min_from}
    if not guarded:
        return {}
    stones: dict[str, list[Stone]] = {model: [] for model in guarded}
    for earlier in (item for item in tx.releases() if item.rel < release.rel):
        for model, artifact in by_model(tx, earlier).items():
            if model in guarded and artifact.component == guarded[model].component:
                stones[model].append(route.stone(earlier, artifact))
    return {model: Way(route.stone(release, item), tuple(stones[model])) for model, item in guarded.items()}
