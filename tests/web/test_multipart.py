"""Forms with files: whatever the pieces they come in, and whatever stands in them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import PayloadError
from orchestrator.web.management.multipart import MAX_HEAD_BYTES, MAX_PARTS, Form, Part

TYPE = "multipart/form-data; boundary=edge"
TRICKS = st.sampled_from([b"\r\n", b"--", b"edge", b"\r\n--edg", b"-", b"\r", b"\n", b"x", b"\r\n--edg\r\n--ed"])
CONTENT = st.lists(TRICKS | st.binary(max_size=8), max_size=12).map(b"".join)


def read(content_type: str, pieces: Iterable[bytes]) -> list[tuple[Part, bytes]]:
    """Return the parts of a form, each with all its bytes."""
    form, found = Form(content_type), list[tuple[Part, bytes]]()
    for piece in pieces:
        for part, data in form.feed(piece):
            if data:
                assert found[-1][0] == part
                found[-1] = part, found[-1][1] + data
            else:
                found.append((part, b""))
    form.close()
    return found


def write(fields: Iterable[tuple[str, str, bytes]]) -> bytes:
    """Return a form as clients write it."""
    text = b""
    for name, file_name, data in fields:
        head = f'Content-Disposition: form-data; name="{name}"; filename="{file_name}"\r\nContent-Type: a/b\r\n\r\n'
        text += b"--edge\r\n" + head.encode() + data + b"\r\n"
    return text + b"--edge--\r\n"


@given(st.lists(CONTENT, max_size=4), st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_what_was_written_is_read_in_whatever_pieces_it_comes(contents: list[bytes], steps: list[int]) -> None:
    contents = [item for item in contents if b"\r\n--edge" not in b"\r\n" + item]
    text = write((f"f{at}", "a.bin", item) for at, item in enumerate(contents))
    pieces, at = list[bytes](), 0
    while at < len(text):
        step = steps[len(pieces) % len(steps)]
        pieces.append(text[at : at + step])
        at += step
    assert read(TYPE, pieces) == [(Part(f"f{at}", "a.bin"), item) for at, item in enumerate(contents)]


@given(st.binary(max_size=300) | CONTENT)
def test_any_bytes_are_a_form_or_refused(data: bytes) -> None:
    for text in (data, b"--edge\r\n" + data, write([("file", "a", data)])[:-4]):
        try:
            read(TYPE, [text])
        except PayloadError as error:
            assert error.code == "malformed"


@pytest.mark.parametrize(
    ("head", "part"),
    [
        ('form-data; name="file"; filename="a; name=\\"x\\".bin"', Part("file", 'a; name="x".bin')),
        ("form-data; name=file; filename=a.bin", Part("file", "a.bin")),
        ('FORM-DATA;filename="a";  name="file"', Part("file", "a")),
        ('form-data; name="statement"', Part("statement", "")),
    ],
)
def test_the_names_of_a_part_are_read_as_they_are_quoted(head: str, part: Part) -> None:
    text = f"--edge\r\nX-Other: 1\r\ncontent-disposition: {head}\r\n\r\nx\r\n--edge--".encode()
    assert read(TYPE, [text]) == [(part, b"x")]


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        f"multipart/form-data; boundary={'b' * 71}",
    ],
)
def test_what_names_no_form_is_refused(content_type: str) -> None:
    with pytest.raises(PayloadError):
        Form(content_type)


def test_a_boundary_may_be_quoted_and_a_preamble_may_come_first() -> None:
    text = b"ignored\r\n" + write([("file", "a", b"x")]) + b"and what follows"
    assert read('Multipart/Form-Data; charset=utf-8; boundary="edge"', [text]) == [(Part("file", "a"), b"x")]


@pytest.mark.parametrize(
    "text",
    [
        b"--edge\r\n" + b"x" * (MAX_HEAD_BYTES + 1),
        b'--edge\r\ncontent-disposition: form-data; filename="a"\r\n\r\nx\r\n--edge--',
        b'--edge\r\ncontent-disposition: form-data; name="a\r\n\r\nx\r\n--edge--',
        b'--edgeX\r\ncontent-disposition: form-data; name="a"\r\n\r\nx\r\n--edge--',
        b"--edge\r\n\r\nx\r\n--edge--",
        write(("f", "a", b"x") for _ in range(MAX_PARTS + 1)),
        write([("f", "a", b"x")])[:-6],
    ],
)
def test_a_broken_form_is_refused(text: bytes) -> None:
    with pytest.raises(PayloadError):
        read(TYPE, [text])
