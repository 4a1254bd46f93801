"""What older clients and tools say: whole calls of theirs into the application, and the parsers behind these.

Rules:
- A call is one line with method and address, then headers, a blank line, and the body, as a server reads it.
- The device has an open offer, so that there is something to fetch. The application may answer anything but 5xx, and to
  an updater of Arduino nothing but what its core survives.
- Nothing leaves the process: no socket is opened.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from base64 import b64encode
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from starlette.datastructures import QueryParams
from starlette.requests import Request

from orchestrator.core.trigger import statement_claims
from orchestrator.errors import PayloadError, RequestError
from orchestrator.web.dialects import espidf_words
from orchestrator.web.management import said
from orchestrator.wire.token import TokenType, assemble, encode64, signing_input
from tests.fuzz.served_targets import NoRequestError, scope_of, status_of
from tests.fuzz.target import Parser, Target
from tests.fuzz.wire_targets import ATTRIBUTES, FEEDBACK
from tests.support.factory import ARTIFACT_KEY, make_artifact
from tests.web.arduino_site import image_of
from tests.web.ddi_client import allow, enrol
from tests.web.site import Site, site

_CALL = re.compile(
    rb"([A-Z]{1,16}) (/[\x21-\x7e]*)\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\n)*)\n(.*)", re.DOTALL
)
"""What uvicorn reads; it answers anything else by itself."""
_DDI, _IDF, _ESP32 = "door-ddi", "door-idf", "door-esp32"
_PLACE = f"/DEFAULT/controller/v1/{_DDI}".encode()
_ASKED = b"x-ESP32-STA-MAC: DE:BA:7A:B1:E0:42\nx-ESP32-free-space: 1310720\nx-ESP32-mode: sketch\n"
_NEVER = range(500, 600)
_SURVIVED = (200, 304, 403)


@contextmanager
def dialect_targets(folder: Path) -> Iterator[list[Target]]:
    """Return the targets; the application and its database live below `folder` until the end."""
    folder.mkdir()
    with asyncio.Runner() as runner:
        serving = site(folder)
        served = runner.run(serving.__aenter__())
        try:
            runner.run(_offer(served))
            yield [*_calls(runner, served), *_words()]
        finally:
            runner.run(serving.__aexit__(None, None, None))


async def _offer(served: Site) -> None:
    """Offer one image, which is one for an ESP32, to a device of each dialect."""
    image, path = image_of("esp32", 2), served.folder / "fw.bin"
    sha256 = encode64(hashlib.sha256(image).digest())
    stated = make_artifact(2, ("m1",), size_bytes=len(image), sha256=sha256, format="esp32")
    signed = signing_input(TokenType.ARTIFACT, ARTIFACT_KEY.kid, statement_claims(stated, issued_at=1_700_000_000))
    path.write_bytes(image)
    Path(f"{path}.statement").write_bytes(assemble(signed, ARTIFACT_KEY.sign(signed)))
    await allow(served)
    assert (await served.ops("POST", "/artifacts", {"uri": path.as_uri()})).status_code == 201
    assert (await served.ops("POST", "/releases", {"name": "radio-2", "artifacts": [sha256]})).status_code == 201
    for device, dialect in ((_DDI, "ddi"), (_IDF, "esp-idf"), (_ESP32, "esp32")):
        await enrol(served, device, dialect=dialect)
    await served.roll_out()
    await served.plant.seal()


def _calls(runner: asyncio.Runner, served: Site) -> list[Target]:
    spoken = [b"GET " + _PLACE + b"\nuser-agent: libcurl-agent/1.0\naccept: application/hal+json\n\n"]
    spoken += [
        b"POST " + _PLACE + b"/deploymentBase/1/feedback\nuser-agent: rauc-hawkbit-c-agent/1.4\n\n" + FEEDBACK,
        b"PUT " + _PLACE + b"/configData\n\n" + ATTRIBUTES,
        b"GET " + _PLACE + b"/softwaremodules/1/artifacts/radio-2.0.0.bin\nrange: bytes=3-9, -2\nif-range: *\n\n",
        b"POST " + _PLACE + b'/confirmationBase/1/feedback\n\n{"confirmation":"denied","code":1}',
        b"GET " + _PLACE + b"/installedBase/1?actionHistory=-1\n\n",
    ]
    fetched = [b"GET /ota/esp-idf?version=1.0.0&state=valid\n\n", b"HEAD /ota/esp-idf\nrange: bytes=0-1023\n\n"]
    fetched += [b'GET /ota/esp-idf\nx-esp-app-version: 1\nrange: bytes=7-\nif-range: "a"\nif-none-match: W/"b"\n\n']
    asked = [b"GET /ota/arduino\n" + _ASKED + b"\n", b"GET /ota/arduino/otad_x%2f\n" + _ASKED + b"range: bytes=9-\n\n"]
    asked += [b"GET /ota/arduino\nauthorization: Basic YTpi\nx-ESP8266-mode: version\nx-Pico-Chip-ID: E6\n\n"]

    def call(data: bytes, login: str, never: Collection[int] = _NEVER) -> None:
        runner.run(_called(served, data, login.encode(), never))

    tokens = served.tokens
    basic = {each: "Basic " + b64encode(f"{each}:{tokens[each]}".encode()).decode() for each in (_IDF, _ESP32)}
    unheard_of = [status for status in range(1000) if status not in _SURVIVED]
    refused = (NoRequestError,)
    return [
        Target("call by DDI", partial(call, login=f"TargetToken {tokens[_DDI]}"), refused, tuple(spoken), 20),
        Target("call of ESP-IDF", partial(call, login=basic[_IDF]), refused, tuple(fetched), 5),
        Target(
            "call of an Arduino",
            _to(b"/ota/arduino", partial(call, login=basic[_ESP32], never=unheard_of)),
            refused,
            tuple(asked),
            5,
        ),
    ]


def _to(place: bytes, parse: Parser) -> Parser:
    """Return the parser for calls to one address alone."""

    def only(data: bytes) -> None:
        found = _CALL.fullmatch(data)
        if found is None or found[1] != b"GET" or found[2] != place and not found[2].startswith(place + b"/"):
            raise NoRequestError
        parse(data)

    return only


async def _called(served: Site, data: bytes, login: bytes, never: Collection[int]) -> None:
    """Make a call as uvicorn does; one that logs in by itself is another one's."""
    found = _CALL.fullmatch(data)
    if found is None:
        raise NoRequestError
    lines = (line.partition(b":") for line in found[3].splitlines())
    fields = [(b"host", b"daemon"), *((name.lower(), value.strip(b" \t")) for name, _, value in lines)]
    if b"authorization" not in dict(fields):
        fields.append((b"authorization", login))
    status = await status_of(served, found[1].decode(), found[2], fields, found[4])
    assert status not in never, status


