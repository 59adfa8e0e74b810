"""What the HTTP API sends, as typed values: the same field names, enumerations as their lower-case words, times aware.

Reading is lenient: fields of a later release are ignored, and what an older one doesn't send has a default. Words such
as a status are plain strings, so that a new one reaches the person instead of failing the client.
"""

from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import Struct

NodeVerb = Literal["cordon", "uncordon", "drain", "replace", "terminate"]
PoolVerb = Literal["scale", "pause", "resume", "close-breaker"]
ChangeVerb = Literal["approve", "cancel"]
FreezeLevel = Literal["terminate", "launch", "all"]

STATUSES = ("provisioning", "active", "cordoned", "unhealthy", "draining", "terminated")
"""Every status of a node, in the order of its life."""
HEALTHS = ("unknown", "healthy", "suspect", "degraded", "unhealthy")


class View(Struct, frozen=True, kw_only=True):
    """Anything that the API answers with. All fields are always sent."""


class Reason(View, frozen=True, kw_only=True):
    """Why something is as it is."""

    at: datetime
    code: str
    text: str
    actor: str


class Cordon(View, frozen=True, kw_only=True):
    holder: str
    """`operator:NAME`, `health`, `maintenance`, `roll`, `warm` or `scale-down`."""
    reason: str
    at: datetime


class Node(View, frozen=True, kw_only=True):
    """One node, as lists show it."""

    node: str
    pool: str
    status: str
    """`provisioning, active, cordoned, unhealthy, draining` or `terminated`."""
    health: str
    """`unknown, healthy, suspect, degraded` or `unhealthy`."""
    phase: str
    phase_since: datetime | None = None
    cordons: tuple[Cordon, ...] = ()
    provider: str = ""
    region: str = ""
    zone: str = ""
    instance_type: str = ""
    instance_id: str = ""
    provider_id: str = ""
    hostname: str = ""
    address: str = ""
    gpus: int | None = None
    """How many; None until the agent has said."""
    replaces: str | None = None
    replaced_by: str | None = None
    reason: str = ""
    """Why it is as it is, in one sentence."""
    price_per_hour: float | None = None
    labels: dict[str, str] = {}
    generation: int = 0
    created_at: datetime
    active_at: datetime | None = None
    terminated_at: datetime | None = None
    last_heartbeat: datetime | None = None
    revision: int = 0


class Launch(View, frozen=True, kw_only=True):
    """What the provider was asked for."""

    provider: str
    instance_type: str
    region: str = ""
    zone: str = ""
    token: str = ""
    attempt: int = 1
    intended_at: datetime
    called_at: datetime | None = None
    deadline: datetime
    error: str = ""
    error_code: str = "none"


class Instance(View, frozen=True, kw_only=True):
    """A machine that is paid for, with the node that runs on it."""

    instance_id: str
    provider_id: str
    provider: str
    node: str
    pool: str
    status: str
    """The node's."""
    state: str
    """What the provider last said: `pending, running, stopping, gone` or `unknown`."""
    state_at: datetime
    instance_type: str = ""
    region: str = ""
    zone: str = ""
    address: str = ""
    price_per_hour: float | None = None
    launched_at: datetime


class Gpu(View, frozen=True, kw_only=True):
    index: int
    uuid: str = ""
    serial: str = ""
    pci: str = ""
    name: str = ""
    memory_total_bytes: int = 0


class Registration(View, frozen=True, kw_only=True):
    """What the agent said of its machine when it last started."""

    at: datetime
    boot_id: str
    hostname: str = ""
    addresses: tuple[str, ...] = ()
    kernel: str = ""
    agent_version: str = ""
    driver: str = ""
    driver_state: str = "unknown"
    gpus: tuple[Gpu, ...] = ()


class Drain(View, frozen=True, kw_only=True):
    cause: str
    actor: str
    since: datetime
    deadline: datetime
    then_terminate: bool = True
    drained_at: datetime | None = None
    skipped: bool = False
    blocked_by: str = ""


class Evidence(View, frozen=True, kw_only=True):
    at: datetime
    source: str
    code: str
    text: str


class Verdict(View, frozen=True, kw_only=True):
    """What is thought of one entity of a node, by which rule, on what evidence."""

    entity: str
    status: str
    action: str
    rule: str = ""
    code: str = "none"
    reason: str = ""
    since: datetime
    evidence: tuple[Evidence, ...] = ()


class Episode(View, frozen=True, kw_only=True):
    """All that was seen of one entity and code, folded."""

    entity: str
    code: str
    first_at: datetime
    last_at: datetime
    lines: int = 1
    count: int = 1


