"""Draws `docs/metrics.md` from what is measured and from the alerts: `python docs/draw_metrics.py` rewrites it.

Rules:
- Every metric comes from `daemon.metrics.ALL`, every alert from `deploy/prometheus/ota-alerts.yml`; only the words
  around them stand here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs.markdown import code, table
from orchestrator.adapters.prometheus import Metric
from orchestrator.daemon import metrics

TARGET = Path(__file__).with_name("metrics.md")
ALERTS = Path(__file__).parents[1] / "deploy" / "prometheus" / "ota-alerts.yml"

GROUPS = (
    ("The daemon", ("ota_build", "ota_hearing", "ota_expir", "ota_key", "ota_retained")),
    ("HTTP", ("ota_http",)),
    ("The broker", ("ota_broker", "ota_mqtt", "ota_triggers", "ota_outbox")),
    ("Reports", ("ota_reports", "ota_messages", "ota_ingest")),
    ("The store", ("ota_store", "ota_disk")),
    ("Halts and limits", ("ota_halt", "ota_stops", "ota_devices", "ota_outage", "ota_ceiling", "ota_slots")),
    ("Rollouts", ("ota_rollout",)),
    ("Webhooks", ("ota_webhook",)),
)

HEAD = """# Metrics, alerts and health

This page is drawn from the code by `docs/draw_metrics.py`; a test keeps it up to date.

## Who may ask

| where | what | who |
|---|---|---|
| `http.listen`, and the admin socket | `/metrics` | accounts that may read (role viewer); no device |
| | `/healthz` | everybody: 200 while the process answers |
| | `/readyz` | everybody: 200 or 503; who may read gets the reasons as JSON |
| `metrics.listen`, where it is set | the three of them, and nothing else | whoever reaches that address |

Keep `metrics.listen` on loopback, or in a network of your own. The daemon is ready while it can write its store, is
connected to the broker and has a key that devices accept. A proxy that takes it out of service on 503 would keep
devices from polling while the broker is away: let it ask `/healthz`.

```sh
ota operator add prometheus --person prometheus --role viewer --token-out /etc/prometheus/ota-token
install -m 0644 -t /etc/prometheus deploy/prometheus/ota-alerts.yml
promtool check rules /etc/prometheus/ota-alerts.yml
```

Merge `deploy/prometheus/prometheus.yml` into the configuration of Prometheus, and import `deploy/grafana/ota.json` into
Grafana. Alerts go where Alertmanager sends them: Slack, e-mail and pagers are configured there, not here.

## The watchdog

systemd restarts a daemon that is stuck: `WatchdogSec=30` of the unit. It is fed every five seconds by the event loop
after a read of the store, unless

- the store cannot be written, or one piece of work has kept the writer for 30 s,
- the task that keeps the link to the broker has not looked after it for 15 s,
- a report that was taken from the broker has waited for its commit for 60 s.

`daemon.unwell` in the log says which. A broker that is away and a key that is wrong are no reason: no restart cures
them. While a person's stop waits for the store (`ota_stops_unstored`) it is fed whatever else is wrong, for the stop
would be lost with the process.

## What is measured

Rollouts are told of until they are over, 100 of them one by one: those that are halted, inconclusive or running first.
No label holds a device. Times are of this process: a restart begins them anew, as `rate` and `increase` expect. Besides
these there are the `process_` metrics of every Prometheus client.
"""


def render() -> str:
    """Return the page."""
    parts = [HEAD]
    for title, starts in GROUPS:
        parts.append(f"\n### {title}\n\n" + _table(metric for metric in metrics.ALL if metric.name.startswith(starts)))
    parts.append("\n## Alerts\n\n" + _alerts())
    return "".join(parts)


def _table(found: Iterable[Metric]) -> str:
    rows = ((code(it.name), it.kind, ", ".join(map(code, it.labels)), it.text) for it in found)
    return table(("metric", "kind", "labels", "meaning"), rows)


def _alerts() -> str:
    rules = [rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]
    rows = (
        (
            rule["alert"],
            rule["labels"]["severity"],
            rule["annotations"]["runbook"].replace("{{ $labels.rollout }}", "NAME"),
        )
        for rule in rules
    )
    return table(("alert", "severity", "what to do"), rows)


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
