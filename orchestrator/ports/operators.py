"""Operators, their tokens, proposals, warrants and reviews."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from orchestrator.core.trust.approval import Matter, Proposal
from orchestrator.core.trust.roles import Role


@dataclass(frozen=True, slots=True)
class Operator:
    """An account.

    Attributes:
        name: unique identifier.
        person: the person behind it.
        roles: what it is for.
        added_at: when it was added.
    """

    name: str
    person: str
    roles: tuple[Role, ...]
    added_at: float


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of an operator's token; never the token.

    Attributes:
        id: public part, by which it is found.
        operator: account that it opens.
        hash: SHA-256 of the whole token, in hex.
        made_at: when it was issued.
        expires_at: when it ends.
        used_at: when it was last used, to the hour; None if never.
        revoked_at: when it was revoked, or None.
    """

    id: str
    operator: str
    hash: str
    made_at: float
    expires_at: float
    used_at: float | None = None
    revoked_at: float | None = None


@dataclass(frozen=True, slots=True)
class Review:
    """What was done without the approvals that it needed; open until another person has looked at it.

    Attributes:
        id: number, 0 until it is stored.
        matter: what was done.
        object: what it was done to.
        text: what would have been approved.
        actor: the account that did it.
        person: the person behind it; empty if it is shared.
        reason: why there was no time.
        at: when.
        closed_by: the person who looked at it, "" while it is open.
        closed_at: when, or None.
        finding: what that person says.
    """

    id: int
    matter: Matter
    object: str
    text: str
    actor: str
    person: str
    reason: str
    at: float
    closed_by: str = ""
    closed_at: float | None = None
    finding: str = ""


class Operators(Protocol):
    """Accounts and their tokens."""

    def add_operator(self, operator: Operator) -> None:
        """Store an account. Raises ConflictError if the name is taken."""
        ...

    def remove_operator(self, name: str) -> None:
        """Remove an account and all its tokens."""
        ...

    def operator(self, name: str) -> Operator | None:
        """Return an account."""
        ...

    def operators(self) -> list[Operator]:
        """Return all accounts in the order of their names."""
        ...

    def add_token(self, token: Token) -> None:
        """Store what is kept of a token."""
        ...

    def token(self, token_id: str) -> Token | None:
        """Return what is kept of a token."""
        ...

    def tokens(self) -> list[Token]:
        """Return what is kept of all tokens, in the order of their accounts, oldest first."""
        ...

    def mark_token(self, token_id: str, now: float) -> None:
        """Store that a token was used."""
        ...

    def revoke_token(self, token_id: str, now: float) -> None:
        """End a token. One that was revoked before keeps its time."""
        ...


class Approvals(Protocol):
    """Proposals, warrants and reviews."""

    def add_proposal(self, proposal: Proposal) -> Proposal:
        """Store a new proposal and give it its number."""
        ...

    def proposal(self, proposal_id: int) -> Proposal | None:
        """Return a proposal with its votes."""
        ...

    def open_proposal(self, matter: Matter, object: str, proposer: str) -> Proposal | None:
        """Return the proposal of this account on this matter that can still be used; there is at most one."""
        ...

    def proposals(self, limit: int, before: int | None = None) -> list[Proposal]:
        """Return the newest proposals, newest first."""
        ...

    def open_proposals(self, now: float, limit: int) -> list[Proposal]:
        """Return the proposals that may still be carried out, the oldest first, so that new ones hide none."""
        ...

    def proposals_about(self, name: str) -> list[Proposal]:
        """Return all proposals about an object, such as a rollout, newest first."""
        ...

    def save_proposal(self, proposal: Proposal) -> None:
        """Store the state of a proposal and its votes."""
        ...

    def set_warrant(self, rollout_id: int, lines: bytes, now: float) -> None:
        """Store the warrant of a rollout, in place of an earlier one."""
        ...

    def warrant(self, rollout_id: int) -> bytes | None:
        """Return the lines of a rollout's warrant."""
        ...

    def add_review(self, review: Review) -> Review:
        """Store a review and give it its number."""
        ...

    def review(self, review_id: int) -> Review | None:
        """Return a review."""
        ...

    def open_reviews(self) -> list[Review]:
        """Return the reviews that wait for another person, oldest first."""
        ...

    def close_review(self, review: Review) -> None:
        """Store who closed a review, when, and with which finding."""
        ...
