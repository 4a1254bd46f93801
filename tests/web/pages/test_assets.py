"""What is vendored is what was taken, byte for byte; and no file that pages load names another host."""

from __future__ import annotations

import hashlib
from pathlib import Path

import orchestrator.web.pages

STATIC = Path(orchestrator.web.pages.__file__).parent / "static"


def test_vendored_files_are_those_of_the_list() -> None:
    folder = STATIC / "vendor"
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in map(str.split, lines)}
    found = {item.name: hashlib.sha256(item.read_bytes()).hexdigest() for item in folder.iterdir()}
    del found["SHA256SUMS"]
    assert found == listed


def test_nothing_that_is_loaded_names_another_host() -> None:
    for item in STATIC.rglob("*.*"):
        text = item.read_text().replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xhtml", "")
        assert "http://" not in text, item
        assert "https://" not in text, item