class HealthDetail(View, frozen=True, kw_only=True):
    status: str
    since: datetime
    action: str = "none"
    code: str = "none"
    reason: str = ""
    rule: str = ""
    silent_since: datetime | None = None
    failure_id: str = ""
    failed_at: datetime | None = None
    verdicts: tuple[Verdict, ...] = ()
    episodes: tuple[Episode, ...] = ()


class GpuReading(View, frozen=True, kw_only=True):
    """None means that it could not be read."""

    index: int
    utilization_ratio: float | None = None
    memory_used_bytes: int | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    process_count: int | None = None


class Sample(View, frozen=True, kw_only=True):
    """What the last heartbeat said."""

    at: datetime
    due_at: datetime
    """By then the next one is due."""
    driver_state: str = "unknown"
    idle: bool | None = None
    """True when no process holds any GPU, None when that is not known."""
    cpu_ratio: float | None = None
    memory_ratio: float | None = None
    gpus: tuple[GpuReading, ...] = ()


class Answer(View, frozen=True, kw_only=True):
    """What came of a wish."""

    at: datetime
    outcome: str
    """`accepted` while it is under way, then `done, refused, failed` or `expired`."""
    code: str
    reason: str


class OpenWish(View, frozen=True, kw_only=True):
    request_id: str
    verb: str
    actor: str
    reason: str = ""
    at: datetime
    expires_at: datetime
    force: bool = False
    nodes: int | None = None
    hold_until: datetime | None = None


class NodeDetail(Node, frozen=True, kw_only=True):
    """One node with all that is known of it."""

    instance: Instance | None = None
    launch: Launch | None = None
    registration: Registration | None = None
    drain: Drain | None = None
    health_detail: HealthDetail | None = None
    sample: Sample | None = None
    reasons: tuple[Reason, ...] = ()
    """Newest first."""
    blocked: Reason | None = None
    """What the next step waits for."""
    wishes: tuple[OpenWish, ...] = ()
    answers: dict[str, Answer] = {}
    powered_off: bool = False
    failure_id: str = ""
    trace: str = ""
    config_generation: int = 0
    as_of: datetime


class NodeList(View, frozen=True, kw_only=True):
    items: tuple[Node, ...]
    next_page_token: str = ""
    as_of: datetime


class InstanceList(View, frozen=True, kw_only=True):
    items: tuple[Instance, ...]
    next_page_token: str = ""
    as_of: datetime


class Pool(View, frozen=True, kw_only=True):
    """One pool, as lists show it."""

    pool: str
    desired: int | None = None
    """None until the autoscaler has first looked at the pool."""
    active: int = 0
    provisioning: int = 0
    cordoned: int = 0
    unhealthy: int = 0
    draining: int = 0
    min_nodes: int | None = None
    """None for a pool that has left the configuration, as are `max_nodes`."""
    max_nodes: int | None = None
    paused: bool = False
    retiring: bool = False
    """It has left the configuration: nothing is launched and nothing terminated."""
    frozen: bool = False
    held: bool = False
    """No automation touches it."""
    provider: str = ""
    instance_type: str = ""
    autoscaling: str = ""
    """The strategy's type; empty where the pool is kept at its desired count."""
    reason: str = ""
    dollars_per_hour: float | None = None
    """What its machines cost; None where a price is not known."""


class Pause(View, frozen=True, kw_only=True):
    actor: str
    reason: str
    at: datetime


class Opinion(View, frozen=True, kw_only=True):
    """One strategy's target. `target` None: it has no opinion."""

    strategy: str
    target: int | None = None
    code: str
    reason: str
    fresh: bool = True


class Breaker(View, frozen=True, kw_only=True):
    """Open: automation takes no node out of the pool."""

    since: datetime
    code: str
    """`too-many-unhealthy` or `starts-failing`."""
    reason: str
    canary: str = ""
    """The node that was let through last: its success closes the breaker."""
    tries: int = 0
    retry_at: datetime
    """No canary before then."""


class Change(View, frozen=True, kw_only=True):
    """What automation would do, and does not do (`observe`) or not yet (`approve`); or (act `config`) what a configuration
    that waits would take from this pool. Its id is the same in each of its pools."""

    id: str
    pool: str
    node: str = ""
    """Empty where it is about the pool as a whole."""
    act: str
    text: str
    since: datetime | None = None
    automation: str = ""


class ChangeList(View, frozen=True, kw_only=True):
    items: tuple[Change, ...]
    as_of: datetime


class LimitReached(View, frozen=True, kw_only=True):
    key: str
    """`limits.nodes`, `pools.training.limits.dollars_per_hour`."""
    since: datetime


