"""Every route of the application, and who may call it. A new route without a line here fails."""

from __future__ import annotations

from typing import Any, cast

import pytest
from fastapi import FastAPI

from orchestrator.core.trust.roles import ACT_OF, PERMITTED, Act, Role
from tests.web.site import TOKEN, Site, problem

DEVICE, PUBLIC, COMMAND = "a device", "everybody", "what the command is"
PAGE = "who is signed in; tests/web/pages has what each may"
UPDATER = "an updater, which hears nothing but 304"
A = Act
ROUTES: dict[str, Act | str] = {
    "GET /healthz": PUBLIC,
    "GET /readyz": PUBLIC,
    "GET /metrics": A.READ,
    "GET /static/{name:path}": PUBLIC,
    "GET /login": PUBLIC,
    "POST /login": PUBLIC,
    "POST /logout": PAGE,
    "GET /": PAGE,
    "GET /rollouts": PAGE,
    "GET /rollouts/{name}": PAGE,
    "GET /changes/fleet": PAGE,
    "GET /changes/rollouts": PAGE,
    "GET /changes/rollouts/{name}": PAGE,
    "GET /changes/approvals": PAGE,
    "GET /changes/devices/{device_id}": PAGE,
    "POST /rollouts/{name}/rollback": PAGE,
    "POST /rollouts/{name}/{command}": PAGE,
    "GET /devices": PAGE,
    "GET /devices/{device_id}": PAGE,
    "POST /devices/{device_id}/quarantine": PAGE,
    "POST /devices/{device_id}/release": PAGE,
    "GET /artifacts": PAGE,
    "GET /approvals": PAGE,
    "POST /approvals/{proposal_id:int}/approve": PAGE,
    "POST /approvals/{proposal_id:int}/reject": PAGE,
    "POST /reviews/{review_id:int}/close": PAGE,
    "GET /audit": PAGE,
    "GET /audit/export": PAGE,
    "GET /keys": PAGE,
    "GET /accounts": PAGE,
    "POST /accounts/add": PAGE,
    "POST /accounts/{name}/token": PAGE,
    "POST /accounts/{name}/remove": PAGE,
    "POST /tokens/{token_id}/revoke": PAGE,
    "GET /api/v1/openapi.json": PUBLIC,
    "GET /api/v1/keys/{epoch:int}": PUBLIC,
    "GET /api/v1/firmware/version": DEVICE,
    "GET /api/v1/beat": DEVICE,
    "POST /api/v1/report": DEVICE,
    "POST /api/v1/hello": DEVICE,
    "GET /v1/dl/{sha256}": DEVICE,
    "GET /ota/esp-idf": DEVICE,
    "GET /ota/esp-idf/{token}": DEVICE,
    "GET /ota/arduino": UPDATER,
    "GET /ota/arduino/{token:path}": UPDATER,
    "GET /{tenant}/controller/v1/{device}": DEVICE,
    "PUT /{tenant}/controller/v1/{device}/configData": DEVICE,
    "GET /{tenant}/controller/v1/{device}/deploymentBase/{id}": DEVICE,
    "POST /{tenant}/controller/v1/{device}/deploymentBase/{id}/feedback": DEVICE,
    "GET /{tenant}/controller/v1/{device}/cancelAction/{id}": DEVICE,
    "POST /{tenant}/controller/v1/{device}/cancelAction/{id}/feedback": DEVICE,
    "GET /{tenant}/controller/v1/{device}/installedBase/{id}": DEVICE,
    "PUT /{tenant}/controller/v1/{device}/installedBase": DEVICE,
    "GET /{tenant}/controller/v1/{device}/confirmationBase": DEVICE,
    "GET /{tenant}/controller/v1/{device}/confirmationBase/{id}": DEVICE,
    "POST /{tenant}/controller/v1/{device}/confirmationBase/{id}/feedback": DEVICE,
    "POST /{tenant}/controller/v1/{device}/confirmationBase/activateAutoConfirm": DEVICE,
    "POST /{tenant}/controller/v1/{device}/confirmationBase/deactivateAutoConfirm": DEVICE,
    "GET /{tenant}/controller/v1/{device}/softwaremodules/{id}/artifacts/{file}": DEVICE,
    "GET /{tenant}/controller/v1/{device}/softwaremodules/{id}/artifacts/{file}.MD5SUM": DEVICE,
    "GET /api/v1/status": A.READ,
    "GET /api/v1/events": A.READ,
    "POST /api/v1/artifacts": A.IMPORT,
    "GET /api/v1/artifacts": A.READ,
    "GET /api/v1/artifacts/{sha256}": A.READ,
    "POST /api/v1/releases": A.RELEASE,
    "GET /api/v1/releases": A.READ,
    "POST /api/v1/devices": A.ENROL,
    "GET /api/v1/devices": A.READ,
    "POST /api/v1/devices/facts": A.ENROL,
    "POST /api/v1/devices/quarantine": A.QUARANTINE,
    "POST /api/v1/devices/release": A.QUARANTINE,
    "GET /api/v1/devices/{device_id}": A.READ,
    "GET /api/v1/devices/{device_id}/explain": A.READ,
    "POST /api/v1/rollouts": A.CREATE,
    "GET /api/v1/rollouts": A.READ,
    "POST /api/v1/rollouts/preview": A.CREATE,
    "GET /api/v1/rollouts/{name}/preview": A.CREATE,
    "GET /api/v1/rollouts/{name}": A.READ,
    "GET /api/v1/rollouts/{name}/explain": A.READ,
    "GET /api/v1/rollouts/{name}/curve": A.READ,
    "GET /api/v1/endpoints": A.READ,
    "GET /api/v1/exposed": A.READ,
    "GET /api/v1/exposed/devices": A.READ,
    "GET /api/v1/rollouts/{name}/history": A.READ,
    "POST /api/v1/rollouts/{name}/edit": A.EDIT,
    "POST /api/v1/rollouts/{name}/rollback": A.CREATE,
    "POST /api/v1/rollouts/{name}/{command}": COMMAND,
    "GET /api/v1/rollouts/{name}/warrant": A.READ,
    "POST /api/v1/rollouts/{name}/warrant": A.CREATE,
    "GET /api/v1/approvals": A.READ,
    "GET /api/v1/approvals/{proposal_id}": A.READ,
    "POST /api/v1/approvals/{proposal_id}/approve": A.APPROVE,
    "POST /api/v1/approvals/{proposal_id}/reject": A.APPROVE,
    "POST /api/v1/reviews/{review_id}/close": A.APPROVE,
    "GET /api/v1/operators": A.MANAGE,
    "POST /api/v1/operators": A.MANAGE,
    "POST /api/v1/operators/{name}/tokens": A.MANAGE,
    "POST /api/v1/operators/{name}/remove": A.MANAGE,
    "POST /api/v1/tokens/{token_id}/revoke": A.MANAGE,
    "GET /api/v1/keyset": A.READ,
    "POST /api/v1/keyset": A.REKEY,
    "GET /api/v1/webhooks": A.CONNECT,
    "POST /api/v1/webhooks": A.CONNECT,
    "GET /api/v1/webhooks/{webhook_id}": A.CONNECT,
    "POST /api/v1/webhooks/{webhook_id}/rotate": A.CONNECT,
    "POST /api/v1/webhooks/{webhook_id}/resume": A.CONNECT,
    "POST /api/v1/webhooks/{webhook_id}/test": A.CONNECT,
    "POST /api/v1/webhooks/{webhook_id}/remove": A.CONNECT,
    "GET /api/v1/audit": A.READ,
    "GET /api/v1/audit/sealed": A.READ,
}
NAMES = {
    "proposal_id": "1",
    "review_id": "1",
    "device_id": "d1",
    "name": "spring",
    "token_id": "0a",
    "webhook_id": "wh_0a",
    "sha256": "A" * 43,
    "tenant": "DEFAULT",
    "device": "d1",
    "id": "1",
    "file": "a.swu",
    "token": "otad_x",
}


