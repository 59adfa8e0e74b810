"""Wishes: accepted, refused with a reason, the same request only once."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec import structs

from navarch_api.errors import ApiError
from navarch_common.events.kinds import OperatorAction
from navarch_common.model.node import NODE, Cordon, Phase, ProviderState
from navarch_common.model.pool import GUARD, POOL, Guard, Pause
from navarch_common.model.wish import NODE_WISHES, POOL_WISH, Answer
from navarch_common.store.base import Commit
from support.gateway_world import START, GatewayWorld, beat, node, pool_record

DONE = Answer(at=START, outcome="done", code="done", reason="done")


async def test_a_wish_and_its_event_are_durable_before_the_answer(gateway: GatewayWorld) -> None:
    accepted = await gateway.client.wish_node("n1", "cordon", reason="new firmware", request_id="r1")
    stored = await gateway.world.found(NODE_WISHES.key("n1"))
    (wish,) = stored.record.wishes  # type: ignore[attr-defined]
    assert (wish.id, wish.verb, wish.actor, wish.reason) == ("r1", "cordon", "operator:ada", "new firmware")
    assert wish.expires_at == START + timedelta(hours=1)
    (event,) = await gateway.world.events("operator.action")
    assert isinstance(event, OperatorAction)
    assert (event.id, event.rev) == (accepted.event_id, accepted.revision)
    assert (event.request_id, event.node, event.pool, event.action) == ("r1", "n1", "training", "cordon")
    assert event.reason == "operator:ada asked to cordon n1: new firmware"
    assert len(event.trace_id) == 32


async def test_the_event_travels_on_the_subject_of_its_action(gateway: GatewayWorld) -> None:
    await gateway.client.wish_node("n1", "cordon")
    stream = gateway.world.subjects.stream("EVENTS")
    async with gateway.world.bus.read(stream, ["navarch.events.operator.cordon.training.n1"]) as messages:
        assert len([message async for message in messages]) == 1


async def test_the_same_request_again_is_the_same_wish(gateway: GatewayWorld) -> None:
    first = await gateway.client.wish_node("n1", "cordon", request_id="r1")
    await gateway.client.wish_node("n1", "drain", request_id="r2")
    again = await gateway.client.wish_node("n1", "cordon", request_id="r1")
    assert again.repeated
    assert (again.event_id, again.revision) == (first.event_id, first.revision)
    assert len(await gateway.world.events("operator.action")) == 2


async def test_the_same_request_after_its_answer_is_still_the_same_wish(gateway: GatewayWorld) -> None:
    first = await gateway.client.wish_node("n1", "cordon", request_id="r1")
    await gateway.world.plant((NODE.key("n1"), node("n1", answers={"r1": DONE})))
    await gateway.refresh()
    await gateway.service._prune()
    again = await gateway.client.wish_node("n1", "cordon", request_id="r1")
    assert (again.repeated, again.event_id) == (True, first.event_id)


async def test_a_request_id_of_another_verb_is_refused(gateway: GatewayWorld) -> None:
    await gateway.client.wish_node("n1", "cordon", request_id="r1")
    with pytest.raises(ApiError, match="used before, to cordon") as caught:
        await gateway.client.wish_node("n1", "drain", request_id="r1")
    assert caught.value.code == "request-id-reused"


async def test_a_commit_whose_reply_was_lost_is_found_again_by_its_request(gateway: GatewayWorld) -> None:
    gateway.world.store.lose_replies(1)
    with pytest.raises(ApiError) as caught:
        await gateway.client.wish_node("n1", "cordon", request_id="r1")
    assert (caught.value.status, caught.value.code) == (503, "state-unavailable")
    assert (await gateway.client.wish_node("n1", "cordon", request_id="r1")).repeated
    assert (await gateway.client.node_wish("n1", "r1")).state == "open"


async def test_a_node_that_changed_meanwhile_is_decided_again(
    gateway: GatewayWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our read and our commit another operator's verb arrives and the node ends."""
    commit, times = gateway.deps.committer.commit, 0

    async def late(made: Commit) -> int:
        nonlocal times
        if (times := times + 1) == 1:
            await gateway.world.plant((NODE.key("n1"), node("n1", phase=Phase.TERMINATED)))
        return await commit(made)

    monkeypatch.setattr(gateway.deps.committer, "commit", late)
    with pytest.raises(ApiError, match="has ended") as caught:
        await gateway.client.wish_node("n1", "cordon")
    assert caught.value.code == "terminated"
    assert times == 1


