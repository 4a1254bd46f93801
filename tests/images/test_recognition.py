"""Which format a file has, whether it fits, and that no bytes break anything."""

from __future__ import annotations

import io
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.images import FORMATS, HEAD_BYTES, RAW, Findings, Intake, against, as_declared, inspect, recognise
from orchestrator.images.findings import MAX_FACTS, MAX_TEXT, BrokenError
from orchestrator.images.reader import PIECE_BYTES, Reader
from tests.images import forge
from tests.images.forge import compressed, esp32, esp8266, found, signed

EXAMPLES = {
    "esp32": [esp32(), forge.secure_boot(esp32(), forge.ecdsa_block(forge.padded(esp32()))), forge.merged(0x1000)],
    "esp8266": [esp8266(), signed(esp8266()), compressed(esp8266()), signed(compressed(esp8266()))],
    "pico": [forge.rp2040(), forge.rp2350(), compressed(forge.rp2040())],
    "uf2": [forge.uf2()],
    "mcuboot": [forge.mcuboot()],
    "swu": [forge.swu()],
    "raucb": [forge.raucb(), forge.verity()],
}
ALL = [(word, data) for word, examples in EXAMPLES.items() for data in examples]


@pytest.mark.parametrize(("word", "data"), ALL)
def test_a_file_is_recognised_by_its_beginning(word: str, data: bytes) -> None:
    assert recognise(data[:HEAD_BYTES]) == word
    assert found(data).format == word
    assert word in FORMATS


@pytest.mark.parametrize(
    "data", [b"", b"\xe9", b"\xff" * 9000, bytes(9000), b"#!/bin/sh\n" * 99, b"\x7fELF" + bytes(500), b"PK\3\4" * 50]
)
def test_other_files_are_nothing_that_we_know(data: bytes) -> None:
    assert recognise(data) is None
    assert found(data) == Findings(RAW, len(data))


def test_random_bytes_are_nothing_that_we_know() -> None:
    chance = Random(1)
    for begin in (b"", b"\xe9", b"\xea", b"\x1f\x8b"):
        for _ in range(2000):
            assert recognise(begin + chance.randbytes(600)) is None


def test_a_file_is_read_from_its_path(tmp_path: Path) -> None:
    path = tmp_path / "fw.bin"
    path.write_bytes(esp32())
    assert inspect(path) == found(esp32())
    with pytest.raises(FileNotFoundError):
        inspect(tmp_path / "none")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """One of the good files with some bytes changed, left out, doubled or cut off."""
    data = draw(st.sampled_from([data for _, data in ALL]))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, min(len(data), 2000) if draw(st.booleans()) else len(data)))
        part = draw(st.binary(max_size=8))
        match draw(st.integers(0, 3)):
            case 0:
                data = forge.put(data, at, part)
            case 1:
                data = data[:at] + data[at + len(part) :]
            case 2:
                data = data[:at] + part + data[at:]
            case _:
                data = data[:at]
    return data


@settings(max_examples=400, deadline=None)
@given(damaged())
def test_whatever_the_bytes_are_there_is_an_answer(data: bytes) -> None:
    findings = found(data)
    assert findings.format in (RAW, *FORMATS)
    assert findings.size_bytes == len(data)
    assert len(findings.facts) <= MAX_FACTS
    assert all(len(value) <= MAX_TEXT for _, value in findings.facts)
    assert all(fault.code and fault.text and fault.remedy for fault in (*findings.faults, *findings.warnings))
    assert recognise(data[:HEAD_BYTES]) in (None, *FORMATS)


class Watched(io.BytesIO):
    """A file that notes how much is asked of it at once."""

    most = 0

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert size >= 0
        self.most = max(self.most, size)
        return super().read(size)


@pytest.mark.parametrize(("word", "data"), ALL)
def test_no_more_than_a_piece_is_read_at_once(word: str, data: bytes) -> None:
    file = Watched(data)
    assert inspect(file).format == word
    assert 0 < file.most <= PIECE_BYTES


def test_a_large_file_is_read_in_pieces() -> None:
    image = esp32(segments=(bytes(3 << 20),))
    file = Watched(image)
    assert inspect(file).faults == ()
    assert file.most == PIECE_BYTES


def test_a_reader_gives_all_or_says_that_it_ends() -> None:
    reader = Reader(io.BytesIO(b"0123456789"))
    assert (reader.read(8, 2), reader.some(8, 9), reader.some(10, 1), reader.size_bytes) == (b"89", b"89", b"", 10)
    assert b"".join(reader.pieces(3, 10)) == b"3456789"
    for read in (
        lambda: reader.read(9, 2),
        lambda: list(reader.pieces(3, 11)),
        lambda: reader.read(0, PIECE_BYTES + 1),
    ):
        with pytest.raises(BrokenError):
            read()


def test_an_image_is_held_against_its_target() -> None:
    findings = Findings("esp32", 900, chip="esp32s3", security_version=3)
    assert against(findings) == ()
    assert against(findings, slot_bytes=1000, chip="esp32s3", secure_version=3) == ()
    faults = against(findings, slot_bytes=999, chip="esp32c3", secure_version=4)
    assert [fault.code for fault in faults] == ["wrong_chip", "over_slot", "secure_version"]
    assert str(faults[0]) == "it is for esp32s3, the target is esp32c3; sign the build for esp32c3"


def test_the_largest_image_for_a_slot_of_0x1c0000() -> None:
    limit = 1_651_507
    assert against(Findings("esp32", limit), slot_bytes=0x1C0000) == ()
    assert [fault.code for fault in against(Findings("esp32", limit + 1), slot_bytes=0x1C0000)] == ["over_slot"]


def test_what_an_image_does_not_say_is_not_judged() -> None:
    assert against(Findings("swu", 10), slot_bytes=100, chip="esp32", secure_version=9) == ()


@pytest.mark.parametrize(
    ("declared", "actual", "codes"),
    [
        ("esp32", "esp32", []),
        ("esp32", "esp32-arduino", []),
        ("esp8266-legacy", "esp8266", []),
        ("esp32", "esp8266", ["wrong_format"]),
        ("pico", "uf2", ["wrong_format"]),
        ("mcuboot", "raw", ["wrong_format"]),
        ("raw", "esp32", []),
        ("suit", "raw", []),
    ],
)
def test_a_statement_that_names_a_format_is_held_to_it(declared: str, actual: str, codes: list[str]) -> None:
    assert [fault.code for fault in as_declared(Findings(actual, 1), declared)] == codes


@pytest.mark.parametrize("piece_bytes", [1, 1000, HEAD_BYTES, 1 << 20])
@pytest.mark.parametrize(
    ("word", "data"), [("esp32", esp32(segments=(bytes(40_000),))), ("esp8266", esp8266()), (RAW, b"text" * 9000)]
)
def test_an_image_in_pieces_is_what_it_is_in_one(word: str, data: bytes, piece_bytes: int) -> None:
    with Intake(RAW) as intake:
        for at in range(0, len(data), piece_bytes):
            intake.take(data[at : at + piece_bytes])
        assert intake.findings() == (None if word == RAW else found(data))


def test_what_is_declared_is_set_aside_whatever_it_is() -> None:
    with Intake("esp32") as intake:
        intake.take(b"text")
        assert intake.findings() == found(b"text")
    with Intake(RAW) as nothing:
        assert nothing.findings() is None
