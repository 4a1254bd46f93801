"""`ota status`: whether the daemon hears devices, can sign, is heard by others, and what ends soon."""

from __future__ import annotations

import time
from typing import Any

import click

from orchestrator.cli import show, watching
from orchestrator.cli.client import Client, connect, fail
from orchestrator.cli.durations import Duration
from orchestrator.cli.exits import EXIT_TIMEOUT
from orchestrator.core.reason import counted
from orchestrator.units import format_duration

_NEAR_DAYS = 30
_WELL = {"active"}
_PAUSE_S = 0.2


@click.command("status")
@click.option("--wait", "wait_s", type=Duration(), help="First wait until it can work, so long at most, such as 30s.")
@watching.watch_options
@show.output_option
@click.pass_context
def status_command(context: click.Context, wait_s: float | None, watch: bool, interval_s: float, output: str) -> None:
    """Say how the daemon is: broker, keys, store, reports, and what expires when."""
    client = connect(context)
    if wait_s is not None:
        _await(client, wait_s)
    if watch:
        picture = watching.Picture(lambda data: watching.lines_of(_draw, data))
        context.exit(watching.follow(lambda: client.get("/status"), picture, output, interval_s))
    show.emit(client.get("/status"), output, _draw)


def _await(client: Client, limit_s: float) -> None:
    """Wait until the daemon answers, has its broker, can sign and can store."""
    ends_at = time.monotonic() + limit_s
    while lacking := _lacking(client.knock("/status")):
        if time.monotonic() >= ends_at:
            fail(f"after {format_duration(limit_s)} {lacking}", EXIT_TIMEOUT)
        time.sleep(_PAUSE_S)


def _lacking(data: dict[str, Any] | None) -> str:
    if data is None:
        return "the daemon does not answer; its log says why (see also --server)"
    if not data["broker_connected"]:
        return "the daemon has no connection to the broker; is the broker running, and mqtt.url its address?"
    return data.get("store_fault") or " ".join(data["trigger_faults"])


_DEAF = "is not judged: the link is down, or has just come back, or the clock has just jumped"


def _draw(data: dict[str, Any]) -> None:
    _line("version", data["version"])
    _line("broker", "connected" if data["broker_connected"] else "NOT connected", bad=not data["broker_connected"])
    _line("silence", "is judged" if data["hearing"] else _DEAF)
    if jump := data.get("clock_jump"):
        _line(
            "clock", f"jumped by {jump['by_s']:+} s at {show.when(jump['at'])}; deadlines were moved with it", bad=True
        )
    _line("keyset", data["epoch"])
    faults = data["trigger_faults"]
    _line("triggers", " ".join(faults) if faults else "can be signed", bad=bool(faults))
    store = data["store"]
    _line("store", store.get("error") or _figures(store), bad="error" in store)
    if fault := data.get("store_fault"):
        _line("store", f"CANNOT be written: {fault}", bad=True)
    if stopped := data.get("stopped_here"):
        _line("stopped", f"{', '.join(stopped)}; not stored yet, do not restart the daemon", bad=True)
    count = data["recorder"].get("reports", 0)
    _line("reports", f"{count} since the start, the last at {show.when(data['heard_at'])}")
    _draw_webhooks(data["webhooks"])
    for item in data["expires"]:
        if "error" in item:
            _line("expires", f"{item['name']}: {item['error']}", bad=True)
        else:
            left = f"in {item['days_left']} days" if item["days_left"] > 0 else "is over"
            text = f"{show.when(item['expires_at'])}  {left}  {item['name']}"
            _line("expires", text, bad=item["days_left"] <= _NEAR_DAYS)


def _draw_webhooks(data: dict[str, Any]) -> None:
    states = {state: count for state, count in data["states"].items() if count}
    if not states:
        return
    counts, troubled = ", ".join(f"{count} {state}" for state, count in sorted(states.items())), states.keys() - _WELL
    behind = f"entries of the audit log that wait for the slowest: {data['waiting']}"
    hint = "; see `ota webhook list`" if troubled else ""
    _line("webhooks", f"{counts}; {behind}{hint}", bad=bool(troubled))


def _figures(store: dict[str, Any]) -> str:
    devices, running = counted(store["devices"], "device"), counted(store["running"], "rollout")
    return f"{devices}, {running} running, triggers that wait for the broker: {store['waiting']}"


def _line(name: str, value: object, *, bad: bool = False) -> None:
    click.echo(f"{name:<10}{click.style(show.plain(value), fg='red' if bad else None)}")
