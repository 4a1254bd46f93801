"""The daemon: settings -> parts -> one TaskGroup; signals; systemd.

Rules:
- `given` turns settings into what adapters want, `wiring` connects the parts, here they run.
- Every task has a name, and one that ends takes the daemon down: a half-dead daemon is worse than a
  restarted one.
- READY is said once the store is open and HTTP listens; while the store is brought up to a new schema, which takes
  minutes where it is large, systemd is asked for more time. The watchdog is fed by the event loop after a
  read of the store, unless `health` says that we are unwell: a stuck loop, store or link is noticed.
- SIGTERM, SIGINT and SIGHUP stop the loops, the latter because nothing is read anew while it runs; what was
  acknowledged is on disk at any time anyway.
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
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from orchestrator import __version__
from orchestrator.adapters import logs
from orchestrator.adapters.journal import Journal
from orchestrator.adapters.s3 import THREADS as S3_THREADS
from orchestrator.adapters.store import SqlStore, open_store
from orchestrator.adapters.systemd import Notifier
from orchestrator.config import Settings
from orchestrator.core.model import Phase
from orchestrator.daemon import given, health
from orchestrator.daemon.wiring import Parts, wire
from orchestrator.engine.reports import asking
from orchestrator.engine.targeting import unsigned
from orchestrator.engine.trust import footing
from orchestrator.errors import OrchestratorError, UnavailableError
from orchestrator.ports import Lane
from orchestrator.web.dialects import ddi

__all__ = ["Parts", "serve", "tune_interpreter"]

STATUS_EVERY_S = 5.0
STARTING_EVERY_S = 30.0
MORE_S = 120.0
"""How much longer systemd shall wait for the start, each time that it is asked."""
PROBE_EVERY_S = 30.0
SWITCH_S = 0.001
"""How long a thread may keep the interpreter from another: the writer comes back from the database often."""
GC_EVERY = (20_000, 50, 100)
"""Batches make thousands of objects that no cycle holds; a look for cycles after every 700 costs a tenth of them."""
_log = structlog.get_logger(__name__)


class _StoppedError(Exception):
    """Ends the TaskGroup when a signal came."""


def serve(settings: Settings, *, after_restore: bool = False, accept_keyset: int | None = None) -> None:
    """Run the daemon until a signal stops it. Blocks.

    Args:
        settings: checked.
        after_restore: whether the operator knows that the database was restored from a backup.
        accept_keyset: number of a keyset that was not submitted, and that devices hold as the operator knows.

    Raises:
        OrchestratorError: it cannot start; the text says why.
    """
    journal = Journal.behind(sys.stdout, os.environ)
    logs.configure(settings.log.level, settings.log.format, sys.stdout, journal)
    faulthandler.enable()  # a crash in native code leaves the stack of every thread in the journal
    tune_interpreter()
    try:
        import uvloop
    except ImportError:
        run: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run
    else:
        run = uvloop.run
    notifier = Notifier.from_environ(os.environ)
    run(_serve(settings, notifier, after_restore=after_restore, accept_keyset=accept_keyset))
    _leave()


async def _serve(settings: Settings, notifier: Notifier, *, after_restore: bool, accept_keyset: int | None) -> None:
    store = await _open(settings.store.url, notifier, after_restore=after_restore)
    sources = given.sources(settings)
    try:
        keysets, last = await store.read(lambda tx: (tx.keysets(), tx.footing()))
        keyring = given.keyring(settings, keysets, time.time, last, accept_keyset)
        parts = wire(settings, store, sources, keyring)
        await parts.auditor.start({"version": __version__, "deployment": settings.deployment})
        await store.transact(Lane.OPERATOR, lambda tx: footing.remember(tx, keyring.keyset, time.time()))
        clients = settings.unsigned_clients
        allowed = clients.reason.strip() if clients.allow else ""
        await store.transact(Lane.OPERATOR, lambda tx: unsigned.settle(tx, allowed, time.time()))
        polling = await store.read(asking.on_their_way)
        paces = {ddi.DIALECT: settings.ddi.poll_interval_s}
        parts.asking.expect(asking.longest_s(polling, paces, settings.devices.poll_interval_s))
        await _run(settings, parts, notifier)
        await _last_contacts(parts)
        await parts.auditor.stop()
    finally:
        sources[1].close()
        await store.close()
        _log.info("daemon.stopped")


async def _open(url: str, notifier: Notifier, *, after_restore: bool) -> SqlStore:
    opening = asyncio.ensure_future(asyncio.to_thread(open_store, url, after_restore=after_restore))
    while not (await asyncio.wait([opening], timeout=STARTING_EVERY_S))[0]:
        notifier.starting("opens the store, and brings it up to the schema of this version", MORE_S)
    return opening.result()


async def _last_contacts(parts: Parts) -> None:
    try:
        await parts.contacts.flush()
    except UnavailableError as error:
        _log.error("store.unavailable", error=error.message)


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


async def _run(settings: Settings, parts: Parts, notifier: Notifier) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup, which shall last
            loop.add_signal_handler(number, stop.set)
    watch = settings.sources.watch
    jobs: dict[str, Coroutine[Any, Any, None]] = {
        "http": parts.server.run(),
        "broker": parts.bus.run(),
        "recorder": parts.recorder.listen(),
        "recorder-http": parts.recorder.serve(),
        "contacts": parts.contacts.run(),
        "silence": parts.recorder.judge_silence(),
        "jumps": parts.jumps.run(),
        "conductor": parts.conductor.run(),
        "gates": parts.gatekeeper.run(),
        "joining": parts.joining.run(),
        "pruning": parts.pruner.run(),
        "sealer": parts.sealer.run(),
        "dispatcher": parts.dispatcher.run(),
        "herald": parts.herald.run(),
        "retained": parts.retained.run(),
        "audit": parts.auditor.run(),
        "webhooks": parts.courier.run(),
        "link": parts.link_watch.run(),
        "chronicle": parts.chronicle.run(),
        "expiry": parts.expiry.run(settings.certificates.watch_interval_s, asyncio.sleep),
        "store": _watch_store(parts.store),
        "watchdog": _feed_watchdog(parts, notifier),
        "feed": parts.feed.run(),
        "stop": _wait_for_stop(stop, notifier),
    }
    if parts.socket is not None:
        jobs["admin"] = parts.socket.run()
    if parts.watched is not None:
        jobs["watched"] = parts.watched.run()
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
    except* OrchestratorError as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[OrchestratorError]) -> OrchestratorError:
    """Return one of several errors that have all ended the daemon: it is told as one sentence."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _never_ending(name: str, job: Coroutine[Any, Any, None]) -> None:
    await job
    raise RuntimeError(f"the task {name} ended; it must not")


