"""`navarch.v1.Fleet`: each method reads its request, asks the fleet, and answers with a message."""

# ruff: noqa: N802 - the methods have the names that the .proto gives them

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc
import msgspec
from google.protobuf.message import Message

from navarch_api.v1 import fleet_pb2 as pb
from navarch_api.v1.fleet_pb2_grpc import FleetServicer
from navarch_gateway.asks import (
    ChangeAsk,
    FreezeAsk,
    HoldAsk,
    NodeAsk,
    NodeQuery,
    PoolAsk,
    ReleaseAsk,
    UnfreezeAsk,
    read_actor,
    read_ask,
    read_event_query,
    read_id,
    read_page,
)
from navarch_gateway.fleet import Fleet
from navarch_gateway.history import as_line
from navarch_gateway.refusal import Refused, bad, refusal_of
from navarch_gateway.rpc.convert import STATUS_CODES, to_event, to_fields, to_message

M = TypeVar("M", bound=Message)
Context = grpc.aio.ServicerContext[Any, Any]

REQUEST_TIMEOUT_S = 15.0
WATCHERS_MAX = 100


class FleetDoor(FleetServicer):
    """Every method ends with a status of its own choosing: nothing that goes wrong inside reaches gRPC unnamed."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.watchers = 0

    async def ListNodes(self, request: pb.ListNodesRequest, context: Context) -> pb.NodeList:
        async def ask() -> msgspec.Struct:
            query = NodeQuery(
                pool=request.pool,
                provider=request.provider,
                region=request.region,
                status=request.status,
                health=request.health,
                labels=dict(request.labels),
                terminated=request.all,
            )
            return await self._fleet.reads.nodes(query, read_page(request.limit or None, request.page_token))

        return await _answer(context, pb.NodeList, ask)

    async def GetNode(self, request: pb.GetNodeRequest, context: Context) -> pb.NodeDetail:
        return await _answer(context, pb.NodeDetail, lambda: self._fleet.reads.node(request.node))

    async def ListInstances(self, request: pb.ListInstancesRequest, context: Context) -> pb.InstanceList:
        async def ask() -> msgspec.Struct:
            page = read_page(request.limit or None, request.page_token)
            return await self._fleet.reads.instances(request.pool, request.provider, page)

        return await _answer(context, pb.InstanceList, ask)

    async def ListPools(self, request: pb.ListPoolsRequest, context: Context) -> pb.PoolList:  # noqa: ARG002 - it says nothing
        async def ask() -> msgspec.Struct:
            return self._fleet.reads.pools()

        return await _answer(context, pb.PoolList, ask)

    async def GetPool(self, request: pb.GetPoolRequest, context: Context) -> pb.PoolStatus:
        async def ask() -> msgspec.Struct:
            return self._fleet.reads.pool(request.pool)

        return await _answer(context, pb.PoolStatus, ask)

    async def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.Explanation:
        async def ask() -> msgspec.Struct:
            _exactly_one(request)
            query = read_event_query(since=request.since, now=self._fleet.clock.now())
            if request.node:
                return await self._fleet.reads.explain_node(request.node, query)
            return await self._fleet.reads.explain_pool(request.pool, query)

        return await _answer(context, pb.Explanation, ask)

    async def GetPlan(self, request: pb.GetPlanRequest, context: Context) -> pb.Plan:
        async def ask() -> msgspec.Struct:
            return await self._fleet.plan(read_id(request.pool, "pool") if request.pool else "")

        return await _answer(context, pb.Plan, ask)

    async def MakeNodeWish(self, request: pb.MakeNodeWishRequest, context: Context) -> pb.WishAccepted:
        async def ask() -> msgspec.Struct:
            wish = read_ask(to_fields(request, "node"), NodeAsk)
            return await self._fleet.acts.wish_node(request.node, wish, _actor(context))

        return await _answer(context, pb.WishAccepted, ask)

    async def MakePoolWish(self, request: pb.MakePoolWishRequest, context: Context) -> pb.WishAccepted:
        async def ask() -> msgspec.Struct:
            wish = read_ask(to_fields(request, "pool"), PoolAsk)
            return await self._fleet.acts.wish_pool(request.pool, wish, _actor(context))

        return await _answer(context, pb.WishAccepted, ask)

    async def GetWish(self, request: pb.GetWishRequest, context: Context) -> pb.WishState:
        async def ask() -> msgspec.Struct:
            _exactly_one(request)
            if request.node:
                return await self._fleet.reads.node_wish(request.node, request.request_id)
            return await self._fleet.reads.pool_wish(request.pool, request.request_id)

        return await _answer(context, pb.WishState, ask)

    async def Freeze(self, request: pb.FreezeRequest, context: Context) -> pb.GuardAccepted:
        async def ask() -> msgspec.Struct:
            return await self._fleet.acts.freeze(read_ask(to_fields(request), FreezeAsk), _actor(context))

        return await _answer(context, pb.GuardAccepted, ask)

    async def Unfreeze(self, request: pb.UnfreezeRequest, context: Context) -> pb.GuardAccepted:
        async def ask() -> msgspec.Struct:
            return await self._fleet.acts.unfreeze(read_ask(to_fields(request), UnfreezeAsk), _actor(context))

        return await _answer(context, pb.GuardAccepted, ask)

    async def ListChanges(self, request: pb.ListChangesRequest, context: Context) -> pb.ChangeList:  # noqa: ARG002 - it says nothing
        async def ask() -> msgspec.Struct:
            return self._fleet.reads.changes()

        return await _answer(context, pb.ChangeList, ask)

    async def MakeChangeWish(self, request: pb.MakeChangeWishRequest, context: Context) -> pb.WishAccepted:
        async def ask() -> msgspec.Struct:
            wish = read_ask(to_fields(request, "change"), ChangeAsk)
            return await self._fleet.acts.wish_change(request.change, wish, _actor(context))

        return await _answer(context, pb.WishAccepted, ask)

    async def Hold(self, request: pb.HoldRequest, context: Context) -> pb.GuardAccepted:
        async def ask() -> msgspec.Struct:
            return await self._fleet.acts.hold(read_ask(to_fields(request), HoldAsk), _actor(context))

        return await _answer(context, pb.GuardAccepted, ask)

    async def Release(self, request: pb.ReleaseRequest, context: Context) -> pb.GuardAccepted:
        async def ask() -> msgspec.Struct:
            return await self._fleet.acts.release(read_ask(to_fields(request), ReleaseAsk), _actor(context))

        return await _answer(context, pb.GuardAccepted, ask)

    async def ListGuards(self, request: pb.ListGuardsRequest, context: Context) -> pb.GuardList:  # noqa: ARG002 - it says nothing
        return await _answer(context, pb.GuardList, self._fleet.reads.guards)

    async def WatchEvents(self, request: pb.WatchEventsRequest, context: Context) -> AsyncIterator[pb.Event]:
        """Ends only with the caller, or with the bus: then with UNAVAILABLE, and `after` resumes."""
        if self.watchers >= WATCHERS_MAX:
            await _refuse(context, Refused(503, "too-many-followers", f"{WATCHERS_MAX} clients watch events already"))
        self.watchers += 1
        try:
            query = read_event_query(
                pool=request.pool,
                node=request.node,
                type_=request.type,
                since=request.since,
                now=self._fleet.clock.now(),
            )
            if request.after < 0:
                raise bad("bad-parameter", "after is a sequence, and those begin at 1", field="after")
            after = request.after if request.HasField("after") else None
            place = await self._fleet.history.place(query, after)
            async with self._fleet.history.follow(query, place) as messages:
                # So that the caller knows from when on nothing is missed.
                await context.send_initial_metadata(())
                async for message in messages:
                    line = as_line(message)
                    if line is not None and (event := to_event(line)) is not None:
                        yield event
            raise Refused(503, "bus-unavailable", "the stream ended: the gateway is stopping")
        except Exception as error:  # noqa: BLE001 - the edge of a handler: `refusal_of` logs what nobody expected
            await _refuse(context, refusal_of(error))
        finally:
            self.watchers -= 1

    async def GetConfig(self, request: pb.GetConfigRequest, context: Context) -> pb.Config:  # noqa: ARG002 - it says nothing
        return await _answer(context, pb.Config, self._fleet.reads.config)

    async def GetVersion(self, request: pb.GetVersionRequest, context: Context) -> pb.Version:  # noqa: ARG002 - it says nothing
        async def ask() -> msgspec.Struct:
            return self._fleet.reads.version()

        return await _answer(context, pb.Version, ask)


async def _answer(context: Context, kind: type[M], ask: Callable[[], Awaitable[msgspec.Struct]]) -> M:
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            view = await ask()
        return to_message(view, kind)
    except Exception as error:  # noqa: BLE001 - the edge of every handler: `refusal_of` logs what nobody expected
        refused = refusal_of(error)
    return await _refuse(context, refused)


async def _refuse(context: Context, refused: Refused) -> NoReturn:
    status = STATUS_CODES.get(refused.status, grpc.StatusCode.INTERNAL)
    detail = f"{refused.field}: {refused.detail}" if refused.field else refused.detail
    await context.abort(status, detail, trailing_metadata=(("navarch-code", refused.code),))
    raise AssertionError("abort raises")


def _actor(context: Context) -> str:
    for name, value in context.invocation_metadata() or ():
        if name == "navarch-actor":
            return read_actor(value if isinstance(value, str) else value.decode(errors="replace"))
    return read_actor(None)


def _exactly_one(request: pb.ExplainRequest | pb.GetWishRequest) -> None:
    if bool(request.node) == bool(request.pool):
        raise bad("bad-parameter", "expected exactly one of node and pool", field="node")
