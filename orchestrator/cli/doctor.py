"""`ota doctor`: look at all that the daemon needs, and prove what the broker lets devices do.

Rules:
- One line per finding, with what to do about it; the worst one makes the exit code: 1 for a fault, 6 for a warning.
- It works whether the daemon runs or not, and says what it could not look at.
- Passwords and keys come from files, never from the command line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from orchestrator.cli import show
from orchestrator.cli.check_config import config_option
from orchestrator.cli.exits import EXIT_ERROR, EXIT_WARNING
from orchestrator.errors import RequestError

if TYPE_CHECKING:
    from orchestrator.doctor.examine import Finding
    from orchestrator.doctor.party import Address, Login
    from orchestrator.doctor.results import Result

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group("doctor", invoke_without_command=True)
@config_option("The YAML file of the daemon.")
@show.output_option
@click.pass_context
def doctor_group(context: click.Context, path: Path, output: str) -> None:
    """Look at everything that the daemon needs, and say what to do about it.

    Looks at the configuration, the database, the broker, S3, the clocks, keys, certificates and who can read them.
    Best run as root, on the machine of the daemon.
    """
    if context.invoked_subcommand is not None:
        return
    from orchestrator.daemon import checkup
    from orchestrator.doctor.results import worst

    results = []
    for result in checkup.look(path, os.environ):
        results.append(result)
        if output == "table":
            _draw_result(result)
    if output != "table":
        said = [asdict(result) | {"level": result.level.name.lower()} for result in results]
        show.emit(said, output, lambda _: None)
    context.exit(_EXITS[worst(results).name])


_EXITS = {"OK": 0, "UNKNOWN": 0, "WARNING": EXIT_WARNING, "FAULT": EXIT_ERROR}
_WORDS = {"OK": ("ok", "green"), "UNKNOWN": ("?", None), "WARNING": ("warn", "yellow"), "FAULT": ("FAULT", "red")}


def _draw_result(result: Result) -> None:
    word, colour = _WORDS[result.level.name]
    click.echo(f"{click.style(f'{word:<5}', fg=colour)}  {result.name:<22} {show.plain(result.text)}")
    if result.remedy:
        click.echo(f"{'':<30}{show.plain(result.remedy)}")


@doctor_group.command("broker")
@click.option("--broker", required=True, metavar="URL", help="MQTT broker, mqtt://host:port or mqtts://host:port.")
@click.option("--ca-file", type=_FILE, help="Certificates to check an mqtts broker against.")
@click.option("--credentials", type=_FILE, help="Passwords of the three logins, as JSON lines (docs/broker.md).")
@click.option(
    "--certificates",
    type=click.Path(file_okay=False, path_type=Path),
    help="Instead of passwords: folder with NAME.pem and NAME.key of the three logins.",
)
@click.option("--witness", default="ota-doctor", show_default=True, help="Login that hears everything.")
@click.option("--device", required=True, help="Login of the test device that tries things.")
@click.option("--other", required=True, help="Login of the test device that it tries them on.")
@show.output_option
@click.pass_context
def broker_command(
    context: click.Context,
    broker: str,
    ca_file: Path | None,
    credentials: Path | None,
    certificates: Path | None,
    witness: str,
    device: str,
    other: str,
    output: str,
) -> None:
    """Log in as a device and try what no device may do.

    Takes a few seconds, and leaves nothing behind. The witness is not the daemon's login: the broker would end
    the daemon's connection.
    """
    from orchestrator.doctor.examine import examine

    names = (witness, device, other)
    if (credentials is None) == (certificates is None):
        raise RequestError("give either --credentials or --certificates", code="no_logins")
    logins = _passwords(credentials, names) if credentials else _certificates(certificates or Path(), names)
    findings = _shown(examine(_address(broker, ca_file), *logins), output)
    if output != "table":
        show.emit([asdict(finding) for finding in findings], output, lambda _: None)
    if not all(finding.passed for finding in findings):
        context.exit(EXIT_ERROR)


def _shown(findings: Iterable[Finding], output: str) -> list[Finding]:
    """Return all findings; for people each is printed as it comes."""
    found = []
    for finding in findings:
        found.append(finding)
        if output == "table":
            _draw(finding)
    return found


def _draw(finding: Finding) -> None:
    word = click.style("pass", fg="green") if finding.passed else click.style("FAIL", fg="red", bold=True)
    click.echo(f"{word}  {finding.name:15} {finding.claim}")
    if not finding.passed:
        click.echo(f"      {show.plain(finding.fault)}; {finding.remedy}")
    if finding.note:
        click.echo(f"      note: {show.plain(finding.note)}")


def _address(url: str, ca_file: Path | None) -> Address:
    from orchestrator.doctor.party import Address

    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or parts.scheme not in ("mqtt", "mqtts"):
        raise RequestError(f"--broker {url!r} must be mqtt://host:port or mqtts://host:port", code="bad_url")
    tls = parts.scheme == "mqtts"
    return Address(host, port or (8883 if tls else 1883), tls, str(ca_file) if ca_file else None)


def _passwords(path: Path, names: Iterable[str]) -> list[Login]:
    from orchestrator.doctor.party import Login
    from orchestrator.sim import credentials

    known = {item.device: item.mqtt_password for item in credentials.load(path)}
    missing = [name for name in names if known.get(name) is None]
    if missing:
        raise RequestError(f"{path} holds no mqtt_password of {', '.join(missing)}; add it", code="no_logins")
    return [Login(name, known[name]) for name in names]


def _certificates(folder: Path, names: Iterable[str]) -> list[Login]:
    from orchestrator.doctor.party import Login

    logins = [Login(name, None, str(folder / f"{name}.pem"), str(folder / f"{name}.key")) for name in names]
    files = [Path(file) for login in logins for file in (login.cert_file, login.key_file) if file]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise RequestError(f"there is no {', '.join(missing)}; --certificates needs them", code="no_logins")
    return logins
