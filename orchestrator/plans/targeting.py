"""Values of a plan that say which devices: a selector, and what to stratify by.

Rules:
- A selector is read by `core.targeting.selector`, here as everywhere; a schema can only say how long it may be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from orchestrator.core.targeting import selector
from orchestrator.errors import RequestError
from orchestrator.plans.quantities import shown

STRATIFY = rf"^(model|site|attr\.{selector.ATTRIBUTE.pattern})$"


class Cohort(StrEnum):
    """Who may be in a rollout after it was started."""

    FIXED = "fixed"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Selection:
    """A selector."""

    def read(self, value: object) -> str:
        """Return the text of a selector.

        Raises:
            ValueError: it is none.
        """
        if not isinstance(value, str):
            raise ValueError(f"{shown(value)} is no selector; write a text such as 'site like \"berlin-*\"'")
        try:
            return selector.parse(value).text
        except RequestError as error:
            raise ValueError(error.message) from None

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> dict[str, Any]:
        examples = ['site like "berlin-*" and not tag(canary)', 'version < 1.4 and attr.region in ("eu", "us")']
        return {"type": "string", "maxLength": selector.MAX_CHARS, "examples": examples}


@dataclass(frozen=True, slots=True)
class Stratum:
    """What each stage is a fair sample of."""

    def read(self, value: object) -> str:
        """Return the word.

        Raises:
            ValueError: it is none.
        """
        if isinstance(value, str) and re.fullmatch(STRATIFY, value):
            return value
        raise ValueError(f"{shown(value)} is nothing to stratify by; write model, site, or attr.NAME")

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": STRATIFY, "examples": ["model", "site", "attr.region"]}
