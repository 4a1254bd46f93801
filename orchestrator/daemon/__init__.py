"""The composition root: settings -> adapters -> engine -> one TaskGroup; signals; systemd.

Rules:
- Here, and nowhere else, adapters meet the engine.
- Every task has a name, and one that ends takes the daemon down: a half-dead daemon is worse than a
  restarted one.
- READY is said once the store is open and HTTP listens; the watchdog is fed by the event loop after a
  read of the store, so that a stuck loop or a stuck store is noticed.
- SIGTERM and SIGINT stop the loops; what was acknowledged is on disk at any time anyway.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from orchestrator import __version__, config
from orchestrator.adapters import logs
from orchestrator.adapters.files import FileSource
from orchestrator.adapters.keys import load_device_keys
from orchestrator.adapters.mqtt import MqttBus, MqttSettings
from orchestrator.adapters.s3 import THREADS as S3_THREADS
from orchestrator.adapters.s3 import S3Settings, S3Source
from orchestrator.adapters.signers import FileSigner
from orchestrator.adapters.store import SqlStore, open_store
from orchestrator.adapters.systemd import Notifier
from orchestrator.config import Settings
from orchestrator.core.model import Artifact, Phase
from orchestrator.engine import operations
from orchestrator.engine.conductor import Conductor
from orchestrator.engine.dispatcher import Dispatcher
from orchestrator.engine.hearing import Hearing
from orchestrator.engine.importer import Importer, Registry
from orchestrator.engine.recorder import Recorder, RecorderSettings
from orchestrator.engine.sealer import Sealer, SealerSettings
from orchestrator.errors import ConfigError, UnavailableError
from orchestrator.ports import ArtifactSource, Lane
from orchestrator.verifier import TRIGGER, PublicKey
from orchestrator.web.app import build_app
from orchestrator.web.context import Context
from orchestrator.web.server import HttpServer
from orchestrator.wire import topics

STATUS_EVERY_S = 5.0
SWITCH_S = 0.001
"""How long a thread may keep the interpreter from another: the writer comes back from the database often."""
GC_EVERY = (20_000, 50, 100)
"""Batches make thousands of objects that no cycle holds; a look for cycles after every 700 costs a tenth of them."""
_log = structlog.get_logger(__name__)


class _StoppedError(Exception):
    """Ends the TaskGroup when a signal came."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The wired daemon.

    Attributes:
        store: durable state.
        bus: the broker.
        recorder: reports in.
        conductor: decisions.
        sealer: signatures.
        dispatcher: triggers out.
        importer: artifacts in.
        server: HTTP.
        hearing: whether silence may be judged.
    """

    store: SqlStore
    bus: MqttBus
    recorder: Recorder
    conductor: Conductor
    sealer: Sealer
    dispatcher: Dispatcher
    importer: Importer
    server: HttpServer
    hearing: Hearing


def serve(settings: Settings) -> None:
    """Run the daemon until a signal stops it. Blocks.

    Raises:
        OrchestratorError: it cannot start; the text says why.
    """
    logs.configure(settings.log.level, settings.log.format, sys.stdout)
    faulthandler.enable()  # a crash in native code leaves the stack of every thread in the journal
    tune_interpreter()
    try:
        import uvloop
    except ImportError:
        run: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run
    else:
        run = uvloop.run
    run(_serve(settings, Notifier.from_environ(os.environ)))
    _leave()


async def _serve(settings: Settings, notifier: Notifier) -> None:
    store = await asyncio.to_thread(open_store, settings.store.url)
    sources = _sources(settings)
    try:
        await _run(settings, wire(settings, store, sources), notifier)
    finally:
        sources[1].close()
        await store.close()
        _log.info("daemon.stopped")


def _leave() -> None:
    """End now if a call to S3 hangs in its thread: it may for minutes, and all that is ours is on disk."""
    if any(thread.name.startswith(S3_THREADS) for thread in threading.enumerate()):
        sys.stdout.flush()
        os._exit(0)


def tune_interpreter() -> None:
    """Set what suits a long-lived process with one busy writer thread."""
    sys.setswitchinterval(SWITCH_S)
    gc.freeze()  # what was imported stays
    gc.set_threshold(*GC_EVERY)


def wire(
    settings: Settings, store: SqlStore, sources: Sequence[ArtifactSource], now: Callable[[], float] = time.time
) -> Parts:
    """Connect the parts. Opens the listening socket and reads the keys.

    Raises:
        OrchestratorError: a key, a secret or the address cannot be used.
    """
    signer = FileSigner.load(_path(settings.trust.trigger_key_file))
    keys = _device_keys(settings, signer)
    bus = MqttBus(_mqtt(settings), topics.uplink_filters())
    hearing = Hearing(lambda: bus.link, settings.conductor.link_grace_s, now)
    planned, sealed = asyncio.Event(), asyncio.Event()
    conductor = Conductor(store, now, hearing, planned.set)
    recorder = Recorder(
        store,
        bus,
        RecorderSettings(settings.recorder.batch, settings.recorder.linger_s, settings.devices.enrolment == "hello"),
        now,
        hearing,
        conductor.changed,
        planned.set,
    )
    sealer = Sealer(store, signer, _sealing(settings), now, planned, sealed.set)
    dispatcher = Dispatcher(store, bus, settings.dispatcher.batch, now, sealed, planned.set)
    importer = Importer(
        sources, keys, _registry(store, now), limit_bytes=settings.sources.max_artifact_size_bytes, clock=now
    )
    context = Context(
        store=store,
        conductor=conductor,
        recorder=recorder,
        import_artifact=importer.import_one,
        sources=sources,
        now=now,
        hearing=hearing,
        planned=planned.set,
        operator_token=config.read_secret(_path(settings.http.operator_token_file)),
        presign_lifetime_s=int(settings.download.presign_lifetime_s),
        status=lambda: _status(bus, recorder, dispatcher, hearing),
    )
    server = HttpServer(build_app(context), settings.http.host, settings.http.port, settings.http.max_connections)
    return Parts(store, bus, recorder, conductor, sealer, dispatcher, importer, server, hearing)


def _device_keys(settings: Settings, signer: FileSigner) -> Mapping[str, PublicKey]:
    """Return the keys that devices hold, after checking that devices would take what we sign."""
    held = load_device_keys(_path(settings.trust.public_keys_file))
    ours = held.keys.get(signer.kid)
    faults = []
    if ours is None or ours.typ != TRIGGER:
        faults.append("trust.trigger_key_file: this key is no trigger key of trust.public_keys_file")
    if held.iss != settings.deployment:
        faults.append(f"deployment: the devices of trust.public_keys_file belong to {held.iss}; name the same here")
    if held.ep != settings.trust.epoch:
        faults.append(f"trust.epoch: trust.public_keys_file is of epoch {held.ep}; name the same here")
    if faults:
        raise ConfigError(faults)
    return held.keys


async def _run(settings: Settings, parts: Parts, notifier: Notifier) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    watch = settings.sources.watch
    jobs: dict[str, Coroutine[Any, Any, None]] = {
        "http": parts.server.run(),
        "broker": parts.bus.run(),
        "recorder": parts.recorder.listen(),
        "recorder-http": parts.recorder.serve(),
        "silence": parts.recorder.judge_silence(),
        "conductor": parts.conductor.run(),
        "sealer": parts.sealer.run(),
        "dispatcher": parts.dispatcher.run(),
        "watchdog": _feed_watchdog(parts, notifier),
        "stop": _wait_for_stop(stop, notifier),
    }
    if watch:
        jobs["watch"] = parts.importer.watch(watch, settings.sources.watch_interval_s, asyncio.sleep)
    try:
        async with asyncio.TaskGroup() as tasks:
            for name, job in jobs.items():
                tasks.create_task(_never_ending(name, job), name=name)
            notifier.ready()
            _log.info("daemon.ready", version=__version__, http=f"{settings.http.host}:{parts.server.port}")
    except* _StoppedError:
        pass


async def _never_ending(name: str, job: Coroutine[Any, Any, None]) -> None:
    await job
    raise RuntimeError(f"the task {name} ended; it must not")


async def _wait_for_stop(stop: asyncio.Event, notifier: Notifier) -> None:
    await stop.wait()
    notifier.stopping()
    _log.info("daemon.stopping")
    raise _StoppedError


async def _feed_watchdog(parts: Parts, notifier: Notifier) -> None:
    every_s = min(notifier.watchdog_interval_s or STATUS_EVERY_S, STATUS_EVERY_S)
    while True:
        parts.hearing()
        try:
            running = len(await parts.store.read(lambda tx: tx.rollouts([Phase.RUNNING])))
        except UnavailableError as error:
            _log.error("store.unavailable", error=error.message)
        else:
            broker = "connected" if parts.bus.link else "not connected"
            published = parts.dispatcher.published
            notifier.status(f"broker {broker}; {running} rollouts running; {published} triggers published")
            notifier.watchdog()
        await asyncio.sleep(every_s)


def _status(bus: MqttBus, recorder: Recorder, dispatcher: Dispatcher, hearing: Hearing) -> dict[str, object]:
    return {
        "version": __version__,
        "broker_connected": bus.link > 0,
        "hearing": hearing(),
        "published": dispatcher.published,
        "recorder": dict(sorted(recorder.counts.items())),
    }


def _registry(store: SqlStore, now: Callable[[], float]) -> Registry:
    async def register(artifact: Artifact) -> bool:
        return await store.transact(Lane.OPERATOR, lambda tx: operations.register_artifact(tx, artifact, now()))

    async def known(uri: str, etag: str) -> bool:
        return await store.read(lambda tx: tx.sighted(uri, etag))

    async def remember(uri: str, etag: str) -> None:
        await store.transact(Lane.BULK, partial(_sight, uri=uri, etag=etag))

    return Registry(register, known, remember)


def _sight(tx: Any, uri: str, etag: str) -> None:
    tx.sight(uri, etag)


def _sources(settings: Settings) -> tuple[FileSource, S3Source]:
    secret = settings.s3.secret_access_key_file
    s3 = S3Settings(
        endpoint_url=settings.s3.endpoint_url,
        region=settings.s3.region,
        access_key_id=settings.s3.access_key_id,
        secret_access_key=config.read_secret(secret) if secret else None,
        addressing_style=settings.s3.addressing_style,
        timeout_s=settings.s3.timeout_s,
        attempts=settings.s3.attempts,
    )
    return FileSource(tuple(settings.sources.file_roots)), S3Source(s3)


def _mqtt(settings: Settings) -> MqttSettings:
    mqtt = settings.mqtt
    return MqttSettings(
        host=mqtt.host,
        port=mqtt.port,
        client_id=mqtt.client_id,
        username=mqtt.username,
        password=config.read_secret(mqtt.password_file) if mqtt.password_file else None,
        tls=mqtt.tls,
        ca_file=_text(mqtt.ca_file),
        cert_file=_text(mqtt.cert_file),
        key_file=_text(mqtt.key_file),
        keepalive_s=int(mqtt.keepalive_s),
        session_expiry_s=int(mqtt.session_expiry_s),
        receive_maximum=mqtt.receive_maximum,
        version_5=mqtt.protocol == "5",
        reconnect_min_s=mqtt.reconnect_min_s,
        reconnect_max_s=mqtt.reconnect_max_s,
    )


def _sealing(settings: Settings) -> SealerSettings:
    return SealerSettings(
        deployment=settings.deployment,
        epoch=settings.trust.epoch,
        public_url=settings.http.public_url.rstrip("/"),
        lifetime_s=settings.trust.trigger_lifetime_s,
        batch=settings.dispatcher.batch,
        ahead=settings.dispatcher.sealed_ahead,
    )


def _path(path: Path | None) -> Path:
    assert path is not None, "the configuration was checked"
    return path


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
