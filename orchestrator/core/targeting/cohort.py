"""Which devices a rollout takes, and in which order.

Rules:
- The order is a keyed hash per rollout: nobody can place a device among the first ones, and no
  device is first each time.
- A stage is one cut of that order, or of the part of it that is in a group. With strata a cut takes from each its fair
  share, in the order of the hash within it.
- Who registered too late to be evidence for others waits for the last stage; stages are sized by the whole cohort.
- What a device has of what a rollout brings, firmware or endpoints, is said in one place: `has`.
- Nothing here holds the whole fleet: a waiting device is eight bytes.
"""

from __future__ import annotations

import hashlib
import heapq
import hmac
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from orchestrator.core.model import OTAD, Device, Plan, Reason, SizeKind, Stage, StagePlan
from orchestrator.core.targeting import route, selector
from orchestrator.core.targeting.dialect import STRICT, SigningRule
from orchestrator.core.targeting.route import Way

RANK_BITS = 62
"""Ranks fit a signed 64-bit column of any database."""

SORTED = 5000
"""Ranks that are sorted at once."""

MAX_STRATA = 64
"""Evidence is kept for each stratum; with more of them none would ever see enough devices."""

NOWHERE, OTHER = "(none)", "(other)"
"""Strata of the devices of which it is not known, and of late joiners that bring one too many."""

Ways = Mapping[str, Way]
"""What a device may take on its way to a release, by hardware model; without those that any device may jump to."""

STRAIGHT: Ways = MappingProxyType({})
"""Every device may jump to the release."""

Bucket = tuple[str, tuple[str, ...], bool]
"""Devices that every stage treats alike: a stratum, those groups with a stage of their own that they are in, and
whether they wait for the last stage."""


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """A device in the order of one rollout.

    Attributes:
        rank: position, the first bits of the keyed hash.
        device_id: the device.
        model: its hardware model.
        stratum: what the plan stratifies by, "" for the model.
        groups: groups with a stage of their own that it is in.
        late: whether it waits for the last stage.
    """

    rank: int
    device_id: str
    model: str
    stratum: str = ""
    groups: tuple[str, ...] = ()
    late: bool = False

    @property
    def bucket(self) -> Bucket:
        """The devices that it is treated like."""
        return (self.stratum or self.model, self.groups, self.late)


@dataclass(frozen=True, slots=True)
class Sieve:
    """What a database can check of the devices of a cohort. It lets through whoever is in, and others as well.

    Attributes:
        words: values that a device must have one of, by field.
        below_rel: release counter that it must run less than, None for any.
        fixed_at: facts that operators changed after this time are not to be relied on, None if all are.
        quarantined: whether a device must be in quarantine.
        moves: whether `below_rel` is of endpoints, and not of firmware.
    """

    words: Mapping[str, frozenset[str]] = field(default_factory=dict)
    below_rel: int | None = None
    fixed_at: float | None = None
    quarantined: bool = False
    moves: bool = False


@dataclass(frozen=True, slots=True)
class Cut:
    """The devices that a stage takes.

    Attributes:
        upto: highest rank that is taken, by bucket.
        count: how many devices it takes.
        strata: how many of each stratum.
    """

    upto: Mapping[Bucket, int]
    count: int
    strata: Mapping[str, int]

    def takes(self, member: Member) -> bool:
        """Say whether a member that waited is taken."""
        return member.rank <= self.upto.get(member.bucket, -1)


