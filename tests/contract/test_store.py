"""What every adapter of the store keeps, on each of them: in memory, and on a real Redis."""

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from fixtures.labs import MemoryLab, RedisLab, StoreLab
from fixtures.process import ProcessServer
from fixtures.records import AT, node_cordoned, node_failed, node_record, pool_resized
from fixtures.servers import Servers, make_redis, redis_binary
from navarch_common.events.codec import decode_event
from navarch_common.model.base import AnyKey, Record
from navarch_common.model.cluster import META, MetaRecord
from navarch_common.model.health import HEALTH
from navarch_common.model.node import NODE, NodeRecord, Phase
from navarch_common.store.base import (
    ABSENT,
    BadRecord,
    Beat,
    BudgetExhausted,
    Commit,
    Conflict,
    Fenced,
    Lease,
    NewerSchema,
    Refund,
    Since,
    Spend,
    StateStore,
    StoreError,
    StoreUnavailable,
    WrongIncarnation,
)
from navarch_common.store.redis import RedisStore, is_passing

ONE, TWO = NODE.key("training-1"), NODE.key("training-2")
HOUR = timedelta(hours=1)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(params=["memory", "redis"])
async def lab(request: pytest.FixtureRequest, unique: str) -> AsyncIterator[StoreLab]:
    made: StoreLab
    made = MemoryLab() if request.param == "memory" else RedisLab(request.getfixturevalue("redis_url"), unique)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def store(lab: StoreLab) -> StateStore:
    return lab.store


def put(*records: NodeRecord) -> dict[AnyKey, Record]:
    return {NODE.key(record.node): record for record in records}


async def revision_of(store: StateStore, key: AnyKey) -> int:
    stored = await store.get(key)
    return stored.revision if stored else ABSENT


# Records


async def test_what_was_put_is_read_back_equal_with_the_commits_revision(store: StateStore) -> None:
    record = node_record(phase=Phase.PLANNED)
    committed = await store.commit(Commit(expect={ONE: ABSENT}, put={ONE: record}))
    stored = await store.get(ONE)
    assert stored is not None
    assert (stored.key, stored.record, stored.revision) == (ONE, record, committed.revision)


async def test_a_record_that_is_not_there_is_none(store: StateStore) -> None:
    assert await store.get(ONE) is None
    assert await store.get_many([ONE, TWO]) == [None, None]


async def test_many_records_come_in_the_order_asked_for(store: StateStore) -> None:
    names = [f"training-{number}" for number in range(1200)]
    await store.commit(Commit(put=put(*(node_record(name) for name in names))))
    asked = [NODE.key(name) for name in (*reversed(names), "absent")]
    found = await store.get_many(asked)
    assert [one.key if one else None for one in found] == [*asked[:-1], None]


async def test_all_records_of_one_commit_share_its_revision(store: StateStore) -> None:
    committed = await store.commit(Commit(put=put(node_record("training-1"), node_record("training-2"))))
    assert {one.revision for one in await store.records(NODE)} == {committed.revision}


async def test_records_of_a_family_and_of_a_pool_come_ordered_by_key(store: StateStore) -> None:
    nodes = [node_record("b-2", "b"), node_record("a-2", "a"), node_record("b-1", "b"), node_record("a-1", "a")]
    await store.commit(Commit(put=put(*nodes)))
    assert [one.record.node for one in await store.records(NODE)] == ["a-1", "a-2", "b-1", "b-2"]
    assert [one.record.node for one in await store.records(NODE, "b")] == ["b-1", "b-2"]
    assert await store.records(NODE, "c") == []
    assert await store.records(HEALTH) == []


async def test_a_record_that_moves_to_another_pool_leaves_the_first(store: StateStore) -> None:
    await store.commit(Commit(put=put(node_record("n-1", "a"), node_record("n-2", "a"))))
    await store.commit(Commit(put=put(node_record("n-1", "b"), node_record("n-2", "b"))))
    assert await store.records(NODE, "a") == []
    assert [one.record.node for one in await store.records(NODE, "b")] == ["n-1", "n-2"]
    assert [one.record.node for one in await store.records(NODE)] == ["n-1", "n-2"]


async def test_a_deleted_record_is_gone_from_every_list(store: StateStore) -> None:
    await store.commit(Commit(put=put(node_record("training-1"), node_record("training-2"))))
    await store.commit(Commit(delete=(ONE,)))
    assert await store.get(ONE) is None
    assert [one.key for one in await store.records(NODE)] == [TWO]
    assert [one.key for one in await store.records(NODE, "training")] == [TWO]
    assert [one.key for one in (await store.changed([Since(NODE, 0, "training")]))[0]] == [TWO]


async def test_deleting_what_is_not_there_is_no_error(store: StateStore) -> None:
    await store.commit(Commit(delete=(ONE,)))


async def test_changed_tells_only_what_was_written_since(store: StateStore) -> None:
    first = await store.commit(Commit(put=put(node_record("training-1"), node_record("training-2"))))
    assert [one.key for one in (await store.changed([Since(NODE, first.revision)]))[0]] == []
    second = await store.commit(Commit(put=put(node_record("training-2", phase=Phase.DRAINING))))
    changed = (await store.changed([Since(NODE, first.revision, "training")]))[0]
    assert [(one.record.phase, one.revision) for one in changed] == [(Phase.DRAINING, second.revision)]
    assert [one.key for one in (await store.changed([Since(NODE, first.revision - 1)]))[0]] == [ONE, TWO]


async def write_meanwhile(writer: StateStore, written: set[str]) -> None:
    """New records and changes of old ones, by turns."""
    old = [node_record(f"old-{n}", phase=Phase.ACTIVE) for n in range(20)]
    for n in range(300):
        await writer.commit(Commit(put=put(node_record(f"new-{n}"))))
        written.add(f"new-{n}")
        await writer.commit(Commit(put=put(*old)))


async def test_who_goes_on_from_the_newest_change_misses_none_that_was_written_meanwhile(lab: StoreLab) -> None:
    """What the index names and the values that are read after it are not of one moment."""
    written: set[str] = set()
    writing = asyncio.create_task(write_meanwhile(lab.connection(), written))
    known: set[str] = set()
    revision, over = 0, False
    while not over:
        over = writing.done()
        [found] = await lab.store.changed([Since(NODE, revision)])
        revision = max([revision, *(one.revision for one in found)])
        known.update(one.key.name for one in found)
        await asyncio.sleep(0)
    await writing
    assert written - known == set()


