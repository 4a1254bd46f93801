"""The nouns of the project, as frozen data.

Rules:
- No behaviour beyond what follows from the fields; no I/O, no clock, no asyncio.
- Times end in `_at` and are seconds since the Unix epoch (UTC); durations end in `_s`, sizes in `_bytes`.
- Enum values are the words that are stored, sent and shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from orchestrator.core.judging.health import HealthRule
from orchestrator.core.judging.outside import ServiceGate
from orchestrator.core.pace.ramp import Climb, Ramp
from orchestrator.core.pace.requirement import ConsentRule, Requirements
from orchestrator.core.pace.retry import RetryPolicy
from orchestrator.core.pace.window import Windows
from orchestrator.core.reason import Reason as Reason  # noqa: PLC0414 - a noun like those below
from orchestrator.core.targeting import advisory
from orchestrator.core.targeting.advisory import Severity

OTAD = "otad"
"""What a device speaks that verifies triggers by itself; all else are dialects of older clients."""


@dataclass(frozen=True, slots=True)
class Remark:
    """What was noticed of an image.

    Attributes:
        code: stable word.
        text: what is wrong, half a sentence. Whoever made the image may have written parts of it.
        remedy: what to do.
    """

    code: str
    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """An immutable payload whose statement was signed by the artifact key.

    Attributes:
        sha256: hash of the bytes, base64url without padding (43 characters).
        size_bytes: exact size.
        name: product name from the statement.
        version: version for display from the statement.
        rel: release counter from the statement; devices compare this, never the version.
        sec: security epoch from the statement.
        component: slot that the artifact belongs to.
        hardware: hardware models it may run on.
        format: payload format word from the statement (`raw` where none is named).
        min_from: lowest running `rel` that may jump to this one.
        statement: the signed statement, a JWS Compact token.
        uri: where the bytes lie.
        source_version: version pinned in that source.
        leaves: running `rel`s that may be left for this artifact although it is older.
        signature: native signature that the bytes carry (`core.targeting.dialect.SIGNATURES`), "" for none that is
            known.
        sha1: SHA-1 of the bytes in lower-case hex, "" if imported before it was kept; old clients check by it.
        md5: their MD5, likewise.
        recognised: format that the bytes have, whatever the statement says; `raw` for none that is known, "" if
            imported before it was kept.
        remarks: what was noticed of the bytes at the import, and kept no device from them.
    """

    sha256: str
    size_bytes: int
    name: str
    version: str
    rel: int
    sec: int
    component: str
    hardware: tuple[str, ...]
    format: str
    min_from: int
    statement: str
    uri: str
    source_version: str | None
    leaves: tuple[int, ...] = ()
    signature: str = ""
    sha1: str = ""
    md5: str = ""
    recognised: str = ""
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True)
class Release:
    """A set of artifacts of one version, offered to the hardware that they name.

    Attributes:
        name: unique identifier.
        version: version for display, the same for all artifacts.
        rel: release counter, the same for all artifacts.
        artifacts: SHA-256 of each artifact; at most one for any hardware model.
        created_at: when it was made.
        moves: whether it brings endpoints, under which devices reach us from then on, and not firmware.
    """

    name: str
    version: str
    rel: int
    artifacts: tuple[str, ...]
    created_at: float
    moves: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What operators say of a device. Nothing that a device says of itself ever changes them.

    Attributes:
        groups: groups it belongs to, sorted.
        revision: hardware revision, "" if not known.
        site: where it stands, "" if not known.
        time_zone: name in the time zone database, "" if not known.
        tags: free words, sorted.
        attributes: free values by name.
        dialect: what it speaks (`core.targeting.dialect.DIALECTS`).
        enforces: native signatures of images that it enforces by itself.
    """

    groups: tuple[str, ...] = ()
    revision: str = ""
    site: str = ""
    time_zone: str = ""
    tags: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    dialect: str = OTAD
    enforces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Device:
    """A device as the registry knows it.

    Attributes:
        id: identifier, equal to its login at the broker.
        model: hardware model; what it last said, or what it was enrolled as.
        groups: see `Facts`, as all that follows `online`.
        version: version it last said it runs.
        rel: release counter it last said it runs.
        registered_at: when it entered the registry.
        seen_at: when it last said anything.
        online: what its last connection state says; None if it never said.
        revision: hardware revision.
        site: where it stands.
        time_zone: its time zone.
        tags: free words.
        attributes: free values by name.
        facts_at: when operators last changed its facts, None if never since it was registered.
        quarantine: why no rollout may take it in, "" if any may.
        quarantined_at: since when.
        endpoints: release counter of the endpoints that it last said it goes by, 0 for those it was provisioned with;
            None if it did not say, so that it cannot be moved.
        dialect: see `Facts`, as with the next.
        enforces: native signatures that it enforces.
    """

    id: str
    model: str
    groups: tuple[str, ...]
    version: str
    rel: int
    registered_at: float
    seen_at: float | None
    online: bool | None
    revision: str = ""
    site: str = ""
    time_zone: str = ""
    tags: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    facts_at: float | None = None
    quarantine: str = ""
    quarantined_at: float | None = None
    endpoints: int | None = None
    dialect: str = OTAD
    enforces: tuple[str, ...] = ()

    @property
    def facts(self) -> Facts:
        """What operators say of it."""
        words = (self.groups, self.revision, self.site, self.time_zone, self.tags, self.attributes)
        return Facts(*words, self.dialect, self.enforces)


