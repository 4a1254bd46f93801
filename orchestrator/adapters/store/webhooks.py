"""Destinations of events, and what was told. Implements `ports.Webhooks`."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, Row, delete, select, update
from sqlalchemy import insert as plain_insert

from orchestrator.adapters.store.dialect import insert
from orchestrator.adapters.store.schema import notices, webhooks
from orchestrator.ports.events import Webhook, WebhookState


class SqlWebhooks:
    """Destinations in SQL."""

    _connection: Connection

    def add_webhook(self, webhook: Webhook) -> None:
        """See `ports.Webhooks.add_webhook`."""
        self._connection.execute(plain_insert(webhooks), _values(webhook))

    def webhook(self, webhook_id: str) -> Webhook | None:
        """See `ports.Webhooks.webhook`."""
        row = self._connection.execute(select(webhooks).where(webhooks.c.id == webhook_id)).one_or_none()
        return None if row is None else _webhook(row)

    def webhooks(self) -> list[Webhook]:
        """See `ports.Webhooks.webhooks`."""
        query = select(webhooks).order_by(webhooks.c.made_at, webhooks.c.id)
        return [_webhook(row) for row in self._connection.execute(query)]

    def save_webhook(self, webhook: Webhook) -> None:
        """See `ports.Webhooks.save_webhook`."""
        self._connection.execute(update(webhooks).where(webhooks.c.id == webhook.id).values(_values(webhook)))

    def remove_webhook(self, webhook_id: str) -> None:
        """See `ports.Webhooks.remove_webhook`."""
        self._connection.execute(delete(webhooks).where(webhooks.c.id == webhook_id))

    def told(self, name: str) -> str:
        """See `ports.Webhooks.told`."""
        return self._connection.scalar(select(notices.c.mark).where(notices.c.name == name)) or ""

    def tell(self, name: str, mark: str) -> bool:
        """See `ports.Webhooks.tell`."""
        if self.told(name) == mark:
            return False
        statement = insert(self._connection, notices).values(name=name, mark=mark)
        self._connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"mark": mark}))
        return True


def _webhook(row: Row[Any]) -> Webhook:
    return Webhook(**(dict(row._mapping) | {"events": tuple(json.loads(row.events)), "state": WebhookState(row.state)}))


def _values(webhook: Webhook) -> dict[str, Any]:
    known = {name: getattr(webhook, name) for name in Webhook.__dataclass_fields__}
    return known | {"events": json.dumps(webhook.events), "state": webhook.state.value}
