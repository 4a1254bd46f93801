"""One step of a device in the making.

Rules:
- Handlers change a device only through a turn, so that each change and each effect has one way to happen.
- A report gets its number here and nowhere else: numbers rise by one within a boot.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchestrator.sim.events import Effect, Note, Say
from orchestrator.sim.flash import Attempt, Flash
from orchestrator.sim.unit import Phase, Unit
from orchestrator.wire.report import Kind, Report


class Turn:
    """The unit as changed so far, and the effects so far.

    Attributes:
        unit: the device, as this step has changed it.
        now: epoch seconds of the step.
        effects: what is to be done, in order.
    """

    def __init__(self, unit: Unit, now: float) -> None:
        self.unit = unit
        self.now = now
        self.effects: list[Effect] = []

    @property
    def flash(self) -> Flash:
        """What survives a reboot."""
        return self.unit.flash

    @property
    def attempt(self) -> Attempt:
        """The update in progress; only phases that have one may ask."""
        attempt = self.flash.attempt
        assert attempt is not None, "this phase has an attempt"
        return attempt

    def keep(self, **changes: Any) -> None:
        """Change what survives a reboot."""
        self.unit = replace(self.unit, flash=replace(self.flash, **changes))

    def enter(self, phase: Phase, wake_in_s: float | None = None) -> None:
        """Go to a phase, with a `Tick` wanted after a while or not at all."""
        wake_at = None if wake_in_s is None else self.now + wake_in_s
        self.unit = replace(self.unit, phase=phase, wake_at=wake_at)

    def note(self, event: str, code: str = "", att: str = "") -> None:
        """Note what truly happened."""
        self.effects.append(Note(event, code, att))

    def say(self, kind: Kind, **fields: Any) -> None:
        """Report about the update in progress, and remember it as the last word."""
        report = self.report(kind, self.attempt.att, self.attempt.seq, **fields)
        self.keep(last=report)

    def report(self, kind: Kind, att: str, seq: int, **fields: Any) -> Report:
        """Report about any attempt, and return the report."""
        unit = self.unit
        said: dict[str, Any] = {"ver": unit.running.version, "rel": unit.running.rel, **fields}
        report = Report(
            v=1,
            dev=unit.profile.device,
            att=att,
            boot=unit.boot,
            n=unit.n,
            kind=kind,
            seq=seq,
            boots=unit.flash.boots,
            bat=unit.profile.battery,
            sha=unit.running.sha256[:12],
            **said,
        )
        self.unit = replace(unit, n=unit.n + 1)
        self.effects.append(Say(report))
        return report

    def repeat(self, att: str) -> None:
        """Say the last report about an attempt again, with its old number."""
        if self.flash.last is not None and self.flash.last.att == att:
            self.effects.append(Say(self.flash.last))

    def close(self) -> None:
        """End the update in progress."""
        self.unit = replace(self.unit, flash=self.flash.closed(), tries=0)
        self.enter(Phase.IDLE)
