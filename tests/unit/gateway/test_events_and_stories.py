"""Events, read and followed; why things are as they are; questions passed on."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from navarch_api.errors import ApiError
from navarch_api.types import EventItem
from navarch_common.events.base import Event
from navarch_common.events.kinds import NodeActive, NodeCordoned, NodeFailed, NodePlanned, PoolResized
from navarch_common.model.base import Reason
from navarch_common.model.node import NODE
from navarch_common.model.pool import SUPPLY, SupplyRecord
from navarch_common.store.base import Commit
from navarch_gateway.explain import story
from navarch_gateway.history import as_line
from navarch_gateway.http.events import Events
from support.gateway_world import START, GatewayWorld, answering, node


def event(kind: type[Event], at_s: float = 0.0, **fields: Any) -> Event:
    known = {"cluster": "test", "pool": "training", "code": "x", "actor": "health", "reason": f"{kind.KIND} happened"}
    return kind(at=START + timedelta(seconds=at_s), **(known | fields))  # type: ignore[arg-type]


async def tell(gateway: GatewayWorld, *events: Event) -> None:
    for one in events:
        await gateway.deps.committer.commit(Commit(emit=(one,)))


async def test_events_are_shown_as_they_were_sent_newest_last(gateway: GatewayWorld) -> None:
    await tell(gateway, event(NodeFailed, node="n3", cause="xid-79"), event(PoolResized, before=2, after=3))
    answer = await gateway.client.events()
    assert [item["type"] for item in answer.items] == ["node.failed.v1", "pool.resized.v1"]
    assert (answer.items[0]["cause"], answer.items[0]["sequence"]) == ("xid-79", 1)
    assert answer.truncated is False


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"pool": "training"}, ["node.failed", "pool.resized"]),
        ({"pool": "burst"}, ["node.cordoned"]),
        ({"node": "n3"}, ["node.failed"]),
        ({"node": "n3", "pool": "burst"}, []),
        ({"type": "node.failed"}, ["node.failed"]),
        ({"type": "node.*"}, ["node.failed", "node.cordoned"]),
        ({"type": "node"}, ["node.failed", "node.cordoned"]),
        ({"type": "*.resized"}, ["pool.resized"]),
        ({"type": "node.failed", "pool": "training"}, ["node.failed"]),
        ({"limit": 1}, ["node.cordoned"]),
        ({"since": "2026-01-01T00:00:00Z", "type": "pool.resized.v1"}, ["pool.resized"]),
    ],
    ids=str,
)
async def test_events_are_filtered(gateway: GatewayWorld, query: dict[str, Any], expected: list[str]) -> None:
    await tell(
        gateway,
        event(NodeFailed, node="n3"),
        event(PoolResized),
        event(NodeCordoned, node="n6", pool="burst"),
    )
    answer = await gateway.client.events(**query)
    kinds = [EventItem.of(item).kind for item in answer.items]
    assert [kind for kind in kinds if not kind.startswith("cluster.")] == expected


async def test_old_events_are_found_when_there_are_no_newer_ones(gateway: GatewayWorld) -> None:
    await tell(gateway, event(NodeFailed, node="n3"))
    gateway.world.advance(3 * 86_400)
    answer = await gateway.client.events(type="node.failed")
    assert len(answer.items) == 1


async def next_lines(events: Events, gateway: GatewayWorld, count: int, query: Any, after: int | None) -> list[Any]:
    fleet = gateway.service.fleet
    stream = events._lines(fleet, query, await fleet.history.place(query, after))
    found: list[Any] = []
    async with asyncio.timeout(5):
        async for line in stream:
            found.append(msgspec.json.decode(line) if line.strip() else None)
            if len(found) == count:
                break
    await stream.aclose()  # type: ignore[attr-defined]
    return found


async def test_a_follower_is_resumed_behind_the_last_event_that_it_saw(gateway: GatewayWorld) -> None:
    from navarch_gateway.asks import EventQuery

    await tell(gateway, *(event(NodeFailed, node=f"n{number}") for number in (1, 2, 3)))
    first = (await gateway.client.events(type="node.failed")).items[0]["sequence"]
    begin, second, third = await next_lines(Events(), gateway, 3, EventQuery(kind="node", what="failed"), first)
    assert begin is None
    assert [second["node"], third["node"]] == ["n2", "n3"]
    assert second["sequence"] == first + 1


async def test_a_follower_is_told_where_its_stream_begins_before_anything_happened(gateway: GatewayWorld) -> None:
    """One that breaks before its first event would otherwise begin again at whatever is new by then."""
    from navarch_gateway.asks import EventQuery

    history = gateway.service.fleet.history
    await tell(gateway, event(NodeFailed, node="n1"))
    now = await history.place(EventQuery(), None)
    await tell(gateway, event(NodeFailed, node="n2"))
    again = await history.place(EventQuery(), now.after, now.stream)
    assert again == now
    begin, second = await next_lines(Events(), gateway, 2, EventQuery(), again.after)
    assert (begin, second["node"]) == (None, "n2")
    since = await history.place(EventQuery(since=START), None)
    assert (since.after, since.since) == (None, START)


async def test_a_follower_of_a_stream_that_was_made_anew_hears_all_that_is_in_the_new_one(
    gateway: GatewayWorld,
) -> None:
    from navarch_gateway.asks import EventQuery

    history = gateway.service.fleet.history
    await tell(gateway, *(event(NodeFailed, node=f"n{number}") for number in (1, 2, 3)))
    before = await history.place(EventQuery(), None)
    assert before.after == 3
    gateway.world.buses.streams.clear()
    gateway.world.advance(60)
    await gateway.world.bus.ensure_streams(gateway.world.subjects.streams())
    await tell(gateway, event(NodeFailed, node="n4"))
    assert (await history.place(EventQuery(), before.after, before.stream)).after == 0
    assert (
        await history.place(EventQuery(), before.after)
    ).after == 0  # a client that hands back no more than a number
    await tell(gateway, *(event(NodeFailed, node=f"n{number}") for number in (5, 6, 7)))
    assert (await history.place(EventQuery(), before.after, before.stream)).after == 0


async def test_a_silent_stream_says_that_it_lives(gateway: GatewayWorld) -> None:
    from navarch_gateway.asks import EventQuery

    events = Events(keep_alive_s=0.01)
    assert await next_lines(events, gateway, 3, EventQuery(), None) == [None, None, None]
    assert events.followers == 0


async def test_no_more_followers_than_there_is_room_for(gateway: GatewayWorld) -> None:
    from navarch_gateway.asks import EventQuery
    from navarch_gateway.refusal import Refused

    with pytest.raises(Refused, match="follow events already"):
        await Events(followers_max=0)._follow(gateway.service.fleet, EventQuery(), None, "")


async def test_a_message_that_is_no_event_does_not_break_a_list(gateway: GatewayWorld) -> None:
    await gateway.world.bus.publish_durable("navarch.events.node.failed.training.n1", b"nonsense", msg_id="x")
    await tell(gateway, event(NodeFailed, node="n3"))
    assert len((await gateway.client.events(type="node.failed")).items) == 1
    stored = await gateway.world.bus.last_message("NAVARCH_EVENTS", "navarch.events.node.failed.training.n1")
    assert stored is not None
    assert as_line(stored) is None


async def test_the_bus_being_away_is_a_problem(gateway: GatewayWorld) -> None:
    gateway.world.buses.stop()
    problem = await gateway.refused("GET", "/events")
    assert (problem["status"], problem["code"]) == (503, "bus-unavailable")


async def test_a_nodes_story_is_told_newest_first_with_its_replacement(gateway: GatewayWorld) -> None:
    cordoned = Reason(at=START, code="x", text="node.cordoned happened", actor="provisioner")
    noted = Reason(at=START + timedelta(seconds=1.5), code="budget", text="a token was free", actor="provisioner")
    waiting = Reason(at=START, code="boot", text="waits for n4 to boot", actor="provisioner")
    await gateway.world.plant(
        (NODE.key("n3"), node("n3", replaced_by="n4", reasons=(cordoned, noted), blocked=waiting)),
    )
    await tell(
        gateway,
        event(NodeFailed, node="n3", reason="GPU 3 fell off the bus"),
        event(NodeCordoned, 1, node="n3"),
        event(NodePlanned, 2, node="n4", replaces="n3"),
        event(NodeActive, 3, node="n4"),
        event(NodeFailed, 4, node="n1"),
    )
    told = await gateway.client.explain_node("n3")
    assert [item.event or item.text for item in told.items] == [
        "node.active", "node.planned", "a token was free", "node.cordoned", "node.failed",
    ]  # fmt: skip
    assert (told.blocked and told.blocked.text, told.status, told.complete) == (
        "waits for n4 to boot",
        "unhealthy",
        True,
    )
    later = await gateway.client.explain_node("n3", since="2026-01-01T00:00:02Z")
    assert [item.event for item in later.items] == ["node.active", "node.planned"]


async def test_a_story_without_events_says_that_it_is_incomplete(gateway: GatewayWorld) -> None:
    gateway.world.buses.stop()
    told = await gateway.client.explain_node("n3")
    assert told.complete is False
    assert told.reason == "Xid 79 on GPU 3"


async def test_a_pools_story_says_what_blocks_it(gateway: GatewayWorld) -> None:
    waits = Reason(
        at=START + timedelta(seconds=0.5), code="exhausted", text="no capacity anywhere", actor="provisioner"
    )
    await gateway.world.plant((SUPPLY.key("training"), SupplyRecord(pool="training", blocked=waits, reasons=(waits,))))
    await tell(gateway, event(PoolResized, before=2, after=3), event(NodeFailed, 1, node="n3"))
    await gateway.refresh()
    told = await gateway.client.explain_pool("training")
    assert [item.event for item in told.items] == ["node.failed", "", "pool.resized"]
    assert told.blocked is not None
    assert told.blocked.code == "exhausted"
    await gateway.client.freeze(reason="audit")
    await gateway.refresh()
    told = await gateway.client.explain_pool("training")
    assert told.blocked is not None
    assert told.blocked.code == "frozen"


def test_a_reason_far_from_its_events_time_is_a_reason_of_its_own() -> None:
    said = event(NodeCordoned, node="n3")
    old = Reason(at=START - timedelta(hours=1), code="x", text=said.reason, actor="provisioner")
    assert len(story([said, said], [old, old])) == 2


async def test_the_plan_is_the_provisioners_word(gateway: GatewayWorld) -> None:
    said = b'{"steps":[{"act":"launch","node":"n8","reason":"3 wanted, 2 there","cost_per_hour_delta":2.5}],"changes":true,"blocked":[{"node":"n1","code":"busy","reason":"its work has not left"}]}'
    tasks = [
        await answering(gateway, "navarch.plan.training", said),
        await answering(gateway, "navarch.plan.burst", b'{"steps":[],"changes":false}'),
    ]
    plan = await gateway.client.plan()
    (step,) = plan.steps
    assert (step.pool, step.node, step.act, step.cost_per_hour_delta, plan.changes) == (
        "training",
        "n8",
        "launch",
        2.5,
        True,
    )
    (waits,) = plan.blocked
    assert (waits.pool, waits.node, waits.code, waits.reason) == ("training", "n1", "busy", "its work has not left")
    assert (await gateway.client.plan("burst")).changes is False
    for task in tasks:
        task.cancel()


@pytest.mark.parametrize("reply", [None, b"nonsense", b'{"steps":[{}]}', b'{"error":"the store is away"}'])
async def test_no_plan_is_a_problem_not_an_empty_plan(gateway: GatewayWorld, reply: bytes | None) -> None:
    task = await answering(gateway, "navarch.plan.training", reply) if reply is not None else None
    with pytest.raises(ApiError) as caught:
        await gateway.client.plan("training")
    assert caught.value.status == 503
    if task:
        task.cancel()


async def test_faults_are_injected_into_simulated_machines_alone(gateway: GatewayWorld) -> None:
    task = await answering(gateway, "navarch.inject.n1", b'{"ok":true,"text":"Xid 79 printed"}')
    assert (await gateway.client.inject("n1", {"verb": "xid", "code": 79}))["text"] == "Xid 79 printed"
    task.cancel()
    with pytest.raises(ApiError, match="real machine") as caught:
        await gateway.client.inject("n6", {"verb": "xid"})
    assert caught.value.code == "not-simulated"
    with pytest.raises(ApiError) as caught:
        await gateway.client.inject("n2", {"verb": "xid"})
    assert caught.value.code == "no-agent"


async def test_an_injection_that_a_machine_refuses_is_told(gateway: GatewayWorld) -> None:
    task = await answering(gateway, "navarch.inject.n1", b'{"ok":false,"text":"there is no GPU 9"}')
    with pytest.raises(ApiError, match="there is no GPU 9") as caught:
        await gateway.client.inject("n1", {"verb": "xid", "gpu": 9})
    assert caught.value.status == 422
    task.cancel()
