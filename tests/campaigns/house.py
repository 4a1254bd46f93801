"""The engine of a campaign: the real parts on a real SQLite file, in one thread, dead whenever the campaign says so.

Rules:
- The store is the adapter's, without its threads: a transaction runs where it is asked for, so nothing depends on who
  is faster. `watch` sees the file after every commit.
- A crash drops all that the process knew. It comes before the commit of a transaction, which is abandoned, or after
  it, when nobody learns of it any more.
- The broker outlives the daemon; what was not acknowledged comes again.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import structlog
from sqlalchemy import Connection, Engine

from orchestrator.adapters.store import open_store, store
from orchestrator.adapters.store.lease import take
from orchestrator.adapters.store.recent import Recent
from orchestrator.core.pace.ceiling import Ceiling
from orchestrator.core.pace.rate import Pace
from orchestrator.engine.offers.dispatcher import Dispatcher
from orchestrator.engine.offers.sealer import Sealer, SealerSettings
from orchestrator.engine.reports.hearing import Hearing
from orchestrator.engine.reports.outage import Loss
from orchestrator.engine.reports.recorder import Recorder, RecorderSettings
from orchestrator.engine.rollouts.conductor import Conductor
from orchestrator.engine.rollouts.gates import Gatekeeper
from orchestrator.engine.targeting.joining import Joining
from orchestrator.engine.trust.keyring import Standing
from orchestrator.errors import UnavailableError
from orchestrator.ports import Lane, Tx
from tests.campaigns.reading import BrokenError
from tests.support.bus import MemoryBus
from tests.support.clock import Clock
from tests.support.factory import DEPLOYMENT, ORIGIN

BATCH = 4
GRACE_S = 30.0
STEPS = 2_000
"""Transactions within which a rollout that is stepped comes to rest."""
LOSS = Loss(share=0.3, floor=6)
"""What makes an outage of fleets as small as these."""

TURNS = 400
"""Turns of the event loop after which a loop of the engine must have done what there was to do."""

QUIET = 12
"""Turns after which a loop that has nothing to do has noticed it."""

Result = TypeVar("Result")
_MEMORY = Path("/dev/shm")


class Wrong(Enum):
    """What may go wrong in a transaction.

    Attributes:
        ABANDONED: the process dies before the commit.
        COMMITTED: the process dies after the commit, of which nobody learns.
        REFUSED: the database cannot be written; the process lives on.
    """

    ABANDONED = 0
    COMMITTED = 1
    REFUSED = 2


class Service:
    """A service that stages ask. Implements `ports.Asker`.

    Attributes:
        mood: what it answers, None for nothing at all.
    """

    def __init__(self) -> None:
        self.mood: bool | None = True

    async def ask(self, url: str) -> bytes:
        if self.mood is None:
            raise UnavailableError(f"{url} does not answer")
        return json.dumps({"ok": self.mood}).encode()


class CrashError(BaseException):
    """The process is dead. No loop of the engine may catch this."""


class QuickSigner:
    """Signs with a hash: devices of a campaign do not look at signatures."""

    kid = "quick"

    def sign(self, data: bytes) -> bytes:
        return hashlib.sha512(data).digest()


class _Held:
    """One connection for the life of a process of ours, where the adapter takes it from a pool for every transaction.

    Args:
        engine: of the adapter.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection = engine.connect()

    @contextlib.contextmanager
    def begin(self) -> Iterator[Connection]:
        """Begin a transaction, and end it."""
        with self._connection.begin():
            yield self._connection

    def close(self) -> None:
        """Close the connection; what is not committed is lost."""
        self._connection.close()
        self._engine.dispose()


