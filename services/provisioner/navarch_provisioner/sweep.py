"""Asks every provider for everything it has, and holds it against the records: the cloud is the truth about machines.

It repairs: a machine that is gone while its record says otherwise; a launch of unknown outcome whose machine is there; a
machine with our tags that no record explains. A list that failed says nothing, so nothing is concluded from it.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import structlog
from msgspec import structs

from navarch_common.events import kinds
from navarch_common.ids import is_id
from navarch_common.model.cluster import META
from navarch_common.model.node import NODE, NodeRecord, Phase, ProviderState
from navarch_common.run import Deps
from navarch_common.store.base import Commit, StoreError
from navarch_common.store.meta import leave_safe_mode
from navarch_provisioner import adoption, gates
from navarch_provisioner.adoption import Sighting
from navarch_provisioner.cloud.base import CloudError, CloudProvider, Machine
from navarch_provisioner.cloud.registry import Providers
from navarch_provisioner.news import Why, note, tell_pool
from navarch_provisioner.outcomes import Outcome
from navarch_provisioner.pool import PoolWorker
from navarch_provisioner.settings import ProvisionerSettings
from navarch_provisioner.steps import Step
from navarch_provisioner.view import NodeView, PoolView

log = structlog.get_logger(__name__)

DOWN_AFTER = 3
"""Lists that fail in a row before a provider is said to be degraded."""
REPORTED_ENOUGH = 0.95


class Sweeper:
    """Lists all providers, for the pools that this copy holds."""

    def __init__(
        self,
        deps: Deps,
        providers: Providers,
        *,
        settings: Callable[[], tuple[int, ProvisionerSettings]],
        workers: Callable[[], Iterable[PoolWorker]],
        leads: Callable[[], bool],
        seen_pools: Callable[[set[str]], None],
    ) -> None:
        """`leads`: whether this copy speaks for the fleet as a whole. `seen_pools` hears of pools that machines name."""
        self._deps, self._providers, self._settings = deps, providers, settings
        self._workers, self._leads, self._seen_pools = workers, leads, seen_pools
        self._failures: dict[str, int] = {}
        self._sightings: dict[str, Sighting] = {}

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
        self._count_leaks()
        if self._leads() and len(lists) == len(complete):
            await self._leave_safe_mode(lists)
        return {
            "providers": len(lists),
            "machines": sum(map(len, lists.values())),
            "failed": len(complete) - len(lists) + compared.count(False),
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
        if failures == DOWN_AFTER and self._leads():
            await self._tell_provider(kinds.ProviderDegraded, name, Why("list-failed", f"{name}: {error}"[:500]))

    async def _up(self, name: str) -> None:
        self._deps.metrics.set("navarch_provider_up", 1, provider=name)
        if self._failures.pop(name, 0) >= DOWN_AFTER and self._leads():
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
                await self._strays(worker, view, provider, findings.strays)
        except (StoreError, TimeoutError) as error:
            log.warning("sweep not finished", pool=worker.pool, provider=provider, error=str(error))
            return False
        for node in findings.unlisted:
            worker.call("ask", node.record)
        for node, machine in findings.found:
            token = node.record.launch.request.token if node.record.launch else ""
            worker.settle_later(Outcome("lookup", node.node, token, machine=machine))
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

    async def _strays(self, worker: PoolWorker, view: PoolView, provider: str, strays: Sequence[Machine]) -> None:
        if view.safe_mode:
            await self._adopt(worker, view, provider, strays)
            return
        now = self._deps.clock.now()
        mine = {id_: seen for id_, seen in self._sightings.items() if seen.machine.tags.pool == view.pool}
        others = {id_: seen for id_, seen in self._sightings.items() if seen.machine.tags.pool != view.pool}
        mine = adoption.sight(mine, provider, strays, now)
        for sighting in adoption.leaked(mine, view.settings.timings.leak_grace, now):
            if await self._leaked(worker, view, sighting):
                mine[sighting.machine.instance_id] = replace(sighting, told=True)
        self._sightings = {**others, **mine}

    async def _adopt(self, worker: PoolWorker, view: PoolView, provider: str, strays: Sequence[Machine]) -> None:
        now = self._deps.clock.now()
        for machine in strays:
            if not is_id(machine.tags.node):
                continue
            changed = adoption.adopt(view, provider, machine, now)
            if changed is None:
                continue
            key = NODE.key(changed.record.node)
            why = Why("adopted", f"machine {machine.instance_id} at {provider} had no record")
            step = Step("fold", machine.tags.node, why, expect={key: 0}, put={key: changed.record}, emit=changed.events)
            await worker.commit(step)

    async def _leaked(self, worker: PoolWorker, view: PoolView, sighting: Sighting) -> bool:
        """Tells of a leaked machine once, and ends it where the configuration says so and a record proves it useless."""
        now, machine = self._deps.clock.now(), sighting.machine
        known = adoption.may_collect(view, sighting)
        state = f"its node is {known.phase.value}" if known else "it has no record"
        why = Why("leaked", f"machine {machine.instance_id} at {sighting.provider} carries our tags, and {state}")
        event = tell_pool(
            kinds.InstanceLeaked, view.pool, view.cluster, why, now,
            provider=sighting.provider, instance_id=machine.instance_id, price_per_hour=machine.price_per_hour,
        )  # fmt: skip
        if not await worker.commit(Step("note", "", why, emit=(event,))):
            return False
        if view.settings.collect_leaks and known is not None and gates.no_termination(view, now) is None:
            await self._collect(sighting, view.settings.timings.cloud_call_timeout.total_seconds())
        return True

    async def _collect(self, sighting: Sighting, timeout_s: float) -> None:
        provider = self._providers.get(sighting.provider)
        if provider is None:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await provider.terminate(sighting.machine.instance_id, sighting.machine.tags)
        except (CloudError, TimeoutError) as error:
            log.warning("leaked machine not ended", instance=sighting.machine.instance_id, error=str(error))

    def _count_leaks(self) -> None:
        counts: dict[tuple[str, ...], float] = {(name,): 0.0 for name in self._providers.names}
        for sighting in self._sightings.values():
            if sighting.told:
                counts[(sighting.provider,)] = counts.get((sighting.provider,), 0.0) + 1
        self._deps.metrics.set_all("navarch_leaked_instances", counts)

    # --- safe mode ---

    async def _leave_safe_mode(self, lists: dict[str, Sequence[Machine]]) -> None:
        """Every provider answered completely: safe mode ends once every machine of ours is accounted for."""
        try:
            async with asyncio.timeout(10.0):
                meta = await self._deps.store.get(META.key())
                if meta is None or meta.record.safe_mode is None or not lists:
                    return
                nodes = {stored.record.node: stored.record for stored in await self._deps.store.records(NODE)}
                why = enough(lists, self._deps.installation, nodes, meta.record.safe_mode.code)
                if why is None:
                    return
                await leave_safe_mode(
                    self._deps.store, self._deps.committer, now=self._deps.clock.now(),
                    code=why.code, reason=why.text, actor="provisioner",
                )  # fmt: skip
        except (StoreError, TimeoutError) as error:
            log.warning("safe mode not left", error=str(error))


def enough(
    lists: dict[str, Sequence[Machine]], installation: str, nodes: dict[str, NodeRecord], code: str
) -> Why | None:
    """Why safe mode may end, or None while machines are unaccounted for. Pure."""
    machines = [machine for listed in lists.values() for machine in listed if machine.state is not ProviderState.GONE]
    if any(machine.tags.installation != installation for machine in machines):
        return None
    if not machines:
        return Why("no-machines", "every provider gave a complete list, and no machine carries our tags")
    recorded = [nodes[machine.tags.node] for machine in machines if machine.tags.node in nodes]
    if len(recorded) < len(machines):
        return None
    if code == "mirror-lost":
        return Why("all-recorded", f"all {len(machines)} machines that carry our tags have their records")
    heard = sum(1 for record in recorded if record.registration is not None or record.phase is Phase.ACTIVE)
    if heard >= REPORTED_ENOUGH * len(machines):
        return Why("all-reported", f"{heard} of {len(machines)} machines that carry our tags have reported")
    return None


def _write_step(node: NodeView, record: NodeRecord, why: Why) -> Step:
    return Step("fold", node.node, why, expect={node.key: node.revision}, put={node.key: record})
