"""Who may do what: roles and the acts that they permit, as one table.

Rules:
- An account may hold several roles; it may do what any of them permits.
- To stop is never harder than to go on: everybody who may change anything may pause and halt.
- A person is not an account: two accounts of one person are one person wherever persons are counted. A login that
  several may hold (the token file, the admin socket) is nobody's: its `person` is empty, and it never counts as one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.rollout import Command


class Role(StrEnum):
    """What an account is for."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"


class Act(StrEnum):
    """What a route does; every route names exactly one."""

    READ = "read"
    IMPORT = "import artifacts"
    RELEASE = "make releases"
    CREATE = "create rollouts"
    EDIT = "edit plans"
    START = "start rollouts"
    RESUME = "resume rollouts"
    ABORT = "abort rollouts"
    STOP = "pause and halt rollouts"
    APPROVE = "approve and reject"
    ENROL = "enrol devices"
    QUARANTINE = "quarantine devices and release them"
    MANAGE = "manage operators"
    CONNECT = "connect webhooks"
    REKEY = "replace keys"
    BREAK_GLASS = "break the glass"


A = Act

PERMITTED: dict[Role, frozenset[Act]] = {
    Role.VIEWER: frozenset({A.READ}),
    Role.OPERATOR: frozenset(
        {A.READ, A.IMPORT, A.RELEASE, A.CREATE, A.START, A.RESUME, A.ABORT, A.STOP, A.EDIT, A.QUARANTINE}
    ),
    Role.APPROVER: frozenset({A.READ, A.STOP, A.APPROVE}),
    Role.ADMIN: frozenset(
        {A.READ, A.STOP, A.APPROVE, A.ENROL, A.QUARANTINE, A.MANAGE, A.CONNECT, A.REKEY, A.BREAK_GLASS}
    ),
}
"""Every act that a role permits."""

ACT_OF: dict[Command, Act] = {
    Command.START: A.START,
    Command.PAUSE: A.STOP,
    Command.RESUME: A.RESUME,
    Command.HALT: A.STOP,
    Command.ABORT: A.ABORT,
    Command.RETRY: A.RESUME,
    Command.ADVANCE: A.RESUME,
    Command.SKIP: A.RESUME,
}
"""The act that each command on a rollout is."""

SHARED = frozenset({Role.OPERATOR, Role.ADMIN})
"""Roles of the logins that belong to no one person: they can do everything but approve."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling.

    Attributes:
        name: the account, as the record shows it.
        person: the person behind it; empty for a login that several may hold.
        roles: what the account is for.
        local: whether the call came over the admin socket.
    """

    name: str
    person: str
    roles: frozenset[Role]
    local: bool = False

    def may(self, act: Act) -> bool:
        """Say whether any of the roles permits an act."""
        return may(self.roles, act)


def may(roles: Iterable[Role], act: Act) -> bool:
    """Say whether any of these roles permits an act."""
    return any(act in PERMITTED[role] for role in roles)


def only_reads(roles: Iterable[Role]) -> bool:
    """Say whether these roles together permit nothing but to read."""
    return all(PERMITTED[role] <= {Act.READ} for role in roles)


def permitting(*acts: Act) -> list[Role]:
    """Return the roles that permit any of these acts."""
    return [role for role in Role if PERMITTED[role].intersection(acts)]


def holders(act: Act) -> str:
    """Return the roles that permit an act, as words for a person."""
    return " or ".join(permitting(act))
