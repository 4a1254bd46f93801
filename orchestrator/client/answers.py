"""What the operator API answers, as types: the document of the API and the client are both made of these.

Rules:
- A time is seconds since the epoch, a duration is in seconds, a share is a number from 0 to 1.
- More fields may come; none changes its meaning.
- Each field stands among the attributes of its type with what it means: the document of the API shows the same words.
"""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

Phase = Literal["draft", "preparing", "running", "paused", "halted", "inconclusive", "done", "aborted"]
Command = Literal["start", "pause", "resume", "halt", "abort", "retry", "advance", "skip"]


class StoreFigures(TypedDict, total=False):
    """What the database holds; only `error` where nobody can say.

    Attributes:
        devices: devices that are registered.
        running: rollouts that run.
        waiting: triggers that are signed and wait for the broker.
        seq: highest sequence number that was given to a trigger.
        error: why nobody can say; then nothing else is there.
    """

    devices: int
    running: int
    waiting: int
    seq: int
    error: str


class ClockJump(TypedDict):
    """A jump of the clock.

    Attributes:
        at: when it was noticed, in seconds since the epoch.
        by_s: seconds by which the clock went on, or back if negative, beyond the time that passed.
    """

    at: float
    by_s: int


class Expiry(TypedDict):
    """What expires when, or why nobody knows.

    Attributes:
        name: what expires, such as a key or a certificate.
        expires_at: until when it is good, in seconds since the epoch.
        days_left: days until then; negative once it is over.
        threshold_days: the last threshold of warnings that was passed, in days; null if even the first is to
            come.
        error: why nobody knows; then no time is there.
    """

    name: str
    expires_at: NotRequired[float]
    days_left: NotRequired[float]
    threshold_days: NotRequired[int | None]
    error: NotRequired[str]


class Status(TypedDict, total=False):
    """How the daemon is.

    Attributes:
        version: version of the daemon.
        broker_connected: whether the daemon is connected to its broker.
        hearing: whether silence of devices is judged now.
        store_fault: why the store cannot be written; empty if it can.
        stopped_here: names of rollouts that were stopped while the store could not be written; a restart would
            forget it.
        clock_jump: the last jump of the clock since the start, null for none.
        published: triggers and recalls that the broker has taken since the start.
        recorder: messages since the start, by what became of them.
        retained: messages that were found retained at the broker and must not be, by what became of them.
        heard_at: when the last report was stored, null if none was since the start, in seconds since the epoch.
        epoch: number of the keyset that devices hold by now.
        trigger_faults: why no trigger can be signed, one sentence each; empty if they can.
        expires: what expires when.
        webhooks: how destinations of events are.
        store: what the database holds.
    """

    version: str
    broker_connected: bool
    hearing: bool
    store_fault: str
    stopped_here: list[str]
    clock_jump: ClockJump | None
    published: int
    recorder: dict[str, int]
    retained: dict[str, int]
    heard_at: float | None
    epoch: int
    trigger_faults: list[str]
    expires: list[Expiry]
    webhooks: WebhookFigures
    store: StoreFigures


class Remark(TypedDict):
    """What was noticed of an image when it was imported.

    Attributes:
        code: stable word for what was noticed.
        text: what was noticed, in a sentence.
        remedy: what to do about it.
    """

    code: str
    text: str
    remedy: str


class Artifact(TypedDict):
    """An artifact that was imported: the format that its statement declares, and the one that was recognised.

    Attributes:
        sha256: SHA-256 of the bytes, in base64url without padding.
        name: name of the product, from the statement.
        version: version for people, from the statement.
        rel: release counter, which devices compare.
        hardware: hardware models that it may run on.
        component: slot of the device that it belongs to.
        size_bytes: size in bytes.
        uri: where the bytes lie.
        source_version: version that is pinned there, null where the place has none.
        format: format that the statement declares; `raw` where it declares none.
        recognised: format that the bytes have; `raw` for none that is known, empty if imported before it was
            kept.
        signature: native signature that the bytes carry; empty for none that is known.
        warnings: what was noticed of the bytes, and kept no device from them.
    """

    sha256: str
    name: str
    version: str
    rel: int
    hardware: list[str]
    component: str
    size_bytes: int
    uri: str
    source_version: str | None
    format: str
    recognised: str
    signature: str
    warnings: list[Remark]


