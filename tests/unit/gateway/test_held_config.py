"""A configuration that would take many nodes: it waits, and is approved, cancelled or superseded, through the doors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from fixtures.world import World
from navarch_api.errors import ApiError
from navarch_common.events.kinds import PoolChangeHeld
from navarch_common.model.cluster import CONFIG, ConfigRecord, ProposedConfig
from navarch_common.model.node import NODE
from navarch_common.model.pool import POOL
from navarch_common.run import Deps
from navarch_common.store.base import Commit
from navarch_gateway.config_keeper import ConfigKeeper
from navarch_gateway.proposal import PROPOSED
from navarch_gateway.proposer import Proposer
from support.gateway_world import CONFIG as TEXT
from support.gateway_world import GatewayWorld, answering, make_deps, pool_record

CURRENT = CONFIG.key("current")
SMALL = TEXT.replace("max_nodes: 5", "max_nodes: 1")
"""Four nodes of `training` are there (n1 to n4), and three are wanted."""
SMALLER_BY_ONE = TEXT.replace("max_nodes: 5", "max_nodes: 2")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "navarch.yaml"
    path.write_text(TEXT)
    return path


def another_proposer(gateway: GatewayWorld, file: Path) -> Proposer:
    """Of a gateway that starts now."""
    return Proposer(make_deps(gateway.world), file, {})


def write(file: Path, text: str) -> None:
    file.write_text(text)


async def propose(gateway: GatewayWorld, file: Path, text: str) -> None:
    write(file, text)
    await another_proposer(gateway, file).first()
    await gateway.refresh()


async def in_force(world: World) -> ConfigRecord:
    record = (await world.found(CURRENT)).record
    assert isinstance(record, ConfigRecord)
    return record


async def proposed(world: World) -> ProposedConfig:
    record = (await world.found(PROPOSED)).record
    assert isinstance(record, ProposedConfig)
    return record


@pytest.fixture
async def waiting(gateway: GatewayWorld, file: Path) -> ProposedConfig:
    """The file said TEXT, and says SMALL now."""
    await propose(gateway, file, TEXT)
    await propose(gateway, file, SMALL)
    return await proposed(gateway.world)


async def test_a_first_file_comes_into_force_whatever_it_says(gateway: GatewayWorld, file: Path) -> None:
    await propose(gateway, file, SMALL)
    assert (await in_force(gateway.world)).text == SMALL
    assert await gateway.world.store.get(PROPOSED) is None


async def test_a_change_that_takes_one_node_comes_into_force_at_once(gateway: GatewayWorld, file: Path) -> None:
    await propose(gateway, file, TEXT)
    await propose(gateway, file, SMALLER_BY_ONE)
    assert (await in_force(gateway.world)).text == SMALLER_BY_ONE


async def test_a_change_that_takes_more_waits_with_the_old_one_in_force_and_is_told(
    gateway: GatewayWorld, waiting: ProposedConfig, file: Path
) -> None:
    assert (await in_force(gateway.world)).text == TEXT
    assert (waiting.text, waiting.generation, waiting.closed) == (SMALL, 1, "")
    [event] = await gateway.world.events("pool.change-held")
    assert isinstance(event, PoolChangeHeld)
    assert (event.pool, event.change, event.act) == ("training", waiting.change, "config")
    assert f"navarch approve {waiting.change}`: training: 2 of 4 nodes would go (max_nodes 5 -> 1)" in event.reason
    [change] = (await gateway.client.changes()).items
    assert (change.id, change.pool, change.act) == (waiting.change, "training", "config")
    assert [one.id for one in (await gateway.client.pool("training")).changes] == [waiting.change]
    assert not (await gateway.client.pool("burst")).changes
    [warning] = (await gateway.client.status()).warnings
    assert str(file) in warning
    assert f"navarch approve {waiting.change}" in warning


async def test_gateways_that_see_the_file_together_and_later_let_it_wait_once(
    gateway: GatewayWorld, file: Path
) -> None:
    await propose(gateway, file, TEXT)
    write(file, SMALL)
    await asyncio.gather(*(another_proposer(gateway, file).first() for _ in range(4)))
    revision = (await gateway.world.found(PROPOSED)).revision
    await another_proposer(gateway, file).first()
    assert (await gateway.world.found(PROPOSED)).revision == revision
    assert len(await gateway.world.events("pool.change-held")) == 1
    assert (await in_force(gateway.world)).generation == 1


async def test_approved_it_is_the_next_generation_by_who_approved_it(
    gateway: GatewayWorld, waiting: ProposedConfig
) -> None:
    would = (await gateway.client.preview_change_wish(waiting.change, "approve")).would
    assert "2 of 4 nodes would go" in would
    accepted = await gateway.client.wish_change(waiting.change, "approve", reason="moved away", request_id="r1")
    current = await in_force(gateway.world)
    assert (current.generation, current.text, current.author) == (2, SMALL, "operator:ada")
    assert (await gateway.world.found(CONFIG.key("2"))).record == current
    [action] = await gateway.world.events("operator.action")
    assert (action.id, action.code, action.actor) == (accepted.event_id, "approve", "operator:ada")
    assert "moved away" in action.reason
    assert (await gateway.deps.config.mirror.read())[0] == current
    await gateway.deps.config.refresh()
    assert gateway.deps.config.current.config.pools["training"].max_nodes == 1
    await gateway.refresh()
    assert not (await gateway.client.changes()).items
    assert not (await gateway.client.status()).warnings
    assert [entry.action for entry in (await gateway.client.audit()).items][-2:] == ["approve", "config"]
    assert (await gateway.client.wish_change(waiting.change, "approve", request_id="r1")).repeated
    with pytest.raises(ApiError, match="it was approved"):
        await gateway.client.wish_change(waiting.change, "cancel")


async def test_what_was_approved_is_not_proposed_again(
    gateway: GatewayWorld, waiting: ProposedConfig, file: Path
) -> None:
    await gateway.client.wish_change(waiting.change, "approve")
    await another_proposer(gateway, file).first()
    assert (await in_force(gateway.world)).generation == 2
    assert (await proposed(gateway.world)).closed == "approved"


async def test_cancelled_it_stays_out_of_force_until_the_file_says_something_else(
    gateway: GatewayWorld, waiting: ProposedConfig, file: Path
) -> None:
    await gateway.client.wish_change(waiting.change, "cancel", reason="a slip")
    await gateway.refresh()
    assert not (await gateway.client.changes()).items
    await propose(gateway, file, SMALL)
    assert (await proposed(gateway.world)).closed == "cancelled"
    assert (await in_force(gateway.world)).generation == 1
    with pytest.raises(ApiError, match="it was cancelled") as caught:
        await gateway.client.wish_change(waiting.change, "approve")
    assert caught.value.code == "not-waiting"
    await propose(gateway, file, TEXT)
    await propose(gateway, file, SMALL)
    assert (await proposed(gateway.world)).closed == ""
    assert len(await gateway.world.events("pool.change-held")) == 2


@pytest.mark.parametrize(
    ("text", "generation"),
    [
        pytest.param(TEXT, 1, id="what is in force"),
        pytest.param(TEXT.replace("max_nodes: 9", "max_nodes: 8"), 2, id="what takes nothing"),
        pytest.param("pools: [", 1, id="a mistake"),
    ],
)
async def test_another_file_supersedes_what_waits(
    gateway: GatewayWorld, waiting: ProposedConfig, file: Path, text: str, generation: int
) -> None:
    await propose(gateway, file, text)
    assert (await in_force(gateway.world)).generation == generation
    assert (await proposed(gateway.world)).closed == "superseded"
    with pytest.raises(ApiError, match="it was superseded"):
        await gateway.client.wish_change(waiting.change, "approve")


async def test_another_file_that_takes_much_waits_in_its_place(
    gateway: GatewayWorld, waiting: ProposedConfig, file: Path
) -> None:
    await propose(gateway, file, SMALL.replace("max_nodes: 9", "max_nodes: 8"))
    assert (await proposed(gateway.world)).change != waiting.change
    with pytest.raises(ApiError) as caught:
        await gateway.client.wish_change(waiting.change, "approve")
    assert caught.value.status == 404


async def test_of_an_approval_and_a_new_file_at_the_same_moment_one_wins(
    gateway: GatewayWorld, waiting: ProposedConfig, file: Path
) -> None:
    other = TEXT.replace("max_nodes: 9", "max_nodes: 8")
    write(file, other)
    await asyncio.gather(
        another_proposer(gateway, file).first(),
        gateway.client.wish_change(waiting.change, "approve"),
        return_exceptions=True,
    )
    record = await proposed(gateway.world)
    current = await in_force(gateway.world)
    assert (record.closed, current.generation) in (("approved", 3), ("superseded", 2))
    assert current.text == other


def interrupted(deps: Deps, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], Awaitable[object]]) -> None:
    """Lets something happen between the decision of the first commit and the commit itself."""
    commit = deps.committer.commit

    async def late(decided: Commit) -> int:
        monkeypatch.undo()
        await meanwhile()
        return await commit(decided)

    monkeypatch.setattr(deps.committer, "commit", late)


async def test_a_size_that_changes_while_the_file_is_weighed_is_weighed_too(
    gateway: GatewayWorld, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await propose(gateway, file, TEXT)
    await gateway.world.plant((POOL.key("training"), pool_record(desired=1)))
    deps = make_deps(gateway.world)
    interrupted(deps, monkeypatch, lambda: gateway.world.plant((POOL.key("training"), pool_record(desired=4))))
    write(file, SMALL)
    await Proposer(deps, file, {}).first()
    assert (await in_force(gateway.world)).generation == 1


async def test_what_another_gateway_let_wait_meanwhile_is_superseded(
    gateway: GatewayWorld, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await propose(gateway, file, TEXT)
    deps, others = make_deps(gateway.world), tmp_path / "others.yaml"
    write(others, SMALL)
    interrupted(deps, monkeypatch, another_proposer(gateway, others).first)
    write(file, SMALLER_BY_ONE)
    await Proposer(deps, file, {}).first()
    assert (await in_force(gateway.world)).text == SMALLER_BY_ONE
    assert (await proposed(gateway.world)).closed == "superseded"


# --- a store that forgets ---


async def test_after_a_loss_of_the_store_a_restart_puts_nothing_into_force_that_waited(
    gateway: GatewayWorld, waiting: ProposedConfig, file: Path
) -> None:
    await gateway.deps.config.refresh()
    gateway.world.stores.lose_everything()
    gateway.world.advance(1)
    await gateway.world.life.step()
    await ConfigKeeper(make_deps(gateway.world)).kept()
    assert await gateway.world.store.get(NODE.key("n1")) is None, "no node is known yet"
    await another_proposer(gateway, file).first()
    assert (await in_force(gateway.world)).text == TEXT
    again = await proposed(gateway.world)
    assert (again.change, again.closed) == (waiting.change, "")
    assert "safe mode" in again.takings[0].why


@pytest.fixture
async def running(
    gateway: GatewayWorld, file: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[asyncio.Task[None]]:
    """A proposer that has looked at the file, which says nothing new from now on: SMALL, and TEXT is in force."""
    monkeypatch.setattr("navarch_gateway.proposer.LOOK_S", 0.01)
    await propose(gateway, file, TEXT)
    await gateway.deps.config.refresh()
    write(file, SMALL)
    proposer = another_proposer(gateway, file)
    await proposer.first()
    task = asyncio.create_task(proposer.run())
    await asyncio.sleep(0.2)
    yield task
    task.cancel()


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while not await true():
            await asyncio.sleep(0.01)


async def test_what_waits_is_proposed_again_in_a_new_life_of_the_store(
    gateway: GatewayWorld, running: asyncio.Task[None]
) -> None:
    gateway.world.stores.lose_everything()
    gateway.world.advance(1)
    await gateway.world.life.step()

    async def is_back() -> bool:
        return await gateway.world.store.get(PROPOSED) is not None

    await until(is_back)
    assert (await in_force(gateway.world)).text == TEXT
    assert not running.done()


async def test_what_was_approved_waits_no_more_although_the_store_says_so_after_a_rollback(
    gateway: GatewayWorld, running: asyncio.Task[None]
) -> None:
    backup = gateway.world.stores.backup()
    await gateway.client.wish_change((await proposed(gateway.world)).change, "approve")
    gateway.world.stores.roll_back(backup)
    await gateway.world.life.step()

    async def is_closed() -> bool:
        return (await proposed(gateway.world)).closed != ""

    await until(is_closed)
    assert ((await in_force(gateway.world)).text, (await in_force(gateway.world)).generation) == (SMALL, 2)
    assert not running.done()


# --- asked beforehand ---


async def test_a_dry_run_says_what_a_file_would_take_and_proposes_nothing(gateway: GatewayWorld, file: Path) -> None:
    await propose(gateway, file, TEXT)
    found = await gateway.client.preview_config(SMALL, source="new.yaml")
    [taking] = found.takings
    assert (taking.pool, taking.nodes, taking.of, taking.too_much, found.held) == ("training", 2, 4, True, True)
    assert (await gateway.client.preview_config(TEXT, source="new.yaml")).in_force
    left = TEXT.replace("  burst:", "  other:")
    assert (await gateway.client.preview_config(left, source="new.yaml")).retires == ("burst",)
    assert await gateway.world.store.get(PROPOSED) is None


async def test_a_dry_run_of_a_file_with_mistakes_names_them(gateway: GatewayWorld) -> None:
    with pytest.raises(ApiError, match=r"new\.yaml:6:.*max_nodez") as caught:
        await gateway.client.preview_config(TEXT.replace("max_nodes: 5", "max_nodez: 5"), source="new.yaml")
    assert caught.value.code == "bad-config"


async def test_the_plan_says_what_waits(gateway: GatewayWorld, waiting: ProposedConfig) -> None:
    tasks = [await answering(gateway, f"navarch.plan.{pool}", b'{"steps": []}') for pool in ("training", "burst")]
    for plan in (await gateway.client.plan(), await gateway.client.plan("training")):
        [wait] = plan.blocked
        assert (wait.pool, wait.change, wait.code) == ("training", waiting.change, "approval")
        assert not plan.changes
    assert not (await gateway.client.plan("burst")).blocked
    for task in tasks:
        task.cancel()
