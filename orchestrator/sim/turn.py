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
from orchestrator.verifier import Component
from orchestrator.wire.report import Kind, Report

_HEALTHY = (Kind.RUNNING, Kind.CONFIRMED)


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

    def hold(self, component: Component) -> None:
        """Keep the verifier's durable state of a component."""
        self.keep(**{"endpoints" if component.name == self.flash.endpoints.name else "component": component})

    def enter(self, phase: Phase, wake_in_s: float | None = None) -> None:
        """Go to a phase, with a `Tick` wanted after a while or not at all."""
        wake_at = None if wake_in_s is None else self.now + wake_in_s
        self.unit = replace(self.unit, phase=phase, wake_at=wake_at)

    def note(self, event: str, code: str = "", att: str = "") -> None:
        """Note what truly happened."""
        self.effects.append(Note(event, code, att))

    def say(self, kind: Kind, **fields: Any) -> None:
        """Report about the update in progress, and remember it as the last word about its component."""
        attempt = self.attempt
        report = self.report(kind, attempt.att, attempt.seq, **{"rel": self.unit.release(attempt.component), **fields})
        self.keep(last={**self.flash.last, attempt.component: report})

    def report(self, kind: Kind, att: str, seq: int, **fields: Any) -> Report:
        """Report about any attempt, and return the report."""
        unit = self.unit
        said: dict[str, Any] = {"ver": unit.running.version, "rel": unit.running.rel, **fields}
        if kind in _HEALTHY:
            said["metrics"] = unit.metrics
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
        self.effects += [Say(report) for report in self.flash.last.values() if report.att == att]

    def close(self) -> None:
        """End the update in progress."""
        self.unit = replace(self.unit, flash=self.flash.closed(), tries=0, trial=None)
        self.enter(Phase.IDLE)
