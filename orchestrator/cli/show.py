"""How answers look: tables and bars for people, JSON and YAML for machines.

Rules:
- Data goes to standard output. JSON and YAML are exactly what the API said.
- Colours and live drawing only on a terminal, and never where NO_COLOR is set.
- What devices and people wrote is hostile: control and invisible characters are drawn as escapes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from orchestrator.core.reason import counted

View = dict[str, Any]
FORMATS = ("table", "json", "yaml")
output_option = click.option(
    "-o", "--output", type=click.Choice(FORMATS), default="table", show_default=True, help="How to print it."
)
_PHASE_COLOUR = {"running": "cyan", "done": "green", "halted": "red", "aborted": "red", "inconclusive": "yellow"}
_OVER = ("done", "aborted")
BAR = 40
_NAMED = 20
"""Devices that are named where a person reads; a machine gets all."""


def emit(data: Any, output: str, draw: Callable[[Any], None]) -> None:
    """Print data as JSON or YAML, or draw it."""
    if output == "json":
        click.echo(json.dumps(data, indent=2))
    elif output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(data, sort_keys=False), nl=False)
    else:
        draw(data)


def table(columns: Sequence[str], lines: Sequence[Sequence[object]]) -> None:
    """Print a plain table; columns are as wide as they need to be."""
    cells = [[plain(cell) for cell in line] for line in lines]
    widths = [max(len(name), *(len(line[i]) for line in cells), 0) for i, name in enumerate(columns)]
    click.secho(
        "  ".join(name.upper().ljust(width) for name, width in zip(columns, widths, strict=True)).rstrip(), bold=True
    )
    for line in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def plain(text: object) -> str:
    """Return a text that cannot steer a terminal."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in str(text)
    )


def plain_lines(text: str) -> str:
    """Return a text of several lines that cannot steer a terminal."""
    return "\n".join(plain(line) for line in text.split("\n"))


def when(at: float | None) -> str:
    """Return a time for people, in UTC."""
    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))


def rollout_lines(data: View) -> list[str]:
    """Return a rollout as lines: head, stages with bars, evidence, what it waits for."""
    phase = click.style(data["phase"], fg=_PHASE_COLOUR.get(data["phase"]), bold=True)
    size = "? devices" if data["cohort_size"] is None else counted(data["cohort_size"], "device")
    lines = [
        f"{data['name']}  {phase}  release {data['release']}  {size}  {data['in_flight']} in flight",
        *_mended(data),
        *(_stage_line(stage) for stage in data["stages"]),
        *(_evidence_line(item) for item in data["evidence"]),
    ]
    if data["bound"] is not None:
        lines.append(_bound_line(data["bound"]))
    lines.append(f"  because {plain(data['standing']['text'])}")
    return lines


def rollout_summary(data: View) -> str:
    """Return how a rollout stands in one line: the stage that is open, and what it waits for."""
    begun = [stage for stage in data["stages"] if stage["opened"]]
    stage = f"  stage {begun[-1]['index'] + 1} {_counts(begun[-1])}" if begun else ""
    return f"{data['name']}  {data['phase']}{stage}  because {plain(data['standing']['text'])}"


def draw_rollout(data: View) -> None:
    """Print a rollout."""
    for line in rollout_lines(data):
        click.echo(line)


def draw_rollouts(data: list[View]) -> None:
    """Print the list of rollouts."""
    table(
        ("name", "release", "phase", "stage", "devices", "healthy", "failed", "in flight", "severity"),
        [
            (
                item["name"],
                item["release"],
                item["phase"],
                f"{item['stage'] + 1}/{item['stages']}",
                item["cohort_size"] if item["cohort_size"] is not None else "?",
                item["confirmed"],
                item["failures"],
                item["in_flight"],
                item["severity"],
            )
            for item in data
        ],
    )


