"""The health record: verdict per entity with its evidence, rolled up to the node. Written by health alone."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from navarch_common.ids import Id
from navarch_common.model.base import (
    Code,
    Count,
    Family,
    Generation,
    Name,
    Reason,
    Record,
    Sequence,
    Text,
    TraceParent,
)


class HealthStatus(StrEnum):
    """From not known to certainly broken. `worst` ranks them: unknown is never healthy and never failed."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    SUSPECT = "suspect"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


_RANK = {
    HealthStatus.HEALTHY: 0,
    HealthStatus.UNKNOWN: 1,
    HealthStatus.SUSPECT: 2,
    HealthStatus.DEGRADED: 3,
    HealthStatus.UNHEALTHY: 4,
}


def worst(statuses: tuple[HealthStatus, ...]) -> HealthStatus:
    """The worst of `statuses`; unknown where there is none."""
    return max(statuses, key=_RANK.__getitem__, default=HealthStatus.UNKNOWN)


Action = Literal["none", "restart_app", "reset_gpu", "reboot_node", "drain_and_replace"]
"""What a verdict asks for. Core acts on `drain_and_replace` and, where no repair is configured, on the two before it."""
ACTIONS_OF_FAILURE = frozenset({"drain_and_replace", "reset_gpu", "reboot_node"})
"""Those that end in a replacement. The two repairs are among them: there is no repair to try first yet."""

LineNumber = Annotated[int, Meta(ge=0, le=2**60)]
"""A line's number in a boot: its report's sequence and its place in the report."""

EPISODES_MAX = 64
EVIDENCE_MAX = 16


class Evidence(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that was seen: a kernel line, a reading, the provider's word, silence."""

    at: datetime
    source: Code
    """`kernel-log`, `tracepoint`, `nvml`, `provider`, `liveness`, `operator`."""
    code: Code
    text: Text
    sequence: Sequence = 0


class Episode(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that was seen of one entity and one code, folded: a burst of lines is one episode."""

    entity: Name
    code: Code
    """`xid-79`, `thermal`, `sxid-20034`."""
    first_at: datetime
    last_at: datetime
    lines: Count = 1
    count: Count = 1
    """Episodes of this entity and code: a new one starts after a quiet time."""
    sequence: Sequence
    """The highest sequence folded in, within `boot_id`: what comes again or late changes nothing."""
    boot_id: Name
    seen: Annotated[tuple[LineNumber, ...], Meta(max_length=64)] = ()
    """The newest lines folded in, so that one that is delivered again is known."""


class EntityVerdict(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is thought of one entity (`node`, `gpu:<uuid or pci>`), by which rule, on what evidence."""

    status: HealthStatus
    action: Action = "none"
    rule: Name = ""
    code: Code = "none"
    reason: Text = ""
    since: datetime
    takes_work: bool = False
    """The fault already took the work that ran there: nothing is left to drain."""
    boot_id: Name = ""
    """The boot in which it was seen; a later one may clear it."""
    clears_at: datetime | None = None
    """When it goes unless it is seen again; None where time clears nothing."""
    readings: Count = 0
    """Consecutive unhealthy readings of a polled check, which condemns only from a number of them on."""
    read_at: datetime | None = None
    """When the last of them was taken, by the node's clock."""
    evidence: Annotated[tuple[Evidence, ...], Meta(max_length=EVIDENCE_MAX)] = ()


AGENT: Final = "agent"
"""The entity that stands for the agent's own full pass: it reports, and its driver answers."""


class HealthRecord(Record, frozen=True, kw_only=True, omit_defaults=True):
    """What is thought of one node's hardware and whether it lives."""

    node: Id
    pool: Id
    generation: Generation
    """The node's generation that this verdict is about. A planner compares it."""
    status: HealthStatus
    """The worst over entities and liveness."""
    since: datetime
    """When `status` was last entered."""
    action: Action = "none"
    code: Code = "none"
    reason: Text = ""
    rule: Name = ""
    takes_work: bool = False
    entities: Annotated[dict[str, EntityVerdict], Meta(max_length=512)] = {}
    episodes: Annotated[tuple[Episode, ...], Meta(max_length=EPISODES_MAX)] = ()
    boot_id: Name = ""
    sequences: dict[str, int] = {}
    """Per boot id the highest report sequence folded in."""
    silent_since: datetime | None = None
    """The last heartbeat before the node fell silent, while it is suspect from silence."""
    failure_id: Name = ""
    """Set when the node failed: one per node, generation and failure. Names the budget holder and the event."""
    failed_at: datetime | None = None
    reasons: tuple[Reason, ...] = ()
    trace: TraceParent = ""

    @property
    def failed(self) -> bool:
        """The node failed, and should go."""
        return self.status is HealthStatus.UNHEALTHY and self.action in ACTIONS_OF_FAILURE

    @property
    def was_well(self) -> bool:
        """Its agent passed since the machine booted, and has fallen silent: nothing but the silence is held against it."""
        agent = self.entities.get(AGENT)
        passed = agent is not None and agent.status is HealthStatus.HEALTHY
        return passed and self.silent_since is not None and self.status is HealthStatus.SUSPECT


class AlarmRecord(Record, frozen=True, kw_only=True, omit_defaults=True):
    """Something about the fleet that people must know, told once while it lasts, by whichever copy was first."""

    name: Name
    """`fleet-silence`, or `zone-silence/<provider>/<region>/<zone>`."""
    active: bool
    reason: Text
    since: datetime
    """When it was raised, or taken back."""


HEALTH = Family("health", HealthRecord, "health", pool_of=lambda record: record.pool)
ALARM: Family[AlarmRecord] = Family("alarm", AlarmRecord, "health")
