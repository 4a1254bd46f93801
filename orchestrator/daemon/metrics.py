"""What is measured: every metric with its meaning, and where its value stands.

Rules:
- A number is counted where it happens, once; here it is only looked up when somebody asks.
- No label holds what a device says or a stranger asks for. Rollouts are told of while they are not over.
- A store that cannot be read, or not within `PATIENCE_S`, leaves its own metrics out, and `ota_store_readable` says 0;
  the rest is told all the same. It is asked once at a time, however many ask us.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator import __version__
from orchestrator.adapters.mqtt import MqttBus
from orchestrator.adapters.mqtt.retained import RetainedAudit
from orchestrator.adapters.prometheus import Exposition, Kind, Metric, Value
from orchestrator.adapters.store import SqlStore
from orchestrator.core.timing import Timing
from orchestrator.engine.events.courier import Courier
from orchestrator.engine.insight.vitals import Course, Vitals, vitals
from orchestrator.engine.offers.dispatcher import Dispatcher
from orchestrator.engine.reports.recorder import Recorder
from orchestrator.engine.rollouts.conductor import Conductor
from orchestrator.engine.trust.expiry import ExpiryWatch
from orchestrator.engine.trust.keyring import Keyring
from orchestrator.errors import UnavailableError
from orchestrator.ports.events import WebhookState
from orchestrator.verifier import TRIGGER
from orchestrator.web.meter import Meter

PATIENCE_S = 5.0
"""How long the store may take: Prometheus waits ten seconds for all of it."""

Samples = Mapping[tuple[str, ...], Value]
_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM

BUILD = Metric("ota_build_info", _G, "Always 1; which version runs, on which Python", ("version", "python"))

HTTP = Metric(
    "ota_http_requests_total",
    _C,
    "Requests by the route that answered them; status 0 for callers that left before the answer",
    ("edge", "method", "route", "status"),
)
HTTP_TIME = Metric(
    "ota_http_request_seconds", _H, "How long it took to the head of the answer", ("edge", "method", "route")
)
HTTP_OPEN = Metric("ota_http_requests_open", _G, "Requests that are being answered now")

CONNECTED = Metric("ota_broker_connected", _G, "1 while the link to the broker is up")
CONNECTIONS = Metric("ota_broker_connections_total", _C, "Connections to the broker that were begun")
RECEIVED = Metric("ota_mqtt_received_total", _C, "Messages from the broker, those that it repeated included")
PUBLISHED = Metric("ota_mqtt_publish_seconds", _H, "How long the broker took to acknowledge what was published")
UNPUBLISHED = Metric("ota_mqtt_publish_failures_total", _C, "What was to be published and was not acknowledged")
HEARING = Metric("ota_hearing", _G, "1 while devices can be heard, so that silence counts; 0 holds all rollouts")

REPORTS = Metric("ota_reports_total", _C, "What devices said and is stored, by kind", ("kind",))
OUTCOMES = Metric(
    "ota_messages_total", _C, "Messages by what became of them: acknowledged, ignored or refused, and why", ("outcome",)
)
LAG = Metric("ota_ingest_seconds", _H, "From the arrival of a report to its commit", ("edge",))
LAG_NOW = Metric("ota_ingest_lag_seconds", _G, "How long ago the oldest report arrived that is not stored yet")

WRITABLE = Metric("ota_store_writable", _G, "1 while the store can be written, as far as anybody tried")
READABLE = Metric("ota_store_readable", _G, "1 if the store answered when this was asked")
WRITES = Metric("ota_store_write_seconds", _H, "Write transactions from their begin to their commit", ("lane",))
STORE_SIZE = Metric("ota_store_bytes", _G, "Size of the database, by file", ("file",))
DISK_FREE = Metric("ota_disk_free_bytes", _G, "Free space where the database lies")
DISK_SIZE = Metric("ota_disk_bytes", _G, "All space where the database lies")

TRIGGERS = Metric("ota_triggers_published_total", _C, "Triggers and recalls that the broker has taken")
QUEUED = Metric("ota_outbox", _G, "Triggers and recalls on their way, by state and by how they travel", ("state", "by"))
QUEUE_AGE = Metric(
    "ota_outbox_oldest_seconds", _G, "How long ago the oldest of them was planned, 0 without one", ("state", "by")
)
HALT = Metric("ota_halt_seconds", _H, "From the commit of what decided an automatic halt to the commit of the halt")
LAST_TRIGGER = Metric(
    "ota_halt_last_trigger_seconds", _H, "From the same moment to the last trigger of the rollout, 0 if none went out"
)
STOPS = Metric("ota_stops_unstored", _G, "Rollouts that a person stopped and whose stop is in this process alone")

DEVICES = Metric("ota_devices", _G, "Registered devices")
OUTAGE = Metric("ota_outage", _G, "1 while an outage holds all rollouts: many devices went away together")
CEILING = Metric("ota_ceiling_devices", _G, "Devices that all rollouts together may offer a release per hour")
CEILING_SPENT = Metric("ota_ceiling_spent_devices", _G, "Devices that were offered a release within the hour")
SLOTS = Metric("ota_slots", _G, "Devices that may be updating at once, over all rollouts")
SLOTS_TAKEN = Metric("ota_slots_taken", _G, "Devices that are updating now, by urgency", ("urgency",))

ROLLOUTS = Metric("ota_rollouts", _G, "Rollouts that are not over, by phase", ("phase",))
_ROLLOUT = ("rollout",)
PHASE = Metric("ota_rollout_phase", _G, "Always 1; where a rollout stands", ("rollout", "phase", "urgency"))
MOVED = Metric("ota_rollout_moved_timestamp_seconds", _G, "When it last moved", _ROLLOUT)
STAGE = Metric("ota_rollout_stage", _G, "Its present stage, from 0", _ROLLOUT)
COHORT = Metric("ota_rollout_cohort_devices", _G, "Devices of its cohort", _ROLLOUT)
UPDATES = Metric("ota_rollout_updates", _G, "Its devices, by stage and state", ("rollout", "stage", "state"))
FAILURES = Metric("ota_rollout_failures", _G, "k: failures that count for the halt", ("rollout", "stratum"))
EXPOSED = Metric("ota_rollout_exposed", _G, "n: exposed devices that count for the halt", ("rollout", "stratum"))
E_VALUE = Metric("ota_rollout_e_value", _G, "E: how much the evidence speaks against it", ("rollout", "stratum"))
THRESHOLD = Metric("ota_rollout_e_threshold", _G, "E at which it halts", ("rollout", "stratum"))
BOUND = Metric("ota_rollout_bound", _G, "Upper bound of the failure rate of its stage, from 0 to 1", _ROLLOUT)
BOUND_LIMIT = Metric("ota_rollout_bound_limit", _G, "What that bound must come down to for the stage to pass", _ROLLOUT)

EXPIRES = Metric("ota_expires_timestamp_seconds", _G, "When a certificate or key expires", ("what",))
EXPIRY_UNKNOWN = Metric("ota_expiry_unknown", _G, "Sources that could not be asked what expires when")
KEY_FAULTS = Metric("ota_key_faults", _G, "What is wrong with the keys for triggers; 0 if one is good")
EPOCH = Metric("ota_keyset_epoch", _G, "Number of the present keyset")
RETAINED = Metric("ota_retained_total", _C, "Retained messages that must not be there: found and cleared", ("what",))

WEBHOOKS = Metric("ota_webhooks", _G, "Webhooks, by how they are", ("state",))
WEBHOOK_POSTS = Metric("ota_webhook_posts_total", _C, "Events posted to webhooks, by what came of it", ("outcome",))
WEBHOOK_QUEUE = Metric(
    "ota_webhook_queue", _G, "Entries of the audit log that wait for the webhook that is furthest behind"
)

ALL = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""Every metric, in the order of this page."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where values stand.

    Attributes:
        store: durable state.
        database: file of that.
        bus: the broker.
        recorder: reports in.
        dispatcher: triggers out.
        conductor: decisions.
        hearing: whether devices can be heard, by the broker and by their polls.
        expiry: what expires when.
        keyring: which keys devices hold.
        retained: what must not lie retained.
        courier: events out.
        meter: requests.
    """

    store: SqlStore
    database: Path
    bus: MqttBus
    recorder: Recorder
    dispatcher: Dispatcher
    conductor: Conductor
    hearing: Callable[[], bool]
    expiry: ExpiryWatch
    keyring: Keyring
    retained: RetainedAudit
    courier: Courier
    meter: Meter


