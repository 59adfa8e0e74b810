"""Verdicts: what is thought of each entity of a node, rolled up, and the events that a change of mind calls for.

Every verdict goes through `settle`: the worst entity decides, the class of the node follows, and what changed is told.
A verdict is only ever made worse by what is seen (so neither order nor repetition matters) and goes in few ways:

- The driver takes back its own verdict (Xid 154 to none), and nothing but that.
- A reading or a rate goes after its rule's `clears_after` without repetition. Never an unhealthy verdict.
- A boot that registered after the fault takes with it what a reboot or less repairs (`life.booted`); the node is then
  unknown until its agent reports a full pass. What asks for `drain_and_replace` never goes: only another machine helps.
- Another generation behind the same node id starts a new record.

Time alone never clears a fatal verdict, and neither does a restart of the agent.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from msgspec import structs

from navarch_common.events.base import Event
from navarch_common.events.kinds import NodeDegraded, NodeFailed, NodeRecovered, NodeSuspect
from navarch_common.model.base import Reason, with_reason
from navarch_common.model.gpu import Gpu
from navarch_common.model.health import AGENT, EVIDENCE_MAX, EntityVerdict, Evidence, HealthRecord, HealthStatus
from navarch_common.model.node import NodeRecord, Phase

MACHINE: Final = "machine"
"""The entity that stands for whether the machine is there: silence, the provider's word."""
NODE: Final = "node"
"""The entity of what is about the node as a whole, or about more entities than a record holds."""
ENTITIES_MAX: Final = 512
REASON_MAX: Final = 1024

WATCHED: Final = frozenset({Phase.VALIDATING, Phase.ACTIVE, Phase.DRAINING, Phase.REPAIRING, Phase.QUARANTINED})
"""Phases in which a machine is expected to be heard, and a suspicion can be taken back. Before them its registration has
a deadline; after them it is to go and stays what it was."""

_STATUS_RANK: Final = {
    HealthStatus.HEALTHY: 0,
    HealthStatus.UNKNOWN: 1,
    HealthStatus.SUSPECT: 2,
    HealthStatus.DEGRADED: 3,
    HealthStatus.UNHEALTHY: 4,
}
_ACTION_RANK: Final = {"none": 0, "restart_app": 1, "reset_gpu": 2, "reboot_node": 3, "drain_and_replace": 4}


@dataclass(frozen=True, slots=True)
class Context:
    """What every verdict carries."""

    cluster: str
    now: datetime
    trace: str = ""
    """The traceparent of what led here."""

    @property
    def trace_id(self) -> str:
        parts = self.trace.split("-")
        return parts[1] if len(parts) == 4 and len(parts[1]) == 32 else ""


@dataclass(frozen=True, slots=True)
class Change:
    """A record as it is to be, and what to tell of it."""

    record: HealthRecord
    events: tuple[Event, ...] = ()
    class_changed: bool = False
    """The node's status changed: the pool's `verdicts` marker is renewed."""


def first_sight(node: NodeRecord, context: Context) -> Change:
    """A node that no verdict is about yet, or one with a new machine behind it: unknown, until it has been heard."""
    record = HealthRecord(
        node=node.node,
        pool=node.pool,
        generation=node.generation,
        status=HealthStatus.UNKNOWN,
        since=context.now,
        code="not-heard",
        reason=_NOT_HEARD,
        boot_id="" if node.registration is None else node.registration.boot_id,
        trace=context.trace,
    )
    return Change(record, class_changed=True)


def worse(verdict: EntityVerdict, other: EntityVerdict) -> EntityVerdict:
    """The worse of two verdicts on one entity, with the evidence of both. Which came first does not matter."""
    kept, dropped = (other, verdict) if _weight(other) > _weight(verdict) else (verdict, other)
    evidence = merge_evidence(kept.evidence, dropped.evidence, kept.code)
    since = min(verdict.since, other.since) if verdict.status == other.status else kept.since
    return structs.replace(kept, evidence=evidence, since=since)


def merge_evidence(one: tuple[Evidence, ...], other: tuple[Evidence, ...], code: str) -> tuple[Evidence, ...]:
    """Both, each once, newest last. What is over the bound goes: first what is not about `code`, then the oldest."""
    unique = {(e.at, e.code, e.sequence, e.text): e for e in (*one, *other)}
    ranked = sorted(unique.values(), key=lambda e: (e.code == code, e.at, e.sequence, e.code, e.text))
    return tuple(sorted(ranked[-EVIDENCE_MAX:], key=lambda e: (e.at, e.sequence, e.code, e.text)))


def settle(
    before: HealthRecord | None, draft: HealthRecord, node: NodeRecord, context: Context, *, told: Reason | None = None
) -> Change | None:
    """Rolls the entities of `draft` up and says what changed against `before`; None where nothing did."""
    record = _rolled_up(before, draft, node, context)
    was = HealthStatus.UNKNOWN if before is None else before.status
    events: tuple[Event, ...] = ()
    reasons = record.reasons if told is None else with_reason(record.reasons, told)
    if record.status != was:
        events = _events(was, record, node, context)
        at_once = Reason(at=context.now, code=record.code, text=record.reason, actor="health", trace=context.trace)
        reasons = with_reason(reasons, at_once)
    record = structs.replace(record, reasons=reasons)
    if record == before:
        return None
    return Change(record, events, class_changed=before is None or record.status != was)


def leading(record: HealthRecord) -> tuple[str, EntityVerdict] | None:
    """The entity that decides for the node, and what is thought of it."""
    return max(record.entities.items(), key=lambda item: (_weight(item[1]), item[0]), default=None)


