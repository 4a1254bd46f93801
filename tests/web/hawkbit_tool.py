"""A tool around hawkBit: the calls that the test rigs of its clients make, in their order and shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx2

from orchestrator.core.trust.roles import Role
from tests.web.site import TOKEN, Site, statement

View = dict[str, Any]


@dataclass
class Tool:
    """Calls the Management API.

    Attributes:
        web: the application.
        login: account and token; the shared one at first.
    """

    web: Site
    login: tuple[str, str] = ("operator", TOKEN)

    async def call(self, method: str, path: str, body: object = None, **more: Any) -> httpx2.Response:
        """Send a request below `/rest/v1`."""
        return await self.web.http.request(method, f"/rest/v1/{path}", json=body, auth=self.login, **more)

    async def get(self, path: str) -> Any:
        """Return what lies there; anything but 200 is an error to these tools."""
        answer = await self.call("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, body: object) -> Any:
        """Post, which succeeds."""
        answer = await self.call("POST", path, body)
        assert 200 <= answer.status_code < 300, answer.text
        return answer.json()

    async def delete(self, path: str) -> int:
        """Delete, and return the status."""
        return (await self.call("DELETE", path)).status_code

    async def add_target(self, name: str = "test-1.5", token: str = "") -> str:
        """Make a target, and read its token from it as the rigs do."""
        body = {"controllerId": name, "name": name} | ({"securityToken": token} if token else {})
        await self.post("targets", [body])
        found: str = (await self.get(f"targets/{name}"))["securityToken"]
        self.web.tokens[name] = found
        return found

    async def add_module(self, version: str = "1.0") -> int:
        """Make a module."""
        [made] = await self.post("softwaremodules", [{"name": "software", "version": version, "type": "os"}])
        return int(made["id"])

    async def upload(self, module: int, name: str, data: bytes, statement_: bytes | None = None) -> httpx2.Response:
        """Upload a file, with its statement in the same form if it is given."""
        files: dict[str, Any] = {"file": (name, data)}
        if statement_ is not None:
            files["statement"] = (f"{name}.statement", statement_)
        path = f"/rest/v1/softwaremodules/{module}/artifacts"
        return await self.web.http.post(path, files=files, auth=self.login)

    async def add_set(self, *modules: int, version: str = "1.0") -> int:
        """Make a set."""
        body = {"name": f"set {version}", "description": "a test", "version": version, "type": "os"}
        [made] = await self.post("distributionsets", [body | {"modules": [{"id": each} for each in modules]}])
        return int(made["id"])

    async def assign(self, set_: int, target: str = "test-1.5") -> int:
        """Assign a set to a target, and return the number of the action."""
        answer = await self.post(f"distributionsets/{set_}/assignedTargets", [{"id": target}])
        number: int = answer["assignedActions"][-1]["id"]
        await self.web.plant.seal()
        return number

    async def ready(self, data: bytes, rel: int = 2, name: str = "bundle.raucb") -> int:
        """Do what rigs do before they assign: a module, its artifact and a set; returns the set."""
        module = await self.add_module(f"{rel}.0")
        answer = await self.upload(module, name, data, statement(data, rel, ("m1",)))
        assert answer.status_code == 201, answer.text
        return await self.add_set(module)

    async def as_role(self, *roles: Role, name: str = "ann") -> Tool:
        """Return the same tool with the login of an account that is made for it."""
        return Tool(self.web, (name, await self.web.operator(name, *roles)))
