"""A store that is lost, rolled back or replaced while processes run, and a bus that forgets."""

import asyncio
import random
from pathlib import Path

import pytest
from msgspec import structs

from fixtures.records import node_record
from navarch_common.bus.memory import MemoryServer as BusServer
from navarch_common.clock import ManualClock
from navarch_common.events.subjects import Subjects
from navarch_common.model.cluster import META, MetaRecord
from navarch_common.model.node import NODE
from navarch_common.store.base import Commit, RolledBack, Standing, Stored, WrongIncarnation
from navarch_common.store.committer import Committer
from navarch_common.store.doubt import Mirror, doubt, doubt_while_running, mirror_of
from navarch_common.store.memory import MemoryStore
from navarch_common.store.meta import Life, leave_safe_mode


class Copy:
    """One process: its own connections, its own look at the life of the store."""

    def __init__(self, cluster: "Cluster", number: int, data_dir: Path | None) -> None:
        self.store, self.bus = cluster.store.connection(), cluster.buses.connect()
        self.life = Life(self.store, self.bus, cluster.clock, random.Random(number), cluster="test", data_dir=data_dir)

    async def writes(self, name: str = "n-1") -> int:
        return (await self.store.commit(Commit(put={NODE.key(name): node_record(name)}))).commits


class Cluster:
    """Copies over one store and one bus."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.buses = BusServer(self.clock)
        self.copies: list[Copy] = []

    async def start(self, count: int = 1, data_dir: Path | None = None) -> list[Copy]:
        await self.buses.connect().ensure_streams(Subjects().streams())
        for _ in range(count):
            copy = Copy(self, len(self.copies), data_dir)
            await copy.life.open()
            self.copies.append(copy)
        return self.copies

    async def second(self) -> None:
        """Every copy looks, in whatever order; twice, since one may have been in the other's way."""
        for _ in range(2):
            await asyncio.gather(*(copy.life.step() for copy in self.copies))

    async def mirror(self) -> bytes:
        entry = await self.buses.connect().kv_get("NAVARCH_STATE", "meta.test")
        return entry.value if entry else b""

    async def entered(self) -> int:
        async with self.buses.connect().read("NAVARCH_EVENTS") as messages:
            return len([m async for m in messages if m.subject.endswith("safe-mode-entered._all")])


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


async def agreed(cluster: Cluster) -> MetaRecord:
    """The record that all copies go by, each bound to its incarnation and sure that the bus remembers it."""
    stored = await cluster.store.get(META.key())
    assert stored is not None
    for copy in cluster.copies:
        assert copy.life.record == stored.record
        assert copy.store.incarnation == stored.record.incarnation
        assert copy.life.mirrored
    assert stored.record.incarnation.encode() in await cluster.mirror()
    return stored.record


async def test_while_all_is_well_nothing_is_written_but_the_count(cluster: Cluster) -> None:
    first, _ = await cluster.start(2)
    before = await agreed(cluster)
    commits = await first.writes()
    await cluster.second()
    assert await agreed(cluster) == before
    assert b'"commits":%d' % commits in await cluster.mirror()
    assert await cluster.entered() == 0


async def test_a_store_that_is_flushed_while_all_run_begins_a_new_life_in_safe_mode(cluster: Cluster) -> None:
    copies = await cluster.start(3)
    before = await agreed(cluster)
    await copies[0].writes()
    await cluster.second()
    cluster.store.server.lose_everything()
    with pytest.raises(WrongIncarnation):
        await copies[1].writes()
    await cluster.second()
    after = await agreed(cluster)
    assert after.safe_mode is not None
    assert after.safe_mode.code == "store-lost"
    assert after.installation == before.installation
    assert after.incarnation != before.incarnation
    assert after.epoch == before.epoch + 1
    assert await cluster.entered() == 1
    await copies[1].writes()


