"""Asks every provider for everything it has, and holds it against the records: the cloud is the truth about machines.

It repairs: a machine that is gone while its record says otherwise; a launch of unknown outcome whose machine is there; a
machine with our tags that no record explains. A list that failed says nothing, so nothing is concluded from it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta

import structlog
from msgspec import structs

from navarch_common.bus.base import BusError
from navarch_common.events import kinds
from navarch_common.ids import is_id
from navarch_common.model.base import AnyKey
from navarch_common.model.cluster import META, SafeMode
from navarch_common.model.leak import LEAK, leak_wishes_key
from navarch_common.model.node import NODE, NodeRecord, ProviderState
from navarch_common.run import Deps
from navarch_common.store.base import ABSENT, Commit, Lease, StoreError
from navarch_common.store.meta import end_first_look, enter_safe_mode, leave_safe_mode
from navarch_common.told import Told
from navarch_provisioner import adoption, safe_mode
from navarch_provisioner.calls import CloudCalls
from navarch_provisioner.cloud.base import CloudError, CloudProvider, Machine
from navarch_provisioner.cloud.registry import Providers
from navarch_provisioner.leaks import Known, decide, foreign
from navarch_provisioner.news import ACTOR, Why, note, tell_pool
from navarch_provisioner.outcomes import Outcome
from navarch_provisioner.pool import PoolWorker
from navarch_provisioner.settings import ProvisionerSettings
from navarch_provisioner.steps import Step
from navarch_provisioner.view import NodeView, PoolView

log = structlog.get_logger(__name__)

PLANNED_WITHIN = timedelta(hours=1)
"""What was planned longer than this before safe mode has its machine listed, or none."""
DOWN_AFTER = 3
"""Lists that fail in a row before a provider is said to be degraded."""


class Sweeper:
    """Lists all providers, for the pools that this copy holds."""

    def __init__(
        self,
        deps: Deps,
        providers: Providers,
        *,
        settings: Callable[[], tuple[int, ProvisionerSettings]],
        workers: Callable[[], Iterable[PoolWorker]],
        calls: CloudCalls,
        fleet_lease: Callable[[], Lease | None],
        seen_pools: Callable[[set[str]], None],
        wake_everyone: Callable[[], Awaitable[None]],
    ) -> None:
        """`fleet_lease` is there while this copy speaks for the fleet as a whole. `seen_pools` hears of pools that machines name;
        `wake_everyone` is called when what held every pool up does so no more."""
        self._deps, self._providers, self._settings = deps, providers, settings
        self._workers, self._calls, self._seen_pools = workers, calls, seen_pools
        self._fleet_lease = fleet_lease
        self._wake_everyone = wake_everyone
        self._told = Told(deps.store, deps.bus, deps.subjects)
        self._failures: dict[str, int] = {}
        self._ended = 0

    async def sweep(self) -> dict[str, int]:
        """One look at every provider."""
        _, settings = self._settings()
        timeout_s = settings.timings.cloud_call_timeout.total_seconds()
        async with asyncio.TaskGroup() as tasks:
            listings = {
                name: tasks.create_task(self._list(name, provider, timeout_s), name=f"list/{name}")
                for name, provider in self._providers.items()
            }
        complete = {name: task.result() for name, task in listings.items()}
        lists = {name: machines for name, machines in complete.items() if machines is not None}
        self._note_pools(lists.values())
        compared = [
            await self._compare(worker, name, machines)
            for worker in list(self._workers())
            for name, machines in lists.items()
        ]
        # Whether what was ended is gone shows in the next list, and somebody may wait for it.
        unsure, self._ended = self._ended > 0, 0
        lease = self._fleet_lease()
        if lease is not None:
            await self._foreign(lists, lease)
            if len(lists) == len(complete):
                unsure = await self._judge_store(lists) or unsure
        return {
            "providers": len(lists),
            "machines": sum(map(len, lists.values())),
            "failed": len(complete) - len(lists) + compared.count(False),
            "unsure": int(unsure),
        }

    async def _list(self, name: str, provider: CloudProvider, timeout_s: float) -> Sequence[Machine] | None:
        """Everything that a provider has, or None where it did not answer completely."""
        started = asyncio.get_running_loop().time()
        code = "ok"
        try:
            async with asyncio.timeout(timeout_s):
                machines = await provider.list_machines(self._deps.cluster)
        except (CloudError, TimeoutError) as error:
            code = error.code if isinstance(error, CloudError) else "timeout"
            await self._down(name, str(error) or "no answer in time")
            return None
        except Exception as error:
            code = "adapter-error"
            log.exception("provider adapter broke", provider=name)
            await self._down(name, f"{type(error).__name__}: {error}")
            return None
        finally:
            took = asyncio.get_running_loop().time() - started
            self._deps.metrics.observe(
                "navarch_cloud_request_duration_seconds", took, provider=name, operation="list", code=code
            )
        await self._up(name)
        return machines

    async def _down(self, name: str, error: str) -> None:
        self._deps.metrics.set("navarch_provider_up", 0, provider=name)
        failures = self._failures[name] = self._failures.get(name, 0) + 1
        log.warning("provider cannot be listed", provider=name, error=error, failures=failures)
        if failures == DOWN_AFTER and self._fleet_lease() is not None:
            await self._tell_provider(kinds.ProviderDegraded, name, Why("list-failed", f"{name}: {error}"[:500]))

    async def _up(self, name: str) -> None:
        self._deps.metrics.set("navarch_provider_up", 1, provider=name)
        if self._failures.pop(name, 0) >= DOWN_AFTER and self._fleet_lease() is not None:
            await self._tell_provider(kinds.ProviderRecovered, name, Why("list-complete", f"{name} answers again"))

    async def _tell_provider(
        self, kind: type[kinds.ProviderDegraded] | type[kinds.ProviderRecovered], name: str, why: Why
    ) -> None:
        event = tell_pool(kind, "", self._deps.cluster, why, self._deps.clock.now(), provider=name)
        try:
            await self._deps.committer.commit(Commit(emit=(event,)))
        except StoreError as error:
            log.warning("provider's state not told", provider=name, error=str(error))

    def _note_pools(self, lists: Iterable[Sequence[Machine]]) -> None:
        tags = (machine.tags for machines in lists for machine in machines)
        self._seen_pools({tag.pool for tag in tags if tag.installation == self._deps.installation and is_id(tag.pool)})

    # --- one pool, one provider ---

    async def _compare(self, worker: PoolWorker, provider: str, machines: Sequence[Machine]) -> bool:
        """Whether it was done."""
        try:
            async with worker.apart:
                # Read after the list was made: a record that is older than its machine would make it a stranger.
                view = await worker.read()
                findings = adoption.compare(view, provider, machines, self._deps.clock.now())
                told = await self._write(worker, findings)
                to_end = await self._strays(worker, view, provider, findings.strays)
        except (StoreError, TimeoutError) as error:
            log.warning("sweep not finished", pool=worker.pool, provider=provider, error=str(error))
            return False
        for node in (*findings.unlisted, *findings.newborn):
            worker.call("ask", node.record)
        for node, machine in findings.found:
            token = node.record.launch.request.token if node.record.launch else ""
            worker.settle_later(Outcome("lookup", node.node, token, machine=machine))
        self._ended += len(to_end)
        for machine, its_node in to_end:
            await self._calls.end_leaked(provider, machine, its_node, worker.holds)
        if told:
            await worker.wake_health()
        if findings.seen or findings.strays:
            worker.wake()
        return True

    async def _write(self, worker: PoolWorker, findings: adoption.Findings) -> bool:
        """What the provider says of our machines becomes part of their records. True where one is gone."""
        now = self._deps.clock.now()
        gone = False
        for node, machine in findings.seen:
            instance = node.record.instance
            assert instance is not None
            said = structs.replace(instance, state=machine.state, state_at=now, address=machine.address)
            why = Why(
                f"provider-says-{machine.state.value}", f"{instance.provider} says that it is {machine.state.value}"
            )
            record = note(node.record, why, now, instance=said, blocked=node.record.blocked)
            if await worker.commit(_write_step(node, record, why)):
                gone = gone or machine.state is ProviderState.GONE
        return gone

    async def _strays(
        self, worker: PoolWorker, view: PoolView, provider: str, strays: Sequence[Machine]
    ) -> list[tuple[Machine, NodeRecord]]:
        """Adopts what no record explains while records are being rebuilt; otherwise keeps the books of what leaks. Returns
        the machines that are to be ended, each with the node that its tags name."""
        if view.safe_mode:
            await self._adopt(worker, view, provider, strays)
            return []
        now, store = self._deps.clock.now(), self._deps.store
        leaks = await store.records(LEAK, view.pool)
        wishes = await store.get(leak_wishes_key())
        known = Known(
            {stored.record.instance_id: stored for stored in leaks if stored.record.provider == provider},
            wishes.record.wishes if wishes else (),
            wishes.revision if wishes else ABSENT,
        )
        to_end = []
        for decision in decide(view, provider, known, strays, now):
            done = decision.step is not None and await worker.commit(decision.step)
            if done and decision.end is not None and decision.step is not None:
                node = adoption.node_of(view, provider, decision.end, decision.step.why, now)
                to_end.append((decision.end, node))
        return to_end

    async def _adopt(self, worker: PoolWorker, view: PoolView, provider: str, strays: Sequence[Machine]) -> None:
        now = self._deps.clock.now()
        # Of two machines of one node the one of the later generation is the node, and the older where they are alike.
        for machine in sorted(strays, key=lambda one: (-one.tags.generation, one.launched_at, one.instance_id)):
            if not is_id(machine.tags.node):
                continue
            changed = adoption.adopt(view, provider, machine, now)
            if changed is None:
                continue
            key = NODE.key(changed.record.node)
            why = Why("adopted", f"machine {machine.instance_id} at {provider} had no record")
            known = view.nodes.get(machine.tags.node)
            expect: dict[AnyKey, int] = {
                key: ABSENT if known is None else known.revision, META.key(): view.meta_revision,
            }  # fmt: skip
            await worker.commit(
                Step("fold", machine.tags.node, why, expect=expect, put={key: changed.record}, emit=changed.events)
            )

    async def _foreign(self, lists: safe_mode.Lists, lease: Lease) -> None:
        """Notes what works under our cluster's name and another installation, for whoever looks."""
        deps = self._deps
        try:
            async with asyncio.timeout(10.0):
                leaks = [stored for stored in await deps.store.records(LEAK) if not stored.record.ours]
                for provider, machines in lists.items():
                    known = {one.record.instance_id: one for one in leaks if one.record.provider == provider}
                    put, delete = foreign(provider, machines, deps.installation, known, deps.clock.now())
                    if put or delete:
                        expect: dict[AnyKey, int] = dict.fromkeys(put, ABSENT)
                        expect |= {one.key: one.revision for one in known.values() if one.key in delete}
                        await deps.committer.commit(Commit(expect=expect, put=put, delete=delete, lease=lease))
        except (StoreError, TimeoutError) as error:
            log.warning("another installation's machines not noted", error=str(error))

    # --- the first start, and safe mode ---

    async def _judge_store(self, lists: safe_mode.Lists) -> bool:
        """Every provider answered completely: a first start may launch, or safe mode may end, once every machine of ours is
        accounted for. True while neither is so."""
        try:
            async with asyncio.timeout(10.0):
                meta = await self._deps.store.get(META.key())
                if meta is None or not (meta.record.safe_mode or meta.record.first_look) or not lists:
                    return meta is None
                nodes = {stored.record.node: stored.record for stored in await self._deps.store.records(NODE)}
                if meta.record.safe_mode is None:
                    await self._end_first_look(lists, nodes)
                    return False
                return not await self._leave_safe_mode(lists, nodes, meta.record.safe_mode)
        except (StoreError, TimeoutError) as error:
            log.warning("safe mode not judged", error=str(error))
            return True

    async def _end_first_look(self, lists: safe_mode.Lists, nodes: Mapping[str, NodeRecord]) -> None:
        deps = self._deps
        verdict, why = safe_mode.first_look(lists, deps.installation, nodes)
        if verdict == "clear":
            await end_first_look(deps.store, deps.committer)
            log.info("first look", reason=why.text)
        else:
            await enter_safe_mode(
                deps.store, deps.committer, now=deps.clock.now(), code=why.code, reason=why.text, actor=ACTOR
            )
        await self._wake_everyone()

    async def _leave_safe_mode(self, lists: safe_mode.Lists, nodes: Mapping[str, NodeRecord], found: SafeMode) -> bool:
        deps = self._deps
        if not deps.life.mirrored:
            return False
        beats = {beat.node: beat for beat in await deps.store.beats(sorted(nodes)) if beat is not None}
        listable = deps.clock.now() - found.since >= self._settings()[1].timings.newborn_grace
        planned = () if listable else await self._planned_before(found)
        enough, why = safe_mode.enough(
            lists, deps.installation, nodes, beats, found, listable=listable, planned=planned
        )
        if not enough:
            log.info("safe mode goes on", code=why.code, reason=why.text)
            return False
        await leave_safe_mode(
            deps.store, deps.committer, now=deps.clock.now(), code=why.code, reason=why.text, actor=ACTOR
        )
        return True

    async def _planned_before(self, found: SafeMode) -> set[str] | None:
        """Nodes that the stream of events knows from shortly before safe mode: their records may be lost. None while it can't
        be told, and where the stream was lost with the records."""
        if found.code == "state-lost":
            return None
        try:
            async with asyncio.timeout(5.0):
                return await self._told.planned(found.since - PLANNED_WITHIN, found.since)
        except (BusError, TimeoutError) as error:
            log.warning("not known what was planned before safe mode", error=str(error))
            return None


def _write_step(node: NodeView, record: NodeRecord, why: Why) -> Step:
    return Step("fold", node.node, why, expect={node.key: node.revision}, put={node.key: record})
