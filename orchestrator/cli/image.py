"""The part of `ota artifact sign` that signs the image itself, for devices that check a signature of their own.

Rules:
- The image is read, and a signed copy written beside where it goes; the file of the build stays as it is.
- What comes out is checked by the public key before it gets its name, as a device would check it.
- Nothing is left behind where anything fails.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import ConflictError, ForbiddenError, NotFoundError, RequestError

if TYPE_CHECKING:
    from orchestrator.images import Fault, ImagePrivateKey

HASHES = ("sha256", "sha384", "sha512")
_LONGEST_KEY_BYTES = 1 << 14


@dataclass(frozen=True, slots=True)
class Draft:
    """A signed image that has no name yet.

    Attributes:
        path: where it lies.
        target: where it goes.
        signature: word of the signature that it carries.
        warnings: what to look at before anyone offers it.
    """

    path: Path
    target: Path
    signature: str
    warnings: tuple[Fault, ...]

    def publish(self) -> None:
        """Give it its name.

        Raises:
            ForbiddenError: it cannot be written there.
        """
        try:
            self.path.replace(self.target)
        except OSError as error:
            raise ForbiddenError(f"cannot write {self.target}: {error.strerror}", code="unwritable") from None


@contextmanager
def signed_image(
    file: Path, target: Path, word: str, key_path: Path, algorithm: str, *, replace: bool
) -> Iterator[Draft]:
    """Sign an image; what was not published at the end is gone.

    Args:
        file: the image, as the build or gzip made it.
        target: where the signed one goes.
        word: its format.
        key_path: private key in PEM by which the devices check images.
        algorithm: hash that the devices use, one of `HASHES`.
        replace: whether a file at `target` may be overwritten.

    Raises:
        ConflictError: there is a file at `target`.
        NotFoundError: the image or the key is not there.
        ForbiddenError: others may read the key, or nothing can be written beside `target`.
        RequestError: it cannot be signed so; see `orchestrator.images.trailer_for`.
    """
    from orchestrator.images import trailer_for

    if target.exists() and not replace:
        raise ConflictError(f"{target} exists; pass --replace to overwrite it", code="image_exists")
    key = _load_key(key_path)
    try:
        trailer = trailer_for(file, word, key, algorithm=algorithm)
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {file}", code="no_file") from None
    except OSError as error:
        raise RequestError(f"cannot read {file}: {error.strerror}", code="unreadable") from None
    path = _write(file, trailer, target)
    try:
        yield _checked(path, target, key)
    finally:
        path.unlink(missing_ok=True)


def _load_key(path: Path) -> ImagePrivateKey:
    from orchestrator.adapters.signers.file import check_mode
    from orchestrator.images import load_private_key

    try:
        with path.open("rb") as file:
            check_mode(os.fstat(file.fileno()), path)
            pem = file.read(_LONGEST_KEY_BYTES)
    except FileNotFoundError:
        raise NotFoundError(f"no image key {path}; make one with `openssl genrsa 2048`", code="no_key") from None
    except OSError as error:
        raise RequestError(f"image key {path} cannot be read: {error.strerror}", code="bad_key") from None
    return load_private_key(pem)


def _write(file: Path, trailer: bytes, target: Path) -> Path:
    """Write the image and its trailer beside `target`; returns where."""
    import shutil
    import tempfile

    path: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        path = Path(name)
        with os.fdopen(handle, "wb") as copy, file.open("rb") as image:
            shutil.copyfileobj(image, copy)
            copy.write(trailer)
        shutil.copymode(file, path)
    except OSError as error:
        if path is not None:
            path.unlink(missing_ok=True)
        raise ForbiddenError(f"cannot write {target}: {error.strerror}", code="unwritable") from None
    return path


def _checked(path: Path, target: Path, key: ImagePrivateKey) -> Draft:
    from orchestrator.images import inspect

    findings = inspect(path, key=key.public_key())
    if findings.faults or not findings.verified:
        raise ConflictError(f"{target} did not become what a device takes; was it changed meanwhile?", code="changed")
    return Draft(path, target, findings.signature, findings.warnings)