def calls() -> list[tuple[str, str, Act]]:
    """Return the calls that operators can make: method, path, act."""
    found = []
    for line, who in ROUTES.items():
        method, _, path = line.partition(" ")
        if who == COMMAND:
            found += [(method, path.format(**NAMES, command=command), act) for command, act in ACT_OF.items()]
        elif isinstance(who, Act):
            found.append((method, path.format(**NAMES), who))
    return found


def routes_of(web: Site) -> set[str]:
    app = cast(FastAPI, cast(Any, web.app)._app)
    return set(_walk(app.routes))


def _walk(routes: Any) -> list[str]:
    found = []
    for route in routes:
        if inner := getattr(route, "original_router", None):  # how FastAPI keeps an included router
            found += _walk(inner.routes)
            continue
        assert route.methods, f"{route.path} takes any method"
        found += [f"{method} {route.path}" for method in route.methods if method != "HEAD"]
    return found


def test_every_act_is_that_of_a_route() -> None:
    assert {act for _, _, act in calls()} == set(Act) - {Act.BREAK_GLASS}


async def test_every_route_stands_in_the_table(web: Site) -> None:
    assert routes_of(web) == set(ROUTES)


@pytest.mark.parametrize("token", ["", "wrong", "otad_op_0000000000000000_" + "A" * 43])
async def test_without_a_good_token_nothing_is_said(web: Site, token: str) -> None:
    said = set()
    for method, path, _ in calls():
        answer = await web.http.request(method, path, json={}, headers={"Authorization": f"Bearer {token}"})
        assert problem(answer) == (401, "unauthorised")
        said.add(answer.text)
    assert len(said) == 1


@pytest.mark.parametrize("role", list(Role))
async def test_a_role_may_call_what_it_permits_and_no_more(web: Site, role: Role) -> None:
    token = await web.operator("ann", role)
    for method, path, act in calls():
        answer = await web.http.request(method, path, json={}, headers={"Authorization": f"Bearer {token}"})
        if act in PERMITTED[role]:
            assert answer.status_code not in (401, 403), path
        else:
            assert problem(answer) == (403, "not_permitted"), path
            assert answer.json()["detail"].startswith(f"ann may not {act}; that takes the role ")


async def test_the_shared_operator_may_call_everything(web: Site) -> None:
    for method, path, _ in calls():
        answer = await web.http.request(method, path, json={}, headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status_code not in (401, 403), path


async def test_the_routes_of_devices_take_no_operator(web: Site) -> None:
    token = await web.operator("ann", *Role)
    for line, who in ROUTES.items():
        if who == DEVICE:
            method, _, path = line.partition(" ")
            answer = await web.http.request(method, path.format(**NAMES), headers={"Authorization": f"Bearer {token}"})
            assert problem(answer) == (401, "unauthorised")
