"""The recorder: what devices say, in batches, into the store; then the acknowledgement.

Rules:
- Nothing is acknowledged before the transaction that stored it returned.
- A full inbox stops reading from the broker, which holds back the rest; nothing is discarded.
- What cannot be decoded, or was replayed from a retained store, is counted, logged and acknowledged:
  it would come back for ever.
- The same holds for what a device says beyond its pace, judged before it is decoded. Each of its topics has a pace of
  its own; progress is dropped first, for the next one replaces it, and the reserve is for everything else: more
  than an honest device has to say after the longest absence of ours.
- If a batch fails for a reason of its own, it is retried piece by piece, so that one bad piece
  cannot hold up the rest.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import structlog

from orchestrator.core.pace.rate import Buckets, Pace
from orchestrator.core.timing import Timing
from orchestrator.engine.reports.folding import Recorded
from orchestrator.engine.reports.outage import Loss
from orchestrator.engine.reports.recording import Batch, record, record_silence
from orchestrator.errors import OrchestratorError, PayloadError, UnavailableError
from orchestrator.ports import Bus, Lane, Message, Store
from orchestrator.wire.report import Hello, Report, State, decode_hello, decode_report, decode_state
from orchestrator.wire.topics import Channel, parse_uplink

Saying = Report | Hello | State
SILENCE_CHUNK = 500
RETRY_S = 1.0
LOG_EVERY_S = 60.0
LOOK_SHARE = 20
"""Looking for passed deadlines may take one part in so many of the time."""

_log = structlog.get_logger(__name__)
_DECODERS: dict[Channel, Callable[[bytes, str], Saying]] = {
    Channel.REPORT: decode_report,
    Channel.HELLO: decode_hello,
    Channel.STATE: decode_state,
}
_PROGRESS = re.compile(rb'"kind"\s*:\s*"progress"')


class Clock(Protocol):
    """The present time in seconds since the epoch."""

    def __call__(self) -> float:
        """Return it."""
        ...


@dataclass(frozen=True, slots=True)
class RecorderSettings:
    """How the recorder batches.

    Attributes:
        batch: largest number of messages in one transaction.
        linger_s: how long to wait for more before a transaction.
        enrol: whether a hello may register a device.
        pace: how often one device may speak on one of its topics.
        loss: how many devices that go away together make an outage.
    """

    batch: int = 1000
    linger_s: float = 0.01
    enrol: bool = True
    pace: Pace = field(default_factory=Pace)
    loss: Loss = field(default_factory=Loss)


class Recorder:
    """Stores what devices say and tells who waits for it.

    Args:
        store: where it goes.
        bus: where most of it comes from.
        settings: how to batch.
        now: the clock.
        hearing: whether silence may be judged.
        changed: called with the rollouts whose tallies changed, after the commit.
        planned: called when deliveries were planned.
        ticks: a clock that never goes back, in seconds, for the pace and for how long reports take.

    Attributes:
        counts: what became of messages.
        kinds: what devices said and is stored, by kind of report, `hello` and `state`.
        lags: how long it took from arrival to commit, by edge: `mqtt` and `http`.
        heard_at: when something was last stored, None before that.
    """

    def __init__(
        self,
        store: Store,
        bus: Bus,
        settings: RecorderSettings,
        now: Clock,
        hearing: Callable[[], bool],
        changed: Callable[[set[int]], None],
        planned: Callable[[], None] = lambda: None,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._bus = bus
        self._settings = settings
        self._now = now
        self._hearing = hearing
        self._changed = changed
        self._planned = planned
        self._ticks = ticks
        self._buckets = Buckets(settings.pace) if settings.pace.burst else None
        self._tick = 0.0
        self._waiting: deque[tuple[Saying, asyncio.Future[None]]] = deque()
        self._posted = asyncio.Event()
        self._full = False
        self._behind = False
        self._log_again_at: dict[str, float] = {}
        self._in_hand: deque[float] = deque()
        self.counts: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.lags = {"mqtt": Timing(), "http": Timing()}
        self.heard_at: float | None = None

    async def submit(self, saying: Saying) -> None:
        """Record something that came by HTTP; returns once it is durable.

        Raises:
            UnavailableError: it could not be stored; the device should try again.
        """
        if len(self._waiting) >= 4 * self._settings.batch:
            raise UnavailableError("too many reports are waiting; try again later", code="busy")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((saying, future))
        self._posted.set()
        began = self._ticks()
        await future
        self.lags["http"].note(self._ticks() - began)

    @property
    def lag_s(self) -> float:
        """How long ago the oldest message arrived that is taken from the bus and not stored yet, 0 without one."""
        return max(self._ticks() - self._in_hand[0], 0.0) if self._in_hand else 0.0

    async def listen(self) -> None:
        """Record what the bus brings, for ever.

        While one batch is being committed the next one is decoded and handed to the writer; each is
        acknowledged after its own commit.
        """
        handed: asyncio.Queue[tuple[Sequence[Message], asyncio.Task[None]]] = asyncio.Queue(maxsize=1)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._acknowledge(handed), name="acknowledge")
            while True:
                messages = await self._gather()
                self._tick = self._ticks()
                self._in_hand.append(messages[0].tick if messages else self._tick)
                if self._buckets is not None:
                    self._buckets.forget(self._tick)
                sayings = [saying for saying in map(self._decode, messages) if saying is not None]
                await handed.put((messages, tasks.create_task(self._store_surely(sayings), name="store")))

    async def _gather(self) -> Sequence[Message]:
        """Return what arrived; behind a full batch perhaps nothing, which says that no more of them wait."""
        messages = list(await self._bus.receive(self._settings.batch, wait=not self._full))
        if len(messages) < self._settings.batch:
            await asyncio.sleep(self._settings.linger_s)
            messages += await self._bus.receive(self._settings.batch - len(messages), wait=False)
        self._full = len(messages) >= self._settings.batch
        return messages

    async def _acknowledge(self, handed: asyncio.Queue[tuple[Sequence[Message], asyncio.Task[None]]]) -> None:
        while True:
            messages, stored = await handed.get()
            await stored
            self._in_hand.popleft()
            self._behind = len(messages) >= self._settings.batch
            self._bus.ack(messages)
            stored_at, lag = self._ticks(), self.lags["mqtt"]
            for message in messages:
                lag.note(stored_at - message.tick)
            self.counts["acknowledged"] += len(messages)

    async def serve(self) -> None:
        """Record what `submit` was given, for ever."""
        while True:
            await self._posted.wait()
            self._posted.clear()
            await asyncio.sleep(self._settings.linger_s)
            while self._waiting:
                count = min(len(self._waiting), self._settings.batch)
                taken = [self._waiting.popleft() for _ in range(count)]
                await self._store_submitted(taken)

    async def judge_silence(self, pause: Callable[[float], Any] = asyncio.sleep) -> None:
        """Judge passed deadlines about once per second, for ever; with very many devices in flight less often."""
        loop = asyncio.get_running_loop()
        took_s = 0.0
        while True:
            await pause(max(1.0, LOOK_SHARE * took_s))
            started = loop.time()
            try:
                await self.judge_silence_once()
            except UnavailableError as error:
                _log.error("store.unavailable", error=error.message)
            took_s = loop.time() - started

    async def judge_silence_once(self) -> int:
        """Judge the deadlines that have passed; returns in how many pieces.

        Nothing is judged while nobody could be heard, or while reports wait that may break the silence.
        """
        judged = 0
        while self._hearing() and not self._behind:
            judge = partial(record_silence, now=self._now(), limit=SILENCE_CHUNK)
            done = await self._store.transact(Lane.REPORTS, judge)
            self._report(done)
            if not done.judged:
                break
            judged += 1
        return judged

    def _decode(self, message: Message) -> Saying | None:
        try:
            topic = parse_uplink(message.topic)
            if message.retained:
                raise PayloadError("replayed from the broker's retained store", code="retained")
            if self._buckets is not None and not self._buckets.take(message.topic, self._tick):
                self._spend_reserve(self._buckets, message)
            return _DECODERS[topic.channel](message.payload, topic.device)
        except PayloadError as error:
            if message.retained and not message.payload:
                return None
            self._note_refused(message, error)
            return None

    def _spend_reserve(self, buckets: Buckets, message: Message) -> None:
        if _PROGRESS.search(message.payload) or not buckets.take_reserved(message.topic, self._tick):
            raise PayloadError("the device says more than it may", code="rate")

    def _note_refused(self, message: Message, error: PayloadError) -> None:
        """Count every refusal; log one a minute for each code, so that one device cannot fill the disk."""
        self.counts[f"refused_{error.code}"] += 1
        now = asyncio.get_running_loop().time()
        if now >= self._log_again_at.get(error.code, 0.0):
            self._log_again_at[error.code] = now + LOG_EVERY_S
            counted = self.counts[f"refused_{error.code}"]
            detail = {"topic": message.topic[:120], "error": error.message[:200]}
            _log.warning("message.refused", code=error.code, counted=counted, **detail)

    async def _store_surely(self, sayings: Sequence[Saying]) -> None:
        """Store a batch, however long the store is away."""
        while sayings:
            try:
                await self._record(sayings)
            except UnavailableError as error:
                self._behind = True
                _log.error("store.unavailable", error=error.message)
                await asyncio.sleep(RETRY_S)
            except Exception:
                await self._store_pieces(sayings)
                return
            else:
                return

    async def _store_pieces(self, sayings: Sequence[Saying]) -> None:
        for saying in sayings:
            try:
                await self._record([saying])
            except UnavailableError:
                await self._store_surely([saying])
            except Exception:
                self._note_poison(saying)

    async def _store_submitted(self, taken: Sequence[tuple[Saying, asyncio.Future[None]]]) -> None:
        try:
            await self._record([saying for saying, _ in taken])
        except OrchestratorError as error:
            _settle(taken, error)
        except Exception:
            await self._store_submitted_pieces(taken)
        else:
            _settle(taken, None)

    async def _store_submitted_pieces(self, taken: Sequence[tuple[Saying, asyncio.Future[None]]]) -> None:
        for piece in taken:
            try:
                await self._record([piece[0]])
            except OrchestratorError as error:
                _settle([piece], error)
            except Exception:
                self._note_poison(piece[0])
                _settle(
                    [piece], OrchestratorError("this could not be stored; the daemon's log says why", code="poisoned")
                )
            else:
                _settle([piece], None)

    def _note_poison(self, saying: Saying) -> None:
        self.counts["poisoned"] += 1
        _log.exception("report.poisoned", device=saying.dev)

    async def _record(self, sayings: Sequence[Saying]) -> None:
        batch = Batch(
            reports=[item for item in sayings if isinstance(item, Report)],
            hellos=[item for item in sayings if isinstance(item, Hello)],
            states=[item for item in sayings if isinstance(item, State)],
        )
        now = self._now()
        settings = self._settings
        work = partial(record, batch=batch, now=now, enrol=settings.enrol, loss=settings.loss)
        done = await self._store.transact(Lane.REPORTS, work)
        self.counts["reports"] += len(batch.reports)
        self.kinds.update(report.kind for report in batch.reports)
        self.kinds["hello"] += len(batch.hellos)
        self.kinds["state"] += len(batch.states)
        self.heard_at = now
        self._report(done)

    def _report(self, done: Recorded) -> None:
        self.counts.update({f"ignored_{reason}": count for reason, count in done.ignored.items()})
        if done.unknown:
            _log.warning("device.unknown", count=len(done.unknown), examples=sorted(done.unknown)[:3])
        if done.planned:
            self._planned()
        if done.rollouts:
            self._changed(done.rollouts)


def _settle(taken: Sequence[tuple[Saying, asyncio.Future[None]]], error: OrchestratorError | None) -> None:
    for _, future in taken:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
