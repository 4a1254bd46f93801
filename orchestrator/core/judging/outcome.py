"""What became of an update, read from what a device says it runs: a table, first match wins.

Rules:
- The table is total: whatever is known and whatever is not, one row answers, and it says in words why.
- Nothing is confirmed without the new release, seen after a later boot.
- Silence is judged at the deadline, never before it; before it, what proves nothing is waited for.

The boot counter is trusted to rise only: one that is lower than before was erased, and proves a boot but no number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from orchestrator.core.reason import Reason


class Verdict(StrEnum):
    """What became of an update."""

    WAITING = "waiting"
    CONFIRMED = "confirmed"
    FAILED_INSTALL = "failed_install"
    ROLLED_BACK = "rolled_back"
    DRIFTED = "drifted"
    UNREACHABLE = "unreachable"
    UNSTABLE = "unstable"


V = Verdict


class Runs(StrEnum):
    """What runs now, compared with what was offered."""

    NEW = "new"
    OLD = "old"
    OTHER = "other"
    UNKNOWN = "unknown"


class Boots(StrEnum):
    """What is known of boots since the offer; two is one into the release and one back out of it."""

    NONE = "none"
    ONE = "one"
    MORE = "more"
    SOME = "some"
    UNKNOWN = "unknown"


LATER = frozenset({Boots.ONE, Boots.MORE, Boots.SOME})
"""What is known of boots where there certainly was one."""


@dataclass(frozen=True, slots=True)
class Offered:
    """What was offered, and what the device said before it began.

    Attributes:
        rel: release counter that was offered.
        from_rel: release counter that ran before.
        boot: identifier of the boot then, "" if not known.
        boots: boot counter then, None if not known.
        deadline_at: when silence is judged.
    """

    rel: int
    from_rel: int
    boot: str
    boots: int | None
    deadline_at: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What the device said last, after its download was complete.

    Attributes:
        rel: release counter that runs, None if it did not say.
        boot: identifier of its boot, "" if it did not say.
        boots: its boot counter, None if it did not say.
        uptime_s: how long it has been up, None if it did not say.
        ran_new: whether it said earlier that it runs the release.
    """

    rel: int | None = None
    boot: str = ""
    boots: int | None = None
    uptime_s: float | None = None
    ran_new: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """What a device must show that runs the release but does not say how it is.

    Attributes:
        dwell_s: so long up without saying more is as good as healthy, past the deadline.
        boots: so many boots since the offer ...
        shaky_s: ... while it is up for less than this, and the release is unstable.
    """

    dwell_s: float = 600.0
    boots: int = 4
    shaky_s: float = 60.0


class Signs(NamedTuple):
    """What the table reads.

    Attributes:
        heard: whether the device said anything after its download.
        due: whether the deadline has passed.
        runs: what it runs.
        boots: boots since the offer.
        ran_new: whether it ran the release earlier.
        done: whether it is certainly no longer installing.
        stayed: whether it was up long enough.
        shaky: whether it boots again and again.
    """

    heard: bool
    due: bool
    runs: Runs
    boots: Boots
    ran_new: bool
    done: bool
    stayed: bool
    shaky: bool


class Row(NamedTuple):
    """One row of the table.

    Attributes:
        when: signs and their values; each sign that is not here may have any.
        verdict: what became of the update.
        code: stable word.
        text: why, for a person.
    """

    when: Mapping[str, object]
    verdict: Verdict
    code: str
    text: str


_OLD = {"runs": Runs.OLD}