def _words() -> list[Target]:
    listed = (b"offset=0&limit=5&sort=id:DESC", b"q=name==a", b"limit=500")
    bodies = (
        b'[{"controllerId":"d1","name":"d1","securityToken":"0123456789abcdef"}]',
        b'[{"name":"software","version":"1.0","type":"os","modules":[{"id":1}]}]',
        b'[{"id":"d1","type":"forced","maintenanceWindow":{}}]',
        b'{"value":"00:05:00"}',
    )
    spoken = (
        b"version=1.0.0&state=valid\nx-esp-app-version: 1.0.0\nauthorization: Basic " + b64encode(b"d1:otad_x"),
        b"\nx-esp-app-state: pending_verify\nauthorization: bearer  otad_x",
        b"\nauthorization: Bearer otad_x\nx-esp-app-version:",
    )
    return [
        Target("words of ESP-IDF", _spoken, (PayloadError,), spoken, 20),
        Target("query of a tool", _listed, (RequestError,), listed, 20),
        Target("body of a tool", _body, (PayloadError,), bodies, 20),
    ]


def _spoken(data: bytes) -> object:
    """Read what a client of ESP-IDF says; what is read of it must be plain."""
    query, _, rest = data.partition(b"\n")
    lines = (line.partition(b":") for line in rest.split(b"\n"))
    fields = [(name.lower(), value.strip()) for name, _, value in lines]
    request = Request(scope_of("GET", b"/ota/esp-idf?" + query, fields))
    texts = dict(fields)
    login = espidf_words.login(texts.get(b"authorization", b"").decode("latin-1"))
    found = espidf_words.said_in(request)
    assert found.version.isprintable() and len(found.version) <= 64
    return found, login


def _listed(data: bytes) -> object:
    """Read what part of a list is asked for; it must be one that can be had."""
    query = QueryParams(data)
    page = said.page_of(query)
    assert page.offset >= 0 and 0 <= page.limit <= said.MAX_PAGE
    return page, said.number_in(data.decode("latin-1")), said.is_true(query, "force")


def _body(data: bytes) -> object:
    """Read a body as each of the kinds that there are; one of them must take it."""
    found: list[object] = []
    for type_ in (said.NewTarget, said.NewModule, said.NewSet, said.Assignment):
        try:
            found += said.some(data, type_)
        except PayloadError:
            continue
    return found or said.decode(data, said.Value)