class ArtifactDetail(Artifact):
    """An artifact with all that is known of it.

    Attributes:
        key: identifier of the key that signed its statement.
        security_epoch: security epoch from the statement; 0 for none.
        min_from: lowest running release counter that may jump to it; 0 for any.
        leaves: newer running release counters that may be left for it.
        sha1: SHA-1 of the bytes in hex, for old clients; empty if imported before it was kept.
        md5: MD5 of the bytes in hex, for old clients; empty if imported before it was kept.
        releases: names of the releases that hold it, newest first.
        imported_at: when it was imported, null if the audit log would have to be looked through too far back,
            in seconds since the epoch.
        imported_by: account that asked for the import, null likewise.
    """

    key: str
    security_epoch: int
    min_from: int
    leaves: list[int]
    sha1: str
    md5: str
    releases: list[str]
    imported_at: float | None
    imported_by: str | None


class Release(TypedDict):
    """A release: artifacts of one version.

    Attributes:
        name: its name.
        version: version of its artifacts, for people.
        rel: release counter of its artifacts.
        artifacts: hashes of its artifacts, as in `Artifact.sha256`.
        moves: whether it brings endpoints, and not firmware.
        created_at: when it was made, in seconds since the epoch.
    """

    name: str
    version: str
    rel: int
    artifacts: list[str]
    moves: bool
    created_at: float


class Device(TypedDict):
    """A device as the registry knows it.

    Attributes:
        id: its identifier.
        model: its hardware model.
        groups: groups that it belongs to.
        version: version that it last said it runs; empty if it never said.
        rel: release counter that it last said it runs; 0 if it never said.
        online: whether it is connected, as its last connection state says; null if it never said.
        revision: hardware revision; empty if not known.
        site: where it stands; empty if not known.
        time_zone: name in the time zone database; empty if not known.
        tags: tags that operators gave it.
        attributes: further values that operators gave it, by name.
        facts_at: when operators last changed what is said of it, null if never, in seconds since the epoch.
        quarantine: why no rollout may take it in; empty if any may.
        quarantined_at: since when it is left out, null if it is not, in seconds since the epoch.
        endpoints: release counter of the endpoints that it goes by, 0 for those of its provisioning; null if it
            never said.
        dialect: what it speaks.
        enforces: native signatures of images that it enforces by itself.
        registered_at: when it was registered, in seconds since the epoch.
        seen_at: when it last said anything, null if never, in seconds since the epoch.
    """

    id: str
    model: str
    groups: list[str]
    version: str
    rel: int
    online: bool | None
    revision: str
    site: str
    time_zone: str
    tags: list[str]
    attributes: dict[str, str]
    facts_at: float | None
    quarantine: str
    quarantined_at: float | None
    endpoints: int | None
    dialect: str
    enforces: list[str]
    registered_at: float
    seen_at: float | None


class Update(TypedDict):
    """One device's journey in one rollout.

    Attributes:
        rollout: name of the rollout.
        state: how far it is.
        state_at: since when, in seconds since the epoch.
        stage: index of the stage in which it was opened, from 0.
        attempt: number of the attempt, from 1.
        progress: percent that is downloaded, null if it did not say.
        code: reason code, of the device or of ours; empty if none.
        deadline_at: when its silence will be judged, null if it will not, in seconds since the epoch.
    """

    rollout: str
    state: str
    state_at: float
    stage: int
    attempt: int
    progress: int | None
    code: str
    deadline_at: float | None


class DeviceWithUpdates(Device):
    """A device, and its updates.

    Attributes:
        updates: its updates.
    """

    updates: list[Update]


class Tokens(TypedDict):
    """Tokens of devices by identifier; they are shown this once.

    Attributes:
        tokens: tokens by identifier of the device.
    """

    tokens: dict[str, str]


class ChangedDevices(TypedDict):
    """The devices that are different now.

    Attributes:
        changed: identifiers of the devices that are different now.
    """

    changed: list[str]


class Count(TypedDict):
    """How many were changed.

    Attributes:
        changed: how many were changed.
    """

    changed: int


class Obstacle(TypedDict):
    """One reason that holds a device back.

    Attributes:
        code: stable word for the reason.
        text: the reason in a sentence.
        may_change_at: when time alone can change it, null where something must happen, in seconds since the
            epoch.
    """

    code: str
    text: str
    may_change_at: float | None


class DeliveryLine(TypedDict):
    """A trigger on its way.

    Attributes:
        kind: what it brings: `install` or `recall`.
        state: how far it is on its way.
        seq: its sequence number, null before it has one.
        planned_at: when it was planned, in seconds since the epoch.
    """

    kind: str
    state: str
    seq: int | None
    planned_at: float


class Refusal(TypedDict):
    """What a device said when it refused last.

    Attributes:
        at: when it refused, in seconds since the epoch.
        code: reason code of the device; empty if it gave none.
        text: what the device said besides.
        means: what the code means; empty for one that is not known.
        stands: whether its update still is refused.
    """

    at: float
    code: str
    text: str
    means: str
    stands: bool


