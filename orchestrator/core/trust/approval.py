"""Two persons: what needs an approval, and the life of a proposal as a table.

Rules:
- Persons are counted, never accounts, and never the proposer's own person.
- A proposer whose person is not known (a shared login) needs one approval more: one of those who approve may be him.
- A proposal binds exactly what was approved, by its digest. Whatever changed since makes it void.
- A vote counts only as long as its person may approve; a used, rejected, expired or void proposal stays what it is.
- To pause, to halt and to abort never needs an approval.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from orchestrator.core.model import Phase, Urgency
from orchestrator.errors import ConflictError, ForbiddenError

ENOUGH_PERSONS = 2
"""Persons who may approve from whom on approvals are asked for by themselves."""

EMERGENCY_APPROVALS = 2
"""Approvals that an emergency needs, the proposer not counted."""


class Matter(StrEnum):
    """What is proposed."""

    START = "start"
    RESUME = "resume"
    ADVANCE = "advance"
    SKIP = "skip"
    EDIT = "edit"
    KEYSET = "keyset"
    OPERATOR = "operator"
    TOKEN = "token"
    REMOVAL = "removal"


class State(StrEnum):
    """Where a proposal stands."""

    PROPOSED = "proposed"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    VOID = "void"
    USED = "used"


class Turn(StrEnum):
    """What can happen to a proposal."""

    APPROVE = "approve"
    REJECT = "reject"
    LAPSE = "lapse"
    CHANGE = "change"
    DOUBT = "doubt"
    USE = "use"


S = State
T = Turn

TABLE: dict[State, dict[Turn, State]] = {
    S.PROPOSED: {T.APPROVE: S.APPROVED, T.REJECT: S.REJECTED, T.LAPSE: S.EXPIRED, T.CHANGE: S.VOID},
    S.APPROVED: {T.DOUBT: S.PROPOSED, T.REJECT: S.REJECTED, T.LAPSE: S.EXPIRED, T.CHANGE: S.VOID, T.USE: S.USED},
    S.REJECTED: {},
    S.EXPIRED: {},
    S.VOID: {},
    S.USED: {},
}
"""Every legal turn. `APPROVE` is the vote that makes enough of them; `DOUBT` is the loss of one that counted."""

OPEN = frozenset({S.PROPOSED, S.APPROVED})
"""States of a proposal that can still be used."""


@dataclass(frozen=True, slots=True)
class Need:
    """Why an act needs approvals, and how many.

    Attributes:
        approvals: persons who must approve, the proposer not counted.
        because: a clause for a person.
    """

    approvals: int
    because: str


@dataclass(frozen=True, slots=True)
class Vote:
    """What one person said to a proposal.

    Attributes:
        actor: the account.
        person: the person behind it.
        approves: whether it is for the proposal.
        reason: why.
        at: when.
    """

    actor: str
    person: str
    approves: bool
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Proposal:
    """An act that waits for approvals.

    Attributes:
        id: number, 0 until it is stored.
        matter: what is proposed.
        object: what it is done to, such as the name of a rollout.
        digest: hash of exactly what is approved.
        text: what is approved, and why it needs that, for the persons who decide.
        proposer: the account that proposed it.
        person: the person behind that account; empty if it is shared.
        reason: why the proposer wants it.
        made_at: when it was proposed.
        expires_at: when it can be used no more.
        needed: persons who must approve.
        state: where it stands.
        votes: what was said, oldest first.
    """

    id: int
    matter: Matter
    object: str
    digest: str
    text: str
    proposer: str
    person: str
    reason: str
    made_at: float
    expires_at: float
    needed: int
    state: State = State.PROPOSED
    votes: tuple[Vote, ...] = ()


class ApprovalNeededError(ConflictError):
    """The act waits for other persons; `proposal` is what they decide on.

    Args:
        proposal: the stored proposal.
    """

    default_code = "approval_needed"

    def __init__(self, proposal: Proposal) -> None:
        missing = proposal.needed - sum(vote.approves for vote in proposal.votes)
        persons = "another person" if missing == 1 else f"{missing} other persons"
        super().__init__(
            f"{proposal.text}. {persons.capitalize()} must approve it with "
            f"`ota approve {proposal.id} --reason WHY`; then give this command once more"
        )
        self.proposal = proposal


def for_start(
    urgency: Urgency, *, downgrade: bool, audience: int, fleet: int, approve_above: float = 1.0, beside: int = 0
) -> Need | None:
    """Return why starting a rollout needs approvals, None if it needs none.

    Args:
        urgency: of its plan.
        downgrade: whether it brings an older release than devices were given before.
        audience: devices that it would take now.
        fleet: registered devices.
        approve_above: largest share of the fleet that needs no approval; 1 for any.
        beside: devices that other open rollouts of the same release take; what is split counts as one.
    """
    if urgency is Urgency.EMERGENCY:
        return Need(EMERGENCY_APPROVALS, "it is an emergency")
    if downgrade:
        return Need(1, "it brings an older release than an earlier rollout did")
    reached = min(audience + beside, fleet)
    if fleet and reached > approve_above * fleet:
        with_others = "together with the other rollouts of its release " if beside else ""
        share = f"{reached / fleet:.0%} of the fleet"
        return Need(1, f"{with_others}it reaches {share}, and {approve_above:.0%} need no approval")
    return None


def for_resume(phase: Phase) -> Need | None:
    """Return why resuming from a phase needs an approval: beyond a halt and an undecided gate a person overrides."""
    if phase in (Phase.HALTED, Phase.INCONCLUSIVE):
        return Need(1, f"it is {phase}, and going on overrides the gate")
    return None


def for_hurry(stage: int) -> Need:
    """Return why passing a stage at once needs an approval: a person's word takes the place of its evidence.

    Args:
        stage: index of the stage.
    """
    return Need(1, f"stage {stage + 1} would pass on a person's word, without the rest of its evidence")


def for_edit(loosened: Sequence[str]) -> Need | None:
    """Return why an edit of a plan needs an approval, None if it loosens nothing.

    Args:
        loosened: what it loosens, as the file of a plan calls it.
    """
    return Need(1, f"it loosens {', '.join(loosened)}") if loosened else None


def digest(*parts: object) -> str:
    """Return the hash of what is approved; `parts` are texts, numbers, and lists and sets of them."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=sorted)  # a set has no order of its own
    return hashlib.sha256(text.encode()).hexdigest()


