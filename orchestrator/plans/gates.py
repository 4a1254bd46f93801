"""The sections of a plan that say what else must hold: numbers of the devices, and services that are asked.

Rules:
- As in `model.py`: one small class per section, every key with its description, unknown keys refused.
- A bound and a condition are texts with one pattern each, so that the schema and the model draw the same line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from orchestrator.core.judging.health import HealthRule, Missing, Side
from orchestrator.core.judging.outside import CONDITION, IfUnmet, ServiceGate
from orchestrator.plans import quantities
from orchestrator.plans.quantities import quoted, shown
from orchestrator.plans.section import Section

Duration = Annotated[float, quantities.DURATION]

METRIC = r"^[a-z][a-z0-9_]{0,31}$"
BOUND = r"^(above|below) -?[0-9]{1,15}(\.[0-9]{1,9})?$"
URL = r"^https?://([a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(:[1-9][0-9]{0,4})?(/[!%-;=?-Z_a-z~]{0,500})?$"


@dataclass(frozen=True, slots=True)
class Written:
    """A text with a pattern.

    Attributes:
        pattern: texts that are allowed, anchored at both ends, in the syntax of ECMA 262.
        allowed: the same in words.
        examples: texts that are allowed.
    """

    pattern: str
    allowed: str
    examples: tuple[str, ...]

    def read(self, value: object) -> str:
        """Return the text.

        Raises:
            ValueError: it is not an allowed one.
        """
        if isinstance(value, str) and re.fullmatch(self.pattern.removesuffix("$"), value):
            return value
        raise ValueError(f"{shown(value)} is not allowed; write {self.allowed}, such as {quoted(self.examples)}")

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": self.pattern, "examples": list(self.examples)}


Metric = Annotated[str, Written(METRIC, "lower-case letters, digits and underscores", ("temperature", "p95_ms"))]
Bound = Annotated[str, Written(BOUND, "above or below, and a number", ("below 80", "above 3.3"))]
Url = Annotated[
    str, Written(URL, "the address of a service without a user or a fragment", ("https://metrics.example.net/ota",))
]
Condition = Annotated[
    str,
    Written(
        CONDITION, "a path, a comparison and a value, with a space between", ('status == "ok"', "errors.rate < 0.01")
    ),
]


class HealthBody(Section):
    """What one number of every device must be."""

    metric: Annotated[Metric, Field(description="Its name, as devices report it.")]
    must_be: Annotated[Bound, Field(description="A device for which this does not hold has failed.")]
    missing: Annotated[
        Missing, Field(description="What follows for a healthy device that does not say it: ignore it, or fail it.")
    ] = Missing.IGNORE

    def to_core(self) -> HealthRule:
        """Return the rule for the core."""
        side, number = self.must_be.split(" ")
        return HealthRule(self.metric, Side(side), float(number), self.missing)


class GateBody(Section):
    """A service that is asked before a stage passes; its origin must be listed in the configuration."""

    url: Annotated[Url, Field(description="Asked by GET, for JSON of at most 64 KiB.")]
    condition: Annotated[Condition, Field(description="What the answer must meet: a comparison with one value in it.")]
    every: Annotated[Duration, Field(description="Pause between two questions, while the stage is open.")] = 60.0
    timeout: Annotated[Duration, Field(description="How long an answer may take; none in time holds.")] = 10.0
    if_unmet: Annotated[
        IfUnmet, Field(description="What an answer does that does not meet it: hold the stage, or halt the rollout.")
    ] = IfUnmet.HOLD

    def to_core(self) -> ServiceGate:
        """Return the gate for the core."""
        return ServiceGate(self.url, self.condition, self.every, self.timeout, self.if_unmet)
