"""`ota operator`, `ota approvals`, `approve`, `reject` and `review`: who may do what, and what waits for whom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from orchestrator.cli import show
from orchestrator.cli.client import connect, place
from orchestrator.cli.secret_file import hand_over

_ROLES = ("viewer", "operator", "approver", "admin")


def approval_options(command: Any) -> Any:
    """Add the options of a command that may need other persons' approvals."""
    wait = click.option("--wait", is_flag=True, help="If others must approve it, wait for them and then do it.")
    text = "Do it now, without approvals: admins at the admin socket alone; another person must review it."
    return wait(click.option("--break-glass", metavar="WHY", default="", help=text)(command))


_token_file = click.option(
    "--token-out",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="New file for the token, made with mode 0600.",
)
_days = click.option("--days", type=click.IntRange(1, 365), default=90, show_default=True, help="How long it works.")
_reason = click.option("--reason", default="", help="Why; shown to those who must approve it.")
_why = click.option("--reason", required=True, help="Why; kept in the record.")


@click.group("operator")
def operator_group() -> None:
    """Add and remove operators, issue and revoke their tokens."""


@operator_group.command("add")
@click.argument("name")
@click.option("--person", required=True, help="The person behind the account; two accounts of one are one person.")
@click.option("--role", "roles", type=click.Choice(_ROLES), multiple=True, required=True, help="Repeat for more.")
@_days
@_token_file
@_reason
@approval_options
@show.output_option
@click.pass_context
def add(
    context: click.Context,
    name: str,
    person: str,
    roles: tuple[str, ...],
    days: int,
    path: Path,
    reason: str,
    wait: bool,
    break_glass: str,
    output: str,
) -> None:
    """Add an operator with a first token."""
    body = {"name": name, "person": person, "roles": roles, "days": days}
    body |= {"reason": reason, "break_glass": break_glass}
    _hand_over(path, lambda: connect(context).post("/operators", body, wait=wait), output)


@operator_group.command("list")
@show.output_option
@click.pass_context
def list_(context: click.Context, output: str) -> None:
    """List operators and their tokens; a token itself is never shown again."""
    show.emit(connect(context).get("/operators"), output, _draw_operators)


@operator_group.command("token")
@click.argument("name")
@_days
@_token_file
@_reason
@approval_options
@show.output_option
@click.pass_context
def token(
    context: click.Context, name: str, days: int, path: Path, reason: str, wait: bool, break_glass: str, output: str
) -> None:
    """Issue one more token to an operator."""
    body = {"days": days, "reason": reason, "break_glass": break_glass}
    _hand_over(path, lambda: connect(context).post(place("operators", name, "tokens"), body, wait=wait), output)


@operator_group.command("revoke")
@click.argument("token_id")
@show.output_option
@click.pass_context
def revoke(context: click.Context, token_id: str, output: str) -> None:
    """End a token, named by the identifier that `list` shows; its next request is refused."""
    ended = connect(context).post(place("tokens", token_id, "revoke"), {})
    show.emit(ended, output, lambda _: click.echo(f"token {ended['id']} of {ended['operator']} is revoked"))


@operator_group.command("remove")
@click.argument("name")
@_reason
@approval_options
@show.output_option
@click.pass_context
def remove(context: click.Context, name: str, reason: str, wait: bool, break_glass: str, output: str) -> None:
    """Remove an operator with all tokens."""
    body = {"reason": reason, "break_glass": break_glass}
    answer = connect(context).post(place("operators", name, "remove"), body, wait=wait)
    show.emit(answer, output, lambda _: click.echo(f"{name} is removed"))


@click.command("approvals")
@click.option("--limit", type=int, default=50, show_default=True, help="How many of the newest.")
@show.output_option
@click.pass_context
def approvals_command(context: click.Context, limit: int, output: str) -> None:
    """List proposals, newest first, and what was done without approvals and waits for a review."""
    show.emit(connect(context).get("/approvals", limit=limit), output, _draw_approvals)


@click.command("approve")
@click.argument("number", type=int)
@_why
@show.output_option
@click.pass_context
def approve_command(context: click.Context, number: int, reason: str, output: str) -> None:
    """Approve what another person proposed."""
    answer = connect(context).post(place("approvals", str(number), "approve"), {"reason": reason})
    show.emit(answer, output, _draw_proposal)


@click.command("reject")
@click.argument("number", type=int)
@_why
@show.output_option
@click.pass_context
def reject_command(context: click.Context, number: int, reason: str, output: str) -> None:
    """Reject what was proposed; that ends it."""
    answer = connect(context).post(place("approvals", str(number), "reject"), {"reason": reason})
    show.emit(answer, output, _draw_proposal)


@click.command("review")
@click.argument("number", type=int)
@_why
@show.output_option
@click.pass_context
def review_command(context: click.Context, number: int, reason: str, output: str) -> None:
    """Close the review of what another person did without approvals, with what you found."""
    closed = connect(context).post(place("reviews", str(number), "close"), {"reason": reason})
    show.emit(closed, output, lambda _: click.echo(f"review {closed['id']} is closed by {closed['closed_by']}"))


def _hand_over(path: Path, ask: Callable[[], Any], output: str) -> None:
    def say(issued: dict[str, Any]) -> str:
        until = show.when(issued["expires_at"])
        return f"token {issued['id']} of {issued['operator']} is in {path}, until {until}"

    hand_over(path, "token", "--token-out", ask, output, say)


def _draw_operators(data: list[dict[str, Any]]) -> None:
    show.table(
        ("name", "person", "roles", "token", "expires", "last used", "revoked"),
        [
            (item["name"], item["person"], ",".join(item["roles"]), *_token_cells(token))
            for item in data
            for token in item["tokens"] or [None]
        ],
    )


def _token_cells(token: dict[str, Any] | None) -> tuple[str, ...]:
    if token is None:
        return ("-",) * 4
    return (token["id"], *(show.when(token[name]) for name in ("expires_at", "used_at", "revoked_at")))


def _draw_approvals(data: dict[str, Any]) -> None:
    for item in data["reviews"]:
        what = f"{show.plain(item['text'])}, done by {item['actor']} without approvals: {show.plain(item['reason'])}"
        click.secho(
            f"review {item['id']} is open: {what}; close it with `ota review {item['id']} --reason WHY`", fg="red"
        )
    show.table(
        ("id", "state", "approvals", "proposed by", "until", "what"),
        [
            (
                item["id"],
                item["state"],
                f"{sum(vote['approves'] for vote in item['votes'])}/{item['needed']}",
                item["proposer"],
                show.when(item["expires_at"]),
                item["text"],
            )
            for item in data["proposals"]
        ],
    )


def _draw_proposal(item: dict[str, Any]) -> None:
    click.echo(f"proposal {item['id']} is {item['state']}: {show.plain(item['text'])}")
    for vote in item["votes"]:
        word = "approved" if vote["approves"] else "rejected"
        click.echo(f"  {show.when(vote['at'])}  {word} by {vote['actor']}: {show.plain(vote['reason'])}")
