"""Cloud calls: bounded in number and time, each ending in an `Outcome`, never in an exception.

Right before each call that spends or destroys, lease, freeze and safe mode are asked once more, wherever they are kept;
what cannot be read forbids. A call without an answer in time is unknown, and so is one whose adapter broke: nothing is known to have failed.
"""

import asyncio
from collections.abc import Callable
from typing import Literal

import structlog

from navarch_common.guarding import Guards
from navarch_common.guards import keys_of_pool
from navarch_common.model.node import NodeRecord, ProviderState
from navarch_common.run import Deps
from navarch_common.store.base import StoreError
from navarch_provisioner import gates
from navarch_provisioner.bootstrap import tags_of
from navarch_provisioner.cloud.base import CloudError, CloudProvider, Machine, NotFound, UnknownOutcome
from navarch_provisioner.cloud.registry import Providers
from navarch_provisioner.news import Why
from navarch_provisioner.outcomes import Outcome
from navarch_provisioner.settings import Timings
from navarch_provisioner.steps import Call

log = structlog.get_logger(__name__)

CHECK_TIMEOUT_S = 1.5


class CloudCalls:
    """Makes the calls of one process."""

    def __init__(self, deps: Deps, providers: Providers, timings: Timings) -> None:
        self._deps, self._providers, self._timings = deps, providers, timings
        self.guards = Guards(deps)
        """As this process reads them: one for all its pools."""
        self._room = asyncio.Semaphore(timings.call_concurrency)

    async def make(self, call: Call, record: NodeRecord, holds_pool: Callable[[], bool]) -> Outcome:
        """One call about `record`. `holds_pool` says whether the pool is still ours."""
        token = record.launch.request.token if record.launch else ""
        blank = Outcome(call, record.node, token)
        name = _provider_of(record)
        provider = self._providers.get(name)
        if provider is None:
            why = Why("provider-unknown", f"provider {name or 'none'} cannot be reached from here")
            return Outcome(call, record.node, token, withheld=why)
        async with self._room:
            if call in ("launch", "terminate", "power-on"):
                withheld = await self._withheld("launch" if call != "terminate" else "terminate", record, holds_pool)
                if withheld is not None:
                    return Outcome(call, record.node, token, withheld=withheld)
            with self._deps.telemetry.span(
                f"provider.{call}", parent=record.trace, node=record.node, pool=record.pool, provider=name
            ):
                outcome = await self._bounded(provider, call, record, blank)
        if call == "launch":
            self._deps.metrics.count("navarch_launches_total", provider=name, outcome=_label(outcome))
        return outcome

    async def end_leaked(
        self, provider_name: str, machine: Machine, node: NodeRecord, holds_pool: Callable[[], bool]
    ) -> None:
        """Ends a machine that is leaked, where it is still what the list said and nothing forbids it. Whether it is gone
        shows at the next list. `node` is what its tags say of it."""
        provider, tags = self._providers.get(provider_name), machine.tags
        ours = (tags.cluster, tags.installation) == (self._deps.cluster, self._deps.installation)
        if provider is None or not ours:
            return
        try:
            async with self._room, asyncio.timeout(self._timings.cloud_call_timeout.total_seconds()):
                found = await provider.get(machine.instance_id)
                if found is None or found.state in (ProviderState.GONE, ProviderState.STOPPING):
                    return
                if found.tags != tags:
                    log.error("leaked machine carries other tags by now", instance=machine.instance_id)
                    return
                withheld = await self._withheld("terminate", node, holds_pool)
                if withheld is None:
                    await provider.terminate(machine.instance_id, tags)
                    log.info("leaked machine ended", provider=provider_name, instance=machine.instance_id)
                else:
                    log.warning("leaked machine not ended", instance=machine.instance_id, because=withheld.text)
        except (CloudError, TimeoutError) as error:
            log.warning(
                "leaked machine not ended", instance=machine.instance_id, error=str(error) or "no answer in time"
            )

    async def _withheld(
        self, act: Literal["launch", "terminate"], record: NodeRecord, holds_pool: Callable[[], bool]
    ) -> Why | None:
        """Why the call must not be made after all. Fails closed."""
        reading = await self.guards.read(keys_of_pool(record.pool))
        if reading.doubt:
            return Why("guards-unreadable", f"it is not known whether we are frozen: {reading.doubt}"[:300])
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                standing, strange = await self._deps.life.standing()
        except (StoreError, TimeoutError) as error:
            return Why("guards-unreadable", f"safe mode cannot be read: {str(error) or 'no answer in time'}"[:300])
        if not holds_pool():
            return Why("pool-lost", "another copy of the provisioner works on the pool now")
        meta = standing.meta.record if standing.meta else None
        forbidden = gates.forbidden(reading.guards, meta, act, record.pool, self._deps.clock.now())
        return forbidden or (Why("store-doubtful", strange[:300]) if strange else None)

    async def _bounded(self, provider: CloudProvider, call: Call, record: NodeRecord, blank: Outcome) -> Outcome:
        started = asyncio.get_running_loop().time()
        code = "ok"
        try:
            async with asyncio.timeout(self._timings.cloud_call_timeout.total_seconds()):
                return await self._call(provider, call, record, blank)
        except UnknownOutcome as error:
            code = error.code
            return _unknown(blank, str(error))
        except TimeoutError:
            code = "timeout"
            return _unknown(blank, f"no answer within {self._timings.cloud_call_timeout.total_seconds():g} s")
        except CloudError as error:
            code = error.code
            log.warning("cloud refused", call=call, node=record.node, provider=provider.name, error=str(error))
            return Outcome(call, blank.node, blank.token, error=error)
        except Exception as error:
            # An adapter that breaks may have sent its request: the cloud must be asked what came of it.
            code = "adapter-error"
            log.exception("cloud adapter broke", call=call, node=record.node, provider=provider.name)
            return _unknown(blank, f"{type(error).__name__}: {error}")
        finally:
            took = asyncio.get_running_loop().time() - started
            self._deps.metrics.observe(
                "navarch_cloud_request_duration_seconds", took, provider=provider.name, operation=call, code=code
            )

    async def _call(self, provider: CloudProvider, call: Call, record: NodeRecord, blank: Outcome) -> Outcome:
        if call == "launch":
            assert record.launch is not None
            return _with(blank, await provider.launch(record.launch.request))
        if call == "lookup":
            machine = await provider.find(blank.token)
            return _with(blank, machine)
        if record.instance is None:
            return _unknown(blank, "its machine is not on record")
        instance_id = record.instance.instance_id
        tags = tags_of(record, self._deps.cluster, self._deps.installation)
        if call == "power-on":
            await provider.power_on(instance_id, tags)
            return blank
        if call == "terminate":
            try:
                await provider.terminate(instance_id, tags)
            except NotFound as error:
                # The machine of that id is not this node's: ours is no more, and that one is none of our business.
                log.error("machine carries other tags", node=record.node, instance=instance_id, error=str(error))
                return Outcome(call, blank.node, blank.token, certain=True)
        return _with(blank, await provider.get(instance_id))


def _provider_of(record: NodeRecord) -> str:
    if record.instance is not None:
        return record.instance.provider
    return record.launch.request.provider if record.launch else ""


def _with(blank: Outcome, machine: Machine | None) -> Outcome:
    """The cloud's word: the machine, or the certainty that there is none."""
    gone = machine is None or machine.state is ProviderState.GONE
    ended = gone and machine is not None and blank.call in ("launch", "lookup")
    known = machine if blank.call == "ask" or not gone else None
    return Outcome(blank.call, blank.node, blank.token, machine=known, certain=gone, ended=ended)


def _unknown(blank: Outcome, why: str) -> Outcome:
    return Outcome(blank.call, blank.node, blank.token, unknown=why[:300] or "no answer")


def _label(outcome: Outcome) -> str:
    if outcome.machine is not None:
        return "made"
    if outcome.withheld is not None:
        return "withheld"
    return outcome.error.code if outcome.error is not None else "unknown"