class Metrics:
    """Looks up what is measured.

    Args:
        places: where.
        now: the clock.
    """

    def __init__(self, places: Places, now: Callable[[], float]) -> None:
        self._places = places
        self._now = now
        self._exposition = Exposition()
        self._looking: asyncio.Future[Vitals] | None = None

    async def scrape(self) -> bytes:
        """Return what is measured, as Prometheus reads it."""
        measured: dict[Metric, Samples] = dict.fromkeys(ALL, {})
        measured |= self._of_process() | await asyncio.to_thread(_of_disk, self._places.database)
        found = await self._look()
        if found is None:
            measured |= {READABLE: _one(0)}
        else:
            slots = self._places.conductor.limits.budget.in_flight
            measured |= {READABLE: _one(1), SLOTS: _one(slots)} | _of_store(found, self._now())
        return self._exposition.render(measured)

    async def _look(self) -> Vitals | None:
        """Return what the database says, None if it says nothing in time."""
        if self._looking is None or self._looking.done():
            limits, now = self._places.conductor.limits, self._now()
            self._looking = asyncio.ensure_future(self._places.store.read(lambda tx: vitals(tx, now, limits)))
            self._looking.add_done_callback(_heard)
        try:
            return await asyncio.wait_for(asyncio.shield(self._looking), PATIENCE_S)
        except (TimeoutError, UnavailableError):
            return None

    def _of_process(self) -> dict[Metric, Samples]:
        places, meter = self._places, self._places.meter
        python = ".".join(map(str, sys.version_info[:3]))
        return {
            BUILD: {(__version__, python): 1},
            HTTP: {(*asked, str(status)): count for (asked, status), count in meter.answers.items()},
            HTTP_TIME: dict(meter.times.items()),
            HTTP_OPEN: _one(meter.open),
            CONNECTED: _one(places.bus.link > 0),
            CONNECTIONS: _one(places.bus.links),
            RECEIVED: _one(places.bus.received),
            PUBLISHED: _one(places.bus.published),
            UNPUBLISHED: _one(places.bus.unpublished),
            HEARING: _one(places.hearing()),
            REPORTS: {(str(kind),): count for kind, count in places.recorder.kinds.items()},
            OUTCOMES: {(what,): count for what, count in places.recorder.counts.items() if what != "reports"},
            LAG: {(edge,): timing for edge, timing in places.recorder.lags.items()},
            LAG_NOW: _one(places.recorder.lag_s),
            WRITABLE: _one(not places.store.fault),
            WRITES: {(lane.name.lower(),): timing for lane, timing in places.store.writes.items()},
            TRIGGERS: _one(places.dispatcher.published),
            HALT: _one(places.conductor.reaction.halts),
            LAST_TRIGGER: _one(places.conductor.reaction.triggers),
            STOPS: _one(len(places.conductor.stops.rollouts)),
            EXPIRES: {(item.name,): item.expires_at for item in places.expiry.found},
            EXPIRY_UNKNOWN: _one(sum("error" in line for line in places.expiry.view())),
            KEY_FAULTS: _one(len(places.keyring.faults(TRIGGER))),
            EPOCH: _one(places.keyring.epoch),
            RETAINED: {(what,): places.retained.counts[f"retained_{what}"] for what in ("foreign", "cleared")},
            WEBHOOKS: {(state.value,): places.courier.states[state.value] for state in WebhookState},
            WEBHOOK_POSTS: {(outcome,): count for outcome, count in places.courier.counts.items()},
            WEBHOOK_QUEUE: _one(max(places.courier.waiting.values(), default=0)),
        }


