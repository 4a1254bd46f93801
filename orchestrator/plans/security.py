"""The keys of a plan that say what it mends: severity, advisories, and below which release devices are vulnerable.

Rules:
- The form of an advisory is that of `core.targeting.advisory`, here as everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from orchestrator.core.targeting.advisory import ADVISORY, is_advisory
from orchestrator.plans.quantities import LARGEST, shown
from orchestrator.plans.section import Section


@dataclass(frozen=True, slots=True)
class Advisory:
    """The number of an advisory."""

    def read(self, value: object) -> str:
        """Return the number.

        Raises:
            ValueError: it is none.
        """
        if isinstance(value, str) and is_advisory(value):
            return value
        raise ValueError(
            f"{shown(value)} is no advisory; write its number, such as CVE-2026-1234 or GHSA-2g4f-4pwh-qvx6"
        )

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": ADVISORY, "examples": ["CVE-2026-1234", "GHSA-2g4f-4pwh-qvx6"]}


class FixesBody(Section):
    """Which devices the release mends."""

    below: Annotated[
        int,
        Field(strict=True, ge=1, le=LARGEST, description="Devices that run a lower release counter are vulnerable."),
    ]
