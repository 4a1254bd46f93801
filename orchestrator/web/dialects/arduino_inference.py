"""What the contact of an Arduino updater implies, for it reports nothing: it fetches an image, reboots, and asks again.

Rules:
- A hash proves what runs; the version that a sketch calls itself only where no hash is said, and only of a release
  that the device has fetched and did not call itself before.
- Bytes that were taken whole are `downloaded`, and no more: the updater may still have refused them.
- Who certainly does not run what it took whole may have it again, but not for ever: it may be the image's fault.
- An older image after a whole download is said to the recorder as a hello: its table judges it, by the plan's
  deadlines.
- A recall cannot be said to such a device. Its next contact answers it: whoever asks is not installing.
- A word has a number, the same each time of one offer: so a repetition is known, and no client fills the record.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from orchestrator.core.model import Artifact, Device, Update, UpdateState
from orchestrator.core.pace.hold import Situation
from orchestrator.core.rollout import FINISHED
from orchestrator.core.update import IDLE, IN_FLIGHT, RESOLVED
from orchestrator.engine.offers import tasks
from orchestrator.ports import Tx
from orchestrator.web.dialects.arduino_headers import Asked
from orchestrator.wire.report import Hello, Kind, OwnFacts, Report

LATER_BOOT = "arduino-later"
"""Stands for whatever boot comes after a download."""

UNKNOWN = "unknown"
"""Version of an image that none of ours is."""

MOST_WHOLE = 3
"""So often a device may take every byte of an image that it does not run then: some may be lost behind what we see."""

MOST_HEARD = 4
STALE_S = 6 * 3600.0
"""What a device said of its room longer ago is said again, if an update waits for it."""

Has = Callable[[Artifact], bool | None]
_NUMBERS = {Kind.ACCEPTED: 0, Kind.CONFIRMED: 2, Kind.RECALLED: 3, Kind.REFUSED: 4}
_WHOLE_NUMBERS = (1, *range(5, 4 + MOST_WHOLE))
_TAKES = (UpdateState.OFFERED, UpdateState.ACCEPTED)
_AWAITED = frozenset({UpdateState.DOWNLOADED, UpdateState.INSTALLED, UpdateState.RUNNING})
_NOTED = frozenset({"never_ran", "ran_it", "booted_twice"})
_WAITS = IDLE | {UpdateState.UNREACHED}


@dataclass(frozen=True, slots=True)
class Heard:
    """One update of the device that it may have something to say of.

    Attributes:
        update: the update.
        artifact: what it brings.
        round: by which trigger the device goes, 0 for none.
        live: whether its rollout is not over.
        whole: how often the device took every byte since its trigger.
    """

    update: Update
    artifact: Artifact
    round: int
    live: bool
    whole: int = 0

    @property
    def is_open(self) -> bool:
        """Whether what the device says may still move the update."""
        return self.live or self.update.state in IN_FLIGHT


@dataclass(frozen=True, slots=True)
class Known:
    """What is known before a contact is judged.

    Attributes:
        heard: updates that it may speak of, the newest first.
        before: images of what it ran before the newest of them.
        rel: release counter of the version that it calls itself, as far as it is known.
        situation: what it said of itself.
        waits: whether an update waits for what it says of itself.
    """

    heard: Sequence[Heard]
    before: Sequence[Artifact]
    rel: int
    situation: Situation
    waits: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """What a contact shows.

    Attributes:
        report: what it means for an update, None for nothing.
        hello: what it says of the device that is not known, None for nothing.
        runs: hashes of the artifacts that certainly run already.
        lacks: hashes of those that certainly do not.
    """

    report: Report | None = None
    hello: Hello | None = None
    runs: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()


def known_of(tx: Tx, device: Device, asked: Asked) -> Known:
    """Return what is known of a device that asks."""
    every = tx.updates_of([device.id])
    updates = sorted((item for item in every if item.state in IN_FLIGHT | RESOLVED), key=lambda item: -item.id)
    found = (_heard(tx, device, update) for update in updates[:MOST_HEARD])
    all_heard = [item for item in found if item is not None]
    heard = all_heard[:1] + [item for item in all_heard[1:] if item.is_open]
    before: list[Artifact] = []
    if asked.says_hash and heard and heard[0].is_open:
        rels = {line.rel for line in tx.lines(heard[0].update.id) if line.kind == Kind.ACCEPTED}
        before = [item for item in tx.artifacts() if item.rel in rels and device.model in item.hardware]
    is_other = asked.version not in ("", device.version)
    rel = tasks.shows(tx, device, asked.version)[0] if is_other else device.rel
    waits = any(item.state in _WAITS for item in every)
    return Known(heard, before, rel, tx.situations([device.id])[device.id], waits)


def shown(asked: Asked, device: Device, known: Known, has: Has, now: float) -> Shown:
    """Return what a contact shows.

    Args:
        asked: what the device said.
        device: as it was known until now.
        known: what is known besides.
        has: whether the hashes that it said are those of an artifact, None where that has none.
        now: present time.
    """
    facts = asked.facts(known.situation.condition, now - STALE_S if known.waits else 0.0)
    current = next((item for item in known.heard if item.update.state in IN_FLIGHT), None)
    proven = {item.artifact.sha256: _runs(asked, item.artifact, has) for item in known.heard}
    runs = frozenset(sha256 for sha256, found in proven.items() if found)
    lacks = frozenset(sha256 for sha256, found in proven.items() if found is False)
    if current is not None and _proves(asked, device, current, runs):
        report = report_of(Kind.CONFIRMED, current, rel=current.update.rel, version=current.artifact.version)
        changed = None if facts is None else _hello(device, current.update.rel, current.artifact.version, facts)
        return Shown(report, changed, runs)
    if current is not None and current.update.state is UpdateState.RECALLING:
        return Shown(report_of(Kind.RECALLED, current, rel=_known_rel(device)), None, runs)
    rel, version = _names(asked, device, known, has)
    left = _left(device, known, current, lambda item: item.artifact.sha256 in lacks)
    if left is not None and rel == left.update.rel:
        rel, version = 0, UNKNOWN  # it certainly runs something else
    is_news = (rel, version) != (device.rel, device.version) or left is not None or facts is not None
    return Shown(None, _hello(device, rel, version, facts) if is_news else None, runs, lacks)


def report_of(
    kind: Kind, heard: Heard, *, rel: int | None, version: str = "", code: str = "", text: str = ""
) -> Report | None:
    """Return the report that says this, None where the device was never given a trigger that it could answer.

    Args:
        kind: what is said.
        heard: of which update.
        rel: release counter that runs, None if it is not known.
        version: what runs, if it is known.
        code: why, where it was refused.
        text: for a person.
    """
    if not heard.round:
        return None
    update = heard.update
    return Report(
        v=1,
        dev=update.device_id,
        att=f"{update.id}.{update.attempt}",
        boot=_boot_of(heard.round),
        n=_NUMBERS[kind] if kind is not Kind.DOWNLOADED else _WHOLE_NUMBERS[heard.whole],
        kind=kind,
        ver=version,
        rel=rel,
        code=code,
        msg=text,
    )


def said(kind: Kind, heard: Heard, device: Device, code: str = "", text: str = "") -> Report | None:
    """Return the report that a device says this of an update while it runs what it ran; see `report_of`."""
    return report_of(kind, heard, rel=_known_rel(device), version=device.version, code=code, text=text)


def found_running(asked: Asked, heard: Heard) -> Report | None:
    """Return the report that an update was there before it began, None where only a version says so."""
    if not asked.says_hash:
        return None
    return report_of(Kind.CONFIRMED, heard, rel=heard.update.rel, version=heard.artifact.version)


def may_take(heard: Heard, lacks: Collection[str]) -> bool:
    """Say whether a device may fetch, or fetch again: once it has had every byte a few times, if it still lacks it."""
    if heard.update.state is UpdateState.DOWNLOADED:
        return heard.whole < MOST_WHOLE and heard.artifact.sha256 in lacks
    return heard.update.state in _TAKES


def heard_of(tx: Tx, update: Update, artifact: Artifact, *, live: bool) -> Heard:
    """Return an update as a device may speak of it; see `Heard`."""
    round_ = tasks.round_of(tx, update)
    whole = 0
    if update.state is UpdateState.DOWNLOADED:
        boot = _boot_of(round_)
        whole = sum(line.boot == boot and line.kind == Kind.DOWNLOADED for line in tx.lines(update.id))
    return Heard(update, artifact, round_, live, whole)


def _boot_of(round_: int) -> str:
    return f"arduino-{round_}"


def _heard(tx: Tx, device: Device, update: Update) -> Heard | None:
    rollout, artifact = tx.rollout(update.rollout_id), tasks.artifact_of(tx, device, update)
    if rollout is None or rollout.moves or artifact is None:
        return None
    return heard_of(tx, update, artifact, live=rollout.phase not in FINISHED)


def _runs(asked: Asked, artifact: Artifact, has: Has) -> bool | None:
    """Say whether an artifact runs, None where nothing tells it."""
    if asked.says_hash:
        return has(artifact)
    return asked.version == artifact.version if asked.version else None


def _proves(asked: Asked, device: Device, current: Heard, runs: frozenset[str]) -> bool:
    if current.artifact.sha256 not in runs:
        return False
    return asked.says_hash or (current.update.begun and asked.version != device.version)


def _left(device: Device, known: Known, current: Heard | None, is_not: Callable[[Heard], bool]) -> Heard | None:
    """Return the update whose release certainly does not run although the device had every byte, or ran it before."""
    if current is None:
        healthy = (item for item in known.heard if item.update.state is UpdateState.CONFIRMED)
        found = next((item for item in healthy if item.live), None)
    else:
        is_open = current.update.state in _AWAITED and current.update.code not in _NOTED
        found = current if is_open and _known_rel(device) is not None else None
    return found if found is not None and is_not(found) else None


def _names(asked: Asked, device: Device, known: Known, has: Has) -> tuple[int, str]:
    """Return release counter and version of what runs, as far as they are known."""
    if asked.says_hash:
        ours = (*(item.artifact for item in known.heard), *known.before)
        found = next((item for item in ours if has(item)), None)
        if found is not None:
            return found.rel, found.version
    if asked.version and (not asked.says_hash or not device.version):
        return known.rel, asked.version
    return device.rel, device.version


def _known_rel(device: Device) -> int | None:
    return device.rel if device.version or device.rel else None


def _hello(device: Device, rel: int, version: str, facts: OwnFacts | None) -> Hello:
    return Hello(v=1, dev=device.id, model=device.model, ver=version, rel=rel, boot=LATER_BOOT, facts=facts)
