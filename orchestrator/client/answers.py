"""What the operator API answers, as types: the document of the API and the client are both made of these.

Rules:
- A time is seconds since the epoch, a duration is in seconds, a share is a number from 0 to 1.
- More fields may come; none changes its meaning.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

Phase = Literal["draft", "preparing", "running", "paused", "halted", "inconclusive", "done", "aborted"]
Command = Literal["start", "pause", "resume", "halt", "abort", "retry", "advance", "skip"]


class StoreFigures(TypedDict, total=False):
    """What the database holds; only `error` where nobody can say."""

    devices: int
    running: int
    waiting: int
    seq: int
    error: str


class ClockJump(TypedDict):
    """A jump of the clock."""

    at: float
    by_s: int


class Expiry(TypedDict):
    """What expires when, or why nobody knows."""

    name: str
    expires_at: NotRequired[float]
    days_left: NotRequired[float]
    threshold_days: NotRequired[int | None]
    error: NotRequired[str]


class Status(TypedDict, total=False):
    """How the daemon is."""

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
    """What was noticed of an image when it was imported."""

    code: str
    text: str
    remedy: str


class Artifact(TypedDict):
    """An artifact that was imported: the format that its statement declares, and the one that was recognised."""

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


class Release(TypedDict):
    """A release: artifacts of one version."""

    name: str
    version: str
    rel: int
    artifacts: list[str]
    moves: bool
    created_at: float


class Device(TypedDict):
    """A device as the registry knows it."""

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
    """One device's journey in one rollout."""

    rollout: str
    state: str
    state_at: float
    stage: int
    attempt: int
    progress: int | None
    code: str
    deadline_at: float | None


class DeviceWithUpdates(Device):
    """A device, and its updates."""

    updates: list[Update]


class Tokens(TypedDict):
    """Tokens of devices by identifier; they are shown this once."""

    tokens: dict[str, str]


class ChangedDevices(TypedDict):
    """The devices that are different now."""

    changed: list[str]


class Count(TypedDict):
    """How many were changed."""

    changed: int


class Obstacle(TypedDict):
    """One reason that holds a device back."""

    code: str
    text: str
    may_change_at: float | None


class DeliveryLine(TypedDict):
    """A trigger on its way."""

    kind: str
    state: str
    seq: int | None
    planned_at: float


class Refusal(TypedDict):
    """What a device said when it refused last."""

    at: float
    code: str
    text: str
    means: str
    stands: bool


class ReportLine(TypedDict):
    """What a device said of an update."""

    at: float
    kind: str
    code: str
    text: str
    boot: str
    n: int


class DeviceReason(TypedDict):
    """Why a device has or has not one release."""

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
    """Why a device has or has not each release that is being rolled out."""

    device: Device
    rollouts: list[DeviceReason]


class Reason(TypedDict):
    """A reason: a stable word and a sentence."""

    code: str
    text: str


class Standing(Reason):
    """Why a rollout stands where it stands."""

    wake_at: float | None


class Stage(TypedDict):
    """A stage of a rollout."""

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
    """What is known for the halt: k failures among n exposed devices."""

    stratum: str
    k: int
    n: int
    e: float
    threshold: float


class Bound(TypedDict):
    """What is known for passing the current stage."""

    k: int
    n: int
    upper: float
    limit: float


class Mended(TypedDict):
    """What a plan mends."""

    severity: str
    advisories: list[str]
    fixes_below: int | None


class RolloutLine(Mended):
    """A rollout in a list."""

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
    """A rollout with its stages and its evidence."""

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
    """A rollout that was made, and what is odd about its plan."""

    warnings: NotRequired[list[str]]


class Review(TypedDict):
    """What was done without approvals, for another person to look at."""

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
    """The review that an act without approvals has opened."""

    review: NotRequired[int]


class Moved(Rollout, Reviewed):
    """A rollout after a command."""

    answer: str
    changed: bool


class Gate(TypedDict):
    """Which rule decides."""

    stage: int
    stages: int
    rule: str
    code: str
    text: str


class Wait(TypedDict):
    """One thing that stands before the end of the current stage."""

    code: str
    text: str
    have: int | None
    need: float | None
    may_change_at: float | None


class EvidenceToHalt(Evidence):
    """Evidence, and how many failures would halt."""

    halts_at: int | None
    more: int | None


class Lost(TypedDict):
    """Devices that were lost after their reboot."""

    k: int
    halts_at: int | None


class BoundToPass(Bound):
    """The bound of a stage, and what would bring it within its limit."""

    failed: int
    confirmed: int
    under_way: int
    needed: int | None
    more: int | None


class StratumCounts(TypedDict):
    """Devices of one stratum."""

    stratum: str
    opened: int
    in_flight: int
    confirmed: int
    failures: int


class Green(TypedDict):
    """Whether a stratum is healthy by itself."""

    stratum: str
    green: bool
    healthy: int
    k: int
    n: int
    allowed: int | None


class Diversity(TypedDict):
    """How many strata must be healthy by themselves, and are."""

    needed: int
    green: int
    strata: list[Green]


