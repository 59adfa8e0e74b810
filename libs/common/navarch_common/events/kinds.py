"""All events, in the order of a node's life, then pools, providers, operators and the cluster."""

from typing import Annotated, ClassVar

from msgspec import Meta

from navarch_common.events.base import Event
from navarch_common.model.base import Code, Count, Dollars, Generation, Name, Seconds, Text
from navarch_common.model.gpu import GPUS_MAX, Gpu
from navarch_common.model.health import EVIDENCE_MAX, Action, Evidence

Evidences = Annotated[tuple[Evidence, ...], Meta(max_length=EVIDENCE_MAX)]
Gpus = Annotated[tuple[Gpu, ...], Meta(max_length=GPUS_MAX)]
Names = Annotated[tuple[Name, ...], Meta(max_length=32)]


class NodePlanned(Event, frozen=True, kw_only=True, tag="node.planned.v1"):
    KIND: ClassVar[str] = "node.planned"
    replaces: Name = ""
    provider: Name = ""
    instance_type: Name = ""


class NodeLaunched(Event, frozen=True, kw_only=True, tag="node.launched.v1"):
    """The provider has made the machine. Boot follows."""

    KIND: ClassVar[str] = "node.launched"
    provider: Name = ""
    region: Name = ""
    instance_type: Name = ""
    instance_id: Name = ""
    provider_id: Name = ""
    price_per_hour: Dollars | None = None


class NodeLaunchFailed(Event, frozen=True, kw_only=True, tag="node.launch-failed.v1"):
    KIND: ClassVar[str] = "node.launch-failed"
    provider: Name = ""
    instance_type: Name = ""
    attempt: Count = 1


class NodeRegistered(Event, frozen=True, kw_only=True, tag="node.registered.v1"):
    KIND: ClassVar[str] = "node.registered"
    boot_id: Name = ""
    generation: Generation = 0
    hostname: Name = ""
    gpus: Gpus = ()


class NodeRegistrationTimeout(Event, frozen=True, kw_only=True, tag="node.registration-timeout.v1"):
    KIND: ClassVar[str] = "node.registration-timeout"
    waited_s: Seconds = 0.0


class NodeActive(Event, frozen=True, kw_only=True, tag="node.active.v1"):
    KIND: ClassVar[str] = "node.active"
    replaces: Name = ""
    boot_s: Seconds = 0.0
    """From the launch intent to active."""


class NodeSuspect(Event, frozen=True, kw_only=True, tag="node.suspect.v1"):
    """Evidence below the threshold: silence, or a fault that does not condemn."""

    KIND: ClassVar[str] = "node.suspect"
    cause: Code = "silence"
    silent_s: Seconds = 0.0


class NodeDegraded(Event, frozen=True, kw_only=True, tag="node.degraded.v1"):
    KIND: ClassVar[str] = "node.degraded"
    cause: Code = "none"
    rule: Name = ""
    action: Action = "none"
    entity: Name = ""
    evidence: Evidences = ()


class NodeFailed(Event, frozen=True, kw_only=True, tag="node.failed.v1"):
    """Health's verdict is that the node failed. Committed together with the verdict."""

    KIND: ClassVar[str] = "node.failed"
    failure_id: Name = ""
    cause: Code = "none"
    """`xid-79`, `silence`, `provider-gone`, `thermal`…"""
    rule: Name = ""
    severity: Code = "fatal"
    action: Action = "drain_and_replace"
    evidence: Evidences = ()
    entity: Name = ""
    gpus: Gpus = ()
    hostname: Name = ""
    addresses: Names = ()
    provider: Name = ""
    region: Name = ""
    instance_id: Name = ""
    provider_id: Name = ""
    generation: Generation = 0


class NodeRecovered(Event, frozen=True, kw_only=True, tag="node.recovered.v1"):
    KIND: ClassVar[str] = "node.recovered"
    was: Code = "suspect"


class NodeCordoned(Event, frozen=True, kw_only=True, tag="node.cordoned.v1"):
    KIND: ClassVar[str] = "node.cordoned"
    holder: Name = ""


class NodeUncordoned(Event, frozen=True, kw_only=True, tag="node.uncordoned.v1"):
    KIND: ClassVar[str] = "node.uncordoned"
    holder: Name = ""
    still_held_by: Names = ()


class NodeDraining(Event, frozen=True, kw_only=True, tag="node.draining.v1"):
    KIND: ClassVar[str] = "node.draining"
    cause: Code = "fault"
    deadline_s: Seconds = 0.0
    blocked_by: Text = ""


class NodeDrained(Event, frozen=True, kw_only=True, tag="node.drained.v1"):
    KIND: ClassVar[str] = "node.drained"
    skipped: bool = False
    forced: bool = False
    """The deadline passed while work was still there."""


class NodeTerminating(Event, frozen=True, kw_only=True, tag="node.terminating.v1"):
    KIND: ClassVar[str] = "node.terminating"
    provider: Name = ""
    instance_id: Name = ""
    replaced_by: Name = ""


class NodeTerminated(Event, frozen=True, kw_only=True, tag="node.terminated.v1"):
    KIND: ClassVar[str] = "node.terminated"
    provider: Name = ""
    instance_id: Name = ""
    lived_s: Seconds = 0.0


class NodeReplacementCancelled(Event, frozen=True, kw_only=True, tag="node.replacement-cancelled.v1"):
    """An operator stopped it: the failed node is kept, cordoned."""

    KIND: ClassVar[str] = "node.replacement-cancelled"
    replaced_by: Name = ""