class ReportLine(TypedDict):
    """What a device said of an update.

    Attributes:
        at: when it came, in seconds since the epoch.
        kind: what it reports.
        code: reason code of the device; empty if it gave none.
        text: what the device said besides.
        boot: mark of the boot in which it said so.
        n: number of the report in that boot.
    """

    at: float
    kind: str
    code: str
    text: str
    boot: str
    n: int


class DeviceReason(TypedDict):
    """Why a device has or has not one release.

    Attributes:
        rollout: name of the rollout.
        release: name of its release.
        phase: phase of the rollout.
        unsigned_allowed: who allowed an image that it cannot verify, in a sentence; null where nobody had to.
        state: state of its update, null if the rollout has not taken it in.
        because: why it stands there, in a sentence.
        reasons: all that holds it back, the first first.
        update: its update, where it has one.
        deliveries: triggers on their way to it, oldest first.
        triggered: triggers that it was sent.
        refusal: its last refusal, null if it never refused.
        reports: what it said of the update, oldest first.
    """

    rollout: str
    release: str
    phase: Phase
    unsigned_allowed: str | None
    state: str | None
    because: str
    reasons: list[Obstacle]
    update: NotRequired[Update]
    deliveries: NotRequired[list[DeliveryLine]]
    triggered: NotRequired[int]
    refusal: NotRequired[Refusal | None]
    reports: NotRequired[list[ReportLine]]


class DeviceExplanation(TypedDict):
    """Why a device has or has not each release that is being rolled out.

    Attributes:
        device: the device.
        rollouts: each rollout that took it in or may do so.
    """

    device: Device
    rollouts: list[DeviceReason]


class Reason(TypedDict):
    """A reason: a stable word and a sentence.

    Attributes:
        code: stable word for the reason.
        text: the reason in a sentence.
    """

    code: str
    text: str


class Standing(Reason):
    """Why a rollout stands where it stands.

    Attributes:
        wake_at: when time alone may change it, null where something must happen, in seconds since the epoch.
    """

    wake_at: float | None


class Stage(TypedDict):
    """A stage of a rollout.

    Attributes:
        index: index, from 0.
        phase: whether it waits, is open or has passed.
        base: devices that the plan gives it, null before the cohort is fixed.
        target: devices that it shall have, extensions included; null before the cohort is fixed.
        passed_at: when it passed, null if it has not, in seconds since the epoch.
        opened: devices that were taken into it.
        in_flight: devices that hold a slot.
        confirmed: devices that are healthy.
        failures: devices that failed.
        unreached: devices that never accepted.
    """

    index: int
    phase: Literal["waiting", "open", "passed"]
    base: int | None
    target: int | None
    passed_at: NotRequired[float | None]
    opened: int
    in_flight: int
    confirmed: int
    failures: int
    unreached: int


class Evidence(TypedDict):
    """What is known for the halt: k failures among n exposed devices.

    Attributes:
        stratum: stratum of which it is; `all` for the total.
        k: devices that failed.
        n: devices that were exposed.
        e: value of the e-process, which k in n makes.
        threshold: value of the e-process at which the rollout halts.
    """

    stratum: str
    k: int
    n: int
    e: float
    threshold: float


class Bound(TypedDict):
    """What is known for passing the current stage.

    Attributes:
        k: devices that failed, and those that have not shown how they are.
        n: devices that were exposed.
        upper: upper bound of the failure rate, from 0 to 1.
        limit: what the stage allows, from 0 to 1.
    """

    k: int
    n: int
    upper: float
    limit: float


class Mended(TypedDict):
    """What a plan mends.

    Attributes:
        severity: how severe what it mends is.
        advisories: numbers of the advisories that it mends.
        fixes_below: release counter below which a device is vulnerable; null for that of the release.
    """

    severity: str
    advisories: list[str]
    fixes_below: int | None


class RolloutLine(Mended):
    """A rollout in a list.

    Attributes:
        id: number of the rollout.
        name: its name.
        release: name of its release.
        phase: its phase.
        stage: index of the current stage, from 0.
        stages: how many stages it has.
        cohort_size: devices of its cohort, null before it is fixed.
        confirmed: devices that are healthy.
        failures: devices that failed.
        in_flight: devices that hold a slot.
        reason: why it is in this phase, in a sentence.
        urgency: how urgent it is.
    """

    id: int
    name: str
    release: str
    phase: Phase
    stage: int
    stages: int
    cohort_size: int | None
    confirmed: int
    failures: int
    in_flight: int
    reason: str
    urgency: str