def draw_rollout_reason(data: View) -> None:
    """Print why a rollout stands where it stands."""
    click.echo(f"{data['name']} is {data['phase']} because {plain(data['because'])}")
    click.echo(f"  {data['phase']} since {when(data['since'])}, by {plain(data['actor'])}")
    for line in _mended(data):
        click.echo(line)
    for line in data["next"]:
        click.echo(f"  {line}")
    for item in data["failures"]:
        click.echo(f"  failed  {counted(item['devices'], 'time')}: {plain(item['code'])}  {item['text']}".rstrip())
    for item in data["refusals"]:
        click.echo(f"  refused {counted(item['devices'], 'time')}: {plain(item['code'])}  {item['text']}".rstrip())
    for item in data["waits_for"][1:]:
        click.echo(f"  waits   {_waited(item)}")
    over = data["phase"] in _OVER
    for item in data["evidence"]:
        click.echo(f"{_evidence_line(item)}{'' if over else _to_halt(item)}")
    if data["lost"] is not None and data["lost"]["halts_at"] is not None:
        click.echo(f"  halt    {data['lost']['k']} lost after the reboot, {data['lost']['halts_at']} halt this stage")
    if data["bound"] is not None:
        click.echo(f"{_bound_line(data['bound'])}{'' if over else _to_pass(data['bound'])}")
    if data["diversity"] is not None:
        _draw_diversity(data["diversity"])
    if len(data["strata"]) > 1:
        _draw_strata(data["strata"])
    if data["people"]:
        click.echo("people:")
    for item in data["people"]:
        click.echo(f"  {when(item['at'])}  {plain(item['actor'])} {plain(item['did'])}  {plain(item['text'])}".rstrip())
    click.echo("history:")
    for event in data["events"]:
        place = f"{event['phase']}, stage {event['stage'] + 1}"
        click.echo(f"  {when(event['at'])}  {place:24}  {plain(event['text'])}  ({event['actor']})")


def _draw_diversity(data: View) -> None:
    """Print which strata are green, and what the others lack."""
    click.echo(f"  strata  {data['green']} of the {data['needed']} that must be healthy by themselves")
    for item in data["strata"]:
        word = click.style("green", fg="green") if item["green"] else "not green"
        counts = f"{item['healthy']} healthy, k={item['k']} n={item['n']}, at most {item['allowed']}"
        click.echo(f"    {plain(item['stratum'])}  {word}  {counts}")


def draw_devices(data: list[View]) -> None:
    """Print the list of devices."""
    table(
        ("id", "model", "version", "rel", "endpoints", "online", "seen"),
        [
            (
                item["id"],
                item["model"],
                item["version"] or "-",
                item["rel"],
                "-" if item["endpoints"] is None else item["endpoints"],
                _yes(item["online"]),
                when(item["seen_at"]),
            )
            for item in data
        ],
    )


def draw_quarantined(data: list[View]) -> None:
    """Print the list of devices in quarantine."""
    lines = [(item["id"], item["model"], when(item["quarantined_at"]), item["quarantine"]) for item in data]
    table(("id", "model", "since", "why"), lines)


def draw_preview(data: View) -> None:
    """Print which devices each stage of a plan would take, and who is left out."""
    drawn = "" if data["exact"] else "; an example, for the order is drawn anew when the rollout is made"
    click.echo(f"{data['name']}  release {data['release']}  {data['devices']} of {data['fleet']} devices{drawn}")
    for stage in data["stages"]:
        strata = ", ".join(f"{plain(name)} {count}" for name, count in stage["strata"].items())
        group = f" of group {stage['group']}" if stage["group"] else ""
        fewer = f" of {stage['wanted']}" if stage["devices"] < stage["wanted"] else ""
        parts = f" ({strata})" if strata else ""
        click.echo(f"  stage {stage['index'] + 1}  {stage['devices']}{fewer} devices{group}{parts}")
        _draw_ids(stage["ids"])
    for item in data["warnings"]:
        click.echo(f"  {click.style('warning', fg='yellow')}  stage {item['stage'] + 1}: {plain(item['text'])}")
    if data["late"]:
        click.echo(f"  {data['late']} devices were registered too late for any but the last stage")
    if data["unknown"]:
        click.echo(f"  of {data['unknown']} of the devices that match nobody knows what they run")
    for item in data["left_out"]:
        click.echo(f"  left out  {counted(item['devices'], 'device')}: {plain(item['text'])}")
        _draw_ids(item["ids"])


def _draw_ids(ids: Sequence[str]) -> None:
    more = f" and {len(ids) - _NAMED} more, all with -o json" if len(ids) > _NAMED else ""
    if ids:
        click.echo(f"    {' '.join(plain(name) for name in ids[:_NAMED])}{more}")