async def test_a_store_restored_from_a_backup_of_the_same_epoch_begins_a_new_life(cluster: Cluster) -> None:
    copies = await cluster.start(3)
    await copies[0].writes()
    backup = cluster.store.server.backup()
    await copies[0].writes("n-2")
    before = await agreed(cluster)
    await cluster.second()
    cluster.store.server.roll_back(backup)
    for copy in copies:
        with pytest.raises(RolledBack):
            await copy.writes("n-3")
    await cluster.second()
    after = await agreed(cluster)
    assert after.safe_mode is not None
    assert after.safe_mode.code == "store-rolled-back"
    assert (after.epoch, after.incarnation != before.incarnation) == (before.epoch + 1, True)
    assert await cluster.entered() == 1
    await copies[0].writes("n-3")


async def test_a_rollback_that_only_one_copy_can_know_of_is_told_by_that_copy(cluster: Cluster) -> None:
    """The lost commit was younger than the last look: the bus does not remember it, its writer does."""
    writer, other = await cluster.start(2)
    backup = cluster.store.server.backup()
    await writer.writes()
    cluster.store.server.roll_back(backup)
    await other.life.step()
    assert other.life.record.safe_mode is None
    with pytest.raises(RolledBack):
        await writer.writes("n-2")
    await cluster.second()
    after = await agreed(cluster)
    assert after.safe_mode is not None
    assert after.safe_mode.code == "store-rolled-back"


async def test_a_restart_finds_a_rollback_within_an_epoch(cluster: Cluster) -> None:
    [copy] = await cluster.start()
    backup = cluster.store.server.backup()
    await copy.writes()
    await copy.life.step()
    cluster.store.server.roll_back(backup)
    _, later = await cluster.start()
    assert later.life.record.safe_mode is not None
    assert later.life.record.safe_mode.code == "store-rolled-back"


async def test_a_store_of_an_earlier_life_is_not_taken_for_the_present_one(cluster: Cluster) -> None:
    copies = await cluster.start(2)
    await copies[0].writes()
    backup = cluster.store.server.backup()
    cluster.store.server.lose_everything()
    await cluster.second()
    second = await agreed(cluster)
    cluster.store.server.roll_back(backup)
    await cluster.second()
    third = await agreed(cluster)
    assert third.epoch == second.epoch + 1
    assert third.safe_mode is not None
    assert third.safe_mode.code == "store-different"


async def test_a_bus_that_is_wiped_while_there_are_nodes_means_safe_mode_in_the_same_life(cluster: Cluster) -> None:
    copies = await cluster.start(3)
    await copies[0].writes()
    await cluster.second()
    before = await agreed(cluster)
    cluster.buses.buckets.clear()
    await cluster.second()
    after = await agreed(cluster)
    assert after.safe_mode is not None
    assert after.safe_mode.code == "mirror-lost"
    assert (after.incarnation, after.epoch) == (before.incarnation, before.epoch + 1)
    assert await cluster.entered() == 1


async def test_a_bus_that_is_wiped_before_there_are_nodes_is_only_told_again(cluster: Cluster) -> None:
    await cluster.start(2)
    cluster.buses.buckets.clear()
    await cluster.second()
    assert (await agreed(cluster)).safe_mode is None


async def test_with_store_and_bus_gone_at_once_the_running_copies_remember(cluster: Cluster) -> None:
    copies = await cluster.start(3)
    await copies[0].writes()
    before = await agreed(cluster)
    cluster.store.server.lose_everything()
    cluster.buses.buckets.clear()
    await cluster.second()
    after = await agreed(cluster)
    assert after.safe_mode is not None
    assert (after.safe_mode.code, after.installation) == ("state-lost", before.installation)
    assert after.epoch == before.epoch + 1


async def test_a_store_lost_while_the_bus_is_away_means_safe_mode_all_the_same(cluster: Cluster) -> None:
    copies = await cluster.start(2)
    cluster.buses.stop()
    cluster.store.server.lose_everything()
    await cluster.second()
    stored = await cluster.store.get(META.key())
    assert stored is not None
    assert stored.record.safe_mode is not None
    assert {copy.life.mirrored for copy in copies} == {False}
    cluster.buses.start()
    await cluster.second()
    assert (await agreed(cluster)).epoch == 1