class Queue:
    """The members that no stage has taken yet, in order.

    Args:
        taken: devices that earlier stages took, by stratum; to be given where cuts are fair to the strata.
    """

    def __init__(self, taken: Mapping[str, int] | None = None) -> None:
        self._ranks: dict[Bucket, array[int]] = {}
        self._from: Counter[Bucket] = Counter()
        self._taken = None if taken is None else Counter(taken)

    def add(self, members: Iterable[Member]) -> None:
        """Let members wait, in any order, before the first cut."""
        for member in members:
            self._ranks.setdefault(member.bucket, array("Q")).append(member.rank)

    def left(self, group: str = "") -> int:
        """Return how many wait, in all or in a group."""
        return sum(len(ranks) - self._from[bucket] for bucket, ranks in self._ranks.items() if _is_in(bucket, group))

    def strata(self) -> Counter[str]:
        """Return how many wait of each stratum."""
        return self._strata(self._ranks)

    def cut(self, count: int, group: str = "", *, late: bool = True) -> Cut:
        """Take the next `count` devices, or of those in a group; fewer where no more wait.

        Args:
            count: how many.
            group: group that they are taken from, "" for all.
            late: whether it is for the last stage, which takes those as well that wait for it.
        """
        waiting = [bucket for bucket in self._ranks if _is_in(bucket, group) and (late or not bucket[2])]
        if self._taken is None or group:
            ends = self._ends(waiting, count)
        else:
            quotas = shares(self._taken, self._strata(waiting), count)
            ends = {}
            for stratum, quota in quotas.items():
                ends |= self._ends([bucket for bucket in waiting if bucket[0] == stratum], quota)
        strata: Counter[str] = Counter()
        for bucket, end in ends.items():
            strata[bucket[0]] += end - self._from[bucket]
        upto = {bucket: self._ranks[bucket][end - 1] for bucket, end in ends.items() if end > self._from[bucket]}
        self._from.update({bucket: end - self._from[bucket] for bucket, end in ends.items()})
        if self._taken is not None:
            self._taken.update(strata)
        return Cut(upto, strata.total(), +strata)

    def _strata(self, buckets: Iterable[Bucket]) -> Counter[str]:
        found: Counter[str] = Counter()
        for bucket in buckets:
            found[bucket[0]] += len(self._ranks[bucket]) - self._from[bucket]
        return found

    def _ends(self, buckets: Iterable[Bucket], count: int) -> dict[Bucket, int]:
        """Return where in each bucket the next `count` devices of all these end."""
        parts = {bucket: self._sorted(bucket) for bucket in buckets}
        if count >= sum(len(ranks) - self._from[bucket] for bucket, ranks in parts.items()):
            return {bucket: len(ranks) for bucket, ranks in parts.items()}

        def within(limit: int) -> int:
            return sum(max(bisect_right(ranks, limit) - self._from[bucket], 0) for bucket, ranks in parts.items())

        limit = bisect_left(range(2**RANK_BITS), count, key=within)
        return {bucket: max(bisect_right(ranks, limit), self._from[bucket]) for bucket, ranks in parts.items()}

    def _sorted(self, bucket: Bucket) -> array[int]:
        if not self._from[bucket]:
            self._ranks[bucket] = _sorted(self._ranks[bucket])
        return self._ranks[bucket]