class InstanceLeaked(Event, frozen=True, kw_only=True, tag="instance.leaked.v1"):
    """A machine with our tags and no record was found at a provider."""

    KIND: ClassVar[str] = "instance.leaked"
    provider: Name = ""
    instance_id: Name = ""
    price_per_hour: Dollars | None = None


class InstanceCollected(Event, frozen=True, kw_only=True, tag="instance.collected.v1"):
    """A leaked machine that we ended is gone."""

    KIND: ClassVar[str] = "instance.collected"
    provider: Name = ""
    instance_id: Name = ""
    price_per_hour: Dollars | None = None


class PoolResized(Event, frozen=True, kw_only=True, tag="pool.resized.v1"):
    KIND: ClassVar[str] = "pool.resized"
    before: Count = 0
    after: Count = 0


class PoolExhausted(Event, frozen=True, kw_only=True, tag="pool.exhausted.v1"):
    KIND: ClassVar[str] = "pool.exhausted"
    missing: Count = 0
    retry_s: Seconds = 0.0


class PoolPaused(Event, frozen=True, kw_only=True, tag="pool.paused.v1"):
    KIND: ClassVar[str] = "pool.paused"


class PoolResumed(Event, frozen=True, kw_only=True, tag="pool.resumed.v1"):
    KIND: ClassVar[str] = "pool.resumed"


class PoolBreakerOpened(Event, frozen=True, kw_only=True, tag="pool.breaker-opened.v1"):
    """So much fails in a pool that automation takes no node out any more, but for a canary now and then."""

    KIND: ClassVar[str] = "pool.breaker-opened"
    unhealthy: Count = 0
    failed_starts: Count = 0


class PoolBreakerClosed(Event, frozen=True, kw_only=True, tag="pool.breaker-closed.v1"):
    KIND: ClassVar[str] = "pool.breaker-closed"


class PoolChangeHeld(Event, frozen=True, kw_only=True, tag="pool.change-held.v1"):
    """Automation waits for an operator to approve a change."""

    KIND: ClassVar[str] = "pool.change-held"
    change: Name = ""
    act: Code = "none"
    about: Name = ""
    """The node, where it is about one."""


class PoolRetiring(Event, frozen=True, kw_only=True, tag="pool.retiring.v1"):
    """The pool left the configuration: no launches, and nothing is terminated until it is deleted."""

    KIND: ClassVar[str] = "pool.retiring"


class ProviderDegraded(Event, frozen=True, kw_only=True, tag="provider.degraded.v1"):
    KIND: ClassVar[str] = "provider.degraded"
    provider: Name = ""


class ProviderRecovered(Event, frozen=True, kw_only=True, tag="provider.recovered.v1"):
    KIND: ClassVar[str] = "provider.recovered"
    provider: Name = ""


class OperatorAction(Event, frozen=True, kw_only=True, tag="operator.action.v1"):
    """Someone asked for something, and the wish is durable. On the subject `operator.<action>`."""

    KIND: ClassVar[str] = "operator.action"
    action: Code
    request_id: Name = ""


class SafeModeEntered(Event, frozen=True, kw_only=True, tag="cluster.safe-mode-entered.v1"):
    KIND: ClassVar[str] = "cluster.safe-mode-entered"


class SafeModeLeft(Event, frozen=True, kw_only=True, tag="cluster.safe-mode-left.v1"):
    KIND: ClassVar[str] = "cluster.safe-mode-left"


class ConfigApplied(Event, frozen=True, kw_only=True, tag="cluster.config-applied.v1"):
    KIND: ClassVar[str] = "cluster.config-applied"
    generation: Count = 0
    sha256: Name = ""


class ConfigRejected(Event, frozen=True, kw_only=True, tag="cluster.config-rejected.v1"):
    KIND: ClassVar[str] = "cluster.config-rejected"
    generation: Count = 0
    """The generation that stays in force."""
    errors: Annotated[tuple[Text, ...], Meta(max_length=32)] = ()


class Frozen(Event, frozen=True, kw_only=True, tag="cluster.frozen.v1"):
    KIND: ClassVar[str] = "cluster.frozen"
    level: Code = "all"


class Unfrozen(Event, frozen=True, kw_only=True, tag="cluster.unfrozen.v1"):
    KIND: ClassVar[str] = "cluster.unfrozen"


class MessageRejected(Event, frozen=True, kw_only=True, tag="cluster.message-rejected.v1"):
    """A message that could not be used was dropped. At most one a minute and source; `count` says how many."""

    KIND: ClassVar[str] = "cluster.message-rejected"
    subject: Text = ""
    count: Count = 1


class LimitReached(Event, frozen=True, kw_only=True, tag="cluster.limit-reached.v1"):
    """A limit of the configuration keeps a pool from what it wants. Told once for a pool while it lasts."""

    KIND: ClassVar[str] = "cluster.limit-reached"
    limit: Text = ""
    """The key: `limits.nodes`, `pools.training.limits.dollars_per_hour`."""


class Alarm(Event, frozen=True, kw_only=True, tag="cluster.alarm.v1"):
    KIND: ClassVar[str] = "cluster.alarm"


ALL: tuple[type[Event], ...] = tuple(kind for kind in Event.__subclasses__() if kind.__module__ == __name__)
"""Every kind of event, in the order of this file."""
