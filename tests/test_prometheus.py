"""A real Prometheus with the shipped files asks a real daemon: rules and dashboard hold on what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import yaml

from orchestrator.core.model import Phase
from orchestrator.core.rollout import Command
from orchestrator.demo.broker import HOST, BrokerInfo, free_port
from tests.support.builders import REST, make_plan
from tests.support.factory import plant
from tests.support.scene import Deployment, daemon, operator
from tests.test_alerts import ALERTS, DEPLOY, asked, queries

_PATIENCE_S = 30.0
QUIET = {
    "ota_expires_timestamp_seconds",
    "ota_http_requests_total",
    "ota_messages_total",
    "ota_outbox",
    "ota_outbox_oldest_seconds",
    "ota_reports_total",
}
"""What may have no values for a query: nothing waits, and no poll or error was there yet."""

View = dict[str, Any]


@asynccontextmanager
async def prometheus(folder: Path, target: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Run Prometheus with the shipped files, which asks this target every second; yields a client of its API."""
    shipped: View = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (job,) = shipped["scrape_configs"]
    job |= {"scrape_interval": "1s", "scrape_timeout": "1s", "static_configs": [{"targets": [target]}]}
    shipped |= {"global": {"evaluation_interval": "1s"}}
    shipped["rule_files"] = [str(DEPLOY / "prometheus" / name) for name in shipped["rule_files"]]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(shipped))
    listen = f"{HOST}:{free_port()}"
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address={listen}",
            stdout=log,
            stderr=log,
        )
    try:
        async with httpx2.AsyncClient(base_url=f"http://{listen}/api/v1", trust_env=False, timeout=10) as http:
            await _ready(http, f"http://{listen}/-/ready")
            yield http
    finally:
        process.terminate()
        await process.wait()


async def _ready(http: httpx2.AsyncClient, url: str) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            with suppress(httpx2.TransportError):  # it does not listen yet
                if (await http.get(url)).status_code == httpx2.codes.OK:
                    return
            await asyncio.sleep(0.05)


async def answer(http: httpx2.AsyncClient, query: str) -> list[View]:
    """Return what a query finds."""
    said = (await http.get("/query", params={"query": query})).json()
    assert said["status"] == "success", said
    found: list[View] = said["data"]["result"]
    return found


async def rules(http: httpx2.AsyncClient) -> list[View]:
    """Return the rules once each was evaluated on several looks at the daemon."""
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            if await answer(http, 'sum_over_time(up{job="ota-orchestrator"}[1m]) >= 4'):
                groups = (await http.get("/rules")).json()["data"]["groups"]
                found = [rule for group in groups for rule in group["rules"]]
                if all(rule["health"] != "unknown" for rule in found):
                    return found
            await asyncio.sleep(0.1)


async def past(folder: Path) -> None:
    """Leave a database with a rollout that was halted and one that runs, on two models."""
    async with plant(folder) as it:
        await it.enrol(20)
        halted = await it.running(make_plan((REST,), name="winter", in_flight=20))
        await it.send()
        await it.confirm((await it.updates(halted))[:5])
        await it.conductor.command("winter", Command.HALT, actor="ann", reason="smoke")
        running = await it.running(make_plan((10, REST), name="spring", in_flight=20))
        assert running.phase is Phase.RUNNING


async def test_rules_and_dashboard_hold_on_what_a_real_daemon_says(tmp_path: Path, open_broker: BrokerInfo) -> None:
    await past(tmp_path)
    watched = f"{HOST}:{free_port()}"
    config = Deployment.made(tmp_path, open_broker.port, metrics={"listen": watched}).write()
    async with daemon(config) as running:
        async with operator(await running.origin()) as api, prometheus(tmp_path, watched) as http:
            assert (await api.get("/api/v1/status")).status_code == httpx2.codes.OK
            found = await rules(http)
            assert {rule["name"] for rule in found} == {alert["alert"] for alert in ALERTS}
            assert [rule["lastError"] for rule in found if rule["health"] != "ok"] == []
            alerts = [
                (rule["name"], alert["state"], alert["annotations"]) for rule in found for alert in rule["alerts"]
            ]
            firing = [(name, said["summary"]) for name, state, said in alerts if state == "firing"]
            assert firing == [("OtaRolloutHalted", "The rollout winter is halted.")]
            assert {name for name, _, _ in alerts} <= {"OtaRolloutHalted", "OtaNotHearing"}, "the link is new"
            empty = {query for query in queries() if not await answer(http, query.replace("a|b", ".*"))}
        assert (await running.stop())[0] == 0
    assert set().union(*map(asked, empty)) <= QUIET
