"""How a store counts its commits and which life it is in, on every adapter: what tells a rolled-back store from itself."""

from collections.abc import AsyncIterator

import pytest

from fixtures.labs import MemoryLab, RedisLab, StoreLab
from fixtures.records import AT, node_record
from navarch_common.model.base import AnyKey
from navarch_common.model.cluster import META, MetaRecord
from navarch_common.model.node import NODE
from navarch_common.store.base import ABSENT, Commit, Conflict, RolledBack, WrongIncarnation


@pytest.fixture(params=["memory", "redis"])
async def lab(request: pytest.FixtureRequest, unique: str) -> AsyncIterator[StoreLab]:
    made: StoreLab
    made = MemoryLab() if request.param == "memory" else RedisLab(request.getfixturevalue("redis_url"), unique)
    try:
        yield made
    finally:
        await made.close()


def meta(incarnation: str, epoch: int = 0) -> MetaRecord:
    return MetaRecord(cluster="test", installation="inst", incarnation=incarnation, epoch=epoch, created_at=AT)


async def begin(lab: StoreLab, incarnation: str = "first") -> None:
    await lab.store.commit(Commit(expect={META.key(): ABSENT}, put={META.key(): meta(incarnation)}))
    lab.store.bind(incarnation)


def a_node(name: str = "training-1") -> Commit:
    return Commit(put={NODE.key(name): node_record(name)})


async def test_an_empty_store_has_no_meta_and_has_counted_nothing(lab: StoreLab) -> None:
    standing = await lab.store.standing()
    assert (standing.meta, standing.commits) == (None, 0)


async def test_every_commit_counts_and_what_is_refused_does_not(lab: StoreLab) -> None:
    await begin(lab)
    assert (await lab.store.commit(a_node())).commits == 2
    missing: dict[AnyKey, int] = {NODE.key("absent"): 7}
    with pytest.raises(Conflict):
        await lab.store.commit(Commit(expect=missing, put={NODE.key("training-2"): node_record("training-2")}))
    assert (await lab.connection().commit(a_node())).commits == 3
    standing = await lab.store.standing()
    assert standing.meta is not None
    assert (standing.meta.record, standing.commits) == (meta("first"), 3)


async def test_a_connection_that_has_seen_more_commits_than_there_are_is_refused(lab: StoreLab) -> None:
    await begin(lab)
    backup = await lab.backup()
    await lab.store.commit(a_node("training-1"))
    await lab.roll_back(backup)
    with pytest.raises(RolledBack, match="rolled back"):
        await lab.store.commit(a_node("training-2"))
    assert await lab.store.get(NODE.key("training-2")) is None
    assert (await lab.store.standing()).commits == 1


async def test_what_is_known_from_elsewhere_is_as_good_as_what_was_seen(lab: StoreLab) -> None:
    await begin(lab)
    lab.store.bind("first", 5)
    with pytest.raises(RolledBack, match="5 are known"):
        await lab.store.commit(a_node())
    lab.store.bind("first", 1)
    with pytest.raises(RolledBack, match="5 are known"):
        await lab.store.commit(a_node())


async def test_a_connection_that_knows_of_no_lost_commit_goes_on(lab: StoreLab) -> None:
    await begin(lab)
    other = lab.connection()
    other.bind("first", 1)
    backup = await lab.backup()
    await lab.store.commit(a_node())
    await lab.roll_back(backup)
    await other.commit(a_node())


async def test_a_new_life_begins_in_a_store_that_was_rolled_back_and_in_one_that_is_empty(lab: StoreLab) -> None:
    await begin(lab)
    backup = await lab.backup()
    await lab.store.commit(a_node())
    await lab.roll_back(backup)
    stored = await lab.store.get(META.key())
    assert stored is not None
    second = Commit(expect={META.key(): stored.revision}, put={META.key(): meta("second", 1)}, new_life=True)
    await lab.store.commit(second)
    with pytest.raises(WrongIncarnation, match="second"):
        await lab.store.commit(a_node())
    lab.store.bind("second", 2)
    await lab.store.commit(a_node())
    await lab.lose_everything()
    third = Commit(expect={META.key(): ABSENT}, put={META.key(): meta("third", 2)}, new_life=True)
    assert (await lab.store.commit(third)).commits == 1
    lab.store.bind("third")
    await lab.store.commit(a_node())


async def test_a_new_life_still_expects_what_it_rests_on(lab: StoreLab) -> None:
    await begin(lab)
    with pytest.raises(Conflict):
        await lab.store.commit(Commit(expect={META.key(): ABSENT}, put={META.key(): meta("second")}, new_life=True))
    await lab.store.commit(a_node())


async def test_a_commit_that_rests_on_another_life_is_refused_although_the_connection_has_gone_on(
    lab: StoreLab,
) -> None:
    await begin(lab)
    await lab.store.commit(Commit(put={META.key(): meta("second", 1)}, new_life=True))
    lab.store.bind("second")
    assert lab.store.incarnation == "second"
    stale = Commit(put={NODE.key("n-1"): node_record("n-1")}, incarnation="first")
    with pytest.raises(WrongIncarnation, match="second, not first"):
        await lab.store.commit(stale)
    await lab.store.commit(Commit(put={NODE.key("n-1"): node_record("n-1")}, incarnation="second"))
