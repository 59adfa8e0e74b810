"""How many observations a health service can judge: the built-in policy, beside its bare CEL programs.

The observations are those that the 95 sample lines give, and readings of every sort. The ceiling evaluates the same
conditions up to the one that matches, over activations that were made beforehand.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from bench.lines import samples
from bench.report import Figure
from navarch_agent.checks import from_kernel
from navarch_agent.log.base import KernelRecord
from navarch_common.events.messages import Observation
from navarch_common.model.node import NodeRecord, Phase
from navarch_common.xid import parse_line
from navarch_health import policy as policies
from navarch_health.facts import facts_of, subject_of
from navarch_health.verdict import Context, first_sight

AT = datetime(2026, 1, 1, tzinfo=UTC)
ROUNDS = 5
READINGS = (
    Observation(at=AT, event_type="thermal", gpu_index=1, metrics={"temperature": 88.0}),
    Observation(at=AT, event_type="host", metrics={"kind": "disk_full", "ended": False}),
    Observation(at=AT, event_type="memory", gpu_index=1, metrics={"kind": "remap_pending", "ended": False}),
    Observation(at=AT, event_type="check", metrics={"kind": "burn-in", "level": "critical", "ended": False}),
    Observation(at=AT, event_type="xid", code=9999, pci="0000:07:00", message="said a driver of tomorrow"),
)


async def run() -> list[Figure]:
    policy = policies.default_policy()
    node = NodeRecord(
        node="training-a", pool="training", generation=1, phase=Phase.ACTIVE, phase_since=AT, created_at=AT
    )
    record = first_sight(node, Context(cluster="bench", now=AT)).record
    seen = [*_from_lines(), *READINGS * 4]
    facts = [facts_of(one, subject_of(one, ()), node, record, ()) for one in seen]
    environment: Any = policies._environment()
    activations = [environment.Activation({name: getattr(one, name) for name in policies.VARIABLES}) for one in facts]
    programs = [program for _, program in policy._programs]

    def bare() -> None:
        for activation in activations:
            for program in programs:
                if program.eval(activation).value() is True:
                    break

    def judged() -> None:
        for one in facts:
            policy.judge(one)

    def whole() -> None:
        for one in seen:
            policy.judge(facts_of(one, subject_of(one, ()), node, record, ()))

    ceiling = len(seen) / _took_s(bare)
    note = f"{len(policy.rules)} rules, {len(seen)} observations"
    return [
        Figure(
            bench="policy",
            what=what,
            value=len(seen) / _took_s(work),
            unit="/s",
            ceiling=ceiling,
            better="more",
            note=note,
        )
        for what, work in (("judged", judged), ("judged, with the facts made", whole))
    ]


def _from_lines() -> list[Observation]:
    found = []
    for line in samples():
        record = KernelRecord(sequence=1, at=AT, text=line, boot_id="boot", place="1")
        if (fault := parse_line(line)) and (observation := from_kernel(fault, record, ())):
            found.append(observation)
    return found


def _took_s(work: Callable[[], None]) -> float:
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(10):
            work()
        took.append((time.perf_counter() - began) / 10)
    return min(took)
