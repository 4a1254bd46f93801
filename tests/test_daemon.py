"""The real process: how it starts, tells systemd, survives its broker, and stops."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiomqtt
import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from orchestrator import daemon as module
from orchestrator.adapters.systemd import Notifier
from orchestrator.cli.main import cli
from orchestrator.daemon.health import Pulse
from orchestrator.demo import broker as brokers
from orchestrator.demo.broker import HOST, BrokerInfo, free_port
from orchestrator.errors import UnavailableError
from orchestrator.wire.report import Hello, encode
from orchestrator.wire.topics import Channel, uplink
from tests.support.scene import Deployment, daemon, operator

WELL = Pulse(store_fault="", writer_busy_s=0, link=1, link_untended_s=0, lag_s=0, key_faults=(), stops=())


async def test_it_tells_systemd_how_it_is(tmp_path: Path, open_broker: BrokerInfo) -> None:
    config = Deployment.made(tmp_path, open_broker.port).write()
    async with daemon(config, WATCHDOG_USEC="200000") as running:
        assert await running.tells("READY") == "READY=1"
        assert running.told == ["READY=1"]
        status = "STATUS=broker connected; 0 rollouts running; 0 triggers published"
        while await running.tells("STATUS=") != status:
            pass
        for _ in range(3):
            assert await running.tells("WATCHDOG") == "WATCHDOG=1"
        code, _ = await running.stop()
        assert await running.tells("STOPPING") == "STOPPING=1"
        assert code == 0


async def test_it_stops_within_seconds_whatever_is_open(tmp_path: Path) -> None:
    """The broker is away, one connection is idle, one is in the middle of a request."""
    async with daemon(Deployment.made(tmp_path).write()) as running:
        origin = await running.origin()
        host, _, port = origin.removeprefix("http://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /api/v1/report HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        async with operator(origin) as http:
            assert (await http.get("/api/v1/status")).json()["broker_connected"] is False
            code, took_s = await running.stop()
        writer.close()
    assert code == 0
    assert took_s < 10


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
async def test_an_interrupt_or_a_hangup_stops_it_as_well(tmp_path: Path, number: signal.Signals) -> None:
    async with daemon(Deployment.made(tmp_path).write()) as running:
        await running.origin()
        running.process.send_signal(number)
        out, err = await running.process.communicate()
        assert (running.process.returncode, err) == (0, b"")
        events = [json.loads(line)["event"] for line in out.splitlines()]
        assert [event for event in events if event.startswith("daemon.")] == ["daemon.stopping", "daemon.stopped"]


async def refusal(deployment: Deployment) -> str:
    """Start a daemon that cannot start, and return what it says."""
    async with daemon(deployment.write()) as running:
        _, err = await running.process.communicate()
        assert running.process.returncode == 1
    return err.decode()


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind((HOST, 0))
        holder.listen()
        listen = f"{HOST}:{holder.getsockname()[1]}"
        text = await refusal(Deployment.made(tmp_path, http={"listen": listen}))
    assert (
        text == f"error: cannot listen on {listen}: Address already in use; change http.listen or stop who holds it\n"
    )


async def test_a_database_folder_that_is_missing(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    text = await refusal(Deployment.made(tmp_path, store={"url": f"sqlite:///{missing / 'state.db'}"}))
    assert text == f"error: store.url: the folder {missing} does not exist; create it\n"


async def test_keys_that_do_not_fit_are_listed_at_once(tmp_path: Path) -> None:
    deployment = Deployment.made(tmp_path)
    deployment.sections["trust"]["trigger_key_file"] = str(tmp_path / "keys" / "artifact.pem")
    deployment.sections["deployment"] = "another"
    first, second = (await refusal(deployment)).splitlines()
    assert first.startswith("error: trust.trigger_key_file: No trigger key at hand is good under keyset 1: configure ")
    assert first.endswith(" is of another role: artifact.")
    assert second == "error: deployment: the devices of trust.public_keys_file belong to my-fleet; name the same here"


async def test_a_keyset_that_nobody_submitted_is_not_believed(tmp_path: Path) -> None:
    """A new keyset replaces the document in place: a daemon that is pointed at that folder must notice."""
    keys = tmp_path / "keys"
    deployment = Deployment.made(tmp_path)
    async with daemon(deployment.write()) as running:
        await running.origin()
        assert (await running.stop())[0] == 0
    roots = ["--root", str(keys / "root-1.pem"), "--root", str(keys / "root-2.pem")]
    rotate = ["keys", "rotate", "--role", "trigger", *roots, "--keys", str(keys / "device-keys.json")]
    assert CliRunner().invoke(cli, rotate).exit_code == 0
    text = await refusal(deployment)
    assert text.startswith("error: trust.public_keys_file: it holds keyset 2, and keyset 1 is the last that devices ")
    assert len(text.splitlines()) == 1  # that its trigger key is missing as well would only mislead

    new = (keys / "device-keys.json").read_bytes()
    (keys / "device-keys.json").write_bytes((keys / "device-keys-1.json").read_bytes())
    async with daemon(deployment.write()) as running:  # the way back
        await running.origin()
        assert (await running.stop())[0] == 0

    (keys / "device-keys.json").write_bytes(new)
    deployment.sections["trust"]["trigger_key_file"] = str(keys / "trigger-ep2.pem")
    assert "`ota serve --accept-keyset 2`" in await refusal(deployment)
    for options in (("--accept-keyset", "2"), ()):  # said once, it is remembered
        async with daemon(deployment.write(), *options) as running, operator(await running.origin()) as http:
            assert (await http.get("/api/v1/keyset")).json()["epoch"] == 2
            log = (await http.get("/api/v1/audit")).json()
    trusted = [item for item in log if item["action"] == "keyset.trusted"]
    assert [item["object"] for item in trusted] == ["keyset 1", "keyset 2"]


async def test_a_trigger_key_that_is_none(tmp_path: Path) -> None:
    deployment = Deployment.made(tmp_path)
    (tmp_path / "keys" / "trigger.pem").write_text("hunter2")
    text = await refusal(deployment)
    assert text.startswith("error: ")
    assert len(text.splitlines()) == 1
    assert "trigger.pem" in text
    assert "hunter2" not in text


async def test_public_keys_that_are_none(tmp_path: Path) -> None:
    deployment = Deployment.made(tmp_path)
    (tmp_path / "keys" / "device-keys.json").write_text('{"v": 1}')
    text = await refusal(deployment)
    assert text.startswith(f"error: public keys {tmp_path / 'keys' / 'device-keys.json'} are not valid: ")
    assert len(text.splitlines()) == 1


async def test_a_database_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"this is no database, and never was one" * 100)
    text = await refusal(Deployment.made(tmp_path))
    assert text.splitlines()[-1].startswith(f"error: the database {tmp_path / 'state.db'} cannot be opened: ")
    assert "Traceback" not in text


async def test_a_broker_that_goes_and_comes_back_loses_no_report(tmp_path: Path) -> None:
    program = brokers.find_mosquitto()
    assert program
    folder, port = tmp_path / "broker", free_port()
    hello = encode(Hello(1, "d1", "m1", ver="1.0.0", rel=1))
    async with daemon(Deployment.made(tmp_path, port).write()) as running:
        origin = await running.origin()
        assert (await running.logs("broker.unavailable"))["code"] == "no_broker"
        async with brokers.mosquitto(program, users=None, directory=folder, port=port) as broker:
            await running.logs("broker.connected")
        await running.logs("broker.lost")
        async with operator(origin) as http:
            assert (await http.get("/api/v1/status")).json()["broker_connected"] is False
            async with brokers.mosquitto(program, users=None, directory=folder, port=port) as broker:
                async with aiomqtt.Client(broker.host, broker.port) as device:
                    await device.publish(uplink("d1", Channel.HELLO), hello, qos=1)
                await running.logs("broker.connected")
                async with asyncio.timeout(20):
                    while not (devices := (await http.get("/api/v1/devices")).json()):
                        await asyncio.sleep(0.02)
        assert [device["id"] for device in devices] == ["d1"]
        assert (await running.stop())[0] == 0


async def test_a_second_daemon_on_one_database_does_not_start(tmp_path: Path, open_broker: BrokerInfo) -> None:
    first = Deployment.made(tmp_path, open_broker.port)
    (tmp_path / "second").mkdir()
    second = Deployment(tmp_path / "second", first.sections)
    async with daemon(first.write()) as running:
        await running.origin()
        assert "another daemon works on the database" in await refusal(second)
    async with daemon(first.write()) as running:  # the lock of a daemon that is gone holds nobody up
        await running.origin()


class _Store:
    """A store that answers, fails or hangs, as the test says."""

    def __init__(self, *turns: str) -> None:
        self._turns = list(turns)
        self.asked = asyncio.Event()

    fault = ""

    async def read(self, _work: object) -> list[object]:
        turn = self._turns.pop(0)
        if turn == "away":
            raise UnavailableError("the database failed: locked", code="store")
        if turn == "hangs":
            self.asked.set()
            await asyncio.Event().wait()
        return []


async def test_a_stuck_store_starves_the_watchdog(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.setblocking(False)
        receiver.bind(str(tmp_path / "notify"))
        store = _Store("answers", "away", "answers", "hangs")
        parts: Any = SimpleNamespace(
            store=store,
            bus=SimpleNamespace(link=0),
            hearing=lambda: True,
            asking=lambda: True,
            dispatcher=SimpleNamespace(published=3),
            pulse=lambda: WELL,
        )
        notifier = Notifier(str(tmp_path / "notify"), watchdog_interval_s=0.001)
        with capture_logs() as logs:
            feeding = asyncio.create_task(module._feed_watchdog(cast(module.Parts, parts), notifier))
            await store.asked.wait()
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        told = [receiver.recv(1024) for _ in range(4)]
        with pytest.raises(BlockingIOError):
            receiver.recv(1024)
    status = b"STATUS=broker not connected; 0 rollouts running; 3 triggers published"
    assert told == [status, b"WATCHDOG=1", status, b"WATCHDOG=1"]
    assert [line["event"] for line in logs] == ["store.unavailable"]


class _Healed(_Store):
    """A store that cannot be written until it is tried."""

    fault = "the database failed: locked"

    async def probe(self) -> str:
        self.fault = ""
        return ""


async def fed(parts: Any, folder: Path, store: _Store) -> tuple[list[bytes], list[str]]:
    """Return what systemd is told until the store hangs, and what is logged."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.setblocking(False)
        receiver.bind(str(folder / "notify"))
        notifier = Notifier(str(folder / "notify"), watchdog_interval_s=0.001)
        with capture_logs() as logs:
            feeding = asyncio.create_task(module._feed_watchdog(cast(module.Parts, parts), notifier))
            await store.asked.wait()
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        told = []
        with suppress(BlockingIOError):
            while True:
                told.append(receiver.recv(1024))
    return told, [f"{line['event']} {line.get('part', '')}".strip() for line in logs]