class Rollout(Mended):
    """A rollout with its stages and its evidence.

    Attributes:
        id: number of the rollout.
        name: its name.
        release: name of its release.
        phase: its phase.
        reason: why it is in this phase.
        actor: who brought it there.
        moved_at: since when it is in this phase, in seconds since the epoch.
        standing: why it stands where it stands.
        stage: index of the current stage, from 0.
        cohort_size: devices of its cohort, null before it is fixed.
        epoch: number of the evidence epoch; a resume after a halt begins the next one.
        delivery: how triggers reach devices: push, poll or hybrid.
        urgency: how urgent it is.
        in_flight: devices that hold a slot.
        in_flight_limit: devices that may hold a slot at once.
        reached: devices that were ever exposed to the release.
        states: devices by state of their update.
        stages: its stages, in order.
        evidence: what is known for the halt: in total, then by stratum where there is more than one.
        bound: what is known for passing the current stage, null before the cohort is fixed.
    """

    id: int
    name: str
    release: str
    phase: Phase
    reason: Reason
    actor: str
    moved_at: float
    standing: Standing
    stage: int
    cohort_size: int | None
    epoch: int
    delivery: str
    urgency: str
    in_flight: int
    in_flight_limit: int
    reached: int
    states: dict[str, int]
    stages: list[Stage]
    evidence: list[Evidence]
    bound: Bound | None


class NewRollout(Rollout):
    """A rollout that was made, and what is odd about its plan.

    Attributes:
        warnings: what is odd about its plan, one sentence each.
    """

    warnings: NotRequired[list[str]]


class Review(TypedDict):
    """What was done without approvals, for another person to look at.

    Attributes:
        id: number of the review.
        matter: what was done.
        object: what it was done to.
        text: what would have been approved.
        actor: account that did it.
        reason: why there was no time for approvals.
        at: when it was done, in seconds since the epoch.
        closed_by: person who looked at it; empty while it is open.
        finding: what that person says.
    """

    id: int
    matter: str
    object: str
    text: str
    actor: str
    reason: str
    at: float
    closed_by: str
    finding: str


class Reviewed(TypedDict):
    """The review that an act without approvals has opened.

    Attributes:
        review: number of the review, where the act has opened one.
    """

    review: NotRequired[int]


class Moved(Rollout, Reviewed):
    """A rollout after a command.

    Attributes:
        answer: what the command led to, in a sentence.
        changed: whether it changed anything.
    """

    answer: str
    changed: bool


class Gate(TypedDict):
    """Which rule decides.

    Attributes:
        stage: index of the current stage, from 0.
        stages: how many stages there are.
        rule: stable word for the rule that decides.
        code: stable word for the reason.
        text: the reason in a sentence.
    """

    stage: int
    stages: int
    rule: str
    code: str
    text: str


class Wait(TypedDict):
    """One thing that stands before the end of the current stage.

    Attributes:
        code: stable word for what is waited for.
        text: what is waited for, in words.
        have: how much of it is there, in devices or strata; null where that is not counted.
        need: how much there must be, in devices, strata, or seconds for a soak; null where that is not counted.
        may_change_at: when time alone can change it, null where something must happen, in seconds since the
            epoch.
    """

    code: str
    text: str
    have: int | None
    need: float | None
    may_change_at: float | None


class EvidenceToHalt(Evidence):
    """Evidence, and how many failures would halt.

    Attributes:
        halts_at: failures among the same devices that would halt, null where no number does.
        more: how many failures are missing until then, null likewise.
    """

    halts_at: int | None
    more: int | None


class Lost(TypedDict):
    """Devices that were lost after their reboot.

    Attributes:
        k: devices that were lost after their reboot.
        halts_at: how many of them halt the stage, null where no number does.
    """

    k: int
    halts_at: int | None


class BoundToPass(Bound):
    """The bound of a stage, and what would bring it within its limit.

    Attributes:
        failed: devices that failed, in this evidence epoch.
        confirmed: devices that are healthy.
        under_way: devices that may become either.
        needed: devices that must have shown how they are, with no further failure; null where none are enough.
        more: healthy devices that are missing until then, null likewise.
    """

    failed: int
    confirmed: int
    under_way: int
    needed: int | None
    more: int | None


class StratumCounts(TypedDict):
    """Devices of one stratum.

    Attributes:
        stratum: name of the stratum.
        opened: devices that were taken in.
        in_flight: devices that hold a slot.
        confirmed: devices that are healthy.
        failures: devices that failed.
    """

    stratum: str
    opened: int
    in_flight: int
    confirmed: int
    failures: int


