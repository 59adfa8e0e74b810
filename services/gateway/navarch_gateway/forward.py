"""Passes questions on to those who know: the provisioner what it would do next, a simulated machine a fault to have."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from navarch_api import types as t
from navarch_common.bus.base import BusTimeout, NoResponder
from navarch_common.events.codec import BadMessage, decode
from navarch_common.ids import check_id
from navarch_common.run import Deps
from navarch_gateway.asks import read_id
from navarch_gateway.direct import Direct
from navarch_gateway.refusal import Refused, conflict, invalid, unavailable
from navarch_gateway.selection import provider_of

PLAN_TIMEOUT_S = 5.0
INJECT_TIMEOUT_S = 3.0
INJECT_BYTES_MAX = 4096
ANSWER_BYTES_MAX = 1 << 20
SIMULATED = frozenset({"local", "fake"})
"""Types of provider whose machines are not real."""


class _Step(Struct, frozen=True, kw_only=True):
    act: str
    reason: str = ""
    node: str = ""
    cost_per_hour_delta: float | None = None


class _Blocked(Struct, frozen=True, kw_only=True):
    reason: str
    node: str = ""
    code: str = ""
    change: str = ""


class _Plan(Struct, frozen=True, kw_only=True):
    steps: Annotated[tuple[_Step, ...], Meta(max_length=10_000)] = ()
    blocked: Annotated[tuple[_Blocked, ...], Meta(max_length=100_000)] = ()
    changes: bool | None = None
    error: str = ""


class _Reply(Struct, frozen=True, kw_only=True):
    ok: bool
    text: str = ""


class Forward:
    def __init__(self, deps: Deps, direct: Direct) -> None:
        self._deps, self._direct = deps, direct

    async def plan(self, pools: Sequence[str]) -> t.Plan:
        """What the next pass over each pool would do. Raises `Refused` where no provisioner answers."""
        now = self._deps.clock.now()
        async with asyncio.TaskGroup() as tasks:
            asked = {pool: tasks.create_task(_caught(self._plan(pool)), name=f"plan {pool}") for pool in pools}
        plans = {pool: _or_raise(task.result()) for pool, task in asked.items()}
        steps = tuple(
            t.PlanStep(
                pool=pool,
                node=step.node,
                act=step.act,
                reason=step.reason,
                cost_per_hour_delta=step.cost_per_hour_delta,
            )
            for pool, plan in plans.items()
            for step in plan.steps
        )
        changes = any(bool(plan.steps) if plan.changes is None else plan.changes for plan in plans.values())
        blocked = tuple(
            t.PlanBlocked(pool=pool, node=wait.node, code=wait.code, reason=wait.reason, change=wait.change)
            for pool, plan in plans.items()
            for wait in plan.blocked
        )
        return t.Plan(steps=steps, changes=changes, blocked=blocked, as_of=now)

    async def _plan(self, pool: str) -> _Plan:
        subject = f"{self._deps.subjects.prefix}.plan.{check_id(pool, 'pool')}"
        try:
            answer = await self._deps.bus.request(subject, b"{}", timeout_s=PLAN_TIMEOUT_S)
            plan: _Plan = decode(answer.data, _Plan, size_max=ANSWER_BYTES_MAX)
        except (NoResponder, BusTimeout) as error:
            raise unavailable("no-provisioner", f"no provisioner answers for pool {pool}: is one running?") from error
        except BadMessage as error:
            raise unavailable(
                "bad-answer", f"the provisioner of pool {pool} answered with what is no plan: {error}"
            ) from error
        if plan.error:
            raise unavailable("no-plan", f"pool {pool}: {plan.error}")
        return plan

    async def inject(self, node: str, body: dict[str, Any]) -> dict[str, Any]:
        """Injects a fault. Raises `Refused` for a machine that is real, silent, or cannot do that."""
        facts = (await self._direct.node(read_id(node, "node"))).facts
        provider = self._deps.config.current.config.providers.get(provider_of(facts.node))
        kind = str(provider.__struct_config__.tag) if provider is not None else ""
        if kind not in SIMULATED:
            raise conflict(
                "not-simulated",
                f"{node} is a real machine ({kind or 'its provider is not configured'}): nothing is injected",
            )
        data = msgspec.json.encode(body)
        if len(data) > INJECT_BYTES_MAX:
            raise invalid("bad-body", f"{len(data)} bytes, more than the {INJECT_BYTES_MAX} allowed")
        try:
            answer = await self._deps.bus.request(self._deps.subjects.inject(node), data, timeout_s=INJECT_TIMEOUT_S)
            reply: _Reply = decode(answer.data, _Reply)
        except (NoResponder, BusTimeout) as error:
            raise unavailable("no-agent", f"the machine of {node} does not answer: {error}") from error
        except BadMessage as error:
            raise unavailable("bad-answer", f"the machine of {node} answered with nonsense: {error}") from error
        if not reply.ok:
            raise Refused(422, "injection-refused", reply.text)
        return {"node": node, "ok": True, "text": reply.text}


async def _caught(asked: Coroutine[Any, Any, _Plan]) -> _Plan | Refused:
    """A refusal as a value, so that one pool's does not become a group of errors."""
    try:
        return await asked
    except Refused as error:
        return error


def _or_raise(found: _Plan | Refused) -> _Plan:
    if isinstance(found, Refused):
        raise found
    return found
