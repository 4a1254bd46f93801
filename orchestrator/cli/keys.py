"""`ota keys`: make the keys of a deployment, replace and revoke them, and say what devices would take.

Rules:
- Private keys never appear on the screen; what is printed may be pasted into a ticket.
- After making keys we say for each file where it belongs, because that is where the security comes from.
- Nothing is written before all signatures are there and devices would take them; what makes a keyset weaker is
  allowed by name only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli import looks, show
from orchestrator.cli.client import connect
from orchestrator.cli.operators import approval_options

if TYPE_CHECKING:
    from orchestrator.adapters.signers import CheckedSigner
    from orchestrator.verifier import Keyset, PublicKey

_ROLES = ("root", "artifact", "trigger", "beat", "cosign")
_ALLOW = ("fewer-roots", "fewer-cosigners", "lost-role")
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _path_option(name: str, place: str, text: str) -> Callable[[_Command], _Command]:
    return click.option(
        name, place, default="keys/device-keys.json", show_default=True, type=click.Path(path_type=Path), help=text
    )


_keys_option = _path_option("--keys", "path", "What devices hold now.")
_held_option = _path_option("--held", "path", "What the devices in question hold.")
_pin_option = click.option("--pin-file", type=click.Path(path_type=Path), help="PIN of tokens whose URI names none.")
_root_option = click.option(
    "--root", "roots", multiple=True, required=True, help="Root key, a file or a pkcs11: URI; repeat it."
)
_valid_option = click.option("--valid", help="How long the new key signs, such as 90d; without end if not given.")
_hw_option = click.option("--hw", "hardware", multiple=True, help="Model that a new artifact key is limited to.")
_need_root_option = click.option(
    "--need-root", type=click.IntRange(1, 8), help="Root keys that must sign from then on."
)
_need_cosign_option = click.option(
    "--need-cosign", type=click.IntRange(1, 8), help="Persons that must sign a warrant from then on."
)


def _allow_options(command: _Command) -> _Command:
    for name, text in zip(_ALLOW, ("fewer root keys", "fewer cosigners", "a role without a key"), strict=True):
        command = click.option(f"--allow-{name}", is_flag=True, help=f"Allow {text}.")(command)
    return command


@click.group("keys")
def keys_group() -> None:
    """Make, show, replace and revoke the keys of a deployment."""


@keys_group.command("init")
@click.option("--dir", "directory", default="keys", show_default=True, type=click.Path(path_type=Path))
@click.option("--deployment", required=True, help="Identifier that devices are pinned to, such as `my-fleet`.")
@click.option("--epoch", default=1, show_default=True, type=click.IntRange(1), help="Key epoch.")
@click.option("--roots", default=3, show_default=True, type=click.IntRange(0, 8), help="Root keys to make.")
@click.option("--root-threshold", default=2, show_default=True, type=click.IntRange(1, 8), help="How many must sign.")
@click.option("--cosigner", "cosigners", multiple=True, help="Person that may authorise emergencies; repeat it.")
@click.option("--cosign-threshold", default=2, show_default=True, type=click.IntRange(1, 8), help="How many must.")
@click.option("--valid", "valid", multiple=True, help="ROLE=DURATION such as trigger=90d; without end if not given.")
@click.option("--replace", is_flag=True, help="Overwrite existing keys. Devices in the field then refuse everything.")
@show.output_option
def init_command(
    directory: Path,
    deployment: str,
    epoch: int,
    roots: int,
    root_threshold: int,
    cosigners: tuple[str, ...],
    cosign_threshold: int,
    valid: tuple[str, ...],
    replace: bool,
    output: str,
) -> None:
    """Make all keys of a deployment and the public keys for devices."""
    from orchestrator.adapters.keys import PUBLIC_FILE, KeyPlan, create_keys

    _check_enough(roots, root_threshold, "root keys are made", "--roots", "--root-threshold")
    _check_enough(len(cosigners), cosign_threshold, "cosigners are named", "--cosigner", "--cosign-threshold")
    ends = {role: _ends_at(text) for role, text in (_role_and_rest(item, "DURATION") for item in valid)}
    plan = KeyPlan(roots, root_threshold, cosigners, cosign_threshold, ends)
    files = create_keys(directory, deployment, epoch=epoch, replace=replace, plan=plan)
    made = [
        {"path": str(file.path), "kid": file.kid, "typ": file.typ, "role": file.role, "who": file.who} for file in files
    ]
    public = str(directory / PUBLIC_FILE)
    show.emit({"deployment": deployment, "epoch": epoch, "private": made, "public": public}, output, looks.draw_files)


@keys_group.command("list")
@_keys_option
@show.output_option
def list_command(path: Path, output: str) -> None:
    """List the keys that devices hold: what each may sign, whose it is, how long it holds."""
    from orchestrator.adapters.keys import load_device_keys

    show.emit(looks.view(load_device_keys(path)), output, looks.draw_keys)


@keys_group.command("make")
@click.argument("file", type=click.Path(path_type=Path))
@show.output_option
def make_command(file: Path, output: str) -> None:
    """Make one private key FILE (.pem), and beside it the public half (.pub.pem) for `ota keys propose --add`."""
    from orchestrator.adapters.keys import create_key, kid_of, public_pem, write_file

    public = create_key(file)
    place = file.with_suffix(".pub.pem")
    write_file(place, public_pem(public), 0o644, replace=False)
    shown = {"private": str(file), "public": str(place), "kid": kid_of(public)}
    show.emit(shown, output, looks.draw_fields)


@keys_group.command("rotate")
@click.option("--role", required=True, help="root, artifact, trigger, beat or cosign:NAME.")
@click.option("--next", "beside", is_flag=True, help="Only publish the successor; the old key holds on.")
@click.option("--replaces", help="Key that goes, where the role has several.")
@_root_option
@_keys_option
@_valid_option
@_hw_option
@_pin_option
@show.output_option
def rotate_command(
    role: str,
    beside: bool,
    replaces: str | None,
    roots: tuple[str, ...],
    path: Path,
    valid: str | None,
    hardware: tuple[str, ...],
    pin_file: Path | None,
    output: str,
) -> None:
    """Make a new key and the keyset that brings it to devices."""
    from orchestrator.adapters.keys import load_device_keys, new_key, pem_of, public_key, write_file
    from orchestrator.adapters.keysets import Change, place_of, propose, sign_all, store
    from orchestrator.adapters.signers.file import FileSigner
    from orchestrator.errors import ConflictError

    held, (role, who), now = load_device_keys(path), _role_and_person(role), time.time()
    gone = () if beside else _replaced(held, role, who, replaces)
    private = new_key()
    hw = hardware or tuple(model for key in gone for model in key.hw)
    key = public_key(private.public_key(), role, who, _ends_at(valid) if valid else None, hw)
    draft = propose(held, Change(add=(key,), remove=tuple(old.kid for old in gone)), now)
    ours = [FileSigner(private)] if role == "root" else []
    draft = sign_all(draft, held, [*_signers(roots, pin_file), *ours], now)
    place = path.with_name(f"{role}{'-' if who else ''}{who}-ep{draft.keyset.ep}.pem")
    if (lines := place_of(path, draft.keyset.ep)).exists():
        raise ConflictError(f"{lines} exists; `ota keys take` it, or move it away", code="keys_exist")
    write_file(place, pem_of(private), 0o600, replace=False)
    store(draft, held, path)
    shown = {"epoch": draft.keyset.ep, "keyset": str(lines), "public": str(path), "private": str(place)}
    shown |= {"kid": key.kid, "removed": [old.kid for old in gone], "advice": looks.ADVICE[role].format(who=who)}
    show.emit(shown, output, looks.draw_next)


@keys_group.command("revoke", context_settings={"ignore_unknown_options": True})  # a key may begin with "-"
@click.argument("kids", nargs=-1, required=True)
@_root_option
@_keys_option
@_need_root_option
@_need_cosign_option
@_pin_option
@_allow_options
@show.output_option
def revoke_command(
    kids: tuple[str, ...],
    roots: tuple[str, ...],
    path: Path,
    need_root: int | None,
    need_cosign: int | None,
    pin_file: Path | None,
    output: str,
    **allow: bool,
) -> None:
    """Make the keyset in which the keys KIDS are no more."""
    from orchestrator.adapters.keys import load_device_keys
    from orchestrator.adapters.keysets import Change, propose, sign_all, store

    held, now = load_device_keys(path), time.time()
    change = Change(remove=kids, need_root=need_root, need_cosign=need_cosign)
    draft = sign_all(propose(held, change, now, _allowed(allow)), held, _signers(roots, pin_file), now)
    lines = store(draft, held, path)
    shown = {"epoch": draft.keyset.ep, "keyset": str(lines), "public": str(path), "removed": list(kids)}
    show.emit(shown, output, looks.draw_next)


@keys_group.command("propose")
@click.option("--add", "added", multiple=True, help="ROLE=FILE with a public key in PEM, such as cosign:anna=anna.pem.")
@click.option("--remove", "kids", multiple=True, help="Key that goes; repeat it.")
@_keys_option
@_need_root_option
@_need_cosign_option
@_valid_option
@_hw_option
@_allow_options
@show.output_option
def propose_command(
    added: tuple[str, ...],
    kids: tuple[str, ...],
    path: Path,
    need_root: int | None,
    need_cosign: int | None,
    valid: str | None,
    hardware: tuple[str, ...],
    output: str,
    **allow: bool,
) -> None:
    """Write the next keyset unsigned, for root keys that lie on other machines."""
    from orchestrator.adapters.keys import load_device_keys, write_file
    from orchestrator.adapters.keysets import Change, propose

    held = load_device_keys(path)
    new = tuple(_added(item, _ends_at(valid) if valid else None, hardware) for item in added)
    draft = propose(held, Change(new, kids, need_root, need_cosign), time.time(), _allowed(allow))
    place = path.with_name(f"keyset-{draft.keyset.ep}.json")
    write_file(place, draft.content, 0o644, replace=False)
    show.emit(looks.progress(place, draft, held), output, looks.draw_progress)


@keys_group.command("sign")
@click.argument("keyset", type=click.Path(path_type=Path))
@click.option("--root", required=True, help="Root key, a file or a pkcs11: URI.")
@_held_option
@_pin_option
@_allow_options
@show.output_option
def sign_command(keyset: Path, root: str, path: Path, pin_file: Path | None, output: str, **allow: bool) -> None:
    """Add the line of one root key to KEYSET; a payload `.json` becomes a `.jws` beside it."""
    from orchestrator.adapters.keys import load_device_keys, write_file
    from orchestrator.adapters.keysets import add_line, read_draft, refuse_stranger, refuse_weaker

    held, draft = load_device_keys(path), read_draft(keyset)
    refuse_stranger(held, draft.keyset)
    refuse_weaker(held, draft.keyset, _allowed(allow))
    [signer] = _signers((root,), pin_file)
    unsigned = not draft.lines
    draft = add_line(draft, signer, held)
    place = keyset.with_suffix(".jws")
    write_file(place, draft.content, 0o644, replace=not unsigned)
    show.emit(looks.progress(place, draft, held), output, looks.draw_progress)


@keys_group.command("check")
@click.argument("keyset", type=click.Path(path_type=Path))
@_held_option
@show.output_option
@click.pass_context
def check_command(context: click.Context, keyset: Path, path: Path, output: str) -> None:
    """Say whether devices would take KEYSET, and what is missing; ends with 1 if they would not."""
    from orchestrator.adapters.keys import load_device_keys
    from orchestrator.adapters.keysets import read_draft

    shown = looks.progress(keyset, read_draft(keyset), load_device_keys(path))
    show.emit(shown, output, looks.draw_progress)
    context.exit(0 if shown["accepted"] else 1)


@keys_group.command("take")
@click.argument("keyset", type=click.Path(path_type=Path))
@_held_option
@show.output_option
def take_command(keyset: Path, path: Path, output: str) -> None:
    """Put the signed KEYSET in the place of what devices hold, for new devices and for the daemon."""
    from orchestrator.adapters.keys import load_device_keys
    from orchestrator.adapters.keysets import read_draft, sign_all, store

    held = load_device_keys(path)
    draft = sign_all(read_draft(keyset), held, (), time.time())
    lines = store(draft, held, path)
    show.emit({"epoch": draft.keyset.ep, "keyset": str(lines), "public": str(path)}, output, looks.draw_next)


@keys_group.command("submit")
@click.argument("keyset", type=click.Path(path_type=Path))
@click.option("--reason", default="", help="Why; shown to those who must approve it.")
@click.option("--force", is_flag=True, help="Take it even if the daemon has no key to sign triggers with under it.")
@approval_options
@show.output_option
@click.pass_context
def submit_command(
    context: click.Context, keyset: Path, reason: str, force: bool, wait: bool, break_glass: str, output: str
) -> None:
    """Hand the signed KEYSET to the daemon, which gives it to all devices at once."""
    from orchestrator.adapters.keysets import read_draft

    body = {"lines": read_draft(keyset).content.decode(), "reason": reason, "break_glass": break_glass, "force": force}
    show.emit(connect(context).post("/keyset", body, wait=wait), output, looks.draw_taken)


@keys_group.command("export")
@_keys_option
@click.option("--format", "form", type=click.Choice(["c", "json", "pem"]), default="c", show_default=True)
@click.option("--file", type=click.Path(path_type=Path), help="Where to write it; else it is printed.")
@show.output_option
def export_command(path: Path, form: str, file: Path | None, output: str) -> None:
    """Write what a device is provisioned with as a C header, JSON or PEM."""
    from orchestrator.adapters import provisioning
    from orchestrator.adapters.keys import load_device_keys, write_file

    held = load_device_keys(path)
    text = {"c": provisioning.as_c_header, "json": provisioning.as_json, "pem": provisioning.as_pem}[form](held)
    if file is not None:
        write_file(file, text.encode(), 0o644, replace=True)
    shown = {"format": form, "epoch": held.ep, **({"file": str(file)} if file else {"text": text})}
    show.emit(shown, output, looks.draw_export)


def _check_enough(there: int, needed: int, what: str, more: str, fewer: str) -> None:
    if 0 < there < needed:
        raise click.UsageError(f"{there} {what}, and {needed} must sign; give more with {more}, or {fewer} {there}")


def _role_and_rest(item: str, what: str) -> tuple[str, str]:
    role, equals, rest = item.partition("=")
    if role.partition(":")[0] not in _ROLES or not equals or not rest:
        raise click.BadParameter(f"{item!r} is not ROLE={what}; roles are {', '.join(_ROLES)}")
    return role, rest


def _role_and_person(text: str) -> tuple[str, str]:
    from orchestrator.adapters.keys import check_name

    role, colon, who = text.partition(":")
    if role not in _ROLES or (role == "cosign") != bool(colon):
        raise click.BadParameter(f"{text!r} is no role; write root, artifact, trigger, beat or cosign:NAME")
    if colon:
        check_name(who)
    return role, who


def _ends_at(text: str) -> int:
    from orchestrator.units import parse_duration

    try:
        return int(time.time() + parse_duration(text))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _replaced(held: Keyset, role: str, who: str, kid: str | None) -> tuple[PublicKey, ...]:
    """Return the key that a new one replaces, none if it is the first of its role."""
    from orchestrator.adapters.keysets import keys_of
    from orchestrator.errors import RequestError

    present = keys_of(held, role, who)
    if kid is not None:
        present = [key for key in present if key.kid == kid]
        if not present:
            raise RequestError(f"there is no {role} key {kid}; `ota keys list` shows them", code="unknown_key")
    if len(present) > 1:
        names = ", ".join(key.kid for key in present)
        raise RequestError(f"there are several {role} keys; say --replaces with one of {names}", code="ambiguous")
    return tuple(present)


def _added(item: str, ends_at: int | None, hardware: tuple[str, ...]) -> PublicKey:
    from orchestrator.adapters.keys import load_public_key, public_key

    text, file = _role_and_rest(item, "FILE")
    role, who = _role_and_person(text)
    return public_key(load_public_key(Path(file)), role, who, ends_at, hardware if role == "artifact" else ())


def _signers(roots: tuple[str, ...], pin_file: Path | None) -> list[CheckedSigner]:
    from orchestrator.adapters.signers import open_signer

    return [open_signer(root, pin_file) for root in roots]


def _allowed(allow: dict[str, bool]) -> set[str]:
    return {name for name in _ALLOW if allow[f"allow_{name}".replace("-", "_")]}
