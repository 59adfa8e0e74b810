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
    """New whenever the store starts empty."""
    epoch: Count = 0
    created_at: datetime
    safe_mode: SafeMode | None = None


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
INBOX = Family("inbox", InboxRecord, "provisioner", pool_of=lambda record: record.pool)
COMMAND = Family("command", CommandRecord, "provisioner", pool_of=lambda record: record.pool)
