"""Where events go: destinations, how far each has come, and who sends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class WebhookState(StrEnum):
    """How a destination is."""

    ACTIVE = "active"
    FAILING = "failing"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Webhook:
    """A destination of events.

    Attributes:
        id: identifier.
        url: where events go; `mqtt:` for the broker.
        events: which ones: types, `rollout.*` or `*`.
        secret: signs; empty for the broker.
        old_secret: signs as well until `old_until`; empty for none.
        old_until: when the old secret ends, None for none.
        made_at: when it was added.
        made_by: the account that added it.
        cursor: number of the last entry of the audit log that it needs no more.
        state: how it is.
        failures: attempts that failed since the last one that did not.
        failed_at: when the first of them did, None if none did.
        next_at: when it is tried again, None for at once.
        error: why the last attempt failed, empty if it did not.
        delivered: events that it took.
        delivered_at: when it took the last one, None for never.
    """

    id: str
    url: str
    events: tuple[str, ...]
    secret: str
    old_secret: str
    old_until: float | None
    made_at: float
    made_by: str
    cursor: int
    state: WebhookState = WebhookState.ACTIVE
    failures: int = 0
    failed_at: float | None = None
    next_at: float | None = None
    error: str = ""
    delivered: int = 0
    delivered_at: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a destination answered.

    Attributes:
        status: of HTTP.
        retry_after: when to come again, as it says it; empty if it says nothing.
    """

    status: int
    retry_after: str = ""


class Webhooks(Protocol):
    """Destinations of events, and what was told of things that are no rows."""

    def add_webhook(self, webhook: Webhook) -> None:
        """Store a destination."""
        ...

    def webhook(self, webhook_id: str) -> Webhook | None:
        """Return a destination."""
        ...

    def webhooks(self) -> list[Webhook]:
        """Return all destinations, oldest first."""
        ...

    def save_webhook(self, webhook: Webhook) -> None:
        """Store a destination that is there in place of how it was."""
        ...

    def remove_webhook(self, webhook_id: str) -> None:
        """Remove a destination, with its secrets."""
        ...

    def told(self, name: str) -> str:
        """Return what was told last of a thing, "" if nothing was."""
        ...

    def tell(self, name: str, mark: str) -> bool:
        """Store what is told of a thing; False if the same was told last."""
        ...


class Poster(Protocol):
    """Sends events by HTTP."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Return what is answered.

        Raises:
            OrchestratorError: nothing may be sent there, or no answer came.
        """
        ...
