"""Leaked machines and safe mode at the HTTP door: what is shown, what is refused and why, what becomes durable."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from msgspec import structs

from navarch_api.errors import ApiError
from navarch_common.model.cluster import META, MetaRecord, SafeMode
from navarch_common.model.leak import LeakRecord, LeakWishes, leak_key, leak_wishes_key
from navarch_common.model.node import ProviderState
from navarch_common.store.base import Beat
from support.gateway_world import START, GatewayWorld, gateway_world


def leak(id_: str = "i-1", provider: str = "here", **fields: Any) -> LeakRecord:
    known: dict[str, Any] = {
        "kind": "unrecorded", "installation": "installation", "pool": "training", "node": f"n-{id_}", "price_per_hour": 2.5,
        "state": ProviderState.RUNNING, "launched_at": START, "first_at": START, "told_at": START, "fate": "report",
        "text": "it has no record", "code": "leaked", "generation": 1,
    }  # fmt: skip
    return LeakRecord(provider=provider, instance_id=id_, **(known | fields))


@pytest.fixture
async def gateway() -> AsyncIterator[GatewayWorld]:
    async with gateway_world() as made:
        yield made


@pytest.fixture
async def empty() -> AsyncIterator[GatewayWorld]:
    async with gateway_world(fleet=False) as made:
        yield made


async def plant(world: GatewayWorld, *records: LeakRecord) -> None:
    await world.world.plant(*((leak_key(one.provider, one.instance_id), one) for one in records))


async def enter(world: GatewayWorld, code: str = "unknown-installation") -> None:
    stored = await world.world.store.get(META.key())
    assert stored is not None
    safe = SafeMode(since=START, code=code, reason="machines of another installation")
    await world.world.plant((META.key(), structs.replace(stored.record, safe_mode=safe)))


async def meta(world: GatewayWorld) -> MetaRecord:
    record = (await world.world.found(META.key())).record
    assert isinstance(record, MetaRecord)
    return record


async def refusal(call: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await call
    return caught.value


async def test_leaks_are_listed_with_what_they_cost(gateway: GatewayWorld) -> None:
    theirs = leak("i-3", kind="foreign", installation="theirs", told_at=None, fate="leave")
    await plant(gateway, leak("i-1"), leak("i-2", told_at=None, fate="wait"), theirs)
    found = await gateway.client.leaks()
    assert [(one.instance_id, one.would, one.ours) for one in found.items] == [
        ("i-1", "report", True), ("i-2", "wait", True), ("i-3", "leave", False),
    ]  # fmt: skip
    assert found.dollars_per_hour == 2.5


async def test_status_and_metrics_tell_of_leaks_and_their_cost(gateway: GatewayWorld) -> None:
    await plant(gateway, leak("i-1"), leak("i-2", price_per_hour=1.5), leak("i-3", kind="foreign", installation="x"))
    await gateway.refresh()
    status = await gateway.client.status()
    assert status.leaks is not None
    assert (status.leaks.instances, status.leaks.dollars_per_hour, status.leaks.foreign) == (2, 4.0, 1)
    text = (await gateway.http.get("/metrics")).text
    assert 'navarch_leaked_instances{provider="here"} 2.0' in text
    assert 'navarch_leaked_dollars_per_hour{provider="here"} 4.0' in text
    assert 'navarch_leaked_instances{provider="sky"} 0.0' in text


async def test_status_names_the_nodes_that_safe_mode_still_waits_for(gateway: GatewayWorld) -> None:
    await enter(gateway)
    await gateway.refresh()
    safe = (await gateway.client.status()).safe_mode
    assert safe is not None
    assert safe.waits_for == ("n4",), "the others have registered since"
    after = START + timedelta(seconds=1)
    await gateway.world.store.write_beats([Beat("n4", "training", after, after, b"")])
    await gateway.refresh()
    safe = (await gateway.client.status()).safe_mode
    assert safe is not None
    assert safe.waits_for == ()


async def test_a_wish_about_leaked_machines_is_durable_and_told(gateway: GatewayWorld) -> None:
    await plant(gateway, leak("i-1"), leak("i-1", "sky"), leak("i-2"))
    accepted = await gateway.client.wish_leaks("adopt", ["i-2", "sky/i-1"], reason="ours", request_id="r1")
    assert accepted.machines == ("here/i-2", "sky/i-1")
    wishes = (await gateway.world.found(leak_wishes_key())).record
    assert isinstance(wishes, LeakWishes)
    assert [(wish.id, wish.verb, wish.actor, wish.reason) for wish in wishes.wishes] == [
        ("r1", "adopt", "operator:ada", "ours")
    ]
    [event] = await gateway.world.events("operator.action")
    assert (event.code, event.actor, event.id) == ("adopt", "operator:ada", accepted.event_id)
    again = await gateway.client.wish_leaks("adopt", ["i-2", "sky/i-1"], request_id="r1")
    assert again.machines == accepted.machines
    assert len(await gateway.world.events("operator.action")) == 1


async def test_wishes_are_refused_by_name(gateway: GatewayWorld) -> None:
    await plant(gateway, leak("i-1"), leak("i-1", "sky"), leak("i-9", kind="foreign", installation="theirs"))
    unknown = await refusal(gateway.client.wish_leaks("gc", ["here/i-2"]))
    assert (unknown.status, "did you mean 'here/i-" in str(unknown)) == (404, True)
    assert (await refusal(gateway.client.wish_leaks("gc", ["i-1"]))).code == "ambiguous"
    theirs = await refusal(gateway.client.wish_leaks("gc", ["i-9"]))
    assert (theirs.code, "theirs" in str(theirs)) == ("foreign", True)
    assert (await refusal(gateway.client.wish_leaks("gc", []))).status == 422
    assert await gateway.world.store.get(leak_wishes_key()) is None


async def test_nothing_is_collected_in_safe_mode(gateway: GatewayWorld) -> None:
    await plant(gateway, leak("i-1"))
    await enter(gateway)
    assert (await refusal(gateway.client.wish_leaks("gc", ["i-1"]))).code == "safe-mode"
    await gateway.client.wish_leaks("adopt", ["i-1"])


async def test_an_operator_ends_safe_mode_with_a_reason(gateway: GatewayWorld) -> None:
    assert (await refusal(gateway.client.leave_safe_mode(reason="x"))).code == "not-in-safe-mode"
    await enter(gateway)
    assert (await refusal(gateway.client.leave_safe_mode(reason=""))).status == 422
    done = await gateway.client.leave_safe_mode(reason="counted by hand")
    assert done.left.code == "unknown-installation"
    assert (await meta(gateway)).safe_mode is None
    assert (await meta(gateway)).safe_mode_left_at is not None
    [event] = await gateway.world.events("cluster.safe-mode-left")
    assert (event.actor, event.code, "counted by hand" in event.reason) == ("operator:ada", "operator", True)


async def test_safe_mode_does_not_end_before_the_bus_remembers_the_store(gateway: GatewayWorld) -> None:
    await enter(gateway)
    await gateway.world.bus.kv_put("NAVARCH_STATE", "meta.test", b"garbage")
    await gateway.world.life.step()
    assert (await refusal(gateway.client.leave_safe_mode(reason="x"))).code == "not-mirrored"


async def test_another_installation_is_taken_over_everywhere_at_once(empty: GatewayWorld) -> None:
    before = await meta(empty)
    await enter(empty)
    done = await empty.client.adopt_installation("theirs", reason="moved here")
    assert (done.installation, done.before) == ("theirs", before.installation)
    after = await meta(empty)
    assert (after.installation, after.epoch, after.incarnation) == ("theirs", before.epoch + 1, before.incarnation)
    assert after.safe_mode is not None, "it ends when the machines have been found"
    await empty.world.life.step()
    assert empty.deps.installation == "theirs"
    assert (await empty.client.version()).installation == "theirs"
    entry = await empty.world.bus.kv_get("NAVARCH_STATE", "meta.test")
    assert entry is not None
    assert b'"theirs"' in entry.value
    assert empty.world.life.record.safe_mode is not None
    assert await empty.world.events("cluster.safe-mode-entered") == []


async def test_an_installation_is_taken_over_only_where_nothing_of_ours_becomes_a_stranger(
    gateway: GatewayWorld, empty: GatewayWorld
) -> None:
    assert (await refusal(empty.client.adopt_installation("theirs"))).code == "not-in-safe-mode"
    await enter(gateway)
    assert (await refusal(gateway.client.adopt_installation("theirs"))).code == "has-nodes"
    await enter(empty)
    ours = (await meta(empty)).installation
    assert (await refusal(empty.client.adopt_installation(ours))).code == "ours-already"
    assert (await refusal(empty.client.adopt_installation("no id!"))).status == 422
