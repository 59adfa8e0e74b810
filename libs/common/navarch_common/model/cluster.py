"""What is known of the cluster as a whole: who it is, the configuration in force, commands under way, reports at hand."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from navarch_common.ids import Id
from navarch_common.model.base import (
    Actor,
    Code,
    Count,
    Family,
    Generation,
    Name,
    Record,
    Revision,
    Sequence,
    Text,
    TraceParent,
)
from navarch_common.model.node import Registration


class SafeMode(Struct, frozen=True, kw_only=True):
    """No launch and no termination: what is stored cannot be trusted yet."""

    since: datetime
    code: Code
    reason: Text


class MetaRecord(Record, frozen=True, kw_only=True, omit_defaults=True):
    """Who this store belongs to. Mirrored in JetStream KV, so that a lost or rolled-back store is noticed."""

    cluster: Id
    installation: Name
    """Random, made once: machines of another installation are never touched."""
    incarnation: Name
    """New whenever the store starts empty, or has lost something."""
    epoch: Count = 0
    created_at: datetime
    safe_mode: SafeMode | None = None
    safe_mode_left_at: datetime | None = None
    """When safe mode ended last: what was not heard while records were being rebuilt has its time from then on."""
    first_look: bool = False
    """A first start, and not every provider has told yet what it has: nothing is launched."""


class ConfigRecord(Record, frozen=True, kw_only=True, omit_defaults=True):
    """One generation of the configuration. `config/current` is the one in force, `config/<generation>` the history."""

    generation: Revision
    text: Annotated[str, Meta(max_length=1_048_576)]
    """The YAML text, before ${VAR} is expanded: secrets stay in the environment."""
    sha256: Name
    author: Actor
    source: Name
    """The file it came from."""
    at: datetime


class Taking(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a configuration would take out of one pool."""

    pool: Id
    nodes: Count
    """How many would be ended or replaced."""
    of: Count
    """How many there are."""
    why: Text
    named: Annotated[tuple[Id, ...], Meta(max_length=256)] = ()
    """Those that are known by now. Which of the nodes that become too many go is decided when they are idle."""


class ProposedConfig(Record, frozen=True, kw_only=True, omit_defaults=True):
    """The configuration that would take too much out of a pool, until an operator has spoken. There is one at most."""

    change: Id
    """What `navarch approve` takes. The same for as long as the text and what it would replace are."""
    generation: Revision
    """The one in force, which it would replace."""
    text: Annotated[str, Meta(max_length=1_048_576)] = ""
    """Empty once it is closed."""
    sha256: Name
    source: Name
    at: datetime
    takings: Annotated[tuple[Taking, ...], Meta(max_length=10_000)] = ()
    retires: Annotated[tuple[Id, ...], Meta(max_length=10_000)] = ()
    """Pools that it leaves out."""
    closed: Literal["", "approved", "cancelled", "superseded"] = ""
    """Empty: it waits. A cancelled text is not proposed again before the file has said something else."""
    closed_by: Actor = "gateway"
    request_id: Name = ""
    """The request that closed it, so that the same again is known."""


class InboxReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One lifecycle report, kept until the pool's provisioner has folded it into the node."""

    id: Name
    at: datetime
    boot_id: Name
    generation: Generation
    sequence: Sequence
    kind: Literal["registered", "command-result", "leaving"]
    registration: Registration | None = None
    command_id: Name = ""
    outcome: Literal["", "done", "failed", "refused", "expired"] = ""
    text: Text = ""


class InboxRecord(Record, frozen=True, kw_only=True, omit_defaults=True):
    node: Id
    pool: Id
    reports: Annotated[tuple[InboxReport, ...], Meta(max_length=64)] = ()


CommandKind = Literal["configure", "stop"]
"""`configure`: take over periods. `stop`: leave in good order, the machine is about to go."""


class CommandRecord(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A command to an agent: sent again until its result is in or it has expired."""

    id: Name
    node: Id
    pool: Id
    generation: Generation
    kind: CommandKind
    args: dict[str, str] = {}
    issued_at: datetime
    expires_at: datetime
    result: Literal["", "done", "failed", "refused", "expired"] = ""
    result_text: Text = ""
    trace: TraceParent = ""


META: Family[MetaRecord] = Family("meta", MetaRecord, None)
CONFIG: Family[ConfigRecord] = Family("config", ConfigRecord, "gateway")
PROPOSAL: Family[ProposedConfig] = Family("proposal", ProposedConfig, "gateway")
INBOX = Family("inbox", InboxRecord, "provisioner", pool_of=lambda record: record.pool)
COMMAND = Family("command", CommandRecord, "provisioner", pool_of=lambda record: record.pool)