class Supply(View, frozen=True, kw_only=True):
    launch_failures: int = 0
    retry_at: datetime | None = None
    exhausted_since: datetime | None = None
    swept_at: datetime | None = None
    blocked: Reason | None = None
    failed_starts: int = 0
    """Machines in a row that came to nothing before they were usable."""
    breaker: Breaker | None = None
    """None: closed."""
    limits: tuple[LimitReached, ...] = ()
    """Limits of the configuration that keep the pool from what it wants."""


class Guard(View, frozen=True, kw_only=True):
    """A freeze or a hold, in force or lifted."""

    name: str
    kind: str = "freeze"
    """`freeze`, or `hold`: on the node, or where none is named on the whole pool."""
    active: bool
    level: str
    """What a freeze forbids."""
    pool: str | None = None
    node: str | None = None
    number: int
    actor: str
    reason: str
    at: datetime
    until: datetime | None = None


class PoolStatus(Pool, frozen=True, kw_only=True):
    """One pool with all that is known of it."""

    actor: str = ""
    code: str = ""
    scaled_at: datetime | None = None
    hold_until: datetime | None = None
    pause: Pause | None = None
    opinions: tuple[Opinion, ...] = ()
    limited: Reason | None = None
    """What keeps desired from what the strategies want."""
    supply: Supply | None = None
    guards: tuple[Guard, ...] = ()
    reasons: tuple[Reason, ...] = ()
    wishes: tuple[OpenWish, ...] = ()
    answers: dict[str, Answer] = {}
    automation: str = ""
    """`act`, `observe` or `approve`."""
    changes: tuple[Change, ...] = ()
    """What waits for an operator's word, or is only said."""
    as_of: datetime


class PoolList(View, frozen=True, kw_only=True):
    items: tuple[Pool, ...]
    as_of: datetime


class WishAccepted(View, frozen=True, kw_only=True):
    """The wish is durable."""

    request_id: str
    event_id: str
    """Of the event that tells of it."""
    revision: int
    verb: str
    node: str = ""
    pool: str = ""
    repeated: bool = False
    """The same request was accepted before; nothing new was written."""


class WishPreview(View, frozen=True, kw_only=True):
    """What a wish would do; nothing was changed."""

    verb: str
    would: str
    node: str = ""
    pool: str = ""


class WishState(View, frozen=True, kw_only=True):
    request_id: str
    state: str
    """`open` until the owner has given its final answer, then `answered`."""
    wish: OpenWish | None = None
    answer: Answer | None = None
    """While the state is open: `accepted`, if the owner has begun."""


class ExplainItem(View, frozen=True, kw_only=True):
    at: datetime
    actor: str
    code: str
    text: str
    event: str = ""
    """`node.failed`; empty where it is a reason noted in a record and no event tells of it."""
    id: str = ""
    node: str = ""


class Explanation(View, frozen=True, kw_only=True):
    """Why a node or pool is as it is, newest first, and what the next step waits for."""

    node: str = ""
    pool: str = ""
    status: str = ""
    reason: str = ""
    items: tuple[ExplainItem, ...]
    blocked: Reason | None = None
    complete: bool = True
    """False where the events could not be read, or there were more than one answer holds."""
    as_of: datetime


class PlanStep(View, frozen=True, kw_only=True):
    pool: str
    node: str = ""
    act: str
    reason: str
    cost_per_hour_delta: float | None = None


class PlanBlocked(View, frozen=True, kw_only=True):
    """What the next pass would do and may not do yet."""

    pool: str
    node: str = ""
    """Empty where it is the pool's own growing or shrinking that waits."""
    code: str = ""
    reason: str
    change: str = ""
    """What `navarch approve` takes, where an operator's word is waited for."""


class Plan(View, frozen=True, kw_only=True):
    """What the next pass would do. Nothing was done."""

    steps: tuple[PlanStep, ...]
    changes: bool
    blocked: tuple[PlanBlocked, ...] = ()
    as_of: datetime | None = None


class GuardAccepted(Guard, frozen=True, kw_only=True):
    event_id: str
    """Empty while the store is away: the guard holds, and its event follows."""
    revision: int


class GuardList(View, frozen=True, kw_only=True):
    items: tuple[Guard, ...]
    as_of: datetime


class Config(View, frozen=True, kw_only=True):
    """The configuration in force: its text before `${VAR}` is expanded, so no secrets."""

    generation: int
    sha256: str
    text: str
    author: str
    source: str = ""
    at: datetime