async def test_a_wish_is_open_until_its_owner_gives_the_final_answer(gateway: GatewayWorld) -> None:
    await gateway.client.wish_node("n1", "drain", request_id="r1")
    assert (await gateway.client.node_wish("n1", "r1")).answer is None
    under_way = structs.replace(DONE, outcome="accepted")
    await gateway.world.plant((NODE.key("n1"), node("n1", answers={"r1": under_way})))
    state = await gateway.client.node_wish("n1", "r1")
    assert (state.state, state.answer and state.answer.outcome) == ("open", "accepted")
    await gateway.world.plant((NODE.key("n1"), node("n1", answers={"r1": DONE})))
    assert (await gateway.client.wait_for_wish("r1", node="n1", timeout_s=1.0)).state == "answered"


async def test_answered_wishes_are_taken_out_and_open_ones_stay(gateway: GatewayWorld) -> None:
    await gateway.client.wish_node("n1", "cordon", request_id="r1")
    await gateway.client.wish_node("n1", "drain", request_id="r2")
    await gateway.world.plant((NODE.key("n1"), node("n1", answers={"r1": DONE})))
    await gateway.refresh()
    assert await gateway.service._prune() == {"pruned": 1, "conflicts": 0}
    stored = await gateway.world.found(NODE_WISHES.key("n1"))
    assert [wish.id for wish in stored.record.wishes] == ["r2"]  # type: ignore[attr-defined]
    await gateway.world.plant((NODE.key("n1"), node("n1", answers={"r1": DONE, "r2": DONE})))
    await gateway.refresh()
    await gateway.service._prune()
    assert await gateway.world.store.get(NODE_WISHES.key("n1")) is None


async def test_a_preview_changes_nothing(gateway: GatewayWorld) -> None:
    preview = await gateway.client.preview_node_wish("n1", "replace")
    assert preview.would == "launch a replacement for n1 in pool training, drain n1, and terminate it"
    assert await gateway.world.store.get(NODE_WISHES.key("n1")) is None
    pool = await gateway.client.preview_pool_wish("burst", "scale", nodes=4, for_s=3600)
    assert pool.would == "burst goes from 2 to 4 nodes for 1h, then autoscaling takes over again"
    with pytest.raises(ApiError):
        await gateway.client.preview_pool_wish("burst", "scale", nodes=40)


