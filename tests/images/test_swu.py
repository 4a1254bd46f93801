"""Updates for SWUpdate, and bundles for RAUC."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.images.swu import _parse_libconfig
from tests.images import forge
from tests.images.forge import (
    POST,
    ROOT,
    cpio,
    described,
    facts,
    faults,
    flipped,
    found,
    member,
    raucb,
    swu,
    verity,
    warnings,
)

DESCRIPTION = member("sw-description", described())


def test_a_good_update_says_what_it_is() -> None:
    findings = found(swu())
    assert (findings.format, findings.version, findings.faults, findings.warnings) == ("swu", "1.0.7", (), ())
    assert facts(swu()) == {"members": "4", "signature": "sw-description.sig, not checked", "hardware": "1.0, 1.2"}


def test_a_description_in_json_is_read_as_well() -> None:
    images = {"filename": "root.ext4", "sha256": "00" * 32}
    text = json.dumps({"software": {"version": "2.0", "hardware-compatibility": ["a"], "images": [images]}})
    assert found(swu(text)).version == "2.0"
    assert faults(swu(text)) == ["file_hash"]


def test_changed_bytes_break_the_sum_and_the_hash() -> None:
    at = swu().index(ROOT)
    assert faults(flipped(swu(), at)) == ["checksum", "file_hash"]
    bare = cpio(
        *(
            member(name, data, magic=b"070701", total=0)
            for name, data in (("sw-description", described()), ("root.ext4", ROOT), ("post.sh", POST))
        )
    )
    assert faults(bare) == []
    assert faults(flipped(bare, bare.index(ROOT))) == ["file_hash"]


def test_a_file_that_is_described_must_be_there() -> None:
    assert faults(cpio(DESCRIPTION, member("root.ext4", ROOT))) == ["missing_file"]


def test_what_is_told_stays_short() -> None:
    text = 'software = {{ version = "{}"; images: ( {{ filename = "{}"; }} ); }};'.format("v" * 5000, "f" * 5000)
    findings = found(swu(text))
    assert len(findings.version) == 200
    assert [len(str(fault)) < 300 for fault in findings.faults] == [True]


def test_an_unsigned_update_is_looked_at() -> None:
    assert warnings(cpio(DESCRIPTION, member("root.ext4", ROOT), member("post.sh", POST))) == ["unsigned"]


def test_order_matters() -> None:
    late = cpio(DESCRIPTION, member("root.ext4", ROOT), member("sw-description.sig", b"s"), member("post.sh", POST))
    assert faults(late) == ["signature_order"]
    assert found(cpio(member("root.ext4", ROOT), DESCRIPTION)).format == "raw"


def test_two_members_of_one_name_are_refused() -> None:
    twice = cpio(DESCRIPTION, member("root.ext4", ROOT), member("post.sh", POST), member("post.sh", POST))
    assert faults(twice) == ["duplicate_member"]


@pytest.mark.parametrize(
    "text", ["\0\1\2", "{", "a = {", "a = }", '"', "{" + '"a":[' * 9000, "a = " + "(" * 99, "", "[1]"]
)
def test_a_description_that_cannot_be_read_is_looked_at(text: str) -> None:
    assert (faults(swu(text)), warnings(swu(text))) == ([], ["description_unread"])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (swu()[:150], "truncated"),
        (swu()[:1000], "truncated"),
        (cpio(member("sw-description\0x", described())), "no_description"),
        (DESCRIPTION, "truncated"),
        (DESCRIPTION + b"x" * 200, "bad_cpio"),
        (forge.put(swu(), 94, b"00000000"), "bad_cpio"),
        (forge.put(swu(), 94, b"00000fff"), "bad_cpio"),
        (swu() + b"x", "trailing_bytes"),
        (cpio(DESCRIPTION, *(member(f"f{n}", b"") for n in range(600))), "too_many_members"),
    ],
)
def test_impossible_archives_are_refused(data: bytes, code: str) -> None:
    assert faults(data)[:1] == [code]


def test_libconfig_is_read_with_its_comments_and_marks() -> None:
    text = 'a = 1; /* x = 2; */ b : { c = "d\\"e"; }; // y\n# z\nlist = ( { f = "g" }, 0x10L, true ); n = [ "1", "2" ]'
    expected = {"a": "1", "b": {"c": 'd\\"e'}, "list": [{"f": "g"}, "0x10L", "true"], "n": ["1", "2"]}
    assert _parse_libconfig(text) == expected


@given(st.text(alphabet='ab={}()[];:,"\\/*# \n', max_size=300))
def test_any_text_is_libconfig_or_is_not(text: str) -> None:
    with suppress(ValueError):
        assert isinstance(_parse_libconfig(text), dict)


def test_a_plain_bundle_is_a_squashfs_and_a_signature() -> None:
    findings = found(raucb())
    assert (findings.format, findings.version, findings.faults) == ("raucb", "", ())
    assert facts(raucb())["bundle format"] == "plain"


def test_a_verity_bundle_says_what_it_is() -> None:
    findings = found(verity())
    assert (findings.version, findings.faults) == ("2024.03-1", ())
    assert facts(verity())["compatible"] == "Test Config"
    assert facts(verity())["images"] == "rootfs"


def test_an_encrypted_bundle_is_known_by_its_end() -> None:
    scrambled = b"\x99" * 4096 + raucb(forge.cms(kind=3))[4096:]
    assert (found(scrambled).format, faults(scrambled)) == ("raucb", [])
    assert facts(scrambled)["bundle format"] == "crypt, encrypted"
    crypt = b"\x99" * 4096 + verity(forge.MANIFEST.replace("verity\n", "crypt\n"))[4096:]
    assert (found(crypt).format, faults(crypt)) == ("raucb", [])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (raucb()[:-1], "no_cms"),
        (raucb()[:-9] + raucb()[-8:], "bad_cms"),
        (forge.squashfs(), "no_cms"),
        (forge.squashfs()[:100], "no_cms"),
        (raucb(b"\x30\x03abc"), "bad_cms"),
        (raucb(forge.cms() + b"x"), "bad_cms"),
        (raucb(forge.cms()[:1]), "bad_cms"),
        (raucb(b"\x30\x80" + forge.cms()[4:]), "bad_cms"),
        (raucb(b"\x30\x85" + forge.cms()), "bad_cms"),
        (raucb(used=5000), "truncated"),
        (raucb(used=0), "truncated"),
        (verity(forge.MANIFEST.replace("4096", "4097")), "bad_manifest"),
        (verity(forge.MANIFEST.replace("4096", "0")), "bad_manifest"),
        (verity(forge.MANIFEST.replace("4096", "81920")), "bad_manifest"),
        (verity(forge.MANIFEST.replace("4096", "\u0664")), "bad_manifest"),
        (verity(forge.MANIFEST.replace("verity-size", "x")), "bad_manifest"),
        (b"\x99" * 4096 + verity()[4096:], "no_squashfs"),
    ],
)
def test_broken_bundles_are_refused(data: bytes, code: str) -> None:
    assert faults(data) == [code]


@given(st.integers(20, len(forge.cms(forge.MANIFEST)) - 1), st.integers(0, 255))
def test_a_cms_with_a_changed_byte_is_read_or_not(at: int, byte: int) -> None:
    changed = forge.put(forge.cms(forge.MANIFEST), at, bytes([byte]))
    assert set(faults(raucb(changed, tree=bytes(4096)))) <= {"bad_manifest", "truncated", "unsigned"}
