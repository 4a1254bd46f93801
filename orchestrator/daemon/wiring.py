"""The parts, connected: here, and nowhere else, adapters meet the engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from orchestrator import __version__
from orchestrator.adapters.asker import HttpAsker
from orchestrator.adapters.mqtt import MqttBus
from orchestrator.adapters.mqtt.retained import RetainedAudit
from orchestrator.adapters.store import SqlStore
from orchestrator.adapters.webhooks import HttpPoster
from orchestrator.config import Settings
from orchestrator.core.model import Artifact
from orchestrator.core.trust.expiry import Notice
from orchestrator.daemon import given, health
from orchestrator.daemon.health import Pulse
from orchestrator.daemon.metrics import Metrics, Places
from orchestrator.engine.events import notices
from orchestrator.engine.events.courier import Courier
from orchestrator.engine.events.notices import LinkWatch
from orchestrator.engine.importer import Importer, Registry
from orchestrator.engine.insight.chronicle import Chronicle
from orchestrator.engine.insight.feed import Feed
from orchestrator.engine.offers.dispatcher import Dispatcher
from orchestrator.engine.offers.known import Known
from orchestrator.engine.offers.sealer import Sealer
from orchestrator.engine.reports.asking import Asking
from orchestrator.engine.reports.contacts import Contacts
from orchestrator.engine.reports.hearing import Hearing
from orchestrator.engine.reports.jumps import Jumps
from orchestrator.engine.reports.recorder import Recorder
from orchestrator.engine.rollouts import operations
from orchestrator.engine.rollouts.conductor import Conductor
from orchestrator.engine.rollouts.gates import Gatekeeper
from orchestrator.engine.rollouts.pruning import Pruner
from orchestrator.engine.targeting.joining import Joining
from orchestrator.engine.trust.audit import Auditor
from orchestrator.engine.trust.expiry import ExpiryWatch
from orchestrator.engine.trust.herald import Herald, HeraldSettings, Keys
from orchestrator.engine.trust.keyring import Keyring
from orchestrator.errors import OrchestratorError, UnavailableError
from orchestrator.ports import ArtifactSource, Lane
from orchestrator.verifier import BEAT, TRIGGER
from orchestrator.web.app import build_app
from orchestrator.web.context import Context
from orchestrator.web.health import health_app
from orchestrator.web.meter import Meter, Metered
from orchestrator.web.rates import Rates
from orchestrator.web.server import AdminSocket, HttpServer
from orchestrator.web.turns import Turns
from orchestrator.wire import topics

MAX_WATCHERS = 16
"""Connections to the listener of those that watch over us."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The wired daemon.

    Attributes:
        store: durable state.
        bus: the broker.
        recorder: reports in.
        contacts: when devices asked last.
        conductor: decisions.
        gatekeeper: what services say.
        joining: late joiners of open cohorts.
        pruner: forgets what is old.
        chronicle: keeps what the fleet ran on each day.
        sealer: signatures.
        dispatcher: triggers out.
        herald: what lies retained.
        retained: looks for what must not lie retained.
        importer: artifacts in.
        auditor: the end of the audit log.
        expiry: what expires when.
        server: HTTP.
        socket: the admin socket, None where there is none.
        watched: the listener of those that watch over us, None where there is none.
        hearing: whether devices could have been heard over the broker.
        asking: whether those that poll could have.
        jumps: whether the clock goes on as it did.
        feed: what changes, told to who listens.
        pulse: says how the parts are now.
        courier: events out.
        link_watch: tells of a lost link.
    """

    store: SqlStore
    bus: MqttBus
    recorder: Recorder
    contacts: Contacts
    conductor: Conductor
    gatekeeper: Gatekeeper
    joining: Joining
    pruner: Pruner
    chronicle: Chronicle
    sealer: Sealer
    dispatcher: Dispatcher
    herald: Herald
    retained: RetainedAudit
    importer: Importer
    auditor: Auditor
    expiry: ExpiryWatch
    server: HttpServer
    socket: AdminSocket | None
    watched: HttpServer | None
    hearing: Hearing
    asking: Asking
    jumps: Jumps
    feed: Feed
    pulse: Callable[[], Pulse]
    courier: Courier
    link_watch: LinkWatch


def wire(
    settings: Settings,
    store: SqlStore,
    sources: Sequence[ArtifactSource],
    keyring: Keyring,
    now: Callable[[], float] = time.time,
) -> Parts:
    """Connect the parts. Opens the listening sockets.

    Args:
        settings: checked.
        store: open.
        sources: where artifacts come from.
        keyring: which keys devices hold.
        now: the clock.

    Raises:
        OrchestratorError: a secret or an address cannot be used.
    """
    bus = MqttBus(given.mqtt(settings), topics.uplink_filters())
    jumps = Jumps(store, now)
    hearing = Hearing(lambda: bus.link, settings.conductor.link_grace_s, now, steady=jumps.steady)
    asking = Asking(max(settings.devices.poll_interval_s, settings.ddi.poll_interval_s))

    def reached() -> bool:
        return hearing() and not asking.ceased()

    def heard() -> bool:
        return all([hearing(), asking()])  # each must be asked now and then

    planned, sealed = asyncio.Event(), asyncio.Event()
    conductor = Conductor(store, now, reached, planned.set, given.ceiling(settings))
    asker = HttpAsker(given.asking(settings))
    gatekeeper = Gatekeeper(store, asker, now, conductor.changed)
    recorder = Recorder(store, bus, given.recording(settings), now, heard, conductor.changed, planned.set)
    contacts = Contacts(store)
    joining = Joining(store, now, conductor.changed)
    chronicle = Chronicle(store, now)
    pruner = Pruner(store, settings.store.keep_s, now, jumps.calm_s)
    sealer = Sealer(store, lambda: keyring.standing(TRIGGER), given.sealing(settings), now, planned, sealed.set)
    stopping = (conductor.stops.store, conductor.reaction)
    dispatcher = Dispatcher(store, bus, settings.dispatcher.batch, now, sealed, planned.set, *stopping)
    saying = HeraldSettings(settings.deployment, moving_every_s=settings.trust.moving_beat_s)
    herald = Herald(store, bus, saying, partial(_beat_keys, keyring), now)
    retained = RetainedAudit(bus)
    limit_bytes = settings.sources.max_artifact_size_bytes
    importer = Importer(
        sources,
        lambda: keyring.keyset.keys,
        _registry(store, now),
        limit_bytes=limit_bytes,
        deployment=settings.deployment,
        clock=now,
    )
    expiry = ExpiryWatch(given.expiring(settings, keyring), now, partial(_note_expiry, store, now))
    courier = Courier(store, HttpPoster(given.posting(settings)), bus, settings.deployment, now)
    database, meter = Path(make_url(settings.store.url).database or ""), Meter()
    signer, witness = given.checkpoints(settings)
    auditor = Auditor(store, store, signer, witness, now)
    metrics = Metrics(
        Places(
            store, database, bus, recorder, dispatcher, conductor, reached, expiry, keyring, retained, courier, meter
        ),
        now,
    )

    def pulse() -> Pulse:
        return Pulse(
            store_fault=store.fault,
            writer_busy_s=store.busy_s,
            link=bus.link,
            link_untended_s=time.monotonic() - bus.ticked,
            lag_s=recorder.lag_s,
            key_faults=keyring.faults(TRIGGER),
            stops=conductor.stops.rollouts.values(),
        )

    feed = Feed(store, now)
    context = Context(
        store=store,
        conductor=conductor,
        recorder=recorder,
        known=Known(store, store),
        contacts=contacts,
        import_artifact=importer.import_one,
        sources=sources,
        now=now,
        hearing=reached,
        polled=asking.note,
        planned=planned.set,
        keyring=keyring,
        operator_token=given.operator_token(settings),
        presign_lifetime_s=int(settings.download.presign_lifetime_s),
        status=lambda: {
            "version": __version__,
            "broker_connected": bus.link > 0,
            "hearing": reached(),
            "store_fault": store.fault,
            "stopped_here": sorted(conductor.stops.rollouts.values()),
            "clock_jump": None if jumps.last is None else {"at": jumps.last.at, "by_s": round(jumps.last.by_s)},
            "published": dispatcher.published,
            "recorder": dict(sorted(recorder.counts.items())),
            "retained": dict(sorted(retained.counts.items())),
            "heard_at": recorder.heard_at,
            "epoch": keyring.epoch,
            "trigger_faults": keyring.faults(TRIGGER),
            "expires": expiry.view(),
            "webhooks": courier.view(),
        },
        unready=lambda: health.unready(pulse()),
        scrape=metrics.scrape,
        may_ask=asker.may_ask,
        rules=given.rules(settings),
        rekeyed=partial(expiry.look_at, "keys"),
        admin_uids=frozenset(settings.operators.socket_users),
        beat=herald.beat,
        public_url=settings.http.public_url.rstrip("/"),
        ddi=given.ddi(settings),
        cdn=given.cdn(settings),
        turns=Turns(settings.download.site_at_once, settings.download.site_turn_s),
        certificates=given.certificates(settings),
        poll_s=settings.devices.poll_interval_s,
        management=given.management(settings),
        esp_idf_follows=settings.esp_idf.redirects,
        rates=Rates(settings.operators.request_rate, settings.operators.request_burst, time.monotonic),
        feed=feed,
    )
    app = Metered(build_app(context), meter)
    server = HttpServer(app, settings.http.host, settings.http.port, settings.http.max_connections)
    place, users = settings.operators.socket, settings.operators.socket_users
    socket = None if place is None else AdminSocket(app, Path(place), shared=bool(users))
    return Parts(
        store,
        bus,
        recorder,
        contacts,
        conductor,
        gatekeeper,
        joining,
        pruner,
        chronicle,
        sealer,
        dispatcher,
        herald,
        retained,
        importer,
        auditor,
        expiry,
        server,
        socket,
        _watched(settings, context),
        hearing,
        asking,
        jumps,
        feed,
        pulse,
        courier,
        LinkWatch(store, bus, now),
    )


def _watched(settings: Settings, context: Context) -> HttpServer | None:
    watching = settings.metrics
    if watching.listen is None:
        return None
    return HttpServer(health_app(context), watching.host, watching.port, MAX_WATCHERS, "metrics.listen")


def _beat_keys(keyring: Keyring) -> Keys:
    try:
        return Keys(keyring.epoch, keyring.standing(BEAT).signer)
    except UnavailableError:  # no beat key is at hand: then nobody says that we live
        return Keys(keyring.epoch, None)


def _registry(store: SqlStore, now: Callable[[], float]) -> Registry:
    async def register(artifact: Artifact, actor: str) -> bool:
        register = partial(operations.register_artifact, artifact=artifact, now=now(), actor=actor)
        return await store.transact(Lane.OPERATOR, register)

    async def known(uri: str, etag: str) -> bool:
        return await store.read(lambda tx: tx.sighted(uri, etag))

    async def remember(uri: str, etag: str) -> None:
        await store.transact(Lane.BULK, partial(_sight, uri=uri, etag=etag))

    async def refuse(uri: str, error: OrchestratorError, actor: str) -> None:
        await store.transact(Lane.OPERATOR, lambda tx: notices.tell_refusal(tx, uri, error, actor, now()))

    return Registry(register, known, remember, refuse)


async def _note_expiry(store: SqlStore, now: Callable[[], float], notice: Notice) -> None:
    await store.transact(Lane.OPERATOR, lambda tx: notices.tell_expiry(tx, notice, now()))


def _sight(tx: Any, uri: str, etag: str) -> None:
    tx.sight(uri, etag)