def _heard(looking: asyncio.Future[Vitals]) -> None:
    """Take notice of how a look ended for which nobody waits any more."""
    if not looking.cancelled():
        looking.exception()


def _one(value: Value) -> Samples:
    return {(): value if isinstance(value, Timing) else float(value)}


def _of_disk(database: Path) -> dict[Metric, Samples]:
    try:
        usage = shutil.disk_usage(database.parent)
        files = {"database": database, "wal": database.with_name(f"{database.name}-wal")}
        sizes: Samples = {(name,): float(path.stat().st_size) for name, path in files.items() if path.exists()}
    except OSError:  # what cannot be looked at has no size
        return {}
    return {STORE_SIZE: sizes, DISK_FREE: _one(usage.free), DISK_SIZE: _one(usage.total)}


def _of_store(found: Vitals, now: float) -> dict[Metric, Samples]:
    queues = {(queue.state.value, "push" if queue.push else "poll"): queue for queue in found.queues}
    measured: dict[Metric, Samples] = {
        DEVICES: _one(found.devices),
        OUTAGE: _one(found.outage),
        CEILING: _one(found.room.limit),
        CEILING_SPENT: _one(found.room.spent),
        SLOTS_TAKEN: {(urgency.value,): count for urgency, count in found.in_flight.items()},
        QUEUED: {labels: queue.count for labels, queue in queues.items()},
        QUEUE_AGE: {labels: max(now - queue.oldest_at, 0.0) for labels, queue in queues.items()},
        ROLLOUTS: {(phase.value,): count for phase, count in found.phases.items()},
    }
    each: dict[Metric, dict[tuple[str, ...], Value]] = {}
    for course in found.courses:
        for metric, samples in _of_course(course).items():
            each.setdefault(metric, {}).update(samples)
    return measured | each


def _of_course(course: Course) -> dict[Metric, Samples]:
    rollout, bound = course.rollout, course.bound
    name = rollout.plan.name
    lines = {(name, line.stratum or "all"): line for line in course.evidence}
    return {
        PHASE: {(name, rollout.phase.value, rollout.plan.urgency.value): 1},
        MOVED: {(name,): rollout.moved_at},
        STAGE: {(name,): rollout.stage},
        COHORT: {(name,): rollout.cohort_size or 0},
        UPDATES: {(name, str(stage), state): count for (stage, state), count in course.updates.items()},
        FAILURES: {labels: line.failures for labels, line in lines.items()},
        EXPOSED: {labels: line.exposed for labels, line in lines.items()},
        E_VALUE: {labels: line.e_value for labels, line in lines.items()},
        THRESHOLD: {labels: line.threshold for labels, line in lines.items()},
        BOUND: {} if bound is None else {(name,): bound.upper},
        BOUND_LIMIT: {} if bound is None else {(name,): bound.limit},
    }
