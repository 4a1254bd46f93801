"""What every store promises of the destinations of events, and of what was told."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.ports import Store, Tx, Webhook, WebhookState
from tests.support.store import write

HOOK = Webhook(
    "wh_1", "https://hooks.example.net/", ("rollout.*", "glass.broken"), "whsec_AA==", "", None, 10.0, "ann", 7
)


async def test_what_is_stored_comes_back_whole(store: Store) -> None:
    late = replace(HOOK, id="wh_0", made_at=11.0)
    changed = replace(
        HOOK,
        old_secret="whsec_BB==",
        old_until=20.0,
        cursor=9,
        state=WebhookState.FAILING,
        failures=3,
        failed_at=12.0,
        next_at=13.0,
        error="it answered 500",
        delivered=2,
        delivered_at=11.5,
    )

    def add(tx: Tx) -> None:
        tx.add_webhook(late)
        tx.add_webhook(HOOK)

    await write(store, add)
    assert await store.read(lambda tx: tx.webhooks()) == [HOOK, late]
    await write(store, lambda tx: tx.save_webhook(changed))
    assert await store.read(lambda tx: tx.webhook("wh_1")) == changed
    assert await store.read(lambda tx: tx.webhook("wh_0")) == late


async def test_what_was_removed_is_gone_and_does_not_come_back(store: Store) -> None:
    await write(store, lambda tx: tx.add_webhook(HOOK))
    await write(store, lambda tx: tx.remove_webhook("wh_1"))
    await write(store, lambda tx: tx.save_webhook(replace(HOOK, cursor=8)))
    assert await store.read(lambda tx: tx.webhooks()) == []
    assert await store.read(lambda tx: tx.webhook("wh_1")) is None


async def test_the_same_is_not_told_twice(store: Store) -> None:
    news = [await write(store, lambda tx, mark=mark: tx.tell("key", mark)) for mark in ("7 days", "7 days", "1 day")]
    assert news == [True, False, True]
    assert await store.read(lambda tx: (tx.told("key"), tx.told("another"))) == ("1 day", "")
