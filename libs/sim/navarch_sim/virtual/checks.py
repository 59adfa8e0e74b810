"""What must hold at every moment, whatever happens, and what must come true once nothing happens any more.

Safety is checked at each commit and at each thing that a cloud does; liveness at the end, again and again until it holds
or its time is over. Nothing here asks a service what it thinks: records, clouds, streams and the truth are compared.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import msgspec

from navarch_common.bus.base import Delivery, StoredMessage
from navarch_common.config import Config
from navarch_common.events import BadMessage, decode
from navarch_common.events.codec import decode_event
from navarch_common.events.kinds import NodeFailed
from navarch_common.events.messages import CommandResult, HealthReport, LifecycleReport, Registered
from navarch_common.model.cluster import InboxRecord
from navarch_common.model.health import HEALTH, HealthRecord, HealthStatus
from navarch_common.model.node import ENDED, NODE, NodeRecord, Phase
from navarch_common.model.pool import POOL, SUPPLY, SupplyRecord
from navarch_common.store.encoding import from_us, split_value
from navarch_common.store.publish import PUBLISH_TIMEOUT_S
from navarch_common.store.relay import STALE_S
from navarch_provisioner import lifecycle
from navarch_sim.fake_cloud.world import FakeMachine
from navarch_sim.virtual import bounds
from navarch_sim.virtual.air import later
from navarch_sim.virtual.bounds import Bounds
from navarch_sim.virtual.clock import BEGIN
from navarch_sim.virtual.ground import Ground
from navarch_sim.virtual.orders import Orders
from navarch_sim.virtual.storage import Applied


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken."""

    invariant: str
    at_s: float
    text: str


