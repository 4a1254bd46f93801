"""UF2: blocks of 512 bytes for a bootloader that shows itself as a drive.

Rules:
- Each block: two magics, flags, address, bytes of payload (at most 476), its number, how many there are, family; 476
  bytes; a last magic. Numbers run from 0 for each family. Here blocks must follow each other without a gap.
- The tools for the RP2350 put one block of the family `absolute` (E48BFF57) before the rest; it is numbered by itself.
- No updater over the air takes UF2. The one of arduino-pico takes any bytes, writes them, and does not start again.

Sources: microsoft/uf2, README; pico-sdk, `boot/uf2.h`; picotool, `elf2uf2.cpp`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from orchestrator.images.findings import UF2, BrokenError, Notes, listed
from orchestrator.images.reader import AGAIN, PIECE_BYTES, Reader

BLOCK_BYTES: Final = 512
_BLOCK = struct.Struct("<8I476sI")
_MAGICS = (0x0A324655, 0x9E5D5157, 0x0AB16F30)
_NOT_FOR_FLASH, _HAS_FAMILY, _MOST_PAYLOAD = 0x1, 0x2000, 476
_FAMILIES = {
    0xE48BFF56: "rp2040",
    0xE48BFF57: "absolute",
    0xE48BFF58: "data",
    0xE48BFF59: "rp2350-arm-s",
    0xE48BFF5A: "rp2350-riscv",
    0xE48BFF5B: "rp2350-arm-ns",
    0x1C5F21B0: "esp32",
    0xBFDD4EEE: "esp32s2",
    0xC47E5767: "esp32s3",
    0x55114460: "samd51",
    0x68ED2B88: "samd21",
    0xADA52840: "nrf52840",
}
_CHIPS = ("rp2040", "rp2350", "esp32", "esp32s2", "esp32s3")
_ABSOLUTE, _MOST_FAMILIES = 0xE48BFF57, 8


@dataclass(slots=True)
class _Run:
    """The blocks of one family so far."""

    blocks: int
    next_number: int = 0
    next_at: int = 0


def looks_so(head: bytes) -> bool:
    """Say whether a file that begins so is UF2."""
    return len(head) >= BLOCK_BYTES and _magics(_BLOCK.unpack_from(head)) == _MAGICS


def examine(reader: Reader, notes: Notes) -> None:
    """Check every block and write down what they are for.

    Raises:
        BrokenError: a block is none, or they are not in order.
    """
    notes.format = UF2
    if reader.size_bytes % BLOCK_BYTES:
        raise BrokenError("truncated", f"{reader.size_bytes} bytes are no whole number of blocks of 512", AGAIN)
    runs: dict[int, _Run] = {}
    for at in range(0, reader.size_bytes, PIECE_BYTES):
        piece = reader.some(at, PIECE_BYTES)
        for offset in range(0, len(piece), BLOCK_BYTES):
            _take(_BLOCK.unpack_from(piece, offset), runs, (at + offset) // BLOCK_BYTES)
    for family, run in runs.items():
        if run.next_number != run.blocks and family != _ABSOLUTE:
            text = f"{run.next_number} of {run.blocks} blocks of the family {_name(family)} are there"
            raise BrokenError("missing_blocks", text, AGAIN)
    names = [_name(family) for family in runs]
    notes.fact("families", listed(names))
    notes.fact("blocks", reader.size_bytes // BLOCK_BYTES)
    chips = {name.split("-")[0] for name in names if name.split("-")[0] in _CHIPS}
    notes.chip = chips.pop() if len(chips) == 1 else ""
    text = (
        "UF2 is for copying over USB; an updater over the air would write it as it is, and the device would not start"
    )
    notes.warn("uf2", text, "sign the .bin that the build made beside it")


def _magics(block: tuple[int, ...]) -> tuple[int, ...]:
    return (block[0], block[1], block[-1])


def _take(block: tuple[int, ...], runs: dict[int, _Run], place: int) -> None:
    _, _, flags, at, length, number, blocks, family, _, _ = block
    if _magics(block) != _MAGICS:
        raise BrokenError("bad_block", f"block {place} has not the magics of UF2", AGAIN)
    if flags & _NOT_FOR_FLASH:
        return
    if not 0 < length <= _MOST_PAYLOAD or not number < blocks:
        raise BrokenError("bad_block", f"block {place} says {length} bytes, number {number} of {blocks}", AGAIN)
    key = family if flags & _HAS_FAMILY else 0
    run = runs.setdefault(key, _Run(blocks, next_at=at))
    if len(runs) > _MOST_FAMILIES:
        raise BrokenError("bad_block", f"it is for more than {_MOST_FAMILIES} families", "make one file for each")
    if number != run.next_number or blocks != run.blocks:
        text = f"block {place} has the number {number} of {blocks}, where {run.next_number} of {run.blocks} belongs"
        raise BrokenError("block_order", text, AGAIN)
    if at != run.next_at:
        text = f"block {place} goes to {at:#x}, the one before it ended at {run.next_at:#x}"
        raise BrokenError("gap", text, "fill gaps when linking, or make one file for each part")
    run.next_number, run.next_at = number + 1, at + length


def _name(family: int) -> str:
    return _FAMILIES.get(family, f"{family:08x}" if family else "none")