class Deed(TypedDict):
    """What a person did."""

    at: float
    actor: str
    did: str
    text: str


class Event(TypedDict):
    """A move of a rollout."""

    at: float
    phase: Phase
    stage: int
    code: str
    text: str
    actor: str


class RolloutExplanation(Mended):
    """Why a rollout stands where it stands, and what would change that."""

    name: str
    release: str
    urgency: str
    phase: Phase
    since: float
    actor: str
    because: str
    code: str
    next: list[str]
    failures: list[dict[str, Any]]
    refusals: list[dict[str, Any]]
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
    """How many devices came to a milestone, and after how long which share of the cohort had."""

    devices: int
    t50_s: float | None
    t90_s: float | None
    t95_s: float | None


class CurvePoint(TypedDict):
    """Sums up to a time."""

    after_s: int
    offered: int
    confirmed: int


class Curve(Mended):
    """Time to protected."""

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
    """What an edit makes different."""

    path: str
    before: str | None
    after: str | None
    loosens: bool


class Edited(TypedDict):
    """What an edit led to, or would lead to."""

    version: int
    changes: list[PlanChange]


class PlanVersion(Edited):
    """A version of a plan."""

    at: float
    actor: str
    reason: str


class Exposed(TypedDict):
    """Devices by one name."""

    name: str
    vulnerable: int
    unknown: int


class ExposedBy(TypedDict):
    """Devices by name, those with the most first, and how many names are not told."""

    named: list[Exposed]
    others: int


class Seen(TypedDict):
    """Devices by when they were last seen."""

    name: str
    devices: int


class Exposure(TypedDict):
    """Who still runs a vulnerable version."""

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
    """Devices that go by the endpoints of one release counter."""

    rel: int | None
    devices: int


class Endpoints(TypedDict):
    """Devices by the endpoints that they go by."""

    fleet: int
    endpoints: list[EndpointCount]
    unknown: int


class Vote(TypedDict):
    """What a person said to a proposal."""

    actor: str
    person: str
    approves: bool
    reason: str
    at: float


class Proposal(TypedDict):
    """What others must approve before it is done."""

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
    """Proposals, newest first, and the reviews that are open."""

    proposals: list[Proposal]
    reviews: list[Review]


class Entry(TypedDict):
    """An entry of the audit log; `detail` is the JSON text that was hashed."""

    n: int
    at: float
    actor: str
    action: str
    object: str
    detail: str
    prev: str
    hash: str


class Token(TypedDict):
    """What is kept of an operator's token."""

    id: str
    operator: str
    made_at: float
    expires_at: float
    used_at: float | None
    revoked_at: float | None


class NewToken(Token, Reviewed):
    """A token that was made; `token` is shown this once."""

    token: str


class Operator(TypedDict):
    """An account, with what is kept of its tokens."""

    name: str
    person: str
    roles: list[Literal["viewer", "operator", "approver", "admin"]]
    added_at: float
    tokens: list[Token]


class Removed(Reviewed):
    """An account that was removed."""

    removed: str


class Webhook(TypedDict):
    """A destination of events; `behind` is how many entries of the audit log it has not come past."""

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
    """A destination with a new secret, which is shown this once; none for the broker."""

    secret: str | None


class WebhookTest(TypedDict):
    """A test was sent: it has come once the `cursor` of its destination is `n`."""

    n: int


class RemovedWebhook(TypedDict):
    """A destination was removed."""

    removed: str


class WebhookFigures(TypedDict):
    """How destinations are: how many in which state, attempts since the start, entries that wait for the slowest."""

    states: dict[str, int]
    attempts: dict[str, int]
    waiting: int


class Key(TypedDict):
    """A key that devices hold."""

    kid: str
    typ: str
    who: str | None
    nbf: int | None
    exp: int | None


class Need(TypedDict):
    """How many must sign."""

    root: int
    cosign: int


class Keyset(TypedDict):
    """The keys that devices hold by now, and what is wrong with ours."""

    deployment: str
    epoch: int
    need: Need
    keys: list[Key]
    faults: list[str]


class TakenKeyset(Keyset, Reviewed):
    """The keyset that was taken."""


class Warrant(TypedDict):
    """The claims of a warrant."""

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
    """The fleet, counted."""

    devices: int
    online: int
    offline: int
    unsaid: int
    silent: int
    quarantined: int


class PreviewLine(TypedDict, total=False):
    """The counts of a preview (the first line), then each device: its stage, or why it is left out."""

    device: str
    stage: int
    stratum: str
    late: bool
    left_out: Any
    name: str
    release: str
    exact: bool
    fleet: int
    devices: int
    unknown: int
    stages: list[dict[str, Any]]
    warnings: list[dict[str, Any]]


class ExposedDevice(TypedDict):
    """A device that runs a vulnerable version, or of which nobody knows."""

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
    """Why a request was refused (RFC 9457)."""

    type: str
    status: int
    code: str
    detail: str
    faults: NotRequired[list[str]]
    proposal: NotRequired[int]
