"""Forms that are carried out once, and what became of a form whose answer was lost.

Rules:
- Each form that is shown has a key. That it was done is stored in the transaction that does it: who dies in between has
  done both or nothing, and who signs in again is told which.
- A key belongs to one account. It is kept as long as those of the API, and in the same place.
- To stop is never refused: a form that stops something is carried out as often as it is sent.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.errors import ConflictError
from orchestrator.ports import Addition, Kept, Tx
from orchestrator.ports.acts import joined
from orchestrator.web.context import Context
from orchestrator.web.once import FORGOTTEN_AT_ONCE, KEPT_S

_KEY = re.compile(r"[A-Za-z0-9_-]{24}")
_KEY_BYTES = 18


def fresh() -> str:
    """Return a key for a form that is about to be shown."""
    return secrets.token_urlsafe(_KEY_BYTES)


def is_key(text: str) -> bool:
    """Say whether a text can be the key of a form."""
    return _KEY.fullmatch(text) is not None


@contextmanager
def once(context: Context, account: str, place: str, key: str, *, stops: bool) -> Iterator[None]:
    """Let the act inside be done unless it was done under this key before.

    Args:
        context: what routes work with.
        account: who does it.
        place: where the form is sent; its last word names the act.
        key: of the form.
        stops: whether it is done however often it is sent.

    Raises:
        ConflictError: it was done before (`done_before`).
    """
    name = _name(account, key)

    def before(tx: Tx) -> None:
        kept = tx.answer(name)
        if kept is not None and not stops:
            did, word = kept.answer.decode(), _word(place)
            again = "was not done again" if did == word else f"{word} was not done"
            text = f"{did} was done already, at {_clock(kept.at)}, and {again}"
            raise ConflictError(text, code="done_before")

    def after(tx: Tx, _: object) -> None:
        if tx.answer(name) is None:
            now = context.now()
            tx.forget_answers(now - KEPT_S, FORGOTTEN_AT_ONCE)
            tx.keep_answer(name, Kept(hashlib.sha256(place.encode()).digest(), _word(place).encode(), now))

    with joined(Addition(before, after)):
        yield


async def fate_of(context: Context, account: str, key: str) -> tuple[str, str]:
    """Return what became of the form of a key, as the kind and the text of a notice."""
    kept = await context.store.read(lambda tx: tx.answer(_name(account, key)))
    if kept is None:
        text = (
            f"What you sent last was not carried out in the name of {account}: the daemon was away, or nobody was "
            "signed in. If other persons have to agree to it, its proposal may stand under Approvals"
        )
        return "failed", f"{text}; else do it again."
    return "done", f"What you sent last ({kept.answer.decode()}) was carried out, once, at {_clock(kept.at)}."


def _name(account: str, key: str) -> bytes:
    return hashlib.sha256(f"form\0{account}\0{key}".encode()).digest()


def _word(place: str) -> str:
    return place.rsplit("/", 1)[-1]


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%SZ", time.gmtime(at))
