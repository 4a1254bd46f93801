"""What the engine needs from outside, as protocols.

Rules:
- A port speaks core and wire words only; no library type crosses it.
- Every port has one contract suite in `tests/contract` that runs on each implementation.
- Not ports, on purpose: the clock (a callable), randomness (a keyed hash), logging.
"""

from orchestrator.ports.acts import Addition, Answers, Kept
from orchestrator.ports.artifacts import ArtifactSource, Found, Locator
from orchestrator.ports.audit import AuditLog, Pinned, Witness
from orchestrator.ports.bus import Bus, Message
from orchestrator.ports.events import Poster, Reply, Webhook, Webhooks, WebhookState
from orchestrator.ports.insight import Alike, Insight, Kin, Milestone, Ran, Shown, Sign
from orchestrator.ports.operators import Approvals, Operator, Operators, Review, Token
from orchestrator.ports.records import (
    EXPOSED,
    QUEUED,
    DeliveryKind,
    DeliveryState,
    Event,
    Line,
    Parcel,
    PlanVersion,
    Queue,
)
from orchestrator.ports.signer import Signer
from orchestrator.ports.store import Catalogue, Lane, Outbox, Registry, Result, Rollouts, Store, Tx, Updates
from orchestrator.ports.surroundings import Asker, Surroundings
from orchestrator.ports.times import Jump, Part, Piece, Times
from orchestrator.ports.touched import Touched, Watched

__all__ = [
    "Addition",
    "Alike",
    "Answers",
    "Approvals",
    "ArtifactSource",
    "Asker",
    "AuditLog",
    "Bus",
    "Catalogue",
    "DeliveryKind",
    "DeliveryState",
    "EXPOSED",
    "Event",
    "Found",
    "Insight",
    "Jump",
    "Kin",
    "Kept",
    "Lane",
    "Line",
    "Locator",
    "Message",
    "Milestone",
    "Operator",
    "Operators",
    "Outbox",
    "Parcel",
    "Part",
    "Piece",
    "Pinned",
    "PlanVersion",
    "Poster",
    "QUEUED",
    "Queue",
    "Ran",
    "Registry",
    "Reply",
    "Result",
    "Review",
    "Rollouts",
    "Shown",
    "Sign",
    "Signer",
    "Store",
    "Surroundings",
    "Times",
    "Token",
    "Touched",
    "Tx",
    "Updates",
    "Watched",
    "Webhook",
    "WebhookState",
    "Webhooks",
    "Witness",
]
