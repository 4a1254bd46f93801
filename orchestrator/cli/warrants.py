"""`ota warrant draft|sign|submit`: what cosigners sign so that devices take an emergency.

Rules:
- Signing needs no daemon and no network: a draft comes in on a stick, a line goes out on it.
- What will be allowed is shown before it is signed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from orchestrator.cli import show
from orchestrator.cli.client import connect, fail, place

_MAX_BYTES = 16 * 1024


@click.group("warrant")
def warrant_group() -> None:
    """Let cosigners allow an emergency."""


@warrant_group.command("draft")
@click.argument("rollout")
@click.option("--days", type=click.IntRange(1, 30), default=7, show_default=True, help="How long it shall be good.")
@click.pass_context
def draft(context: click.Context, rollout: str, days: int) -> None:
    """Print the claims that cosigners must sign, as JSON; keep them in a file such as `spring.json`."""
    click.echo(json.dumps(connect(context).get(place("rollouts", rollout, "warrant"), days=days), indent=2))


@warrant_group.command("sign")
@click.argument("draft_file", metavar="DRAFT", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--key", required=True, help="Cosigner key, a file or a pkcs11: URI.")
@click.option("--pin-file", type=click.Path(path_type=Path), help="File with the PIN of the pkcs11: token.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def sign(draft_file: Path, key: str, pin_file: Path | None, yes: bool) -> None:
    """Add the line of one cosigner. DRAFT `.json` becomes a `.jws` beside it; give that to the next one."""
    from orchestrator.adapters.keys import write_file
    from orchestrator.adapters.signers import open_signer
    from orchestrator.verifier import COSIGN, Refused
    from orchestrator.verifier.fields import decode64, read_claims
    from orchestrator.verifier.token import read_lines
    from orchestrator.wire import token
    from orchestrator.wire.token import TokenType

    content = draft_file.read_bytes()[: _MAX_BYTES + 1].strip()
    signer = open_signer(key, pin_file)
    lines = [] if draft_file.suffix == ".json" else content.split(b"\n")
    try:
        if lines:
            signed = token.further_input(TokenType.COSIGN, signer.kid, lines[0])
        else:
            signed = token.signing_input(TokenType.COSIGN, signer.kid, json.loads(content))
        join = token.assemble_further if lines else token.assemble
        # A line that is only made up shows whether the whole will be one before anybody is asked to sign it.
        claims = read_claims(decode64(read_lines([*lines, join(signed, bytes(64))], COSIGN)[0].payload), COSIGN)
    except (Refused, ValueError, IndexError, TypeError, AttributeError) as error:
        fail(f"{draft_file} is no draft of a warrant: {error}")
    _show(claims)
    if not yes:
        click.confirm("Sign this?", abort=True)
    path = draft_file.with_suffix(".jws")
    write_file(path, token.bundle([*lines, join(signed, signer.sign(signed))]) + b"\n", 0o644, replace=bool(lines))
    click.echo(f"{len(lines) + 1} signed; the warrant is {path}")


@warrant_group.command("submit")
@click.argument("rollout")
@click.argument("path", metavar="WARRANT", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_context
def submit(context: click.Context, rollout: str, path: Path) -> None:
    """Hand a signed warrant to the daemon, which judges it as devices will."""
    body = {"lines": path.read_bytes()[: _MAX_BYTES + 1].decode("ascii", "replace").strip()}
    _show(connect(context).post(place("rollouts", rollout, "warrant"), body))


def _show(claims: dict[str, Any]) -> None:
    audience = ", ".join(claims["aud"])
    click.echo(f"rollout {claims['cid']} of {claims['iss']}, keyset {claims['ep']}: up to {claims['most']} devices")
    click.echo(f"  of {audience}, until {show.when(claims['exp'])}")
    for statement in claims["asts"]:
        click.echo(f"  statement {statement}")