async def test_who_goes_on_from_all_records_misses_none_that_was_written_meanwhile(lab: StoreLab) -> None:
    written: set[str] = set()
    writing = asyncio.create_task(write_meanwhile(lab.connection(), written))
    missed: set[str] = set()
    while not writing.done():
        found = await lab.store.records(NODE)
        revision = max((one.revision for one in found), default=0)
        before = set(written)
        [since] = await lab.store.changed([Since(NODE, revision)])
        missed |= before - {one.key.name for one in [*found, *since]}
        await asyncio.sleep(0)
    await writing
    assert missed == set()


async def test_changed_tells_what_was_made_again_and_not_that_it_was_deleted(store: StateStore) -> None:
    first = await store.commit(Commit(put=put(node_record("training-1"), node_record("training-2"))))
    await store.commit(Commit(delete=(ONE, TWO)))
    assert (await store.changed([Since(NODE, first.revision)]))[0] == []
    again = await store.commit(Commit(put=put(node_record("training-1"))))
    for pool in (None, "training"):
        changed = (await store.changed([Since(NODE, first.revision, pool)]))[0]
        assert [(one.key, one.revision) for one in changed] == [(ONE, again.revision)]


async def test_a_stored_record_that_cannot_be_decoded_stops_nobody(lab: StoreLab) -> None:
    await lab.store.commit(Commit(put=put(node_record("training-1"))))
    for number, value in enumerate((b"", b"rubbish", b"0000000000000005 1 - {not json", b"5 1 - {}", b"\xff" * 40)):
        await lab.plant(NODE.key(f"bad-{number}"), value)
    assert [one.key for one in await lab.store.records(NODE)] == [ONE]
    assert lab.bad_records == 5
    with pytest.raises(BadRecord, match="bad-3"):
        await lab.store.get(NODE.key("bad-3"))


async def test_fields_of_a_later_release_are_ignored(lab: StoreLab) -> None:
    body = (
        b'{"node":"training-1","pool":"training","generation":1,"phase":"active","phase_since":"2026-01-01T00:00:00Z",'
    )
    await lab.plant(ONE, b"0000000000000007 2 training " + body + b'"created_at":"2026-01-01T00:00:00Z","later":[1]}')
    stored = await lab.store.get(ONE)
    assert stored is not None
    assert (stored.record, stored.revision) == (node_record(), 7)


# The commit


async def test_a_commit_that_expects_another_revision_writes_nothing(store: StateStore) -> None:
    first = await store.commit(Commit(put=put(node_record("training-1"))))
    await store.commit(Commit(put=put(node_record("training-1", phase=Phase.DRAINING))))
    with pytest.raises(Conflict, match="node/training-1") as caught:
        await store.commit(
            Commit(
                expect={TWO: ABSENT, ONE: first.revision},
                put=put(node_record("training-1"), node_record("training-2")),
                emit=(node_failed(),),
                spend=(Spend("launches", "me", 1),),
            )
        )
    assert (caught.value.key, caught.value.expected) == ("node/training-1", first.revision)
    assert caught.value.found == await revision_of(store, ONE)
    assert await store.get(TWO) is None
    assert await store.outbox_length() == 0
    assert await store.holders("launches") == []


@pytest.mark.parametrize("expected", [ABSENT, 5])
async def test_an_expectation_about_what_is_there_or_not_there_counts(store: StateStore, expected: int) -> None:
    if expected == ABSENT:
        await store.commit(Commit(put=put(node_record("training-1"))))
    with pytest.raises(Conflict):
        await store.commit(Commit(expect={ONE: expected}, put=put(node_record("training-2"))))
    assert await store.get(TWO) is None


async def test_a_touched_record_is_written_whatever_its_revision(store: StateStore) -> None:
    for _ in range(3):
        committed = await store.commit(Commit(touch=put(node_record())))
        assert await revision_of(store, ONE) == committed.revision


async def test_revisions_rise_over_deletes(store: StateStore) -> None:
    seen = []
    for _ in range(5):
        seen.append((await store.commit(Commit(expect={ONE: ABSENT}, put=put(node_record())))).revision)
        seen.append((await store.commit(Commit(expect={ONE: seen[-1]}, delete=(ONE,)))).revision)
    assert seen == sorted(set(seen))


async def test_a_record_that_was_deleted_and_made_again_is_not_the_same(store: StateStore) -> None:
    first = await store.commit(Commit(put=put(node_record())))
    await store.commit(Commit(delete=(ONE,)))
    await store.commit(Commit(put=put(node_record())))
    with pytest.raises(Conflict):
        await store.commit(Commit(expect={ONE: first.revision}, delete=(ONE,)))


async def test_revisions_and_fences_rise_over_a_rollback(lab: StoreLab) -> None:
    first = await lab.store.commit(Commit(put=put(node_record())))
    backup = await lab.backup()
    lost = await lab.store.commit(Commit(put=put(node_record(phase=Phase.DRAINING))))
    lease = await lab.store.acquire("provisioner/training", "a", HOUR)
    assert lease is not None
    await lab.pass_time(0.005)
    await lab.roll_back(backup)
    assert await revision_of(lab.store, ONE) == first.revision
    after = await lab.store.commit(Commit(expect={ONE: first.revision}, put=put(node_record())))
    assert after.revision > lost.revision
    again = await lab.store.acquire("provisioner/training", "b", HOUR)
    assert again is not None
    assert again.fence > lease.fence


async def test_revisions_and_fences_rise_over_the_loss_of_everything(lab: StoreLab) -> None:
    """By the server's clock: nothing else is left."""
    before = await lab.store.commit(Commit(put=put(node_record()), emit=(node_failed(),)))
    lease = await take(lab.store, "a")
    await lab.pass_time(0.005)
    await lab.lose_everything()
    after = await lab.store.commit(Commit(put=put(node_record()), emit=(node_failed(),)))
    assert after.revision > before.revision
    assert after.entries[0].id > before.entries[0].id
    with pytest.raises(Fenced, match="nobody holds it"):
        await lab.store.commit(Commit(lease=lease, put=put(node_record())))
    assert (await take(lab.store, "b")).fence > lease.fence


