"""Destinations of events: added, removed, tried, and given other secrets.

Rules:
- A secret is shown once, in the answer to who made it. It stands in the database, for who signs must know it whole.
- A new destination hears of what happens from then on.
- A destination that is tried hears of it by the same road as of everything else, behind all that waits for it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from orchestrator.core.trust.roles import Caller
from orchestrator.errors import ConflictError, NotFoundError, RequestError
from orchestrator.ports import Tx, Webhook, WebhookState
from orchestrator.wire import events, hosts

MQTT = "mqtt:"
"""The address that means the broker."""
MOST = 16
"""Destinations that there may be."""
MAX_URL_CHARS = 1024
HOUR_S = 3_600.0
MAX_OVERLAP_H = 7 * 24
_ID_BYTES = 6


@dataclass(frozen=True, slots=True)
class Made:
    """A destination whose secret was just made; the only place where it stands.

    Attributes:
        webhook: what is stored.
        secret: as it is handed over; empty for the broker.
    """

    webhook: Webhook
    secret: str


def add(tx: Tx, url: str, wanted: tuple[str, ...], who: Caller, now: float) -> Made:
    """Add a destination.

    Raises:
        RequestError: the address or the words for events cannot be used.
        ConflictError: there are as many as there may be, or one has this address.
    """
    check_url(url)
    events.check_wanted(wanted)
    known = tx.webhooks()
    if len(known) >= MOST:
        raise ConflictError(f"there are {MOST} webhooks; remove one first", code="too_many_webhooks")
    same = next((item.id for item in known if item.url == url), None)
    if same is not None:
        raise ConflictError(f"webhook {same} has this address; remove it first, or rotate its secret")
    secret = "" if url == MQTT else _new_secret()
    webhook_id = f"wh_{secrets.token_hex(_ID_BYTES)}"
    said = {"to": shown(url), "events": list(wanted)}
    entry = tx.audit(who.name, "webhook.added", webhook_id, said, now)
    made = Webhook(webhook_id, url, wanted, secret, "", None, now, who.name, entry.n)
    tx.add_webhook(made)
    return Made(made, secret)


def remove(tx: Tx, webhook_id: str, who: Caller, now: float) -> Webhook:
    """Remove a destination. Raises NotFoundError if there is none of this identifier."""
    found = named(tx, webhook_id)
    tx.remove_webhook(webhook_id)
    tx.audit(who.name, "webhook.removed", webhook_id, {"to": shown(found.url)}, now)
    return found


def rotate(tx: Tx, webhook_id: str, overlap_h: float, who: Caller, now: float) -> Made:
    """Give a destination another secret; the one before signs as well for so many hours.

    Raises:
        NotFoundError: there is none of this identifier.
        RequestError: it has no secret, or the time is too long.
    """
    found = named(tx, webhook_id)
    if not found.secret:
        raise RequestError("events to the broker are not signed: it knows who sends them, and who may read them")
    if not 0 <= overlap_h <= MAX_OVERLAP_H:
        raise RequestError(f"the secret before may sign for 0 to {MAX_OVERLAP_H} hours more")
    until = now + overlap_h * HOUR_S
    changed = replace(found, secret=_new_secret(), old_secret=found.secret if overlap_h else "", old_until=until)
    tx.save_webhook(changed)
    tx.audit(who.name, "webhook.rotated", webhook_id, {"overlap_h": overlap_h}, now)
    return Made(changed, changed.secret)


def resume(tx: Tx, webhook_id: str, who: Caller, now: float, *, skip: bool = False) -> Webhook:
    """Try a destination at once, also one that was disabled.

    Args:
        tx: transaction.
        webhook_id: which one.
        who: wants it.
        now: present time.
        skip: whether it shall not hear of what waits for it.
    """
    found = named(tx, webhook_id)
    entry = tx.audit(who.name, "webhook.resumed", webhook_id, {"skip": skip}, now)
    changed = replace(found, state=WebhookState.ACTIVE, failures=0, failed_at=None, next_at=None, error="")
    if skip:
        changed = replace(changed, cursor=entry.n)
    tx.save_webhook(changed)
    return changed


def test(tx: Tx, webhook_id: str, who: Caller, now: float) -> int:
    """Let a destination be tried.

    Returns:
        The number that its `cursor` reaches once it has taken the test.

    Raises:
        NotFoundError: there is none of this identifier.
        ConflictError: it was disabled.
    """
    found = named(tx, webhook_id)
    if found.state is WebhookState.DISABLED:
        raise ConflictError(f"{webhook_id} is disabled ({found.error}); `ota webhook resume {webhook_id}` first")
    tx.save_webhook(replace(found, next_at=None))
    return tx.audit(who.name, events.TEST, webhook_id, {"reason": "asked by an admin"}, now).n


def named(tx: Tx, webhook_id: str) -> Webhook:
    """Return a destination. Raises NotFoundError if there is none of this identifier."""
    found = tx.webhook(webhook_id)
    if found is None:
        raise NotFoundError(f"there is no webhook {webhook_id[:80]!r}; see `ota webhook list`")
    return found


def check_url(url: str) -> None:
    """Check where somebody wants events to go; where a name leads is judged each time that it is sent to.

    Raises:
        RequestError: it is no address that events are sent to.
    """
    if url == MQTT:
        return
    fault = _fault(url)
    if fault:
        raise RequestError(f"the address of a webhook {fault}; write https://HOST/PATH, or `{MQTT}`", code="bad_url")


def shown(url: str) -> str:
    """Return where an address leads, as far as all may know: what follows the host may be a secret."""
    return url if url == MQTT else "://".join(urlsplit(url)[:2])


def _fault(url: str) -> str:
    if len(url) > MAX_URL_CHARS or not url.isascii() or not hosts.is_plain(url):
        return f"has at most {MAX_URL_CHARS} characters, of plain ASCII without blanks and backslashes"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not one that can be read"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "begins with https:// and a host"
    if "@" in parts.netloc or parts.fragment:
        return "holds no user and no fragment"
    return hosts.fault_of(parts.hostname) or ""


def _new_secret() -> str:
    return events.secret_text(secrets.token_bytes(events.SECRET_BYTES))