TABLE: tuple[Row, ...] = (
    Row({"heard": False, "due": False}, V.WAITING, "silent", "it has not been heard of yet"),
    Row({"heard": False}, V.UNREACHABLE, "unheard", "it was not heard of until the deadline"),
    Row({"runs": Runs.OTHER}, V.DRIFTED, "third_release", "it runs neither the release nor the one before"),
    # the one before
    Row(_OLD | {"ran_new": True}, V.ROLLED_BACK, "ran_it", "it ran the release, and does no more"),
    Row(_OLD | {"boots": Boots.MORE}, V.ROLLED_BACK, "booted_twice", "it booted into it and back"),
    Row(_OLD | {"done": True}, V.FAILED_INSTALL, "never_ran", "it runs what it ran before; the install was rejected"),
    Row(_OLD, V.WAITING, "installing", "it may still be installing"),
    # not said what
    Row({"runs": Runs.UNKNOWN, "due": True}, V.UNREACHABLE, "says_nothing", "it does not say what it runs"),
    Row({"runs": Runs.UNKNOWN}, V.WAITING, "says_nothing", "it has not said yet what it runs"),
    # the release
    Row({"boots": Boots.NONE, "due": True}, V.FAILED_INSTALL, "never_booted", "it says it runs it, without any boot"),
    Row({"boots": Boots.NONE}, V.WAITING, "never_booted", "it says it runs it, but has not booted"),
    Row({"shaky": True}, V.UNSTABLE, "boots_again", "it runs the release and boots again and again"),
    Row({"boots": Boots.UNKNOWN, "due": True}, V.UNREACHABLE, "unproven", "nothing shows that it ever booted"),
    Row({"boots": Boots.UNKNOWN}, V.WAITING, "unproven", "nothing shows yet that it booted"),
    Row({"due": True, "stayed": True}, V.CONFIRMED, "stayed", "it booted into the release and stayed up"),
    Row({"due": True}, V.UNSTABLE, "not_healthy", "it runs the release, but neither stayed up nor said it is healthy"),
    Row({}, V.WAITING, "on_trial", "it runs the release on trial"),
)
"""Every observation has its first matching row; the last one matches all that are left."""


def judge(offered: Offered, seen: Seen | None, trial: Trial, now: float) -> tuple[Verdict, Reason]:
    """Return what became of an update, and why.

    Args:
        offered: what was offered.
        seen: what the device said last after its download, None if nothing.
        trial: what a device on trial must show.
        now: present time.
    """
    found = row(signs(offered, seen, trial, now))
    return found.verdict, Reason(found.code, found.text)


def row(read: Signs) -> Row:
    """Return the first row of the table that the signs match."""
    return next(row for row in TABLE if all(getattr(read, sign) == value for sign, value in row.when.items()))


def signs(offered: Offered, seen: Seen | None, trial: Trial, now: float) -> Signs:
    """Return what the table reads; the arguments are those of `judge`."""
    said = seen or Seen()
    boots, due = _boots(offered, said), now >= offered.deadline_at
    up_s = said.uptime_s
    return Signs(
        heard=seen is not None,
        due=due,
        runs=_runs(offered, said),
        boots=boots,
        ran_new=said.ran_new,
        done=due or boots in LATER,
        stayed=up_s is not None and up_s >= trial.dwell_s,
        shaky=up_s is not None and up_s < trial.shaky_s and (_counted(offered, said) or 0) >= trial.boots,
    )


def _runs(offered: Offered, said: Seen) -> Runs:
    if said.rel is None or said.rel == offered.rel == offered.from_rel:  # a number that both have tells nothing
        return Runs.UNKNOWN
    if said.rel == offered.rel:
        return Runs.NEW
    return Runs.OLD if said.rel == offered.from_rel else Runs.OTHER


def _boots(offered: Offered, said: Seen) -> Boots:
    counted = _counted(offered, said)
    if counted is not None and counted > 0:
        return Boots.ONE if counted == 1 else Boots.MORE
    if counted or _other_boot(offered, said):  # below zero, the counter was erased
        return Boots.SOME
    return Boots.NONE if counted == 0 or (offered.boot and said.boot) else Boots.UNKNOWN


def _other_boot(offered: Offered, said: Seen) -> bool:
    return bool(offered.boot and said.boot and offered.boot != said.boot)


def _counted(offered: Offered, said: Seen) -> int | None:
    if offered.boots is None or said.boots is None:
        return None
    return said.boots - offered.boots
