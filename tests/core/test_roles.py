"""Who may do what."""

from __future__ import annotations

from orchestrator.core.rollout import Command
from orchestrator.core.trust.roles import ACT_OF, PERMITTED, SHARED, Act, Caller, Role, holders, may, only_reads


def test_every_role_reads_and_every_act_is_somebodys() -> None:
    assert set(PERMITTED) == set(Role)
    assert all(Act.READ in acts for acts in PERMITTED.values())
    assert frozenset().union(*PERMITTED.values()) == frozenset(Act)


def test_whoever_may_change_anything_may_stop() -> None:
    for acts in PERMITTED.values():
        assert (Act.STOP in acts) == (acts != {Act.READ})


def test_no_role_both_starts_and_approves() -> None:
    for acts in PERMITTED.values():
        assert not {Act.START, Act.RESUME} & acts or Act.APPROVE not in acts


def test_who_manages_accounts_starts_nothing() -> None:
    assert not {Act.CREATE, Act.START, Act.RESUME, Act.ABORT} & PERMITTED[Role.ADMIN]


def test_every_command_is_an_act_and_the_stops_are_one() -> None:
    assert set(ACT_OF) == set(Command)
    assert {command for command, act in ACT_OF.items() if act is Act.STOP} == {Command.PAUSE, Command.HALT}


def test_a_shared_login_is_nobody_and_may_do_everything_else() -> None:
    assert all(may(SHARED, act) for act in Act)
    assert Caller("operator", "", SHARED).person == ""


def test_roles_add_up() -> None:
    both = Caller("ann", "ann", frozenset({Role.VIEWER, Role.APPROVER}))
    assert both.may(Act.APPROVE)
    assert not both.may(Act.START)
    assert not Caller("x", "x", frozenset()).may(Act.READ)


def test_only_a_viewer_only_reads() -> None:
    assert [role for role in Role if only_reads((role,))] == [Role.VIEWER]
    assert only_reads(())
    assert not only_reads((Role.VIEWER, Role.APPROVER))


def test_holders_are_named() -> None:
    assert holders(Act.APPROVE) == "approver or admin"
    assert holders(Act.MANAGE) == "admin"
