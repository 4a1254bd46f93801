"""Lets an act go ahead, or makes a proposal of it that other persons decide on.

Rules:
- Everything here runs inside the transaction that does the act: an approval is used up by the very commit that uses it.
- An act that must wait writes its proposal and returns it; the caller raises once that is on disk.
- Whatever makes a rollout count its cohort is a start, also a resume: what was approved is what it may reach.
- Approvals are asked for once two persons may give them, or always (`Rules.always`).
- Rollouts of one image count together, whatever their releases are called: a large one that is split into small ones
  needs what it would need whole.
- An emergency is started with its warrant or not at all; no approval and no broken glass replaces it.
- Breaking the glass needs an admin at the admin socket, and leaves a review that another person has to close. Proposals
  of the same act are void then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

from orchestrator.core.model import Phase, Release, Rollout, Urgency
from orchestrator.core.rollout import FINISHED, Command, Decision
from orchestrator.core.trust import approval
from orchestrator.core.trust.approval import ENOUGH_PERSONS, Matter, Need, Proposal, State, Vote
from orchestrator.core.trust.roles import Act, Caller, may
from orchestrator.core.update import RESOLVED
from orchestrator.engine.rollouts.conductor import Conductor
from orchestrator.engine.rollouts.releases import artifacts_of, release_of
from orchestrator.engine.trust import warrants
from orchestrator.engine.trust.keyring import Keyring
from orchestrator.errors import ConflictError, ForbiddenError, NotFoundError
from orchestrator.ports import Review, Store, Tx
from orchestrator.verifier import BEAT

_BEGUN = frozenset(Phase) - {Phase.DRAFT}
HURRIES = frozenset({Command.ADVANCE, Command.SKIP})
"""Commands that let a stage pass without its evidence."""


@dataclass(frozen=True, slots=True)
class Rules:
    """When approvals are asked for.

    Attributes:
        always: also while fewer than two persons may approve; then only the admin socket can break the glass.
        approve_above: a start that reaches a larger share of the fleet needs an approval; 1 for never.
        lifetime_s: how long a proposal can be approved and used.
    """

    always: bool = False
    approve_above: float = 1.0
    lifetime_s: float = 3_600.0


@dataclass(frozen=True, slots=True)
class Wish:
    """Who wants an act done, and why.

    Attributes:
        caller: who.
        reason: why; shown to those who approve.
        break_glass: why there is no time for approvals; empty to wait for them.
    """

    caller: Caller
    reason: str = ""
    break_glass: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """An act that needs approvals.

    Attributes:
        matter: what it is.
        object: what it is done to.
        need: how many approvals, and why.
        digest: hash of exactly what is approved.
        text: what is approved, for a person.
    """

    matter: Matter
    object: str
    need: Need
    digest: str
    text: str


def approvers(tx: Tx) -> set[str]:
    """Return the persons who may approve."""
    return {item.person for item in tx.operators() if may(item.roles, Act.APPROVE)}


def are_asked(tx: Tx, rules: Rules) -> bool:
    """Say whether approvals are asked for."""
    return rules.always or len(approvers(tx)) >= ENOUGH_PERSONS


def admit(tx: Tx, ask: Ask, wish: Wish, rules: Rules, now: float) -> Proposal | None:
    """Let an act go ahead that needs approvals, and use them up; else store what waits for them.

    Returns:
        None if the act may be done in this transaction, else the proposal that others must approve.

    Raises:
        ForbiddenError: the glass cannot be broken from here.
    """
    if wish.break_glass.strip():
        _break_glass(tx, ask, wish, now)
        return None
    caller = wish.caller
    found = tx.open_proposal(ask.matter, ask.object, caller.name)
    if found is not None:
        # An account that was removed and added anew may be another person's: its approvals are not inherited.
        wanted = ask.digest if found.person == caller.person else ""
        before, found = found.state, approval.claim(found, wanted, approvers(tx), now)
        tx.save_proposal(found)
        if found.state is not before:
            _note(tx, caller.name, found, now)
        if found.state is State.USED:
            return None
        if found.state in approval.OPEN:
            return found
    made = tx.add_proposal(
        Proposal(
            id=0,
            matter=ask.matter,
            object=ask.object,
            digest=ask.digest,
            text=f"{ask.text}: {ask.need.because}",
            proposer=caller.name,
            person=caller.person,
            reason=wish.reason,
            made_at=now,
            expires_at=now + rules.lifetime_s,
            needed=approval.needed(ask.need, caller.person, len(approvers(tx) - {caller.person})),
        )
    )
    _note(tx, caller.name, made, now)
    return made


def vote(tx: Tx, proposal_id: int, caller: Caller, reason: str, now: float, *, approves: bool) -> Proposal:
    """Store what a person says to a proposal.

    Raises:
        NotFoundError: there is no such proposal.
        ForbiddenError: this person may not approve it.
        ConflictError: it is not open any more.
    """
    found = tx.proposal(proposal_id)
    if found is None:
        raise NotFoundError(f"there is no proposal {proposal_id}; see `ota approvals`")
    voted = approval.vote(found, Vote(caller.name, caller.person, approves, reason, now))
    tx.save_proposal(voted)
    said = {"approves": approves, "person": caller.person, "reason": reason, "state": voted.state}
    tx.audit(caller.name, "approval.vote", str(proposal_id), said, now)
    return voted


def close(tx: Tx, review_id: int, caller: Caller, finding: str, now: float) -> Review:
    """Close the review of what was done without approvals.

    Raises:
        NotFoundError: there is no such review.
        ConflictError: it is closed already.
        ForbiddenError: it is the caller's own, or the caller is nobody in particular.
    """
    found = tx.review(review_id)
    if found is None:
        raise NotFoundError(f"there is no review {review_id}; see `ota approvals`")
    if found.closed_at is not None:
        raise ConflictError(f"review {review_id} was closed by {found.closed_by}")
    if not caller.person or caller.person == found.person:
        raise ForbiddenError("a review is closed by another person, with a token of their own", code="own_review")
    closed = replace(found, closed_by=caller.person, closed_at=now, finding=finding)
    tx.close_review(closed)
    tx.audit(caller.name, "review.closed", str(review_id), {"person": caller.person, "finding": finding}, now)
    return closed


async def command(
    conductor: Conductor,
    store: Store,
    keyring: Keyring,
    rules: Rules,
    now: Callable[[], float],
    name: str,
    what: Command,
    wish: Wish,
    unmoved: Callable[[Tx, Rollout], None] | None = None,
) -> Decision:
    """Carry out what a person wants of a rollout, if it needs no approval or has what it needs.

    Args:
        conductor: moves rollouts.
        store: where they are.
        keyring: which keys devices hold.
        rules: when approvals are asked for.
        now: the clock.
        name: name of the rollout.
        what: the command.
        wish: who wants it, and why.
        unmoved: raises in the same transaction if the rollout is not as that person saw it; None asks nothing.

    Raises:
        ApprovalNeededError: others must approve it first.
        NotFoundError: there is no such rollout.
        ConflictError: its phase does not allow it, or it moves devices while nobody signs beats (`beat_needed`).
        RequestError: a reason is needed.
        ForbiddenError: the glass cannot be broken from here.
        TrustError: the warrant of an emergency is not good any more.
    """
    audience = None
    if await store.read(lambda tx: _is_counted(tx, name, what, rules)):
        audience = await conductor.audience(name)

    def gate(tx: Tx, rollout: Rollout) -> Proposal | None:
        if unmoved is not None:
            unmoved(tx, rollout)
        if _begins(rollout, what) and rollout.plan.urgency is Urgency.EMERGENCY:
            warrants.require_for_start(tx, rollout, keyring.keyset, audience, now())
        if _begins(rollout, what) and rollout.moves and (faults := keyring.faults(BEAT)):
            text = "devices keep other endpoints only after a beat that they hear there, and nobody signs one: "
            raise ConflictError(text + " ".join(faults), code="beat_needed")
        ask = wanted(tx, rollout, what, audience, rules) if are_asked(tx, rules) else None
        return None if ask is None else admit(tx, ask, wish, rules, now())

    return await conductor.command(name, what, actor=wish.caller.name, reason=wish.reason, admit=gate)


def wanted(tx: Tx, rollout: Rollout, what: Command, audience: int | None, rules: Rules) -> Ask | None:
    """Return what a command on a rollout asks approvals for, None if it needs none.

    Args:
        tx: the transaction that would carry it out.
        rollout: the rollout as it stands.
        what: the command.
        audience: devices that it would take where it begins; None if they were not counted, which stands for all.
        rules: when approvals are asked for.
    """
    release = release_of(tx, rollout)
    fleet = tx.fleet_size()
    reached = fleet if audience is None or rollout.plan.open_cohort else audience  # an open cohort has no bound
    needs = [approval.for_resume(rollout.phase)] if what is Command.RESUME else []
    if what in HURRIES:
        needs.append(approval.for_hurry(rollout.stage))
    if _begins(rollout, what):
        needs.append(
            approval.for_start(
                rollout.plan.urgency,
                downgrade=_is_older(tx, release),
                audience=reached,
                fleet=fleet,
                approve_above=rules.approve_above,
                beside=_reached_beside(tx, rollout, fleet),
            )
        )
    need = max((item for item in needs if item), key=lambda item: item.approvals, default=None)
    if need is None:
        return None
    name = rollout.plan.name
    devices = rollout.cohort_size if rollout.cohort_size is not None else reached
    statements = [hashlib.sha256(item.statement.encode()).hexdigest() for item in artifacts_of(tx, release)]
    stands = (rollout.version, rollout.stage, rollout.moved_at)  # what persons do within a phase moves the time alone
    bound = approval.digest(what, name, asdict(rollout.plan), *stands, devices, statements)
    text = f"{what} of {name} (release {release.name}, {devices} of {fleet} devices)"
    return Ask(Matter(what), name, need, bound, text)


def _begins(rollout: Rollout, what: Command) -> bool:
    """Say whether a command makes a rollout count its cohort, anew if it was paused or halted while it did."""
    return what is Command.START or (what is Command.RESUME and rollout.cohort_size is None)


def _is_counted(tx: Tx, name: str, what: Command, rules: Rules) -> bool:
    """Say whether it matters how many devices a command would take."""
    found = tx.rollout_named(name)
    if found is None or not _begins(found, what):
        return False
    return found.plan.urgency is Urgency.EMERGENCY or are_asked(tx, rules)


def _break_glass(tx: Tx, ask: Ask, wish: Wish, now: float) -> None:
    caller = wish.caller
    if not (caller.local and caller.may(Act.BREAK_GLASS)):
        text = (
            "the glass is broken by an admin at the admin socket alone; use `ota --socket PATH` on the daemon's machine"
        )
        raise ForbiddenError(text, code="not_local")
    text = f"{ask.text}: {ask.need.because}"
    made = tx.add_review(Review(0, ask.matter, ask.object, text, caller.name, caller.person, wish.break_glass, now))
    said = {"review": made.id, "text": text, "digest": ask.digest, "reason": wish.break_glass}
    tx.audit(caller.name, "glass.broken", f"{ask.matter} {ask.object}", said, now)
    for proposal in tx.proposals_about(ask.object):  # whoever waited for approvals of the same waits for nothing
        if proposal.matter is ask.matter and proposal.state in approval.OPEN:
            overtaken = approval.overtake(proposal, now)
            tx.save_proposal(overtaken)
            _note(tx, caller.name, overtaken, now)


def _note(tx: Tx, actor: str, proposal: Proposal, now: float) -> None:
    said = {"proposal": proposal.id, "text": proposal.text, "digest": proposal.digest, "needed": proposal.needed}
    tx.audit(actor, f"approval.{proposal.state}", f"{proposal.matter} {proposal.object}", said, now)


def _reached_beside(tx: Tx, rollout: Rollout, fleet: int) -> int:
    """Return how many devices other rollouts of the same image take or took; one that is not counted takes all.

    A finished one counts by the devices that installed or failed, so that no series of small ones reaches the fleet.
    """
    release = release_of(tx, rollout)
    alike = [item.name for item in _beside(tx, release) if item.rel == release.rel]
    beside = [item for item in tx.rollouts(_BEGUN - FINISHED, releases=alike) if item.id != rollout.id]
    return sum(_reach(item, fleet) for item in beside) + tx.took(alike, FINISHED, RESOLVED)


def _reach(rollout: Rollout, fleet: int) -> int:
    return fleet if rollout.plan.open_cohort or rollout.cohort_size is None else rollout.cohort_size


def _is_older(tx: Tx, release: Release) -> bool:
    """Say whether a rollout brought a newer release to a component and hardware of this one."""
    newer = [item.name for item in _beside(tx, release) if item.rel > release.rel]
    return tx.count_rollouts(newer, _BEGUN) > 0


def _beside(tx: Tx, release: Release) -> list[Release]:
    """Return the releases that bring something to a component and hardware of this one, itself included."""
    places = {item.sha256: {(item.component, model) for model in item.hardware} for item in tx.artifacts()}
    ours = _places(places, release)
    return [item for item in tx.releases() if ours & _places(places, item)]


def _places(places: Mapping[str, set[tuple[str, str]]], release: Release) -> set[tuple[str, str]]:
    return set().union(*(places[sha256] for sha256 in release.artifacts))