def parts_of(store: _Store, *pulses: Pulse) -> Any:
    given = iter(pulses)
    return SimpleNamespace(
        store=store,
        bus=SimpleNamespace(link=1),
        hearing=lambda: True,
        asking=lambda: True,
        dispatcher=SimpleNamespace(published=0),
        pulse=lambda: next(given),
    )


async def test_who_is_unwell_starves_the_watchdog_and_says_once_why(tmp_path: Path) -> None:
    store = _Store("answers", "answers", "answers", "hangs")
    stuck = replace(WELL, writer_busy_s=31)
    told, logged = await fed(parts_of(store, stuck, stuck, WELL, WELL), tmp_path, store)
    status = b"STATUS=broker connected; 0 rollouts running; 0 triggers published"
    unwell = status + b"; unwell: one piece of work has kept the writer for 31 s"
    assert told == [unwell, unwell, status, b"WATCHDOG=1"]
    assert logged == ["daemon.unwell store"]


async def test_a_store_that_takes_long_to_open_asks_systemd_for_more_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrated = threading.Event()
    monkeypatch.setattr(module, "STARTING_EVERY_S", 0.01)
    monkeypatch.setattr(module, "open_store", lambda url, *, after_restore: migrated.wait(20) and (url, after_restore))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.setblocking(False)
        receiver.bind(str(tmp_path / "notify"))
        opening = asyncio.create_task(
            module._open("sqlite:///x", Notifier(str(tmp_path / "notify")), after_restore=True)
        )
        for _ in range(2):
            told = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(receiver, 1024), 20)
            assert told.startswith(b"EXTEND_TIMEOUT_USEC=120000000\nSTATUS=opens the store, and brings it up")
        migrated.set()
        assert cast(object, await opening) == ("sqlite:///x", True)


