"""`ota rollout rehearse`: what a plan would do to a good and to a bad build, before any device sees it.

Rules:
- No daemon is asked and nothing is stored: it is the engine itself, in virtual time.
- The numbers depend on the plan, the options and the seed, never on the machine or the number of processes.
- What came of the runs is no error: it ends with 0 whenever it ran.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import show
from orchestrator.cli.client import fail
from orchestrator.cli.exits import EXIT_ERROR
from orchestrator.errors import ConfigError, OrchestratorError

if TYPE_CHECKING:
    from orchestrator.core.model import Plan

MAX_DEVICES, MAX_RUNS, MAX_STRATA, MAX_JOBS = 1_000_000, 1_000_000, 64, 256
_SHARE = click.FloatRange(0, 1)
_BAR = 30
_REASONS = {
    "passed": "every stage passed",
    "evidence": "by evidence",
    "lost_after_reboot": "a device was lost after the reboot",
    "max_failures": "by max_failures",
    "max_failure_rate": "by max_failure_rate",
    "inconclusive": "no number of devices that is left can settle it",
    "strata": "too few strata are healthy by themselves",
    "unreached": "too many devices were never reached",
}


@click.command("rehearse")
@click.option("-f", "--file", "path", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The plan.")
@click.option("--template", metavar="NAME", help="A template instead of a file: `ota rollout template --list`.")
@click.option(
    "--devices", type=click.IntRange(1, MAX_DEVICES), default=10_000, show_default=True, help="In the cohort."
)
@click.option("--strata", type=click.IntRange(1, MAX_STRATA), default=1, show_default=True, help="Hardware models.")
@click.option("--bad-share", type=_SHARE, default=0.0, show_default=True, help="Devices on which the build fails.")
@click.option("--lost", type=_SHARE, default=0.0, show_default=True, help="Of those, never heard again.")
@click.option("--liars", type=_SHARE, default=0.0, show_default=True, help="Devices that always say they are healthy.")
@click.option("--offline", type=_SHARE, default=0.0, show_default=True, help="Devices that never connect.")
@click.option("--grouped", type=_SHARE, default=0.1, show_default=True, help="Devices in groups with their own stage.")
@click.option("--late-share", "late", type=_SHARE, default=0.0, show_default=True, help="Devices that just registered.")
@click.option("--poll", "poll_s", metavar="DURATION", default="1h", show_default=True, help="Between two polls.")
@click.option("--download", "download_s", metavar="DURATION", default="2m", show_default=True, help="Half take less.")
@click.option("--runs", type=click.IntRange(1, MAX_RUNS), default=1000, show_default=True, help="How often.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Fixes all runs.")
@click.option("--jobs", type=click.IntRange(1, MAX_JOBS), help="Processes; without it one per core.")
@show.output_option
def rehearse_command(
    path: Path | None,
    template: str | None,
    poll_s: str,
    download_s: str,
    bad_share: float,
    lost: float,
    **given: Any,
) -> None:
    """Run a plan many times against virtual devices; say how often it halts, whom it reaches, how long it takes.

    It is the engine itself in virtual time; no daemon is asked, and nothing is stored.
    """
    from orchestrator.rehearsal.fleet import Fleet, Spread
    from orchestrator.rehearsal.run import Scenario
    from orchestrator.rehearsal.summary import summarise
    from orchestrator.rehearsal.workers import cores, rehearse_all

    plan = _plan(path, template)
    fleet = Fleet(
        given["devices"],
        given["strata"],
        bad_share,
        lost,
        given["liars"],
        given["offline"],
        given["grouped"],
        given["late"],
        poll_s=_duration("--poll", poll_s),
        download=Spread(_duration("--download", download_s), Fleet(1).download.sigma),
    )
    scenario = Scenario(plan, fleet, given["seed"])
    jobs = min(given["jobs"] or cores(), given["runs"])
    outcomes = rehearse_all(scenario, given["runs"], jobs, _progress(given["runs"]))
    show.emit(summarise(scenario, outcomes), given["output"], draw)


def draw(data: show.View) -> None:
    """Draw what the runs say."""
    kind = "bad" if data["bad_share"] > data["tolerated"] else "good"
    click.echo(
        f"{show.plain(data['plan'])}: {data['runs']:,} runs of {data['devices']:,} devices, seed {data['seed']}; "
        f"the build fails on {data['bad_share']:.2%}, the plan tolerates {data['tolerated']:.2%}: a {kind} build"
    )
    show.table(
        ("outcome", "runs", "95 % interval", "time p50", "time p95"),
        [
            _outcome(data, "completed", "completed", "finish"),
            _outcome(data, "halted", "halt", "halt"),
            _outcome(data, "inconclusive", "inconclusive", None),
        ],
    )
    show.table(
        ("devices", "mean", "p95", "most"),
        [
            (
                word,
                f"{data[f'devices_{word}_mean']:,.1f}",
                *(f"{data[f'devices_{word}_{at}']:,}" for at in ("p95", "max")),
            )
            for word in ("offered", "reached", "broken")
        ],
    )
    show.table(
        ("it ended", "in stage", "runs", "why"),
        [(end["phase"], end["stage"] + 1, f"{end['runs']:,}", _why(end["code"])) for end in data["ends"]],
    )
    wrong = data["wrong_advances"]
    click.secho(f"wrong advances: {wrong:,} of {data['runs']:,}", fg="red" if wrong else "green", bold=True)


def _plan(path: Path | None, template: str | None) -> Plan:
    """Return the plan; ends the command if there is none, or if it has faults."""
    from orchestrator import plans, strict_yaml

    if (path is None) == (template is None):
        raise click.UsageError("name a plan with -f FILE, or a template with --template NAME")
    try:
        if path is None:
            return plans.read_plan(plans.template(str(template)), str(template))
        with path.open("rb") as file:
            return plans.read_plan(file.read(strict_yaml.MAX_BYTES + 1), str(path))
    except ConfigError as error:
        for fault in error.faults:
            click.echo(f"error: {show.plain(fault)}", err=True)
        raise SystemExit(EXIT_ERROR) from None
    except OrchestratorError as error:
        fail(error.message)
    except OSError as error:
        fail(f"{path}: cannot be read ({error.strerror})")


def _duration(option: str, text: str) -> float:
    from orchestrator.units import parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None
    if not seconds:
        raise click.BadParameter("must be longer than nothing", param_hint=option)
    return seconds


def _progress(runs: int) -> Callable[[int], None]:
    """Return what shows how far it is: a bar in place on a terminal, nothing elsewhere."""
    if not _is_terminal():
        return lambda done: None

    def bar(done: int) -> None:
        full = _BAR * done // runs
        click.echo(f"\r\x1b[K{'#' * full}{'.' * (_BAR - full)} {done:,} of {runs:,} runs", err=True, nl=False)
        if done == runs:
            click.echo("\r\x1b[K", err=True, nl=False)

    return bar


def _is_terminal() -> bool:
    return sys.stderr.isatty()


def _outcome(data: show.View, word: str, name: str, times: str | None) -> tuple[str, ...]:
    low, high = data[f"{name}_interval"]
    spent = [data[f"{times}_s_{at}"] if times else None for at in ("p50", "p95")]
    return word, f"{data[f'{name}_probability']:.2%}", f"{low:.2%} to {high:.2%}", *map(_time, spent)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def _why(code: str) -> str:
    return _REASONS.get(code, code)
