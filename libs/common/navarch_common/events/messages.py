"""What agents and Navarch say to each other, and what anyone may say of demand. One Struct per message, all bounded.

Heartbeats and probes travel on core NATS and may be lost; reports travel on JetStream and are kept until acknowledged.
Each carries generation, boot id and a per-boot sequence.
"""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from navarch_common.ids import Id
from navarch_common.model.base import Code, Count, Generation, Name, Pci, Ratio, Seconds, Sequence, Text, TraceParent
from navarch_common.model.cluster import CommandKind
from navarch_common.model.gpu import GpuSamples
from navarch_common.model.node import Registration

MESSAGE_BYTES_MAX = 65_536
"""No agent's message is larger; one that is, is refused before it is decoded."""
EVENT_BYTES_MAX = 1 << 20
"""NATS carries nothing larger unless it is told to."""
OBSERVATIONS_MAX = 64


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """Anything sent by an agent, or to one."""


class FromNode(Message, frozen=True, kw_only=True, omit_defaults=True):
    node: Id
    generation: Generation
    boot_id: Name
    sequence: Sequence
    """Rises by at least one with each message of its kind in a boot: heartbeats and reports count apart."""
    at: datetime
    """The node's own clock: shown to people, and held against nothing but itself."""


class Heartbeat(FromNode, frozen=True, kw_only=True, omit_defaults=True, tag="heartbeat.v1"):
    """I live. Core NATS, subject `navarch.heartbeat.<node>`, heard by every health copy."""

    pool: Id
    interval_s: Seconds
    driver_state: Name = "unknown"
    gpus: GpuSamples = ()
    cpu_ratio: Ratio | None = None
    memory_ratio: Ratio | None = None
    lost_kernel_records: Count = 0


REJECTED = "message_rejected"
"""An observation of this type is about the bus, not about the machine: messages that an agent had to drop."""


class Observation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that an agent saw, in the reference's event vocabulary, for the policy to judge."""

    at: datetime
    event_type: Code
    """`xid`, `sxid`, `thermal`, `power`, `memory`, `nvlink`, `pcie`, `driver_error`, `ecc_sbe`, `ecc_dbe`, `kernel`,
    `host`, `message_rejected`."""
    system: Name = ""
    """`DCGM_HEALTH_WATCH_DRIVER` and its like; empty where none fits."""
    code: Annotated[int, Meta(ge=0, le=10_000_000)] | None = None
    """The Xid or SXid."""
    pci: Pci = ""
    """As the kernel printed it, also when no GPU of ours has it."""
    gpu_index: Annotated[int, Meta(ge=-1, le=1023)] = -1
    """-1 where no GPU of the inventory matches."""
    gpu_uuid: Name = ""
    gpu_serial: Name = ""
    gpu_instance: Name = ""
    message: Annotated[str, Meta(max_length=2048)] = ""
    metrics: Annotated[dict[str, float | int | str | bool], Meta(max_length=32)] = {}
    source: Code = "kernel-log"
    kernel_sequence: Sequence = 0
    injected: bool = False


class HealthReport(FromNode, frozen=True, kw_only=True, omit_defaults=True, tag="report.health.v1"):
    """What was seen. JetStream, `navarch.reports.<node>.health`; acknowledged when the verdict is durable."""

    pool: Id
    observations: Annotated[tuple[Observation, ...], Meta(min_length=1, max_length=OBSERVATIONS_MAX)]
    trace: TraceParent = ""


class Registered(FromNode, frozen=True, kw_only=True, omit_defaults=True, tag="report.registered.v1"):
    """Here I am, this is what I have. Sent at each start of the agent and again when asked."""

    pool: Id
    registration: Registration


class CommandResult(FromNode, frozen=True, kw_only=True, omit_defaults=True, tag="report.command-result.v1"):
    pool: Id
    command_id: Name
    outcome: Literal["done", "failed", "refused", "expired"]
    text: Text = ""


class Leaving(FromNode, frozen=True, kw_only=True, omit_defaults=True, tag="report.leaving.v1"):
    """The agent stops in good order."""

    pool: Id
    reason: Text = ""


LifecycleReport = Registered | CommandResult | Leaving
"""Any message of `navarch.reports.<node>.lifecycle`."""


class Command(Message, frozen=True, kw_only=True, omit_defaults=True, tag="command.v1"):
    """Do this. Request on `navarch.commands.<node>`, sent again until its result is reported."""

    id: Name
    node: Id
    generation: Generation
    kind: CommandKind
    args: Annotated[dict[Code, Text], Meta(max_length=16)] = {}
    """`configure`: `heartbeat_interval_s`, `health_check_interval_s`."""
    expires_at: datetime
    trace: TraceParent = ""


class CommandReceipt(Message, frozen=True, kw_only=True, omit_defaults=True, tag="command-receipt.v1"):
    """The agent has the command. Its outcome follows as a report."""

    id: Name
    node: Id


class Probe(Message, frozen=True, kw_only=True, omit_defaults=True, tag="probe.v1"):
    """Are you there? Request on `navarch.probe.<node>`."""

    node: Id
    at: datetime
    register: bool = False
    """Register anew, and report again what faults there were: the asker has lost, or never got, what this boot has said."""


class ProbeReply(FromNode, frozen=True, kw_only=True, omit_defaults=True, tag="probe-reply.v1"):
    pool: Id


class QueueDepth(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Demand of a pool, from anyone, on `navarch.metrics.queue.<pool>[.<source>]`. A bare number is `queue_depth`."""

    queue_depth: Count
    """Needed: an object that spells it otherwise must not read as an empty queue."""
    pending_jobs: Count | None = None
    running_jobs: Count | None = None
    pending_gpus: Count | None = None
    oldest_wait_s: Seconds | None = None
    at: datetime | None = None


MESSAGES: tuple[type[Struct], ...] = (
    Heartbeat,
    HealthReport,
    Registered,
    CommandResult,
    Leaving,
    Command,
    CommandReceipt,
    Probe,
    ProbeReply,
    QueueDepth,
)