class OneThread:
    """The SQL store in the thread of whoever asks. Implements `ports.Store`.

    Args:
        path: the database.
        now: the clock.
        watch: called after every commit.
    """

    def __init__(self, path: Path, now: Callable[[], float], watch: Callable[[], None]) -> None:
        self._held = _Held(_engine(path))
        self._writing = cast(Engine, self._held)
        self._lease = take(self._writing, _lease_of(path), after_restore=False, now=now)
        self._recent = Recent()
        self._watch = watch
        self.dead = False
        self.refused = False
        self._goes_wrong_in: int | None = None
        self._how = Wrong.ABANDONED
        self._meanwhile: Callable[[], None] | None = None
        self._meanwhile_in = 0
        self.left: int | None = None

    def go_wrong_in(self, transactions: int, how: Wrong) -> None:
        """Let something go wrong in a transaction to come."""
        self._goes_wrong_in, self._how = transactions, how

    def meanwhile(self, transactions: int, what: Callable[[], None]) -> None:
        """Let something else happen between two transactions to come."""
        self._meanwhile_in, self._meanwhile = transactions, what

    def calm_down(self) -> None:
        """Take all that back, if it did not happen."""
        self._goes_wrong_in, self._meanwhile, self.refused = None, None, False

    async def transact(self, lane: Lane, work: Callable[[Tx], Result]) -> Result:
        return self.write(work)

    def write(self, work: Callable[[Tx], Result]) -> Result:
        """Run a transaction."""
        self._go_on()
        self._count()
        self._let_others()
        now = self._goes_wrong_in == 0
        if self._goes_wrong_in is not None:
            self._goes_wrong_in -= 1

        def until_the_end(tx: Tx) -> Result:
            result = work(tx)
            if now and self._how is Wrong.REFUSED:
                self.refused = True
                raise UnavailableError("the disk is full")
            if now and self._how is Wrong.ABANDONED:
                self._die()
            return result

        result = store._run(self._writing, until_the_end, self._recent, self._lease)
        self._watch()
        if now:
            self._die()
        return result

    async def read(self, work: Callable[[Tx], Result]) -> Result:
        self._go_on()
        return store._run(self._writing, work)

    async def close(self) -> None:
        self._held.close()

    def _count(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise BrokenError(f"the conductor does not come to rest within {STEPS} transactions")

    def _let_others(self) -> None:
        if self._meanwhile is None:
            return
        self._meanwhile_in -= 1
        if self._meanwhile_in < 0:
            happens, self._meanwhile = self._meanwhile, None
            happens()

    def _go_on(self) -> None:
        if self.dead:
            raise CrashError

    def _die(self) -> None:
        self.dead = True
        raise CrashError


class House:
    """The engine, wired as the daemon does.

    Args:
        folder: where the database is made.
        ceiling: over all rollouts.
        watch: called after every commit.
    """

    def __init__(self, folder: Path, ceiling: Ceiling, watch: Callable[[], None]) -> None:
        self.path = folder / "state.db"
        for left in folder.iterdir():
            left.unlink()
        for template in (_template(), _lease_of(_template())):
            shutil.copyfile(template, folder / template.name)
        self.clock = Clock()
        self.bus = MemoryBus()
        self.ceiling = ceiling
        self.service = Service()
        self._watch = watch
        self.crashes = 0
        self._wire()

    def _wire(self) -> None:
        bus, clock = self.bus, self.clock
        self.store = OneThread(self.path, clock, self._watch)
        self.planned, self.sealed, self.drained = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.hearing = Hearing(lambda: bus.link, GRACE_S, clock, monotonic=float)
        self.hearing()
        self.conductor = Conductor(self.store, clock, self.hearing, self.planned.set, self.ceiling)
        self.recorder = Recorder(
            self.store,
            bus,
            RecorderSettings(batch=BATCH * 4, linger_s=0.0, enrol=True, pace=Pace(burst=0), loss=LOSS),
            clock,
            self.hearing,
            self.conductor.changed,
            self.planned.set,
        )
        settings = SealerSettings(DEPLOYMENT, ORIGIN, 400.0, batch=BATCH * 2, ahead=BATCH * 4)
        standing = Standing(1, QuickSigner())
        self.sealer = Sealer(self.store, lambda: standing, settings, clock, self.planned, self.sealed.set)
        self.dispatcher = Dispatcher(self.store, bus, BATCH, clock, self.sealed, self.drained.set)
        self.joining = Joining(self.store, clock, self.conductor.changed)
        self.gatekeeper = Gatekeeper(self.store, self.service, clock, self.conductor.changed)

    async def do(self, work: Awaitable[Result]) -> Result | None:
        """Let the engine do something; if the process dies in it, another one takes over."""
        try:
            with contextlib.suppress(CrashError):
                return await work
        except UnavailableError:
            if not self.store.refused:
                raise
        except BaseExceptionGroup:
            if not self.store.dead:
                raise
        finally:
            self.store.calm_down()
            if self.store.dead:
                await self.restart()
        return None

    async def restart(self) -> None:
        """Die, and start again on the same file."""
        self.crashes += 1
        if self.bus.link:
            self.bus.go_down()
            self.bus.come_up()
        await self.store.close()
        self._wire()

    async def seal(self) -> None:
        """Seal until there is nothing to do."""
        while await self.sealer.seal_once() == BATCH * 2:
            pass

    async def dispatch(self) -> None:
        """Publish until nothing waits, or the link breaks."""
        self.drained.clear()
        self.sealed.set()
        await self._let(self.dispatcher.run(), self._all_claimed())

    def _all_claimed(self) -> Callable[[], bool]:
        """Return what says that the dispatcher found nothing to claim twice: the first may end its recovery."""
        times = 0

        def done() -> bool:
            nonlocal times
            if self.drained.is_set():
                times += 1
                self.drained.clear()
                self.sealed.set()
            return times == 2 or not self.bus.link

        return done

    async def listen(self) -> None:
        """Record all that the bus brings, and acknowledge it."""
        await self._let(self.recorder.listen(), self._all_heard())
        assert not self.recorder.counts["poisoned"], "a report could not be stored"

    def _all_heard(self) -> Callable[[], bool]:
        """Return what says that the recorder acknowledged everything, and has noticed that nothing follows."""
        turns = 0

        def done() -> bool:
            nonlocal turns
            turns = 0 if self.bus.waiting else turns + 1
            return turns > QUIET or not self.bus.link

        return done

    async def _let(self, loop: Coroutine[Any, Any, None], done: Callable[[], bool]) -> None:
        """Let a loop of the engine run until it has done what there was to do."""
        task = asyncio.ensure_future(loop)
        for _ in range(TURNS):
            if task.done() or done():
                break
            await asyncio.sleep(0)
        else:
            raise AssertionError("a loop of the engine does not come to its end")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def advance(conductor: Conductor, rollout_id: int) -> bool:
    """Let the conductor step a rollout; says whether it could, as far as it goes."""
    store = cast(OneThread, conductor._store)
    store.left = STEPS
    try:
        await conductor.advance(rollout_id)
    except UnavailableError as error:
        conductor._put_off(rollout_id, error)
        return False
    finally:
        store.left = None
    return True


_next_turn = asyncio.sleep


async def soon(_seconds: float) -> None:
    """Stand in for `asyncio.sleep`: nobody waits in real time."""
    await _next_turn(0)


async def inline(work: Callable[..., Result], *arguments: object, **named: object) -> Result:
    """Stand in for `asyncio.to_thread`: there is one thread."""
    return work(*arguments, **named)


def silent() -> None:
    """Let the engine log nothing; campaigns make it say too much."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def new_folder() -> Path:
    """Make a folder in memory, where the machine has a file system there; it is removed when the process ends."""
    made = Path(tempfile.mkdtemp(prefix="campaigns-", dir=_MEMORY if _MEMORY.is_dir() else None))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@cache
def _template() -> Path:
    """Return an empty database of the newest schema, made once per process."""
    folder = new_folder()
    made = open_store(f"sqlite:///{folder / 'state.db'}")
    made._close()
    return folder / "state.db"


@cache
def _engine(path: Path) -> Engine:
    """Return the engine of a database, made once per process: what it has compiled serves every campaign."""
    return store.sqlite_engine(f"sqlite:///{path}")


def _lease_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lease")
