"""What may be done on the page of a rollout: once, by who may, with a reason, and approved where that is needed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.core.model import UpdateState
from orchestrator.core.trust.roles import Role
from tests.web.pages.visits import Visit, notice, signed_in, staged, visit
from tests.web.site import Site

PAGE = "/rollouts/spring"


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Site]:
    async with staged(tmp_path) as running:
        yield running


async def phase(web: Site) -> str:
    found = await web.plant.store.read(lambda tx: tx.rollout_named("spring"))
    assert found is not None
    return found.phase.value


async def done(web: Site, code: str) -> list[str]:
    """Return who did this to the rollout while its first stage was open, as its record has it."""
    events = await web.plant.store.read(lambda tx: tx.events(1))
    return [item.actor for item in events if item.code == code and item.stage == 0]


async def as_(web: Site, name: str, *roles: Role) -> Visit:
    return await signed_in(web, await web.operator(name, *roles))


async def test_the_page_says_where_it_stands_and_what_may_be_done(web: Site) -> None:
    text = (await (await as_(web, "ann", Role.OPERATOR)).get(PAGE)).text
    assert "spring" in text
    assert "2 of 2 devices have not given their evidence yet." in text
    for word in ("pause", "halt", "abort", "retry", "advance", "skip"):
        assert f'action="{PAGE}/{word}"' in text
    assert f'action="{PAGE}/resume"' not in text
    assert "halts at" in text


async def test_an_act_is_done_and_said(web: Site) -> None:
    browser = await as_(web, "ann", Role.OPERATOR)
    assert await browser.send(PAGE, f"{PAGE}/pause", reason="lunch") == "Done. Pause: spring is paused now."
    assert await phase(web) == "paused"
    assert await done(web, "operator_pause") == ["ann"]
    assert "lunch" in (await browser.get(PAGE)).text
    assert "Pause: spring" not in (await browser.get(PAGE)).text


async def test_pressing_twice_acts_once(web: Site) -> None:
    browser = await as_(web, "ann", Role.OPERATOR)
    await browser.send(PAGE, f"{PAGE}/pause")
    web.plant.clock.advance(5)
    fields = await browser.form(PAGE, f"{PAGE}/resume")
    sent = [browser.http.post(f"{PAGE}/resume", data=fields) for _ in range(2)]
    assert [answer.status_code for answer in await asyncio.gather(*sent)] == [303, 303]
    assert await done(web, "operator_resume") == ["ann"]


async def test_an_old_page_passes_no_second_stage(web: Site) -> None:
    browser = await as_(web, "ann", Role.OPERATOR)
    action = f"{PAGE}/skip"
    fields = await browser.form(PAGE, action) | {"reason": "the lab saw enough"}
    web.plant.clock.advance(5)
    assert await browser.submit(action, fields) == "Done. Skip: spring is running now."
    web.plant.clock.advance(5)
    await web.plant.conductor.advance(1)
    assert "skip was done already, at " in await browser.submit(action, fields)
    assert await done(web, "operator_skip") == ["ann"]


async def test_what_moved_on_meanwhile_is_left_alone(web: Site) -> None:
    browser, other = await as_(web, "ann", Role.OPERATOR), await as_(web, "dee", Role.OPERATOR)
    fields = await browser.form(PAGE, f"{PAGE}/advance") | {"reason": "go"}
    web.plant.clock.advance(5)
    await other.send(PAGE, f"{PAGE}/pause")
    web.plant.clock.advance(5)
    await other.send(PAGE, f"{PAGE}/resume")
    said = await browser.submit(f"{PAGE}/advance", fields)
    assert said.startswith("Not done. spring moved on after this page was made, so nothing was done; it is running")
    assert await done(web, "operator_advance") == []


async def test_what_is_sent_again_after_its_answer_was_lost_is_done_once(web: Site) -> None:
    token = await web.operator("ann", Role.OPERATOR)
    browser = await signed_in(web, token)
    await browser.send(PAGE, f"{PAGE}/pause")
    web.plant.clock.advance(5)
    fields = await browser.form(PAGE, f"{PAGE}/resume")
    await browser.submit(f"{PAGE}/resume", fields)  # it was done; the answer never came
    web.plant.clock.advance(5)
    again = await signed_in(web, token)
    mine = await again.form(PAGE, f"{PAGE}/pause")
    said = await again.submit(f"{PAGE}/resume", fields | {"csrf": mine["csrf"]})
    assert said.startswith("Not done. resume was done already, at ")
    assert await done(web, "operator_resume") == ["ann"]


async def test_to_stop_needs_no_fresh_page(web: Site) -> None:
    browser = await as_(web, "ann", Role.APPROVER)
    fields = await browser.form(PAGE, f"{PAGE}/halt")
    assert "halted now" in await browser.submit(f"{PAGE}/halt", fields | {"seen": "old"})
    assert await phase(web) == "halted"


async def test_a_form_without_the_secret_of_its_session_changes_nothing(web: Site) -> None:
    browser, other = await as_(web, "ann", Role.OPERATOR), await as_(web, "dee", Role.OPERATOR)
    fields = await browser.form(PAGE, f"{PAGE}/pause")
    stranger = (await other.form(PAGE, f"{PAGE}/pause"))["csrf"]
    for secret in ("", "wrong", stranger):
        answer = await browser.http.post(f"{PAGE}/pause", data=fields | {"csrf": secret})
        assert answer.status_code == 403
    away = (await visit(web).http.post(f"{PAGE}/pause", data=fields)).headers["location"]
    assert away == f"/login?next={PAGE}&tried={fields['key']}"
    assert await phase(web) == "running"


async def test_a_page_lets_nobody_do_more_than_the_api(web: Site) -> None:
    browser = await as_(web, "vic", Role.VIEWER)
    text = (await browser.get(PAGE)).text
    assert f'action="{PAGE}/pause"' not in text
    assert "To pause and halt rollouts takes the role operator or approver or admin." in text
    secret = (await browser.form(PAGE, "/logout"))["csrf"]
    said = await browser.submit(f"{PAGE}/pause", {"csrf": secret})
    assert said == "Not done. vic may not pause and halt rollouts; that takes the role operator or approver or admin"
    assert await phase(web) == "running"


async def test_a_missing_reason_is_said(web: Site) -> None:
    browser = await as_(web, "ann", Role.OPERATOR)
    assert "it needs a reason" in await browser.send(PAGE, f"{PAGE}/skip")
    assert "at most 500 characters" in await browser.send(PAGE, f"{PAGE}/pause", reason="x" * 501)
    assert "it needs a reason" in await browser.submit(f"{PAGE}/rollback", await browser.form(PAGE, f"{PAGE}/pause"))


async def test_what_two_persons_must_agree_on_is_proposed_and_approved_on_the_page(web: Site) -> None:
    ann, ben = await as_(web, "ann", Role.OPERATOR), await as_(web, "ben", Role.APPROVER)
    await as_(web, "cleo", Role.APPROVER)
    await ann.send(PAGE, f"{PAGE}/halt", reason="smoke")
    web.plant.clock.advance(5)
    said = await ann.send(PAGE, f"{PAGE}/resume", reason="it was the kettle")
    assert said.startswith("Waits for approval. proposal 1 waits for others: resume of spring")
    assert 'action="/approvals/1/approve"' not in (await ann.get(PAGE)).text
    assert "You proposed this" in (await ann.get(PAGE)).text
    vote = "/approvals/1/approve"
    assert "say why" in await ben.send(PAGE, vote)
    assert await ben.send(PAGE, vote, reason="I smelled it") == "Done. Proposal 1 is approved now."
    assert "Resume (approved)" in (await ann.get(PAGE)).text
    assert await ann.send(PAGE, f"{PAGE}/resume", reason="it was the kettle") == (
        "Done. Resume: spring is running now."
    )
    record = (await ann.get(PAGE)).text
    assert "I smelled it" in record


async def test_a_rejection_ends_a_proposal(web: Site) -> None:
    ann, ben = await as_(web, "ann", Role.OPERATOR), await as_(web, "ben", Role.APPROVER)
    await as_(web, "cleo", Role.APPROVER)
    await ann.send(PAGE, f"{PAGE}/skip", reason="hurry")
    fields = await ben.form(PAGE, "/approvals/1/approve") | {"reason": "no"}
    assert await ben.submit("/approvals/1/reject", fields) == "Done. Proposal 1 is rejected now."
    assert 'action="/approvals/1/approve"' not in (await ben.get(PAGE)).text


async def test_proposals_that_were_decided_bury_none_that_waits(web: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.web.pages.approvals.MOST", 1)
    monkeypatch.setattr("orchestrator.web.pages.fleet._MOST_PROPOSALS", 1)
    ann, ben = await as_(web, "ann", Role.OPERATOR), await as_(web, "ben", Role.APPROVER)
    await as_(web, "cleo", Role.APPROVER)
    await ann.send(PAGE, f"{PAGE}/skip", reason="hurry")
    await ann.send(PAGE, f"{PAGE}/halt", reason="smoke")
    await ann.send(PAGE, f"{PAGE}/resume", reason="it was the kettle")
    fields = await ben.form(PAGE, "/approvals/2/approve") | {"reason": "no"}
    assert await ben.submit("/approvals/2/reject", fields) == "Done. Proposal 2 is rejected now."
    assert 'action="/approvals/1/approve"' in (await ben.get("/approvals")).text
    assert "Proposal 1 waits" in (await ben.get("/")).text


async def test_who_approves_and_then_rejects_is_told_which_was_done(web: Site) -> None:
    """Both buttons belong to one form, which is done once."""
    ann, token = await as_(web, "ann", Role.OPERATOR), await web.operator("ben", Role.APPROVER)
    ben = await signed_in(web, token)
    await as_(web, "cleo", Role.APPROVER)
    await ann.send(PAGE, f"{PAGE}/skip", reason="hurry")
    fields = await ben.form(PAGE, "/approvals/1/approve") | {"reason": "yes"}
    assert await ben.submit("/approvals/1/approve", fields) == "Done. Proposal 1 is approved now."
    said = await ben.submit("/approvals/1/reject", fields)
    assert said.startswith("Not done. approve was done already, at ")
    assert said.endswith(", and reject was not done")
    await ben.http.post("/login", data={"token": token, "next": PAGE, "tried": fields["key"]})
    assert "What you sent last (approve) was carried out, once, at " in notice((await ben.get(PAGE)).text)


async def test_a_reason_with_many_lines_is_as_long_as_it_was_written(web: Site) -> None:
    """Browsers send two characters for the end of a line, and count one."""
    browser = await as_(web, "ann", Role.OPERATOR)
    reason = "\n".join(["smoke"] * 83)
    assert len(reason) == 497
    sent = reason.replace("\n", "\r\n")
    assert (await browser.send(PAGE, f"{PAGE}/pause", reason=sent)).startswith("Done.")
    events = await web.plant.store.read(lambda tx: tx.events(1))
    assert reason in [item.text for item in events]


async def test_what_somebody_wrote_turns_no_other_words_around(web: Site) -> None:
    browser = await as_(web, "ann", Role.OPERATOR)
    await browser.send(PAGE, f"{PAGE}/pause", reason="\u202eenod si ti")
    assert '<bdi>\u202eenod si ti</bdi> <span class="soft">— ann</span>' in (await browser.get(PAGE)).text


async def test_who_may_not_act_reads_why(web: Site) -> None:
    text = (await (await as_(web, "vic", Role.VIEWER)).get(PAGE)).text
    assert '<p class="soft small">To pause and halt rollouts takes the role ' in text


async def test_a_rollback_that_cannot_be_says_why(web: Site) -> None:
    browser = await as_(web, "ann", Role.OPERATOR)
    await browser.send(PAGE, f"{PAGE}/halt", reason="smoke")
    said = await browser.send(PAGE, f"{PAGE}/rollback", reason="back")
    assert said.startswith("Not done. there is no release before radio-2")


async def test_an_act_that_is_none_is_not_there(web: Site) -> None:
    browser = await as_(web, "ann", Role.OPERATOR)
    secret = (await browser.form(PAGE, "/logout"))["csrf"]
    assert await browser.submit(f"{PAGE}/explode", {"csrf": secret}) == "Not done. there is no such act"


async def test_the_evidence_is_drawn_and_told(web: Site) -> None:
    updates = await web.plant.store.read(lambda tx: tx.updates_in(1, [UpdateState.OFFERED]))
    web.plant.clock.advance(60)
    await web.plant.confirm(updates)
    text = (await (await as_(web, "ann", Role.VIEWER)).get(PAGE)).text
    assert re.search(r'aria-label="stage 1: 2 healthy"', text)
    assert "E of all devices over time" in text


@pytest.mark.parametrize(("word", "told"), [("skip", "Stage 1 skipped"), ("advance", "Stage 1 passed by a person")])
async def test_what_a_person_passed_is_told_once_with_who_and_why(web: Site, word: str, told: str) -> None:
    browser = await as_(web, "ann", Role.OPERATOR)
    assert "spring is running now" in await browser.send(PAGE, f"{PAGE}/{word}", reason="the lab saw it")
    await web.plant.conductor.advance(1)
    found = await web.plant.store.read(lambda tx: tx.rollout_named("spring"))
    assert found is not None
    assert found.stage == 1
    text = (await browser.get(PAGE)).text
    timeline = text[text.index('<h2 id="timeline">') :]
    assert (timeline.count(told), timeline.count("the lab saw it"), timeline.count("— ann")) == (1, 1, 1)
    assert timeline.count("<li") == 4


async def test_the_end_that_a_person_brought_is_told_as_the_end(web: Site) -> None:
    browser = await as_(web, "ann", Role.OPERATOR)
    await browser.send(PAGE, f"{PAGE}/skip", reason="the lab saw it")
    for _ in range(2):  # not all have a slot at once
        await web.plant.conductor.advance(1)
        await web.plant.confirm(await web.plant.store.read(lambda tx: tx.updates_in(1, [UpdateState.OFFERED])))
    said = await browser.send(PAGE, f"{PAGE}/advance", reason="the lab saw it again")
    assert said.startswith("Done. Advance: ")
    await web.plant.conductor.advance(1)
    assert await phase(web) == "done"
    timeline = (await browser.get(PAGE)).text.partition('<h2 id="timeline">')[2]
    assert re.findall(r"<b>(Stage 2 [^<]*|Done)</b>", timeline) == ["Done", "Stage 2 passed by a person"]
