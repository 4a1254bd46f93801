from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from aiomqtt import Client, ProtocolVersion
from structlog.testing import capture_logs

from orchestrator.demo import broker
from orchestrator.errors import RequestError, UnavailableError
from tests.support.broker import StartBroker


async def echoed(info: broker.BrokerInfo, payload: bytes, protocol: ProtocolVersion) -> bytes:
    async with Client(info.host, info.port, protocol=protocol) as client:
        await client.subscribe("ota/v1/d/a/cmd", qos=1)
        await client.publish("ota/v1/d/a/cmd", payload, qos=1)
        message = await anext(client.messages)
        assert isinstance(message.payload, bytes)
        return message.payload


async def test_without_users_everybody_may_do_everything(open_broker: broker.BrokerInfo) -> None:
    assert open_broker.kind == "mosquitto"
    assert open_broker.url == f"mqtt://127.0.0.1:{open_broker.port}"
    assert await echoed(open_broker, b"hello", ProtocolVersion.V5) == b"hello"


async def test_it_is_gone_afterwards(tmp_path: Path) -> None:
    async with broker.broker(users=None, directory=tmp_path) as info:
        assert info.pid is not None
        os.kill(info.pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(info.pid, 0)


async def test_a_session_survives_a_restart_on_the_same_port(tmp_path: Path) -> None:
    async with broker.broker(users=None, directory=tmp_path) as info:
        async with Client(info.host, info.port, identifier="daemon", clean_session=False) as client:
            await client.subscribe("ota/v1/d/+/report", qos=1)
        async with Client(info.host, info.port) as client:
            await client.publish("ota/v1/d/a/report", b"kept", qos=1)
    async with (
        broker.broker(users=None, directory=tmp_path, port=info.port) as again,
        Client(again.host, again.port, identifier="daemon", clean_session=False) as client,
    ):
        assert (await anext(client.messages)).payload == b"kept"


async def test_a_taken_port_is_said(start_broker: StartBroker) -> None:
    info = await start_broker()
    with pytest.raises(UnavailableError, match="mosquitto did not start: .*Address already in use") as caught:
        await start_broker(port=info.port)
    assert caught.value.code == "broker_not_started"


async def test_a_free_port_that_was_taken_meanwhile_is_tried_again(
    start_broker: StartBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = await start_broker()
    offered = iter([info.port, broker.free_port()])
    monkeypatch.setattr(broker, "free_port", lambda: next(offered))
    assert (await start_broker()).port != info.port


async def test_further_lines_are_obeyed(start_broker: StartBroker) -> None:
    with pytest.raises(UnavailableError, match="no_such_directive"):
        await start_broker(conf_extra="no_such_directive 1\n")


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import asyncio, pathlib, sys\n"
        "from orchestrator.demo.broker import broker\n"
        "async def main():\n"
        "    async with broker(users=None, directory=pathlib.Path(sys.argv[1])) as info:\n"
        "        print(info.pid, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as parent:
        assert parent.stdout
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
    assert asyncio.run(_ended(child))
    os.close(child)


async def _ended(pidfd: int) -> bool:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, ended.set)
    async with asyncio.timeout(10):
        await ended.wait()
    asyncio.get_running_loop().remove_reader(pidfd)
    return True


async def test_the_stand_in_is_labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "find_mosquitto", lambda: None)
    with capture_logs() as events:
        async with broker.broker(users={"ota-orchestrator": "x"}, directory=tmp_path) as info:
            assert (info.kind, info.pid) == ("amqtt", None)
            assert await echoed(info, b"hello", ProtocolVersion.V311) == b"hello"
    (event,) = [event for event in events if event["event"] == "broker.stand_in"]
    assert event["log_level"] == "warning"
    assert "apt-get install mosquitto" in event["remedy"]


def test_the_program_is_found_off_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert broker.find_mosquitto() == "/usr/sbin/mosquitto"


def test_rendering_replaces_and_drops_and_never_loses_a_change() -> None:
    shipped = "# listener 1\nlistener 1883 127.0.0.1\nacl_file /a\npersistence true\n"
    assert broker.render(shipped, {"listener": "7 ::1", "acl_file": None}) == (
        "# listener 1\nlistener 7 ::1\npersistence true\n"
    )
    with pytest.raises(RequestError, match="has no password_file"):
        broker.render(shipped, {"password_file": "/p"})


async def test_outside_a_checkout_the_remedy_is_said(
    start_broker: StartBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "SHIPPED", tmp_path / "nowhere")
    with pytest.raises(RequestError, match="run the demo from a checkout"):
        await start_broker()