async def test_events_after_a_rollback_have_ids_that_no_lost_event_had(lab: StoreLab) -> None:
    await lab.store.commit(Commit(emit=(node_failed(),)))
    backup = await lab.backup()
    lost = [await lab.store.commit(Commit(emit=(node_failed(), node_cordoned()))) for _ in range(3)]
    await lab.pass_time(0.005)
    await lab.roll_back(backup)
    assert await lab.store.outbox_length() == 1
    after = await lab.store.commit(Commit(emit=(node_failed(),)))
    assert after.entries[0].id > max(entry.id for one in lost for entry in one.entries)
    assert after.waiting_before == 1


async def test_revisions_and_fences_rise_while_the_servers_clock_is_behind(lab: StoreLab) -> None:
    ahead = int((await lab.store.now()).timestamp() * 1e6) + 3_600_000_000
    await lab.set_counters(revision=ahead, fence=ahead // 1000)
    first = await lab.store.commit(Commit(put=put(node_record()), emit=(node_failed(),)))
    second = await lab.store.commit(Commit(put=put(node_record()), emit=(node_failed(),)))
    assert (first.revision, second.revision) == (ahead + 1, ahead + 2)
    assert [entry.id for entry in await lab.store.outbox()] == [f"{ahead + 1}-0", f"{ahead + 2}-0"]
    assert [(await take(lab.store, "a")).fence for _ in range(2)] == [ahead // 1000 + 1, ahead // 1000 + 2]


async def test_a_commit_whose_reply_was_lost_conflicts_when_it_is_tried_again(lab: StoreLab) -> None:
    commit = Commit(expect={ONE: ABSENT}, put=put(node_record()), emit=(node_failed(),))
    async with lab.losing_the_reply() as hurt:
        with pytest.raises(StoreUnavailable):
            await hurt.commit(commit)
    with pytest.raises(Conflict):
        await lab.store.commit(commit)
    assert await lab.store.outbox_length() == 1


async def test_a_commit_whose_request_was_lost_changed_nothing_and_is_tried_again(lab: StoreLab) -> None:
    """To who made it, it looks the same as one whose reply was lost: only reading tells."""
    commit = Commit(expect={ONE: ABSENT}, put=put(node_record()), emit=(node_failed(),))
    async with lab.losing_the_request() as hurt:
        with pytest.raises(StoreUnavailable):
            await hurt.commit(commit)
    assert await lab.store.get(ONE) is None
    await lab.store.commit(commit)
    assert await lab.store.outbox_length() == 1


def a_fleet(pool: str = "training") -> dict[AnyKey, Record]:
    return put(*(node_record(f"n-{number}", pool) for number in range(1000)))


async def test_a_big_commit_is_applied_whole(store: StateStore) -> None:
    await store.commit(Commit(put=a_fleet("before")))
    committed = await store.commit(
        Commit(
            expect={NODE.key("absent"): ABSENT},
            put=a_fleet(),
            emit=tuple(node_failed(f"n-{number}") for number in range(1000)),
            spend=tuple(Spend("launches", f"r-{number}", 1000) for number in range(1000)),
        )
    )
    assert await store.records(NODE, "before") == []
    assert {one.revision for one in await store.records(NODE, "training")} == {committed.revision}
    assert len(await store.records(NODE, "training")) == 1000
    assert await store.outbox_length() == len(await store.holders("launches")) == 1000
    assert [entry.id for entry in await store.outbox()] == [entry.id for entry in committed.entries]


@pytest.mark.parametrize("wrong", ["expect", "spend"])
async def test_a_big_commit_of_which_one_thing_is_wrong_writes_nothing(store: StateStore, wrong: str) -> None:
    """However late it is found."""
    await store.commit(Commit(put=put(node_record()), spend=(Spend("full", "someone", 1),)))
    commit = Commit(
        expect=dict.fromkeys((*a_fleet(), ONE), ABSENT) if wrong == "expect" else {},
        put=a_fleet(),
        emit=tuple(node_failed(f"n-{number}") for number in range(1000)),
        spend=(*(Spend("launches", f"r-{number}", 1000) for number in range(1000)), Spend("full", "me", 1)),
    )
    with pytest.raises(Conflict if wrong == "expect" else BudgetExhausted):
        await store.commit(commit)
    assert [one.key for one in await store.records(NODE)] == [ONE]
    assert await store.outbox_length() == 0
    assert await store.holders("launches") == []


async def test_a_commit_about_two_pools_is_one(store: StateStore) -> None:
    there = await store.commit(Commit(put=put(node_record("b-1", "b"))))
    with pytest.raises(Conflict):
        await store.commit(
            Commit(expect={NODE.key("b-1"): there.revision - 1}, put=put(node_record("a-1", "a"), node_record("b-1")))
        )
    assert await store.records(NODE, "a") == []
    assert [one.key.path for one in await store.records(NODE, "b")] == ["node/b-1"]


async def test_who_lost_the_pool_is_told_so_whatever_else_is_wrong(lab: StoreLab) -> None:
    """A conflict would let it decide again; it has to stop."""
    old = await take(lab.store, "a")
    await take(lab.store, "a")
    await lab.store.commit(Commit(put={META.key(): meta("first"), ONE: node_record()}, spend=(Spend("b", "x", 1),)))
    wrong = Commit(lease=old, expect={ONE: 5}, put=put(node_record()), spend=(Spend("b", "y", 1),))
    with pytest.raises(Fenced):
        await lab.store.commit(wrong)
    lab.store.bind("second")
    with pytest.raises(WrongIncarnation):
        await lab.store.commit(wrong)


async def test_of_sixteen_who_write_one_record_each_increment_counts(lab: StoreLab) -> None:
    await lab.store.commit(Commit(put={ONE: node_record()}))
    conflicts: Counter[int] = Counter()

    async def work(number: int) -> None:
        connection = lab.connection()
        done = 0
        while done < 5:
            stored = await connection.get(ONE)
            assert stored is not None
            raised = replace_generation(stored.record, stored.record.generation + 1)
            try:
                await connection.commit(Commit(expect={ONE: stored.revision}, put={ONE: raised}))
                done += 1
            except Conflict:
                conflicts[number] += 1

    async with asyncio.TaskGroup() as group:
        for number in range(16):
            group.create_task(work(number), name=f"writer {number}")
    final = await lab.store.get(ONE)
    assert final is not None
    assert final.record.generation == 1 + 16 * 5
    assert conflicts.total() > 0


def replace_generation(record: NodeRecord, generation: int) -> NodeRecord:
    return NodeRecord(
        node=record.node, pool=record.pool, generation=generation, phase=record.phase, phase_since=AT, created_at=AT
    )


@pytest.mark.parametrize("how", ["put", "touch", "delete"])
async def test_a_record_of_a_newer_schema_is_not_overwritten(store: StateStore, how: str) -> None:
    later = replace(NODE, schema=2)
    written = await store.commit(Commit(put={later.key("training-1"): node_record()}))
    commits = {
        "put": Commit(expect={ONE: written.revision}, put=put(node_record("training-1"), node_record("training-2"))),
        "touch": Commit(touch=put(node_record("training-1"), node_record("training-2"))),
        "delete": Commit(delete=(ONE,), put=put(node_record("training-2"))),
    }
    with pytest.raises(NewerSchema, match="schema 2"):
        await store.commit(commits[how])
    assert await revision_of(store, ONE) == written.revision
    assert await store.get(TWO) is None


async def test_a_record_of_an_older_schema_is_overwritten(store: StateStore) -> None:
    later = replace(NODE, schema=2)
    await store.commit(Commit(put=put(node_record())))
    await store.commit(Commit(put={later.key("training-1"): node_record()}))


async def test_a_record_that_could_not_be_read_back_is_refused(store: StateStore) -> None:
    with pytest.raises(BadRecord, match="node/training-1"):
        await store.commit(Commit(put={ONE: node_record(node="Not An Id")}))
    with pytest.raises(BadRecord, match="takes a NodeRecord"):
        await store.commit(Commit(put={ONE: meta("i")}))
    with pytest.raises(BadRecord, match=r"node\.failed"):
        await store.commit(Commit(emit=(node_failed(reason="long" * 1000),)))
    assert await store.get(ONE) is None


@pytest.mark.parametrize("path", ["", "with space", "newline\n", "é", "x" * 600])
async def test_a_key_that_is_no_key_is_refused(store: StateStore, path: str) -> None:
    with pytest.raises(ValueError, match="key"):
        await store.commit(
            Commit(put={NODE.key(path): node_record()} if path else {replace(ONE, path=""): node_record()})
        )


async def test_a_key_written_twice_in_one_commit_is_refused(store: StateStore) -> None:
    with pytest.raises(ValueError, match="twice"):
        await store.commit(Commit(put=put(node_record()), delete=(ONE,)))


async def test_a_value_that_is_rubbish_is_not_overwritten_unseen(lab: StoreLab) -> None:
    await lab.plant(ONE, b"rubbish")
    with pytest.raises(BadRecord):
        await lab.store.commit(Commit(put=put(node_record())))


# Incarnation


def meta(incarnation: str) -> MetaRecord:
    return MetaRecord(cluster="test", installation="inst", incarnation=incarnation, created_at=AT)


async def test_a_bound_connection_writes_only_to_its_incarnation(lab: StoreLab) -> None:
    await lab.store.commit(Commit(expect={META.key(): ABSENT}, put={META.key(): meta("first")}))
    lab.store.bind("first")
    await lab.store.commit(Commit(put=put(node_record())))
    await lab.lose_everything()
    with pytest.raises(WrongIncarnation, match="first"):
        await lab.store.commit(Commit(put=put(node_record())))
    assert await lab.store.get(ONE) is None
    await lab.connection().commit(Commit(put={META.key(): meta("second")}))
    with pytest.raises(WrongIncarnation, match="second"):
        await lab.store.commit(Commit(put=put(node_record())))
    lab.store.bind("second")
    await lab.store.commit(Commit(put=put(node_record())))


# Budgets


async def test_a_bucket_gives_as_many_places_as_its_limit(store: StateStore) -> None:
    await store.commit(Commit(spend=(Spend("launches", "a", 2), Spend("launches", "b", 2))))
    with pytest.raises(BudgetExhausted, match="launches") as caught:
        await store.commit(Commit(spend=(Spend("launches", "c", 2),), put=put(node_record())))
    assert (caught.value.holders, caught.value.limit) == (("a", "b"), 2)
    assert await store.get(ONE) is None
    assert await store.holders("launches") == ["a", "b"]


async def test_two_places_taken_in_one_commit_count_as_two(store: StateStore) -> None:
    with pytest.raises(BudgetExhausted):
        await store.commit(Commit(spend=(Spend("launches", "a", 1), Spend("launches", "b", 1))))
    assert await store.holders("launches") == []


async def test_the_same_holder_takes_one_place_however_often_it_asks(store: StateStore) -> None:
    for _ in range(3):
        await store.commit(Commit(spend=(Spend("launches", "a", 1), Spend("launches", "a", 1))))
    assert await store.holders("launches") == ["a"]


async def test_a_refund_makes_room_also_within_the_same_commit(store: StateStore) -> None:
    await store.commit(Commit(spend=(Spend("launches", "a", 1),)))
    await store.commit(Commit(refund=(Refund("launches", "a"),), spend=(Spend("launches", "b", 1),)))
    assert await store.holders("launches") == ["b"]
    await store.commit(Commit(refund=(Refund("launches", "b"), Refund("launches", "nobody"))))
    assert await store.holders("launches") == []


async def test_a_bucket_without_room_at_all_refuses(store: StateStore) -> None:
    with pytest.raises(BudgetExhausted, match="0 of 0"):
        await store.commit(Commit(spend=(Spend("launches", "a", 0),)))


async def test_a_place_taken_within_a_window_frees_itself(lab: StoreLab) -> None:
    window = timedelta(seconds=0.5)
    await lab.store.commit(Commit(spend=(Spend("rate", "a", 1, window),)))
    with pytest.raises(BudgetExhausted):
        await lab.store.commit(Commit(spend=(Spend("rate", "b", 1, window),)))
    assert await lab.store.holders("rate", window) == ["a"]
    await lab.pass_time(0.55)
    assert await lab.store.holders("rate", window) == []
    await lab.store.commit(Commit(spend=(Spend("rate", "b", 1, window),)))
    assert await lab.store.holders("rate", window) == ["b"]
    assert await lab.store.holders("rate") == ["b"]


async def test_asking_again_within_the_window_does_not_prolong_it(lab: StoreLab) -> None:
    window = timedelta(seconds=0.6)
    await lab.store.commit(Commit(spend=(Spend("rate", "a", 1, window),)))
    await lab.pass_time(0.3)
    await lab.store.commit(Commit(spend=(Spend("rate", "a", 1, window),)))
    await lab.pass_time(0.35)
    assert await lab.store.holders("rate", window) == []


async def test_of_twenty_who_want_three_places_three_get_one(lab: StoreLab) -> None:
    async def take(number: int) -> bool:
        try:
            await lab.store.commit(Commit(spend=(Spend("launches", f"r-{number}", 3),)))
        except BudgetExhausted:
            return False
        return True

    assert sum(await asyncio.gather(*(take(number) for number in range(20)))) == 3


# Leases


async def take(store: StateStore, owner: str, ttl_s: float = 3600.0) -> Lease:
    lease = await store.acquire("provisioner/training", owner, timedelta(seconds=ttl_s))
    assert lease is not None
    return lease


async def test_a_lease_has_one_holder(store: StateStore) -> None:
    lease = await take(store, "a")
    assert (lease.name, lease.owner) == ("provisioner/training", "a")
    assert await store.acquire("provisioner/training", "b", HOUR) is None
    assert await store.acquire("provisioner/other", "b", HOUR) is not None


async def test_the_same_owner_who_takes_it_again_gets_a_new_fence(store: StateStore) -> None:
    first = await take(store, "a")
    second = await take(store, "a")
    assert second.fence > first.fence
    with pytest.raises(Fenced):
        await store.commit(Commit(lease=first, put=put(node_record())))
    await store.commit(Commit(lease=second, put=put(node_record())))


async def test_an_expired_lease_is_taken_over_and_its_old_fence_refused(lab: StoreLab) -> None:
    old = await take(lab.store, "a", 0.4)
    assert await lab.store.acquire("provisioner/training", "b", HOUR) is None
    await lab.pass_time(0.45)
    new = await take(lab.connection(), "b")
    assert new.fence > old.fence
    with pytest.raises(Fenced, match="b holds it"):
        await lab.store.commit(Commit(lease=old, put=put(node_record()), emit=(node_failed(),)))
    assert await lab.store.get(ONE) is None
    assert await lab.store.outbox_length() == 0
    assert await lab.store.renew(old, HOUR) is None
    await lab.store.release(old)
    await lab.store.commit(Commit(lease=new, put=put(node_record())))


async def test_an_expired_lease_that_nobody_took_is_still_good(lab: StoreLab) -> None:
    lease = await take(lab.store, "a", 0.01)
    await lab.pass_time(0.05)
    await lab.store.commit(Commit(lease=lease, put=put(node_record())))
    assert await lab.store.renew(lease, HOUR) is not None


async def test_a_lease_runs_by_the_servers_clock(lab: StoreLab) -> None:
    """Not by that of who took it, which may be an hour wrong."""
    before = await lab.store.now()
    lease = await take(lab.store, "a", 100)
    after = await lab.store.now()
    assert before <= lease.expires_at - timedelta(seconds=100) <= after


async def test_who_took_a_lease_and_was_not_told_takes_it_again_with_a_new_fence(lab: StoreLab) -> None:
    async with lab.losing_the_reply() as hurt:
        with pytest.raises(StoreUnavailable):
            await hurt.acquire("provisioner/training", "a", HOUR)
    assert await lab.store.acquire("provisioner/training", "b", HOUR) is None
    (unknown,) = await lab.store.leases("provisioner/")
    assert (await take(lab.store, "a")).fence > unknown.fence


async def test_a_renewed_lease_outlives_its_first_expiry(lab: StoreLab) -> None:
    lease = await take(lab.store, "a", 0.2)
    renewed = await lab.store.renew(lease, timedelta(hours=2))
    assert renewed is not None
    assert (renewed.fence, renewed.owner) == (lease.fence, "a")
    assert renewed.expires_at > lease.expires_at
    await lab.pass_time(0.25)
    assert await lab.store.acquire("provisioner/training", "b", HOUR) is None
    await lab.store.commit(Commit(lease=lease, put=put(node_record())))


async def test_a_released_lease_is_free_at_once_and_its_fence_refused(store: StateStore) -> None:
    lease = await take(store, "a")
    await store.release(lease)
    with pytest.raises(Fenced, match="nobody holds it"):
        await store.commit(Commit(lease=lease))
    assert await store.renew(lease, HOUR) is None
    assert (await take(store, "b")).fence > lease.fence


async def test_leases_that_have_not_expired_are_listed(lab: StoreLab) -> None:
    await take(lab.store, "someone with spaces")
    await lab.store.acquire("autoscaler/training", "b", HOUR)
    await lab.store.acquire("provisioner/short", "c", timedelta(seconds=0.05))
    await lab.pass_time(0.1)
    listed = [(lease.name, lease.owner) for lease in await lab.store.leases()]
    assert listed == [("autoscaler/training", "b"), ("provisioner/training", "someone with spaces")]
    assert [lease.name for lease in await lab.store.leases("auto")] == ["autoscaler/training"]


async def test_of_twenty_who_want_a_lease_one_gets_it(lab: StoreLab) -> None:
    connections = [lab.connection() for _ in range(4)]
    taken = await asyncio.gather(
        *(connections[number % 4].acquire("provisioner/training", f"o-{number}", HOUR) for number in range(20))
    )
    assert sum(lease is not None for lease in taken) == 1


# Beats


def beat(node: str, due_s: float, sample: bytes = b"{}") -> Beat:
    return Beat(node, "training", AT, AT + timedelta(seconds=due_s), sample)


async def test_a_beat_is_read_back_as_it_was_written(store: StateStore) -> None:
    written = Beat("training-1", "training", AT, AT + HOUR, b'{"a": "b c\\n"} \x00')
    await store.write_beats([written])
    assert await store.beats(["training-2", "training-1"]) == [None, written]


async def test_the_later_deadline_wins_in_whatever_order_beats_come(store: StateStore) -> None:
    await store.write_beats([beat("n-1", 20, b"late"), beat("n-1", 10, b"early")])
    await store.write_beats([beat("n-1", 15, b"middle")])
    assert await store.beats(["n-1"]) == [beat("n-1", 20, b"late")]
    assert await store.overdue(AT + timedelta(seconds=20.5)) == [("n-1", AT + timedelta(seconds=20))]


async def test_who_is_overdue_longest_comes_first(store: StateStore) -> None:
    await store.write_beats([beat(f"n-{number}", number) for number in (3, 1, 2, 5, 4)])
    assert [node for node, _ in await store.overdue(AT + timedelta(seconds=4))] == ["n-1", "n-2", "n-3"]
    assert [node for node, _ in await store.overdue(AT + timedelta(seconds=9), limit=2)] == ["n-1", "n-2"]
    assert await store.overdue(AT) == []


async def test_forgotten_beats_are_overdue_no_more(store: StateStore) -> None:
    await store.write_beats([beat("n-1", 1), beat("n-2", 2)])
    await store.forget_beats(["n-1", "unheard-of"])
    assert [node for node, _ in await store.overdue(AT + HOUR)] == ["n-2"]
    assert await store.beats(["n-1"]) == [None]
    await store.forget_beats([])


async def test_a_batch_of_thousands_of_beats_is_written_whole(store: StateStore) -> None:
    await store.write_beats(beat(f"n-{number}", number + 1) for number in range(2300))
    assert len(await store.overdue(AT + HOUR, limit=5000)) == 2300
    assert None not in await store.beats([f"n-{number}" for number in range(2300)])
    await store.write_beats([])


# Outbox


async def test_events_wait_in_the_outbox_finished_and_in_order(store: StateStore) -> None:
    first = await store.commit(
        Commit(emit=(node_failed(reason='says "rev":1 and "id":"x"'), pool_resized()), trace=TRACE)
    )
    second = await store.commit(Commit(emit=(node_cordoned(),)))
    assert (first.waiting_before, second.waiting_before) == (0, 2)
    waiting = await store.outbox()
    assert [replace(entry, age_s=0.0) for entry in waiting] == [*first.entries, *second.entries]
    assert [entry.id for entry in waiting] == [
        f"{first.revision:016d}-0",
        f"{first.revision:016d}-1",
        f"{second.revision:016d}-0",
    ]
    assert [entry.order for entry in waiting] == ["node/training-1", "pool/training", "node/training-1"]
    assert [entry.trace for entry in waiting] == [TRACE, TRACE, ""]
    assert waiting[0].subject == "navarch.events.node.failed.training.training-1"
    event = decode_event(waiting[0].data)
    assert (event.id, event.rev, event.trace_id) == (waiting[0].id, first.revision, TRACE.split("-")[1])
    assert event.reason == 'says "rev":1 and "id":"x"'


async def test_entries_that_are_done_wait_no_more(store: StateStore) -> None:
    committed = await store.commit(Commit(emit=(node_failed(), node_cordoned())))
    await store.outbox_done([committed.entries[0].id])
    assert [entry.id for entry in await store.outbox()] == [committed.entries[1].id]
    assert await store.outbox_length() == 1
    await store.outbox_done([entry.id for entry in committed.entries])
    await store.outbox_done([])
    assert await store.outbox_length() == 0


async def test_the_outbox_is_read_in_pages_and_up_to_an_entry(store: StateStore) -> None:
    ids = [
        entry.id
        for _ in range(5)
        for entry in (await store.commit(Commit(emit=(node_failed(), node_cordoned())))).entries
    ]
    assert [entry.id for entry in await store.outbox(limit=3)] == ids[:3]
    assert [entry.id for entry in await store.outbox(after_id=ids[2], limit=3)] == ids[3:6]
    assert [entry.id for entry in await store.outbox(before_id=ids[4])] == ids[:4]
    assert [entry.id for entry in await store.outbox(after_id=ids[0], before_id=ids[3])] == ids[1:3]


async def test_only_entries_older_than_asked_are_shown(lab: StoreLab) -> None:
    old = (await lab.store.commit(Commit(emit=(node_failed(), node_cordoned())))).entries
    await lab.pass_time(0.6)
    await lab.store.commit(Commit(emit=(node_failed(),)))
    shown = await lab.store.outbox(older_than_s=0.5)
    assert [entry.id for entry in shown] == [entry.id for entry in old]
    assert all(0.5 <= entry.age_s < 60 for entry in shown)
    assert await lab.store.outbox(older_than_s=0.5, before_id=old[0].id) == []
    assert [entry.id for entry in await lab.store.outbox(older_than_s=0.5, before_id=old[1].id)] == [old[0].id]


# Short of memory


@pytest.fixture(params=["memory", "redis"])
async def own_lab(request: pytest.FixtureRequest, unique: str) -> AsyncIterator[StoreLab]:
    """Around a server that others may not be using meanwhile."""
    made: StoreLab = MemoryLab()
    if request.param == "redis":
        made = RedisLab(request.getfixturevalue("killable_servers").redis.url, unique)
    try:
        yield made
    finally:
        await made.close()


async def test_a_store_out_of_memory_refuses_to_write_goes_on_answering_and_recovers(own_lab: StoreLab) -> None:
    """It is unavailable for whoever writes, which every caller survives; nothing is half written and nothing evicted."""
    store = own_lab.store
    await store.commit(Commit(put=put(node_record("training-1")), emit=(node_failed("training-1"),)))
    await store.write_beats([beat("training-1", 5)])
    lease = await take(store, "a")
    async with own_lab.full():
        commit = Commit(put=a_fleet(), delete=(ONE,), emit=(node_failed("n-1"),), spend=(Spend("launches", "r", 1),))
        for writes in (
            store.commit(commit),
            store.commit(Commit(delete=(ONE,))),
            store.acquire("provisioner/other", "a", HOUR),
            store.renew(lease, HOUR),
            store.write_beats([beat("training-1", 9)]),
        ):
            with pytest.raises(StoreUnavailable, match="command not allowed"):
                await writes
        assert [one.key for one in await store.records(NODE)] == [ONE]
        assert await store.beats(["training-1"]) == [beat("training-1", 5)]
        assert await store.holders("launches") == []
        (entry,) = await store.outbox()
        await store.outbox_done([entry.id])  # what makes room is allowed
        await store.release(lease)
    await store.commit(commit)
    assert len(await store.records(NODE)) == 1000
    assert await store.outbox_length() == 1


# The server


async def test_time_is_the_servers_and_moves_on(lab: StoreLab) -> None:
    before = await lab.store.now()
    await lab.pass_time(0.02)
    after = await lab.store.now()
    assert timedelta(seconds=0.02) <= after - before < timedelta(seconds=30)
    assert before.utcoffset() == timedelta(0)


async def test_a_server_set_up_as_recommended_draws_no_remark(store: StateStore) -> None:
    assert await store.check() == []


# Redis alone: what it survives


@pytest.fixture
async def redis_lab(killable_servers: Servers, unique: str) -> AsyncIterator[RedisLab]:
    lab = RedisLab(killable_servers.redis.url, unique)
    try:
        yield lab
    finally:
        await lab.close()


@pytest.mark.integration
async def test_a_killed_and_restarted_server_has_all_that_was_committed(
    redis_lab: RedisLab, killable_servers: Servers
) -> None:
    store = redis_lab.store
    await store.commit(Commit(put={META.key(): meta("first")}))
    store.bind("first")
    lease = await take(store, "a")
    revisions = [
        (
            await store.commit(
                Commit(
                    put={NODE.key(f"training-{number}"): node_record(f"training-{number}")},
                    emit=(node_failed(f"training-{number}"),),
                    spend=(Spend("launches", f"r-{number}", 100),),
                    lease=lease,
                )
            )
        ).revision
        for number in range(50)
    ]
    await store.write_beats([beat("training-1", 5)])
    await asyncio.to_thread(killable_servers.redis.kill)
    await asyncio.to_thread(killable_servers.redis.start)
    found = {one.record.node: one.revision for one in await store.records(NODE, "training")}
    assert found == {f"training-{number}": revision for number, revision in enumerate(revisions)}
    assert len(await store.outbox()) == len(await store.holders("launches")) == 50
    assert await store.beats(["training-1"]) == [beat("training-1", 5)]
    after = await store.commit(Commit(put=put(node_record("training-1")), lease=lease))
    assert after.revision > revisions[-1]


@pytest.mark.integration
async def test_a_server_that_is_gone_is_unavailable_and_used_again_once_it_is_back(
    redis_lab: RedisLab, killable_servers: Servers
) -> None:
    store = redis_lab.store
    await store.commit(Commit(put=put(node_record())))
    await asyncio.to_thread(killable_servers.redis.kill)
    for call in (
        store.commit(Commit(put=put(node_record()))),
        store.get(ONE),
        store.records(NODE),
        store.acquire("provisioner/training", "a", HOUR),
        store.overdue(AT),
        store.outbox(),
        store.write_beats([beat("training-1", 5)]),
        store.check(),
    ):
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1"):
            await call
    await asyncio.to_thread(killable_servers.redis.start)
    await store.commit(Commit(expect={ONE: await revision_of(store, ONE)}, put=put(node_record())))


@pytest.mark.integration
async def test_a_hung_server_is_unavailable_before_long(killable_servers: Servers, unique: str) -> None:
    store = RedisStore(killable_servers.redis.url, cluster=unique, timeout_s=0.3)
    await store.commit(Commit(put=put(node_record())))
    killable_servers.redis.pause()
    try:
        async with asyncio.timeout(2):
            with pytest.raises(StoreUnavailable):
                await store.get(ONE)
            with pytest.raises(StoreUnavailable):
                await store.commit(Commit(put=put(node_record())))
    finally:
        killable_servers.redis.resume()
    assert await store.get(ONE) is not None
    await store.close()


async def test_a_thousand_callers_share_a_few_connections(lab: StoreLab) -> None:
    await lab.store.commit(Commit(put=put(node_record())))
    found = await asyncio.gather(*(lab.store.get(ONE) for _ in range(1000)))
    assert None not in found


async def test_calls_that_are_cancelled_leave_no_reply_for_the_next(lab: StoreLab) -> None:
    await lab.store.commit(Commit(put=put(node_record("training-1"), node_record("training-2"))))
    for number in range(100):
        task = asyncio.create_task(lab.store.get(ONE), name="cancelled")
        for _ in range(number % 7):
            await asyncio.sleep(0)
        task.cancel()
        stored = await lab.store.get(TWO)
        assert stored is not None
        assert stored.record.node == "training-2"
        await asyncio.gather(task, return_exceptions=True)


async def test_every_key_of_a_cluster_carries_its_hash_tag(redis_url: str, unique: str) -> None:
    lab = RedisLab(redis_url, unique)
    lease = await take(lab.store, "a")
    commit = Commit(put=put(node_record()), emit=(node_failed(),), spend=(Spend("b", "h", 1),), lease=lease)
    await lab.store.commit(commit)
    await lab.store.write_beats([beat("training-1", 5)])
    tagged = [key async for key in lab.raw.scan_iter(match=f"*{unique}*")]
    assert len(tagged) == 9
    assert all(key.startswith(b"navarch:{%s}:" % unique.encode()) for key in tagged)
    assert {await lab.raw.ttl(key) for key in tagged} == {-1}
    await lab.close()


async def test_a_time_to_live_that_a_stranger_gave_a_record_is_gone_with_the_next_write(
    redis_url: str, unique: str
) -> None:
    """SET drops it, and nothing of ours ever has one: a record that could vanish by itself would be a lost machine."""
    lab = RedisLab(redis_url, unique)
    await lab.store.commit(Commit(put=put(node_record())))
    await lab.raw.expire(lab.names.record(ONE.path), 3600)
    await lab.store.commit(Commit(put=put(node_record(phase=Phase.DRAINING))))
    assert await lab.raw.ttl(lab.names.record(ONE.path)) == -1
    await lab.close()


async def test_a_server_that_forgot_our_scripts_is_told_them_again(redis_url: str, unique: str) -> None:
    lab = RedisLab(redis_url, unique)
    await lab.store.commit(Commit(put=put(node_record())))
    await lab.raw.script_flush()
    await lab.store.commit(Commit(put=put(node_record())))
    await lab.store.write_beats([beat("training-1", 5)])
    assert await lab.store.acquire("provisioner/training", "a", HOUR) is not None
    await lab.close()


async def test_a_server_that_may_evict_records_is_refused_at_the_start(redis_lab: RedisLab) -> None:
    await redis_lab.raw.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(StoreError, match="allkeys-lru, which deletes records silently") as caught:
            await redis_lab.store.check()
        assert not isinstance(caught.value, StoreUnavailable), "waiting does not help"
    finally:
        await redis_lab.raw.config_set("maxmemory-policy", "noeviction")


@pytest.mark.parametrize("how", ["demoted", "without its replica"])
async def test_a_server_that_may_not_write_now_is_unavailable_and_used_again(redis_lab: RedisLab, how: str) -> None:
    """As after a failover, where a connection still leads to the old primary: come again, not give up."""
    store, raw = redis_lab.store, redis_lab.raw
    committed = await store.commit(Commit(put=put(node_record()), emit=(node_failed(),)))
    demote = ("REPLICAOF", "127.0.0.1", "9") if how == "demoted" else ("CONFIG", "SET", "min-replicas-to-write", "1")
    restore = ("REPLICAOF", "NO", "ONE") if how == "demoted" else ("CONFIG", "SET", "min-replicas-to-write", "0")
    await raw.execute_command(*demote)
    try:
        for writes in (
            store.commit(Commit(put=put(node_record()))),
            store.acquire("provisioner/training", "a", HOUR),
            store.write_beats([beat("training-1", 5)]),
            store.forget_beats(["training-1"]),
            store.outbox_done([committed.entries[0].id]),
        ):
            with pytest.raises(StoreUnavailable):
                await writes
        assert await revision_of(store, ONE) == committed.revision
    finally:
        await raw.execute_command(*restore)
    await store.commit(Commit(expect={ONE: committed.revision}, put=put(node_record())))
    assert await store.outbox_length() == 1


@pytest.mark.parametrize(
    ("said", "passing"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", True),
        (
            "Error running script (call to f_2): @user_script:9: @user_script: 9: -OOM command not allowed when used",
            True,
        ),
        ("Error running script (call to f_2): @user_script:19: -READONLY You can't write against a replica.", True),
        ("LOADING Redis is loading the dataset in memory", True),
        ("Command # 1 (HDEL x) of pipeline caused error: ('NOREPLICAS Not enough good replicas to write.',)", True),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", False),
        ("ERR unknown command 'BUSYWORK', with args beginning with: 'OOM'", False),
        ("NOPERM this user has no permissions to run the 'evalsha' command", False),
    ],
)
def test_a_server_that_cannot_now_is_told_from_one_that_never_will(said: str, *, passing: bool) -> None:
    assert is_passing(ResponseError(said)) is passing


@pytest.mark.integration
async def test_a_server_restored_from_an_older_copy_of_its_files_lacks_the_rest_and_counts_on(
    tmp_path: Path, unique: str
) -> None:
    """What a mirror of epoch and commit counter is for: the store itself cannot know."""
    server = make_redis(tmp_path / "redis")
    if not server.killable or not isinstance(server, ProcessServer):
        pytest.skip("needs the files of a server of our own")
    await asyncio.to_thread(server.start)
    lab = RedisLab(server.url, unique)
    try:
        kept = await lab.store.commit(Commit(put={META.key(): meta("first"), ONE: node_record()}))
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(shutil.copytree, tmp_path / "redis", tmp_path / "backup")
        await asyncio.to_thread(server.start)
        lost = await lab.store.commit(Commit(put=put(node_record("training-2")), emit=(node_failed(),)))
        lease = await take(lab.store, "a")
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(shutil.rmtree, tmp_path / "redis")
        await asyncio.to_thread(shutil.copytree, tmp_path / "backup", tmp_path / "redis")
        await asyncio.to_thread(server.start)
        lab.store.bind("first")
        assert [(one.key, one.revision) for one in await lab.store.records(NODE)] == [(ONE, kept.revision)]
        assert await lab.store.outbox_length() == 0
        with pytest.raises(Fenced):
            await lab.store.commit(Commit(lease=lease, put=put(node_record())))
        after = await lab.store.commit(Commit(expect={ONE: kept.revision}, put=put(node_record())))
        assert after.revision > lost.revision
        assert (await take(lab.store, "b")).fence > lease.fence
    finally:
        await lab.close()
        await asyncio.to_thread(server.kill)


async def test_a_url_that_nothing_can_use_is_refused_without_its_password() -> None:
    for url in ("http://u:secret@host", "redis+sentinel://u:secret@host", "redis+sentinel://u:secret@host:x/name"):
        with pytest.raises(StoreError) as caught:
            RedisStore(url)
        assert "secret" not in str(caught.value)


@pytest.mark.integration
async def test_behind_a_sentinel_the_master_is_found_and_without_one_nothing_is(
    redis_lab: RedisLab, tmp_path: Path
) -> None:
    binary = redis_binary()
    if binary is None:
        pytest.skip("no Redis-compatible binary that could run as a Sentinel")
    port = redis_lab.url.rpartition(":")[2]
    config = tmp_path / "sentinel.conf"
    config.write_text(f"sentinel monitor main 127.0.0.1 {port} 1\n")
    command = [binary, str(config), "--sentinel", "--port", "{port}", "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    sentinel = ProcessServer("sentinel", "redis+sentinel", command, tmp_path, b"+PONG")
    await asyncio.to_thread(sentinel.start)
    store = redis_lab.connection(f"{sentinel.url}/main")
    try:
        committed = await store.commit(Commit(put=put(node_record())))
        assert await revision_of(redis_lab.store, ONE) == committed.revision
    finally:
        await asyncio.to_thread(sentinel.stop)
    with pytest.raises(StoreUnavailable):
        await redis_lab.connection(f"{sentinel.url}/main").get(ONE)


async def test_a_call_that_is_cancelled_at_any_turn_of_its_way_ends_cancelled(redis_url: str, unique: str) -> None:
    swallowed = []
    for turns in range(1, 25):
        store = RedisStore(redis_url, cluster=unique)
        call = asyncio.create_task(store.outbox_length())
        for _ in range(turns):
            await asyncio.sleep(0)
        if not call.done():
            call.cancel()
            await asyncio.wait({call})
            if not call.cancelled():
                swallowed.append(turns)
        await store.close()
    assert not swallowed
