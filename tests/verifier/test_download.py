"""The downloader's judge beyond its transcripts: bounds that no file should spell out, and headers out of nowhere."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.verifier import DOWNLOAD_REASONS, REASONS, judge
from tests.golden import kit, ours
from tests.golden.download_cases import IMAGE, SHA256, SIZE, URL, answer, part, whole

DEVICE = ours.read_device(kit.DEVICE)


def judged(*answers: dict[str, Any], **more: Any) -> str:
    return judge({"url": URL, "answers": list(answers)} | more, SIZE, SHA256, DEVICE)


def test_without_a_deadline_a_download_ends_after_a_day() -> None:
    day = [answer(200, at=50 * number) for number in range(1729)]
    assert judged(*day) == "link_lost"
    assert judged(*day, answer(200, at=86_401)) == "deadline_passed"


def test_an_endless_stream_is_not_held() -> None:
    assert judged(answer(200, (0, "A", 10**15))) == "too_much_data"


def test_any_split_into_parts_is_the_same_image() -> None:
    for place in range(SIZE):
        assert judged(whole(IMAGE[:place], etag='"a"'), part(place, IMAGE[place:])) == ""


@given(st.dictionaries(st.sampled_from(["content-length", "content-range", "etag", "location"]), st.text(max_size=40)))
def test_no_header_makes_another_image_acceptable(headers: dict[str, str]) -> None:
    for status in (200, 206, 302):
        said = {"at": 0, "status": status, "headers": headers, "chunks": [[0, IMAGE[::-1], 1]]}
        reason = judged(said)
        assert reason in REASONS or reason in DOWNLOAD_REASONS
