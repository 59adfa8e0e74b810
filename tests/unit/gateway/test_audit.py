"""Who did what, through the HTTP door: each act has its entry, with what changed."""

from collections.abc import AsyncIterator

import pytest

from navarch_api.types import AuditEntry
from navarch_common.events.audit import actor_token
from support.gateway_world import GatewayWorld, gateway_world


@pytest.fixture
async def gateway() -> AsyncIterator[GatewayWorld]:
    async with gateway_world() as made:
        yield made


async def entries(gateway: GatewayWorld, **query: str) -> list[AuditEntry]:
    return list((await gateway.client.audit(**query)).items)  # type: ignore[arg-type]


async def test_a_wish_is_in_the_books_with_who_what_why_and_its_request_id(gateway: GatewayWorld) -> None:
    accepted = await gateway.client.wish_node("n1", "drain", reason="new firmware", request_id="r-1")
    [entry] = await entries(gateway)
    assert (entry.actor, entry.action, entry.result) == ("operator:ada", "drain", "accepted")
    assert (entry.node, entry.pool, entry.request_id) == ("n1", "training", "r-1")
    assert entry.reason == "operator:ada asked to drain n1: new firmware"
    assert (entry.before, entry.after["verb"]) == ({}, "drain")
    assert entry.rev == accepted.revision
    async with gateway.world.bus.read("NAVARCH_AUDIT") as messages:
        assert [message.subject async for message in messages] == ["navarch.audit.operator-ada.drain"]


async def test_a_freeze_and_its_end_say_what_was_before_and_what_is_after(gateway: GatewayWorld) -> None:
    await gateway.client.freeze(reason="audit", level="launch", pool="training")
    await gateway.client.unfreeze(reason="done", pool="training")
    froze, lifted = await entries(gateway)
    assert (froze.action, froze.result, froze.after["level"], froze.after["active"]) == (
        "freeze",
        "done",
        "launch",
        "True",
    )
    assert (lifted.action, lifted.before["active"], "active" in lifted.after) == ("unfreeze", "True", False)
    assert "level" not in lifted.before  # what stays as it was is no change


async def test_what_was_refused_did_not_happen_and_has_no_entry(gateway: GatewayWorld) -> None:
    await gateway.refused("POST", "/nodes/n2/wishes", json={"verb": "terminate"})
    assert await entries(gateway) == []


async def test_entries_are_found_by_actor_action_node_pool_and_time(gateway: GatewayWorld) -> None:
    await gateway.client.wish_node("n1", "cordon")
    gateway.world.advance(7200)
    await gateway.refresh()
    await gateway.client.wish_pool("training", "pause")
    assert [entry.action for entry in await entries(gateway)] == ["cordon", "pause"]
    assert [entry.action for entry in await entries(gateway, node="n1")] == ["cordon"]
    assert [entry.action for entry in await entries(gateway, action="pause")] == ["pause"]
    assert [entry.action for entry in await entries(gateway, since="1h")] == ["pause"]
    assert len(await entries(gateway, pool="training", actor="operator:ada")) == 2
    assert await entries(gateway, actor="operator:bob") == []
    newest = await gateway.client.audit(limit=1)
    assert ([entry.action for entry in newest.items], newest.truncated) == (["pause"], True)


async def test_what_anyone_else_publishes_there_is_no_entry(gateway: GatewayWorld) -> None:
    await gateway.world.bus.publish("navarch.audit.operator-ada.terminate", b"nonsense")
    await gateway.client.wish_node("n1", "cordon")
    assert [entry.action for entry in await entries(gateway)] == ["cordon"]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/audit?action=Shoot!", "expected a word such as terminate"),
        ("/audit?node=N1", "is no node id"),
        ("/audit?since=yesterday", "is no time"),
        ("/audit?who=ada", "unknown parameter"),
    ],
)
async def test_a_wrong_question_is_refused(gateway: GatewayWorld, path: str, says: str) -> None:
    assert says in (await gateway.refused("GET", path))["detail"]


@pytest.mark.parametrize(
    ("actor", "token"),
    [("operator:ada", "operator-ada"), ("operator:Ada L.>*", "operator-ada-l"), ("health", "health"), ("é", "unknown")],
)
def test_an_actor_becomes_one_word_of_a_subject(actor: str, token: str) -> None:
    assert actor_token(actor) == token
