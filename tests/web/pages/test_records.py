"""The pages of approvals, accounts, artifacts, keys and the audit log."""

from __future__ import annotations

import json
import re

import pytest

from orchestrator.core.trust.audit import digest
from orchestrator.core.trust.roles import SHARED, Caller, Role
from orchestrator.engine.trust import operators
from orchestrator.engine.trust.approvals import Rules, Wish
from orchestrator.engine.trust.operators import NewOperator
from orchestrator.ports import Tx
from orchestrator.web.pages import audit as audit_module
from orchestrator.web.pages import once
from orchestrator.web.pages import rollouts as rollouts_module
from orchestrator.web.pages.views import artifacts as artifacts_view
from tests.web.pages.visits import Visit, signed_in
from tests.web.site import PLAN, Site


async def as_(web: Site, name: str, *roles: Role) -> Visit:
    return await signed_in(web, await web.operator(name, *roles))


async def two_who_approve(web: Site) -> tuple[Visit, Visit]:
    ben = await as_(web, "ben", Role.APPROVER)
    return ben, await as_(web, "adam", Role.ADMIN)


async def accounts_of(web: Site) -> list[str]:
    return [item.name for item in await web.plant.store.read(lambda tx: tx.operators())]


async def test_nothing_waits_and_nobody_is_asked(web: Site) -> None:
    text = (await (await signed_in(web)).get("/approvals")).text
    assert "Nothing waits for anybody." in text
    assert "fewer than two persons may approve" in text


async def test_an_account_is_proposed_approved_and_added(web: Site) -> None:
    ben, adam = await two_who_approve(web)
    wanted = {"name": "dee", "person": "dee.d", "role_operator": "yes", "days": "30", "reason": "she joins"}
    said = await adam.send("/accounts", "/accounts/add", **wanted)
    assert said.startswith("Waits for approval. proposal 1 waits for others: adding the operator dee of dee.d")
    own = (await adam.get("/approvals")).text
    assert "You proposed this; another person decides." in own
    assert "May decide: ben" in own
    page = (await ben.get("/approvals")).text
    assert "Adding the operator dee of dee.d as operator, with a token of 30 days" in page
    said = await ben.send("/approvals", "/approvals/1/approve", reason="I know her", back="/approvals")
    assert said == "Done. Proposal 1 is approved now."
    said = await adam.send("/accounts", "/accounts/add", **wanted)
    assert said.startswith("Done. dee was added. Its token, which is shown this once: otad_op_")
    assert "otad_op_" not in (await adam.get("/accounts")).text
    assert await accounts_of(web) == ["adam", "ben", "dee"]
    assert "I know her" in (await ben.get("/approvals")).text
    dee = await signed_in(web, said.rpartition(" ")[2])
    assert (await dee.get("/devices")).status_code == 200
    assert (await dee.get("/accounts")).status_code == 403


async def test_an_act_on_an_account_that_is_not_possible_says_why(web: Site) -> None:
    admin = await signed_in(web)
    base = {"name": "dee", "person": "dee", "role_viewer": "yes", "days": "30", "reason": "she joins"}
    for change, text in (
        ({"days": "many"}, "say for how many days"),
        ({"days": "999"}, "a token works for 1 to 365 days"),
        ({"role_viewer": ""}, "an operator needs a role"),
        ({"name": "Dee D"}, "is not an identifier"),
        ({"reason": ""}, "say why"),
    ):
        assert text in await admin.send("/accounts", "/accounts/add", **(base | change))
    assert await accounts_of(web) == []


async def test_a_token_is_issued_and_revoked_and_an_account_removed(web: Site) -> None:
    token = await web.operator("vic", Role.VIEWER)
    vic, admin = await signed_in(web, token), await signed_in(web)
    said = await admin.send("/accounts", "/accounts/vic/token", days="3", reason="lost the other")
    second = await signed_in(web, said.rpartition(" ")[2])
    assert (await second.get("/rollouts")).status_code == 200
    number = token.split("_")[2]
    said = await admin.send("/accounts", f"/tokens/{number}/revoke")
    assert said == f"Done. Token {number} of vic opens nothing any more."
    assert (await vic.get("/rollouts")).headers["location"] == "/login?next=/rollouts"
    assert (await second.get("/rollouts")).status_code == 200
    said = await admin.send("/accounts", "/accounts/vic/remove", reason="has left")
    assert said == "Done. vic was removed, with all its tokens."
    assert (await second.get("/rollouts")).status_code == 303


async def test_who_approves_is_removed_with_an_approval(web: Site) -> None:
    _, adam = await two_who_approve(web)
    said = await adam.send("/accounts", "/accounts/ben/remove", reason="has left")
    assert said.startswith("Waits for approval. proposal 1 waits for others: removing the operator ben")
    assert await accounts_of(web) == ["adam", "ben"]


