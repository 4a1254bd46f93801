"""schemathesis over the whole document, against the real application: no server error, every answer documented.

Rules:
- For the answers every object is closed: a field that nobody described is found.
- Short here, and the same each time; `API_EXAMPLES=200` makes other and longer searches.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from orchestrator.web.app import document
from tests.cli.house import House, house
from tests.web.site import PLAN, TOKEN

LONG = int(os.environ.get("API_EXAMPLES", "0"))
EXAMPLES = LONG or 3
NOT_ASKED = {
    "listen": "a stream without an end; tests/web/test_events.py listens",
    "ddi_poll": "another server's protocol; tests/web/test_ddi.py speaks it",
    "arduino_update": "its clients know 200 and 304 alone; tests/web/test_arduino.py speaks it",
    "esp_idf_update": "another server's protocol; tests/web/test_espidf.py speaks it",
}
KNOWN = {"name": "spring", "device_id": "d1", "proposal_id": 1, "review_id": 1, "epoch": 1}
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]


def closed(made: dict[str, Any]) -> dict[str, Any]:
    """Return the document with every object closed that says nothing else."""
    found = copy.deepcopy(made)
    for schema in found["components"]["schemas"].values():
        if schema.get("type") == "object" and "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return found


DOCUMENT = document()


def operations() -> dict[str, Any]:
    """Return the operations of the document by their names."""
    found = {}
    for result in schemathesis.openapi.from_dict(closed(DOCUMENT)).get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        found[operation.definition.raw["operationId"]] = operation
    return found


OPERATIONS = operations()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Run a site with something of everything."""
    with house(tmp_path_factory.mktemp("site")) as running:
        site = running.site
        running.do(site.enrol("d1", "d2"))
        sha256 = running.do(site.release())
        running.do(site.roll_out())
        running.do(site.ops("POST", "/rollouts", PLAN | {"name": "autumn"}))
        KNOWN["sha256"] = sha256
        yield running


def test_the_document_is_one_of_openapi_3_1() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    validate(DOCUMENT)


def test_every_operation_of_ours_says_what_it_is_and_how_it_refuses() -> None:
    for name, operation in OPERATIONS.items():
        said = operation.definition.raw
        assert said["summary"], name
        assert said["tags"], name
        assert any(status[0] in "23" for status in said["responses"]), name
        if said["tags"] != ["dialects"] and name != "device_keyset":
            assert {"401", "500", "503"} <= set(said["responses"]), name


@pytest.mark.parametrize("name", sorted(OPERATIONS.keys() - NOT_ASKED))
def test_no_server_error_and_every_answer_documented(name: str, daemon: House) -> None:
    operation = OPERATIONS[name]
    of_device = "device" in operation.definition.raw["tags"]
    token = daemon.site.tokens["d1"] if of_device else TOKEN
    wanted = {item.name for item in operation.path_parameters}
    known = {name: value for name, value in KNOWN.items() if name in wanted}

    def ask(case: Any) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        answer = case.call(base_url=daemon.origin, headers=headers, allow_redirects=False)
        assert answer.status_code in (503, *range(500)), answer.text  # 503 says what is away, and is no fault of ours
        case.validate_response(answer, checks=CHECKS)

    way = settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=not LONG,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    ways = [operation.as_strategy(GenerationMode.POSITIVE, path_parameters=known or None)]
    if operation.path_parameters or operation.query or operation.body:
        ways.append(operation.as_strategy(GenerationMode.NEGATIVE))
    for strategy in ways:
        way(given(case=strategy)(ask))()
