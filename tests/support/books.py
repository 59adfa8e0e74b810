"""The truth after the storm, from three sides: the cloud's own books, the records, the stream of events. `violations` says
in sentences what does not fit; it is pure.
"""

import asyncio
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import nats

from navarch_common.events.subjects import Subjects
from navarch_common.model.health import HEALTH, HealthRecord, HealthStatus
from navarch_common.model.node import ENDED, NODE, NodeRecord, Phase
from navarch_common.model.pool import POOL
from navarch_common.store.redis import RedisStore
from navarch_common.store.redis_commit import Names
from navarch_common.store.redis_connect import connect
from support.clouds import Machines, Made
from support.hostile import Deeds
from support.outsider import DURABLE

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
    def rev(self) -> int:
        return int(self.event["rev"])

    @property
    def at(self) -> datetime:
        return datetime.fromisoformat(self.event["at"])


@dataclass
class Books:
    desired: int
    machines: list[Made]
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
    heard: set[str] | None = None
    """Ids of the events that a subscriber from outside was told of; None where there was none."""

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


async def read_books(
    cloud: Machines, store: RedisStore, *, nats_url: str, redis_url: str, cluster: str, pool: str
) -> Books:
    async with asyncio.timeout(30):
        stored = await store.get(POOL.key(pool))
        assert stored is not None
        nodes = await store.records(NODE, pool)
        health = await store.records(HEALTH, pool)
        books = Books(
            desired=stored.record.desired,
            machines=await asyncio.to_thread(cloud.made),
            nodes={one.record.node: one.record for one in nodes},
            health={one.record.node: one.record for one in health},
            told=[],
            outbox=await store.outbox_length(),
            budgets=await _budgets(redis_url, cluster),
        )
        await _read_streams(books, nats_url, cluster)
    return books


async def _budgets(redis_url: str, cluster: str) -> dict[str, list[str]]:
    raw: Any = connect(redis_url, timeout_s=5.0)
    prefix = Names(cluster).bucket("")
    try:
        keys = [key.decode() async for key in raw.scan_iter(match=f"{prefix}*", count=1000)]
        names = [key.removeprefix(prefix) for key in keys if "hour" not in key]
        return {name: [member.decode() for member in await raw.zrange(f"{prefix}{name}", 0, -1)] for name in names}
    finally:
        await raw.aclose()


async def _read_streams(books: Books, nats_url: str, prefix: str) -> None:
    subjects = Subjects(prefix)
    client = await nats.connect(nats_url.split(","))
    try:
        stream = client.jetstream(timeout=5)
        for name in (subjects.stream("REPORTS"), subjects.stream("EVENTS")):
            for info in await stream.consumers_info(name):
                # Other people's consumers are their own business.
                if info.config.durable_name and (name != subjects.stream("EVENTS") or info.name == DURABLE):
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
        *_duplicates(books),
        *_leaks(books),
        *_without_machine(books),
        *_missing(books, deeds),
        *_failures(books, deeds),
        *_ends(books, deeds),
        *_twice(books),
        *_order(books),
        *_unheard(books),
        *([f"still astir: {books.quiet()}"] if books.quiet() else []),
        *([f"{books.reports} reports were never taken"] if books.reports else []),
        *deeds.surprises,
    ]


def _duplicates(books: Books) -> list[str]:
    ever = Counter(machine.request.node for machine in books.machines)
    tokens = Counter(machine.request.token for machine in books.machines)
    on = _living(books)
    wrong = [f"{count} machines were made for {node}" for node, count in ever.items() if count > 1]
    wrong += [f"{count} machines were made for token {token}" for token, count in tokens.items() if count > 1]
    return wrong + [f"{count} machines live for {node}" for node, count in on.items() if count > 1]


def _leaks(books: Books) -> list[str]:
    known = {node for node, record in books.nodes.items() if record.phase not in ENDED}
    lost = sorted(_living(books).keys() - known)
    return [f"the machine of {node} lives, its record is {_phase(books, node)}" for node in lost]


def _without_machine(books: Books) -> list[str]:
    known = {node for node, record in books.nodes.items() if record.phase not in ENDED}
    return [f"{node} is {_phase(books, node)} and has no machine" for node in sorted(known - _living(books).keys())]


def _living(books: Books) -> Counter[str]:
    return Counter(machine.request.node for machine in books.machines if machine.power != "ended")