async def test_only_who_manages_sees_accounts(web: Site) -> None:
    vic = await as_(web, "vic", Role.VIEWER)
    assert (await vic.get("/accounts")).status_code == 403
    assert 'href="/accounts"' not in (await vic.get("/")).text
    fields = {"csrf": (await vic.form("/", "/logout"))["csrf"], "key": once.fresh(), "reason": "x"}
    assert (await vic.http.post("/accounts/vic/remove", data=fields)).status_code == 303
    assert "vic may not manage operators" in (await vic.get("/")).text
    assert await accounts_of(web) == ["vic"]


async def test_a_review_is_closed_by_another_person_once(web: Site) -> None:
    ben, _ = await two_who_approve(web)

    def broken(tx: Tx) -> None:
        wish = Wish(Caller("root@local", "", SHARED, local=True), break_glass="no time")
        operators.add(tx, NewOperator("eve", "eve", (Role.ADMIN,), 3), wish, Rules(), web.plant.clock())

    await web.plant.write(broken)
    number = (await web.plant.store.read(lambda tx: tx.open_reviews()))[0].id
    shared = (await (await signed_in(web)).get("/approvals")).text
    assert "Another person closes it" in shared
    action = f"/reviews/{number}/close"
    fields = await ben.form("/approvals", action)
    assert "say why" in await ben.submit(action, fields | {"reason": " "})
    assert await ben.submit(action, fields | {"reason": "it was right"}) == f"Done. Review {number} is closed."
    assert "close was done already" in await ben.submit(action, fields | {"reason": "it was right"})
    assert await web.plant.store.read(lambda tx: tx.open_reviews()) == []


async def test_artifacts_tell_what_is_known_of_them(web: Site) -> None:
    browser = await signed_in(web)
    assert "None was imported yet." in (await browser.get("/artifacts")).text
    sha256 = await web.release()
    text = (await browser.get("/artifacts")).text
    assert sha256 in text
    assert "radio-2" in text
    assert "4.9\u202fKiB" in text
    assert "Its statement declares no format" in text


async def test_a_list_of_years_is_a_page_that_is_there_at_once(web: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollouts_module, "MOST_OVER", 2)
    monkeypatch.setattr(artifacts_view, "MOST", 2)
    for rel in (2, 3, 4):
        await web.release(b"image %d" % rel, rel=rel)
        await web.ops("POST", "/rollouts", PLAN | {"name": f"over-{rel}", "release": f"radio-{rel}"})
        await web.ops("POST", f"/rollouts/over-{rel}/abort", {"reason": "a test"})
    await web.ops("POST", "/rollouts", PLAN | {"name": "draft"})
    browser = await signed_in(web)
    text = (await browser.get("/rollouts")).text
    assert re.findall(r'href="/rollouts/([\w-]+)"', text) == ["draft", "over-4", "over-3"]
    assert "and 1 older ones that are over; <code>ota rollout list</code>" in text
    text = (await browser.get("/artifacts")).text
    assert "and 1 older ones; <code>ota release list</code>" in text
    assert "and 1 older ones; <code>ota artifact list</code>" in text


async def test_keys_tell_their_end(web: Site) -> None:
    text = (await (await signed_in(web)).get("/keys")).text
    for key in web.plant.keyring.keyset.keys.values():
        assert f"<code>{key.kid}</code>" in text
    assert "None is watched" in text


async def test_the_audit_log_is_shown_newest_first_and_filtered(web: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "PAGE", 3)
    await web.release()
    for name in ("d1", "d2", "d3"):
        await web.enrol(name)
    browser = await signed_in(web)
    first = (await browser.get("/audit")).text
    numbers = [int(n) for n in re.findall(r'<td class="num soft">(\d+)</td>', first)]
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) == 3
    assert "form one chain" in first
    older = re.search(r'href="(/audit\?before=\d+)"', first)
    assert older is not None
    second = (await browser.get(older[1])).text
    assert max(int(n) for n in re.findall(r'<td class="num soft">(\d+)</td>', second)) == min(numbers) - 1
    only = (await browser.get("/audit?action=release.")).text
    assert "radio-2" in only
    assert "devices.enrolled" not in only
    assert "No entry is like this." in (await browser.get("/audit?actor=nobody")).text
    assert (await browser.get("/audit?before=-1")).status_code == 400


async def test_the_whole_log_is_exported_as_it_was_hashed(web: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "_EXPORTED_AT_ONCE", 2)
    await web.release()
    await web.enrol("d1")
    answer = await (await signed_in(web)).get("/audit/export")
    assert answer.headers["content-disposition"] == 'attachment; filename="audit.ndjson"'
    lines = [json.loads(line) for line in answer.text.splitlines()]
    head = await web.plant.store.read(lambda tx: tx.audit_head())
    assert (lines[-1]["n"], lines[-1]["hash"]) == (head.n, head.hash)
    assert len(lines) == head.n
    for line in lines:
        said = (line[name] for name in ("prev", "n", "at", "actor", "action", "object", "detail"))
        assert digest(*said) == line["hash"]
