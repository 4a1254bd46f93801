from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import cast

import pytest

from orchestrator.adapters.mqtt.stream import FILL_LIMIT_BYTES, BufferedSocket


@pytest.fixture
def pair() -> Iterator[tuple[BufferedSocket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    buffered = BufferedSocket(ours)
    yield buffered, theirs
    buffered.close()
    theirs.close()


class Double:
    """A socket whose answers the test wrote down: bytes, byte counts, or errors to raise."""

    family = socket.AF_UNIX

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)
        self.sent: list[bytes] = []

    def recv(self, _size: int) -> bytes:
        return cast(bytes, self._next())

    def send(self, data: bytes) -> int:
        count = cast(int, self._next())
        self.sent.append(bytes(data[:count]))
        return count

    def _next(self) -> object:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def buffered(*answers: object) -> tuple[BufferedSocket, Double]:
    double = Double(*answers)
    return BufferedSocket(cast(socket.socket, double)), double


def test_what_was_filled_is_read_in_pieces(pair: tuple[BufferedSocket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"abcdef")
    assert not ours.readable
    ours.fill()
    assert (ours.readable, ours.pending()) == (True, 6)
    assert [ours.recv(1), ours.recv(3), ours.recv(100)] == [b"a", b"bcd", b"ef"]
    assert (ours.readable, ours.pending()) == (False, 0)


def test_an_empty_buffer_would_block(pair: tuple[BufferedSocket, socket.socket]) -> None:
    ours, _ = pair
    ours.fill()
    with pytest.raises(BlockingIOError):
        ours.recv(1)


def test_what_was_not_read_stays_before_what_comes_next(pair: tuple[BufferedSocket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"abc")
    ours.fill()
    assert ours.recv(1) == b"a"
    theirs.sendall(b"def")
    ours.fill()
    assert (ours.pending(), ours.recv(100)) == (5, b"bcdef")


def test_the_end_of_the_stream_comes_after_the_last_byte(pair: tuple[BufferedSocket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"abc")
    theirs.close()
    ours.fill()
    assert [ours.recv(100), ours.readable, ours.recv(100), ours.recv(100)] == [b"abc", True, b"", b""]


def test_one_filling_takes_about_a_mebibyte() -> None:
    ours, _ = buffered(*[b"x" * (FILL_LIMIT_BYTES // 4)] * 5)
    ours.fill()
    assert ours.pending() == FILL_LIMIT_BYTES


@pytest.mark.parametrize("pause", [BlockingIOError(), ssl.SSLWantReadError(), ssl.SSLWantWriteError()])
def test_filling_ends_where_the_socket_has_no_more(pause: Exception) -> None:
    ours, _ = buffered(b"ab", pause, b"cd", pause)
    ours.fill()
    assert ours.pending() == 2
    ours.fill()
    assert ours.recv(100) == b"abcd"


@pytest.mark.parametrize("error", [ConnectionResetError(), TimeoutError(), ssl.SSLError("bad record")])
def test_an_error_of_the_socket_is_the_end_of_the_stream(error: Exception) -> None:
    ours, _ = buffered(b"ab", error)
    ours.fill()
    assert [ours.recv(100), ours.recv(100)] == [b"ab", b""]


def test_writing_waits_for_the_flush(pair: tuple[BufferedSocket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.setblocking(False)
    assert (ours.send(b"abc"), ours.send(b"def"), ours.unsent) == (3, 3, 6)
    with pytest.raises(BlockingIOError):
        theirs.recv(100)
    ours.flush()
    assert (theirs.recv(100), ours.unsent) == (b"abcdef", 0)


@pytest.mark.parametrize("pause", [BlockingIOError(), ssl.SSLWantReadError(), ssl.SSLWantWriteError()])
def test_what_the_kernel_does_not_take_is_kept(pause: Exception) -> None:
    ours, double = buffered(2, pause, 4)
    ours.send(b"abcdef")
    ours.flush()
    assert (double.sent, ours.unsent) == ([b"ab"], 4)
    ours.flush()
    assert (double.sent, ours.unsent) == ([b"ab", b"cdef"], 0)


def test_an_error_while_writing_is_found_by_the_next_read() -> None:
    ours, _ = buffered(BrokenPipeError())
    ours.send(b"abc")
    ours.flush()
    assert (ours.unsent, ours.readable, ours.recv(1)) == (0, True, b"")


def test_closing_writes_what_waits(pair: tuple[BufferedSocket, socket.socket]) -> None:
    ours, theirs = pair
    ours.send(b"goodbye")
    ours.close()
    assert (theirs.recv(100), theirs.recv(100), ours.fileno()) == (b"goodbye", b"", -1)


def test_it_passes_on_what_else_paho_asks_for(pair: tuple[BufferedSocket, socket.socket]) -> None:
    ours, _ = pair
    assert ours.fileno() > 0
    ours.setblocking(True)
    assert ours._raw.getblocking()
