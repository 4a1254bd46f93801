"""Who can read and change the files that secrets and keys lie in, and whether there is room."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

from orchestrator.doctor.results import Result, fault, unknown, warning, well

LITTLE_BYTES = 1 << 30
NONE_BYTES = 64 << 20


def secret_file(name: str, path: Path) -> Result:
    """Say who can read a file with a secret."""
    try:
        found, folder = path.stat(), path.parent.stat()
    except OSError as error:
        return unknown(
            name, f"{path} cannot be looked at ({error.strerror})", "ask again as root or as the daemon's user"
        )
    if found.st_mode & (stat.S_IROTH | stat.S_IWOTH):
        return fault(name, f"everybody can read or change {path}", f"chmod 0600 {path}, and replace the secret")
    if found.st_mode & stat.S_IWGRP or _open_to_others(folder.st_mode):
        return fault(name, f"others than the owner can replace {path}", f"take the right to write from {path.parent}")
    if found.st_mode & stat.S_IRGRP:
        return warning(
            name, f"the group {found.st_gid} can read {path}", "chmod 0600, unless that group is the daemon's"
        )
    return well(name, f"{path} is for its owner alone")


def public_file(name: str, path: Path) -> Result:
    """Say who can change a file that everybody may read, and nobody but its owner change."""
    try:
        found, folder = path.stat(), path.parent.stat()
    except OSError as error:
        return unknown(
            name, f"{path} cannot be looked at ({error.strerror})", "ask again as root or as the daemon's user"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or _open_to_others(folder.st_mode):
        return fault(name, f"others than the owner can change {path}", f"chmod go-w {path} {path.parent}")
    return well(name, f"only its owner can change {path}")


def room(name: str, folder: Path, need_bytes: int) -> Result:
    """Say whether there is room to go on.

    Args:
        name: of the result.
        folder: where it is needed.
        need_bytes: size of what lies there, of which a copy should find room.
    """
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return unknown(name, f"the room in {folder} cannot be measured ({error.strerror})")
    text = f"{free / 2**30:.1f} GiB are free in {folder}"
    if free < NONE_BYTES:
        return fault(name, text, "make room now: the daemon stops what it cannot store")
    if free < max(LITTLE_BYTES, need_bytes):
        return warning(name, text, "make room, or move the database to a larger file system")
    return well(name, text)


def _open_to_others(mode: int) -> bool:
    return bool(mode & (stat.S_IWGRP | stat.S_IWOTH)) and not mode & stat.S_ISVTX
