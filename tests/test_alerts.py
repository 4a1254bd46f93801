"""Alerts and dashboard: they are well-formed, ask for what is measured, fire when they should, and are quiet before."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.adapters.prometheus import Kind, Metric
from orchestrator.daemon import metrics

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = DEPLOY / "prometheus" / "ota-alerts.yml"
TESTS = DEPLOY / "prometheus" / "ota-alerts-test.yml"
DASHBOARD = json.loads((DEPLOY / "grafana" / "ota.json").read_text())
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
FOREIGN = {"up", "process_start_time_seconds", "process_cpu_seconds_total", "process_resident_memory_bytes", "ALERTS"}
GIVEN = {"instance", "job", "le"}
"""Labels that Prometheus gives."""
_NAME = re.compile(r"\b(?:ota_[a-z_]+|process_[a-z_]+|up|ALERTS)\b")
_SELECTED = re.compile(r"\b(ota_[a-z_]+)\{([^}]*)\}")


def promtool(*words: str, folder: Path = DEPLOY / "prometheus") -> str:
    done = subprocess.run(["promtool", *words], check=False, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def series() -> dict[str, Metric]:
    """Return every name under which something can be asked for."""
    found: dict[str, Metric] = {}
    for metric in metrics.ALL:
        ends = ("_bucket", "_count", "_sum") if metric.kind is Kind.HISTOGRAM else ("",)
        found |= {metric.name + end: metric for end in ends}
    return found


def queries() -> Iterator[str]:
    """Return every query of the dashboard, with its variables replaced as Grafana does."""
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    found += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    for query in found:
        yield query.replace("$__rate_interval", "1m").replace("$instance", "a|b").replace("$rollout", ".*")


def asked(query: str) -> set[str]:
    """Return the names that a query asks for."""
    return set(_NAME.findall(re.sub(r'"[^"]*"', '""', query)))


def test_the_files_are_what_prometheus_takes() -> None:
    promtool("check", "rules", RULES.name)
    promtool("check", "config", "prometheus.yml")


def test_every_alert_fires_when_it_should_and_no_other_one_with_it() -> None:
    promtool("test", "rules", TESTS.name)


def test_every_alert_is_tested() -> None:
    names = {test["name"].partition(",")[0] for test in yaml.safe_load(TESTS.read_text())["tests"]}
    assert {alert["alert"] for alert in ALERTS} <= names


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert alert["annotations"]["summary"].endswith(".")
    assert alert["annotations"]["runbook"].endswith(".")


def test_the_queries_of_the_dashboard_are_queries(tmp_path: Path) -> None:
    rules = [{"record": f"dashboard:query:{number}", "expr": query} for number, query in enumerate(queries())]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", "queries.yml", folder=tmp_path)


@pytest.mark.parametrize("query", sorted({*queries(), *(alert["expr"] for alert in ALERTS)}))
def test_what_is_asked_for_is_measured_with_these_labels(query: str) -> None:
    known = series()
    assert asked(query)
    assert asked(query) - FOREIGN <= known.keys()
    for name, selection in _SELECTED.findall(query):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selection))
        assert labels <= {*known[name].labels, *GIVEN}


def test_the_variables_of_the_dashboard_are_measured() -> None:
    wanted = [re.fullmatch(r"label_values\((\w+), (\w+)\)", item["query"]) for item in DASHBOARD["templating"]["list"]]
    for match in filter(None, wanted):
        assert match[2] in {*series()[match[1]].labels, *GIVEN}


def test_every_metric_is_asked_for_by_an_alert_or_the_dashboard_or_is_there_to_be_looked_up() -> None:
    everything = set().union(*map(asked, [*queries(), *(alert["expr"] for alert in ALERTS)]))
    unasked = {
        name for name, metric in series().items() if name not in everything and metric.kind is not Kind.HISTOGRAM
    }
    assert unasked == {
        "ota_build_info",
        "ota_broker_connections_total",
        "ota_http_requests_open",
        "ota_keyset_epoch",
        "ota_rollout_cohort_devices",
        "ota_webhook_posts_total",
        "ota_webhook_queue",
    }


def test_the_panels_of_the_dashboard_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