class Taking(View, frozen=True, kw_only=True):
    """What a configuration would take out of one pool."""

    pool: str
    nodes: int
    """How many would be ended or replaced."""
    of: int
    """How many there are."""
    why: str
    named: tuple[str, ...] = ()
    """Those that are known by now: which of the nodes that become too many go is decided when they are idle."""
    too_much: bool = False
    """More than one change of the file may take: it would wait for `navarch approve`."""


class ConfigPreview(View, frozen=True, kw_only=True):
    """What a configuration would do to the fleet as it is. Nothing was done."""

    generation: int
    """The one in force."""
    in_force: bool
    """It is the one in force."""
    takings: tuple[Taking, ...]
    retires: tuple[str, ...] = ()
    """Pools that it leaves out."""
    held: bool
    """It would wait for `navarch approve`."""


class Version(View, frozen=True, kw_only=True):
    version: str
    cluster: str
    installation: str
    api: str = "v1"


class LeaseView(View, frozen=True, kw_only=True):
    name: str
    """`provisioner/<pool>`, `autoscaler/<pool>`."""
    owner: str
    expires_at: datetime
    fence: int = 0
    """Rises with every new holder; a commit under an older one is refused."""


class LoopResult(View, frozen=True, kw_only=True):
    """What the last pass of one loop of a copy did."""

    name: str
    """`provisioner/<pool>`, `provisioner/sweep`, `health`…"""
    at: datetime
    took_s: float
    outcome: str
    """`done` or `failed`."""
    error: str = ""
    failures: int = 0
    """Passes that failed in a row."""
    counts: dict[str, int] = {}


class CopyView(View, frozen=True, kw_only=True):
    """One living copy of a service, as it said of itself within the last three seconds."""

    service: str
    instance: str
    host: str = ""
    version: str = ""
    since: datetime | None = None
    at: datetime | None = None
    """When it said so; None of one that holds a lease and says nothing: it is of an earlier release, or just died."""
    ready: bool = False
    config_generation: int = 0
    holds: tuple[str, ...] = ()
    """The pools that it works on; `_fleet` is what is done for all pools together."""
    results: tuple[LoopResult, ...] = ()
    facts: dict[str, Any] = {}


class Backlog(View, frozen=True, kw_only=True):
    """Messages that wait for a consumer; None where that could not be asked."""

    stream: str
    consumer: str
    pending: int | None


class SafeMode(View, frozen=True, kw_only=True):
    since: datetime
    code: str
    reason: str
    waits_for: tuple[str, ...] = ()
    """Nodes with a machine whose agents have not been heard since: safe mode ends by itself only when nearly all have."""


class Leak(View, frozen=True, kw_only=True):
    """A machine at a provider that no living record explains."""

    provider: str
    instance_id: str
    kind: str
    """`unrecorded`, `ended`, `duplicate`, `foreign`."""
    ours: bool
    """Of our installation. Another's are shown and never touched."""
    installation: str
    pool: str = ""
    node: str = ""
    instance_type: str = ""
    region: str = ""
    zone: str = ""
    state: str = ""
    price_per_hour: float | None = None
    launched_at: datetime
    since: datetime
    """When it was first seen without a record."""
    leaked_at: datetime | None = None
    """When it was called leaked; None while it may still be in the middle of something."""
    would: str = ""
    """What the next sweep does about it: `wait`, `report`, `adopt`, `collect`, `leave`."""
    code: str = ""
    reason: str = ""
    asked: str = ""
    """The request about it that was considered last."""


class LeakList(View, frozen=True, kw_only=True):
    items: tuple[Leak, ...]
    dollars_per_hour: float = 0.0
    """What the leaked ones of ours cost, as far as their prices are known."""
    as_of: datetime


class LeakWishAccepted(View, frozen=True, kw_only=True):
    request_id: str
    event_id: str
    revision: int
    verb: str
    machines: tuple[str, ...]
    """`<provider>/<instance>`."""


class InstallationAdopted(View, frozen=True, kw_only=True):
    installation: str
    before: str
    event_id: str
    revision: int


class SafeModeLeft(View, frozen=True, kw_only=True):
    left: SafeMode
    """What was in force."""
    event_id: str
    revision: int


class LeakCount(View, frozen=True, kw_only=True):
    instances: int = 0
    dollars_per_hour: float = 0.0
    foreign: int = 0
    """Another installation's machines under our cluster's name."""