class Green(TypedDict):
    """Whether a stratum is healthy by itself.

    Attributes:
        stratum: name of the stratum.
        green: whether it is healthy by itself.
        healthy: devices that are healthy.
        k: devices that failed, and those that have not shown how they are.
        n: devices that were exposed.
        allowed: failures that so many devices may have.
    """

    stratum: str
    green: bool
    healthy: int
    k: int
    n: int
    allowed: int | None


class Diversity(TypedDict):
    """How many strata must be healthy by themselves, and are.

    Attributes:
        needed: strata that must be healthy by themselves.
        green: strata that are.
        strata: each stratum.
    """

    needed: int
    green: int
    strata: list[Green]


class Deed(TypedDict):
    """What a person did.

    Attributes:
        at: when it was done, in seconds since the epoch.
        actor: account that did it.
        did: what was done, in words.
        text: the reason that was given; empty for none.
    """

    at: float
    actor: str
    did: str
    text: str


class Event(TypedDict):
    """A move of a rollout.

    Attributes:
        at: when it moved, in seconds since the epoch.
        phase: the phase that it came to.
        stage: index of the stage then, from 0.
        code: stable word for the reason.
        text: the reason in a sentence.
        actor: who moved it: an account, or the daemon.
    """

    at: float
    phase: Phase
    stage: int
    code: str
    text: str
    actor: str


class Trouble(TypedDict):
    """A reason why devices failed or refused, and how many did.

    Attributes:
        code: reason code of the devices; `none` where they gave none.
        devices: how many devices.
        text: what the code means; empty for one that is not known.
    """

    code: str
    devices: int
    text: str


class RolloutExplanation(Mended):
    """Why a rollout stands where it stands, and what would change that.

    Attributes:
        name: its name.
        release: name of its release.
        urgency: how urgent it is.
        phase: its phase.
        since: since when it is in this phase, in seconds since the epoch.
        actor: who brought it there.
        because: why it stands where it stands, in a sentence.
        code: stable word for that reason.
        next: what would change it, one sentence each.
        failures: why devices failed, the most frequent reason first.
        refusals: why devices refused, the most frequent reason first.
        wake_at: when time may change it, null where something must happen, in seconds since the epoch.
        gate: which rule decides.
        waits_for: all that stands before the end of the current stage, in the order in which it is judged.
        evidence: what is known for the halt, and what would halt.
        lost: devices that were lost after their reboot, null before the cohort is fixed.
        bound: what is known for passing the current stage, and what would pass it; null before the cohort is
            fixed.
        strata: devices by stratum.
        diversity: how many strata must be healthy by themselves, null where the plan asks for none.
        people: what persons did, oldest first.
        events: its moves.
    """

    name: str
    release: str
    urgency: str
    phase: Phase
    since: float
    actor: str
    because: str
    code: str
    next: list[str]
    failures: list[Trouble]
    refusals: list[Trouble]
    wake_at: float | None
    gate: Gate
    waits_for: list[Wait]
    evidence: list[EvidenceToHalt]
    lost: Lost | None
    bound: BoundToPass | None
    strata: list[StratumCounts]
    diversity: Diversity | None
    people: list[Deed]
    events: list[Event]


class Milestone(TypedDict):
    """How many devices came to a milestone, and after how long which share of the cohort had.

    Attributes:
        devices: devices that came to it.
        t50_s: seconds after which half of the cohort had, null if it has not.
        t90_s: seconds after which 90 % of the cohort had, null if it has not.
        t95_s: seconds after which 95 % of the cohort had, null if it has not.
    """

    devices: int
    t50_s: float | None
    t90_s: float | None
    t95_s: float | None


class CurvePoint(TypedDict):
    """Sums up to a time.

    Attributes:
        after_s: seconds after the beginning of the curve.
        offered: devices that were offered the release by then.
        confirmed: devices that ran it well by then.
    """

    after_s: int
    offered: int
    confirmed: int


class Curve(Mended):
    """Time to protected.

    Attributes:
        name: name of the rollout.
        phase: its phase.
        cohort_size: devices of its cohort, null before it is fixed.
        since: when the curve begins: at the last approval, or the start, null before, in seconds since the epoch.
        began_at: when it was started, null before, in seconds since the epoch.
        approved_at: when the last approval came that the start needed, null if it needed none, in seconds since
            the epoch.
        width_s: seconds from one point to the next, null before the start.
        offered: devices that were offered the release.
        confirmed: devices that run it well.
        points: the curve, in order of time.
    """

    name: str
    phase: Phase
    cohort_size: int | None
    since: float | None
    began_at: float | None
    approved_at: float | None
    width_s: int | None
    offered: NotRequired[Milestone]
    confirmed: NotRequired[Milestone]
    points: list[CurvePoint]


