"""The HTTP updaters of Arduino, emulated, against the application over loopback."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import traceback
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from orchestrator.core.model import UpdateState
from orchestrator.core.rollout import Command
from orchestrator.errors import PayloadError, UnavailableError
from orchestrator.web.dialects import arduino_images
from orchestrator.web.dialects.arduino import PLACE
from orchestrator.web.dialects.arduino_headers import Asked, Core, Mode, plain_mac, read_headers
from orchestrator.web.dialects.arduino_images import core_of, prints_of
from orchestrator.web.dialects.arduino_inference import MOST_WHOLE
from tests.images import forge
from tests.support.emulators import updater as codes
from tests.support.emulators.esp8266 import Esp8266
from tests.support.emulators.updater import Poll, Updater
from tests.support.factory import make_artifact
from tests.web.arduino_site import CORES, House, flashed, house, image_of
from tests.web.site import PLAN

S = UpdateState
KEY = forge.rsa_key(2048).public_key().public_numbers().n
MAC = "DE:BA:7A:B1:E0:42"


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as running:
        yield running


async def updates(home: House) -> Any:
    return await home.web.plant.store.read(lambda tx: tx.updates_of(["d1"]))


async def lines(home: House) -> list[str]:
    [update] = await updates(home)
    return [line.kind for line in await home.web.plant.store.read(lambda tx: tx.lines(update.id))]


async def command(home: House, what: Command) -> None:
    rollout = await home.web.plant.store.read(lambda tx: tx.rollout_named("spring"))
    assert rollout is not None
    await home.web.plant.command(rollout, what)
    await home.web.plant.advance(rollout)
    await home.web.plant.seal()


# What it does


@pytest.mark.parametrize("core", CORES)
async def test_a_device_is_updated_and_proves_it_by_asking_again(home: House, core: str) -> None:
    device = await home.offered(core)
    got = await home.poll(device)
    assert (got.status, got.error, got.took) == (200, 0, True), got
    assert device.runs(image_of(core, 2))
    assert await home.state() == (S.DOWNLOADED, "")
    assert (await home.poll(device)).status == 304
    assert await home.state() == (S.CONFIRMED, "")
    found = await home.registered()
    assert (found.version, found.rel) == ("2.0.0", 2)
    home.web.plant.store.transactions = 0
    assert (await home.poll(device)).status == 304
    assert home.web.plant.store.transactions == 0
    assert await lines(home) == ["accepted", "downloaded", "confirmed"]


@pytest.mark.parametrize("core", CORES)
async def test_the_answer_is_what_the_updaters_read(home: House, core: str) -> None:
    got = await home.poll(await home.offered(core))
    names = [line.partition(b":")[0].lower() for line in got.head.split(b"\r\n")[1:]]
    fields = dict(line.lower().split(b": ", 1) for line in got.head.split(b"\r\n")[1:])
    image = image_of(core, 2)
    assert fields[b"content-length"] == str(len(image)).encode()
    assert fields[b"x-md5"] == hashlib.md5(image).hexdigest().encode()
    assert len(names) == len(set(names))
    assert b"transfer-encoding" not in names
    assert b"content-encoding" not in names


@pytest.mark.parametrize("core", CORES)
async def test_the_token_may_stand_in_the_path_and_nobody_logs_it(home: House, core: str) -> None:
    device = await home.offered(core)
    token = home.web.tokens["d1"]
    device.login, device.path = None, f"{PLACE}/{token}"
    paths = (f"{PLACE}/{token}x", f"{PLACE}/{token}/", f"{PLACE}/{'x' * 4000}", f"{PLACE}/", f"{PLACE}//{token}")
    with capture_logs() as said, pytest.MonkeyPatch.context() as patch:
        home.web.plant.store.fails = 1
        assert (await home.poll(device)).status == 304
        for path in paths:
            assert (await home.poll(replace(device, path=path))).status == 304
        patch.setattr(home.web.plant.recorder, "submit", boom)
        assert (await home.poll(device)).status == 304
    assert (await home.poll(device)).took
    assert {"arduino.not_served", "arduino.failed"} <= {line["event"] for line in said}
    assert token not in repr(said)
    errors = [line["exc_info"] for line in said if "exc_info" in line]
    assert token not in "".join(line for error in errors for line in traceback.format_exception(error))


async def boom(_: object) -> None:
    raise RuntimeError("a bug of ours")


async def test_a_device_that_runs_a_release_already_is_not_given_it(home: House) -> None:
    device = await home.offered("esp8266")
    device.flash = forge.put(image_of("esp8266", 2), 2, b"\0")
    assert (await home.poll(device)).status == 304
    assert await home.state() == (S.SUPERSEDED, "current"), "it got it by another way, which is no evidence"


async def test_a_pico_that_calls_itself_so_before_it_began_proves_nothing(home: House) -> None:
    device = await home.offered("pico")
    device.version = "2.0.0"
    assert (await home.poll(device)).status == 304
    assert await home.state() == (S.SUPERSEDED, "current")
    assert (await home.registered()).version == "2.0.0"


async def test_an_old_core_that_says_no_hash_goes_by_its_version(home: House) -> None:
    device = await home.offered("esp32")
    device.says_hashes, device.version = False, "1.0.0"
    assert (await home.poll(device)).took
    assert (await home.poll(device)).status == 304
    assert await home.state() == (S.CONFIRMED, "")


async def test_who_says_nothing_of_what_it_runs_is_never_believed_to_run_it(home: House) -> None:
    device = await home.offered("pico")
    device.version, device.versions = "", {}
    assert (await home.poll(device)).took
    assert (await home.poll(device)).status == 304
    assert await home.state() == (S.DOWNLOADED, "")
    await home.until_silent()
    assert (await home.state())[0] is S.EXPIRED


async def test_the_version_that_is_available_is_said(home: House) -> None:
    device = await home.offered("esp8266")
    assert (await home.poll(device, "version")).version == "2.0.0"
    assert await home.state() == (S.OFFERED, "")
    await home.poll(device)
    assert (await home.poll(device, "version")).version == "2.0.0"
    assert await home.state() == (S.CONFIRMED, "")
    got = await home.poll(device, "version")
    assert (got.status, got.error, got.version) == (200, 0, "2.0.0")
    device.login = ("d1", "wrong")
    assert (await home.poll(device, "version")).status == 304


# What goes wrong


@pytest.mark.parametrize("core", CORES)
async def test_an_image_that_its_updater_refuses_has_failed_at_the_deadline(home: House, core: str) -> None:
    device = await home.offered(core)
    for _ in range(MOST_WHOLE):
        device.spoils = True
        assert (await home.poll(device)).error == codes.MD5_DIFFERS
        assert (await home.state())[0] is S.DOWNLOADED
    assert (await home.poll(device)).status == 304
    assert await home.state() == (S.DOWNLOADED, "never_ran")
    home.web.plant.store.transactions = 0
    assert (await home.poll(device)).status == 304
    assert home.web.plant.store.transactions == 0
    await home.until_silent()
    assert await home.state() == (S.FAILED, "never_ran")
    assert (await home.poll(device)).status == 304
    assert device.runs(flashed(core))


@pytest.mark.parametrize("size", [5_000, 200_000, 900_000])
async def test_a_download_that_broke_off_is_given_again(home: House, size: int) -> None:
    image = forge.esp32(0, segments=(bytes(size), b"\x05" * 64))
    device = await home.offered("esp32", data=image)
    device.reads = 2_000
    assert (await home.poll(device)).error == codes.STREAM_TIMEOUT
    assert await home.state() == (S.ACCEPTED, "")
    assert (await home.poll(device)).took
    assert (await home.poll(device)).status == 304
    assert await home.state() == (S.CONFIRMED, "")
    assert await lines(home) == ["accepted", "downloaded", "confirmed"]


async def test_bytes_that_were_lost_behind_what_we_see_are_given_again(home: House) -> None:
    device = await home.offered("esp32")
    device.spoils = True
    await home.poll(device)
    assert await home.state() == (S.DOWNLOADED, "")
    assert (await home.poll(device)).took
    await home.poll(device)
    assert await home.state() == (S.CONFIRMED, "")
    assert await lines(home) == ["accepted", "downloaded", "downloaded", "confirmed"]


async def test_an_image_that_does_not_survive_its_first_boot_has_failed(home: House) -> None:
    device = await home.offered("esp32")
    device.crashes.add(image_of("esp32", 2))
    await home.poll(device)
    await home.poll(device)
    assert await home.state() == (S.DOWNLOADED, "never_ran")
    await home.until_silent()
    assert await home.state() == (S.FAILED, "never_ran")


async def test_a_device_that_falls_back_after_it_was_healthy_has_failed(home: House) -> None:
    device = await home.offered("esp32")
    await home.poll(device)
    await home.poll(device)
    assert await home.state() == (S.CONFIRMED, "")
    device.fall_back()
    assert (await home.poll(device)).status == 304
    assert await home.state() == (S.FAILED, "drifted")
    found = await home.registered()
    assert (found.version, found.rel) == ("unknown", 0)


async def test_the_image_that_a_device_fell_back_to_is_recognised(home: House) -> None:
    await home.release("esp32", rel=1)
    device = await home.offered("esp32")
    await home.poll(device)
    await home.poll(device)
    device.fall_back()
    await home.poll(device)
    found = await home.registered()
    assert (await home.state(), found.version, found.rel) == ((S.FAILED, "drifted"), "1.0.0", 1)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"room": 4_000}, "too_large"),
        ({"chip_bytes": 1 << 19}, "too_large"),
        ({"chip_bytes": 1 << 22}, ""),
    ],
)
async def test_an_image_that_does_not_fit_is_not_offered(home: House, changes: dict[str, int], code: str) -> None:
    device = replace(await home.offered("esp8266"), **changes)
    assert (await home.poll(device)).status == (304 if code else 200)
    if code:
        assert await home.state() == (S.REFUSED, code)
        home.web.plant.store.transactions = 0
        assert (await home.poll(device)).status == 304
        assert home.web.plant.store.transactions == 0
        explained = json.dumps((await home.web.ops("GET", "/devices/d1/explain")).json())
        assert "and the device" in explained


async def test_a_slot_that_was_said_before_holds_the_offer(home: House) -> None:
    await home.allow()
    await home.release("esp32")
    await home.enrol("esp32", "d1")
    device = home.device("esp32", room=440)
    await home.poll(device)
    await home.web.roll_out()
    await home.web.plant.seal()
    assert (await home.poll(device)).status == 304
    assert (await home.state())[0] is S.PENDING
    explained = json.dumps((await home.web.ops("GET", "/devices/d1/explain")).json())
    assert "its slot of 440 bytes" in explained


async def test_an_image_that_cannot_be_read_any_more_keeps_nobody_from_the_next(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arduino_images, "MAX_KEPT", 0)
    device = await home.offered("esp32")
    await home.poll(device)
    await home.poll(device)
    assert await home.state() == (S.CONFIRMED, "")
    (home.web.folder / "fw-2.bin").unlink()
    await home.release("esp32", rel=3)
    plan = PLAN | {"name": "summer", "release": "radio-3"}
    assert (await home.web.ops("POST", "/rollouts", plan)).status_code == 201
    started = await home.web.ops("POST", "/rollouts/summer/start", {})
    assert started.status_code == 200
    home.web.plant.clock.advance(60)
    await home.web.plant.conductor.advance(started.json()["id"])
    await home.web.plant.seal()
    assert (await home.poll(device)).took
    assert (await home.poll(device)).status == 304
    assert [update.state for update in await updates(home)] == [S.CONFIRMED, S.CONFIRMED]


async def test_room_is_said_again_only_where_an_update_waits_for_it(home: House) -> None:
    await home.allow()
    await home.release("esp8266")
    await home.enrol("esp8266", "d1")
    device = home.device("esp8266")
    await home.poll(device)
    store, clock = home.web.plant.store, home.web.plant.clock
    for _ in range(2):
        clock.advance(86_400)
        store.transactions = 0
        await home.poll(device)
        assert store.transactions == 0
    await home.web.roll_out(require={"free": "1MiB", "unknown": "hold"})
    assert (await home.state())[0] is S.PENDING
    assert (await home.poll(device)).status == 304
    rollout = await store.read(lambda tx: tx.rollout_named("spring"))
    assert rollout is not None
    clock.advance(600)
    await home.web.plant.advance(rollout)
    await home.web.plant.seal()
    assert (await home.poll(device)).took


@pytest.mark.parametrize(
    ("core", "declared", "data"),
    [
        ("esp8266", "esp32", image_of("esp32", 2)),
        ("esp32", "esp8266", image_of("esp8266", 2)),
        ("pico", "esp8266", image_of("esp8266", 2)),
        ("esp8266", "raw", b"no image" * 100),
        ("pico", "raw", b"no image" * 100),
    ],
)
async def test_what_is_no_image_for_a_core_never_reaches_it(home: House, core: str, declared: str, data: bytes) -> None:
    await home.allow()
    await home.release(core, data, declared=declared)
    await home.enrol(core, "d1")
    await home.web.roll_out()
    await home.web.plant.seal()
    assert (await home.poll(home.device(core))).status == 304
    assert await home.state() == (S.REFUSED, "wrong_hardware")


# Signatures


@pytest.mark.parametrize("core", ["esp8266", "pico"])
@pytest.mark.parametrize("signed", [True, False])
async def test_gzip_never_reaches_a_device_that_does_not_enforce_signing(home: House, core: str, signed: bool) -> None:
    payload = forge.compressed(image_of(core, 2))
    data = forge.signed(payload) if signed else payload
    device = await home.offered(core, data=data)  # the configuration allows what is not verified
    assert (await home.poll(device)).status == 304
    assert await home.state() == (S.REFUSED, "compressed_image")


@pytest.mark.parametrize("core", ["esp8266", "pico"])
@pytest.mark.parametrize("packed", [True, False])
async def test_a_device_that_enforces_signing_is_updated_without_any_exception(
    home: House, core: str, packed: bool
) -> None:
    image = image_of(core, 2)
    await home.release(core, forge.signed(forge.compressed(image) if packed else image))
    await home.enrol(core, "d1", enforces=(core,))
    await home.web.roll_out()
    await home.web.plant.seal()
    device = home.device(core, key=KEY)
    assert (await home.poll(device)).took
    assert device.runs(image)
    assert (await home.poll(device)).status == 304
    assert await home.state() == (S.CONFIRMED, "")


async def test_a_device_that_enforces_nothing_is_not_in_the_cohort(home: House) -> None:
    await home.release("esp8266")
    await home.enrol("esp8266", "d1")
    await home.web.roll_out()
    assert (await home.poll(home.device("esp8266"))).status == 304
    assert await updates(home) == []


# Not now


@pytest.mark.parametrize(
    "changes",
    [
        {"login": None},
        {"login": ("d1", "wrong")},
        {"login": ("d2", "other")},
        {"login": ("", "")},
        {"login": ("d1", "x" * 5000)},
        {"mac": "DE:BA:7A:B1:E0:43"},
        {"mac": "DE:BA:7A:B1:E0"},
        {"version": "x" * 65},
        {"room": 10**11},
        {"path": f"{PLACE}/wrong"},
    ],
)
async def test_whatever_is_wrong_with_who_asks_is_not_now(home: House, changes: dict[str, Any]) -> None:
    device = await home.offered("esp8266")
    await home.enrol("esp8266", "d2")
    patch = {"devices": [{"id": "d1", "attributes": {"mac": MAC.lower().replace(":", "-")}}]}
    assert (await home.web.ops("POST", "/devices/facts", patch)).status_code == 200
    if changes.get("login") == ("d2", "other"):
        changes = {"login": ("d2", home.web.tokens["d1"])}
    got = await home.poll(replace(device, **changes))
    assert (got.status, got.error) == (304, 0)
    assert await home.state() == (S.OFFERED, "")
    assert (await home.poll(device)).took


async def test_another_chip_is_not_believed(home: House) -> None:
    device = await home.offered("pico")
    patch = {"devices": [{"id": "d1", "attributes": {"chip_id": "e6614103e7452d2f"}}]}
    assert (await home.web.ops("POST", "/devices/facts", patch)).status_code == 200
    assert (await home.poll(replace(device, chip_id="E6614103E7452D2E"))).status == 304
    assert (await home.poll(device)).took


@pytest.mark.parametrize("core", ["esp32", "pico", "otad"])
async def test_a_device_of_another_dialect_is_not_served(home: House, core: str) -> None:
    device = await home.offered("esp8266")
    patch = {"devices": [{"id": "d1", "dialect": core}]}
    assert (await home.web.ops("POST", "/devices/facts", patch)).status_code == 200
    assert (await home.poll(device)).status == 304
    assert await home.state() == (S.OFFERED, "")


async def test_whatever_is_wrong_with_us_is_not_now(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    device = await home.offered("esp8266")
    for fails in range(1, 6):
        home.web.plant.store.fails = fails
        assert (await home.poll(device)).status == 304
        home.web.plant.store.fails = 0

    async def busy(_: object) -> None:
        raise UnavailableError("too many reports are waiting; try again later", code="busy")

    with monkeypatch.context() as patch:
        patch.setattr(home.web.plant.recorder, "submit", busy)
        assert (await home.poll(device)).status == 304
    image = home.web.folder / "fw-2.bin"
    image.rename(f"{image}.away")
    assert (await home.poll(device)).status == 304
    Path(f"{image}.away").rename(image)
    assert (await home.poll(device)).took


async def test_a_file_system_is_never_given(home: House) -> None:
    device = await home.offered("esp8266")
    assert (await home.poll(device, "spiffs")).status == 304
    assert (await home.poll(device, "else")).status == 304
    assert await home.state() == (S.OFFERED, "")


@pytest.mark.parametrize("what", [Command.PAUSE, Command.HALT])
async def test_a_rollout_that_stands_still_gives_nothing(home: House, what: Command) -> None:
    device = await home.offered("esp8266")
    await command(home, what)
    assert (await home.poll(device)).status == 304
    assert not device.runs(image_of("esp8266", 2))


async def test_a_device_that_began_answers_its_recall_by_asking(home: House) -> None:
    image = forge.esp32(0, segments=(bytes(900_000), b"\x05" * 64))
    device = await home.offered("esp32", data=image)
    device.reads = 20_000
    await home.poll(device)
    await command(home, Command.HALT)
    assert (await home.state())[0] is S.RECALLING
    assert (await home.poll(device)).status == 304
    assert await home.state() == (S.RECALLED, "")
    await command(home, Command.RESUME)
    await home.web.plant.seal()
    assert (await home.poll(device)).took
    await home.poll(device)
    assert await home.state() == (S.CONFIRMED, "")


async def test_a_recall_that_came_too_late_ends_as_it_is(home: House) -> None:
    device = await home.offered("esp32")
    assert (await home.poll(device)).took
    await command(home, Command.HALT)
    assert (await home.state())[0] is S.RECALLING
    await home.poll(device)
    assert await home.state() == (S.CONFIRMED, "")


async def test_failures_halt_the_rollout_and_the_others_hear_not_now(home: House) -> None:
    names = [f"d{at}" for at in range(1, 9)]
    await home.offered("esp32", *names, halt={"max_failures": 2})
    devices = [home.device("esp32", name) for name in names]
    for device in devices[:2]:
        device.crashes.add(image_of("esp32", 2))
        await home.poll(device)
        await home.poll(device)
    await home.until_silent(4000)
    rollout = await home.web.plant.store.read(lambda tx: tx.rollout_named("spring"))
    assert rollout is not None
    halted = await home.web.plant.advance(rollout)
    assert halted.phase == "halted"
    await home.web.plant.seal()
    for device in devices[2:]:
        assert (await home.poll(device)).status == 304
        assert device.runs(flashed("esp32"))


async def test_who_is_no_updater_is_told_so(home: House) -> None:
    await home.enrol("esp8266", "d1")
    mode = {"x-ESP8266-mode": "sketch"}
    for headers in ({}, {"User-Agent": "ESP8266-http-Update"}, mode | {"x-ESP32-mode": "sketch"}):
        assert (await home.web.http.get(PLACE, headers=headers)).status_code == 403
    assert (await home.web.http.head(PLACE, headers=mode)).status_code == 304
    assert (await home.web.http.post(PLACE, headers=mode)).status_code == 405


async def test_what_is_asked_of_parts_is_not_heard(home: House) -> None:
    device = await home.offered("esp8266")
    fields = dict(device.fields("sketch")) | {"Range": "bytes=0-9", "If-None-Match": "*"}
    login = (device.login[0], device.login[1])
    got = await home.web.http.get(PLACE, headers=fields, auth=login)
    assert (got.status_code, got.content) == (200, image_of("esp8266", 2))


async def test_many_devices_are_updated_side_by_side(home: House) -> None:
    names = [f"d{at}" for at in range(1, 13)]
    await home.offered("esp8266", *names)
    image, loop = image_of("esp8266", 2), asyncio.get_running_loop()
    rollout = await home.web.plant.store.read(lambda tx: tx.rollout_named("spring"))
    assert rollout is not None
    step = asyncio.Lock()

    async def go_on() -> None:
        async with step:
            await home.web.plant.advance(rollout)
            await home.web.plant.seal()

    def between() -> None:
        asyncio.run_coroutine_threadsafe(go_on(), loop).result(30)

    loop.set_default_executor(ThreadPoolExecutor(20))  # each device takes a thread
    devices = [home.device("esp8266", name) for name in names]
    runs = (asyncio.to_thread(device.run_until_current, image, between=between) for device in devices)
    polls = await asyncio.gather(*runs)
    assert [sum(poll.took for poll in each) for each in polls] == [1] * 12
    assert {(await home.state(name))[0] for name in names} == {S.CONFIRMED}


# The headers


def test_the_request_is_that_of_the_real_core() -> None:
    device = Esp8266(("127.0.0.1", 34253), b"\xe9" * 20_000, path="/fw?x=1", login=("a", "b"), version="DOOR-7")
    assert device.request().decode().split("\r\n") == [
        "GET /fw?x=1 HTTP/1.0",
        "Host: 127.0.0.1:34253",
        "User-Agent: ESP8266-http-Update",
        "Authorization: Basic YTpi",
        "Connection: close",
        "x-ESP8266-Chip-ID: 11657282",
        "x-ESP8266-STA-MAC: DE:BA:7A:B1:E0:42",
        "x-ESP8266-AP-MAC: DE:BA:7A:B1:E0:42",
        "x-ESP8266-free-space: 2076672",
        "x-ESP8266-sketch-size: 20000",
        f"x-ESP8266-sketch-md5: {hashlib.md5(device.flash).hexdigest()}",
        "x-ESP8266-chip-size: 4194304",
        "x-ESP8266-sdk-version: 2.5.0",
        "x-ESP8266-mode: sketch",
        "x-ESP8266-version: DOOR-7",
        "Content-Length: 0",
        "",
        "",
    ]


def test_the_headers_of_each_core_are_read() -> None:
    found = {core: read_headers(kind(("h", 1), image_of(core, 1)).fields("sketch")) for core, kind in CORES.items()}
    image = image_of("esp32", 1)
    assert found["esp32"] == Asked(
        core=Core.ESP32,
        mode=Mode.SKETCH,
        macs=frozenset({MAC}),
        free_bytes=1_310_720,
        chip_bytes=4_194_304,
        md5=hashlib.md5(image).hexdigest(),
        sha256=image[-32:].hex(),
    )
    assert found["pico"] == Asked(Core.PICO, Mode.SKETCH, frozenset({MAC}), chip_id="E6614103E7452D2F")
    assert found["esp8266"] is not None
    assert found["esp8266"].chip_id == str(0xB1E042)


@pytest.mark.parametrize(
    "fields",
    [
        [("x-esp8266-mode", "sketch"), ("X-ESP8266-MODE", "sketch")],
        [("x-esp8266-mode", "Sketch")],
        [("x-esp8266-sta-mac", MAC)],
        [("x-esp8266-mode", "sketch"), ("x-esp8266-sta-mac", "DE:BA:7A:B1:E0")],
        [("x-esp8266-mode", "sketch"), ("x-esp8266-sketch-md5", "0" * 31)],
        [("x-esp8266-mode", "sketch"), ("x-esp8266-free-space", "-1")],
        [("x-esp8266-mode", "sketch"), ("x-esp8266-free-space", "\u0661")],
        [("x-esp8266-mode", "sketch"), ("x-esp8266-version", "a\x00")],
        [("x-esp32-mode", "sketch"), ("x-esp32-sketch-sha256", "g" * 64)],
        [("x-pico-mode", "sketch"), *((f"x-pico-{at}", "") for at in range(40))],
    ],
)
def test_headers_that_no_core_sends_are_refused(fields: list[tuple[str, str]]) -> None:
    with pytest.raises(PayloadError):
        read_headers(fields)


_NAMES = ["mode", "sta-mac", "ap-mac", "chip-id", "free-space", "chip-size", "sketch-md5", "sketch-sha256", "version"]
_FIELD = st.tuples(
    st.sampled_from(["x-ESP8266-", "x-esp32-", "X-PICO-", "x-"]),
    st.sampled_from(_NAMES) | st.text(max_size=6),
    st.sampled_from(["sketch", "version", "spiffs", MAC, "0" * 32, "A" * 64, "4194304", "2.0.0", ""]) | st.text(),
).map(lambda parts: (parts[0] + parts[1], parts[2]))


@settings(max_examples=300, deadline=None)
@given(fields=st.lists(_FIELD, max_size=12))
def test_any_headers_are_a_request_or_refused(fields: list[tuple[str, str]]) -> None:
    try:
        asked = read_headers(fields)
    except PayloadError:
        return
    if asked is not None:
        assert len(asked.version) <= 64
        assert asked.version.isprintable()
        assert all(plain_mac(mac) == mac for mac in asked.macs)
        assert {len(asked.md5), len(asked.sha256)} <= {0, 32, 64}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fields=st.lists(_FIELD, max_size=12),
    path=st.text(st.characters(codec="ascii", exclude_characters="\n"), max_size=20),
)
async def test_no_headers_are_answered_otherwise(home: House, fields: list[tuple[str, str]], path: str) -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    statuses: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    named = [(name.lower().encode("latin-1", "replace"), text.encode("utf-8", "replace")) for name, text in fields]
    scope = {"type": "http", "method": "GET", "path": f"{PLACE}/{path}", "headers": named, "query_string": b""}
    await home.web.app(scope | {"http_version": "1.0", "scheme": "http", "root_path": ""}, receive, send)
    assert statuses in ([304], [403])


# The images


def test_the_hashes_of_an_image_are_those_of_each_flash_mode() -> None:
    image = image_of("esp8266", 2)
    artifact = make_artifact(format="esp8266")
    wanted = {hashlib.md5(forge.put(image, 2, bytes([mode]))).hexdigest() for mode in range(4)}
    for data, signature in (
        (image, ""),
        (forge.signed(image), "esp8266"),
        (forge.signed(image, 4096), "esp8266"),
        (forge.compressed(image), ""),
        (forge.signed(forge.compressed(image)), "esp8266"),
    ):
        found = prints_of(replace(artifact, signature=signature), Core.ESP8266, data)
        assert found.md5s == wanted
        assert found.file_md5 == hashlib.md5(data).hexdigest()
    assert found.flash_bytes is None or found.flash_bytes == 1 << 22


def test_the_hash_within_an_image_of_an_esp32_is_found_wherever_it_is() -> None:
    image = image_of("esp32", 2)
    signed = forge.secure_boot(image, forge.rsa_block(forge.padded(image)))
    for data, signature in ((image, ""), (signed, "esp32-secure-boot-v2"), (image + bytes(512), "esp32-arduino")):
        found = prints_of(make_artifact(format="esp32", signature=signature), Core.ESP32, data)
        assert found.sha256 == image[-32:].hex()
        assert hashlib.md5(image).hexdigest() in found.md5s
    bare = prints_of(make_artifact(format="esp32"), Core.ESP32, forge.esp32(0, hashed=False))
    assert bare.sha256 == ""
    assert not bare.runs(Asked(Core.ESP32, Mode.SKETCH))
    assert prints_of(make_artifact(format="esp32"), Core.ESP32, image[:30]).sha256 == ""


def test_which_core_takes_an_artifact() -> None:
    words = ["esp8266", "esp8266-legacy", "esp32", "esp32-arduino", "pico", "uf2", "raw", "swu", "mcuboot"]
    cores = [core_of(make_artifact(format=word)) for word in words]
    assert cores == [Core.ESP8266, Core.ESP8266, Core.ESP32, Core.ESP32, Core.PICO, None, None, None, None]


# The emulators: they fall into the traps of the real ones


@pytest.fixture
def canned() -> Iterator[Any]:
    """Serve answers as they are written, one for each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address: tuple[str, int] = listener.getsockname()

        async def ask(device: Updater, answer: bytes, mode: str = "sketch") -> Poll:
            polling = asyncio.create_task(asyncio.to_thread(replace_address, device, address, mode))
            wire, _ = await asyncio.to_thread(listener.accept)
            with wire, suppress(ConnectionError):
                wire.recv(65536)
                wire.sendall(answer)
            return await polling

        yield ask


