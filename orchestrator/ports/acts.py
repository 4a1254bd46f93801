"""What a request adds to the transaction of the act that it asks for: a look before it, and its answer after it.

Rules:
- It joins the first transaction that is begun inside `joined`, whoever begins it, and no other one.
- What it raises undoes the act. A proposal is no act yet: nothing is added after one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from orchestrator.core.trust.approval import Proposal

if TYPE_CHECKING:
    from orchestrator.ports.store import Tx

Result = TypeVar("Result")
_present: ContextVar[Addition | None] = ContextVar("act", default=None)


@dataclass(slots=True)
class Addition:
    """What is added to one act.

    Attributes:
        before: called with the open transaction before the act is done; what it raises keeps it from being done.
        after: called with what the act returned.
        joined: whether it has been added to a transaction.
    """

    before: Callable[[Tx], None]
    after: Callable[[Tx, Any], None]
    joined: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """The answer to an act that was done.

    Attributes:
        request: digest of what was asked.
        answer: what was answered, sealed.
        at: when.
    """

    request: bytes
    answer: bytes
    at: float


class Answers(Protocol):
    """The answers to acts that were asked for under a key."""

    def answer(self, key: bytes) -> Kept | None:
        """Return what was answered under a key."""
        ...

    def keep_answer(self, key: bytes, kept: Kept) -> None:
        """Store what was answered under a key."""
        ...

    def forget_answers(self, before: float, limit: int) -> int:
        """Delete up to `limit` answers that were given before a time; returns how many."""
        ...


@contextmanager
def joined(addition: Addition) -> Iterator[None]:
    """Add this to the act that is done inside."""
    token = _present.set(addition)
    try:
        yield
    finally:
        _present.reset(token)


def with_addition(work: Callable[[Tx], Result]) -> Callable[[Tx], Result]:
    """Return the work of a transaction, with what the present request adds to it."""
    addition = _present.get()
    if addition is None or addition.joined:
        return work
    addition.joined = True
    before, after = addition.before, addition.after

    def both(tx: Tx) -> Result:
        before(tx)
        result = work(tx)
        if not isinstance(result, Proposal):
            after(tx, result)
        return result

    return both