class ClusterStatus(View, frozen=True, kw_only=True):
    """How the control plane itself is."""

    cluster: str
    installation: str
    version: str
    instance: str
    """The copy that answered."""
    ready: bool
    config_generation: int = 0
    bus_connected: bool = False
    bus_disconnects: int = 0
    outbox_events: int | None = None
    outbox_oldest_s: float | None = None
    """How long the oldest event has waited to be published; None where none waits."""
    safe_mode: SafeMode | None = None
    leaks: LeakCount | None = None
    """None: not known."""
    guards: tuple[Guard, ...] = ()
    leases: tuple[LeaseView, ...] = ()
    copies: dict[str, tuple[str, ...]] = {}
    """By service, the copies that are known of."""
    members: tuple[CopyView, ...] = ()
    """The same copies with all that is known of each, ordered by service and name."""
    verdicts_suspended: dict[str, str] = {}
    """By copy of health, why it does not judge silence now."""
    backlog: tuple[Backlog, ...] = ()
    services: dict[str, Any] = {}
    """What each service in the answering process says of its last passes."""
    warnings: tuple[str, ...] = ()
    as_of: datetime


class AuditEntry(View, frozen=True, kw_only=True):
    """One act: who did what to which node or pool, why, and what changed."""

    id: str
    at: datetime
    actor: str
    action: str
    result: str = ""
    pool: str = ""
    node: str = ""
    reason: str = ""
    code: str = ""
    request_id: str = ""
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    rev: int = 0
    trace_id: str = ""


class AuditList(View, frozen=True, kw_only=True):
    items: tuple[AuditEntry, ...]
    truncated: bool = False
    as_of: datetime


class DeadLetter(View, frozen=True, kw_only=True):
    """A message that nobody could use, or what a server told of one that it gave up."""

    sequence: int
    """Its place in the stream of dead letters: what `replay` names."""
    at: datetime
    code: str
    """`undecodable`, `handler-failed`; `max-deliveries` of a message that lies parked in its stream; `terminated` of one
    that somebody ended without keeping it."""
    error: str = ""
    stream: str = ""
    stream_sequence: int = 0
    subject: str = ""
    msg_id: str = ""
    node: str = ""
    by: str = ""
    """Which copy of which service buried it, or which consumer did not get it."""
    deliveries: int = 0
    stored_at: datetime | None = None
    """When it was sent."""
    size_bytes: int = 0
    text: str = ""
    """The message itself, as far as it can be shown, at most 2000 characters."""
    replayed_at: datetime | None = None
    replayed_by: str = ""


class DeadLetterList(View, frozen=True, kw_only=True):
    items: tuple[DeadLetter, ...]
    truncated: bool = False
    as_of: datetime


class Replayed(View, frozen=True, kw_only=True):
    """What came of putting one dead letter back."""

    sequence: int
    outcome: str
    """`stored`; `repeated` where it was put back before; `refused` where it cannot be; `unknown` where no answer came:
    asking again is harmless."""
    detail: str = ""
    subject: str = ""
    stream_sequence: int = 0


class ReplayedList(View, frozen=True, kw_only=True):
    items: tuple[Replayed, ...]
    as_of: datetime


class EventItem(View, frozen=True, kw_only=True):
    """An event: the fields that all have, and in `raw` everything as it was sent."""

    type: str
    id: str
    at: datetime
    cluster: str
    pool: str = ""
    node: str = ""
    reason: str = ""
    code: str = ""
    actor: str = ""
    rev: int = 0
    trace_id: str = ""
    sequence: int = 0
    """Its place in the stream: `after=` resumes behind it."""
    raw: dict[str, Any] = {}

    @property
    def kind(self) -> str:
        """`node.failed`, `operator.cordon`: what it tells of, as its subject says it."""
        if self.type.startswith("operator.action.") and self.raw.get("action"):
            return f"operator.{self.raw['action']}"
        return self.type.rpartition(".")[0] or self.type

    @classmethod
    def of(cls, raw: dict[str, Any]) -> "EventItem":
        """Raises `msgspec.ValidationError` on what is no event."""
        return msgspec.structs.replace(msgspec.convert(raw, cls), raw=raw)


class EventList(View, frozen=True, kw_only=True):
    """Events newest last, raw as sent; `EventItem.of` reads one."""

    items: tuple[dict[str, Any], ...]
    truncated: bool = False
    """There were more than the limit: these are the newest."""
    as_of: datetime


class Problem(View, frozen=True, kw_only=True):
    """Why a request was not done (RFC 9457)."""

    title: str
    status: int
    code: str
    """Stable and machine-readable: `not-found`, `frozen`, `busy`, `out-of-bounds`."""
    detail: str = ""
    type: str = "about:blank"
    instance: str = ""
    field: str = ""
    """The parameter or field that is wrong, where one is."""
