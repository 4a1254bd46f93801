"""`ota simulate`: a fleet of simulated devices against a real broker and a real daemon.

Rules:
- Flags overrule the behaviour file, the file overrules the defaults.
- Progress goes to standard error, the summary to standard output as JSON.
- Heavy imports stay inside, so that the other commands start fast.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("simulate")
@click.option("--keys", type=_FILE, required=True, help="Public keys that the devices trust (device-keys.json).")
@click.option("--broker", metavar="URL", help="MQTT broker, mqtt://host:port or mqtts://host:port.")
@click.option("--ca-file", type=_FILE, help="Certificates to check an mqtts broker against.")
@click.option("--server", metavar="URL", help="Origin of the daemon's HTTP side, http://host:port.")
@click.option("--credentials", type=_FILE, help="What devices log in with, as `ota device add` writes it.")
@click.option("--behaviour", type=_FILE, help="What the fleet does, as YAML (docs/simulate.md).")
@click.option("--devices", type=int, help="Number of devices.")
@click.option("--seed", type=int, help="Decides which device has which fault.")
@click.option("--speed", type=float, help="Divides all durations of the devices.")
@click.option("--bad-share", type=float, help="Share of devices on which a bad image crashes, 0 to 1.")
@click.option("--silent-share", type=float, help="Share never heard again after booting a new image, 0 to 1.")
@click.option(
    "--allow-origin",
    "allow_origins",
    multiple=True,
    metavar="URL",
    help="Origin that downloads may come from; repeat for more.",
)
@click.option("--loopback", is_flag=True, help="Allow downloads by plain HTTP from loopback.")
@click.option("--duration", "duration_s", type=float, metavar="SECONDS", help="Stop after this time; else at a signal.")
@click.option("--journal", type=_FILE, help="Write what each device saw, one JSON object per line.")
def simulate_command(
    devices: int | None,
    seed: int | None,
    speed: float | None,
    bad_share: float | None,
    silent_share: float | None,
    **given: Any,
) -> None:
    """Run simulated devices until SIGTERM, SIGINT or --duration.

    Devices are real MQTT and HTTP clients. They verify triggers with the reference verifier, download,
    check, install into A/B slots, reboot, test themselves, and misbehave as the behaviour says.
    """
    from orchestrator.sim.start import Request, simulate

    flags = {
        "devices": devices,
        "seed": seed,
        "speed": speed,
        "bad_share": bad_share,
        "silent_share": silent_share,
    }
    changes = {name: value for name, value in flags.items() if value is not None}
    summary = simulate(Request(changes=changes, **given), _display())
    click.echo(json.dumps(summary, indent=2))


def _display() -> Callable[[str], None]:
    """Return a function that shows the newest line: in place on a terminal, else one now and then."""
    if sys.stderr.isatty():
        return lambda line: click.echo(f"\r\x1b[K{line}", err=True, nl=False)
    shown = {"lines": 0}

    def show(line: str) -> None:
        if shown["lines"] % 10 == 0:
            click.echo(line, err=True)
        shown["lines"] += 1

    return show