def replace_address(device: Updater, address: tuple[str, int], mode: str) -> Poll:
    device.address = address
    return device.poll(mode)


@pytest.mark.parametrize(
    ("head", "error"),
    [
        ("200 OK\r\nTransfer-Encoding: chunked", codes.NO_SIZE),
        ("200 OK\r\nTransfer-Encoding: gzip", -9),
        ("200 OK\r\nContent-Length: 0", codes.NO_SIZE),
        ("304 Not Modified", 0),
        ("302 Found\r\nLocation: /x", codes.WRONG_CODE),
        ("204 No Content", codes.WRONG_CODE),
        ("429 Slow", codes.WRONG_CODE),
        ("503 Busy", codes.WRONG_CODE),
        ("401 Who", codes.UNAUTHORISED),
        ("403 No", codes.FORBIDDEN),
        ("404 None", codes.NOT_FOUND),
        ("200 OK\r\nContent-Length: 99999999", codes.TOO_LITTLE_SPACE),
    ],
)
async def test_the_emulators_read_answers_as_the_cores_do(canned: Any, head: str, error: int) -> None:
    device = Esp8266(("", 0), flashed("esp8266"))
    assert (await canned(device, f"HTTP/1.1 {head}\r\n\r\n".encode())).error == error


async def test_a_bad_md5_wedges_until_the_device_is_switched_off(canned: Any) -> None:
    image = image_of("esp8266", 2)
    good = f"HTTP/1.1 200 OK\r\nContent-Length: {len(image)}\r\nx-MD5: {hashlib.md5(image).hexdigest()}\r\n".encode()
    device = Esp8266(("", 0), flashed("esp8266"))
    twice = good + good.split(b"\r\n")[2] + b"\r\n\r\n" + image
    assert (await canned(device, twice)).error == codes.BAD_MD5_TEXT
    assert (await canned(device, good + b"\r\n" + image)).error == codes.ALREADY_RUNNING
    device.wedged = False
    assert (await canned(device, good + b"\r\n" + image)).took


def test_compressed_and_signed_bricks_a_device_that_enforces_nothing() -> None:
    data = forge.signed(forge.compressed(image_of("esp8266", 2)))
    device = Esp8266(("", 0), flashed("esp8266"))
    assert device.install(data) == 0
    assert device.bricked
    signing = Esp8266(("", 0), flashed("esp8266"), key=KEY)
    assert signing.install(data) == 0
    assert signing.runs(image_of("esp8266", 2))
    assert signing.install(forge.flipped(data, 40)) == codes.BAD_SIGNATURE


async def test_the_version_mode_of_the_emulator_wants_200(canned: Any) -> None:
    device = Esp8266(("", 0), flashed("esp8266"))
    assert (await canned(device, b"HTTP/1.1 304 X\r\n\r\n", "version")).error == codes.WRONG_CODE
    assert (await canned(device, b"HTTP/1.1 200 X\r\n\r\n", "version")).error == codes.NO_VERSION
    assert (await canned(device, b"HTTP/1.1 200 X\r\nX-VERSION: 7\r\n\r\n", "version")).version == "7"
