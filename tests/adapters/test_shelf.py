"""Uploads in a folder: whole or not at all, and where no name leads out of it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.shelf import FolderShelf
from orchestrator.errors import ConflictError, UnavailableError
from orchestrator.ports.shelf import Module
from orchestrator.wire.token import encode64


def test_modules_last_and_their_numbers_are_not_given_out_again(tmp_path: Path) -> None:
    shelf = FolderShelf(tmp_path)
    assert shelf.modules() == []
    first, second = shelf.add("a", "1", "os"), shelf.add("a", "2", "application")
    assert (first, second) == (Module(1, "a", "1", "os"), Module(2, "a", "2", "application"))
    changed = replace(first, files={"f.bin": "hash"}, statements={"g.bin": "a.b.c"})
    shelf.save(changed)
    shelf.remove(2)
    shelf.remove(7)
    again = FolderShelf(tmp_path)
    assert again.modules() == [changed]
    assert (again.module(1), again.module(2), again.module(3)) == (changed, None, None)
    assert again.add("a", "2", "os").id == 3


def test_two_modules_of_one_name_and_version_are_refused(tmp_path: Path) -> None:
    shelf = FolderShelf(tmp_path)
    shelf.add("a", "1", "os")
    with pytest.raises(ConflictError):
        shelf.add("a", "1", "application")


def test_what_is_kept_lies_by_its_hash_with_its_statement_beside_it(tmp_path: Path) -> None:
    shelf = FolderShelf(tmp_path)
    with shelf.receive() as upload:
        for piece in (b"ab", b"c"):
            upload.write(piece)
        digest = hashlib.sha256(b"abc")
        assert upload.sha256 == encode64(digest.digest())
        uri = upload.keep("fw 1.bin", "a.b.c")
    path = tmp_path / "artifacts" / digest.hexdigest() / "fw-1.bin"
    assert uri == path.as_uri()
    assert path.read_bytes() == b"abc"
    assert Path(f"{path}.statement").read_text() == "a.b.c"
    shelf.discard(uri)
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_what_is_not_kept_is_gone_also_after_an_error(tmp_path: Path) -> None:
    shelf = FolderShelf(tmp_path)
    with pytest.raises(ConflictError), shelf.receive() as upload:
        upload.write(b"abc")
        raise ConflictError("a test")
    assert list((tmp_path / "artifacts").iterdir()) == []


@pytest.mark.parametrize("name", ["..", "../x", "/x", ".x", "", "\0", "x" * 300])
def test_a_name_never_leads_elsewhere(tmp_path: Path, name: str) -> None:
    with FolderShelf(tmp_path).receive() as upload:
        upload.write(b"abc")
        path = Path(upload.keep(name, "a.b.c").removeprefix("file://"))
    assert path.parent == tmp_path / "artifacts" / hashlib.sha256(b"abc").hexdigest()
    assert path.read_bytes() == b"abc"


def test_nothing_outside_is_discarded(tmp_path: Path) -> None:
    other = tmp_path / "other" / "x.bin"
    other.parent.mkdir()
    other.write_bytes(b"x")
    shelf = FolderShelf(tmp_path)
    shelf.discard(other.as_uri())
    assert other.exists()


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    shelf = FolderShelf(tmp_path / "nowhere")
    assert shelf.modules() == []
    with pytest.raises(UnavailableError, match="hawkbit.uploads"):
        shelf.add("a", "1", "os")
    with pytest.raises(UnavailableError), shelf.receive():
        pass