async def _wait_for_stop(stop: asyncio.Event, notifier: Notifier) -> None:
    await stop.wait()
    notifier.stopping()
    _log.info("daemon.stopping")
    raise _StoppedError


async def _watch_store(store: SqlStore, pause: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep) -> None:
    """Say once that the store cannot be written, and once that it can again."""
    told = ""
    while True:
        await pause(STATUS_EVERY_S if told else PROBE_EVERY_S)
        fault = await store.probe()
        if fault and not told:
            _log.error("store.not_writable", error=fault)
        elif told and not fault:
            _log.info("store.writable")
        told = fault


async def _feed_watchdog(parts: Parts, notifier: Notifier) -> None:
    """Say every few seconds how we are, and feed the watchdog unless a restart would do us good."""
    every_s = min(notifier.watchdog_interval_s or STATUS_EVERY_S, STATUS_EVERY_S)
    told: set[str] = set()
    while True:
        parts.hearing()
        parts.asking()
        if parts.store.fault:  # it may have been for a moment
            await parts.store.probe()
        faults = health.unwell(parts.pulse())
        for part in faults.keys() - told:
            _log.error("daemon.unwell", part=part, error=faults[part])
        told = set(faults)
        try:
            running = len(await parts.store.read(lambda tx: tx.rollouts([Phase.RUNNING])))
        except UnavailableError as error:
            _log.error("store.unavailable", error=error.message)
        else:
            broker = "connected" if parts.bus.link else "not connected"
            published = parts.dispatcher.published
            unwell = "".join(f"; unwell: {fault}" for fault in faults.values())
            notifier.status(f"broker {broker}; {running} rollouts running; {published} triggers published{unwell}")
            if not faults:
                notifier.watchdog()
        await asyncio.sleep(every_s)
