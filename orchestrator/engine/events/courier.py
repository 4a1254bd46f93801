"""The courier: brings what the audit log says to every destination that wants to hear of it.

Rules:
- The log is the outbox. A destination is a place in it, so that nothing is lost by a crash, nothing is kept in memory,
  and each hears of everything in the order in which it happened.
- The place moves on after the destination has answered: who is told twice is told under the same identifier.
- Each event is signed with the secrets that hold by then: one that was replaced signs nothing after that.
- One destination waits for no other. One that fails is tried again with growing, scattered pauses, is marked as failing
  after `PATIENCE_S`, and is tried on; only the answer 410 and people end that.
- One that says when to come again (429 or 503 with `Retry-After`) is not tried before, within `LONGEST_PAUSE_S`.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import Any

import structlog

from orchestrator.core.model import DAEMON
from orchestrator.core.trust.audit import Entry
from orchestrator.engine.events.webhooks import MQTT, shown
from orchestrator.errors import OrchestratorError, UnavailableError
from orchestrator.ports import Bus, Lane, Poster, Store, Tx, Webhook, WebhookState
from orchestrator.wire import events, retry_after, topics

LOOK_S = 1.0
PAGE = 1000
"""Entries that are read at once: who wants few of them comes past so many in each `LOOK_S`."""
KEPT_EVERY = 1000
"""Entries of no interest after which the place is stored all the same."""
ANSWER_S = 15.0
"""How long a destination may take to answer."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 3_600.0
PATIENCE_S = 24 * 3_600.0
"""How long a destination may fail before it is marked as failing."""
MQTT_EXPIRY_S = 86_400
_BUSY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_MAX_ERROR = 200
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended.

    Attributes:
        error: why it failed, empty if it did not.
        gone: whether the destination wants nothing any more.
        wait_s: how long it wants not to be tried, 0 if it does not say.
    """

    error: str = ""
    gone: bool = False
    wait_s: float = 0.0


class Courier:
    """Brings events to their destinations.

    Args:
        store: where the log and the destinations are.
        poster: sends by HTTP.
        bus: the broker.
        deployment: whose events these are.
        now: the clock.
        chance: number within 0 and 1 that scatters pauses.

    Attributes:
        counts: `delivered` and `failed` attempts since the start.
        waiting: by destination, how many entries of the log it has not come past.
    """

    def __init__(
        self,
        store: Store,
        poster: Poster,
        bus: Bus,
        deployment: str,
        now: Callable[[], float],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._poster = poster
        self._bus = bus
        self._deployment = deployment
        self._now = now
        self._chance = chance
        self._places: dict[str, int] = {}
        self._busy: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.waiting: dict[str, int] = {}
        self.states: Counter[str] = Counter()

    async def run(self, pause: Callable[[float], Any] = asyncio.sleep) -> None:
        """Bring what is due, for ever; who does not answer is not waited for."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                for webhook in await self._due_safely():
                    tasks.create_task(self._serve_safely(webhook), name=f"webhook {webhook.id}")
                await pause(LOOK_S)

    async def bring_due(self) -> None:
        """Bring every destination whose turn it is one page of what it wants, and wait for all of them."""
        await asyncio.gather(*(self._serve_safely(webhook) for webhook in await self._due_safely()))

    def view(self) -> dict[str, Any]:
        """Return how destinations are, for JSON."""
        return {
            "states": dict(self.states),
            "attempts": dict(self.counts),
            "waiting": max(self.waiting.values(), default=0),
        }

    async def _due_safely(self) -> list[Webhook]:
        try:
            return await self._take_due()
        except UnavailableError as error:
            _log.error("store.unavailable", error=error.message)
            return []

    async def _take_due(self) -> list[Webhook]:
        known, head = await self._store.read(lambda tx: (tx.webhooks(), tx.audit_head()))
        names = {webhook.id for webhook in known}
        self._places = {name: place for name, place in self._places.items() if name in names}
        self.states = Counter(webhook.state.value for webhook in known)
        self.waiting = {webhook.id: head.n - self._place(webhook) for webhook in known}
        due = [webhook for webhook in known if self.waiting[webhook.id] > 0 and self._is_due(webhook)]
        self._busy |= {webhook.id for webhook in due}
        return due

    def _is_due(self, webhook: Webhook) -> bool:
        if webhook.id in self._busy or webhook.state is WebhookState.DISABLED:
            return False
        if webhook.url == MQTT and not self._bus.link:
            return False
        # Further away than any pause: the clock was set back.
        return webhook.next_at is None or not 0 < webhook.next_at - self._now() <= LONGEST_PAUSE_S

    def _place(self, webhook: Webhook) -> int:
        return max(self._places.get(webhook.id, 0), webhook.cursor)

    async def _serve_safely(self, webhook: Webhook) -> None:
        try:
            await self._serve(webhook)
        except UnavailableError as error:
            _log.error("store.unavailable", error=error.message)  # it stays due
        finally:
            self._busy.discard(webhook.id)

    async def _serve(self, webhook: Webhook) -> None:
        place = self._place(webhook)
        entries = await self._store.read(lambda tx: tx.audit_entries(place, PAGE))
        for entry in entries:
            event = self._wanted(webhook, entry)
            if event is not None:
                outcome = await self._send(webhook, event)
                work = partial(settle, webhook_id=webhook.id, n=entry.n, outcome=outcome, chance=self._chance())
                after = await self._store.transact(Lane.BULK, partial(work, now=self._now()))
                if after is None:
                    return
                webhook = after
            self._places[webhook.id] = entry.n
        if entries and entries[-1].n - webhook.cursor >= KEPT_EVERY:
            await self._store.transact(Lane.BULK, partial(_keep, webhook_id=webhook.id, n=entries[-1].n))

    def _wanted(self, webhook: Webhook, entry: Entry) -> events.Event | None:
        event = events.event_of(entry, self._deployment)
        if event is None or event.type == events.TEST:
            return event if entry.object == webhook.id else None
        about_itself = entry.action.startswith("webhook.") and entry.object == webhook.id
        return event if events.is_meant(webhook.events, event.type) and not about_itself else None

    async def _send(self, webhook: Webhook, event: events.Event) -> Outcome:
        try:
            async with asyncio.timeout(ANSWER_S):
                outcome = await self._attempt(webhook, event)
        except TimeoutError:
            outcome = Outcome(f"no answer within {ANSWER_S:.0f} s")
        except OrchestratorError as error:
            outcome = Outcome(error.message[:_MAX_ERROR])
        self.counts["failed" if outcome.error else "delivered"] += 1
        if outcome.error:
            _log.warning("webhook.failed", id=webhook.id, to=shown(webhook.url), event_id=event.id, error=outcome.error)
        return outcome

    async def _attempt(self, webhook: Webhook, event: events.Event) -> Outcome:
        body = events.encode(event)
        if webhook.url == MQTT:
            await self._bus.publish(topics.event(event.type), body, expiry_s=MQTT_EXPIRY_S)
            return Outcome()
        now = self._now()
        secrets = [webhook.secret]
        if webhook.old_secret and webhook.old_until is not None and now < webhook.old_until:
            secrets.append(webhook.old_secret)
        reply = await self._poster.post(webhook.url, body, events.headers_of(secrets, event.id, int(now), body))
        if HTTPStatus(200) <= reply.status < HTTPStatus.MULTIPLE_CHOICES:
            return Outcome()
        wait_s = retry_after.wait_s(reply.retry_after, self._now()) if reply.status in _BUSY else 0.0
        return Outcome(f"it answered {reply.status}", gone=reply.status == HTTPStatus.GONE, wait_s=wait_s)


