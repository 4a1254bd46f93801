"""What must hold after every single commit, judged from the file alone.

Rules:
- Each commit is compared with the one before; what it may not do is a `BrokenError`.
- Limits are counted here once more from the plan; the functions that the engine asks are not asked.
- What a commit did not change was judged when it was written; `audit_holds` counts all of it anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from orchestrator.core.model import RELAPSED, RETRIED, Phase, SizeKind, TallyKey, Update, UpdateState
from orchestrator.core.pace.ceiling import Ceiling
from orchestrator.core.pace.window import Windows
from orchestrator.core.trust.audit import Entry, Examination, Head
from tests.campaigns import evidence
from tests.campaigns.devices import SICK, Device, claims_of
from tests.campaigns.reading import FAILED, FLYING, INSTALL, BrokenError, Commit, Parcel, Reader, State, places

HOUR_S = 3600.0
DAY_S = 86_400
FIRST_SLOTS = 10
LARGEST_EXTENSION = 3
STOPPED = frozenset(Phase) - {Phase.RUNNING}
OVER = frozenset({Phase.DONE, Phase.ABORTED})
QUEUED = ("planned", "sealed")
OF_SILENCE = frozenset({UpdateState.UNREACHED, UpdateState.EXPIRED, UpdateState.LOST})
"""States that an update comes to when nothing was heard of its device."""

_BEFORE_REBOOT = (UpdateState.OFFERED, UpdateState.ACCEPTED, UpdateState.DOWNLOADED)
_BAD = frozenset({*FAILED, RELAPSED, RETRIED})


class Promises:
    """Watches a file, and what is published.

    Args:
        path: the database.
        ceiling: over all rollouts.
        now: the clock.
        batch: triggers that may be on the wire when a rollout is halted.
        devices: what each has said.
        linked: says whether there is a link to the devices.
    """

    def __init__(
        self,
        path: Path,
        ceiling: Ceiling,
        now: Callable[[], float],
        batch: int,
        devices: Mapping[str, Device],
        linked: Callable[[], bool],
    ) -> None:
        self._reader = Reader(path)
        self._ceiling = ceiling
        self._now = now
        self._batch = batch
        self._devices = devices
        self._linked = linked
        self._offers: list[tuple[float, int]] = []
        self._failed: set[int] = set()
        self._flying: Counter[str] = Counter()
        self._recount: dict[int, Counter[TallyKey]] = {}
        self._opened: Counter[tuple[int, int]] = Counter()
        self._pairs: set[tuple[str, int]] = set()
        self._retries: Counter[int] = Counter()
        self._tokens: dict[int, bytes] = {}
        self._sealed = 0
        self._broken: BrokenError | None = None
        self._late: Counter[tuple[int, int]] = Counter()
        self._hours: dict[int, set[Windows]] = {}

    @property
    def state(self) -> State:
        """What the file held when it was last looked at."""
        return self._reader.state

    def close(self) -> None:
        self._reader.close()

    def still_hold(self) -> None:
        """Raise what was broken, also where the engine went on although it was told."""
        if self._broken is not None:
            raise self._broken

    def look(self) -> None:
        """Judge what the last commit did."""
        commit = self._reader.look()
        if commit is None:
            return
        self._require(commit.before.reports <= commit.after.reports, "reports vanished")
        self._tallies_are_recounts(commit)
        self._one_update_in_flight_per_device(commit)
        self._phases_follow(commit)
        self._stages_hold_no_more_than_their_targets(commit)
        self._stages_pass_on_evidence(commit)
        self._nothing_waits_for_what_is_stopped(commit)
        self._claims_are_current(commit)
        self._numbers_rise(commit)
        self._offers_keep_within_limits(commit)
        self._offers_go_to_who_may_have_them(commit)
        self._failures_stay(commit)
        self._silence_is_judged_while_devices_can_be_heard(commit)
        self._attempts_are_those_of_the_plan(commit)
        self._the_sick_are_not_healthy(commit)

    def published(self, payload: bytes, *, claimed_before: bool) -> None:
        """Judge what reached the broker.

        Args:
            payload: the bundle.
            claimed_before: whether somebody stopped a rollout since the engine began to publish: what it had claimed
                by then may still follow.
        """
        claims = claims_of(payload)
        seq = claims["seq"]
        self._require(self._tokens.setdefault(seq, payload) == payload, f"two tokens have the number {seq}")
        rollout = self.state.rollouts[int(claims["cid"])]
        if claims["act"] == "cancel":
            return
        self._require(
            any(_is_open(windows, claims["exp"] - 1.0) for windows in self._hours[rollout.id]),
            f"a trigger is good until {claims['exp']}, when hours are closed",
        )
        if rollout.phase in STOPPED:
            key = (rollout.id, rollout.version)
            self._late[key] += 1
            self._require(claimed_before, f"published after {rollout.phase}")
            self._require(self._late[key] <= self._batch, f"published more than a batch after {rollout.phase}")

    def answered(self, payload: bytes, now: float) -> None:
        """Judge what a poll got."""
        claims = claims_of(payload)
        rollout = self.state.rollouts[int(claims["cid"])]
        update = self.state.updates[int(claims["att"].split(".")[0])]
        if claims["act"] == "cancel" or update.begun:
            return
        recalled = rollout.phase in (Phase.HALTED, Phase.ABORTED) and update.state in _BEFORE_REBOOT
        self._require(not recalled, f"a poll got a trigger of a rollout that is {rollout.phase}")
        if update.state is UpdateState.OFFERED:
            self._require(_is_open(rollout.plan.windows, now), "a poll got a trigger while hours are closed")

    def judged(self, rollout_id: int) -> None:
        """A rollout that the engine has judged just now does not go on against its evidence."""
        rollout = self.state.rollouts[rollout_id]
        if rollout.phase in (Phase.RUNNING, Phase.PAUSED, Phase.INCONCLUSIVE) and rollout.stages:
            alarm = evidence.alarm(rollout, self.state.tallies.get(rollout_id, {}))
            self._require(alarm is None, f"it is {rollout.phase} although {alarm}")

    def clock_was_set(self) -> None:
        """A clock that is set back forgets no offer: those of the future count as of now."""
        now = self._now()
        self._offers = [(min(at, now), count) for at, count in self._offers]

    def audit_holds(self) -> None:
        """Examine the audit log against the deliveries, and count everything anew."""
        examination = Examination((), self._sealed_between)
        file = self._reader.file
        for row in file.execute("SELECT n, at, actor, action, object, detail, prev, hash FROM audit ORDER BY n"):
            examination.look(Entry(*row))
        head = file.execute("SELECT n, hash FROM audit_head").fetchone()
        found = examination.finish(Head(*head) if head else None, to_the_end=True)
        self._require(not found.faults, f"the audit log is broken: {found.faults}")
        recount: dict[int, Counter[TallyKey]] = {}
        for item in self.state.updates.values():
            recount.setdefault(item.rollout_id, Counter()).update(places(item))
        self._require(self.state.tallies == recount, f"tallies are no recount: {self.state.tallies} but {recount}")

    def has_lines(self, named: set[tuple[int, int, str, int]]) -> None:
        """All these accepted reports are on record: update, attempt, boot and number of each."""
        there = set(self._reader.file.execute("SELECT update_id, attempt, boot, n FROM reports"))
        self._require(named <= there, f"accepted reports have no line: {sorted(named - there)[:3]}")

    def nothing_is_left_lying(self) -> None:
        """Nothing that should have gone out lies about when all is quiet."""
        push = set(self._reader.column("SELECT id FROM deliveries WHERE push"))
        for parcel in self.state.parcels.values():
            rollout = self.state.rollouts[parcel.rollout_id]
            current = parcel.kind == "cancel" or parcel.rollout_version == rollout.version
            waits = parcel.id in push and ((current and parcel.state in QUEUED) or parcel.state == "claimed")
            self._require(not waits, f"all is quiet, but a delivery waits: {parcel}")

    def next_deadline(self) -> float | None:
        """Return when silence will be judged next."""
        times = [item.deadline_at for item in self.state.updates.values() if item.deadline_at is not None]
        return min(times, default=None)

    def _tallies_are_recounts(self, commit: Commit) -> None:
        for update_id, old in commit.updates.items():
            new = commit.after.updates[update_id]
            counted = self._recount.setdefault(new.rollout_id, Counter())
            counted.subtract(() if old is None else places(old))
            counted.update(places(new))
        for rollout_id, counted in self._recount.items():
            found = commit.after.tallies.get(rollout_id, {})
            wanted = {key: count for key, count in counted.items() if count}
            self._require(found == wanted, f"tallies are no recount: {found} but {wanted}")

    def _one_update_in_flight_per_device(self, commit: Commit) -> None:
        touched = set()
        for update_id, old in commit.updates.items():
            new = commit.after.updates[update_id]
            self._flying[new.device_id] += (new.state in FLYING) - (old is not None and old.state in FLYING)
            touched.add(new.device_id)
            if old is None:
                pair = (new.device_id, new.rollout_id)
                self._require(pair not in self._pairs, f"two updates of one device in one rollout: {pair}")
                self._pairs.add(pair)
        for name in touched:
            self._require(self._flying[name] <= 1, f"two updates of {name} are in flight")

    def _phases_follow(self, commit: Commit) -> None:
        for rollout_id, old in commit.rollouts.items():
            new = commit.after.rollouts[rollout_id]
            self._hours.setdefault(rollout_id, set()).add(new.plan.windows)  # an edit leaves what is sealed good
            if old is None:
                continue
            self._require(old.phase not in OVER or new.phase is old.phase, f"{old.phase} became {new.phase}")
            self._require(new.phase is old.phase or new.version > old.version, "a phase changed under one version")
            self._require(new.epoch >= old.epoch and new.stage >= old.stage, "a rollout went back")
            self._require(new.plan_version >= old.plan_version, "a plan went back")
            edited = new.plan_version > old.plan_version
            self._require(edited or new.plan == old.plan, "a plan changed under one version")
            if old.phase is Phase.HALTED and new.phase is Phase.RUNNING:
                self._require(new.epoch > old.epoch, "it goes on after a halt in the same epoch")
            if old.phase is not new.phase is Phase.RUNNING and old.phase is not Phase.PREPARING:
                self._require(new.reason.code == "operator_resume", f"it runs again by {new.reason}")

    def _stages_hold_no_more_than_their_targets(self, commit: Commit) -> None:
        grown = set()
        for update_id, old in commit.updates.items():
            if old is None:
                new = commit.after.updates[update_id]
                place = (new.rollout_id, new.stage)
                self._opened[place] += 1
                grown.add(place)
        for rollout_id in commit.rollouts:
            grown |= {place for place in self._opened if place[0] == rollout_id}
        for rollout_id, at in grown:
            rollout, count = commit.after.rollouts[rollout_id], self._opened[rollout_id, at]
            stage = rollout.stages[at]
            self._require(count <= stage.target, f"stage {at} took {count} devices of {stage.target}")
            if rollout.plan.stages[at].kind is not SizeKind.REST:
                self._require(stage.target <= LARGEST_EXTENSION * stage.base, f"stage {at} was extended too far")

    def _stages_pass_on_evidence(self, commit: Commit) -> None:
        for rollout_id, old in commit.rollouts.items():
            new = commit.after.rollouts[rollout_id]
            ended = new.phase is Phase.DONE and old is not None and old.phase is not Phase.DONE
            if old is None or not (new.stage > old.stage or ended):
                continue
            self._require(self._linked(), "a stage passed while nobody could be heard")
            self._require(not commit.before.outage, "a stage passed in an outage")
            if new.stages[old.stage].target == 0:
                continue
            mine = [item for item in commit.after.updates.values() if item.rollout_id == rollout_id]
            query = "SELECT asked_at FROM gate_answers WHERE rollout_id = ? AND stage = ? AND verdict = 'pass'"
            said = self._reader.column(query, rollout_id, old.stage)
            tally = commit.after.tallies.get(rollout_id, {})
            why = evidence.too_soon(old.stage, new, mine, tally, max(said, default=None))
            self._require(why is None, f"stage {old.stage} passed although {why}: {new}")

    def _nothing_waits_for_what_is_stopped(self, commit: Commit) -> None:
        after = commit.after
        stopped = {rollout_id for rollout_id in commit.rollouts if after.rollouts[rollout_id].phase in STOPPED}
        looked: Collection[int] = after.parcels if stopped else commit.parcels
        for parcel in (after.parcels[parcel_id] for parcel_id in looked):
            if parcel.kind == INSTALL and parcel.state in QUEUED:
                phase = after.rollouts[parcel.rollout_id].phase
                self._require(phase not in STOPPED, f"trigger {parcel.id} is queued for a rollout that does not run")
        for rollout_id in stopped:
            new, old = after.rollouts[rollout_id], commit.rollouts[rollout_id]
            if old is None or new.phase is old.phase or new.phase not in (Phase.HALTED, Phase.ABORTED):
                continue
            left = [i for i in after.updates.values() if i.rollout_id == rollout_id and i.state in _BEFORE_REBOOT]
            self._require(not left, f"{new.phase} recalls not everybody: {left[:2]}")
            self._whoever_is_recalled_is_told(commit, rollout_id)

    def _whoever_is_recalled_is_told(self, commit: Commit, rollout_id: int) -> None:
        told = {item.update_id for item in commit.after.parcels.values() if item.kind == "cancel"}
        for update_id in commit.updates:
            update = commit.after.updates[update_id]
            if update.rollout_id == rollout_id and update.state is UpdateState.RECALLING:
                self._require(update_id in told, f"nobody tells {update.device_id} that it is recalled")

    def _claims_are_current(self, commit: Commit) -> None:
        for parcel_id, old in commit.parcels.items():
            parcel = commit.after.parcels[parcel_id]
            if old is None or parcel.state == old.state or parcel.state not in ("claimed", "sent"):
                continue
            if old.state == "claimed":
                continue
            rollout = commit.after.rollouts[parcel.rollout_id]
            current = rollout.phase is Phase.RUNNING and rollout.version == parcel.rollout_version
            self._require(old.state == "sealed", f"a delivery that was {old.state} became {parcel.state}")
            self._require(parcel.kind == "cancel" or current, f"a trigger of {rollout.phase} was {parcel.state}")

    def _numbers_rise(self, commit: Commit) -> None:
        sealed = []
        for parcel_id, old in commit.parcels.items():
            parcel = commit.after.parcels[parcel_id]
            if old is not None and old.seq is not None:
                same = (parcel.seq, parcel.token_hash) == (old.seq, old.token_hash)
                self._require(same, f"delivery {parcel.id} has another token")
            elif parcel.seq is not None:
                sealed.append(parcel.seq)
        if sealed:
            self._require(min(sealed) > self._sealed, f"number {min(sealed)} was given out after {self._sealed}")
            self._require(len(set(sealed)) == len(sealed), "two deliveries have one number")
            self._sealed = max(sealed)

    def _offered(self, commit: Commit) -> list[Update]:
        """Return the updates that this commit offered the release."""
        found = []
        for parcel_id, known in commit.parcels.items():
            parcel: Parcel = commit.after.parcels[parcel_id]
            if known is not None or parcel.kind != INSTALL or parcel.update_id not in commit.updates:
                continue
            old, new = commit.updates[parcel.update_id], commit.after.updates[parcel.update_id]
            was = None if old is None else old.state
            if was in (None, UpdateState.PENDING) and new.state is UpdateState.OFFERED:
                found.append(new)
        return found

    def _offers_keep_within_limits(self, commit: Commit) -> None:
        after = commit.after
        new = self._offered(commit)
        offered = Counter(item.rollout_id for item in new)
        for rollout_id in offered:
            rollout, tally = after.rollouts[rollout_id], after.tallies[rollout_id]
            self._require(rollout.phase is Phase.RUNNING, f"offered while {rollout.phase}")
            flying = sum(count for key, count in tally.items() if key.state in FLYING)
            confirmed = sum(
                count
                for key, count in tally.items()
                if key.stage == rollout.stage and key.state == UpdateState.CONFIRMED
            )
            slots = min(rollout.plan.in_flight, max(FIRST_SLOTS, confirmed))
            self._require(flying <= slots, f"{flying} in flight in {slots} slots")
        if offered:
            self._require(not commit.before.outage, "offered in an outage")
            now = min(item.state_at for item in new)  # somebody may have set the clock since
            self._offers.append((now, offered.total()))
            self._offers = [item for item in self._offers if item[0] > now - HOUR_S]
            spent, limit = sum(count for _, count in self._offers), self._ceiling.floor
            self._require(spent <= limit, f"{spent} devices were offered a release within an hour; {limit} may be")

    def _offers_go_to_who_may_have_them(self, commit: Commit) -> None:
        offered = self._offered(commit)
        if not offered:
            return
        banned = set(self._reader.column("SELECT id FROM devices WHERE quarantine != ''"))
        for update in offered:
            rollout, device = commit.after.rollouts[update.rollout_id], self._devices[update.device_id]
            plan = rollout.plan
            self._require(update.device_id not in banned, f"{update.device_id} is offered it in quarantine")
            open_ = _is_open(plan.windows, update.state_at)
            self._require(open_, f"{update.device_id} is offered it while hours are closed")
            agreed = plan.consent.consent.value == "not_needed" or device.has_agreed
            self._require(agreed, f"nobody agreed for {update.device_id}")
            least = plan.require.battery_pct or 0
            self._require(device.most_battery >= least, f"{update.device_id} has never said that it has {least} %")
            newer = [
                item
                for item in commit.after.updates.values()
                if item.device_id == update.device_id and item.rollout_id > update.rollout_id and item.state in FLYING
            ]
            self._require(not newer, f"{update.device_id} is offered an older rollout beside {newer}")

    def _failures_stay(self, commit: Commit) -> None:
        for update_id, old in commit.updates.items():
            new = commit.after.updates[update_id]
            bad = {key.epoch for key in places(new) if key.state in _BAD}
            self._require(bool(bad) or update_id not in self._failed, f"the failure of {new} vanished")
            if bad:
                self._failed.add(update_id)
            if old is None:
                continue
            epoch = commit.after.rollouts[new.rollout_id].epoch
            had = any(key.state in _BAD and key.epoch == epoch for key in places(old))
            same = commit.before.rollouts[new.rollout_id].epoch == epoch
            self._require(epoch in bad or not (had and same), f"a failure left the evidence: {old} became {new}")

    def _silence_is_judged_while_devices_can_be_heard(self, commit: Commit) -> None:
        for update_id, old in commit.updates.items():
            new = commit.after.updates[update_id]
            if old is None or new.state is old.state or new.state not in OF_SILENCE:
                continue
            self._require(self._linked(), f"silence was judged while nobody could be heard: {new}")
            self._require(not (commit.before.outage and commit.after.outage), f"silence was judged in an outage: {new}")
            due = old.deadline_at is not None and old.deadline_at <= new.state_at
            self._require(due or old.state is UpdateState.PENDING, f"silence was judged before its time: {old}")

    def _attempts_are_those_of_the_plan(self, commit: Commit) -> None:
        """Another attempt follows a failure or refusal, or a person's word, and nobody has more than the plan gives."""
        for update_id, old in commit.updates.items():
            new = commit.after.updates[update_id]
            if old is None or new.attempt == old.attempt:
                continue
            self._require(new.attempt == old.attempt + 1, f"attempts were skipped: {old} became {new}")
            if old.state in FAILED and old.deadline_at is None:
                self._retries[update_id] += 1  # by a person
                continue
            retry = commit.after.rollouts[new.rollout_id].plan.retry
            most = max(retry.transient.attempts, retry.unexplained.attempts, retry.suspicious.attempts)
            returned = old.state is UpdateState.REFUSED and old.deadline_at is None
            self._retries[update_id] += returned
            allowed = most + self._retries[update_id]
            self._require(new.attempt <= allowed, f"attempt {new.attempt} of {allowed}: {new}")

    def _the_sick_are_not_healthy(self, commit: Commit) -> None:
        for update_id, old in commit.updates.items():
            new = commit.after.updates[update_id]
            if old is None or new.state is old.state or new.state is not UpdateState.CONFIRMED:
                continue
            device, plan = self._devices[new.device_id], commit.after.rollouts[new.rollout_id].plan
            sick = bool(plan.health) and device.character == SICK and not device.has_lied
            self._require(not sick, f"{new.device_id} is taken for healthy, and measures otherwise")

    def _sealed_between(self, first: int, last: int) -> Sequence[tuple[int, str]]:
        query = "SELECT seq, token_hash FROM deliveries WHERE seq BETWEEN ? AND ? ORDER BY seq"
        return self._reader.file.execute(query, (first, last)).fetchall()

    def _require(self, holds: bool, text: str) -> None:
        if not holds:
            self._broken = self._broken or BrokenError(text)
            raise self._broken


def _is_open(hours: Windows, at: float) -> bool:
    """Say whether devices may begin at a time; all of a campaign are in UTC, and windows are those of any day."""
    windows, second = hours.windows, at % DAY_S
    return not windows or any(
        (item.begins_s <= second) is (second < item.ends_s)
        if item.begins_s < item.ends_s
        else second >= item.begins_s or second < item.ends_s
        for item in windows
    )
