"""What operators do besides moving rollouts: enrol devices, make releases and rollouts.

Rules:
- Every function runs inside one transaction and either does all of it, its audit entry included, or raises.
- A device token is shown once; only its hash is stored.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.core.model import DAEMON, OTAD, Artifact, Device, Phase, Plan, Reason, Release, Rollout
from orchestrator.core.reason import counted
from orchestrator.core.targeting import cohort
from orchestrator.core.targeting.facts import Change
from orchestrator.core.trust.audit import names_hash
from orchestrator.engine.targeting import facts
from orchestrator.errors import ConflictError, NotFoundError, RequestError
from orchestrator.ports import Event, PlanVersion, Tx
from orchestrator.wire.endpoints import COMPONENT as ENDPOINTS
from orchestrator.wire.topics import is_identifier

TOKEN_PREFIX = "otad_"
OPERATOR, HELLO = "operator", "hello"
"""Names in the record that belong to no account; devices that register themselves stand under the last one."""
_TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class NewDevice:
    """A device to enrol.

    Attributes:
        id: identifier.
        model: hardware model.
        groups: groups it belongs to.
        version: version it runs now, if known.
        rel: release counter it runs now, 0 if not known.
        dialect: what it speaks; None for otad or, of a device that is known, for what it spoke before.
        enforces: native signatures that it enforces; None likewise.
    """

    id: str
    model: str
    groups: tuple[str, ...] = ()
    version: str = ""
    rel: int = 0
    dialect: str | None = None
    enforces: tuple[str, ...] | None = None


def token_hash(token: str) -> str:
    """Return what is stored of a device token: its SHA-256 in hex. Tokens are 256 random bits, so no salt is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


def enrol(tx: Tx, devices: Sequence[NewDevice], now: float, *, actor: str = OPERATOR) -> dict[str, str]:
    """Register devices, or renew their tokens.

    Returns:
        The new token of each device.

    Raises:
        RequestError: an identifier is malformed or stands twice.
    """
    if len({item.id for item in devices}) != len(devices):
        raise RequestError("a device stands twice in the list")
    for item in devices:
        for word in (item.id, item.model, *item.groups):
            if not is_identifier(word):
                raise RequestError(
                    f"{word[:80]!r} is not an identifier (lower case letters, digits, . _ -, at most 64)"
                )
        for fault in facts.faults_of(Change(dialect=item.dialect, enforces=item.enforces)):
            raise RequestError(fault)
    moved = _moved(tx, devices)
    facts.keep(tx, [before for before, _ in moved], now)
    tokens = {item.id: TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES) for item in devices}
    fresh = tx.enrol(
        (
            Device(
                *(item.id, item.model, item.groups, item.version, item.rel, now, None, None),
                dialect=item.dialect or OTAD,
                enforces=tuple(sorted(set(item.enforces or ()))),
            ),
            token_hash(tokens[item.id]),
        )
        for item in devices
    )
    tx.set_facts([after for _, after in moved], now)
    said = {"count": len(tokens), "new": fresh, "sha256": names_hash(tokens)}
    tx.audit(actor, "devices.enrolled", counted(len(tokens), "device"), said, now)
    return tokens


def _moved(tx: Tx, devices: Sequence[NewDevice]) -> list[tuple[Device, Device]]:
    """Return the devices that are registered with other facts, as they are and as they will be."""
    wanted = {item.id: item for item in devices}
    pairs = [(item, _as_wanted(item, wanted[item.id])) for item in tx.devices_named(wanted)]
    return [(before, after) for before, after in pairs if before != after]


def _as_wanted(known: Device, wanted: NewDevice) -> Device:
    dialect = known.dialect if wanted.dialect is None else wanted.dialect
    enforces = known.enforces if wanted.enforces is None else tuple(sorted(set(wanted.enforces)))
    return replace(known, groups=wanted.groups, dialect=dialect, enforces=enforces)


def create_release(tx: Tx, name: str, hashes: Sequence[str], now: float, *, actor: str = OPERATOR) -> Release:
    """Make a release of imported artifacts.

    Raises:
        RequestError: no artifact, or artifacts of different versions, or two for one model, or firmware and endpoints.
        NotFoundError: an artifact is not imported.
        ConflictError: the name is taken.
    """
    if not is_identifier(name):
        raise RequestError(f"{name[:80]!r} is not an identifier")
    artifacts = [_artifact(tx, sha256) for sha256 in dict.fromkeys(hashes)]
    if not artifacts:
        raise RequestError("a release needs at least one artifact")
    if len({(item.version, item.rel) for item in artifacts}) != 1:
        raise RequestError("the artifacts of a release must have one version and one release counter")
    models = [model for item in artifacts for model in item.hardware]
    twice = sorted({model for model in models if models.count(model) > 1})
    if twice:
        raise RequestError(f"two artifacts of the release are for {', '.join(twice)}")
    if len(moves := {item.component == ENDPOINTS for item in artifacts}) != 1:
        raise RequestError("a release brings firmware or endpoints, not both; make a release of each")
    first = artifacts[0]
    release = Release(name, first.version, first.rel, tuple(item.sha256 for item in artifacts), now, moves.pop())
    tx.add_release(release)
    said = {"version": release.version, "rel": release.rel, "artifacts": list(release.artifacts)}
    said |= {"moves": True} if release.moves else {}
    tx.audit(actor, "release.created", name, said, now)
    return release