def settle(tx: Tx, webhook_id: str, n: int, outcome: Outcome, chance: float, now: float) -> Webhook | None:
    """Store how an attempt ended; returns the destination if the next one may follow at once."""
    found = tx.webhook(webhook_id)
    if found is None or found.cursor >= n:
        return None  # it was removed, or was told to skip this one, meanwhile
    after = _after(found, n, outcome, chance, now)
    tx.save_webhook(after)
    if after.state is not found.state:
        action = "webhook.recovered" if after.state is WebhookState.ACTIVE else f"webhook.{after.state.value}"
        tx.audit(DAEMON, action, webhook_id, {"to": shown(found.url), "reason": outcome.error}, now)
    return None if outcome.error else after


def pause_s(failures: int, chance: float, wanted_s: float = 0.0) -> float:
    """Return the pause after so many failures in a row, half of it left to chance; none is shorter than is wanted."""
    ours_s = min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 32), LONGEST_PAUSE_S) * (0.5 + 0.5 * chance)
    return max(ours_s, min(wanted_s, LONGEST_PAUSE_S))


def _after(found: Webhook, n: int, outcome: Outcome, chance: float, now: float) -> Webhook:
    if not outcome.error:
        taken = replace(found, cursor=n, delivered=found.delivered + 1, delivered_at=now)
        return replace(taken, state=WebhookState.ACTIVE, failures=0, failed_at=None, next_at=None, error="")
    failures = found.failures + 1
    failed_at = now if found.failed_at is None else min(found.failed_at, now)
    state = WebhookState.FAILING if now - failed_at >= PATIENCE_S else found.state
    failed = replace(found, failures=failures, failed_at=failed_at, error=outcome.error, state=state)
    if outcome.gone:
        return replace(failed, state=WebhookState.DISABLED, next_at=None)
    return replace(failed, next_at=now + pause_s(failures, chance, outcome.wait_s))


def _keep(tx: Tx, webhook_id: str, n: int) -> None:
    found = tx.webhook(webhook_id)
    if found is not None and found.cursor < n:
        tx.save_webhook(replace(found, cursor=n))
