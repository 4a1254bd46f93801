"""How keys and keysets look on the screen.

Rules:
- Nothing private is ever among what is drawn.
- What came from a file is drawn plainly: no control characters reach the terminal.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli import show

if TYPE_CHECKING:
    from orchestrator.adapters.keysets import Draft, Judgement
    from orchestrator.verifier import Keyset, PublicKey

ADVICE = {
    "artifact": "signs artifact statements. Keep it off the daemon's host: at the build, or offline.",
    "trigger": "signs triggers. Give it to the daemon alone, best as a systemd credential.",
    "beat": "signs beats. Give it to the daemon alone, best as a systemd credential.",
    "root": "replaces all other keys. Keep each root offline, on a medium of its own and in a place of its own.",
    "cosign": "authorises emergencies. Give it to {who} alone, best on a hardware token.",
    "checkpoint": "vouches for the audit log. Give it to the daemon, and checkpoint.pub.pem to whoever checks the log.",
}
_DAY_S = 86_400


def view(keyset: Keyset) -> show.View:
    """Return a keyset as the commands show it."""
    now = time.time()
    return {
        "deployment": keyset.iss,
        "epoch": keyset.ep,
        "need_root": keyset.need_root,
        "need_cosign": keyset.need_cosign,
        "keys": [key_view(key, now) for key in keyset.keys.values()],
    }


def key_view(key: PublicKey, now: float) -> show.View:
    """Return a key as the commands show it."""
    from orchestrator.adapters.keys import role_of

    days_left = None if key.exp is None else int((key.exp - now) // _DAY_S)
    limits = {"who": key.who, "hw": list(key.hw), "not_before": key.nbf, "expires_at": key.exp, "days_left": days_left}
    return {"kid": key.kid, "typ": key.typ, "role": role_of(key.typ), **limits}


def progress(place: Path, draft: Draft, held: Keyset) -> show.View:
    """Return how far a keyset on its way is, and what devices would say to it."""
    from orchestrator.adapters.keysets import judge

    found: Judgement = judge(draft, held, time.time())
    old, new = held.keys.keys(), draft.keyset.keys.keys()
    return {
        "keyset": str(place),
        "epoch": draft.keyset.ep,
        "held_epoch": held.ep,
        "accepted": not found.refusal,
        "reason": found.refusal,
        "signed_by": list(draft.signers),
        "held_roots": f"{found.of_held} of {held.need_root}",
        "new_roots": f"{found.of_new} of {draft.keyset.need_root}",
        "may_sign": list(found.may_sign),
        "added": [key_view(draft.keyset.keys[kid], time.time()) for kid in new if kid not in old],
        "removed": [key_view(held.keys[kid], time.time()) for kid in old if kid not in new],
        "weaker": [item.text for item in found.weaker],
    }


def draw_taken(data: show.View) -> None:
    """Say that a keyset was taken."""
    click.echo(f"the daemon and all devices of {data['deployment']} go on with keyset {data['epoch']}")
    for fault in data["faults"]:
        click.secho(f"  {show.plain(fault)}", fg="yellow")


def draw_files(data: show.View) -> None:
    """Say what was made and where it belongs."""
    for file in data["private"]:
        click.echo(f"{file['path']}  key {file['kid']}\n    {ADVICE[file['role']].format(who=file['who'])}")
    click.echo(f"{data['public']}  all public keys\n    goes onto every device and to the daemon; it is not secret.")


def draw_keys(data: show.View) -> None:
    """Draw a keyset as a table."""
    need = f"{data['need_root']} roots replace keys, {data['need_cosign']} persons authorise an emergency"
    click.echo(f"deployment {data['deployment']}, key epoch {data['epoch']}; {need}")
    show.table(
        ("kid", "role", "who", "from", "until", "days left"),
        [
            (
                key["kid"],
                key["role"],
                key["who"] or "-",
                show.when(key["not_before"] or None),
                show.when(key["expires_at"]),
                "-" if key["days_left"] is None else key["days_left"],
            )
            for key in data["keys"]
        ],
    )


def draw_progress(data: show.View) -> None:
    """Draw a keyset on its way."""
    click.echo(f"{data['keyset']}  epoch {data['epoch']}")
    for sign, name in (("+", "added"), ("-", "removed")):
        for key in data[name]:
            click.echo(f"  {sign} {key['role']} {key['kid']} {key['who']}".rstrip())
    for text in data["weaker"]:
        click.secho(f"  weaker: {text}", fg="yellow")
    click.echo(f"  signed by {data['held_roots']} roots that devices hold, {data['new_roots']} of the new ones")
    if data["accepted"]:
        click.secho("  devices take it", fg="green")
    elif data["held_epoch"] >= data["epoch"]:
        click.echo(f"  --held is of keyset {data['held_epoch']} already; name what devices hold before this one")
    else:
        click.echo(
            f"  devices refuse it: {show.plain(data['reason'])}; may still sign: {' '.join(data['may_sign']) or '-'}"
        )


def draw_fields(data: show.View) -> None:
    """Draw names and values."""
    for name, value in data.items():
        click.echo(f"{name:<10}{' '.join(value) or '-' if isinstance(value, list) else value}")


def draw_next(data: show.View) -> None:
    """Draw a keyset that is on disk but not yet taken, and what to do with it."""
    draw_fields(data)
    click.echo(
        "next: if the daemon needs a new private key, give it that and restart it; its own device-keys.json stays"
    )
    click.echo(f"then: ota keys submit {data['keyset']} --reason WHY")


def draw_export(data: show.View) -> None:
    """Write what was exported, or say where it went."""
    click.echo(data["text"] if "text" in data else f"wrote {data['file']}", nl="file" in data)
