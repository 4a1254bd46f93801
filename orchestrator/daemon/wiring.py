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
from orchestrator.config import Settings
from orchestrator.core.model import Artifact
from orchestrator.daemon import given
from orchestrator.engine.importer import Importer, Registry
from orchestrator.engine.offers.dispatcher import Dispatcher
from orchestrator.engine.offers.sealer import Sealer
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
from orchestrator.errors import UnavailableError
from orchestrator.ports import ArtifactSource, Lane
from orchestrator.verifier import BEAT, TRIGGER
from orchestrator.web.app import build_app
from orchestrator.web.context import Context
from orchestrator.web.server import AdminSocket, HttpServer
from orchestrator.wire import topics


@dataclass(frozen=True, slots=True)
class Parts:
    """The wired daemon.

    Attributes:
        store: durable state.
        bus: the broker.
        recorder: reports in.
        conductor: decisions.
        gatekeeper: what services say.
        joining: late joiners of open cohorts.
        pruner: forgets what is old.
        sealer: signatures.
        dispatcher: triggers out.
        herald: what lies retained.
        retained: looks for what must not lie retained.
        importer: artifacts in.
        auditor: the end of the audit log.
        expiry: what expires when.
        server: HTTP.
        socket: the admin socket, None where there is none.
        hearing: whether silence may be judged.
        jumps: whether the clock goes on as it did.
    """

    store: SqlStore
    bus: MqttBus
    recorder: Recorder
    conductor: Conductor
    gatekeeper: Gatekeeper
    joining: Joining
    pruner: Pruner
    sealer: Sealer
    dispatcher: Dispatcher
    herald: Herald
    retained: RetainedAudit
    importer: Importer
    auditor: Auditor
    expiry: ExpiryWatch
    server: HttpServer
    socket: AdminSocket | None
    hearing: Hearing
    jumps: Jumps


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
    planned, sealed = asyncio.Event(), asyncio.Event()
    conductor = Conductor(store, now, hearing, planned.set, given.ceiling(settings))
    asker = HttpAsker(given.asking(settings))
    gatekeeper = Gatekeeper(store, asker, now, conductor.changed)
    recorder = Recorder(store, bus, given.recording(settings), now, hearing, conductor.changed, planned.set)
    joining = Joining(store, now, conductor.changed)
    pruner = Pruner(store, settings.store.keep_s, now, jumps.calm_s)
    sealer = Sealer(store, lambda: keyring.standing(TRIGGER), given.sealing(settings), now, planned, sealed.set)
    dispatcher = Dispatcher(store, bus, settings.dispatcher.batch, now, sealed, planned.set, conductor.stops.store)
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
    expiry = ExpiryWatch(given.expiring(settings, keyring), now)
    signer, witness = given.checkpoints(settings, Path(make_url(settings.store.url).database or ""))
    auditor = Auditor(store, store, signer, witness, now)
    context = Context(
        store=store,
        conductor=conductor,
        recorder=recorder,
        import_artifact=importer.import_one,
        sources=sources,
        now=now,
        hearing=hearing,
        planned=planned.set,
        keyring=keyring,
        operator_token=given.operator_token(settings),
        presign_lifetime_s=int(settings.download.presign_lifetime_s),
        status=lambda: {
            "version": __version__,
            "broker_connected": bus.link > 0,
            "hearing": hearing(),
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
        },
        fault=lambda: store.fault,
        may_ask=asker.may_ask,
        rules=given.rules(settings),
        rekeyed=partial(expiry.look_at, "keys"),
        admin_uids=frozenset(settings.operators.socket_users),
        beat=herald.beat,
        public_url=settings.http.public_url.rstrip("/"),
        ddi=given.ddi(settings),
    )
    app = build_app(context)
    server = HttpServer(app, settings.http.host, settings.http.port, settings.http.max_connections)
    place, users = settings.operators.socket, settings.operators.socket_users
    socket = None if place is None else AdminSocket(app, Path(place), shared=bool(users))
    return Parts(
        store,
        bus,
        recorder,
        conductor,
        gatekeeper,
        joining,
        pruner,
        sealer,
        dispatcher,
        herald,
        retained,
        importer,
        auditor,
        expiry,
        server,
        socket,
        hearing,
        jumps,
    )


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

    return Registry(register, known, remember)


def _sight(tx: Any, uri: str, etag: str) -> None:
    tx.sight(uri, etag)