def draw_device(data: View) -> None:
    """Print a device, what operators say of it, and its updates."""
    from orchestrator.core.model import OTAD

    draw_devices([data])
    for name in ("revision", "site", "time_zone"):
        if data[name]:
            click.echo(f"  {name.replace('_', ' '):<10}{plain(data[name])}")
    if data.get("dialect", OTAD) != OTAD:
        click.echo(f"  {'dialect':<10}{data['dialect']}; enforces {' '.join(data['enforces']) or 'nothing'}")
    for name in ("groups", "tags"):
        if data[name]:
            click.echo(f"  {name:<10}{plain(' '.join(data[name]))}")
    for name, value in data["attributes"].items():
        click.echo(f"  {plain(name)} = {plain(value)}")
    _draw_quarantine(data)
    if data["updates"]:
        table(
            ("rollout", "state", "since", "stage", "attempt", "code"),
            [
                (u["rollout"], u["state"], when(u["state_at"]), u["stage"] + 1, u["attempt"], u["code"] or "-")
                for u in data["updates"]
            ],
        )


def draw_device_reason(data: View) -> None:
    """Print why a device has or has not each release."""
    draw_devices([data["device"]])
    _draw_quarantine(data["device"])
    for item in data["rollouts"]:
        click.echo(f"{item['rollout']} ({item['phase']}): {item['state'] or 'not taken'}: {plain(item['because'])}")
        if (allowed := item.get("unsigned_allowed")) is not None:
            click.echo(f"  it cannot verify this image; that is allowed: {plain(allowed)}")
        if (refusal := item.get("refusal")) is not None:
            said = plain(" ".join(filter(None, (refusal["code"], refusal["text"]))))
            click.echo(f"  refused last at {when(refusal['at'])}: {said}. {refusal['means']}".rstrip())
        _draw_held(item)
        for _, line in sorted([*_sent(item), *_said(item)], key=lambda each: each[0]):
            click.echo(line)


def _draw_held(item: View) -> None:
    """Print what holds a device, unless that is one reason without a time, which was printed already."""
    told = [reason["text"] for reason in item["reasons"] if reason["may_change_at"] is None]
    if len(item["reasons"]) == 1 and (item["state"] is None or told == [item["because"]]):
        return
    for reason in item["reasons"]:
        until = "" if reason["may_change_at"] is None else f"  (until {when(reason['may_change_at'])})"
        click.echo(f"  held    {reason['code']}: {plain(reason['text'])}{until}")


def _sent(item: View) -> Iterator[tuple[float, str]]:
    for delivery in item.get("deliveries", []):
        at = delivery["planned_at"]
        yield at, f"  {when(at)}  {delivery['kind']} {delivery['state']} seq {delivery['seq']}"


def _said(item: View) -> Iterator[tuple[float, str]]:
    for report in item.get("reports", []):
        detail = plain(" ".join(filter(None, (report["code"], report["text"]))))
        yield report["at"], f"  {when(report['at'])}  said {report['kind']} {detail}".rstrip()


def draw_artifacts(data: list[View]) -> None:
    """Print the list of artifacts."""
    table(
        ("sha256", "name", "version", "rel", "hardware", "bytes", "format", "warnings", "uri"),
        [
            (a["sha256"], a["name"], a["version"], a["rel"], ",".join(a["hardware"]), a["size_bytes"])
            + (a["recognised"] or a["format"], len(a["warnings"]), a["uri"])
            for a in data
        ],
    )


def draw_artifact(data: View) -> None:
    """Print an artifact, and what was noticed of its bytes."""
    draw_artifacts([data])
    _draw_remarks(data)


def draw_artifact_detail(data: View) -> None:
    """Print all that is known of an artifact, one thing a line."""
    for name, value in _artifact_lines(data):
        click.echo(f"{name:<16}{plain(value)}")
    _draw_remarks(data)


def _artifact_lines(data: View) -> Iterator[tuple[str, object]]:
    yield "sha256", data["sha256"]
    yield "uri", data["uri"] if data["source_version"] is None else f"{data['uri']} (version {data['source_version']})"
    yield "size", f"{data['size_bytes']} bytes"
    yield "name", f"{data['name']} {data['version']}"
    yield "release counter", data["rel"]
    yield "hardware", ", ".join(data["hardware"])
    yield "component", data["component"]
    yield "statement by", f"key {data['key']}"
    yield "declared as", data["format"]
    yield "recognised as", data["recognised"] or "not kept when it was imported; import it again"
    yield "signature", data["signature"] or "none that is known"
    if data["security_epoch"]:
        yield "security epoch", data["security_epoch"]
    if data["min_from"]:
        yield "installs over", f"release counter {data['min_from']} and later"
    if data["leaves"]:
        yield "may replace", f"the newer {', '.join(map(str, data['leaves']))}"
    yield "releases", ", ".join(data["releases"]) or "none yet; see `ota release create`"
    if data["imported_at"] is None:
        yield "imported", "longer ago than the audit log was looked through; see `ota audit list`"
    else:
        yield "imported", f"{when(data['imported_at'])} by {data['imported_by']}"


