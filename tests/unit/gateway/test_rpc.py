"""The gRPC door, through a real channel on loopback."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import msgspec
import pytest
from google.protobuf.descriptor import FieldDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from navarch_api import types as t
from navarch_api.v1 import fleet_pb2 as pb
from navarch_api.v1.fleet_pb2_grpc import FleetStub
from navarch_common.events.kinds import PoolResized
from navarch_common.store.base import Commit
from navarch_gateway.errors import PortTaken
from navarch_gateway.rpc.convert import to_message
from navarch_gateway.rpc.server import GrpcServer, serve_grpc
from support.gateway_world import START, GatewayWorld

if TYPE_CHECKING:
    from navarch_api.v1.fleet_pb2_grpc import FleetAsyncStub

VIEWS = [
    name
    for name in pb.DESCRIPTOR.message_types_by_name
    if isinstance(getattr(t, name, None), type) and issubclass(getattr(t, name), msgspec.Struct)
]


@dataclass
class Rpc:
    server: GrpcServer
    channel: grpc.aio.Channel
    fleet: "FleetAsyncStub"


@pytest.fixture
async def rpc(gateway: GatewayWorld) -> AsyncIterator[Rpc]:
    async with (
        serve_grpc(gateway.service.fleet, "127.0.0.1", 0) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield Rpc(server, channel, FleetStub(channel))


@pytest.mark.parametrize("name", VIEWS)
def test_every_field_of_a_view_has_its_field_in_the_proto(name: str) -> None:
    fields = set(pb.DESCRIPTOR.message_types_by_name[name].fields_by_name)
    assert fields == set(getattr(t, name).__struct_fields__)


@pytest.mark.parametrize("name", VIEWS)
def test_what_may_be_absent_in_a_view_may_be_absent_in_the_proto(name: str) -> None:
    for field in msgspec.structs.fields(getattr(t, name)):
        found: FieldDescriptor = pb.DESCRIPTOR.message_types_by_name[name].fields_by_name[field.name]
        if field.default is None:
            assert found.has_presence, f"{name}.{field.name}"


async def test_both_doors_show_the_same(gateway: GatewayWorld, rpc: Rpc) -> None:
    over_http = await gateway.client.nodes()
    over_rpc = await rpc.fleet.ListNodes(pb.ListNodesRequest(), timeout=5)
    assert over_rpc == to_message(over_http, pb.NodeList)
    assert over_rpc.items[0].created_at.ToDatetime(START.tzinfo) == START
    assert not over_rpc.items[3].HasField("gpus")
    detail = await rpc.fleet.GetNode(pb.GetNodeRequest(node="n2"), timeout=5)
    assert detail == to_message(await gateway.client.node("n2"), pb.NodeDetail)
    assert detail.sample.gpus[0].process_count == 1
    assert (await rpc.fleet.GetPool(pb.GetPoolRequest(pool="training"), timeout=5)).max_nodes == 5
    assert len((await rpc.fleet.ListPools(pb.ListPoolsRequest(), timeout=5)).items) == 2
    assert len((await rpc.fleet.ListInstances(pb.ListInstancesRequest(limit=2), timeout=5)).items) == 2
    assert (await rpc.fleet.GetVersion(pb.GetVersionRequest(), timeout=5)).cluster == "test"
    explained = await rpc.fleet.Explain(pb.ExplainRequest(node="n3"), timeout=5)
    assert explained.reason == "Xid 79 on GPU 3"


async def test_a_wish_over_grpc_is_a_wish(gateway: GatewayWorld, rpc: Rpc) -> None:
    request = pb.MakeNodeWishRequest(node="n1", verb="cordon", request_id="r1")
    accepted = await rpc.fleet.MakeNodeWish(request, timeout=5, metadata=(("navarch-actor", "operator:ada"),))
    assert not accepted.repeated
    assert (await rpc.fleet.MakeNodeWish(request, timeout=5)).repeated
    state = await rpc.fleet.GetWish(pb.GetWishRequest(node="n1", request_id="r1"), timeout=5)
    assert (state.state, state.wish.actor) == ("open", "operator:ada")
    scaled = await rpc.fleet.MakePoolWish(pb.MakePoolWishRequest(pool="training", verb="scale", nodes=2), timeout=5)
    assert scaled.pool == "training"
    frozen = await rpc.fleet.Freeze(pb.FreezeRequest(reason="audit"), timeout=5)
    assert (frozen.number, frozen.level) == (1, "all")
    assert not (await rpc.fleet.Unfreeze(pb.UnfreezeRequest(), timeout=5)).active
    assert len((await rpc.fleet.ListGuards(pb.ListGuardsRequest(), timeout=5)).items) == 1
    held = await rpc.fleet.Hold(pb.HoldRequest(target="n1", reason="fans", for_s=60), timeout=5)
    assert (held.kind, held.node, held.number) == ("hold", "n1", 3)
    assert not (await rpc.fleet.Release(pb.ReleaseRequest(target="n1"), timeout=5)).active


@pytest.mark.parametrize(
    ("method", "request_", "status", "code"),
    [
        ("GetNode", pb.GetNodeRequest(node="n9"), grpc.StatusCode.NOT_FOUND, "not-found"),
        ("GetNode", pb.GetNodeRequest(node="A b"), grpc.StatusCode.INVALID_ARGUMENT, "bad-id"),
        ("GetNode", pb.GetNodeRequest(), grpc.StatusCode.INVALID_ARGUMENT, "bad-id"),
        ("ListNodes", pb.ListNodesRequest(limit=-1), grpc.StatusCode.INVALID_ARGUMENT, "bad-limit"),
        ("MakeNodeWish", pb.MakeNodeWishRequest(node="n2", verb="terminate"), grpc.StatusCode.FAILED_PRECONDITION, "busy"),
        ("MakeNodeWish", pb.MakeNodeWishRequest(node="n2"), grpc.StatusCode.INVALID_ARGUMENT, "bad-field"),
        ("MakeNodeWish", pb.MakeNodeWishRequest(node="n2", verb="drain", expires_in_s=float("nan")),
         grpc.StatusCode.INVALID_ARGUMENT, "bad-field"),
        ("MakePoolWish", pb.MakePoolWishRequest(pool="training", verb="scale", nodes=9),
         grpc.StatusCode.INVALID_ARGUMENT, "out-of-bounds"),
        ("Explain", pb.ExplainRequest(), grpc.StatusCode.INVALID_ARGUMENT, "bad-parameter"),
        ("GetWish", pb.GetWishRequest(node="n1", pool="p"), grpc.StatusCode.INVALID_ARGUMENT, "bad-parameter"),
        ("GetPlan", pb.GetPlanRequest(pool="training"), grpc.StatusCode.UNAVAILABLE, "no-provisioner"),
        ("GetConfig", pb.GetConfigRequest(), grpc.StatusCode.NOT_FOUND, "not-found"),
    ],
)  # fmt: skip
async def test_a_refusal_names_its_code(
    rpc: Rpc, method: str, request_: object, status: grpc.StatusCode, code: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(rpc.fleet, method)(request_, timeout=5)
    assert caught.value.code() is status
    assert dict(caught.value.trailing_metadata())["navarch-code"] == code
    assert caught.value.details()


async def test_events_are_watched_and_resumed(gateway: GatewayWorld, rpc: Rpc) -> None:
    async def resize(after: int) -> None:
        event = PoolResized(
            at=START, cluster="test", pool="training", reason="more", code="queue", actor="autoscaler", after=after
        )
        await gateway.deps.committer.commit(Commit(emit=(event,)))

    async with asyncio.timeout(10):
        watch = rpc.fleet.WatchEvents(pb.WatchEventsRequest(pool="training"))
        await watch.initial_metadata()
        await resize(4)
        first = await watch.read()
        assert isinstance(first, pb.Event)
        assert (first.type, first.actor, msgspec.json.decode(first.json)["after"]) == (
            "pool.resized.v1",
            "autoscaler",
            4,
        )
        watch.cancel()
        await resize(5)
        resumed = rpc.fleet.WatchEvents(pb.WatchEventsRequest(pool="training", after=first.sequence))
        again = await resumed.read()
        assert isinstance(again, pb.Event)
        assert again.sequence == first.sequence + 1
        resumed.cancel()


async def test_watching_nonsense_is_refused(rpc: Rpc) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rpc.fleet.WatchEvents(pb.WatchEventsRequest(type="Node")).read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_health_says_whether_the_gateway_is_ready(rpc: Rpc) -> None:
    stub = health_pb2_grpc.HealthStub(rpc.channel)
    request = health_pb2.HealthCheckRequest(service="navarch.v1.Fleet")
    for serving, status in ((True, "SERVING"), (False, "NOT_SERVING")):
        await rpc.server.set_serving(serving)
        found = await stub.Check(request, timeout=5)
        assert health_pb2.HealthCheckResponse.ServingStatus.Name(found.status) == status


async def test_reflection_lists_the_fleet(rpc: Rpc) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(rpc.channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    async for answer in call:
        names = {service.name for service in answer.list_services_response.service}
        assert {"navarch.v1.Fleet", "grpc.health.v1.Health"} <= names
        break


async def test_a_busy_port_is_an_error_that_names_the_flag(gateway: GatewayWorld, rpc: Rpc) -> None:
    with pytest.raises(PortTaken, match=rf"--grpc.*127.0.0.1:{rpc.server.port}"):
        async with serve_grpc(gateway.service.fleet, "127.0.0.1", rpc.server.port):
            pass
