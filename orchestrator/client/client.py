"""The operations of the operator API, one method each, named as in its document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from orchestrator.client import answers
from orchestrator.client.paths import path_of
from orchestrator.client.transport import Transport

Item = TypeVar("Item")


class Client:
    """Asks one daemon. Use it in a `with` block, or close it.

    Every method raises `RefusedError` if the daemon refuses, `UnreachableError` if it does not answer and
    `ForeignError` if it is another program. A method that is an act takes `key`: who calls again with the same one
    within a day gets the same answer, and nothing is done again. Without one, each call is a new act.

    Args:
        transport: the way there.
    """

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.transport.close()

    def get_status(self) -> answers.Status:
        """Return how the daemon is."""
        found: answers.Status = self._get("/status")
        return found

    def listen(self, last_id: str = "") -> Iterator[tuple[str, str, Any]]:
        """Yield (id, kind, data) of what changes, until the daemon ends it; begin again with the last id."""
        return self.transport.events(last_id)

    def import_artifact(self, uri: str) -> answers.Artifact:
        """Import an artifact; to import it again changes nothing."""
        made: answers.Artifact = self._post("/artifacts", {"uri": uri})
        return made

    def list_artifacts(self, uri: str = "") -> Iterator[answers.Artifact]:
        """Yield artifacts, newest first: all, or those that lie at this address."""
        return self._all("/artifacts", {"uri": uri or None})

    def get_artifact(self, sha256: str) -> answers.ArtifactDetail:
        """Return all that is known of an artifact, named by its hash or enough of the beginning of it."""
        found: answers.ArtifactDetail = self._get(path_of("artifacts", sha256))
        return found

    def create_release(self, name: str, artifacts: Sequence[str], *, key: str | None = None) -> answers.Release:
        """Make a release of artifacts, named by their hashes."""
        made: answers.Release = self._post("/releases", {"name": name, "artifacts": list(artifacts)}, key)
        return made

    def list_releases(self) -> Iterator[answers.Release]:
        """Yield all releases, newest first."""
        return self._all("/releases")

    def enrol_devices(self, devices: Sequence[Mapping[str, Any]], *, key: str | None = None) -> dict[str, str]:
        """Enrol devices or renew their tokens; returns the tokens, which are shown this once."""
        made: answers.Tokens = self._post("/devices", {"devices": list(devices)}, key)
        return made["tokens"]

    def list_devices(self, where: str = "", *, quarantined: bool = False) -> Iterator[answers.Device]:
        """Yield the devices that a selector means, in the order of their identifiers."""
        query = {"limit": 1000, "where": where or None, "quarantined": "true" if quarantined else None}
        return self._all("/devices", query)

    def get_device(self, device_id: str) -> answers.DeviceWithUpdates:
        """Return a device and its updates."""
        found: answers.DeviceWithUpdates = self._get(path_of("devices", device_id))
        return found

    def explain_device(self, device_id: str) -> answers.DeviceExplanation:
        """Return why a device has or has not each release."""
        found: answers.DeviceExplanation = self._get(path_of("devices", device_id, "explain"))
        return found

    def change_facts(
        self, devices: Sequence[Mapping[str, Any]], *, key: str | None = None, if_match: str = ""
    ) -> list[str]:
        """Change what is said of devices; returns those that are different now."""
        done: answers.ChangedDevices = self._post("/devices/facts", {"devices": list(devices)}, key, if_match)
        return done["changed"]

    def quarantine_devices(self, devices: Sequence[str], reason: str, *, key: str | None = None) -> int:
        """Leave devices out of all rollouts; returns how many were not left out before."""
        done: answers.Count = self._post("/devices/quarantine", {"devices": list(devices), "reason": reason}, key)
        return done["changed"]

    def release_devices(self, devices: Sequence[str], reason: str, *, key: str | None = None) -> int:
        """Let devices back; returns how many were left out before."""
        done: answers.Count = self._post("/devices/release", {"devices": list(devices), "reason": reason}, key)
        return done["changed"]

    def create_rollout(self, plan: Mapping[str, Any], *, key: str | None = None) -> answers.NewRollout:
        """Make a rollout in draft, of a plan as its file has it."""
        made: answers.NewRollout = self._post("/rollouts", plan, key)
        return made

    def list_rollouts(self, phases: Sequence[answers.Phase] = (), name: str = "") -> Iterator[answers.RolloutLine]:
        """Yield rollouts, newest first: all, or those in one of these phases, or with this in their names."""
        return self._all("/rollouts", {"phase": list(phases), "name": name or None})

    def get_rollout(self, name: str) -> answers.Rollout:
        """Return a rollout with its stages and evidence."""
        found: answers.Rollout = self._get(path_of("rollouts", name))
        return found

    def mark_of_rollout(self, name: str) -> str:
        """Return the mark of a rollout as it is now, for `if_match`."""
        return self.transport.get(path_of("rollouts", name)).mark

    def explain_rollout(self, name: str) -> answers.RolloutExplanation:
        """Return why a rollout stands where it stands, and what would change that."""
        found: answers.RolloutExplanation = self._get(path_of("rollouts", name, "explain"))
        return found

    def get_curve(self, name: str) -> answers.Curve:
        """Return how many devices were offered the release and are protected, over time."""
        found: answers.Curve = self._get(path_of("rollouts", name, "curve"))
        return found

    def preview_plan(self, plan: Mapping[str, Any]) -> Iterator[answers.PreviewLine]:
        """Yield the counts of a plan, then each device with its stage or why it is left out."""
        return self.transport.lines("POST", "/rollouts/preview", plan)

    def preview_rollout(self, name: str) -> Iterator[answers.PreviewLine]:
        """Yield the counts of a draft, then each device with its stage or why it is left out."""
        return self.transport.lines("GET", path_of("rollouts", name, "preview"))

    def move_rollout(
        self,
        name: str,
        command: answers.Command,
        reason: str = "",
        *,
        break_glass: str = "",
        key: str | None = None,
        if_match: str = "",
    ) -> answers.Moved:
        """Carry out a command; `RefusedError` with a `proposal` if others must approve it first."""
        body = {"reason": reason, "break_glass": break_glass}
        done: answers.Moved = self._post(path_of("rollouts", name, command), body, key, if_match)
        return done

    def edit_plan(
        self,
        name: str,
        plan: Mapping[str, Any],
        reason: str = "",
        *,
        expect: int | None = None,
        dry_run: bool = False,
        break_glass: str = "",
        key: str | None = None,
        if_match: str = "",
    ) -> answers.Edited:
        """Give a rollout another plan, or say what that would make different."""
        body = {"plan": plan, "reason": reason, "expect": expect, "dry_run": dry_run, "break_glass": break_glass}
        done: answers.Edited = self._post(path_of("rollouts", name, "edit"), body, key, if_match)
        return done

    def roll_back(
        self, name: str, reason: str, *, to: str | None = None, new_name: str | None = None, key: str | None = None
    ) -> answers.Rollout:
        """Make the draft of a rollout that takes the devices of this one back to an earlier release."""
        body = {"to": to, "name": new_name, "reason": reason}
        made: answers.Rollout = self._post(path_of("rollouts", name, "rollback"), body, key)
        return made

    def list_plan_versions(self, name: str) -> Iterator[answers.PlanVersion]:
        """Yield the versions of a plan, oldest first."""
        return self._all(path_of("rollouts", name, "history"))

    def draft_warrant(self, name: str, days: int = 7) -> answers.Warrant:
        """Return the claims that cosigners must sign for a rollout."""
        found: answers.Warrant = self._get(path_of("rollouts", name, "warrant"), {"days": days})
        return found

    def submit_warrant(self, name: str, lines: str, *, key: str | None = None) -> answers.Warrant:
        """Store the warrant of a rollout."""
        made: answers.Warrant = self._post(path_of("rollouts", name, "warrant"), {"lines": lines}, key)
        return made

    def count_exposed(self, *, rollout: str = "", advisory: str = "", below: int | None = None) -> answers.Exposure:
        """Count who still runs a vulnerable version; exactly one of the three says which that is."""
        found: answers.Exposure = self._get("/exposed", _exposed(rollout, advisory, below))
        return found

    def list_exposed(
        self, *, rollout: str = "", advisory: str = "", below: int | None = None
    ) -> Iterator[answers.ExposedDevice]:
        """Yield these devices, and those of which nobody knows."""
        return self.transport.lines("GET", "/exposed/devices", query=_exposed(rollout, advisory, below))

    def count_endpoints(self) -> answers.Endpoints:
        """Count devices by the endpoints that they go by."""
        found: answers.Endpoints = self._get("/endpoints")
        return found

    def list_approvals(self, limit: int = 50) -> answers.Approvals:
        """Return the newest proposals, and the reviews that are open."""
        found: answers.Approvals = self._get("/approvals", {"limit": limit})
        return found

    def get_approval(self, number: int) -> answers.Proposal:
        """Return a proposal with what was said to it."""
        found: answers.Proposal = self._get(path_of("approvals", str(number)))
        return found

    def approve(self, number: int, reason: str, *, key: str | None = None) -> answers.Proposal:
        """Approve what another person proposed."""
        done: answers.Proposal = self._post(path_of("approvals", str(number), "approve"), {"reason": reason}, key)
        return done

    def reject(self, number: int, reason: str, *, key: str | None = None) -> answers.Proposal:
        """Reject what was proposed; that ends it."""
        done: answers.Proposal = self._post(path_of("approvals", str(number), "reject"), {"reason": reason}, key)
        return done

    def close_review(self, number: int, reason: str, *, key: str | None = None) -> answers.Review:
        """Close the review of what another person did without approvals."""
        done: answers.Review = self._post(path_of("reviews", str(number), "close"), {"reason": reason}, key)
        return done

    def list_operators(self) -> Iterator[answers.Operator]:
        """Yield accounts with what is kept of their tokens."""
        return self._all("/operators")

    def add_operator(
        self,
        name: str,
        person: str,
        roles: Sequence[str],
        days: int = 90,
        *,
        reason: str = "",
        break_glass: str = "",
        key: str | None = None,
    ) -> answers.NewToken:
        """Add an account; its first token is shown this once."""
        body = {"name": name, "person": person, "roles": list(roles), "days": days}
        made: answers.NewToken = self._post("/operators", body | {"reason": reason, "break_glass": break_glass}, key)
        return made

    def issue_token(
        self, name: str, days: int = 90, *, reason: str = "", break_glass: str = "", key: str | None = None
    ) -> answers.NewToken:
        """Issue one more token to an account; it is shown this once."""
        body = {"days": days, "reason": reason, "break_glass": break_glass}
        made: answers.NewToken = self._post(path_of("operators", name, "tokens"), body, key)
        return made

    def remove_operator(
        self, name: str, *, reason: str = "", break_glass: str = "", key: str | None = None
    ) -> answers.Removed:
        """Remove an account with all its tokens."""
        body = {"reason": reason, "break_glass": break_glass}
        done: answers.Removed = self._post(path_of("operators", name, "remove"), body, key)
        return done

    def revoke_token(self, token_id: str, *, key: str | None = None) -> answers.Token:
        """End a token."""
        done: answers.Token = self._post(path_of("tokens", token_id, "revoke"), {}, key)
        return done

    def get_keyset(self) -> answers.Keyset:
        """Return the keys that devices hold by now."""
        found: answers.Keyset = self._get("/keyset")
        return found

    def submit_keyset(
        self, lines: str, reason: str = "", *, break_glass: str = "", force: bool = False, key: str | None = None
    ) -> answers.TakenKeyset:
        """Take the keyset that follows the present one; devices get it at once."""
        body = {"lines": lines, "reason": reason, "break_glass": break_glass, "force": force}
        made: answers.TakenKeyset = self._post("/keyset", body, key)
        return made

    def list_audit(self, after: int = 0) -> Iterator[answers.Entry]:
        """Yield the entries of the audit log in their order."""
        return self._all("/audit", {"after": after, "limit": 1000})

    def list_sealed(self, first: int, last: int) -> Iterator[tuple[int, str]]:
        """Yield (seq, token hash) of the sealed deliveries in a range, in order of seq."""
        pages: Iterator[list[int | str]] = self._all("/audit/sealed", {"first": first, "last": last})
        return ((int(seq), str(token_hash)) for seq, token_hash in pages)

    def _get(self, path: str, query: Mapping[str, object] | None = None) -> Any:
        return self.transport.get(path, query).body

    def _post(self, path: str, body: object, key: str | None = None, if_match: str = "") -> Any:
        return self.transport.post(path, body, key=key, if_match=if_match).body

    def _all(self, path: str, query: Mapping[str, object] | None = None) -> Iterator[Any]:
        for page in self.transport.pages(path, query):
            yield from page.body


def _exposed(rollout: str, advisory: str, below: int | None) -> dict[str, object]:
    return {"rollout": rollout or None, "advisory": advisory or None, "below": below}
