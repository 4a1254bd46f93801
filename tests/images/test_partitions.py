"""Partition tables of ESP-IDF."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import PayloadError
from orchestrator.images import read_partitions
from tests.images import forge

GOOD = """# Name, Type, SubType, Offset, Size, Flags
nvs,      data, nvs,     0x9000,  0x5000,
otadata,  data, ota,     0xe000,  0x2000,
app0,     app,  ota_0,   ,        0x1C0000,
app1,     app,  ota_1,   ,        1536K, encrypted
storage,  data, spiffs,  ,        256K, encrypted:readonly
"""


def codes(text: str) -> list[str]:
    return [fault.code for fault in read_partitions(text.encode()).faults]


def test_a_good_table_is_read_and_offsets_are_filled_in() -> None:
    table = read_partitions(GOOD.encode())
    assert table.faults == ()
    assert [(part.name, part.offset, part.size_bytes) for part in table.partitions] == [
        ("nvs", 0x9000, 0x5000),
        ("otadata", 0xE000, 0x2000),
        ("app0", 0x10000, 0x1C0000),
        ("app1", 0x1D0000, 0x180000),
        ("storage", 0x350000, 0x40000),
    ]
    assert table.slot_bytes == 0x180000


def test_a_binary_says_the_same_and_has_its_hash_checked() -> None:
    table = read_partitions(forge.table())
    assert (table.faults, table.slot_bytes, len(table.partitions)) == ((), 0x140000, 4)
    changed = read_partitions(forge.flipped(forge.table(), 0x60 + 30))
    assert [fault.code for fault in changed.faults] == ["table_md5"]


def test_a_binary_ends_where_its_entries_do() -> None:
    table = read_partitions(forge.table()[:0x80] + bytes(64))
    assert (table.faults, len(table.partitions)) == ((), 4)
    many = read_partitions(forge.table()[:0x20] * 200)
    assert len(many.partitions) == 95


def test_a_widely_copied_table_overlaps() -> None:
    copied = GOOD.replace("app0,", "phy_init, data, phy, 0xf000, 0x1000,\napp0,")
    faults = read_partitions(copied.encode()).faults
    assert [fault.code for fault in faults] == ["partitions_overlap"]
    assert str(faults[0]).startswith("line 4: phy_init at 0xf000 overlaps otadata, which ends at 0x10000; ")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("otadata,  data, ota,     0xe000,  0x2000,\n", "", ["no_otadata"]),
        ("0xe000,  0x2000", "0xe000,  0x1000", ["bad_partition"]),
        ("app1,     app,  ota_1", "app1,     app,  factory", ["no_slots"]),
        ("ota_1", "ota_0", ["no_slots"]),
        ("app1", "app0", ["bad_partition"]),
        ("ota_0,   , ", "ota_0,   0x11000, ", ["bad_partition"]),
        ("0x9000", "0x9100", ["partitions_overlap", "bad_partition"]),
        ("0x9000", "0x8000", ["bad_partition"]),
        ("0x1C0000", "0x1C0010", ["bad_partition"]),
        ("0x1C0000", "many", ["bad_partition", "no_slots"]),
        ("0x1C0000", "0", ["bad_partition", "no_slots"]),
        ("0x1C0000", "99999M", ["bad_partition", "no_slots"]),
        ("0x9000,  0x5000,", "0x9000", ["bad_partition"]),
        ("nvs,     0x9000", "lost,     0x9000", ["bad_partition"]),
        ("nvs,      data, nvs", "nvs,      0xff, 1", ["bad_partition"]),
        ("nvs,      data", ",      data", ["bad_partition"]),
        ("nvs,      data", "a-name-of-17-bytes, data", ["bad_partition"]),
        ("encrypted\n", "secret\n", ["bad_partition", "no_slots"]),
        ("encrypted\n", "# large\n", ["bad_partition", "no_slots"]),
        ("0x2000,", "0x2000, encrypted:readonly", ["bad_partition", "no_otadata"]),
        ("ota_0,   , ", ",   , ", ["bad_partition", "no_slots"]),
        ("nvs,      data", "nvs", ["bad_partition"]),
    ],
)
def test_every_fault_is_found(old: str, new: str, expected: list[str]) -> None:
    assert old in GOOD
    found = codes(GOOD.replace(old, new, 1))
    assert sorted(found) == sorted(expected)


def test_all_faults_come_at_once_each_with_its_line() -> None:
    table = read_partitions((GOOD + "x\ny, app, ota_9, 0x1, 1\n").encode())
    lines = [str(fault).split(":")[0] for fault in table.faults]
    assert {"line 7", "line 8"} <= set(lines)


def test_partitions_stand_in_the_order_of_flash() -> None:
    late = GOOD.replace("0x9000,  0x5000", "0x9000,  0x4000") + "phy, data, phy, 0xd000, 0x1000\n"
    [fault] = read_partitions(late.encode()).faults
    assert str(fault).startswith("line 7: phy stands behind those that it comes before in flash; ")


def test_what_the_build_ignores_is_ignored() -> None:
    table = read_partitions(GOOD.replace("0x5000,", "0x5000,, # settings").replace("spiffs", "").encode())
    assert table.faults == ()
    assert table.partitions[4].subtype == 6


def test_a_partition_may_reach_up_to_a_place_and_a_bootloader_lie_below() -> None:
    text = GOOD.replace("256K,", "-4M,") + "boot, bootloader, primary, 0x1000, 0x7000\n"
    table = read_partitions(text.encode())
    assert table.faults == ()
    assert table.partitions[4].size_bytes == 0x400000 - 0x350000


@pytest.mark.parametrize("data", [b"", b"\n# nothing\n", b"\xff\xfe", b"a" * 70_000])
def test_what_is_no_table_is_refused(data: bytes) -> None:
    with pytest.raises(PayloadError) as caught:
        read_partitions(data)
    assert caught.value.code == "bad_partitions"


def test_no_table_has_more_than_so_many() -> None:
    many = "".join(f"p{n}, data, nvs, , 0x1000\n" for n in range(97))
    table = read_partitions((GOOD + many).encode())
    assert len(table.partitions) == 95
    assert "bad_partition" in [fault.code for fault in table.faults]


@given(
    st.one_of(st.binary(max_size=400), st.text(alphabet="appdata,ota_01x9KM-#\n :nvs", max_size=400).map(str.encode))
)
def test_anything_is_a_table_or_is_refused(data: bytes) -> None:
    try:
        table = read_partitions(data)
    except PayloadError:
        return
    assert table.slot_bytes is None or table.slot_bytes > 0 or data[:2] == b"\xaa\x50"