def _sorted(ranks: array[int]) -> array[int]:
    """Sort by parts: while one list is sorted, nothing else of the process runs."""
    parts: list[array[int]] = [array("Q") for _ in range(max(len(ranks) // SORTED, 1))]
    for rank_ in ranks:
        parts[rank_ * len(parts) >> RANK_BITS].append(rank_)
    found = array("Q")
    for part in parts:
        found.extend(sorted(part))
    return found


def _is_in(bucket: Bucket, group: str) -> bool:
    return not group or group in bucket[1]


def shares(taken: Mapping[str, int], left: Mapping[str, int], count: int) -> dict[str, int]:
    """Return how many of the next `count` devices each stratum gives, so that all were given in proportion.

    Each place goes to the stratum that is furthest behind its share (the method of Sainte-Lague), so that cuts that
    follow each other take the same devices as one large cut.

    Args:
        taken: devices that were taken, by stratum.
        left: devices that wait, by stratum.
        count: places to give; more than are left take all.
    """
    if count >= sum(left.values()):
        return dict(left)
    sizes = {stratum: taken.get(stratum, 0) + number for stratum, number in left.items() if number}
    given = dict.fromkeys(sizes, 0)
    behind = [((2 * taken.get(stratum, 0) + 1) / size, stratum) for stratum, size in sizes.items()]
    heapq.heapify(behind)
    for _ in range(count):
        _, stratum = behind[0]
        given[stratum] += 1
        if given[stratum] == left[stratum]:
            heapq.heappop(behind)
        else:
            place = 2 * (taken.get(stratum, 0) + given[stratum]) + 1
            heapq.heapreplace(behind, (place / sizes[stratum], stratum))
    return given


def secret_from_seed(seed: int) -> bytes:
    """Return the rollout secret of a rehearsal, 32 bytes."""
    return hashlib.sha256(f"ota-orchestrator rehearsal {seed}".encode()).digest()


def rank(secret: bytes, device_id: str) -> int:
    """Return where a device stands in the order of the rollout with this secret."""
    digest = hmac.digest(secret, device_id.encode(), "sha256")
    return int.from_bytes(digest[:8], "big") >> (64 - RANK_BITS)


def belongs(device: Device, plan: Plan, hardware: frozenset[str], rel: int) -> bool:
    """Say whether a device is in the cohort of a plan; see `left_out`."""
    return left_out(device, plan, hardware, rel) is None


def left_out(
    device: Device,
    plan: Plan,
    hardware: frozenset[str],
    rel: int,
    fixed_at: float | None = None,
    ways: Ways = STRAIGHT,
    *,
    moves: bool = False,
    signing: SigningRule = STRICT,
) -> Reason | None:
    """Return why a device is not in the cohort of a plan, None if it is.

    Args:
        device: the device.
        plan: names models and groups, and has the selector.
        hardware: models that the release has an artifact for.
        rel: release counter of the release; a device that runs it, or a later one, needs no update.
        fixed_at: when the cohort was fixed, None while it is open.
        ways: what too old devices may take before.
        moves: whether the release brings endpoints.
        signing: what keeps its images from devices that verify no trigger.
    """
    found = all_left_out(device, plan, hardware, rel, fixed_at, ways, moves=moves, signing=signing)
    return next(found, None)


def all_left_out(
    device: Device,
    plan: Plan,
    hardware: frozenset[str],
    rel: int,
    fixed_at: float | None = None,
    ways: Ways = STRAIGHT,
    *,
    moves: bool = False,
    signing: SigningRule = STRICT,
) -> Iterator[Reason]:
    """Yield every reason why a device is not in the cohort of a plan, as `left_out` names the first."""
    if device.quarantine:
        yield Reason("quarantined", f"it is quarantined: {device.quarantine}")
    running, what = has(device, moves=moves) or 0, "has endpoints of" if moves else "runs"
    if moves and device.endpoints is None:
        yield Reason("no_endpoints", "it did not say by which endpoints it goes, so it cannot be moved")
    elif plan.leaves and running != plan.leaves:
        yield Reason("elsewhere", f"it {what} release counter {running}; this takes devices back from {plan.leaves}")
    elif not plan.leaves and running >= rel:
        yield Reason("current", f"it {what} release counter {running} already; the release has {rel}")
    if device.model not in hardware:
        yield Reason("no_artifact", f"the release has no artifact for {device.model}")
    elif device.dialect != OTAD and (reason := signing.left_out(device)) is not None:
        yield reason
    if plan.models and device.model not in plan.models:
        yield Reason("model", f"the plan takes {', '.join(plan.models)} only")
    if plan.groups and set(plan.groups).isdisjoint(device.groups):
        yield Reason("group", f"it is in none of the groups {', '.join(plan.groups)}")
    if not selector.parse(plan.select).matches(device):
        yield Reason("not_selected", f"it does not meet the selector {plan.select}")
    if (reason := too_low(device, ways, moves=moves)) is not None:
        yield reason
    if fixed_at is not None and device.registered_at > fixed_at:
        yield Reason("late", "it was registered after the cohort was fixed")


def is_current(device: Device, rel: int, leaves: int, *, moves: bool = False) -> bool:
    """Say whether a device that was taken in needs a release no more: it has that, or a later one by now.

    Args:
        device: the device.
        rel: release counter of the release.
        leaves: release counter from which the plan takes devices back, 0 if it does not.
        moves: whether the release brings endpoints.
    """
    running = has(device, moves=moves)
    return running is not None and (running == rel or (not leaves and running > rel))


def too_low(device: Device, ways: Ways, *, moves: bool = False) -> Reason | None:
    """Return why a device is too old to jump to the release, None if it is not, or if nobody knows what it has."""
    way, running = ways.get(device.model), has(device, moves=moves)
    if way is None or running is None or running >= way.target.min_from:
        return None
    return route.too_low(running, way)


def has(device: Device, *, moves: bool) -> int | None:
    """Return the release counter of what a device has of firmware or, with `moves`, endpoints; None if not known."""
    if moves:
        return device.endpoints
    return device.rel if device.version or device.rel else None


def sieve(
    plan: Plan, hardware: frozenset[str], rel: int, fixed_at: float | None = None, *, moves: bool = False
) -> Sieve:
    """Return what a database can check of what `left_out` asks."""
    words = dict(selector.parse(plan.select).words)
    models = hardware & frozenset(plan.models) if plan.models else hardware
    words["model"] = words.get("model", models) & models
    return Sieve(words, plan.leaves + 1 if plan.leaves else rel, fixed_at, moves=moves)


def stratum_of(device: Device, stratify: str) -> str:
    """Return the stratum of a device under a plan that stratifies by this word; the model where it does not."""
    if stratify == "site":
        return device.site or NOWHERE
    if stratify.startswith("attr."):
        return device.attributes.get(stratify.removeprefix("attr."), "") or NOWHERE
    return device.model


def most_strata(plan: Plan, hardware: frozenset[str], found: int) -> int:
    """Return over how many strata the evidence is split. An open cohort leaves room for those of late joiners.

    Args:
        plan: the plan.
        hardware: models that the release has an artifact for.
        found: strata in the cohort as it is now.
    """
    if not plan.open_cohort:
        return found
    if plan.stratify in ("", "model"):
        return len(hardware & frozenset(plan.models)) if plan.models else len(hardware)
    return max(found, MAX_STRATA)


def bounded(found: Sequence[Member], taken: Mapping[str, int]) -> list[Member]:
    """Return members with no more strata than can be told apart, those that were taken included."""
    known = set(taken)
    kept = []
    for member in found:
        one_too_many = member.stratum not in known and len(known | {OTHER}) >= MAX_STRATA
        kept.append(replace(member, stratum=OTHER) if one_too_many else member)
        known.add(kept[-1].stratum)
    return kept


def late(device: Device, plan: Plan, started_at: float | None) -> Reason | None:
    """Return why a device waits for the last stage of a plan, None if any stage may take it.

    Args:
        device: the device.
        plan: the plan.
        started_at: when its rollout was started, None while it is not.
    """
    least_s = plan.evidence.registered_s
    if not least_s or started_at is None or device.registered_at <= started_at - least_s:
        return None
    text = f"it was registered less than {least_s / 3600:g} h before the rollout started; the last stage alone takes it"
    return Reason("registered_late", text)


def members(
    secret: bytes, devices: Iterable[Device], plan: Plan | None = None, started_at: float | None = None
) -> Iterator[Member]:
    """Rank devices, in the order given, with what the stages of a plan ask of them; see `late` for its start."""
    stratify = "" if plan is None else plan.stratify
    own = [] if plan is None else sorted({stage.group for stage in plan.stages if stage.group})
    for device in devices:
        groups = tuple(group for group in own if group in device.groups) if own else ()
        waits = plan is not None and late(device, plan, started_at) is not None
        yield Member(rank(secret, device.id), device.id, device.model, stratum_of(device, stratify), groups, waits)


def cut(candidates: Iterable[Member], above: int, count: int) -> list[Member]:
    """Return the first `count` members whose rank is greater than `above`, in order."""
    return heapq.nsmallest(count, (member for member in candidates if member.rank > above))


def size_of(stage: StagePlan, of: int, left: int) -> int:
    """Return how many devices a stage wants of so many, of which so many are left."""
    wanted = {SizeKind.COUNT: stage.size, SizeKind.PPM: -(-stage.size * of // 1_000_000), SizeKind.REST: left}
    return min(wanted[stage.kind], left)


def stages_for(plan: Plan, cohort_size: int, groups: Mapping[str, int] | None = None) -> tuple[Stage, ...]:
    """Return the stages of a plan for a cohort of known size; a stage may come out empty.

    Args:
        plan: the plan.
        cohort_size: devices in the cohort.
        groups: how many of them are in each group with a stage of its own; such a stage may find fewer, where
            earlier stages took some of them.
    """
    left = cohort_size
    stages = []
    for wanted in plan.stages:
        whole = (groups or {}).get(wanted.group, 0) if wanted.group else cohort_size
        base = size_of(wanted, whole, min(whole, left) if wanted.group else left)
        left -= base
        stages.append(Stage(base=base, target=base))
    return tuple(stages)
