"""How many requests come by which route, how they are answered, and how long that takes.

Rules:
- Routes are told apart by their templates, never by what somebody asked for: nobody can make another line by asking.
- How long an answer takes ends with its head: how fast a device takes an image says nothing of us.
- A caller that left before an answer began is counted with status 0.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.core.timing import Timing

UNKNOWN = "none"
"""Route of a request that no route is there for."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_DEVICES = frozenset(
    {
        "/api/v1/firmware/version",
        "/api/v1/keys/{epoch}",
        "/api/v1/beat",
        "/api/v1/report",
        "/api/v1/hello",
        "/v1/dl/{sha256}",
    }
)
_EDGES = (
    ("/{tenant}/controller/", "ddi"),
    ("/ota/arduino", "arduino"),
    ("/ota/esp-idf", "esp-idf"),
    ("/rest/v1", "hawkbit"),
    ("/api/", "api"),
    ("/metrics", "probe"),
    ("/healthz", "probe"),
    ("/readyz", "probe"),
    ("/openapi.json", "api"),
)


class Asked(NamedTuple):
    """What requests have in common that are counted together.

    Attributes:
        edge: who such a route is for.
        method: of HTTP, `other` for one that we do not know.
        route: template of its path.
    """

    edge: str
    method: str
    route: str


class Meter:
    """What was counted.

    Attributes:
        answers: requests by what was asked and the status that it was answered with.
        times: how long it took to the head of the answer.
        open: requests that are being answered now.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Asked] = {}
        self.answers: Counter[tuple[Asked, int]] = Counter()
        self.times: dict[Asked, Timing] = {}
        self.open = 0

    def count(self, method: str, template: str, status: int, took_s: float) -> None:
        """Count a request that is over.

        Args:
            method: of HTTP.
            template: of the route that it took.
            status: what it was answered with, 0 if it was not.
            took_s: time to the head of the answer.
        """
        asked = self._known.get((method, template)) or self._asked(method, template)
        self.answers[asked, status] += 1
        if status:
            self.times[asked].note(took_s)

    def _asked(self, method: str, template: str) -> Asked:
        asked = Asked(edge_of(template), method if method in _METHODS else "other", template)
        if method in _METHODS:
            self._known[method, template] = asked
        self.times.setdefault(asked, Timing())
        return asked


class Metered:
    """Counts the requests of an application.

    Args:
        app: the application.
        meter: where they are counted.
        ticks: a clock that never goes back, in seconds.
    """

    def __init__(self, app: ASGIApp, meter: Meter, ticks: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._meter = meter
        self._ticks = ticks
        self._templates: dict[object, str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count how it was answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, took_s = self._ticks(), 0, 0.0

        async def watched(message: Message) -> None:
            nonlocal status, took_s
            if message["type"] == "http.response.start":
                status, took_s = message["status"], self._ticks() - began
            await send(message)

        self._meter.open += 1
        try:
            await self._app(scope, receive, watched)
        finally:
            self._meter.open -= 1
            self._meter.count(scope["method"], self._template(scope), status, took_s)

    def _template(self, scope: Scope) -> str:
        """Return the template of the route that took a request; FastAPI says it of its own routes alone."""
        route, endpoint = scope.get("route"), scope.get("endpoint")
        if isinstance(route, Route):
            return route.path_format
        if endpoint is None:
            return UNKNOWN
        if endpoint not in self._templates:
            routes = [item for item in scope["router"].routes if isinstance(item, Route)]
            self._templates |= {item.endpoint: item.path_format for item in reversed(routes)}
        return self._templates.setdefault(endpoint, UNKNOWN)


def edge_of(template: str) -> str:
    """Return who a route is for: `device`, a dialect, `hawkbit`, `api`, `probe`, `pages`, or `none` for no route."""
    if template in _DEVICES:
        return "device"
    if template == UNKNOWN:
        return UNKNOWN
    return next((edge for prefix, edge in _EDGES if template.startswith(prefix)), "pages")