def create_rollout(tx: Tx, plan: Plan, actor: str, now: float) -> Rollout:
    """Make a rollout in draft.

    Raises:
        NotFoundError: the release does not exist.
        RequestError: the release has nothing for a model of the plan.
        ConflictError: the name is taken.
    """
    brought(tx, plan)
    secret = secrets.token_bytes(32) if plan.seed is None else cohort.secret_from_seed(plan.seed)
    why = Reason("created", "waits for being started")
    rollout = tx.add_rollout(Rollout(0, plan, Phase.DRAFT, why, actor, now), secret)
    tx.save_rollout(rollout, Event(now, rollout.phase, why.code, why.text, actor, 0))
    tx.add_plan_version(rollout.id, PlanVersion(rollout.plan_version, plan, (), actor, "", now))
    said = {"id": rollout.id, "release": plan.release, "urgency": plan.urgency, "stages": len(plan.stages)} | plan.mends
    tx.audit(actor, "rollout.created", plan.name, said, now)
    return rollout


def brought(tx: Tx, plan: Plan) -> tuple[Release, set[str]]:
    """Return the release of a plan, and the hardware models that it is for.

    Raises:
        NotFoundError: the release does not exist.
        RequestError: the release has nothing for a model of the plan, or does not mend what the plan says.
    """
    release = tx.release(plan.release)
    if release is None:
        raise NotFoundError(f"there is no release named {plan.release!r}; make it with `ota release create`")
    hardware = {model for sha256 in release.artifacts for model in _artifact(tx, sha256).hardware}
    missing = sorted(set(plan.models) - hardware)
    if missing:
        raise RequestError(f"release {release.name} has no artifact for {', '.join(missing)}")
    if release.moves and plan.mends:
        text = (
            f"release {release.name} brings endpoints, which mend no firmware; leave severity and fixes out of the plan"
        )
        raise RequestError(text)
    if plan.fixes_below is not None and plan.fixes_below > release.rel:
        text = (
            f"the plan says that devices below release counter {plan.fixes_below} are vulnerable, and release "
            f"{release.name} has {release.rel}: it would not mend them; correct fixes.below, or name another release"
        )
        raise RequestError(text)
    return release, hardware


def register_artifact(tx: Tx, artifact: Artifact, now: float, *, actor: str = DAEMON) -> bool:
    """Register an examined artifact; False if its bytes are known already.

    A later statement of known bytes that says the same, and allows more running releases to be left for them, takes
    the place of the first: so a release that turned out bad can be left for one that was signed before it.

    Raises:
        TrustError: the same name and release counter is known with other bytes (`rel_reused`).
        ConflictError: the same bytes are known with a statement that says something else (`stated_otherwise`).
    """
    if not tx.add_artifact(artifact, now):
        _restate(tx, artifact, now, actor)
        return False
    said = {"name": artifact.name, "version": artifact.version, "rel": artifact.rel, "size_bytes": artifact.size_bytes}
    tx.audit(actor, "artifact.imported", artifact.sha256, said, now)
    return True


def _restate(tx: Tx, artifact: Artifact, now: float, actor: str) -> None:
    """Known bytes take a statement that allows to leave more releases; one that allows less takes nothing away."""
    known = _artifact(tx, artifact.sha256)
    found = replace(known, signature=artifact.signature, sha1=artifact.sha1, md5=artifact.md5)
    found = replace(found, recognised=artifact.recognised, remarks=artifact.remarks)
    same = replace(found, statement=artifact.statement, leaves=artifact.leaves)
    before, after = set(known.leaves), set(artifact.leaves)
    comparable = before <= after or after <= before
    if same != replace(artifact, uri=known.uri, source_version=known.source_version) or not comparable:
        text = (
            f"these bytes are imported as {known.name} {known.version}, release counter {known.rel}, with another "
            "statement, which stands; a new one may only allow to leave more releases than that one does"
        )
        raise ConflictError(text, code="stated_otherwise")
    if before < after:
        tx.restate(artifact)
        said = {"name": known.name, "version": known.version, "rel": known.rel, "leaves": list(artifact.leaves)}
        tx.audit(actor, "artifact.restated", known.sha256, said, now)
    elif known != found:
        tx.restate(found)  # this import looked closer than the first one did


def _artifact(tx: Tx, sha256: str) -> Artifact:
    artifact = tx.artifact(sha256)
    if artifact is None:
        raise NotFoundError(f"no artifact {sha256[:64]!r} is imported; see `ota artifact list`")
    return artifact
