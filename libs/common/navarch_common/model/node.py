"""The node record: identity, phase, cordons, launch, instance, drain. Written by the provisioner alone."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from navarch_common.ids import Id
from navarch_common.model.base import (
    Actor,
    Code,
    Count,
    Dollars,
    Family,
    Generation,
    Name,
    Reason,
    Record,
    Revision,
    Sequence,
    Text,
    TraceParent,
)
from navarch_common.model.gpu import Gpus
from navarch_common.model.wish import Answers


class Phase(StrEnum):
    """Where a node is in its life. `TERMINATING` is committed before the cloud call and never left but for `TERMINATED`."""

    PLANNED = "planned"
    LAUNCHING = "launching"
    LAUNCH_UNKNOWN = "launch_unknown"
    """The launch call's outcome is not known: looked up by tag before anything else is tried."""
    LAUNCH_FAILED = "launch_failed"
    BOOTING = "booting"
    REGISTRATION_TIMEOUT = "registration_timeout"
    VALIDATING = "validating"
    ACTIVE = "active"
    DRAINING = "draining"
    REPAIRING = "repairing"
    QUARANTINED = "quarantined"
    TERMINATING = "terminating"
    TERMINATED = "terminated"


ENDED = frozenset({Phase.TERMINATED, Phase.LAUNCH_FAILED})
"""Nothing runs and nothing is paid."""
COMING = frozenset({Phase.PLANNED, Phase.LAUNCHING, Phase.LAUNCH_UNKNOWN, Phase.BOOTING, Phase.VALIDATING})
"""On its way to being usable. Counted as supply, once."""
LEAVING = frozenset({Phase.TERMINATING, Phase.REGISTRATION_TIMEOUT})
"""On its way out, never to return."""


class Cordon(Struct, frozen=True, kw_only=True):
    """No new work here, says one holder. A node is cordoned while any cordon stands; each holder lifts only its own."""

    reason: Text
    at: datetime


CordonHolder = Annotated[str, Meta(max_length=128)]
"""`operator:NAME`, `health`, `maintenance`, `roll`, `warm`, `scale-down`."""


class LaunchRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a provider is asked for. Frozen in the record before the first call, so that every retry is the same call."""

    node: Id
    pool: Id
    cluster: Id
    installation: Name
    generation: Generation
    provider: Id
    """The provider's name in the configuration."""
    instance_type: Name
    region: Name = ""
    zone: Name = ""
    token: Name
    """The idempotency token, also the intent tag: the same token means the same machine."""
    labels: dict[str, str] = {}
    agent_env: dict[str, str] = {}
    """Environment of the machine's agent: where its servers are and who it is. No secrets."""


class Launch(Struct, frozen=True, kw_only=True, omit_defaults=True):
    request: LaunchRequest
    attempt: Count = 1
    intended_at: datetime
    called_at: datetime | None = None
    deadline: datetime
    """By then the agent has registered, or the node is a registration timeout."""
    error: Text = ""
    error_code: Code = "none"


class ProviderState(StrEnum):
    """What a provider says of a machine."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    GONE = "gone"
    """The provider says, completely and by id, that it no longer exists."""
    UNKNOWN = "unknown"
    """It could not be asked, or its answer could not be trusted."""


class Instance(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The machine that a node runs on, as its provider tells it."""

    provider: Id
    instance_id: Name
    """The cloud's id."""
    provider_id: Name
    """Ours, minted with the node: `navarch://<cluster>/<node>`; what Kubernetes knows it by."""
    instance_type: Name = ""
    region: Name = ""
    zone: Name = ""
    address: Name = ""
    price_per_hour: Dollars | None = None
    state: ProviderState = ProviderState.PENDING
    state_at: datetime
    """When the provider last said so."""
    launched_at: datetime


class Registration(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the agent said of itself when it registered: the latest, one per boot."""

    at: datetime
    boot_id: Name
    generation: Generation
    hostname: Name = ""
    addresses: Annotated[tuple[Name, ...], Meta(max_length=32)] = ()
    kernel: Name = ""
    agent_version: Name = ""
    driver: Name = ""
    """GPU driver version; empty when there is none or it does not answer."""
    driver_state: Name = "unknown"
    """`ok`, `missing`, `hung` or `unknown`."""
    gpus: Gpus = ()


class Drain(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a drain has come."""

    cause: Code
    """`fault`, `operator`, `scale-down`, `replace`."""
    actor: Actor
    since: datetime
    deadline: datetime
    then_terminate: bool = True
    """False: an operator's drain only empties the node and leaves it cordoned."""
    drained_at: datetime | None = None
    skipped: bool = False
    """The fault already took the work: nothing to wait for."""
    blocked_by: Text = ""
    """What still holds it: which GPUs have processes, how many."""


class NodeRecord(Record, frozen=True, kw_only=True, omit_defaults=True):
    """One node. Its id is minted before any cloud call and never reused."""

    node: Id
    pool: Id
    generation: Generation
    """1 for the first machine behind this id; a message of an older generation is dropped."""
    phase: Phase
    phase_since: datetime
    created_at: datetime
    active_at: datetime | None = None
    terminated_at: datetime | None = None
    cordons: dict[CordonHolder, Cordon] = {}
    launch: Launch | None = None
    instance: Instance | None = None
    registration: Registration | None = None
    boots: dict[Name, Sequence] = {}
    """Per boot id the number of the newest registration that was taken, the latest boots last. One that comes again from an
    earlier boot is no news."""
    replaces: Id | None = None
    replaced_by: Id | None = None
    replacement_reason: Text = ""
    failure_id: Name = ""
    """The failure that this node's replacement answers, copied from its health record when it was acted on."""
    drain: Drain | None = None
    approved: Name = ""
    """The change or wish that let it through where automation waits for operators: what follows needs no further word."""
    by_force: bool = False
    """An operator asked for its end over a hold, by force: holds stop nothing about it any more."""
    powered_off: bool = False
    """A clean stop of the one-process control plane powered the machine off; the next start boots it again."""
    labels: dict[str, str] = {}
    reasons: tuple[Reason, ...] = ()
    blocked: Reason | None = None
    """What the next step waits for, or None."""
    answers: Answers = {}
    """What came of operators' wishes, by request id."""
    trace: TraceParent = ""
    """The trace that this node's present business belongs to."""
    config_generation: Revision = 0


NODE = Family("node", NodeRecord, "provisioner", pool_of=lambda record: record.pool)


def ended(record: NodeRecord) -> bool:
    return record.phase in ENDED
