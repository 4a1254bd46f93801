"""The way of a keyset: proposed, signed on machines that never meet, judged by the verifier, stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.keys import KeyPlan, create_keys, load_device_keys, public_key
from orchestrator.adapters.keysets import (
    Change,
    Draft,
    add_line,
    judge,
    keys_of,
    parse_draft,
    propose,
    read_draft,
    refuse_stranger,
    refuse_weaker,
    sign_all,
    store,
    weakenings,
)
from orchestrator.adapters.signers.file import FileSigner
from orchestrator.errors import ConflictError, NotFoundError, OrchestratorError, RequestError, TrustError
from orchestrator.verifier import Keyset, PublicKey, adopt
from orchestrator.wire.token import bundle, encode64

NOW = 1_900_000_000.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_keys(tmp_path, "my-fleet", plan=KeyPlan(cosigners=("anna", "bob")))
    return tmp_path


@pytest.fixture
def held(folder: Path) -> Keyset:
    return load_device_keys(folder / "device-keys.json")


@pytest.fixture
def root(folder: Path) -> Callable[[int], FileSigner]:
    return lambda number: FileSigner.load(folder / f"root-{number}.pem")


def new_key(role: str = "trigger", who: str = "") -> tuple[FileSigner, PublicKey]:
    private = ec.generate_private_key(ec.SECP256R1())
    return FileSigner(private), public_key(private.public_key(), role, who)


def only(held: Keyset, role: str, who: str = "") -> str:
    return keys_of(held, role, who)[0].kid


def test_a_new_trigger_key_is_taken_by_devices(held: Keyset, root: Callable[[int], FileSigner]) -> None:
    _, key = new_key()
    old = only(held, "trigger")
    draft = propose(held, Change((key,), (old,)), NOW)
    assert (draft.signers, judge(draft, held, NOW).refusal) == ((), "nobody has signed it")
    draft = sign_all(draft, held, [root(1), root(3)], NOW)
    taken = adopt(bundle(draft.lines), held, int(NOW))
    assert taken == draft.keyset
    assert (taken.ep, taken.need_root, taken.need_cosign) == (2, 2, 2)
    assert taken.keys == {kid: known for kid, known in held.keys.items() if kid != old} | {key.kid: key}


def test_a_successor_lies_beside_the_old_key(held: Keyset, root: Callable[[int], FileSigner]) -> None:
    _, key = new_key()
    draft = sign_all(propose(held, Change((key,)), NOW), held, [root(1), root(2)], NOW)
    assert [item.kid for item in keys_of(draft.keyset, "trigger")] == [only(held, "trigger"), key.kid]


def test_a_lost_root_is_replaced_by_the_two_others(held: Keyset, root: Callable[[int], FileSigner]) -> None:
    signer, key = new_key("root")
    draft = propose(held, Change((key,), (root(1).kid,)), NOW)
    with pytest.raises(RequestError, match="1 of 2 that devices hold and 2 of 2 of the new ones") as error:
        sign_all(draft, held, [root(2), signer], NOW)
    assert error.value.code == "too_few_signers"
    assert root(1).kid in error.value.message and root(3).kid in error.value.message
    after = sign_all(draft, held, [root(2), root(3), signer], NOW).keyset
    again = sign_all(propose(after, Change((new_key()[1],)), NOW), after, [root(2), signer], NOW)
    assert again.keyset.ep == 3


def test_the_root_that_goes_may_sign_its_own_end(held: Keyset, root: Callable[[int], FileSigner]) -> None:
    signer, key = new_key("root")
    draft = propose(held, Change((key,), (root(1).kid,)), NOW)
    found = judge(add_line(add_line(draft, root(1), held), root(2), held), held, NOW)
    assert (found.of_held, found.of_new, found.refusal.partition(":")[0]) == (2, 1, "too_few_signers")
    assert set(found.may_sign) == {root(3).kid, key.kid}
    assert sign_all(draft, held, [root(1), root(2), signer], NOW)


def test_a_file_goes_from_root_to_root(held: Keyset, root: Callable[[int], FileSigner], folder: Path) -> None:
    draft = propose(held, Change((new_key()[1],)), NOW)
    place = folder / "way"
    for number in (1, 2, 3):
        place.write_bytes(draft.content)
        draft = read_draft(place)
        assert len(draft.signers) == number - 1
        draft = add_line(draft, root(number), held)
    assert draft.signers == tuple(root(number).kid for number in (1, 2, 3))
    assert judge(parse_draft(draft.content), held, NOW).refusal == ""


def test_only_roots_sign_and_each_once(held: Keyset, root: Callable[[int], FileSigner], folder: Path) -> None:
    draft = add_line(propose(held, Change((new_key()[1],)), NOW), root(1), held)
    with pytest.raises(RequestError, match="has signed this keyset already"):
        add_line(draft, root(1), held)
    with pytest.raises(RequestError, match="is no root key"):
        add_line(draft, FileSigner.load(folder / "trigger.pem"), held)
    with pytest.raises(RequestError, match="is no root key"):
        add_line(draft, new_key()[0], held)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (Change(need_root=1), "fewer-roots"),
        (Change(need_cosign=1), "fewer-cosigners"),
        (Change(remove=("trigger",)), "lost-role"),
        (Change(remove=("artifact",)), "lost-role"),
        (Change(remove=("beat",)), "lost-role"),
        (Change(remove=("cosign:anna", "cosign:bob")), "lost-role"),
    ],
)
def test_what_is_weaker_is_allowed_by_name_only(held: Keyset, change: Change, code: str) -> None:
    kids = tuple(only(held, *name.split(":")) for name in change.remove)
    change = replace(change, remove=kids)
    with pytest.raises(RequestError, match="this keyset is weaker") as error:
        propose(held, change, NOW, {"fewer-roots", "fewer-cosigners", "lost-role"} - {code})
    assert f"(--allow-{code})" in error.value.message
    draft = propose(held, change, NOW, {code})
    assert [item.code for item in weakenings(held, draft.keyset)] == [code]
    assert [item.code for item in judge(draft, held, NOW).weaker] == [code]


def test_what_is_stronger_needs_no_leave(held: Keyset) -> None:
    change = Change((new_key("cosign", "carl")[1],), need_root=3, need_cosign=3)
    draft = propose(held, change, NOW)
    assert (draft.keyset.need_root, draft.keyset.need_cosign) == (3, 3)
    refuse_weaker(held, draft.keyset, ())


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (Change(remove=("unknown",)), "unknown_key"),
        (Change(remove=("cosign:anna",)), "need_unmet"),
        (Change(need_root=4), "need_unmet"),
        (Change(tuple(new_key()[1] for _ in range(9))), "bad_field"),
    ],
)
def test_what_devices_would_refuse_is_not_proposed(held: Keyset, change: Change, code: str) -> None:
    kids = tuple(only(held, *name.split(":")) if ":" in name else name for name in change.remove)
    with pytest.raises(RequestError) as error:
        propose(held, replace(change, remove=kids), NOW)
    assert error.value.code == code


def test_a_key_that_was_there_does_not_come_back(held: Keyset) -> None:
    old = keys_of(held, "trigger")[0]
    with pytest.raises(RequestError, match="make another"):
        propose(held, Change((old,), (old.kid,)), NOW)


def test_without_roots_nothing_follows(tmp_path: Path) -> None:
    create_keys(tmp_path, "my-fleet", plan=KeyPlan(roots=0))
    with pytest.raises(RequestError, match="provisioned without root keys"):
        propose(load_device_keys(tmp_path / "device-keys.json"), Change(), NOW)


def test_a_root_signs_only_what_follows(held: Keyset) -> None:
    new = propose(held, Change((new_key()[1],)), NOW).keyset
    refuse_stranger(held, new)
    with pytest.raises(RequestError, match="is for other"):
        refuse_stranger(held, replace(new, iss="other"))
    for epoch in (1, 3):
        with pytest.raises(RequestError, match=f"keyset {epoch} does not follow 1"):
            refuse_stranger(held, replace(new, ep=epoch))


def test_an_expired_root_counts_for_nothing(tmp_path: Path) -> None:
    create_keys(tmp_path, "my-fleet", plan=KeyPlan(expires_at={"root": int(NOW)}))
    held = load_device_keys(tmp_path / "device-keys.json")
    signers = [FileSigner.load(tmp_path / f"root-{number}.pem") for number in (1, 2)]
    draft = propose(held, Change((new_key()[1],)), NOW)
    with pytest.raises(TrustError, match="key_expired"):
        sign_all(draft, held, signers, NOW)
    assert sign_all(draft, held, signers, NOW - 1)


def test_the_new_document_takes_the_place_of_the_old(
    held: Keyset, root: Callable[[int], FileSigner], folder: Path
) -> None:
    path = folder / "device-keys.json"
    draft = sign_all(propose(held, Change((new_key()[1],)), NOW), held, [root(1), root(2)], NOW)
    lines = store(draft, held, path)
    assert (lines.name, read_draft(lines)) == ("keyset-2.jws", draft)
    assert (load_device_keys(path), load_device_keys(folder / "device-keys-1.json")) == (draft.keyset, held)
    assert store(draft, held, path) == lines  # once more, after a crash between the files
    other = sign_all(propose(held, Change((new_key()[1],)), NOW), held, [root(1), root(2)], NOW)
    with pytest.raises(ConflictError, match=r"keyset-2\.jws exists"):
        store(other, held, path)


def broken(draft: Draft) -> dict[str, bytes]:
    first, second = draft.lines
    header, payload, signature = first.split(b".")
    text = json.dumps(dict(draft.claims)).encode()
    return {
        "empty": b"",
        "words": b"hello",
        "no need": json.dumps({name: value for name, value in draft.claims.items() if name != "need"}).encode(),
        "no iat": json.dumps({name: value for name, value in draft.claims.items() if name != "iat"}).encode(),
        "a name twice": text.replace(b'"v": 1', b'"v": 1, "v": 1'),
        "no keys": b'{"v":1,"iss":"a","ep":1,"keys":[]}',
        "two parts": header + b"." + payload,
        "no header": b"!." + payload + b"." + signature,
        "other header": b"e30." + payload + b"." + signature,
        "no payload": second + b"\n" + first,
        "written another way": header + b"." + encode64(text).encode() + b"." + signature,
        "spaces in the payload": header + b"." + payload[:8] + b" " + payload[8:] + b"." + signature,
        "a line without header": first + b"\nhello",
    }


@pytest.mark.parametrize("damage", range(13))
def test_what_is_no_keyset_is_refused(
    held: Keyset, root: Callable[[int], FileSigner], folder: Path, damage: int
) -> None:
    draft = sign_all(propose(held, Change((new_key()[1],)), NOW), held, [root(1), root(2)], NOW)
    content = list(broken(draft).values())[damage]
    (folder / "way").write_bytes(content)
    with pytest.raises(TrustError, match="is no keyset that can be signed or taken"):
        draft = read_draft(folder / "way")
        assert judge(draft, held, NOW).refusal == ""


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="No such file"):
        read_draft(tmp_path / "keyset-2.jws")


ALPHABET = '{}[]":,.-_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ\n'
HEADER = b"eyJhbGciOiJFUzI1NiIsImtpZCI6ImEiLCJ0eXAiOiJvdGEta2V5cytqd3MifQ"


@given(st.binary(max_size=300) | st.text(alphabet=ALPHABET, max_size=300).map(str.encode))
def test_any_bytes_are_a_keyset_or_refused(content: bytes) -> None:
    for candidate in (content, b"{" + content, HEADER + b"." + content, HEADER + b"." + HEADER + b"." + content):
        try:
            parse_draft(candidate)
        except OrchestratorError as error:
            assert isinstance(error, TrustError | RequestError)
