"""A provisioner whose store begins a new life: what it reads anew, and whom it asks to register anew."""

from typing import Any

import pytest
from msgspec import structs

from fixtures.world import World
from navarch_common.guarding import Guards
from navarch_common.model.cluster import SafeMode
from navarch_common.model.node import NODE, Phase
from navarch_provisioner.commands import to_ask_again
from navarch_provisioner.reader import Memory, PoolReader
from navarch_provisioner.settings import ProvisionerSettings
from navarch_provisioner.view import Work
from navarch_provisioner.workload.noop import NoopNotifier
from support.deps import make_deps
from support.provisioner_pools import T0, at, node, pool, registration
from support.provisioner_world import CONFIG


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({"launch": None}, True),
        ({"phase_since": at(-14)}, False),
        ({"phase_since": at(-15)}, True),
        ({"launch": None, "registration": registration()}, False),
        ({"launch": None, "powered_off": True}, False),
        ({"launch": None, "phase": Phase.TERMINATING}, False),
    ],
    ids=["adopted", "boots", "boots for long", "has registered", "is off", "is on its way out"],
)
def test_who_is_asked_to_register_anew(fields: dict[str, Any], asked: bool) -> None:
    known: dict[str, Any] = {"registration": None, **fields}
    view = node("a", known.pop("phase", Phase.BOOTING), **known)
    assert bool(to_ask_again(pool(view), T0)) is asked


@pytest.mark.parametrize(
    ("boot", "seconds", "asked"),
    [("boot-1", 20, False), ("boot-2", 15, False), ("boot-2", 16, True), ("", 16, False)],
    ids=["the boot that registered", "it may register yet", "another, for longer than silence takes", "nobody"],
)
def test_a_node_that_is_heard_from_another_boot_than_registered_is_asked(boot: str, seconds: int, asked: bool) -> None:
    view = node("a", work=Work(idle=True, at=at(seconds), boot_id=boot))
    assert bool(to_ask_again(pool(view), at(seconds))) is asked


@pytest.mark.parametrize(
    ("meta", "asked"),
    [({}, False), ({"safe_mode": SafeMode(since=at(-5), code="store-rolled-back", reason="it was")}, True),
     ({"safe_mode_left_at": at(-5)}, True), ({"safe_mode_left_at": at(-20)}, False)],
    ids=["nothing was lost", "safe mode", "safe mode is over", "it has registered since"],
)  # fmt: skip
def test_after_a_loss_everyone_is_asked_once_what_it_has_reported(meta: dict[str, Any], asked: bool) -> None:
    known = structs.replace(pool().meta, **meta)
    view = node("a", Phase.ACTIVE, registration=structs.replace(registration(), at=at(-10)))
    assert bool(to_ask_again(pool(view, meta=known), T0)) is asked


async def test_a_pool_is_read_whole_in_a_new_life_of_the_store(world: World) -> None:
    deps = make_deps(world, "provisioner", CONFIG)
    reader = PoolReader(deps, "training", Guards(deps))
    settings = ProvisionerSettings.of(deps.config.current.config)

    async def names() -> set[str]:
        view = await reader.read(settings, 0, frozenset(), Memory(), NoopNotifier())
        return set(view.nodes)

    backup = world.stores.backup()
    await world.plant((NODE.key("training-b"), node("training-b").record))
    assert await names() == {"training-b"}
    world.stores.roll_back(backup)
    await world.life.step()
    await world.plant((NODE.key("training-a"), node("training-a").record))
    assert await names() == {"training-a"}
    assert reader.incarnation == world.meta.incarnation
