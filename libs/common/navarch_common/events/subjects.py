"""Where each message travels: subjects and streams. Names here are promises to outsiders.

Every id is checked before it becomes part of a subject: `*`, `>`, a dot or a space would make it a different subject.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from navarch_common.events.audit import Audit, actor_token
from navarch_common.events.base import POOL_NONE, Event
from navarch_common.events.codec import subject_tokens
from navarch_common.ids import check_id

EVENTS_KEPT = timedelta(days=7)
ADVISORY = "$JS.EVENT.ADVISORY.CONSUMER"
MAX_DELIVERIES, MSG_TERMINATED = "MAX_DELIVERIES", "MSG_TERMINATED"


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """How a JetStream stream is to be. Storage is always file; replicas come from `bus.replicas`."""

    name: str
    subjects: tuple[str, ...]
    retention: Literal["limits", "work_queue"]
    max_age: timedelta | None
    max_bytes: int
    duplicate_window: timedelta = timedelta(hours=1)
    max_message_bytes: int = 1_048_576
    last_per_subject: bool = False
    discard_new: bool = False
    """Refuse what comes when full (work must not be lost silently), instead of dropping the oldest."""


@dataclass(frozen=True, slots=True)
class Subjects:
    """Builds subjects under one prefix."""

    prefix: str = "navarch"

    def heartbeat(self, node: str) -> str:
        return f"{self.prefix}.heartbeat.{check_id(node, 'node')}"

    @property
    def heartbeats(self) -> str:
        return f"{self.prefix}.heartbeat.*"

    def report(self, node: str, kind: Literal["health", "lifecycle"]) -> str:
        return f"{self.prefix}.reports.{check_id(node, 'node')}.{kind}"

    def reports(self, kind: Literal["health", "lifecycle"]) -> str:
        return f"{self.prefix}.reports.*.{kind}"

    def command(self, node: str) -> str:
        return f"{self.prefix}.commands.{check_id(node, 'node')}"

    def probe(self, node: str) -> str:
        return f"{self.prefix}.probe.{check_id(node, 'node')}"

    def inject(self, node: str) -> str:
        """Fault injection into a simulated machine: the local and fake providers' agents listen, real ones never do."""
        return f"{self.prefix}.inject.{check_id(node, 'node')}"

    def queue_depth(self, pool: str, source: str = "") -> str:
        tail = f".{check_id(source, 'source')}" if source else ""
        return f"{self.prefix}.metrics.queue.{check_id(pool, 'pool')}{tail}"

    @property
    def queue_depths(self) -> str:
        return f"{self.prefix}.metrics.queue.>"

    def audit(self, entry: Audit) -> str:
        return f"{self.prefix}.audit.{actor_token(entry.actor)}.{entry.action}"

    def audits(self, actor: str = "", action: str = "") -> str:
        """A filter for entries of the audit."""
        return f"{self.prefix}.audit.{actor_token(actor) if actor else '*'}.{action or '*'}"

    def stream_of(self, subject: str) -> str:
        """Where what waits in the outbox is kept once it is published."""
        return self.stream("AUDIT" if subject.startswith(f"{self.prefix}.audit.") else "EVENTS")

    def event(self, event: Event) -> str:
        if isinstance(event, Audit):
            return self.audit(event)
        kind, what, pool, *node = subject_tokens(event)
        checked = pool if pool == POOL_NONE else check_id(pool, "pool")
        tail = "".join(f".{check_id(token, 'node')}" for token in node)
        return f"{self.prefix}.events.{kind}.{what}.{checked}{tail}"

    @property
    def events(self) -> str:
        return f"{self.prefix}.events.>"

    def events_of(self, *, kind: str = "*", what: str = "*", pool: str = "", node: str = "") -> str:
        """A filter for events. Without a node it covers events with and without one."""
        if node:
            return (
                f"{self.prefix}.events.{kind}.{what}.{check_id(pool, 'pool') if pool else '*'}.{check_id(node, 'node')}"
            )
        return f"{self.prefix}.events.{kind}.{what}.{check_id(pool, 'pool')}.>" if pool else self.events

    def wake(self, service: str, pool: str) -> str:
        return f"{self.prefix}.wake.{service}.{check_id(pool, 'pool')}"

    def wakes(self, service: str) -> str:
        return f"{self.prefix}.wake.{service}.*"

    def plan(self, pool: str) -> str:
        """What would a pool's next pass do? Request, answered by the provisioners as one queue group."""
        return f"{self.prefix}.plan.{check_id(pool, 'pool')}"

    @property
    def plans(self) -> str:
        return f"{self.prefix}.plan.*"

    def dead(self, stream: str) -> str:
        return f"{self.prefix}.dead.{stream}"

    @property
    def advisories(self) -> tuple[str, ...]:
        """What the servers tell of our own consumers: a message that they gave up delivering, or that was terminated.

        Only of the stream whose consumers are ours: those of outsiders, who may fail as they like, would fill it."""
        return tuple(f"{ADVISORY}.{what}.{self.stream('REPORTS')}.*" for what in (MAX_DELIVERIES, MSG_TERMINATED))

    def history(self, kind: Literal["health", "demand", "decision"], pool: str, node: str = "") -> str:
        tail = f".{check_id(node, 'node')}" if node else ""
        return f"{self.prefix}.history.{kind}.{check_id(pool, 'pool')}{tail}"

    def stream(self, name: str) -> str:
        """The stream's name under this prefix: `NAVARCH_EVENTS`."""
        return f"{self.prefix.upper().replace('.', '_').replace('-', '_')}_{name}"

    def streams(self) -> tuple[StreamSpec, ...]:
        """Every stream that Navarch needs. Created where missing, checked where present."""
        p = self.prefix
        return (
            StreamSpec(
                name=self.stream("REPORTS"),
                subjects=(f"{p}.reports.*.health", f"{p}.reports.*.lifecycle"),
                retention="work_queue",
                max_age=None,
                max_bytes=1 << 30,
                max_message_bytes=65_536,
                discard_new=True,
            ),
            StreamSpec(
                name=self.stream("EVENTS"),
                subjects=(f"{p}.events.>",),
                retention="limits",
                max_age=EVENTS_KEPT,
                max_bytes=2 << 30,
            ),
            StreamSpec(
                name=self.stream("AUDIT"),
                subjects=(f"{p}.audit.*.*",),
                retention="limits",
                max_age=timedelta(days=400),
                max_bytes=2 << 30,
            ),
            StreamSpec(
                name=self.stream("METRICS"),
                subjects=(f"{p}.metrics.queue.>",),
                retention="limits",
                max_age=timedelta(days=1),
                max_bytes=64 << 20,
                max_message_bytes=65_536,
                last_per_subject=True,
            ),
            StreamSpec(
                name=self.stream("DEAD"),
                subjects=(f"{p}.dead.*", *self.advisories),
                retention="limits",
                max_age=timedelta(days=28),
                max_bytes=256 << 20,
            ),
        )