class PlanChange(TypedDict):
    """What an edit makes different.

    Attributes:
        path: what of the plan it is.
        before: how it was, null where it was not there.
        after: how it is, null where it is not there any more.
        loosens: whether it loosens a limit.
    """

    path: str
    before: str | None
    after: str | None
    loosens: bool


class Edited(TypedDict):
    """What an edit led to, or would lead to.

    Attributes:
        version: number of the version that the plan has after it.
        changes: what it makes different.
    """

    version: int
    changes: list[PlanChange]


class PlanVersion(Edited):
    """A version of a plan.

    Attributes:
        at: when it was made, in seconds since the epoch.
        actor: account that made it.
        reason: why; empty where none was needed.
    """

    at: float
    actor: str
    reason: str


class Exposed(TypedDict):
    """Devices by one name.

    Attributes:
        name: name of the model, site or group; empty for devices without one.
        vulnerable: devices that run a vulnerable version.
        unknown: devices of which nobody knows what they run.
    """

    name: str
    vulnerable: int
    unknown: int


class ExposedBy(TypedDict):
    """Devices by name, those with the most first, and how many names are not told.

    Attributes:
        named: those with the most devices.
        others: how many names are not told.
    """

    named: list[Exposed]
    others: int


class Seen(TypedDict):
    """Devices by when they were last seen.

    Attributes:
        name: how long ago, in words.
        devices: vulnerable devices that were last seen then.
    """

    name: str
    devices: int


class Exposure(TypedDict):
    """Who still runs a vulnerable version.

    Attributes:
        rollout: rollout that was asked for, null if another question was asked.
        advisory: advisory that was asked for, null if another question was asked.
        below_rel: release counter that was asked for, null if another question was asked.
        below: release counter below which a device is vulnerable, by model.
        fleet: devices that are registered.
        vulnerable: devices that run a vulnerable version.
        unknown: devices of which nobody knows what they run.
        models: these devices by hardware model.
        sites: these devices by site.
        groups: these devices by group; one may be in several.
        seen: vulnerable devices by when they were last seen.
    """

    rollout: str | None
    advisory: str | None
    below_rel: int | None
    below: dict[str, int]
    fleet: int
    vulnerable: int
    unknown: int
    models: ExposedBy
    sites: ExposedBy
    groups: ExposedBy
    seen: list[Seen]


class EndpointCount(TypedDict):
    """Devices that go by the endpoints of one release counter.

    Attributes:
        rel: release counter of the endpoints, 0 for those of the provisioning.
        devices: devices that go by them.
    """

    rel: int | None
    devices: int


class Endpoints(TypedDict):
    """Devices by the endpoints that they go by.

    Attributes:
        fleet: devices that are registered.
        endpoints: devices by endpoints, in order of the release counter.
        unknown: devices that never said by which endpoints they go.
    """

    fleet: int
    endpoints: list[EndpointCount]
    unknown: int


class Vote(TypedDict):
    """What a person said to a proposal.

    Attributes:
        actor: account that voted.
        person: person behind it.
        approves: whether it approves.
        reason: why.
        at: when, in seconds since the epoch.
    """

    actor: str
    person: str
    approves: bool
    reason: str
    at: float


class Proposal(TypedDict):
    """What others must approve before it is done.

    Attributes:
        id: number of the proposal.
        matter: what shall be done.
        object: what it shall be done to.
        state: what became of it.
        text: what is approved, in words.
        digest: SHA-256 of all that is approved, in hex.
        proposer: account that proposed it.
        person: person behind that account; empty if it is shared.
        reason: why it is proposed.
        made_at: when it was proposed, in seconds since the epoch.
        expires_at: until when it can be approved and used, in seconds since the epoch.
        needed: persons who must approve it.
        votes: what was said to it.
    """

    id: int
    matter: str
    object: str
    state: Literal["proposed", "approved", "rejected", "expired", "void", "used"]
    text: str
    digest: str
    proposer: str
    person: str
    reason: str
    made_at: float
    expires_at: float
    needed: int
    votes: list[Vote]


class Approvals(TypedDict):
    """Proposals, newest first, and the reviews that are open.

    Attributes:
        proposals: proposals, newest first.
        reviews: reviews that are open.
    """

    proposals: list[Proposal]
    reviews: list[Review]


