"""Events, reasons and records' changes said in one breath, so that what is stored and what is told never differ."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from msgspec import structs

from navarch_common.events.base import Event
from navarch_common.model.base import Reason, with_reason
from navarch_common.model.node import NodeRecord, Phase
from navarch_common.model.pool import SupplyRecord

ACTOR = "provisioner"
TEXT_MAX = 1024

E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class Why:
    """A stable word and a sentence: what a decision rests on."""

    code: str
    text: str
    actor: str = ACTOR
    limit: str = ""
    """The key of the configuration that is reached: `pools.training.limits.nodes`."""

    def reason(self, now: datetime, trace: str = "") -> Reason:
        return Reason(at=now, code=self.code, text=self.text[:TEXT_MAX], actor=self.actor, trace=trace)


@dataclass(frozen=True, slots=True)
class Changed:
    """A record as it should be, with what is to be told of it."""

    record: NodeRecord
    events: tuple[Event, ...] = ()


def tell(kind: type[E], record: NodeRecord, cluster: str, why: Why, now: datetime, **fields: Any) -> E:
    """An event about `record`."""
    return kind(
        at=now,
        cluster=cluster,
        pool=record.pool,
        node=record.node,
        reason=why.text[:TEXT_MAX],
        code=why.code,
        actor=why.actor,
        trace_id=trace_id_of(record.trace),
        **fields,
    )


def tell_pool(kind: type[E], pool: str, cluster: str, why: Why, now: datetime, **fields: Any) -> E:
    """An event about a pool."""
    return kind(
        at=now, cluster=cluster, pool=pool, reason=why.text[:TEXT_MAX], code=why.code, actor=why.actor, **fields
    )


def trace_id_of(traceparent: str) -> str:
    """The trace id within a W3C `traceparent`; empty where there is none."""
    parts = traceparent.split("-")
    return parts[1] if len(parts) == 4 and len(parts[1]) == 32 else ""


def note(record: NodeRecord, why: Why, now: datetime, **changes: Any) -> NodeRecord:
    """`record` with `changes` and the reason for them. Nothing blocks it any more, unless `changes` says so."""
    reasons = with_reason(record.reasons, why.reason(now, record.trace))
    return structs.replace(record, **{"reasons": reasons, "blocked": None, **changes})


def enter(record: NodeRecord, phase: Phase, why: Why, now: datetime, **changes: Any) -> NodeRecord:
    """`record` in another phase, since now."""
    return note(record, why, now, phase=phase, phase_since=now, **changes)


def note_supply(supply: SupplyRecord, why: Why, now: datetime, **changes: Any) -> SupplyRecord:
    reasons = with_reason(supply.reasons, why.reason(now))
    return structs.replace(supply, **{"reasons": reasons, **changes})
