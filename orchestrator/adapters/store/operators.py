"""Operators, tokens, proposals, warrants and reviews. Implements `ports.Operators` and `ports.Approvals`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, delete, select, update
from sqlalchemy import insert as plain_insert
from sqlalchemy.exc import IntegrityError

from orchestrator.adapters.store.schema import operator_tokens, operators, proposals, reviews, votes, warrants
from orchestrator.core.trust.approval import OPEN, Matter, Proposal, State, Vote
from orchestrator.core.trust.roles import Role
from orchestrator.errors import ConflictError
from orchestrator.ports.operators import Operator, Review, Token

_IS_OPEN = proposals.c.state.in_([state.value for state in OPEN])


class SqlOperators:
    """Accounts and their tokens in SQL."""

    _connection: Connection

    def add_operator(self, operator: Operator) -> None:
        """See `ports.Operators.add_operator`."""
        values = _values(operator) | {"roles": " ".join(operator.roles)}
        try:
            self._connection.execute(plain_insert(operators), values)
        except IntegrityError:
            raise ConflictError(f"an operator named {operator.name!r} exists; choose another name") from None

    def remove_operator(self, name: str) -> None:
        """See `ports.Operators.remove_operator`."""
        self._connection.execute(delete(operator_tokens).where(operator_tokens.c.operator == name))
        self._connection.execute(delete(operators).where(operators.c.name == name))

    def operator(self, name: str) -> Operator | None:
        """See `ports.Operators.operator`."""
        row = self._connection.execute(select(operators).where(operators.c.name == name)).one_or_none()
        return None if row is None else _operator(row)

    def operators(self) -> list[Operator]:
        """See `ports.Operators.operators`."""
        return [_operator(row) for row in self._connection.execute(select(operators).order_by(operators.c.name))]

    def add_token(self, token: Token) -> None:
        """See `ports.Operators.add_token`."""
        self._connection.execute(plain_insert(operator_tokens), _values(token))

    def token(self, token_id: str) -> Token | None:
        """See `ports.Operators.token`."""
        query = select(operator_tokens).where(operator_tokens.c.id == token_id)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else Token(**row._mapping)

    def tokens(self) -> list[Token]:
        """See `ports.Operators.tokens`."""
        columns = operator_tokens.c
        query = select(operator_tokens).order_by(columns.operator, columns.made_at, columns.id)
        return [Token(**row._mapping) for row in self._connection.execute(query)]

    def mark_token(self, token_id: str, now: float) -> None:
        """See `ports.Operators.mark_token`."""
        self._connection.execute(update(operator_tokens).where(operator_tokens.c.id == token_id).values(used_at=now))

    def revoke_token(self, token_id: str, now: float) -> None:
        """See `ports.Operators.revoke_token`."""
        good = (operator_tokens.c.id == token_id, operator_tokens.c.revoked_at.is_(None))
        self._connection.execute(update(operator_tokens).where(*good).values(revoked_at=now))


class SqlApprovals:
    """Proposals, warrants and reviews in SQL."""

    _connection: Connection

    def add_proposal(self, proposal: Proposal) -> Proposal:
        """See `ports.Approvals.add_proposal`."""
        values = {name: value for name, value in _values(proposal).items() if name not in ("id", "votes")}
        number = self._connection.scalar(plain_insert(proposals).values(values).returning(proposals.c.id))
        return replace(proposal, id=int(number or 0))

    def proposal(self, proposal_id: int) -> Proposal | None:
        """See `ports.Approvals.proposal`."""
        row = self._connection.execute(select(proposals).where(proposals.c.id == proposal_id)).one_or_none()
        return None if row is None else self._proposal(row)

    def open_proposal(self, matter: Matter, object: str, proposer: str) -> Proposal | None:
        """See `ports.Approvals.open_proposal`."""
        columns = proposals.c
        query = select(proposals).where(
            columns.matter == matter,
            columns.object == object,
            columns.proposer == proposer,
            _IS_OPEN,
        )
        row = self._connection.execute(query).one_or_none()
        return None if row is None else self._proposal(row)

    def proposals(self, limit: int, before: int | None = None) -> list[Proposal]:
        """See `ports.Approvals.proposals`."""
        query = select(proposals).order_by(proposals.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(proposals.c.id < before)
        return [self._proposal(row) for row in self._connection.execute(query).all()]

    def open_proposals(self, now: float, limit: int) -> list[Proposal]:
        """See `ports.Approvals.open_proposals`."""
        query = select(proposals).where(_IS_OPEN, proposals.c.expires_at > now).order_by(proposals.c.id).limit(limit)
        return [self._proposal(row) for row in self._connection.execute(query).all()]

    def proposals_about(self, name: str) -> list[Proposal]:
        """See `ports.Approvals.proposals_about`."""
        query = select(proposals).where(proposals.c.object == name).order_by(proposals.c.id.desc())
        return [self._proposal(row) for row in self._connection.execute(query).all()]

    def save_proposal(self, proposal: Proposal) -> None:
        """See `ports.Approvals.save_proposal`."""
        state = update(proposals).where(proposals.c.id == proposal.id).values(state=proposal.state)
        self._connection.execute(state)
        self._connection.execute(delete(votes).where(votes.c.proposal_id == proposal.id))
        given = [_values(vote) | {"proposal_id": proposal.id, "place": at} for at, vote in enumerate(proposal.votes)]
        if given:
            self._connection.execute(plain_insert(votes), given)

    def set_warrant(self, rollout_id: int, lines: bytes, now: float) -> None:
        """See `ports.Approvals.set_warrant`."""
        self._connection.execute(delete(warrants).where(warrants.c.rollout_id == rollout_id))
        values = {"rollout_id": rollout_id, "lines": lines.decode("ascii"), "added_at": now}
        self._connection.execute(plain_insert(warrants), values)

    def warrant(self, rollout_id: int) -> bytes | None:
        """See `ports.Approvals.warrant`."""
        lines = self._connection.scalar(select(warrants.c.lines).where(warrants.c.rollout_id == rollout_id))
        return None if lines is None else lines.encode("ascii")

    def add_review(self, review: Review) -> Review:
        """See `ports.Approvals.add_review`."""
        values = {name: value for name, value in _values(review).items() if name != "id"}
        number = self._connection.scalar(plain_insert(reviews).values(values).returning(reviews.c.id))
        return replace(review, id=int(number or 0))

    def review(self, review_id: int) -> Review | None:
        """See `ports.Approvals.review`."""
        row = self._connection.execute(select(reviews).where(reviews.c.id == review_id)).one_or_none()
        return None if row is None else _review(row)

    def open_reviews(self) -> list[Review]:
        """See `ports.Approvals.open_reviews`."""
        query = select(reviews).where(reviews.c.closed_at.is_(None)).order_by(reviews.c.id)
        return [_review(row) for row in self._connection.execute(query)]

    def close_review(self, review: Review) -> None:
        """See `ports.Approvals.close_review`."""
        values = {"closed_by": review.closed_by, "closed_at": review.closed_at, "finding": review.finding}
        self._connection.execute(update(reviews).where(reviews.c.id == review.id).values(values))

    def _proposal(self, row: Row[Any]) -> Proposal:
        query = select(votes).where(votes.c.proposal_id == row.id).order_by(votes.c.place)
        given = tuple(
            Vote(item.actor, item.person, item.approves, item.reason, item.at)
            for item in self._connection.execute(query)
        )
        known = dict(row._mapping) | {"matter": Matter(row.matter), "state": State(row.state)}
        return Proposal(**known, votes=given)


def _operator(row: Row[Any]) -> Operator:
    return Operator(row.name, row.person, tuple(Role(word) for word in row.roles.split()), row.added_at)


def _review(row: Row[Any]) -> Review:
    return Review(**(dict(row._mapping) | {"matter": Matter(row.matter)}))


def _values(item: Operator | Token | Proposal | Vote | Review) -> dict[str, Any]:
    return {name: getattr(item, name) for name in type(item).__dataclass_fields__}