def _draw_remarks(data: View) -> None:
    for item in data["warnings"]:
        word = click.style("warning", fg="yellow")
        click.echo(f"  {word}  {plain(item['text'])}; {plain(item['remedy'])} [{item['code']}]")


def draw_releases(data: list[View]) -> None:
    """Print the list of releases."""
    table(
        ("name", "version", "rel", "artifacts", "created"),
        [(r["name"], r["version"], r["rel"], len(r["artifacts"]), when(r["created_at"])) for r in data],
    )


def _draw_quarantine(device: View) -> None:
    if device["quarantine"]:
        click.echo(f"  quarantined since {when(device['quarantined_at'])}: {plain(device['quarantine'])}")


def _stage_line(stage: View) -> str:
    total = max(stage["target"] or 0, stage["opened"], 1)
    good = round(BAR * stage["confirmed"] / total)
    bad = -(-BAR * stage["failures"] // total)
    under_way = min(round(BAR * stage["in_flight"] / total), max(BAR - good - bad, 0))
    rest = max(BAR - good - bad - under_way, 0)
    bar = (
        click.style("█" * good, fg="green")
        + click.style("█" * bad, fg="red")
        + click.style("▒" * under_way, fg="cyan")
        + "·" * rest
    )
    return f"  stage {stage['index'] + 1} {bar} {_counts(stage)}  [{stage['phase']}]"


def _counts(stage: View) -> str:
    target = "?" if stage["target"] is None else stage["target"]
    unreached = f", {stage['unreached']} unreached" if stage["unreached"] else ""
    return f"{stage['confirmed']}/{target} healthy, {stage['failures']} failed{unreached}"


def _mended(data: View) -> list[str]:
    below = "" if data["fixes_below"] is None else f" below release counter {data['fixes_below']}"
    mends = f"  mends   {' '.join(data['advisories'])}{below}" if data["advisories"] or below else ""
    severe = "" if data["severity"] == "none" else f"severity {data['severity']}"
    return [f"{mends or '  mends '}  {severe}".rstrip()] if mends or severe else []


def _waited(item: View) -> str:
    counts = "" if item["need"] is None else f"{'?' if item['have'] is None else item['have']} of {item['need']:g} "
    if item["code"] in ("offers", "retries"):
        counts = f"{item['have']} "
    elif item["code"] == "soak":
        counts = f"{item['need']:g} "
    until = "" if item["may_change_at"] is None else f", until {when(item['may_change_at'])}"
    return f"{counts}{plain(item['text'])}{until}"


def _to_halt(item: View) -> str:
    if item["more"] is None:
        return ""
    if item["more"] == 1:
        return "; 1 more failure among these halts"
    return f"; {item['more']} more failures among these halt" if item["more"] else "; that is enough to halt"


def _to_pass(bound: View) -> str:
    if bound["more"] is None:
        return "; no number of healthy devices is enough"
    if bound["more"] == 1:
        return "; 1 more healthy device passes"
    return f"; {bound['more']} more healthy devices pass" if bound["more"] else ""


def _draw_strata(strata: Sequence[View]) -> None:
    rows = [
        (item["stratum"], item["opened"], item["in_flight"], item["confirmed"], item["failures"]) for item in strata
    ]
    table(("stratum", "devices", "in flight", "healthy", "failed"), rows)


def _bound_line(bound: View) -> str:
    return f"  pass    k={bound['k']} n={bound['n']}  bound {bound['upper']:.1%}, limit {bound['limit']:.1%}"


def _evidence_line(item: View) -> str:
    where = f"k={item['k']} n={item['n']} ({item['stratum']})"
    return f"  halt    {where}  E {item['e']:.3g}, halts at {item['threshold']:.3g}"


def _yes(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"
