"""Plans as operators write them: the model of the file, its reader, its schema, and templates to copy."""

from orchestrator.plans.faults import Fault, PlanError, describe
from orchestrator.plans.model import Name, PlanBody
from orchestrator.plans.read import parse_plan, read_document, read_plan
from orchestrator.plans.schema import schema, schema_text
from orchestrator.plans.templates import TEMPLATES, purpose, template

__all__ = [
    "TEMPLATES",
    "Fault",
    "Name",
    "PlanBody",
    "PlanError",
    "describe",
    "parse_plan",
    "purpose",
    "read_document",
    "read_plan",
    "schema",
    "schema_text",
    "template",
]