async def test_a_stop_that_is_not_stored_keeps_the_daemon_alive(tmp_path: Path) -> None:
    store = _Store("answers", "hangs")
    broken = replace(WELL, store_fault="database or disk is full", lag_s=999, stops=("spring",))
    told, _ = await fed(parts_of(store, broken, broken), tmp_path, store)
    assert told[-1] == b"WATCHDOG=1"


async def test_a_fault_of_a_moment_starves_nobody(tmp_path: Path) -> None:
    store = _Healed("answers", "hangs")
    parts = parts_of(store)
    parts.pulse = lambda: replace(WELL, store_fault=store.fault)
    told, logged = await fed(parts, tmp_path, store)
    assert told[-1] == b"WATCHDOG=1"
    assert logged == []


async def test_a_blocked_loop_feeds_no_watchdog(tmp_path: Path) -> None:
    """What feeds it is a task of the same loop: while the loop is held, however long, nothing is told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.setblocking(False)
        receiver.bind(str(tmp_path / "notify"))
        store = _Store("answers", "answers", "hangs")
        parts: Any = SimpleNamespace(
            store=store,
            bus=SimpleNamespace(link=1),
            hearing=lambda: True,
            asking=lambda: True,
            dispatcher=SimpleNamespace(published=0),
            pulse=lambda: WELL,
        )
        notifier = Notifier(str(tmp_path / "notify"), watchdog_interval_s=0.001)
        feeding = asyncio.create_task(module._feed_watchdog(cast(module.Parts, parts), notifier))
        await asyncio.sleep(0)
        receiver.recv(1024)
        receiver.recv(1024)
        held_until = asyncio.get_running_loop().time() + 0.02
        while asyncio.get_running_loop().time() < held_until:
            with pytest.raises(BlockingIOError):
                receiver.recv(1024)
        await store.asked.wait()
        assert receiver.recv(1024).startswith(b"STATUS=")
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)


async def test_a_store_that_cannot_be_written_is_said_once() -> None:
    faults = ["", "disk is full", "disk is full", "", ""]
    pauses: list[float] = []

    async def probe() -> str:
        return faults[len(pauses) - 1]

    async def pause(seconds: float) -> None:
        if len(pauses) == len(faults):
            raise asyncio.CancelledError
        pauses.append(seconds)

    with capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await module._watch_store(cast(Any, SimpleNamespace(probe=probe)), pause)
    assert [(item["event"], item.get("error")) for item in logs] == [
        ("store.not_writable", "disk is full"),
        ("store.writable", None),
    ]
    assert pauses == [30.0, 30.0, 5.0, 5.0, 30.0], "it looks more often while it waits for room"


async def test_a_task_that_ends_takes_the_daemon_down() -> None:
    async def ends() -> None:
        return None

    with pytest.raises(RuntimeError, match="the task sealer ended; it must not"):
        await module._never_ending("sealer", ends())
