"""The truth after the storm, from three sides: the cloud's own books, the records, the stream of events. `violations` says
in sentences what does not fit; it is pure.
"""

import asyncio
import json
import sqlite3
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import nats
from redis.asyncio import Redis

from navarch_common.events.subjects import Subjects
from navarch_common.model.health import HEALTH, HealthRecord, HealthStatus
from navarch_common.model.node import ENDED, NODE, NodeRecord, Phase
from navarch_common.model.pool import POOL
from navarch_common.store.redis import RedisStore
from navarch_common.store.redis_commit import Names
from navarch_sim.fake_cloud.world import FakeMachine
from support.hostile import Deeds

WORK_IS_KNOWN = timedelta(seconds=3)
"""After so long every copy has heard of work on a node."""


@dataclass
class Told:
    """One event, as it stands in the stream."""

    sequence: int
    event: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.event["type"]).removesuffix(".v1")

    @property
    def node(self) -> str:
        return str(self.event["node"])

    @property
    def id(self) -> str:
        return str(self.event["id"])

    @property
    def at(self) -> datetime:
        return datetime.fromisoformat(self.event["at"])


@dataclass
class Books:
    desired: int
    machines: list[FakeMachine]
    """Every machine that was ever made."""
    nodes: dict[str, NodeRecord]
    health: dict[str, HealthRecord]
    told: list[Told]
    outbox: int
    budgets: dict[str, list[str]] = field(default_factory=dict)
    """Holders by bucket, without the hourly ones, which time alone empties."""
    pending: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By durable consumer: messages not yet delivered, and messages delivered and not acknowledged."""
    reports: int = 0
    """Messages in the work queue."""

    def first_copies(self) -> list[Told]:
        seen: set[str] = set()
        return [one for one in self.told if not (one.id in seen or seen.add(one.id))]  # type: ignore[func-returns-value]

    def of(self, kind: str) -> dict[str, list[Told]]:
        """First copies of a kind of event by node."""
        found: dict[str, list[Told]] = defaultdict(list)
        for one in self.first_copies():
            if one.kind == kind:
                found[one.node].append(one)
        return found

    def quiet(self) -> str:
        """What still goes on; empty when nothing does."""
        living = [record for record in self.nodes.values() if record.phase not in ENDED]
        astir = Counter(record.phase.value for record in living if record.phase is not Phase.ACTIVE)
        ill = Counter(
            self.health[record.node].status.value if record.node in self.health else "unheard"
            for record in living
            if record.node not in self.health or self.health[record.node].status is not HealthStatus.HEALTHY
        )
        on = sum(machine.power != "ended" for machine in self.machines)
        waiting = {name: counts for name, counts in self.pending.items() if any(counts)}
        if (
            len(living) != self.desired
            or on != self.desired
            or astir
            or ill
            or self.outbox
            or waiting
            or any(self.budgets.values())
        ):
            return (
                f"{len(living)} of {self.desired} nodes, {on} machines, {dict(astir)}, {dict(ill)}, outbox {self.outbox}, "
                f"pending {waiting}, budgets {self.budgets}"
            )
        return ""


def machines_of(cloud: Path) -> list[FakeMachine]:
    """What the cloud wrote down, without asking it."""
    with sqlite3.connect(f"file:{cloud / 'cloud.db'}?mode=ro", uri=True) as database:
        rows = database.execute("SELECT body FROM machines ORDER BY rowid").fetchall()
    database.close()
    return [msgspec.json.decode(body, type=FakeMachine) for (body,) in rows]


async def read_books(
    cloud: Path, store: RedisStore, *, nats_url: str, redis_url: str, cluster: str, pool: str
) -> Books:
    async with asyncio.timeout(30):
        stored = await store.get(POOL.key(pool))
        assert stored is not None
        nodes = await store.records(NODE, pool)
        health = await store.records(HEALTH, pool)
        books = Books(
            desired=stored.record.desired,
            machines=machines_of(cloud),
            nodes={one.record.node: one.record for one in nodes},
            health={one.record.node: one.record for one in health},
            told=[],
            outbox=await store.outbox_length(),
            budgets=await _budgets(redis_url, cluster),
        )
        await _read_streams(books, nats_url, cluster)
    return books


async def _budgets(redis_url: str, cluster: str) -> dict[str, list[str]]:
    raw: Any = Redis.from_url(redis_url, protocol=2)
    prefix = Names(cluster).bucket("")
    try:
        keys = [key.decode() async for key in raw.scan_iter(match=f"{prefix}*", count=1000)]
        names = [key.removeprefix(prefix) for key in keys if "hour" not in key]
        return {name: [member.decode() for member in await raw.zrange(f"{prefix}{name}", 0, -1)] for name in names}
    finally:
        await raw.aclose()


async def _read_streams(books: Books, nats_url: str, prefix: str) -> None:
    subjects = Subjects(prefix)
    client = await nats.connect(nats_url)
    try:
        stream = client.jetstream(timeout=5)
        for name in (subjects.stream("REPORTS"), subjects.stream("EVENTS")):
            for info in await stream.consumers_info(name):
                if info.config.durable_name:
                    books.pending[f"{name}/{info.name}"] = (info.num_pending or 0, info.num_ack_pending or 0)
        books.reports = (await stream.stream_info(subjects.stream("REPORTS"))).state.messages
        state = (await stream.stream_info(subjects.stream("EVENTS"))).state
        reader = await stream.subscribe(subjects.events, stream=subjects.stream("EVENTS"), ordered_consumer=True)
        for _ in range(state.messages):
            message = await reader.next_msg(timeout=5)
            books.told.append(Told(message.metadata.sequence.stream, json.loads(message.data)))
        await reader.unsubscribe()
    finally:
        await client.close()


def violations(books: Books, deeds: Deeds) -> list[str]:
    return [
        *_machines_and_records(books),
        *_failures(books, deeds),
        *_ends(books, deeds),
        *_order(books),
        *([f"still astir: {books.quiet()}"] if books.quiet() else []),
        *([f"{books.reports} reports were never taken"] if books.reports else []),
        *deeds.surprises,
    ]


def _machines_and_records(books: Books) -> list[str]:
    ever = Counter(machine.request.node for machine in books.machines)
    tokens = Counter(machine.request.token for machine in books.machines)
    on = Counter(machine.request.node for machine in books.machines if machine.power != "ended")
    living = {node for node, record in books.nodes.items() if record.phase not in ENDED}
    wrong = [f"{count} machines were made for {node}" for node, count in ever.items() if count > 1]
    wrong += [f"{count} machines were made for token {token}" for token, count in tokens.items() if count > 1]
    wrong += [f"{count} machines live for {node}" for node, count in on.items() if count > 1]
    wrong += [f"the machine of {node} lives, its record is {_phase(books, node)}" for node in on.keys() - living]
    wrong += [f"{node} is {_phase(books, node)} and has no machine" for node in living - on.keys()]
    return wrong


def _phase(books: Books, node: str) -> str:
    return books.nodes[node].phase.value if node in books.nodes else "missing"


def _failures(books: Books, deeds: Deeds) -> list[str]:
    """Who was broken failed once and is gone; who was not, did not fail."""
    failed = books.of("node.failed")
    drained = {node for node, told in books.of("node.draining").items() if told[0].event["cause"] == "scale-down"}
    on = {machine.request.node for machine in books.machines if machine.power != "ended"}
    wrong = []
    for node in sorted(deeds.broken):
        told = failed.get(node, [])
        if not told and node not in drained:
            wrong.append(f"{node} was broken and never failed: {_story(books, node)}")
        if node in on:
            wrong.append(f"{node} was broken and its machine still lives: {_story(books, node)}")
    for node, told in sorted(failed.items()):
        if len(told) > 1:
            wrong.append(f"{node} failed {len(told)} times: {_story(books, node)}")
        if node not in deeds.broken | deeds.perhaps:
            wrong.append(f"{node} failed and was not broken: {_story(books, node)}")
    ids = Counter(one.event["failure_id"] for told in failed.values() for one in told)
    return wrong + [f"{count} events tell of failure {failure}" for failure, count in ids.items() if count > 1]


def _ends(books: Books, deeds: Deeds) -> list[str]:
    """No healthy machine was ended but by scale-down, when idle."""
    failed, draining = books.of("node.failed"), books.of("node.draining")
    wrong = []
    for machine in books.machines:
        node = machine.request.node
        if machine.power != "ended" or node in failed or node in deeds.broken | deeds.perhaps:
            continue
        told = draining.get(node, [])
        if not told or told[-1].event["cause"] != "scale-down":
            wrong.append(f"{node} was ended, and nothing was wrong with it: {_story(books, node)}")
        elif node in deeds.busy and told[-1].at > deeds.busy[node] + WORK_IS_KNOWN:
            wrong.append(f"{node} was busy since {deeds.busy[node]} and ended as idle: {_story(books, node)}")
    return wrong


def _order(books: Books) -> list[str]:
    last: dict[str, Told] = {}
    wrong = []
    for one in books.first_copies():
        before = last.get(one.node)
        if one.node and before is not None and before.event["rev"] > one.event["rev"]:
            wrong.append(f"{one.node}: {one.kind} {one.id} came after {before.kind} {before.id}")
        last[one.node] = one
    return wrong


def _story(books: Books, node: str) -> str:
    told = [
        f"\n    {one.event['at']} {one.kind} {one.id} {one.event['reason']}" for one in books.told if one.node == node
    ]
    return f"now {_phase(books, node)}{''.join(told)}"


def numbers(books: Books, deeds: Deeds) -> str:
    """What happened, for people."""
    kinds = Counter(one.kind for one in books.first_copies())
    launches = Counter(machine.request.node for machine in books.machines)
    alive = sum(machine.power != "ended" for machine in books.machines)
    return "\n".join(
        (
            f"done: {dict(sorted(deeds.counts.items()))}",
            f"broken: {len(deeds.broken)} certainly, {len(deeds.perhaps)} perhaps; busy: {len(deeds.busy)}",
            f"machines made: {len(books.machines)} for {len(launches)} nodes, alive: {alive}, wanted: {books.desired}",
            f"events: {dict(sorted(kinds.items()))}, repeated: {len(books.told) - len(books.first_copies())}",
        )
    )
