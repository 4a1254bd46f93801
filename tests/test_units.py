from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10ms", 0.01), ("0s", 0.0), ("30s", 30.0), ("10m", 600.0), ("1.5h", 5400.0), ("24h", 86400.0), ("2d", 172800.0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("0B", 0), ("512B", 512), ("64KiB", 65536), ("64MiB", 2**26), ("2GiB", 2**31)]
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert units.parse_size(text) == size_bytes


@pytest.mark.parametrize(("text", "share"), [("0%", 0.0), ("0.5%", 0.005), ("20%", 0.2), ("100%", 1.0)])
def test_shares(text: str, share: float) -> None:
    assert units.parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("value", [30, 0.5, True, None, "30", "s", "30 s", "-1s", "1e3s", "30S", "٣s", "1m30s", ["1s"]])
def test_a_duration_without_its_unit_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r'is not a duration; write a number with its unit, such as "30s" or "24h"'):
        units.parse_duration(value)


@pytest.mark.parametrize("value", [64, "64", "64MB", "64 MiB", "1.5GiB", "-1B", None])
def test_a_size_without_its_unit_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        units.parse_size(value)


@pytest.mark.parametrize("value", [20, 0.2, "20", "101%", "100.1%", "-1%", "20 %"])
def test_a_share_without_its_sign_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is not a share"):
        units.parse_share(value)


def test_a_long_value_is_not_repeated_whole() -> None:
    with pytest.raises(ValueError) as caught:
        units.parse_duration("x" * 5000)
    assert len(str(caught.value)) < 200


@given(st.integers(0, 10**9))
def test_durations_are_written_as_they_are_read(milliseconds: int) -> None:
    assert units.parse_duration(units.format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


@given(st.integers(0, 2**40))
def test_sizes_are_written_as_they_are_read(size_bytes: int) -> None:
    assert units.parse_size(units.format_size(size_bytes)) == size_bytes


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0%"), (0.005, "0.5%"), (0.2, "20%"), (0.000001, "0.0001%"), (1, "100%")]
)
def test_a_share_is_written_as_it_is_read(share: float, text: str) -> None:
    assert units.format_share(share) == text
    assert units.parse_share(text) == pytest.approx(share)