class Delivery(StrEnum):
    """How a trigger reaches a device."""

    PUSH = "push"
    POLL = "poll"
    HYBRID = "hybrid"


class Urgency(StrEnum):
    """How urgent a rollout is; the wire carries its position in this list."""

    BACKGROUND = "background"
    NORMAL = "normal"
    SECURITY = "security"
    EMERGENCY = "emergency"


class SizeKind(StrEnum):
    """How a stage says how many devices it takes."""

    COUNT = "count"
    PPM = "ppm"
    REST = "rest"


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What an operator wants of one stage.

    Attributes:
        kind: unit of `size`.
        size: devices, or parts per million of the cohort; 0 with `rest`.
        soak_s: how long a resolved stage must stay healthy before it may pass.
        limit: largest upper bound of the failure rate with which the stage passes; None for the
            default that a stage of its size can show (`gate.default_limit`).
        group: group that the stage takes its devices from, "" for the whole cohort; a share is one of the
            group then, and `rest` is all of it.
        approve: whether a person must say so before it passes, whatever else holds.
        gate: service that is asked before it passes; None for that of the plan.
    """

    kind: SizeKind
    size: int
    soak_s: float = 0.0
    limit: float | None = None
    group: str = ""
    approve: bool = False
    gate: ServiceGate | None = None


@dataclass(frozen=True, slots=True)
class HaltRule:
    """When evidence halts a rollout.

    Attributes:
        tolerated: failure rate p0 that is still acceptable, below 0.4.
        alpha: probability that a rollout with a rate of at most p0 is ever halted by the e-process.
        lost_after_reboot: whether the hard rule for devices lost after the reboot applies.
        max_failures: plain threshold, failures in all; None for none.
        max_failure_rate: plain threshold, failures per resolved device; None for none.
        min_sample: resolved devices before `max_failure_rate` is judged.
    """

    tolerated: float = 0.01
    alpha: float = 0.05
    lost_after_reboot: bool = True
    max_failures: int | None = None
    max_failure_rate: float | None = None
    min_sample: int = 20


@dataclass(frozen=True, slots=True)
class EvidenceRule:
    """Whose word lets a stage pass.

    Attributes:
        registered_s: a device that registered less than this before the rollout started is taken by the last stage
            only; 0 takes it like all others.
        strata: so many strata must be healthy by themselves before a stage passes, or all if there are fewer; 0 for
            none.
    """

    registered_s: float = 0.0
    strata: int = 0


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a device may take for each phase of an update, in seconds.

    Attributes:
        accept_s: from the offer to the acceptance; silence until here is no evidence.
        download_s: from the acceptance to the verified download.
        install_s: from the download to the reboot.
        confirm_s: from the reboot to the healthy report.
    """

    accept_s: float = 86_400.0
    download_s: float = 3_600.0
    install_s: float = 900.0
    confirm_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How one release is brought to one cohort.

    Attributes:
        name: unique identifier of the rollout.
        release: name of the release.
        stages: at least one.
        delivery: push, poll or hybrid.
        urgency: how urgent.
        severity: how bad it is for a device to stay without the release.
        advisories: numbers of what the release mends.
        fixes_below: release counter below which a device is vulnerable, None for that of the release.
        models: hardware models to take; empty for every model that the release supports.
        groups: groups of which a device must be in at least one; empty for all.
        select: selector that a device must meet (`core.targeting.selector`), "" for all.
        open_cohort: whether devices that come to match after the start join, under the same limits.
        stratify: what each stage is a fair sample of: `model`, `site` or `attr.NAME`; "" for none.
        in_flight: largest number of devices that may be updating at once.
        halt: when evidence halts it.
        evidence: whose word lets a stage pass.
        deadlines: how long each phase may take.
        confidence: of the upper bound that a stage needs to pass.
        retry: what follows a failed attempt.
        windows: when its devices may be offered the release.
        urgent_from: urgency from which on windows, freezes and consent hold no device.
        ramp: how fast updates may start; None for no limit.
        jitter_s: over how long the offers to devices that could have it at once are spread.
        require: what a device must have said of itself.
        consent: whether the user of a device is asked.
        resolved_share: share of the reached devices that must be resolved before a stage is judged.
        max_unreached: largest share of a stage that may stay unreached without asking a person.
        health: what devices must measure of themselves.
        soonest_s: a device that says it is healthy sooner than this after its trigger is not believed; 0 for never.
        gate: service that every stage asks before it passes, unless it has its own; None for none.
        seed: fixes the cohort order for rehearsals; None for a fresh secret per rollout.
        leaves: release counter from which a rollback takes devices back to an older release; 0 for all others.
    """

    name: str
    release: str
    stages: tuple[StagePlan, ...]
    delivery: Delivery = Delivery.HYBRID
    urgency: Urgency = Urgency.NORMAL
    severity: Severity = Severity.NONE
    advisories: tuple[str, ...] = ()
    fixes_below: int | None = None
    models: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    select: str = ""
    open_cohort: bool = False
    stratify: str = ""
    in_flight: int = 100
    halt: HaltRule = field(default_factory=HaltRule)
    evidence: EvidenceRule = field(default_factory=EvidenceRule)
    deadlines: Deadlines = field(default_factory=Deadlines)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    windows: Windows = field(default_factory=Windows)
    urgent_from: Urgency = Urgency.EMERGENCY
    ramp: Ramp | None = None
    jitter_s: float = 0.0
    require: Requirements = field(default_factory=Requirements)
    consent: ConsentRule = field(default_factory=ConsentRule)
    confidence: float = 0.95
    resolved_share: float = 0.95
    max_unreached: float = 0.5
    seed: int | None = None
    leaves: int = 0
    health: tuple[HealthRule, ...] = ()
    soonest_s: float = 0.0
    gate: ServiceGate | None = None

    @property
    def mends(self) -> dict[str, object]:
        """What it mends, for the record; nothing where it says nothing."""
        return advisory.told(self.severity, self.advisories, self.fixes_below)

    @property
    def is_urgent(self) -> bool:
        """Whether windows, freezes and consent hold none of its devices."""
        order = list(Urgency)
        return order.index(self.urgency) >= order.index(self.urgent_from)


class Phase(StrEnum):
    """Where a rollout stands."""

    DRAFT = "draft"
    PREPARING = "preparing"
    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"
    INCONCLUSIVE = "inconclusive"
    DONE = "done"
    ABORTED = "aborted"


class UpdateState(StrEnum):
    """Where one device stands in one rollout."""

    PENDING = "pending"
    OFFERED = "offered"
    UNREACHED = "unreached"
    REFUSED = "refused"
    POSTPONED = "postponed"
    ACCEPTED = "accepted"
    DOWNLOADED = "downloaded"
    RECALLING = "recalling"
    RETRYING = "retrying"
    RECALLED = "recalled"
    TOO_LATE = "too_late"
    INSTALLED = "installed"
    RUNNING = "running"
    CONFIRMED = "confirmed"
    EXPIRED = "expired"
    LOST = "lost"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"

    __hash__ = str.__hash__  # every table is keyed by this; the enum's own is a Python function


DAEMON = "orchestrator"
"""Who acts, on the record, where no person does."""

RELAPSED = "relapsed"
"""Tally word for a failure after confirmation in a stage that was judged already."""

RETRIED = "retried"
"""Tally word for a failure that stays evidence although a person gave the device another attempt."""

MET = "met"
"""Tally word beside `RETRIED` for its device, as long as that counts nowhere else among the exposed of that epoch."""


class TallyKey(NamedTuple):
    """What one tally counts: updates of a stage and stratum in one state.

    Attributes:
        epoch: evidence epoch in which the device was offered the release.
        stage: stage index.
        stratum: hardware model, or what else the plan stratifies by.
        state: an `UpdateState` value, `RELAPSED`, `RETRIED` or `MET`.
    """

    epoch: int
    stage: int
    stratum: str
    state: str


Tally = Mapping[TallyKey, int]
"""Counts of updates by key; keys that count nothing may be missing."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a rollout that was started.

    Attributes:
        base: devices that the plan gives it.
        target: devices it shall have, `base` plus extensions.
        opened_at: when its first device could be offered the release, or None.
        resolved_at: when enough of its devices were first resolved, or None.
        passed_at: when it was judged as passed, or None.
        waived: whether a person lets it pass whatever its evidence shows; it still halts.
        hurried: whether a person lets it pass without waiting for the rest of its evidence.
        climb: how far it has come on the ramp, None before its first offer or without one.
        drained: whether it got fewer devices than it wanted, because those that are left wait for the last stage.
    """

    base: int
    target: int
    opened_at: float | None = None
    resolved_at: float | None = None
    passed_at: float | None = None
    waived: bool = False
    hurried: bool = False
    climb: Climb | None = None
    drained: bool = False


@dataclass(frozen=True, slots=True)
class Rollout:
    """One plan bringing one release to one cohort.

    Attributes:
        id: number, as in the trigger's `cid`.
        plan: what was asked for.
        phase: where it stands.
        reason: why it stands there.
        actor: who moved it there.
        moved_at: when it moved there.
        version: rises with every change of the phase; a trigger sealed under an older one is void.
        stage: index of the current stage.
        stages: one per stage of the plan, empty until the cohort is known.
        cohort_size: devices in the cohort, None until it is known.
        cohort_at: when the cohort was fixed; devices registered later are not in it.
        strata: hardware models in the cohort, or values of what else the plan stratifies by.
        epoch: evidence epoch; a resume after a halt opens the next one.
        plan_version: rises with every edit of the plan; what is sealed stays good.
        moves: whether its release brings endpoints, and not firmware.
    """

    id: int
    plan: Plan
    phase: Phase
    reason: Reason
    actor: str
    moved_at: float
    version: int = 1
    stage: int = 0
    stages: tuple[Stage, ...] = ()
    cohort_size: int | None = None
    cohort_at: float | None = None
    strata: int = 1
    epoch: int = 0
    plan_version: int = 1
    moves: bool = False

    @property
    def current(self) -> Stage:
        """The stage that is open now."""
        return self.stages[self.stage]

    @property
    def is_in_last_stage(self) -> bool:
        """Whether no stage follows the one that is open now."""
        return self.stage + 1 == len(self.stages)

    @property
    def leaves_stage(self) -> bool:
        """Whether a person lets the open stage pass, so that it takes nobody in any more; the last one does."""
        return self.current.hurried and not self.is_in_last_stage

    def with_current(self, stage: Stage) -> Rollout:
        """Return the rollout with another stage in the place of the one that is open now."""
        stages = (*self.stages[: self.stage], stage, *self.stages[self.stage + 1 :])
        return replace(self, stages=stages)


class Update(NamedTuple):
    """One device's journey in one rollout. A tuple, because one is made for every report.

    Attributes:
        id: number, as in the trigger's `att`.
        rollout_id: the rollout.
        device_id: the device.
        stage: stage in which the device was opened.
        stratum: hardware model, or what else the plan stratifies by.
        rel: release counter that the device must run in the end.
        state: where it stands.
        state_at: since when.
        epoch: evidence epoch in which it was offered.
        attempt: number of the attempt, from 1.
        begun: whether the device has ever said that it began this attempt.
        deadline_at: when silence will be judged, or None.
        progress: percent downloaded.
        code: reason code of the device or of ours, "" if none.
        relapsed_stage: stage that was current when it failed after confirmation, or None.
        relapsed_epoch: evidence epoch then.
        failed_epoch: evidence epoch of a failure after which a person gave it another attempt, or None.
    """

    id: int
    rollout_id: int
    device_id: str
    stage: int
    stratum: str
    rel: int
    state: UpdateState
    state_at: float
    epoch: int = 0
    attempt: int = 1
    begun: bool = False
    deadline_at: float | None = None
    progress: int = 0
    code: str = ""
    relapsed_stage: int | None = None
    relapsed_epoch: int = 0
    failed_epoch: int | None = None
