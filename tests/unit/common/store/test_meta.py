"""First start, later starts, and stores that are not what they were."""

import asyncio
import random
from pathlib import Path

import pytest
from msgspec import structs

from fixtures.records import node_record
from fixtures.world import World
from navarch_common.bus.base import BusUnavailable
from navarch_common.bus.memory import MemoryBus
from navarch_common.bus.memory import MemoryServer as BusServer
from navarch_common.clock import ManualClock
from navarch_common.events.subjects import Subjects
from navarch_common.model.cluster import META, MetaRecord
from navarch_common.model.node import NODE
from navarch_common.store.base import Commit, StoreError, WrongIncarnation
from navarch_common.store.memory import MemoryStore
from navarch_common.store.meta import Mirror, doubt, enter_safe_mode, leave_safe_mode, open_meta

BUCKET, KEY = "NAVARCH_STATE", "meta.test"


class Cluster:
    """A store and a bus that outlive their processes."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.buses = BusServer(self.clock)
        self.bus = self.buses.connect()
        self._starts = 0

    async def start(self, data_dir: Path | None = None, installation: str = "") -> MetaRecord:
        self._starts += 1
        self.bus = self.buses.connect()
        await self.bus.ensure_streams(Subjects().streams())
        self.store = self.store.connection()
        return await open_meta(
            self.store,
            self.bus,
            self.clock,
            random.Random(self._starts),
            cluster="test",
            installation=installation,
            data_dir=data_dir,
        )

    def lose_the_store(self) -> None:
        self.store.server.lose_everything()

    def lose_the_bus(self) -> None:
        self.buses = BusServer(self.clock)

    async def events(self) -> list[str]:
        async with self.bus.read("NAVARCH_EVENTS") as messages:
            return [message.subject async for message in messages]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


async def test_the_first_start_mints_ids_and_mirrors_them(cluster: Cluster, tmp_path: Path) -> None:
    meta = await cluster.start(tmp_path / "data")
    assert meta.safe_mode is None
    assert len(meta.installation) == len(meta.incarnation) == 32
    assert (tmp_path / "data" / "installation").read_text() == meta.installation + "\n"
    mirror = await cluster.bus.kv_get(BUCKET, KEY)
    assert mirror is not None
    assert meta.incarnation.encode() in mirror.value


async def test_later_starts_find_what_the_first_one_made(cluster: Cluster, tmp_path: Path) -> None:
    first = await cluster.start(tmp_path)
    assert await cluster.start(tmp_path) == first
    assert await cluster.start() == first


async def test_copies_that_start_together_agree(cluster: Cluster) -> None:
    started = await asyncio.gather(*(cluster.start() for _ in range(8)))
    assert len({(meta.installation, meta.incarnation) for meta in started}) == 1
    assert {meta.safe_mode for meta in started} == {None}


async def test_the_configured_installation_is_the_one_of_a_first_start(cluster: Cluster) -> None:
    assert (await cluster.start(installation="mine")).installation == "mine"
    with pytest.raises(StoreError, match="correct the key `installation`"):
        await cluster.start(installation="another")


async def test_an_empty_store_whose_mirror_remembers_more_enters_safe_mode(cluster: Cluster) -> None:
    first = await cluster.start()
    old = cluster.store
    cluster.lose_the_store()
    after = await cluster.start()
    assert after.safe_mode is not None
    assert after.safe_mode.code == "store-lost"
    assert after.installation == first.installation
    assert after.incarnation != first.incarnation
    assert after.epoch == first.epoch + 1
    assert await cluster.events() == ["navarch.events.cluster.safe-mode-entered._all"]
    with pytest.raises(WrongIncarnation):
        await old.commit(Commit(put={NODE.key("n-1"): node_record("n-1")}))


async def test_safe_mode_is_still_in_force_after_another_start(cluster: Cluster) -> None:
    await cluster.start()
    cluster.lose_the_store()
    entered = await cluster.start()
    assert await cluster.start() == entered
    assert len(await cluster.events()) == 1


async def test_a_store_that_is_another_than_its_mirror_says_enters_safe_mode(cluster: Cluster) -> None:
    await cluster.start()
    backup = cluster.store.server.backup()
    cluster.lose_the_store()
    await cluster.start()
    cluster.store.server.roll_back(backup)
    after = await cluster.start()
    assert after.safe_mode is not None
    assert after.safe_mode.code == "store-different"


async def test_a_bus_that_forgot_a_store_with_nodes_enters_safe_mode(cluster: Cluster) -> None:
    first = await cluster.start()
    await cluster.store.commit(Commit(put={NODE.key("n-1"): node_record("n-1")}))
    cluster.lose_the_bus()
    after = await cluster.start()
    assert after.safe_mode is not None
    assert after.safe_mode.code == "mirror-lost"
    assert after.incarnation == first.incarnation


async def test_a_first_start_that_was_cut_short_before_the_mirror_is_finished_by_the_next(cluster: Cluster) -> None:
    first = await cluster.start()
    cluster.lose_the_bus()
    assert await cluster.start() == first
    assert await cluster.bus.kv_get(BUCKET, KEY) is not None


async def test_with_store_and_bus_gone_the_data_directory_still_remembers(cluster: Cluster, tmp_path: Path) -> None:
    first = await cluster.start(tmp_path)
    cluster.lose_the_store()
    cluster.lose_the_bus()
    after = await cluster.start(tmp_path)
    assert after.safe_mode is not None
    assert (after.safe_mode.code, after.installation) == ("state-lost", first.installation)


async def test_without_a_bus_nothing_starts(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(*_: object, **__: object) -> int:
        raise BusUnavailable("down")

    monkeypatch.setattr(MemoryBus, "kv_put", down)
    with pytest.raises(BusUnavailable):
        await cluster.start()


@pytest.mark.parametrize("text", ["", "not an id", "x" * 64, "\x00"])
async def test_an_installation_file_that_holds_no_id_is_an_error_that_names_it(
    cluster: Cluster, tmp_path: Path, text: str
) -> None:
    (tmp_path / "installation").write_text(text)
    with pytest.raises(StoreError, match="installation"):
        await cluster.start(tmp_path)


META_RECORD = MetaRecord(cluster="test", installation="i", incarnation="a", created_at=ManualClock().now())
MIRROR = Mirror(cluster="test", installation="i", incarnation="a", epoch=0)


@pytest.mark.parametrize(
    ("stored", "mirror", "on_disk", "has_nodes", "code"),
    [
        (None, None, "", False, ""),
        (None, None, "i", False, "state-lost"),
        (None, MIRROR, "", False, "store-lost"),
        (META_RECORD, None, "", False, ""),
        (META_RECORD, None, "i", True, "mirror-lost"),
        (META_RECORD, MIRROR, "i", True, ""),
        (META_RECORD, structs.replace(MIRROR, incarnation="b"), "i", True, "store-different"),
        (META_RECORD, structs.replace(MIRROR, installation="j"), "i", True, "store-different"),
        (META_RECORD, structs.replace(MIRROR, epoch=1), "i", True, "store-rolled-back"),
        (structs.replace(META_RECORD, epoch=1), MIRROR, "i", True, ""),
    ],
)
def test_what_is_doubted(
    stored: MetaRecord | None, mirror: Mirror | None, on_disk: str, has_nodes: bool, code: str
) -> None:
    found = doubt(stored, mirror, on_disk, has_nodes=has_nodes)
    assert (found.code if found else "") == code


async def test_safe_mode_is_entered_once_and_left_again(world: World) -> None:
    committer = world.committer("provisioner")
    for _ in range(2):
        entered = await enter_safe_mode(
            world.store, committer, now=world.clock.now(), code="test", reason="why", actor="provisioner"
        )
        assert entered.safe_mode is not None
    for _ in range(2):
        left = await leave_safe_mode(
            world.store, committer, now=world.clock.now(), code="test", reason="why", actor="operator:ann"
        )
        assert left.safe_mode is None
    assert [event.KIND for event in await world.events()] == ["cluster.safe-mode-entered", "cluster.safe-mode-left"]
    stored = await world.store.get(META.key())
    assert stored is not None
    assert stored.record == left


async def test_a_store_without_a_meta_record_cannot_enter_safe_mode(world: World) -> None:
    world.stores.lose_everything()
    with pytest.raises(StoreError, match="no meta record"):
        await enter_safe_mode(
            world.store, world.committer(None), now=world.clock.now(), code="test", reason="why", actor="provisioner"
        )