def _phase(books: Books, node: str) -> str:
    return books.nodes[node].phase.value if node in books.nodes else "missing"


def _missing(books: Books, deeds: Deeds) -> list[str]:
    """Who was broken failed, and whoever listens heard of it; unless its machine was on its way out already."""
    failed = books.of("node.failed")
    drained = {node for node, told in books.of("node.draining").items() if told[0].event["cause"] == "scale-down"}
    wrong = []
    for node in sorted(deeds.broken):
        if node not in failed:
            if node not in drained:
                wrong.append(f"{node} was broken and never failed: {_story(books, node)}")
        elif books.heard is not None and not any(one.id in books.heard for one in failed[node]):
            wrong.append(f"{node} failed and the subscriber was never told: {_story(books, node)}")
    return wrong


def _failures(books: Books, deeds: Deeds) -> list[str]:
    """Who failed did so once and is gone; who was not broken did not fail. What a store that went back had forgotten is
    judged anew, under the same id."""
    failed, on = {node: _once(books, told) for node, told in books.of("node.failed").items()}, _living(books)
    wrong = [
        f"{node} was broken and its machine still lives: {_story(books, node)}"
        for node in sorted(deeds.broken)
        if node in on
    ]
    for node, told in sorted(failed.items()):
        if len(told) > 1:
            wrong.append(f"{node} failed {len(told)} times: {_story(books, node)}")
        if node not in deeds.broken | deeds.perhaps:
            wrong.append(f"{node} failed and was not broken: {_story(books, node)}")
    ids = Counter(one.event["failure_id"] for told in failed.values() for one in told)
    return wrong + [f"{count} events tell of failure {failure}" for failure, count in ids.items() if count > 1]


def _once(books: Books, told: list[Told]) -> list[Told]:
    """Without the repeats of failures that a safe mode came after."""
    kept = told[:1]
    for one in told[1:]:
        last = kept[-1]
        between = any(last.rev < entered.rev < one.rev for entered in books.of("cluster.safe-mode-entered")[""])
        if not (between and one.event["failure_id"] == last.event["failure_id"]):
            kept.append(one)
    return kept


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


def _twice(books: Books) -> list[str]:
    """What can happen to a node once is told once; but for one that was found again after its record was lost."""
    adopted = {node for node, told in books.of("node.launched").items() if told[-1].event.get("code") == "adopted"}
    return [
        f"{node}: {kind} was told {len(told)} times: {_story(books, node)}"
        for kind in ("node.planned", "node.launched", "node.active", "node.terminated")
        for node, told in books.of(kind).items()
        if len(told) > 1 and node not in adopted
    ]


def _order(books: Books) -> list[str]:
    last: dict[str, Told] = {}
    wrong = []
    for one in books.first_copies():
        before = last.get(one.node)
        if one.node and before is not None and before.event["rev"] > one.event["rev"]:
            wrong.append(f"{one.node}: {one.kind} {one.id} came after {before.kind} {before.id}")
        last[one.node] = one
    return wrong


def _unheard(books: Books) -> list[str]:
    if books.heard is None:
        return []
    missed = [one for one in books.first_copies() if one.id not in books.heard]
    return [f"the subscriber was never told of {one.kind} {one.id} of {one.node}" for one in missed]


def _story(books: Books, node: str) -> str:
    told = [
        f"\n    {one.event['at']} {one.kind} {one.id} {one.event['reason']}" for one in books.told if one.node == node
    ]
    return f"now {_phase(books, node)}{''.join(told)}"


def headline(books: Books, deeds: Deeds, quiet_s: float) -> str:
    """The figures that people pay for, in one line."""
    kinds = ("xid", "death", "stillbirth")
    of = ", ".join(f"{deeds.counts[f'machine {kind}']} {kind}" for kind in kinds)
    kills = sum(count for deed, count in deeds.counts.items() if deed.startswith(("kill", "pause", "network")))
    return (
        f"{deeds.failures} failures ({of}) under {kills} faults: {len(_duplicates(books))} duplicate launches, "
        f"{len(_leaks(books))} leaks, {len(_missing(books, deeds))} missing node.failed, {len(_ends(books, deeds))} healthy "
        f"nodes terminated, back at desired {quiet_s:.0f} s after the last fault"
    )


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