GONE = structs.replace(node("n2").instance, state=ProviderState.GONE)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("record", "verb", "code", "says"),
    [
        (node("n1", phase=Phase.TERMINATED), "cordon", "terminated", "n1 has ended"),
        (node("n1", phase=Phase.LAUNCH_FAILED), "terminate", "terminated", "launch_failed"),
        (node("n1", phase=Phase.TERMINATING), "drain", "terminating", "already being terminated"),
        (node("n1"), "uncordon", "not-cordoned", "n1 is not cordoned"),
        (
            node("n1", cordons={"health": Cordon(reason="silent", at=START)}), "uncordon", "not-cordoned",
            "no operator cordoned n1: health did, and lifts it when its reason is gone (silent)",
        ),
        (node("n1", phase=Phase.BOOTING), "drain", "not-active", "still booting"),
        (node("n1", replaced_by="n9"), "replace", "already-replaced", "by n9"),
        (node("n2"), "terminate", "busy", "processes hold GPU 0, 1"),
        (node("n3"), "terminate", "busy", "it has sent no heartbeat"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)  # fmt: skip
async def test_what_makes_no_sense_is_refused_with_a_reason(
    gateway: GatewayWorld, record: Any, verb: Any, code: str, says: str
) -> None:
    await gateway.world.plant((NODE.key(record.node), record))
    with pytest.raises(ApiError) as caught:
        await gateway.client.wish_node(record.node, verb)
    assert (caught.value.status, caught.value.code) == (409, code)
    assert says in str(caught.value)
    assert await gateway.world.events("operator.action") == []


@pytest.mark.parametrize(
    ("record", "verb", "force"),
    [
        (node("n1"), "terminate", False),
        (node("n2"), "terminate", True),
        (node("n2", instance=GONE), "terminate", False),
        (node("n2", phase=Phase.BOOTING), "terminate", False),
        (node("n1", cordons={"operator:bob": Cordon(reason="x", at=START)}), "uncordon", False),
        (node("n1", cordons={"operator:ada": Cordon(reason="x", at=START)}), "cordon", False),
        (node("n2"), "drain", False),
        (node("n2"), "replace", False),
    ],
    ids=["idle", "forced", "gone", "never worked", "another operator's cordon", "cordoned already", "drain", "replace"],
)
async def test_what_makes_sense_is_accepted(gateway: GatewayWorld, record: Any, verb: Any, force: bool) -> None:
    await gateway.world.plant((NODE.key(record.node), record))
    assert (await gateway.client.wish_node(record.node, verb, force=force)).node == record.node


async def test_an_uncordon_may_follow_a_cordon_that_is_not_carried_out_yet(gateway: GatewayWorld) -> None:
    await gateway.client.wish_node("n1", "cordon")
    await gateway.client.wish_node("n1", "uncordon")


@pytest.mark.parametrize(("due_in_s", "processes"), [(-1.0, 0), (15.0, None)], ids=["late heartbeat", "unreadable GPU"])
async def test_unknown_work_is_never_idle(gateway: GatewayWorld, due_in_s: float, processes: int | None) -> None:
    late = beat("n4", due_in_s=due_in_s, processes=processes)
    await gateway.world.plant((NODE.key("n4"), node("n4")))
    await gateway.world.store.write_beats([late])
    with pytest.raises(ApiError, match="is not known") as caught:
        await gateway.client.wish_node("n4", "terminate")
    assert caught.value.code == "busy"


async def test_the_heartbeat_of_an_earlier_machine_proves_nothing(gateway: GatewayWorld) -> None:
    await gateway.world.plant((NODE.key("n1"), node("n1", generation=2)))
    with pytest.raises(ApiError) as caught:
        await gateway.client.wish_node("n1", "terminate")
    assert caught.value.code == "busy"


async def test_too_many_unanswered_wishes_are_refused(gateway: GatewayWorld) -> None:
    for _ in range(32):
        await gateway.client.wish_node("n1", "cordon")
    with pytest.raises(ApiError) as caught:
        await gateway.client.wish_node("n1", "cordon")
    assert (caught.value.status, caught.value.code) == (429, "too-many-wishes")


def freeze_of(level: str, pool: str | None = None, **fields: Any) -> Guard:
    name = "freeze" if pool is None else f"freeze/{pool}"
    return Guard(
        name=name,
        active=True,
        level=level,
        pool=pool,
        number=1,
        actor="operator:bob",
        reason="audit",
        at=START,
        **fields,
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("level", "pool", "allowed"),
    [
        ("all", None, {"cordon", "uncordon"}),
        ("terminate", None, {"cordon", "uncordon", "drain", "scale-up"}),
        ("launch", None, {"cordon", "uncordon", "drain", "terminate", "scale-down"}),
        ("all", "training", {"cordon", "uncordon"}),
        ("all", "burst", {"cordon", "uncordon", "drain", "replace", "terminate", "scale-up", "scale-down"}),
    ],
)
async def test_a_freeze_forbids_what_its_level_names(
    gateway: GatewayWorld, level: str, pool: str | None, allowed: set[str]
) -> None:
    guard = freeze_of(level, pool)
    await gateway.world.plant(
        (GUARD.key(*guard.name.split("/")), guard),
        (NODE.key("n1"), node("n1", cordons={"operator:ada": Cordon(reason="x", at=START)})),
    )
    bodies = {verb: ("nodes/n1", {"verb": verb}) for verb in ("cordon", "uncordon", "drain", "replace", "terminate")}
    bodies |= {"scale-up": ("pools/training", {"verb": "scale", "nodes": 4})}  # type: ignore[dict-item]
    bodies |= {"scale-down": ("pools/training", {"verb": "scale", "nodes": 2})}  # type: ignore[dict-item]
    done = set()
    for name, (path, body) in bodies.items():
        response = await gateway.http.post(f"/api/v1/{path}/wishes", json=body)
        if response.status_code == 202:
            done.add(name)
        else:
            problem = response.json()
            assert (problem["status"], problem["code"]) == (409, "frozen"), problem
            assert "operator:bob: audit" in problem["detail"]
    assert done == allowed


async def test_a_freeze_that_has_run_out_forbids_nothing(gateway: GatewayWorld) -> None:
    await gateway.world.plant((GUARD.key("freeze"), freeze_of("all", until=START)))
    await gateway.client.wish_node("n1", "terminate")


@pytest.mark.parametrize(
    ("nodes", "says"), [(0, "0 nodes is under the min_nodes 1"), (6, "6 nodes is over the max_nodes 5")]
)
async def test_a_size_out_of_bounds_is_refused_naming_the_bound(gateway: GatewayWorld, nodes: int, says: str) -> None:
    with pytest.raises(ApiError, match=says) as caught:
        await gateway.client.wish_pool("training", "scale", nodes=nodes)
    assert (caught.value.status, caught.value.code, caught.value.problem.field) == (422, "out-of-bounds", "nodes")


async def test_a_size_holds_for_one_cooldown_on_an_autoscaled_pool(gateway: GatewayWorld) -> None:
    accepted = await gateway.client.wish_pool("burst", "scale", nodes=4, request_id="r1")
    assert accepted.pool == "burst"
    stored = await gateway.world.found(POOL_WISH.key("burst", "scale"))
    assert stored.record.wish.hold_until == START + timedelta(minutes=5)  # type: ignore[attr-defined]
    assert (await gateway.client.wish_pool("burst", "scale", nodes=4, request_id="r1")).event_id == accepted.event_id
    assert (await gateway.client.pool_wish("burst", "r1")).state == "open"
    await gateway.world.plant((POOL.key("burst"), pool_record("burst", answers={"r1": DONE})))
    assert (await gateway.client.pool_wish("burst", "r1")).state == "answered"
    await gateway.refresh()
    assert await gateway.service._prune() == {"pruned": 1, "conflicts": 0}
    assert (await gateway.client.pool_wish("burst", "r1")).state == "answered"


@pytest.mark.parametrize(
    ("pool", "body", "code", "field"),
    [
        ("training", {"verb": "scale"}, "bad-field", "nodes"),
        ("training", {"verb": "scale", "nodes": 2, "for_s": 60}, "not-autoscaled", "for_s"),
        ("training", {"verb": "pause", "nodes": 2}, "bad-field", "nodes"),
        ("training", {"verb": "scale", "nodes": -1}, "bad-field", "nodes"),
        ("training", {"verb": "explode"}, "bad-field", "verb"),
    ],
)
async def test_a_pool_wish_that_contradicts_itself_is_refused(
    gateway: GatewayWorld, pool: str, body: dict[str, Any], code: str, field: str
) -> None:
    problem = await gateway.refused("POST", f"/pools/{pool}/wishes", json=body)
    assert (problem["status"], problem["code"], problem["field"]) == (422, code, field)


async def test_a_retiring_pool_is_not_sized(gateway: GatewayWorld) -> None:
    await gateway.world.plant((POOL.key("old"), pool_record("old")))
    await gateway.refresh()
    with pytest.raises(ApiError, match="left the configuration") as caught:
        await gateway.client.wish_pool("old", "scale", nodes=1)
    assert caught.value.code == "retiring"


async def test_pause_and_resume_are_wishes_too(gateway: GatewayWorld) -> None:
    assert (await gateway.client.preview_pool_wish("burst", "resume")).would == "burst is not paused: nothing changes"
    await gateway.client.wish_pool("burst", "pause", reason="migration")
    paused = pool_record("burst", paused=Pause(actor="operator:ada", reason="migration", at=START))
    await gateway.world.plant((POOL.key("burst"), paused))
    await gateway.refresh()
    pool = await gateway.client.pool("burst")
    assert (pool.paused, pool.reason) == (True, "paused by operator:ada: migration")
    await gateway.client.wish_pool("burst", "resume")


async def test_freezes_are_numbered_and_told(gateway: GatewayWorld) -> None:
    first = await gateway.client.freeze(reason="audit", level="terminate", for_s=3600)
    second = await gateway.client.freeze(reason="incident", pool="training")
    assert (first.number, second.number) == (1, 2)
    assert first.until == START + timedelta(hours=1)
    lifted = await gateway.client.unfreeze(reason="over")
    assert (lifted.number, lifted.active, lifted.name) == (3, False, "freeze")
    held = await gateway.client.guards()
    assert {guard.name: guard.active for guard in held.items} == {"freeze": False, "freeze/training": True}
    (frozen, narrower) = await gateway.world.events("cluster.frozen")
    assert (frozen.id, frozen.pool, narrower.pool) == (first.event_id, "", "training")
    (unfrozen,) = await gateway.world.events("cluster.unfrozen")
    assert unfrozen.id == lifted.event_id
    await gateway.refresh()
    assert (await gateway.client.pool("training")).frozen
    assert 'navarch_frozen{level="all",pool="training"} 1.0' in (await gateway.http.get("/metrics")).text


async def test_lifting_what_does_not_hold_says_what_does(gateway: GatewayWorld) -> None:
    await gateway.client.freeze(reason="audit")
    with pytest.raises(ApiError, match="pool training is not frozen by itself; frozen: the whole cluster") as caught:
        await gateway.client.unfreeze(pool="training")
    assert caught.value.code == "not-frozen"


async def test_two_freezes_at_once_get_two_numbers(gateway: GatewayWorld) -> None:
    import asyncio

    made = await asyncio.gather(*(gateway.client.freeze(reason=f"r{index}") for index in range(4)))
    assert sorted(guard.number for guard in made) == [1, 2, 3, 4]


async def test_an_actor_is_who_the_header_says_or_anonymous(gateway: GatewayWorld) -> None:
    await gateway.http.post("/api/v1/nodes/n1/wishes", json={"verb": "cordon"})
    await gateway.http.post(
        "/api/v1/nodes/n1/wishes", json={"verb": "cordon"}, headers={"X-Navarch-Actor": "operator:J%C3%BCrgen"}
    )
    actors = [event.actor for event in await gateway.world.events("operator.action")]
    assert actors == ["operator:anonymous", "operator:Jürgen"]


@pytest.mark.parametrize("actor", ["health", "operator:", "operator:a%0Ab", "root", "operator:" + "x" * 200])
async def test_nobody_may_pose_as_a_service(gateway: GatewayWorld, actor: str) -> None:
    problem = await gateway.refused(
        "POST", "/nodes/n1/wishes", json={"verb": "cordon"}, headers={"X-Navarch-Actor": actor}
    )
    assert problem["code"] == "bad-actor"