class Broken(Exception):
    """The run is over: a promise was broken."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(f"{violation.invariant} at {violation.at_s:.3f} s: {violation.text}")
        self.violation = violation


INVARIANTS: dict[str, str] = {
    "one-machine": "a node never has two machines, and neither has an intent",
    "one-replacement": "of the nodes that replace one node, only one has a machine",
    "healthy-lives": "no machine is ended that is healthy, unless an operator or the size of its pool asks for it",
    "work-is-respected": "scale-down ends no machine that holds work",
    "floor": "our own hand leaves no pool under its minimum of usable nodes",
    "budget": "no more places of a budget are taken than there are",
    "phases": "a node's phases follow each other as they may, and what has ended stays ended",
    "fence": "only the holder of a pool's lease writes its nodes",
    "one-writer": "a record is written by its own service alone",
    "launch-proven": "a launch is given up, or tried elsewhere, only where it made no machine",
    "kept": "what was reported and acknowledged has its effect: a node's words are on record, its fatal fault is judged",
    "failure-told": "who is found failed has its event in the same commit",
    "order": "first copies of one node's events come in the order of their revisions, and no id names two events",
    "frozen": "nothing is launched or ended while that is forbidden",
    "no-crash": "no service ends with an error that nobody expects of it",
    "failure-seen": "a machine that printed a fatal fault while it lived is found failed",
    "desired-is-actual": "once nothing goes wrong, every pool has the nodes that it should have",
    "no-leak": "once nothing goes wrong, every machine that is paid for is an active node's",
    "all-told": "once nothing goes wrong, nothing waits to be published or taken in, and all that was committed is told",
    **bounds.INVARIANTS,
}
"""By name, what each checker holds."""
ACKED_WITHIN_S = 10.0
"""A report is acknowledged so soon after its verdict was committed: what has happened is told first."""
JUDGED_WITHIN_S = 20.0
"""A fatal fault whose report was acknowledged is on record by then; for an honest service it was before."""
ON_ITS_WAY = timedelta(seconds=STALE_S + 2 * PUBLISH_TIMEOUT_S)
"""An event is stored so soon after it was read from the outbox, or given up."""
FATAL_XIDS = frozenset({64, 79})
"""Which no policy of this world judges otherwise, and nothing but its kernel line tells of."""

_BEFORE_MACHINE = frozenset({Phase.PLANNED, Phase.LAUNCHING, Phase.LAUNCH_UNKNOWN})
CALL_UNDER_WAY_S = 60.0
"""A slow call to a cloud may take effect so long after it was decided."""
_IN_SERVICE = frozenset({Phase.ACTIVE, Phase.DRAINING})
_GOING = frozenset({*ENDED, Phase.TERMINATING, Phase.REGISTRATION_TIMEOUT})


class Checks:
    """The judges of one run. `settled` is asked for at its end."""

    def __init__(self, ground: Ground, config: Config, orders: Orders) -> None:
        self._orders = orders
        self.bounds = Bounds(config, orders, ground.truth, self.fail)
        self._loop, self._config, self._subjects = ground.loop, config, ground.subjects
        self._stores, self._buses, self._sky, self._truth = ground.stores, ground.buses, ground.sky, ground.truth
        self._history, self._edge = ground.history, ground.coverage.edge
        self.first: Violation | None = None
        self._nodes: dict[str, NodeRecord] = {}
        self._failed: dict[str, str] = {}
        self._ever_failed: set[str] = set()
        """Also what the store has forgotten since."""
        self._unjudged_s: dict[str, float] = {}
        """By node, when the store forgot that it was found failed."""
        self._rev_of: dict[str, int] = {}
        self._ids: dict[str, bytes] = {}
        self._looked_through = self._audits_through = 0
        self._untold: dict[str, str] = {}
        """Events that were committed and not yet heard, each with its subject."""
        self._audits: set[str] = set()
        """Entries of the audit that were heard."""
        self._taken_in: set[str] = set()
        """Reports of agents that were seen in an inbox."""
        self._lives = 0
        """How often the store was put back."""
        self._going: dict[str, tuple[float, NodeRecord]] = {}
        """By node, when it was decided that its machine ends, and as what."""
        self._forgotten_us = 0
        """When it was last: an outbox that is gone keeps nobody's order."""
        self._remembered_us = 0
        """Up to which revision it then remembered."""
        self._given_up: set[str] = set()
        """Nodes whose time was up, and rightly: see `_give_up`."""
        self._from_before: frozenset[str] = frozenset()
        """Nodes without a machine on record when the store was put back: there may be one all the same."""
        self.failed_told: dict[tuple[str, str], int] = {}
        """By node and failure, where in the stream its event is."""
        ground.stores.on_commit.append(self._on_commit)
        ground.air.acknowledged.append(self._on_ack)
        ground.sky.effects.append(self._on_effect)
        ground.sky.calls.append(self._on_call)

    def fail(self, invariant: str, text: str) -> None:
        """Notes a broken promise. The first one counts: what follows may only follow from it."""
        assert invariant in INVARIANTS, invariant
        self._history.note("VIOLATED", f"{invariant}: {text}")
        if self.first is None:
            self.first = Violation(invariant, self._loop.time(), text)

    def forget(self) -> None:
        """The store was put back to what it was: what it has forgotten is not held against anyone, what it has is."""
        self._nodes = {record.node: record for record in self._stores.all_of(NODE)}
        unhealthy = [record for record in self._stores.all_of(HEALTH) if record.status is HealthStatus.UNHEALTHY]
        before, self._failed = self._failed, {record.node: record.failure_id for record in unhealthy}
        self._unjudged_s |= dict.fromkeys(before.keys() - self._failed.keys(), self._loop.time())
        self._from_before |= {node for node, record in self._nodes.items() if record.phase in _BEFORE_MACHINE}
        self._lives += 1
        self._remembered_us, self._forgotten_us = self._stores.contents.revision, self._stores.now_us()
        waiting = self._stores.contents.outbox.items()
        self._untold = {
            id_: entry.subject for id_, entry in waiting if id_ not in self._ids and id_ not in self._audits
        }
        self.bounds.forget(
            {r.pool: r for r in self._stores.all_of(SUPPLY)}, {r.node: r for r in self._stores.all_of(HEALTH)}
        )

    # --- at each commit ---

    def _on_commit(self, applied: Applied) -> None:
        commit, who = applied.commit, applied.process
        service = who.name.rpartition("-")[0] if who is not None else "world"
        for record in commit.put.values():
            if isinstance(record, SupplyRecord):
                self.bounds.on_supply(record)
        for key, record in (*commit.put.items(), *commit.touch.items()):
            writer = key.family.writer
            if writer is not None and who is not None and service not in (writer, "plane"):
                self.fail("one-writer", f"{key} was written by {who.instance}")
            if isinstance(record, NodeRecord):
                self._on_node(record, applied)
            elif isinstance(record, HealthRecord):
                self._on_health(record, applied)
            else:
                if isinstance(record, InboxRecord):
                    self._taken_in.update(report.id for report in record.reports)
                self._history.note("put", f"{key} {applied.committed.revision} by {who.instance if who else service}")
        self._untold.update((entry.id, entry.subject) for entry in applied.committed.entries)
        for event in commit.emit:
            self._history.note("event", f"{event.KIND} {event.pool} {event.node} {event.code}: {event.reason[:160]}")
        for spend in commit.spend:
            held = self._stores.live(spend.bucket, spend.window)
            # A limit may shrink under those who hold their places already: only a place taken now can be one too many.
            if len(held) > spend.limit and held.get(spend.holder) == self._stores.now_us():
                self.fail("budget", f"{spend.bucket} holds {len(held)} of {spend.limit}: {', '.join(sorted(held))}")

    def _on_node(self, record: NodeRecord, applied: Applied) -> None:
        before = self._nodes.get(record.node)
        self._nodes[record.node] = record
        who = applied.process.instance if applied.process else "world"
        was = before.phase if before else None
        if was is not record.phase:
            self._history.note("phase", f"{record.node} {was or '-'} -> {record.phase} by {who}")
            self._edge(record.node, was, record.phase)
            self._check_proven(was, record)
            self.bounds.on_node(was, record, self._nodes, self._loop.time())
        if before is not None and was is not record.phase and not lifecycle.may_follow(before.phase, record.phase):
            self.fail("phases", f"{record.node} went from {before.phase} to {record.phase}, written by {who}")
        if record.phase is Phase.REGISTRATION_TIMEOUT and was is not record.phase:
            self._give_up(record.node)
        if record.phase is Phase.TERMINATING and was is not record.phase:
            self._going[record.node] = self._loop.time(), record
            self._check_floor(record)
        lease = applied.commit.lease
        if applied.process is not None and not record.node.startswith("_"):
            held = self._stores.contents.leases.get(f"provisioner/{record.pool}")
            if lease is None or held is None or held.owner != applied.process.instance:
                holder = held.owner if held else "nobody"
                self.fail("fence", f"{record.node} was written by {who}, and {holder} holds the pool")

    def _check_proven(self, was: Phase | None, record: NodeRecord) -> None:
        """Given up, or an intent again: then its last attempt made nothing."""
        if was not in _BEFORE_MACHINE or record.phase not in (Phase.PLANNED, Phase.LAUNCH_FAILED):
            return
        for machine in self._sky.machine_of(record.node):
            launch = record.launch
            again = (
                record.phase is Phase.PLANNED and launch is not None and machine.request.token == launch.request.token
            )
            if not again and record.node not in self._from_before:
                why = record.reasons[-1].text if record.reasons else "no reason on record"
                self.fail(
                    "launch-proven",
                    f"{record.node} became {record.phase} and {machine.instance_id} is its machine: {why}",
                )

    def _give_up(self, node: str) -> None:
        """Rightly, where its machine is just rebooting, or nobody could hear of it since it was up: what comes of it
        later, while a freeze keeps it, changes nothing."""
        rebooting = not self._sky.plug_of(node)
        for one in self._sky.machine_of(node):
            up_s = (one.booted_at - BEGIN).total_seconds()
            if (rebooting and one.boots > 1) or self._truth.is_silent_from(node, up_s, self._loop.time()):
                self._given_up.add(node)

    def _on_health(self, record: HealthRecord, applied: Applied) -> None:
        self._history.note("health", f"{record.node} {record.status} {record.code}")
        told = [event for event in applied.commit.emit if isinstance(event, NodeFailed)]
        self.bounds.on_health(record, next((event for event in told if event.node == record.node), None), self._nodes)
        if record.status is not HealthStatus.UNHEALTHY or self._failed.get(record.node) == record.failure_id:
            return
        self._failed[record.node] = record.failure_id
        self._ever_failed.add(record.node)
        self.listen()
        before = (record.node, record.failure_id) in self.failed_told
        if not before and not any(event.failure_id == record.failure_id for event in told):
            self.fail("failure-told", f"{record.node} was found failed ({record.code}), and nothing tells of it")

    # --- at each report that a service says it is done with ---

    def _on_ack(self, delivery: Delivery) -> None:
        kind = delivery.subject.rpartition(".")[2]
        if not delivery.subject.startswith(f"{self._subjects.prefix}.reports."):
            return
        try:
            if kind == "lifecycle":
                self._check_taken_in(decode(delivery.data, LifecycleReport))
            else:
                self._check_judged(decode(delivery.data, HealthReport))
        except BadMessage:
            return

    def _check_taken_in(self, report: LifecycleReport) -> None:
        kind = "registered" if isinstance(report, Registered) else "leaving"
        kind = "command-result" if isinstance(report, CommandResult) else kind
        id_ = f"{report.boot_id[:64]}-{kind}-{report.sequence}"
        record = self._nodes.get(report.node)
        if id_ in self._taken_in or record is None or not self._sky.machine_of(report.node):
            return  # Of a machine that is no more, a record that came back has nothing to know.
        if record.generation == report.generation and record.phase not in ENDED:
            self.fail("kept", f"the report {id_} of {report.node} was acknowledged and is on no record")

    def _check_judged(self, report: HealthReport) -> None:
        now_s = self._loop.time()
        if now_s - self._unjudged_s.get(report.node, float("-inf")) < ACKED_WITHIN_S:
            return  # It was judged, and forgotten before the word of it was out: agents report again after safe mode.
        if any(one.event_type == "xid" and one.metrics.get("xid_code") in FATAL_XIDS for one in report.observations):
            later(JUDGED_WITHIN_S, self._must_be_judged, report, self._lives, now_s)

    def _must_be_judged(self, report: HealthReport, lives: int, at_s: float) -> None:
        """Unless the node is another one by now, or its record is another life's."""
        record, boot = self._nodes.get(report.node), report.boot_id
        if record is None or record.phase is not Phase.ACTIVE or lives != self._lives or report.node in self._failed:
            return
        if record.registration is not None and record.registration.boot_id == boot:
            self.fail(
                "kept", f"{report.node} reported a fatal fault, which was acknowledged at {at_s:.3f} s and not judged"
            )

    # --- at each thing that a cloud does ---

    def _on_effect(self, what: str, machine: FakeMachine) -> None:
        node = machine.request.node
        self._history.note("cloud", f"{machine.instance_id} of {node} {what}")
        if what == "made":
            self._on_made(machine)
        elif what == "ended":
            self._on_ended(machine)
        else:
            self._truth.work_ends(node, self._loop.time())

    def _on_call(self, name: str, pool: str) -> None:
        if name in ("launch", "terminate") and (why := self._orders.forbidden(name, pool, self._loop.time())):
            self.fail("frozen", f"a call to {name} in {pool} began although {why}")

    def _on_made(self, machine: FakeMachine) -> None:
        request = machine.request
        mine = self._sky.machine_of(request.node)
        if len(mine) > 1:
            names = ", ".join(one.instance_id for one in mine)
            self.fail("one-machine", f"{request.node} has {len(mine)} machines: {names}")
        record = self._nodes.get(request.node)
        if record is not None and record.phase is Phase.LAUNCH_FAILED and request.node not in self._from_before:
            self.fail("launch-proven", f"{machine.instance_id} of {request.node} was made, which had been given up")
        replaced = self._nodes.get(record.replaces or "") if record is not None else None
        if replaced is not None and replaced.replaced_by not in (None, request.node):
            rival = self._nodes.get(replaced.replaced_by or "")
            if rival is not None and rival.phase not in _GOING and self._sky.machine_of(rival.node):
                self.fail("one-replacement", f"{request.node} and {rival.node} both replace {replaced.node}")

    def _on_ended(self, machine: FakeMachine) -> None:
        node, now_s = machine.request.node, self._loop.time()
        record = self._nodes.get(node)
        decided_s, going = self._going.get(node, (float("-inf"), record))
        if record is not None and record.phase not in _GOING and now_s - decided_s < CALL_UNDER_WAY_S:
            record = going  # A call that was under way when the store forgot why it was made.
        if record is None or record.instance is None or record.instance.instance_id != machine.instance_id:
            return  # A leak that was collected: `no-leak` and `one-machine` judge how it came to be.
        truth = self._truth.of(node)
        wished = truth.wishes & {"terminate", "replace"}
        if truth.fatal_at_s is not None or wished or node in self._given_up:
            return
        progress = record.drain
        if progress is not None and progress.cause == "scale-down":
            since = self._truth.busy_since(node, now_s)
            if since is not None and since < (progress.since - BEGIN).total_seconds():
                self.fail("work-is-respected", f"{node} was ended by scale-down with work on it since {since:.1f} s")
            return
        deadline_s = self._config.server.silence_deadline.total_seconds()
        if self._truth.longest_silence(node, now_s) >= deadline_s * 0.9:
            return
        reason = record.reasons[-1].text if record.reasons else "no reason on record"
        self.fail("healthy-lives", f"{node} was healthy and its machine was ended: {reason}")

    def _check_floor(self, leaving: NodeRecord) -> None:
        """When it is decided: operators may take away others before it is done."""
        config = self._config.pools.get(leaving.pool)
        if config is None or leaving.drain is None or leaving.drain.cause != "scale-down":
            return
        pool = [record for record in self._nodes.values() if record.pool == leaving.pool]
        excused = self._truth.of(leaving.node).wishes & {"terminate", "replace"}
        excused |= {record.node for record in pool if self._truth.of(record.node).fatal_at_s is not None}
        usable = [record for record in pool if record.phase is Phase.ACTIVE and self._is_well(record)]
        if len(usable) < config.min_nodes and not excused:
            self.fail(
                "floor",
                f"{leaving.node} was taken away, and {leaving.pool} has {len(usable)} usable nodes of {config.min_nodes}",
            )

    def _is_well(self, record: NodeRecord) -> bool:
        health = self._health(record.node)
        return health is not None and health.status in (HealthStatus.HEALTHY, HealthStatus.DEGRADED)

    # --- the stream, as an outside subscriber hears it ---

    def listen(self) -> None:
        """Reads what was published since the last call."""
        stream = self._buses.streams.get(self._subjects.stream("EVENTS"))
        if stream is None:
            return
        for sequence in range(self._looked_through + 1, stream.last_sequence + 1):
            message = stream.get(sequence)
            if message is None:
                continue
            event = decode_event(message.data)
            self._untold.pop(event.id, None)
            known = self._ids.get(event.id)
            if known is not None:
                if known != message.data:
                    self.fail("order", f"two events have the id {event.id}")
                continue
            self._ids[event.id] = message.data
            if event.node:
                last = self._rev_of.get(event.node, 0)
                if event.rev < last and last > self._forgotten_us and not self._was_on_its_way(event.rev, message):
                    self.fail("order", f"{event.KIND} of {event.node} at {event.rev} came after {last}")
                self._rev_of[event.node] = max(last, event.rev)
            if isinstance(event, NodeFailed):
                self.failed_told[event.node, event.failure_id] = sequence
        self._looked_through = stream.last_sequence
        self._listen_to_audits()

    def _was_on_its_way(self, rev: int, message: StoredMessage) -> bool:
        """Whether an event was sent by somebody who had committed it, or read it, before the store forgot it."""
        forgotten = self._remembered_us < rev <= self._forgotten_us
        return forgotten and message.stored_at - from_us(self._forgotten_us) <= ON_ITS_WAY

    def _listen_to_audits(self) -> None:
        stream = self._buses.streams.get(self._subjects.stream("AUDIT"))
        if stream is not None:
            for sequence in range(self._audits_through + 1, stream.last_sequence + 1):
                if (message := stream.get(sequence)) is not None:
                    self._audits.add(id_ := message.headers.get("Nats-Msg-Id", ""))
                    self._untold.pop(id_, None)
            self._audits_through = stream.last_sequence

    # --- the end ---

    def unsettled(self) -> Iterator[tuple[str, str]]:
        """What is not yet as it must be at the end: the invariant, and how it is broken."""
        nodes = {r.node: r for r in self._stores.all_of(NODE)}
        short = {pool for pool in self._config.pools if self.bounds.limited(pool, nodes, self._loop.time())}
        for pool in self._config.pools:
            if pool not in short:
                yield from self._pool_unsettled(pool, [r for r in nodes.values() if r.pool == pool])
        active = {r.instance.instance_id for r in nodes.values() if r.phase is Phase.ACTIVE and r.instance is not None}
        for machine in self._sky.machines.values():
            record = nodes.get(machine.request.node)
            kept = record is not None and record.pool in short and _is_replaced_first(record)
            if machine.power != "ended" and machine.instance_id not in active and not kept:
                yield "no-leak", f"{machine.instance_id} of {machine.request.node} is paid for and is no active node's"
        living = {machine.request.node for machine in self._sky.on()}
        for node, truth in self._truth.nodes.items():
            # Of a machine that was ended for its fault, nobody is left to report it to a store that forgot.
            found = self._failed if node in living else self._ever_failed
            if truth.must_fail and node not in found:
                yield "failure-seen", f"{node} printed a fatal fault at {truth.fatal_at_s} s and was never found failed"
        yield from self._untold_yet()

    def _untold_yet(self) -> Iterator[tuple[str, str]]:
        """What waits to be published or taken in, and what was committed and cannot be heard."""
        if self._stores.contents.outbox:
            first = next(iter(self._stores.contents.outbox.values()))
            yield (
                "all-told",
                f"{len(self._stores.contents.outbox)} events wait, the first is {first.id} on {first.subject}",
            )
        reports = self._buses.streams.get(self._subjects.stream("REPORTS"))
        if reports is not None and (waiting := sum(1 for _ in reports.select((), 0))):
            yield "all-told", f"{waiting} reports wait to be taken in"
        missing = {id_: subject for id_, subject in self._untold.items() if id_ not in self._stores.contents.outbox}
        for id_, subject in missing.items():
            yield "all-told", f"the event {id_} on {subject} was committed and is in no stream, as {len(missing)} are"
        stream = self._buses.streams[self._subjects.stream("EVENTS")]
        for node, failure in self._failed.items():
            sequence = self.failed_told.get((node, failure))
            if failure and sequence is None:
                yield "all-told", f"the failure {failure} of {node} was never told"
            elif sequence is not None and stream.get(sequence) is None:
                yield "all-told", f"the failure {failure} of {node} was told, and is not in the stream any more"

    def _pool_unsettled(self, pool: str, records: list[NodeRecord]) -> Iterator[tuple[str, str]]:
        size = next((r for r in self._stores.all_of(POOL) if r.pool == pool), None)
        if size is None:
            yield "desired-is-actual", f"nobody has said how large {pool} should be"
            return
        living = [r for r in records if r.phase not in ENDED]
        usable = [r for r in living if r.phase is Phase.ACTIVE and self._is_well(r) and not r.cordons]
        if len(usable) != size.desired or len(living) != len(usable):
            states = ", ".join(
                f"{r.node} {r.phase}{' cordoned' if r.cordons else ''} {r.blocked.text if r.blocked else ''}"
                for r in living
            )
            yield "desired-is-actual", f"{pool} should have {size.desired} nodes, {len(usable)} are usable: {states}"

    def _health(self, node: str) -> HealthRecord | None:
        value = self._stores.contents.values.get(HEALTH.key(node).path)
        return None if value is None else msgspec.json.decode(split_value(value).data, type=HealthRecord)


def _is_replaced_first(record: NodeRecord) -> bool:
    """Whether such a node goes when another has come: one in service, or one that was adopted, found broken or not."""
    return record.phase in _IN_SERVICE or (record.phase is Phase.VALIDATING and record.launch is None)
