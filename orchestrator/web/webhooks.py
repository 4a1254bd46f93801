"""The routes of webhooks under `/api/v1`. Translation only.

Rules:
- A secret stands in exactly one answer: the one to the request that made it.
- An address is shown without its query, which may hold a secret of the receiver.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.client import answers
from orchestrator.core.trust.roles import Act, Caller
from orchestrator.engine.events import webhooks
from orchestrator.engine.events.webhooks import MAX_OVERLAP_H, MAX_URL_CHARS, Made
from orchestrator.ports import Lane, Tx, Webhook
from orchestrator.web.access import may
from orchestrator.web.context import Context
from orchestrator.web.cursors import Pages, pages
from orchestrator.web.described import api_router, gives, gives_page
from orchestrator.web.once import Asked, asked
from orchestrator.wire.events import ALL, CATALOGUE

View = dict[str, Any]
_Word = Annotated[str, Field(max_length=64)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class WebhookBody(_Body):
    """Where events shall go, and which ones: types, `rollout.*` or `*`."""

    url: Annotated[str, Field(max_length=MAX_URL_CHARS)]
    events: Annotated[tuple[_Word, ...], Field(min_length=1, max_length=len(CATALOGUE))] = (ALL,)


class RotationBody(_Body):
    """How many hours the secret before signs as well."""

    overlap_h: Annotated[float, Field(ge=0, le=MAX_OVERLAP_H)] = 24.0


class ResumptionBody(_Body):
    """Whether what waits for the destination shall not reach it any more."""

    skip: bool = False


class NothingBody(_Body):
    """Nothing has to be said."""


def webhook_router(context: Context) -> APIRouter:
    """Return the routes of webhooks."""
    router = api_router("webhooks")
    admin = Annotated[Caller, may(context, Act.CONNECT)]
    doing = Annotated[Asked, Depends(asked(context))]
    wanted = Annotated[Pages, pages(100)]
    store, now = context.store, context.now

    @router.get("/webhooks", responses=gives_page(list[answers.Webhook]))
    async def list_webhooks(_: admin, page: wanted) -> list[View]:
        """List destinations of events, oldest first."""
        found, head = await store.read(lambda tx: (tx.webhooks(), tx.audit_head()))
        return [_view(item, head.n) for item in page.cut_all(found, lambda item: item.id)]

    @router.get("/webhooks/{webhook_id}", responses=gives(answers.Webhook))
    async def get_webhook(webhook_id: str, _: admin) -> View:
        """Show a destination of events."""
        return await store.read(lambda tx: _view(webhooks.named(tx, webhook_id), tx.audit_head().n))

    @router.post("/webhooks", status_code=201, responses=gives(answers.NewWebhook, 201))
    async def add_webhook(body: WebhookBody, who: admin, act: doing) -> View:
        """Add a destination; its secret is shown this once."""

        def work(tx: Tx) -> Made:
            return webhooks.add(tx, body.url, body.events, who, now())

        return await act.once(who, lambda: store.transact(Lane.OPERATOR, work), _made)

    @router.post("/webhooks/{webhook_id}/rotate", responses=gives(answers.NewWebhook))
    async def rotate_webhook(webhook_id: str, body: RotationBody, who: admin, act: doing) -> View:
        """Give a destination another secret, shown this once; the one before signs as well for a while."""

        def work(tx: Tx) -> Made:
            return webhooks.rotate(tx, webhook_id, body.overlap_h, who, now())

        return await act.once(who, lambda: store.transact(Lane.OPERATOR, work), _made)

    @router.post("/webhooks/{webhook_id}/resume", responses=gives(answers.Webhook))
    async def resume_webhook(webhook_id: str, body: ResumptionBody, who: admin, act: doing) -> View:
        """Try a destination at once, also one that was disabled."""

        def work(tx: Tx) -> Webhook:
            return webhooks.resume(tx, webhook_id, who, now(), skip=body.skip)

        return await act.once(
            who, lambda: store.transact(Lane.OPERATOR, work), lambda tx, item: _view(item, tx.audit_head().n)
        )

    @router.post("/webhooks/{webhook_id}/test", responses=gives(answers.WebhookTest))
    async def test_webhook(webhook_id: str, _body: NothingBody, who: admin, act: doing) -> View:
        """Send a destination the event `webhook.test`; it has come once the `cursor` of the destination is `n`."""

        def work(tx: Tx) -> int:
            return webhooks.test(tx, webhook_id, who, now())

        return await act.once(who, lambda: store.transact(Lane.OPERATOR, work), lambda _, n: {"n": n})

    @router.post("/webhooks/{webhook_id}/remove", responses=gives(answers.RemovedWebhook))
    async def remove_webhook(webhook_id: str, _body: NothingBody, who: admin, act: doing) -> View:
        """Remove a destination; what waits for it reaches it no more."""

        def work(tx: Tx) -> Webhook:
            return webhooks.remove(tx, webhook_id, who, now())

        return await act.once(who, lambda: store.transact(Lane.OPERATOR, work), lambda _, gone: {"removed": gone.id})

    return router


def _made(tx: Tx, made: Made) -> View:
    return _view(made.webhook, tx.audit_head().n) | {"secret": made.secret or None}


def _view(item: Webhook, last: int) -> View:
    place, query, _ = item.url.partition("?")
    return {
        "id": item.id,
        "url": place + ("?(removed)" if query else ""),
        "events": list(item.events),
        "state": item.state.value,
        "made_at": item.made_at,
        "made_by": item.made_by,
        "cursor": item.cursor,
        "behind": max(last - item.cursor, 0),
        "delivered": item.delivered,
        "delivered_at": item.delivered_at,
        "failures": item.failures,
        "failed_at": item.failed_at,
        "next_at": item.next_at,
        "error": item.error,
        "old_until": item.old_until if item.old_secret else None,
    }
