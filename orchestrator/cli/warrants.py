"""`ota warrant draft|sign|submit`: what cosigners sign so that devices take an emergency.

Rules:
- Signing needs no daemon and no network: a draft comes in on a stick, a line goes out on it.
- What will be allowed is shown before it is signed.
- A key that is known not to be a cosigner's signs nothing: devices would refuse the whole warrant.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from orchestrator.cli import completion, show
from orchestrator.cli.client import connect, fail, place
from orchestrator.core.reason import counted

_HELD = Path("keys/device-keys.json")

_MAX_BYTES = 16 * 1024


@click.group("warrant")
def warrant_group() -> None:
    """Let cosigners allow an emergency."""


@warrant_group.command("draft")
@click.argument("rollout", shell_complete=completion.rollouts)
@click.option("--days", type=click.IntRange(1, 30), default=7, show_default=True, help="How long it shall be good.")
@click.pass_context
def draft(context: click.Context, rollout: str, days: int) -> None:
    """Print the claims that cosigners must sign, as JSON; keep them in a file such as `spring.json`."""
    click.echo(json.dumps(connect(context).get(place("rollouts", rollout, "warrant"), days=days), indent=2))


@warrant_group.command("sign")
@click.argument("draft_file", metavar="DRAFT", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--key", required=True, help="Cosigner key, a file or a pkcs11: URI.")
@click.option("--pin-file", type=click.Path(path_type=Path), help="File with the PIN of the pkcs11: token.")
@click.option(
    "--held",
    type=click.Path(path_type=Path),
    help=f"What devices hold, to check the key.  [default: {_HELD}, if there]",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@show.output_option
def sign(draft_file: Path, key: str, pin_file: Path | None, held: Path | None, yes: bool, output: str) -> None:
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
    _check_role(signer.kid, held)
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
    _show(claims, err=output != "table")
    if not yes:
        if click.get_current_context().find_root().params["no_input"]:
            fail("nobody can be asked here; look at the draft, and confirm it with --yes")
        click.confirm("Sign this?", abort=True, err=output != "table")
    path = draft_file.with_suffix(".jws")
    write_file(path, token.bundle([*lines, join(signed, signer.sign(signed))]) + b"\n", 0o644, replace=bool(lines))
    said = {"warrant": str(path), "signed": len(lines) + 1, "claims": claims}
    show.emit(said, output, lambda _: click.echo(f"{len(lines) + 1} signed; the warrant is {path}"))


@warrant_group.command("submit")
@click.argument("rollout", shell_complete=completion.rollouts)
@click.argument("path", metavar="WARRANT", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@show.output_option
@click.pass_context
def submit(context: click.Context, rollout: str, path: Path, output: str) -> None:
    """Hand a signed warrant to the daemon, which judges it as devices will."""
    if path.suffix == ".json":
        fail(f"{path} is a draft that nobody has signed; `ota warrant sign` makes {path.with_suffix('.jws')} of it")
    body = {"lines": path.read_bytes()[: _MAX_BYTES + 1].decode("ascii", "replace").strip()}
    show.emit(connect(context).post(place("rollouts", rollout, "warrant"), body), output, _show)


def _check_role(kid: str, held: Path | None) -> None:
    from orchestrator.adapters.keys import load_device_keys
    from orchestrator.verifier import COSIGN

    if held is None and not _HELD.exists():
        return
    keyset = load_device_keys(held or _HELD)
    known = keyset.keys.get(kid)
    if known is None or known.typ != COSIGN:
        cosigners = ", ".join(f"{item.kid} ({item.who})" for item in keyset.keys.values() if item.typ == COSIGN)
        fail(
            f"by {held or _HELD}, key {kid} is no cosigner's; use one of {cosigners or 'none, there are no cosigners'}"
        )


def _show(claims: dict[str, Any], *, err: bool = False) -> None:
    audience = ", ".join(claims["aud"])
    click.echo(
        f"rollout {claims['cid']} of {claims['iss']}, keyset {claims['ep']}: up to {counted(claims['most'], 'device')}",
        err=err,
    )
    click.echo(f"  of {audience}, until {show.when(claims['exp'])}", err=err)
    for statement in claims["asts"]:
        click.echo(f"  statement {statement}", err=err)
