"""Acts that are done once: the key under which a request asks for them, and the state that it saw.

Rules:
- The answer is stored in the transaction of the act. Whoever dies in between has done both or nothing, and who asks
  again under the same key gets the same answer, without another act.
- A key belongs to one account and one request; with another body it is refused. An answer is kept for a day.
- What is stored is sealed with the key itself, which is not stored: some answers hold a token that is shown once.
- A refusal is no act: who asks again under the same key may be answered otherwise.
- `If-Match` is judged in the transaction of the act, too.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fastapi import Header, Request, Response

from orchestrator.core.trust.roles import Caller
from orchestrator.errors import ConflictError, RequestError
from orchestrator.ports import Addition, Kept, Tx
from orchestrator.ports.acts import joined
from orchestrator.web.context import Context

KEPT_S = 86_400.0
"""How long an answer is kept."""
FORGOTTEN_AT_ONCE = 100
"""Old answers that each new one takes away."""
REPEATED_HEADER = "Idempotency-Replayed"
_KEY = r"^[\x21-\x7e]{16,128}$"
_NONCE_BYTES = 12

_log = structlog.get_logger(__name__)

Result = TypeVar("Result")
View = dict[str, Any]
Mark = Callable[[Tx], str]

IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=_KEY,
        description="A random word of 16 to 128 characters. Who repeats the request under it within a day gets the "
        "same answer, and nothing is done again.",
        examples=["3f0c9a34-5b7e-4b8e-9d55-0a4e7a1f6c11"],
    ),
]
IfMatch = Annotated[
    str | None,
    Header(max_length=256, description="The `ETag` of what the caller saw; 412 if it is another one by now."),
]


class ReusedKeyError(RequestError):
    """A key came with another request than before."""

    default_code = "key_reused"


class ChangedError(ConflictError):
    """What the caller saw is another one by now."""

    default_code = "changed"


class _AnsweredError(Exception):
    """Undoes an act that was done before, under the same key."""

    def __init__(self, kept: Kept) -> None:
        super().__init__()
        self.kept = kept


@dataclass(frozen=True, slots=True)
class Asked:
    """One request for an act.

    Attributes:
        context: what routes work with.
        key: under which it is asked for, None for none.
        digest: of what is asked.
        response: whose headers tell that an answer is repeated.
    """

    context: Context
    key: str | None
    digest: bytes
    response: Response

    async def once(
        self,
        who: Caller,
        act: Callable[[], Awaitable[Result]],
        show: Callable[[Tx, Result], View],
        *,
        if_match: str | None = None,
        mark: Mark | None = None,
    ) -> View:
        """Do an act, or find out that it was done, and return its answer.

        Args:
            who: asks for it.
            act: does it in one transaction.
            show: returns the answer, from what the act returned.
            if_match: what the caller saw.
            mark: returns what there is to see now.

        Raises:
            ReusedKeyError: the key came with another request before.
            ChangedError: what the caller saw is another one by now.
        """
        store = self.context.store
        if self.key is None and if_match is None:
            done = await act()
            return await store.read(lambda tx: show(tx, done))
        sealed = None if self.key is None else _Seal(who.name, self.key)
        if sealed is not None and (kept := await store.read(lambda tx: self._kept(tx, sealed))) is not None:
            return self._repeat(kept, sealed)
        answers: list[View] = []

        def before(tx: Tx) -> None:
            if sealed is not None and (known := self._kept(tx, sealed)) is not None:
                raise _AnsweredError(known)
            if if_match is not None and mark is not None:
                _require(if_match, mark(tx))

        def after(tx: Tx, result: Result) -> None:
            try:
                answers.append(show(tx, result))
            except Exception as error:  # what we cannot show must not undo a stop
                _log.error("act.not_shown", exc_info=error)
                return
            if sealed is not None:
                now = self.context.now()
                tx.forget_answers(now - KEPT_S, FORGOTTEN_AT_ONCE)
                tx.keep_answer(sealed.name, Kept(self.digest, sealed.close(answers[0]), now))

        try:
            with joined(Addition(before, after)):
                done = await act()
        except _AnsweredError as answered:
            assert sealed is not None, "only what has a key was answered before"
            return self._repeat(answered.kept, sealed)
        return answers[0] if answers else await store.read(lambda tx: show(tx, done))

    def _kept(self, tx: Tx, sealed: _Seal) -> Kept | None:
        kept = tx.answer(sealed.name)
        return kept if kept is not None and kept.at >= self.context.now() - KEPT_S else None

    def _repeat(self, kept: Kept, sealed: _Seal) -> View:
        if not hmac.compare_digest(kept.request, self.digest):
            raise ReusedKeyError("this Idempotency-Key came with another request before; take a new one for this")
        self.response.headers[REPEATED_HEADER] = "true"
        return sealed.open(kept.answer)


class _Seal:
    """Names and seals the answer to what one account asks for under one key."""

    def __init__(self, account: str, key: str) -> None:
        self.name = hashlib.sha256(f"{account}\0{key}".encode()).digest()
        self._cipher = AESGCM(hmac.digest(key.encode(), f"answer\0{account}".encode(), "sha256"))

    def close(self, answer: View) -> bytes:
        """Return an answer, sealed."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, json.dumps(answer).encode(), self.name)

    def open(self, sealed: bytes) -> View:
        """Return the answer that was sealed."""
        try:
            text = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], self.name)
        except InvalidTag:
            raise ConflictError("the answer that is stored under this key was altered", code="answer_altered") from None
        answer: View = json.loads(text)
        return answer


def asked(context: Context) -> Callable[..., Awaitable[Asked]]:
    """Return the dependency of a route that is an act: what is asked, and under which key."""

    async def read(request: Request, response: Response, idempotency_key: IdempotencyKey = None) -> Asked:
        said = hashlib.sha256(f"{request.method} {request.url.path}\0".encode() + await request.body())
        return Asked(context, idempotency_key, said.digest(), response)

    return read


def _require(if_match: str, mark: str) -> None:
    """Refuse what was asked by somebody who saw another state (RFC 9110, 13.1.1)."""
    wanted = [word.strip() for word in if_match.split(",")]
    if if_match.strip() != "*" and mark not in wanted:
        raise ChangedError("it is another one by now than you saw; look at it again, and then decide")