async def test_an_outage_of_either_changes_nothing(cluster: Cluster) -> None:
    [copy] = await cluster.start()
    before = await agreed(cluster)
    cluster.store.server.up = False
    await copy.life.step()
    assert copy.life.status["error"]
    cluster.store.server.up = True
    cluster.buses.stop()
    await copy.life.step()
    assert copy.life.mirrored
    cluster.buses.start()
    await copy.life.step()
    assert await agreed(cluster) == before
    assert copy.life.status["error"] == ""


async def test_a_copy_that_slept_through_a_new_life_goes_on_in_it(cluster: Cluster) -> None:
    awake, asleep = await cluster.start(2)
    cluster.store.server.lose_everything()
    await awake.life.step()
    await leave_safe_mode(
        awake.store, Committer(awake.store, awake.bus, Subjects(), writer=None, clock=cluster.clock),
        now=cluster.clock.now(), code="test", reason="all found", actor="operator:ann",
    )  # fmt: skip
    await awake.life.step()
    with pytest.raises(WrongIncarnation):
        await asleep.writes()
    await asleep.life.step()
    assert (await agreed(cluster)).safe_mode is None
    assert await cluster.entered() == 1
    await asleep.writes()


async def test_a_new_life_whose_beginner_died_before_the_bus_heard_of_it_is_told_by_the_next(cluster: Cluster) -> None:
    beginner, heir = await cluster.start(2)
    cluster.store.server.lose_everything()
    beginner.bus.lose_connection()
    await beginner.life.step()
    cluster.copies.remove(beginner)
    await heir.life.step()
    record = await agreed(cluster)
    assert (record.epoch, await heir.store.outbox_length()) == (1, 1)  # told once, by the relay


async def test_an_unreadable_mirror_is_named_and_counts_as_none(cluster: Cluster) -> None:
    [copy] = await cluster.start()
    await copy.bus.kv_put("NAVARCH_STATE", "meta.test", b"\x00garbage")
    await copy.life.step()
    assert "unreadable" in str(copy.life.status["error"])
    assert not copy.life.mirrored


RECORD = MetaRecord(cluster="test", installation="i", incarnation="a", created_at=ManualClock().now())
MIRROR = Mirror(cluster="test", installation="i", incarnation="a", epoch=0, commits=10)


@pytest.mark.parametrize(
    ("record", "commits", "mirror", "code"),
    [
        (RECORD, 10, MIRROR, ""),
        (RECORD, 11, MIRROR, ""),
        (RECORD, 9, MIRROR, "store-rolled-back"),
        (structs.replace(RECORD, epoch=1), 9, MIRROR, "store-rolled-back"),
        (structs.replace(RECORD, epoch=1, incarnation="b"), 1, MIRROR, ""),
        (structs.replace(RECORD, epoch=1, installation="j"), 10, MIRROR, ""),
        (structs.replace(RECORD, epoch=1, installation="j"), 9, MIRROR, "store-rolled-back"),
        (structs.replace(RECORD, epoch=9, incarnation="b", installation="j"), 10, MIRROR, "store-different"),
        (structs.replace(RECORD, incarnation="b"), 10, MIRROR, "store-different"),
    ],
)
def test_what_a_count_and_an_epoch_say(record: MetaRecord, commits: int, mirror: Mirror, code: str) -> None:
    found = doubt(record, mirror, "i", has_nodes=True, commits=commits)
    assert (found.code if found else "") == code


def test_whoever_has_seen_more_than_the_bus_remembers_doubts_where_the_bus_has_forgotten_all() -> None:
    standing = Standing(Stored(META.key(), RECORD, 1), 9)
    found = doubt_while_running(standing, None, mirror_of(RECORD, 10), "i", has_nodes=True)
    assert found is not None
    assert found.code == "store-rolled-back"
