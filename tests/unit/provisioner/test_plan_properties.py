"""What must hold whatever happens: decisions against a tiny world in which everything happens that can."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from navarch_common.model.cluster import InboxRecord, InboxReport, SafeMode
from navarch_common.model.health import HealthRecord
from navarch_common.model.node import ENDED, NODE, NodeRecord, Phase, ProviderState
from navarch_common.model.pool import SUPPLY, Guard, PoolRecord, SupplyRecord
from navarch_provisioner import budget, outcomes
from navarch_provisioner.bootstrap import tags_of
from navarch_provisioner.cloud.base import Machine, NoCapacity, Upstream
from navarch_provisioner.outcomes import Outcome
from navarch_provisioner.plan import plan
from navarch_provisioner.steps import Call, Step
from navarch_provisioner.view import NodeView, PoolView, Work
from support.provisioner_pools import POOL, T0, judged, pool, registration

MAX_UNAVAILABLE = 2
EXTRA = f"disruption: {{max_unavailable: {MAX_UNAVAILABLE}, max_per_hour: 100}}, scale_down: {{idle_after: 30s}}"
RUNNING = frozenset({Phase.BOOTING, Phase.VALIDATING, Phase.ACTIVE, Phase.DRAINING})


class Fleet(RuleBasedStateMachine):
    """One pool, one cloud, one provisioner that forgets what it was doing now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.now: datetime = T0
        self.view: PoolView = pool(desired=0, extra=EXTRA, supply=None, supply_revision=0)
        self.work: dict[str, Work] = {}
        self.calls: list[tuple[Call, NodeRecord]] = []
        self.machines: dict[str, Machine] = {}
        """By token: what the cloud has."""
        self.late: list[NodeRecord] = []
        """Launches whose caller is gone and whose request is still on its way."""
        self.made: list[str] = []
        self.minted = 0
        self.revision = 10

    # --- the provisioner ---

    @initialize(count=st.integers(0, 4))
    def first_size(self, count: int) -> None:
        self.wanted(count)

    def see(self) -> PoolView:
        nodes = {name: replace(view, work=self.work.get(name, Work())) for name, view in self.view.nodes.items()}
        self.minted += 1
        ids = tuple(f"n{self.minted:03d}-{index:02d}" for index in range(20))
        in_flight = frozenset(record.node for _, record in self.calls)
        return replace(self.view, nodes=nodes, fresh_ids=ids, in_flight=in_flight)

    @rule()
    def decide(self) -> None:
        """One pass, to its end."""
        for _ in range(20):
            view = self.see()
            planned = plan(view, self.now)
            if not [self.take(step) for step in planned.steps if step.writes or step.call]:
                return
            if all(not step.writes for step in planned.steps):
                return

    def take(self, step: Step) -> None:
        before = self.see()
        if step.writes and not self.expected(step):
            return
        self.check(before, step)
        self.apply(step)
        if step.call is not None and step.node not in {record.node for _, record in self.calls}:
            self.calls.append((step.call, self.view.nodes[step.node].record))

    def expected(self, step: Step) -> bool:
        for key, revision in step.expect.items():
            view = self.view.nodes.get(key.name)
            if key.family is NODE and (view.revision if view else 0) != revision:
                return False
            if key.family is SUPPLY and self.view.supply_revision != revision:
                return False
        return True

    def apply(self, step: Step) -> None:
        self.revision += 1
        nodes = dict(self.view.nodes)
        for key, record in step.put.items():
            if isinstance(record, NodeRecord):
                old = nodes.get(key.name)
                nodes[key.name] = (
                    replace(old, record=record, revision=self.revision) if old else NodeView(record, self.revision)
                )
            elif isinstance(record, SupplyRecord):
                self.view = replace(self.view, supply=record, supply_revision=self.revision)
            else:
                known = {**self.view.commands, key.name: record}
                self.view = replace(self.view, commands=known, command_revisions=dict.fromkeys(known, 1))
        for key in step.delete:
            if key.path.startswith("inbox/"):
                nodes[key.name] = replace(nodes[key.name], inbox=None, inbox_revision=0)
            if key.family is NODE:
                del nodes[key.name]
        taken = {spend.holder for spend in step.spend if spend.bucket == budget.bucket(POOL)}
        back = {refund.holder for refund in step.refund if refund.bucket == budget.bucket(POOL)}
        lately = {spend.holder for spend in step.spend if spend.bucket == budget.hourly_bucket(POOL)}
        self.view = replace(
            self.view, nodes=nodes, replacing=(self.view.replacing | taken) - back,
            replaced_lately=self.view.replaced_lately | lately,
        )  # fmt: skip

    def check(self, before: PoolView, step: Step) -> None:
        """What no step may ever do."""
        frozen = any(guard.active for guard in before.guards) or before.safe_mode
        if step.act == "plan":
            assert not frozen
            assert places(before) < before.target, "launches more than wanted"
        if step.act == "replace":
            assert len(before.replacing | {step.node}) <= MAX_UNAVAILABLE or before.nodes[step.node].gone
        if step.act == "launch":
            assert not frozen
        record = step.put.get(NODE.key(step.node))
        if not isinstance(record, NodeRecord) or record.phase is not Phase.TERMINATING:
            return
        view = before.nodes[step.node]
        if view.phase in (Phase.ACTIVE, Phase.DRAINING):
            assert not frozen
            work, drain = self.work.get(step.node, Work()), view.record.drain
            assert view.failed or work.idle, "a healthy node is ended that is not idle"
            if not view.failed:
                assert drain is not None
                assert drain.cause == "scale-down", "a node that recovered is ended"
                assert work.at is not None
                assert work.at > drain.since, "ended on a heartbeat from before the drain"
                left = sum(1 for other in before.living if other.usable and other.node != step.node)
                floor = min(before.config.min_nodes, before.target) if before.config else 0
                assert left >= floor, "goes below the floor by its own hand"

    # --- the cloud ---

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def cloud_answers(self, data: st.DataObject) -> None:
        call, record = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        if call == "launch":
            self.launched(record, data.draw(st.sampled_from(["made", "lost", "dropped", "no-capacity", "upstream"])))
        elif call == "lookup":
            machine = self.machines.get(token(record))
            self.settle(Outcome("lookup", record.node, token(record), machine=machine, certain=machine is None))
        elif call in ("terminate", "ask"):
            if call == "terminate":
                self.machines.pop(token(record), None)
            machine = self.machines.get(token(record))
            self.settle(Outcome(call, record.node, token(record), machine=machine, certain=machine is None))

    def launched(self, record: NodeRecord, how: str) -> None:
        if how in ("made", "lost"):
            self.make(record)
        if how == "made":
            self.settle(Outcome("launch", record.node, token(record), machine=self.machines[token(record)]))
        elif how in ("lost", "dropped"):
            self.settle(Outcome("launch", record.node, token(record), unknown="no answer"))
        else:
            error = NoCapacity("full") if how == "no-capacity" else Upstream("broken")
            self.settle(Outcome("launch", record.node, token(record), error=error))

    def make(self, record: NodeRecord) -> None:
        if token(record) in self.made:
            return  # An idempotent cloud: the same token is the same machine, also when it is gone.
        self.made.append(token(record))
        assert record.launch is not None
        self.machines[token(record)] = Machine(
            f"i-{len(self.made)}", "", tags_of(record, "test", "installation"), ProviderState.RUNNING, "h100-8x", "", "",
            "", 2.0, self.now,
        )  # fmt: skip

    def settle(self, outcome: Outcome) -> None:
        view = self.see()
        node = view.nodes.get(outcome.node)
        step = outcomes.settle(view, node, outcome, self.now) if node else None
        if step is not None:
            self.apply(step)

    @precondition(lambda self: self.calls)
    @rule()
    def provisioner_dies(self) -> None:
        """Nobody waits for the answers any more; launches that were sent may still take effect."""
        self.late += [record for call, record in self.calls if call == "launch"]
        self.calls = []

    @precondition(lambda self: self.late)
    @rule(arrives=st.booleans())
    def a_late_request(self, arrives: bool) -> None:
        record = self.late.pop()
        if arrives:
            self.make(record)

    # --- the others ---

    @rule(count=st.integers(0, 6))
    def wanted(self, count: int) -> None:
        record = PoolRecord(pool=POOL, desired=count, actor="autoscaler", code="test", reason="wanted")
        self.view = replace(self.view, desired=record)

    @rule(seconds=st.sampled_from([1, 10, 40, 130]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        if seconds >= 40:
            self.late = []  # The longest that a request may be under way is over.

    def some(self, data: st.DataObject, *phases: Phase) -> NodeView | None:
        names = [name for name, view in self.view.nodes.items() if view.phase in phases]
        return self.view.nodes[data.draw(st.sampled_from(sorted(names)))] if names else None

    def put(self, view: NodeView, **changes: Any) -> None:
        self.view = replace(self.view, nodes={**self.view.nodes, view.node: replace(view, **changes)})

    @rule(data=st.data())
    def agent_registers(self, data: st.DataObject) -> None:
        view = self.some(data, Phase.BOOTING, Phase.LAUNCHING, Phase.LAUNCH_UNKNOWN)
        if view is None or token(view.record) not in self.machines:
            return
        self.beats(view, idle=None)
        report = InboxReport(
            id="1", at=self.now, boot_id="boot-1", generation=1, sequence=1, kind="registered",
            registration=structs.replace(registration(), at=self.now),
        )  # fmt: skip
        self.put(view, inbox=InboxRecord(node=view.node, pool=POOL, reports=(report,)), inbox_revision=1)

    @rule(data=st.data(), status=st.sampled_from(["healthy", "healthy", "failed", "silent", "degraded"]))
    def health_judges(self, data: st.DataObject, status: str) -> None:
        view = self.some(data, Phase.VALIDATING, Phase.ACTIVE, Phase.DRAINING)
        if view is not None:
            verdict: HealthRecord = structs.replace(judged(view.node, status), since=self.now, failed_at=self.now)
            self.put(view, health=verdict, health_revision=1)

    @rule(data=st.data(), idle=st.sampled_from([True, True, False, None]))
    def heartbeat(self, data: st.DataObject, idle: bool | None) -> None:
        view = self.some(data, *RUNNING)
        if view is None:
            return
        self.beats(view, idle=idle)

    def beats(self, view: NodeView, *, idle: bool | None) -> None:
        before = self.work.get(view.node, Work())
        since = (before.idle_since or self.now) if idle else None
        self.work[view.node] = Work(idle=idle, at=self.now, idle_since=since)

    @rule(data=st.data())
    def all_beat_idle_for_a_while(self, data: st.DataObject) -> None:
        self.now += timedelta(seconds=40)
        for name in self.view.nodes:
            self.work[name] = Work(idle=True, at=self.now, idle_since=self.now - timedelta(seconds=40))

    @rule(active=st.booleans())
    def freeze(self, active: bool) -> None:
        guard = Guard(name="freeze", active=active, actor="operator:ann", reason="stop", at=self.now)
        self.view = replace(self.view, guards=(guard,))

    @rule(on=st.booleans())
    def safe_mode(self, on: bool) -> None:
        assert self.view.meta is not None
        safe = SafeMode(since=self.now, code="test", reason="test") if on else None
        self.view = replace(self.view, meta=structs.replace(self.view.meta, safe_mode=safe))

    @rule()
    def a_good_day(self) -> None:
        """Everything that was begun comes to a good end."""
        for _ in range(6):
            for call, record in self.calls[:]:
                self.calls.remove((call, record))
                if call == "launch":
                    self.launched(record, "made")
                else:
                    self.calls.append((call, record))
                    break
            for view in list(self.view.nodes.values()):
                if view.phase is Phase.BOOTING:
                    self.put(view, record=structs.replace(view.record, registration=registration()))
                if view.phase is Phase.VALIDATING:
                    self.put(view, health=judged(view.node, "healthy"), health_revision=1)
            self.decide()

    # --- always ---

    @invariant()
    def no_intent_has_two_machines(self) -> None:
        assert len(self.made) == len(set(self.made))
        owners = [machine.tags.node for machine in self.machines.values()]
        assert len(owners) == len(set(owners)), "two machines for one node"

    @invariant()
    def no_machine_is_forgotten(self) -> None:
        """Each machine that nobody may still be launching has a record that is not at its end."""
        for machine in self.machines.values():
            view = self.view.nodes[machine.tags.node]
            assert view.phase not in ENDED, f"{view.node} is {view.phase} and its machine runs"

    @invariant()
    def the_budget_holds(self) -> None:
        assert len(self.view.replacing) <= MAX_UNAVAILABLE


def places(view: PoolView) -> int:
    """Nodes that serve, or will, each once: counted anew, so that the decision is not checked by itself."""
    coming = (Phase.PLANNED, Phase.LAUNCHING, Phase.LAUNCH_UNKNOWN, Phase.BOOTING, Phase.VALIDATING)
    living = {name: node for name, node in view.nodes.items() if node.phase in (*coming, Phase.ACTIVE)}
    return sum(1 for node in living.values() if node.record.replaced_by not in living)


def token(record: NodeRecord) -> str:
    assert record.launch is not None
    return record.launch.request.token


TestFleet = Fleet.TestCase
TestFleet.settings = hypothesis_settings(
    max_examples=120, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
