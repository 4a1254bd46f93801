from __future__ import annotations

import hashlib

import pytest

from orchestrator.sim.image import HEAD_BYTES, crashes, make_image


def test_an_image_says_in_text_what_it_is() -> None:
    image = make_image("1.2.0", 3, 4096, bad=True, seed=7)
    assert len(image) == 4096
    assert image.startswith(b"ota-sim-image 1\nversion: 1.2.0\nrel: 3\ncrashes: yes\n\n")


def test_equal_arguments_give_equal_bytes() -> None:
    image = make_image("1.2.0", 3, 1000, bad=False, seed=7)
    assert hashlib.sha256(image).hexdigest()[:16] == "907a039d114d5fa6"
    assert image != make_image("1.2.0", 3, 1000, bad=False, seed=8)


@pytest.mark.parametrize("bad", [True, False])
def test_the_head_alone_tells_whether_it_crashes(bad: bool) -> None:
    assert crashes(make_image("1.0.0", 1, 500, bad=bad, seed=0)[:HEAD_BYTES]) is bad


@pytest.mark.parametrize("data", [b"", b"\x7fELF\x02\x01", b"crashes: yes\n\n", b"ota-sim-image 1\n"])
def test_other_bytes_are_a_good_image(data: bytes) -> None:
    assert crashes(data) is False


def test_filler_cannot_change_the_verdict() -> None:
    image = make_image("1.0.0", 1, 500, bad=False, seed=0)
    end = image.index(b"\n\n") + 2
    assert crashes(image[:end] + b"crashes: yes\n\n") is False


def test_an_image_too_small_for_its_header_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 128 bytes"):
        make_image("1.0.0", 1, HEAD_BYTES - 1, bad=False, seed=0)
    with pytest.raises(ValueError, match="at least 128 bytes"):
        make_image("v" * 128, 1, 4096, bad=False, seed=0)
