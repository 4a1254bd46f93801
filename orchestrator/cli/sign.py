"""`ota artifact sign` and `ota artifact verify`: the artifact statement beside a file.

Rules:
- The statement of `FILE` is `FILE.statement`; importing looks for it under that name.
- What we sign is checked as a device would check it, before it is written.
- With `--image-key` the image is signed first, and the statement made over what comes out.
- `verify` answers yes with 0 and no with 1; anything that keeps it from answering is an error.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import show
from orchestrator.cli.image import HASHES, Draft, signed_image

if TYPE_CHECKING:
    from orchestrator.adapters.signers import CheckedSigner
    from orchestrator.core.model import Artifact
    from orchestrator.verifier import PublicKey

_CHUNK_BYTES = 1 << 20
_HELD = Path("keys")
"""Folder of the public keys by which a key in a token is checked, if they are there."""


@click.command("sign")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--key", required=True, help="The artifact key: `artifact.pem`, or a pkcs11: URI.")
@click.option("--pin-file", type=click.Path(path_type=Path), help="File with the PIN of the pkcs11: token.")
@click.option("--name", required=True, help="Product name.")
@click.option("--version", required=True, help="Version, for display only.")
@click.option("--rel", required=True, type=int, help="Release counter; devices compare this.")
@click.option("--hw", "hardware", required=True, multiple=True, help="Hardware model it may run on; repeat it.")
@click.option("--sec", default=0, show_default=True, help="Security epoch.")
@click.option("--from", "min_from", default=0, show_default=True, help="Lowest running release that may jump here.")
@click.option("--leave", "leaves", type=int, multiple=True, help="Newer release that may be left for it by a rollback.")
@click.option("--comp", "component", default="main", show_default=True, help="Component it belongs to.")
@click.option("--format", "payload_format", default="raw", show_default=True, help="Payload format.")
@click.option("--image-key", type=click.Path(path_type=Path), help="Key by which the devices check the image itself.")
@click.option(
    "--image-out", type=click.Path(path_type=Path), help="Where the signed image goes.  [default: FILE.signed]"
)
@click.option(
    "--image-hash", type=click.Choice(HASHES), default=HASHES[0], show_default=True, help="Hash that they use."
)
@click.option("--replace", is_flag=True, help="Overwrite an existing statement, and signed image.")
@show.output_option
def sign_command(
    file: Path,
    key: str,
    pin_file: Path | None,
    name: str,
    version: str,
    rel: int,
    hardware: tuple[str, ...],
    sec: int,
    min_from: int,
    leaves: tuple[int, ...],
    component: str,
    payload_format: str,
    image_key: Path | None,
    image_out: Path | None,
    image_hash: str,
    replace: bool,
    output: str,
) -> None:
    """Sign the artifact statement of FILE and write it to FILE.statement.

    With --image-key, first sign FILE itself as --format wants it; the statement is that of the signed image.
    """
    from orchestrator.adapters.signers import open_signer
    from orchestrator.core.model import Artifact

    signer = open_signer(key, pin_file)
    _check_role(signer, _HELD if key.startswith("pkcs11:") else Path(key).parent)
    with _image(file, image_out, payload_format, image_key, image_hash, replace=replace) as draft:
        target = draft.target if draft else file
        size_bytes, sha256 = measure(draft.path if draft else file)
        artifact = Artifact(
            sha256=sha256,
            size_bytes=size_bytes,
            name=name,
            version=version,
            rel=rel,
            sec=sec,
            component=component,
            hardware=hardware,
            format=payload_format,
            min_from=min_from,
            statement="",
            uri=target.absolute().as_uri(),
            source_version=None,
            leaves=leaves,
        )
        token = _statement(artifact, signer)
        if draft:
            draft.publish()
    path = _write_statement(target, token, replace=replace)
    shown = {"statement": str(path), "kid": signer.kid, "sha256": sha256, "size": size_bytes}
    if draft:
        shown |= {"image": str(target), "signature": draft.signature}
        for warning in draft.warnings:
            click.echo(f"warning: {show.plain(warning)} [{warning.code}]", err=True)
    show.emit(shown, output, _draw)


@click.command("verify")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--keys", "keys_path", default="keys/device-keys.json", show_default=True, type=click.Path(path_type=Path)
)
@show.output_option
@click.pass_context
def verify_command(context: click.Context, file: Path, keys_path: Path, output: str) -> None:
    """Check FILE against FILE.statement: signature, size and hash."""
    from orchestrator.adapters.keys import load_device_keys
    from orchestrator.errors import TrustError
    from orchestrator.wire.token import hash_of

    keyset = load_device_keys(keys_path)
    try:
        claims = _verified(file, keyset.keys)
    except TrustError as error:
        show.emit({"valid": False, "code": error.code, "reason": error.message}, output, _draw_refusal)
        context.exit(1)
    shown = {
        name: claims[name] for name in ("name", "ver", "rel", "sec", "comp", "hw", "from", "size", "sha256", "fmt")
    }
    # What a warrant names an artifact by: cosigners compare it before they sign.
    ast = hash_of(_statement_path(file).read_bytes())
    show.emit({"valid": True} | shown | {"ast": ast}, output, _draw)


def _image(
    file: Path, image_out: Path | None, word: str, key: Path | None, algorithm: str, *, replace: bool
) -> AbstractContextManager[Draft | None]:
    """Return the signed image, or nothing where the image itself gets no signature."""
    from orchestrator.errors import ConflictError, RequestError

    if key is None:
        if image_out is not None or algorithm != HASHES[0]:
            text = "--image-out and --image-hash are for --image-key; name the key, or leave them out"
            raise RequestError(text, code="no_key")
        return nullcontext()
    target = image_out or file.with_name(file.name + ".signed")
    if _statement_path(target).exists() and not replace:
        text = f"{_statement_path(target)} exists; pass --replace to overwrite it"
        raise ConflictError(text, code="statement_exists")
    return signed_image(file, target, word, key, algorithm, replace=replace)


def _statement(artifact: Artifact, signer: CheckedSigner) -> bytes:
    from orchestrator.core.trigger import statement_claims
    from orchestrator.errors import RequestError
    from orchestrator.verifier import PublicKey, Refused, open_token
    from orchestrator.wire.token import TokenType, assemble, signing_input

    claims = statement_claims(artifact, issued_at=time.time())
    signed = signing_input(TokenType.ARTIFACT, signer.kid, claims)
    token = assemble(signed, signer.sign(signed))
    try:
        key = PublicKey(signer.kid, TokenType.ARTIFACT, signer.x, signer.y)
        open_token(token, TokenType.ARTIFACT, {signer.kid: key})
    except Refused as refusal:
        raise RequestError(f"devices would refuse this statement: {refusal}", code=refusal.code) from None
    return token


def _check_role(signer: CheckedSigner, directory: Path) -> None:
    from orchestrator.adapters.keys import PUBLIC_FILE, load_device_keys
    from orchestrator.errors import RequestError
    from orchestrator.wire.token import TokenType

    if not (directory / PUBLIC_FILE).exists():
        return
    known = load_device_keys(directory / PUBLIC_FILE).keys.get(signer.kid)
    if known is None or known.typ != TokenType.ARTIFACT:
        raise RequestError(
            f"by {directory / PUBLIC_FILE}, key {signer.kid} may not sign artifacts; use artifact.pem",
            code="wrong_role",
        )


def _verified(file: Path, keys: Mapping[str, PublicKey]) -> dict[str, Any]:
    from orchestrator.errors import TrustError
    from orchestrator.verifier import ARTIFACT, Refused, open_token

    size_bytes, sha256 = measure(file)
    path = _statement_path(file)
    if not path.exists():
        raise TrustError(f"{file} is unsigned: there is no {path.name} beside it", code="unsigned")
    try:
        claims = open_token(path.read_bytes(), ARTIFACT, keys)
    except Refused as refusal:
        raise TrustError(f"the statement does not hold: {refusal}", code=refusal.code) from None
    if claims["size"] != size_bytes:
        raise TrustError(f"{file} has {size_bytes} bytes, its statement says {claims['size']}", code="size_mismatch")
    if claims["sha256"] != sha256:
        raise TrustError(f"{file} is not the artifact that was signed: its hash differs", code="hash_mismatch")
    if claims.get("exp", time.time() + 1) <= time.time():
        raise TrustError(f"the statement of {file} has expired; sign it again", code="statement_expired")
    return claims


def measure(file: Path) -> tuple[int, str]:
    """Return the size of a file in bytes, and its SHA-256 as artifacts are named by it."""
    import hashlib

    from orchestrator.errors import NotFoundError, RequestError
    from orchestrator.wire.token import encode64

    digest, size_bytes = hashlib.sha256(), 0
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
                size_bytes += len(chunk)
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {file}", code="no_file") from None
    except OSError as error:
        raise RequestError(f"cannot read {file}: {error.strerror}", code="unreadable") from None
    return size_bytes, encode64(digest.digest())


def _write_statement(file: Path, token: bytes, *, replace: bool) -> Path:
    from orchestrator.errors import ConflictError, ForbiddenError

    path = _statement_path(file)
    try:
        with path.open("wb" if replace else "xb") as stream:
            stream.write(token)
    except FileExistsError:
        raise ConflictError(f"{path} exists; pass --replace to overwrite it", code="statement_exists") from None
    except OSError as error:
        raise ForbiddenError(f"cannot write {path}: {error.strerror}", code="unwritable") from None
    return path


def _statement_path(file: Path) -> Path:
    return file.with_name(file.name + ".statement")


def _draw_refusal(values: show.View) -> None:
    click.echo(f"refused: {values['reason']} [{values['code']}]", err=True)


def _draw(values: show.View) -> None:
    for name, value in values.items():
        click.echo(f"{name:<10}{' '.join(value) if isinstance(value, list) else value}")