class Entry(TypedDict):
    """An entry of the audit log; `detail` is the JSON text that was hashed.

    Attributes:
        n: number of the entry, from 1.
        at: when it was written, in seconds since the epoch.
        actor: account that did it, or the daemon.
        action: what was done.
        object: what it was done to.
        detail: JSON text with all else, as it was hashed.
        prev: hash of the entry before.
        hash: hash of this entry, which holds that of the one before.
    """

    n: int
    at: float
    actor: str
    action: str
    object: str
    detail: str
    prev: str
    hash: str


class Token(TypedDict):
    """What is kept of an operator's token.

    Attributes:
        id: public part of the token, by which it is found.
        operator: account that it opens.
        made_at: when it was issued, in seconds since the epoch.
        expires_at: when it ends, in seconds since the epoch.
        used_at: when it was last used, to the hour; null if never, in seconds since the epoch.
        revoked_at: when it was revoked, null if it was not, in seconds since the epoch.
    """

    id: str
    operator: str
    made_at: float
    expires_at: float
    used_at: float | None
    revoked_at: float | None


class NewToken(Token, Reviewed):
    """A token that was made; `token` is shown this once.

    Attributes:
        token: the token itself, which is shown this once.
    """

    token: str


class Operator(TypedDict):
    """An account, with what is kept of its tokens.

    Attributes:
        name: name of the account.
        person: person behind it.
        roles: what it may do.
        added_at: when it was added, in seconds since the epoch.
        tokens: its tokens.
    """

    name: str
    person: str
    roles: list[Literal["viewer", "operator", "approver", "admin"]]
    added_at: float
    tokens: list[Token]


class Removed(Reviewed):
    """An account that was removed.

    Attributes:
        removed: name of the account.
    """

    removed: str


class Webhook(TypedDict):
    """A destination of events; `behind` is how many entries of the audit log it has not come past.

    Attributes:
        id: identifier of the destination.
        url: where events go, without its query; `mqtt:` for the broker.
        events: which events: types, `rollout.*` or `*`.
        state: how it is.
        made_at: when it was added, in seconds since the epoch.
        made_by: account that added it.
        cursor: number of the last entry of the audit log that it needs no more.
        behind: entries of the audit log that it has not come past.
        delivered: events that it took.
        delivered_at: when it took the last one, null if never, in seconds since the epoch.
        failures: attempts that failed since the last one that did not.
        failed_at: when the first of them did, null if none did, in seconds since the epoch.
        next_at: when it is tried again, null for at once, in seconds since the epoch.
        error: why the last attempt failed; empty if it did not.
        old_until: until when the secret before signs as well, null if there is none, in seconds since the
            epoch.
    """

    id: str
    url: str
    events: list[str]
    state: Literal["active", "failing", "disabled"]
    made_at: float
    made_by: str
    cursor: int
    behind: int
    delivered: int
    delivered_at: float | None
    failures: int
    failed_at: float | None
    next_at: float | None
    error: str
    old_until: float | None


class NewWebhook(Webhook):
    """A destination with a new secret, which is shown this once; none for the broker.

    Attributes:
        secret: the secret itself, which is shown this once; null for the broker.
    """

    secret: str | None


class WebhookTest(TypedDict):
    """A test was sent: it has come once the `cursor` of its destination is `n`.

    Attributes:
        n: number of the entry of the audit log that is the test.
    """

    n: int


class RemovedWebhook(TypedDict):
    """A destination was removed.

    Attributes:
        removed: identifier of the destination.
    """

    removed: str


class WebhookFigures(TypedDict):
    """How destinations are: how many in which state, attempts since the start, entries that wait for the slowest.

    Attributes:
        states: destinations by state.
        attempts: attempts since the start, by how they ended.
        waiting: entries of the audit log that the slowest destination has not come past.
    """

    states: dict[str, int]
    attempts: dict[str, int]
    waiting: int


class Key(TypedDict):
    """A key that devices hold.

    Attributes:
        kid: identifier of the key.
        typ: what the key may sign.
        who: who holds it; null for other keys than those of cosigners.
        nbf: from when it is good, null for always, in seconds since the epoch.
        exp: until when it is good, null for ever, in seconds since the epoch.
    """

    kid: str
    typ: str
    who: str | None
    nbf: int | None
    exp: int | None


class Need(TypedDict):
    """How many must sign.

    Attributes:
        root: root keys that must sign the next keyset.
        cosign: cosigners that must sign a warrant.
    """

    root: int
    cosign: int


class Keyset(TypedDict):
    """The keys that devices hold by now, and what is wrong with ours.

    Attributes:
        deployment: name of the deployment.
        epoch: number of the keyset.
        need: how many must sign.
        keys: the keys.
        faults: what is wrong with the keys that the daemon signs with, one sentence each.
    """

    deployment: str
    epoch: int
    need: Need
    keys: list[Key]
    faults: list[str]