def failure_id(node: str, generation: int, boot_id: str, entity: str, code: str, sequence: int) -> str:
    """One per failure: the same for every copy that judges it, another for the next one of the same node."""
    text = "\n".join((node, str(generation), boot_id, entity, code, str(sequence)))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def on_its_way_out(record: HealthRecord, node: NodeRecord) -> bool:
    """Whether a failed node is being drained or replaced: its verdict is acted on and no longer taken back."""
    failed = record.status == HealthStatus.UNHEALTHY
    return failed and (node.drain is not None or node.replaced_by is not None or node.phase not in WATCHED)


def _weight(verdict: EntityVerdict) -> tuple[int, int, bool, str, bool, str]:
    """What is worse is greater. The last three only make it certain which of two equal ones is kept."""
    lasting = verdict.clears_at is None
    status, action = _STATUS_RANK[verdict.status], _ACTION_RANK[verdict.action]
    return (status, action, verdict.takes_work, verdict.code, lasting, verdict.rule)


def _rolled_up(before: HealthRecord | None, draft: HealthRecord, node: NodeRecord, context: Context) -> HealthRecord:
    top = leading(draft)
    passed = AGENT in draft.entities
    if top is None or (not passed and _STATUS_RANK[top[1].status] <= _STATUS_RANK[HealthStatus.UNKNOWN]):
        top = (NODE, EntityVerdict(status=HealthStatus.UNKNOWN, code="not-heard", reason=_NOT_HEARD, since=context.now))
    entity, verdict = top
    same = before is not None and before.status == verdict.status and before.generation == draft.generation
    failed = verdict.status == HealthStatus.UNHEALTHY
    record = structs.replace(
        draft,
        status=verdict.status,
        since=before.since if same and before is not None else context.now,
        action=verdict.action,
        code=verdict.code,
        reason=verdict.reason,
        rule=verdict.rule,
        takes_work=failed and any(v.takes_work for v in draft.entities.values()),
        trace=draft.trace if same else context.trace,
    )
    if not failed:
        return structs.replace(record, failure_id="", failed_at=None)
    if same and record.failure_id:
        return record
    sequence = max((e.sequence for e in verdict.evidence), default=0)
    boot_id = verdict.boot_id or record.boot_id
    return structs.replace(
        record,
        failure_id=failure_id(node.node, node.generation, boot_id, entity, verdict.code, sequence),
        failed_at=context.now,
    )


_NOT_HEARD: Final = "waiting for a heartbeat that says that the GPU driver answers"


def failed_again(record: HealthRecord, node: NodeRecord, context: Context) -> Event:
    """The event of a failure that stands, once more: the one that was told is lost."""
    since = "" if record.failed_at is None else f" since {record.failed_at.isoformat()}"
    text = f"told again, since its event was lost: failed{since}; {record.reason}"[:REASON_MAX]
    (event,) = _events(HealthStatus.UNKNOWN, structs.replace(record, reason=text), node, context)
    return event


def _events(was: HealthStatus, record: HealthRecord, node: NodeRecord, context: Context) -> tuple[Event, ...]:
    told = {
        "at": context.now,
        "cluster": context.cluster,
        "pool": record.pool,
        "node": record.node,
        "reason": record.reason,
        "code": record.code,
        "actor": "health",
        "trace_id": context.trace_id,
    }
    top = leading(record)
    entity, verdict = top or (NODE, None)
    evidence = () if verdict is None else verdict.evidence
    match record.status:
        case HealthStatus.UNHEALTHY:
            return (_failed(record, node, entity, evidence, told),)
        case HealthStatus.DEGRADED:
            return (
                NodeDegraded(
                    **told,  # type: ignore[arg-type]
                    cause=record.code,
                    rule=record.rule,
                    action=record.action,
                    entity=entity,
                    evidence=evidence,
                ),
            )
        case HealthStatus.SUSPECT:
            silent_s = 0.0 if record.silent_since is None else (context.now - record.silent_since).total_seconds()
            return (NodeSuspect(**told, cause=record.code, silent_s=max(0.0, silent_s)),)  # type: ignore[arg-type]
        case HealthStatus.HEALTHY if was != HealthStatus.UNKNOWN:
            return (NodeRecovered(**told, was=str(was)),)  # type: ignore[arg-type]
    return ()


def _failed(
    record: HealthRecord, node: NodeRecord, entity: str, evidence: tuple[Evidence, ...], told: dict[str, object]
) -> NodeFailed:
    registration, instance = node.registration, node.instance
    request = None if node.launch is None else node.launch.request
    return NodeFailed(
        **told,  # type: ignore[arg-type]
        failure_id=record.failure_id,
        cause=record.code,
        rule=record.rule,
        action=record.action,
        evidence=evidence,
        entity=entity,
        gpus=() if registration is None else _concerned(entity, registration.gpus),
        hostname="" if registration is None else registration.hostname,
        addresses=() if registration is None else registration.addresses,
        provider=instance.provider if instance is not None else request.provider if request is not None else "",
        region=instance.region if instance is not None else request.region if request is not None else "",
        instance_id="" if instance is None else instance.instance_id,
        provider_id="" if instance is None else instance.provider_id,
        generation=node.generation,
    )


def _concerned(entity: str, gpus: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    """The GPU that a verdict is about, or all of them where it is about the machine."""
    kind, _, rest = entity.partition(":")
    if kind != "gpu":
        return gpus if kind in (AGENT, MACHINE, NODE) else ()
    name = rest.partition("/")[0]
    return tuple(gpu for gpu in gpus if name in (gpu.uuid, gpu.pci, str(gpu.index)))
