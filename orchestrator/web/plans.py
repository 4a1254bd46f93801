"""A plan as people write it, checked all at once.

Rules:
- Unknown keys and values without their unit are refused; every fault is listed, with its place.
- What cannot be meant is refused here (a stage after `rest`, a tolerated rate above 40 %), so that the
  core sees only plans that make sense.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from orchestrator.core.model import Deadlines, Delivery, HaltRule, Plan, SizeKind, StagePlan, Urgency
from orchestrator.errors import ConfigError
from orchestrator.units import parse_duration, parse_share

Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]
Soak = Annotated[float, BeforeValidator(parse_duration), Field(ge=0)]
Share = Annotated[float, BeforeValidator(parse_share)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Count = Annotated[int, Field(ge=1, lt=2**53)]
PPM = 1_000_000


def _parse_size(value: object) -> StagePlan:
    if value == "rest":
        return StagePlan(SizeKind.REST, 0)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**53:
        return StagePlan(SizeKind.COUNT, value)
    if isinstance(value, str) and value.endswith("%"):
        share = parse_share(value)
        if share > 0:
            return StagePlan(SizeKind.PPM, round(share * PPM))
    raise ValueError(f'{value!r:.40} is not a stage size; write a number of devices, a share such as "5%", or "rest"')


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StageBody(_Part):
    """One stage of a plan: how many devices, how long it soaks, what it allows."""

    devices: Annotated[StagePlan, BeforeValidator(_parse_size)]
    soak: Soak = 0.0
    max_failure_bound: Share | None = None

    def to_core(self) -> StagePlan:
        """Return the stage for the core."""
        return StagePlan(self.devices.kind, self.devices.size, self.soak, self.max_failure_bound)


class TargetBody(_Part):
    """Which devices: models and groups; empty for all."""

    models: tuple[Name, ...] = ()
    groups: tuple[Name, ...] = ()


class HaltBody(_Part):
    """When evidence halts the rollout."""

    tolerated: Annotated[Share, Field(gt=0, lt=0.4)] = 0.01
    alpha: Annotated[Share, Field(gt=0, lt=0.5)] = 0.05
    lost_after_reboot: bool = True
    max_failures: Count | None = None
    max_failure_rate: Annotated[Share, Field(gt=0)] | None = None
    min_sample: Count = 20

    def to_core(self) -> HaltRule:
        """Return the rule for the core."""
        return HaltRule(**self.model_dump())


class DeadlinesBody(_Part):
    """How long a device may take for each phase."""

    accept: Duration = 86_400.0
    download: Duration = 3_600.0
    install: Duration = 900.0
    confirm: Duration = 600.0

    def to_core(self) -> Deadlines:
        """Return the deadlines for the core."""
        return Deadlines(self.accept, self.download, self.install, self.confirm)


class PlanBody(_Part):
    """A rollout plan."""

    name: Name
    release: Name
    delivery: Delivery = Delivery.HYBRID
    urgency: Urgency = Urgency.NORMAL
    target: TargetBody = TargetBody()
    in_flight: Count = 100
    stages: Annotated[list[StageBody], Field(min_length=1, max_length=50)]
    halt: HaltBody = HaltBody()
    deadlines: DeadlinesBody = DeadlinesBody()
    confidence: Annotated[Share, Field(ge=0.5, lt=1)] = 0.95
    resolved_share: Annotated[Share, Field(gt=0)] = 0.95
    max_unreached: Share = 0.5
    seed: Annotated[int, Field(ge=0, lt=2**53)] | None = None

    @model_validator(mode="after")
    def _rest_is_last(self) -> PlanBody:
        if any(stage.devices.kind is SizeKind.REST for stage in self.stages[:-1]):
            raise ValueError('only the last stage may take "rest"')
        return self

    def to_core(self) -> Plan:
        """Return the plan for the core."""
        return Plan(
            name=self.name,
            release=self.release,
            stages=tuple(stage.to_core() for stage in self.stages),
            delivery=self.delivery,
            urgency=self.urgency,
            models=self.target.models,
            groups=self.target.groups,
            in_flight=self.in_flight,
            halt=self.halt.to_core(),
            deadlines=self.deadlines.to_core(),
            confidence=self.confidence,
            resolved_share=self.resolved_share,
            max_unreached=self.max_unreached,
            seed=self.seed,
        )


def parse_plan(document: Any) -> Plan:
    """Return the plan that a document means.

    Raises:
        ConfigError: with every fault and its place.
    """
    try:
        return PlanBody.model_validate(document).to_core()
    except ValidationError as error:
        raise ConfigError([describe(fault) for fault in error.errors()]) from None


def describe(fault: Any) -> str:
    """Return one fault of a validation as a sentence with its place."""
    place = ".".join(str(part) for part in fault["loc"] if part != "body") or "the plan"
    text = str(fault["msg"]).removeprefix("Value error, ")
    return f"{place}: {'unknown key' if fault['type'] == 'extra_forbidden' else text}"
