"""The file of a plan, section by section: keys, defaults, and what each key does to the rollout.

Rules:
- One small class per section; every key has its description, which the schema and the editor show.
- Unknown keys and values without their unit are refused. A number is a number: `"100"` and `100.0` are not 100.
- What cannot be meant is refused here (a stage after `rest`, a tolerated rate above 40 %), so that the core sees
  only plans that make sense.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from orchestrator.core.model import Deadlines, Delivery, EvidenceRule, HaltRule, Plan, StagePlan, Urgency
from orchestrator.core.targeting.advisory import MAX_ADVISORIES, Severity
from orchestrator.core.targeting.cohort import MAX_STRATA
from orchestrator.plans import quantities
from orchestrator.plans.gates import GateBody, HealthBody
from orchestrator.plans.pace import (
    ConsentBody,
    FreezeBody,
    QuarantineBody,
    RampBody,
    RequireBody,
    RetryBody,
    WindowBody,
    to_retries,
    to_windows,
)
from orchestrator.plans.quantities import LARGEST, Identifier, StageSize, no_early_rest
from orchestrator.plans.section import Section
from orchestrator.plans.security import Advisory, FixesBody
from orchestrator.plans.targeting import Cohort, Selection, Stratum

Duration = Annotated[float, quantities.DURATION]
Soak = Annotated[float, quantities.SOAK]
Share = Annotated[float, quantities.SHARE]
SomeShare = Annotated[float, quantities.SOME]
Tolerated = Annotated[float, quantities.TOLERATED]
Alpha = Annotated[float, quantities.ALPHA]
Confidence = Annotated[float, quantities.CONFIDENCE]
Name = Annotated[str, Identifier()]
Count = Annotated[int, Field(strict=True, ge=1, le=LARGEST)]
Seed = Annotated[int, Field(strict=True, ge=0, le=LARGEST)]
Flag = Annotated[bool, Field(strict=True)]


class StageBody(Section):
    """One stage of a plan: how many devices, how long it soaks, what it allows."""

    devices: Annotated[
        StagePlan,
        StageSize(),
        Field(description='A number of devices, a share of the whole cohort, or "rest" in the last stage.'),
    ]
    soak: Annotated[
        Soak, Field(description="How long it stays healthy, once its devices are resolved, before it may pass.")
    ] = 0.0
    max_failure_bound: Annotated[
        Share | None,
        Field(
            description="It passes when the failure rate is at most this, with the confidence of the plan. Without it "
            "the default for its size (docs/gates.md)."
        ),
    ] = None

    group: Annotated[
        Name | None,
        Field(
            description="The stage takes its devices from this group alone: a share is one of the group, and rest is "
            "all of it, in any stage; null for the whole cohort."
        ),
    ] = None
    approve: Annotated[
        Flag, Field(description="Whether it passes only once a person says `ota rollout advance`, whatever else holds.")
    ] = False
    gate: Annotated[
        GateBody | None, Field(description="A service that is asked before it passes; null for that of the plan.")
    ] = None

    def to_core(self) -> StagePlan:
        """Return the stage for the core."""
        return StagePlan(
            kind=self.devices.kind,
            size=self.devices.size,
            soak_s=self.soak,
            limit=self.max_failure_bound,
            group=self.group or "",
            approve=self.approve,
            gate=None if self.gate is None else self.gate.to_core(),
        )


class TargetBody(Section):
    """Which devices the rollout takes; empty for all that the release has an artifact for."""

    models: Annotated[tuple[Name, ...], Field(description="Hardware models; empty for all.")] = ()
    groups: Annotated[
        tuple[Name, ...], Field(description="A device is in at least one of these groups; empty for all.")
    ] = ()


class HaltBody(Section):
    """When evidence halts the rollout (docs/gates.md)."""

    tolerated: Annotated[Tolerated, Field(description="Failure rate that is still acceptable.")] = 0.01
    alpha: Annotated[
        Alpha, Field(description="Probability that a release no worse than that is ever halted by evidence.")
    ] = 0.05
    lost_after_reboot: Annotated[
        Flag,
        Field(
            description="Whether one device lost after the reboot halts a stage of at most 20 devices, and two one of "
            "at most 100."
        ),
    ] = True
    max_failures: Annotated[
        Count | None, Field(description="Plain threshold: so many failures halt; null for none.")
    ] = None
    max_failure_rate: Annotated[
        SomeShare | None,
        Field(description="Plain threshold: the rollout halts when this share of the resolved devices failed; null."),
    ] = None
    min_sample: Annotated[
        Count, Field(description="Resolved devices before max_failure_rate is judged; of no use without it.")
    ] = 20

    def to_core(self) -> HaltRule:
        """Return the rule for the core."""
        return HaltRule(**self.model_dump())


class EvidenceBody(Section):
    """Whose word lets a stage pass (docs/gates.md)."""

    registered: Annotated[
        Soak,
        Field(
            description="A device that registered less than this before the start is taken by the last stage only, so "
            "that it is evidence for no other device; 0s takes it like all others."
        ),
    ] = 0.0
    strata: Annotated[
        int,
        Field(
            strict=True,
            ge=0,
            le=MAX_STRATA,
            description="So many values of what the plan stratifies by, or hardware models, must be healthy by "
            "themselves before a stage passes, all if there are fewer; 0 for none.",
        ),
    ] = 0

    def to_core(self) -> EvidenceRule:
        """Return the rule for the core."""
        return EvidenceRule(self.registered, self.strata)


class DeadlinesBody(Section):
    """How long a device may take for each phase."""

    accept: Annotated[
        Duration,
        Field(description="From the offer to the acceptance. A device that never accepts is no evidence."),
    ] = 86_400.0
    download: Annotated[
        Duration, Field(description="From the acceptance to the verified download; silence has then failed.")
    ] = 3_600.0
    install: Annotated[Duration, Field(description="From the download to the reboot; silence has then failed.")] = 900.0
    confirm: Annotated[
        Duration, Field(description='From the reboot to "healthy"; silence is then a device lost after the reboot.')
    ] = 600.0

    def to_core(self) -> Deadlines:
        """Return the deadlines for the core."""
        return Deadlines(self.accept, self.download, self.install, self.confirm)


class PlanBody(Section):
    """A rollout plan: how one release is brought to one cohort, in stages, by evidence."""

    name: Annotated[Name, Field(description="The rollout is called so in every command; no two may be the same.")]
    release: Annotated[Name, Field(description="The release that it brings, as `ota release create` named it.")]
    delivery: Annotated[
        Delivery,
        Field(
            description="How a trigger reaches a device: push (MQTT), poll (the device asks by HTTP) or both, hybrid."
        ),
    ] = Delivery.HYBRID
    urgency: Annotated[Urgency, Field(description="Told to the device. An emergency needs a warrant of cosigners.")] = (
        Urgency.NORMAL
    )
    severity: Annotated[
        Severity, Field(description="How bad it is for a device to stay without the release: none, or low to critical.")
    ] = Severity.NONE
    advisories: Annotated[
        tuple[Annotated[str, Advisory()], ...],
        Field(
            max_length=MAX_ADVISORIES,
            description="Numbers of what the release mends, CVE or GHSA.",
        ),
    ] = ()
    fixes: Annotated[
        FixesBody | None,
        Field(description="Which devices are vulnerable without it; null for those that run an older release."),
    ] = None
    target: Annotated[TargetBody, Field(description="Which devices; without it all.")] = TargetBody()
    select: Annotated[
        str, Selection(), Field(description="A device must meet this selector (docs/targeting.md); empty for all.")
    ] = ""
    cohort: Annotated[
        Cohort,
        Field(
            description="fixed: nobody joins after the start; open: who comes to match joins, within the same limits."
        ),
    ] = Cohort.FIXED
    stratify: Annotated[
        Annotated[str, Stratum()] | None,
        Field(description="Each stage is a fair sample of model, site or attr.NAME; null for the order of the hash."),
    ] = None
    in_flight: Annotated[
        Count,
        Field(description="At most so many devices are updating at once; a stage begins with 10 and earns the others."),
    ] = 100
    stages: Annotated[
        list[StageBody],
        Field(min_length=1, max_length=50, description="The stages, in an order that is drawn anew for each rollout."),
        BeforeValidator(no_early_rest),
    ]
    window: Annotated[WindowBody, Field(description="When devices may be offered it, by their own wall clock.")] = (
        WindowBody()
    )
    freeze: Annotated[
        tuple[FreezeBody, ...],
        Field(max_length=50, description="Days on which no device is offered it, stronger than any window."),
    ] = ()
    urgent_from: Annotated[
        Literal[Urgency.SECURITY, Urgency.EMERGENCY],
        Field(description="From this urgency on, windows, freezes and consent hold no device."),
    ] = Urgency.EMERGENCY
    ramp: Annotated[
        RampBody | None, Field(description="How many updates may start per minute in each stage; null for no limit.")
    ] = None
    jitter: Annotated[
        Soak, Field(description="Over how long the offers to devices that could have it at once are spread.")
    ] = 0.0
    require: Annotated[RequireBody, Field(description="What a device must have said of itself to be offered it.")] = (
        RequireBody()
    )
    consent: Annotated[ConsentBody, Field(description="Whether the user of a device is asked.")] = ConsentBody()
    retry: Annotated[RetryBody, Field(description="How failed attempts are tried again.")] = RetryBody()
    quarantine: Annotated[
        QuarantineBody, Field(description="When a device is left out of all rollouts until a person lets it back.")
    ] = QuarantineBody()
    halt: Annotated[HaltBody, Field(description="When evidence halts the rollout.")] = HaltBody()
    evidence: Annotated[EvidenceBody, Field(description="Whose word lets a stage pass.")] = EvidenceBody()
    deadlines: Annotated[DeadlinesBody, Field(description="How long a device may take for each phase of it.")] = (
        DeadlinesBody()
    )
    confidence: Annotated[Confidence, Field(description="Confidence of the bound that a stage must meet to pass.")] = (
        0.95
    )
    resolved_share: Annotated[
        SomeShare,
        Field(description="Share of the reached devices that must have confirmed or failed before a stage is judged."),
    ] = 0.95
    max_unreached: Annotated[
        Share, Field(description="Share of a stage that may stay unreached; more than that asks a person.")
    ] = 0.5
    health: Annotated[
        tuple[HealthBody, ...],
        Field(max_length=16, description="What devices must measure of themselves; one that does not has failed."),
    ] = ()
    soonest: Annotated[
        Soak,
        Field(
            description="A device that says it is healthy sooner than this after its trigger is not believed, for no "
            "device is so fast; 0s believes all."
        ),
    ] = 0.0
    gate: Annotated[
        GateBody | None,
        Field(description="A service that every stage asks before it passes, unless it has its own; null for none."),
    ] = None
    seed: Annotated[
        Seed | None, Field(description="Fixes the order of the devices, for rehearsals only; null for a secret one.")
    ] = None

    def to_core(self) -> Plan:
        """Return the plan for the core."""
        return Plan(
            name=self.name,
            release=self.release,
            stages=tuple(stage.to_core() for stage in self.stages),
            delivery=self.delivery,
            urgency=self.urgency,
            severity=self.severity,
            advisories=tuple(dict.fromkeys(self.advisories)),
            fixes_below=None if self.fixes is None else self.fixes.below,
            models=self.target.models,
            groups=self.target.groups,
            select=self.select,
            open_cohort=self.cohort is Cohort.OPEN,
            stratify=self.stratify or "",
            in_flight=self.in_flight,
            windows=to_windows(self.window, self.freeze),
            urgent_from=self.urgent_from,
            ramp=None if self.ramp is None else self.ramp.to_core(),
            jitter_s=self.jitter,
            require=self.require.to_core(),
            consent=self.consent.to_core(),
            retry=to_retries(self.retry, self.quarantine),
            halt=self.halt.to_core(),
            evidence=self.evidence.to_core(),
            deadlines=self.deadlines.to_core(),
            confidence=self.confidence,
            resolved_share=self.resolved_share,
            max_unreached=self.max_unreached,
            seed=self.seed,
            health=tuple(rule.to_core() for rule in self.health),
            soonest_s=self.soonest,
            gate=None if self.gate is None else self.gate.to_core(),
        )