def needed(need: Need, person: str, others: int) -> int:
    """Return how many persons must approve what `person`, or a shared login (""), proposes.

    No more are asked for than there are, so that two persons are not locked out of their emergencies; but always one
    other person, and two where the proposer may be one of them.

    Args:
        need: why the act needs approvals.
        person: who proposes it.
        others: persons who may approve, the proposer not counted.
    """
    shared = 0 if person else 1
    return min(need.approvals + shared, max(others, 1 + shared))


def vote(proposal: Proposal, given: Vote) -> Proposal:
    """Return the proposal after a vote, which takes the place of what the account said before.

    Raises:
        ForbiddenError: the vote is for it, and of the proposer's person, or of nobody's.
        ConflictError: the proposal is not open any more, or the person has approved it already.
    """
    found = lapsed(proposal, given.at)
    if found.state not in OPEN or (given.approves and found.state is S.APPROVED):
        raise ConflictError(f"proposal {found.id} is {found.state} already", code=f"proposal_{found.state}")
    votes = (*(item for item in found.votes if item.actor != given.actor), given)
    if not given.approves:
        return turn(replace(found, votes=votes), T.REJECT)
    if not given.person:
        text = f"{given.actor} is a login that several may hold; approve with the token of a person"
        raise ForbiddenError(text, code="nobody")
    if given.person == found.person:
        raise ForbiddenError("the person who proposed cannot approve; ask another one", code="own_proposal")
    if given.person in _for_it(found):
        raise ConflictError(f"{given.person} has approved this already; another person is needed", code="same_person")
    voted = replace(found, votes=votes)
    return turn(voted, T.APPROVE) if len(_for_it(voted)) >= voted.needed else voted


def claim(proposal: Proposal, wanted: str, approvers: Iterable[str], now: float) -> Proposal:
    """Return the proposal after its proposer tried to use it: used only if it is approved, unchanged and in time.

    Args:
        proposal: an open proposal.
        wanted: digest of what would be done now.
        approvers: persons who may approve now; votes of others count no more.
        now: present time.
    """
    found = lapsed(proposal, now)
    if found.state not in OPEN:
        return found
    if found.digest != wanted:
        return turn(found, T.CHANGE)
    if found.state is S.PROPOSED:
        return found
    entitled = set(approvers)
    kept = replace(found, votes=tuple(item for item in found.votes if item.person in entitled))
    return turn(found, T.USE) if len(_for_it(kept)) >= found.needed else turn(kept, T.DOUBT)


def overtake(proposal: Proposal, now: float) -> Proposal:
    """Return an open proposal after its act was done without it."""
    found = lapsed(proposal, now)
    return turn(found, T.CHANGE) if found.state in OPEN else found


def lapsed(proposal: Proposal, now: float) -> Proposal:
    """Return the proposal as it is at a time: an open one expires."""
    return turn(proposal, T.LAPSE) if proposal.state in OPEN and now >= proposal.expires_at else proposal


def turn(proposal: Proposal, what: Turn) -> Proposal:
    """Return the proposal after a turn that the table allows."""
    return replace(proposal, state=TABLE[proposal.state][what])


def _for_it(proposal: Proposal) -> set[str]:
    return {item.person for item in proposal.votes if item.approves} - {proposal.person, ""}