class TakenKeyset(Keyset, Reviewed):
    """The keyset that was taken."""


class Warrant(TypedDict):
    """The claims of a warrant.

    Attributes:
        v: version of the format.
        iss: name of the deployment.
        ep: number of the keyset.
        cid: name by which triggers refer to the rollout.
        asts: hashes of the statements that it allows.
        aud: whom it is for: `d:`, `g:` or `m:` with the name of a device, group or model.
        most: devices that it may reach at most.
        iat: when it was drafted, in seconds since the epoch.
        exp: until when it is good, in seconds since the epoch.
    """

    v: int
    iss: str
    ep: int
    cid: str
    asts: list[str]
    aud: list[str]
    most: int
    iat: int
    exp: int


class Fleet(TypedDict):
    """The fleet, counted.

    Attributes:
        devices: devices that are registered.
        online: devices that are connected.
        offline: devices that are not connected.
        unsaid: devices that never said whether they are connected.
        silent: devices that have said nothing for a day.
        quarantined: devices that are left out of all rollouts.
    """

    devices: int
    online: int
    offline: int
    unsaid: int
    silent: int
    quarantined: int


class PreviewStage(TypedDict):
    """What a stage would take.

    Attributes:
        index: index of the stage, from 0.
        group: group that it takes its devices from, null for the whole cohort.
        devices: devices that it would take.
        wanted: devices that the plan means it to take.
        strata: devices that it would take, by stratum.
    """

    index: int
    group: str | None
    devices: int
    wanted: int
    strata: dict[str, int]


class PreviewWarning(TypedDict):
    """What is odd about a stage.

    Attributes:
        stage: index of the stage, from 0.
        code: stable word for what is odd.
        text: what is odd, in a sentence.
    """

    stage: int
    code: str
    text: str


class LeftOut(Reason):
    """Why devices are left out.

    Attributes:
        devices: devices that are left out for it.
    """

    devices: int


class PreviewCounts(TypedDict):
    """What a plan would do, counted: the first line of a preview.

    Attributes:
        name: name of the rollout.
        release: name of its release.
        exact: whether the order is that of the rollout, and not only an example.
        fleet: devices that are registered.
        devices: devices that its stages would take.
        late: devices that were registered too late for any but the last stage.
        unknown: devices of the cohort of which nobody knows what they run.
        stages: what each stage would take.
        warnings: stages that must ask a person however healthy their devices are.
        left_out: why devices are left out.
    """

    name: str
    release: str
    exact: bool
    fleet: int
    devices: int
    late: int
    unknown: int
    stages: list[PreviewStage]
    warnings: list[PreviewWarning]
    left_out: list[LeftOut]


class PreviewedDevice(TypedDict):
    """What a plan would do with one device: the other lines of a preview.

    Attributes:
        device: identifier of the device.
        stage: index of the stage that would take it, from 0; not there if it is left out.
        stratum: stratum in which it would be judged; not there if it is left out.
        late: there, and true, if it was registered too late for any but the last stage.
        left_out: code of why it is left out; not there if it is not.
    """

    device: str
    stage: NotRequired[int]
    stratum: NotRequired[str]
    late: NotRequired[bool]
    left_out: NotRequired[str]


PreviewLine = PreviewCounts | PreviewedDevice


class ExposedDevice(TypedDict):
    """A device that runs a vulnerable version, or of which nobody knows.

    Attributes:
        id: its identifier.
        status: whether it is vulnerable, or nobody knows.
        model: its hardware model.
        version: version that it last said it runs; empty if it never said.
        rel: release counter that it last said it runs; 0 if it never said.
        site: where it stands; empty if not known.
        groups: groups that it belongs to.
        online: whether it is connected, null if it never said.
        seen_at: when it last said anything, null if never, in seconds since the epoch.
    """

    id: str
    status: Literal["vulnerable", "unknown"]
    model: str
    version: str
    rel: int
    site: str
    groups: list[str]
    online: bool | None
    seen_at: float | None


class Problem(TypedDict):
    """Why a request was refused (RFC 9457).

    Attributes:
        type: always `about:blank`: `code` says what it is.
        status: status of HTTP.
        code: stable word for programs.
        detail: what is wrong and what to do next, in a sentence.
        faults: all that is wrong, one by one.
        proposal: number of the proposal that others must approve first.
    """

    type: str
    status: int
    code: str
    detail: str
    faults: NotRequired[list[str]]
    proposal: NotRequired[int]
