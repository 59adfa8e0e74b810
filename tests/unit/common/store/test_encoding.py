"""Events around their gaps, and values as they are stored."""

from datetime import UTC, datetime, timedelta

import pytest

from fixtures.records import node_failed, node_record, pool_resized
from navarch_common.events.base import Event
from navarch_common.events.codec import encode, finish
from navarch_common.events.kinds import ConfigApplied, OperatorAction
from navarch_common.events.subjects import Subjects
from navarch_common.ids import InvalidId
from navarch_common.model.node import NODE
from navarch_common.store.base import BadRecord, Commit
from navarch_common.store.encoding import (
    draft,
    encode_write,
    entry_id,
    from_us,
    join_value,
    prepare,
    split_value,
    to_us,
)

NASTY = 'id "id":"9007199254740991-0" and "rev":9007199254740991, \\ \n é'


@pytest.mark.parametrize(
    "event",
    [
        node_failed(),
        node_failed(reason=NASTY),
        pool_resized(),
        ConfigApplied(at=node_failed().at, cluster="c", reason=NASTY, code="x", actor='operator:"rev":1'),
    ],
    ids=lambda event: event.KIND,
)
@pytest.mark.parametrize("ordinal", [0, 12])
def test_an_event_filled_in_by_the_store_is_the_event_finished(event: Event, ordinal: int) -> None:
    entry = draft(event, Subjects(), "").entry(1_767_225_600_000_001, ordinal)
    assert entry.data == encode(finish(event, 1_767_225_600_000_001, ordinal))
    assert entry.id == f"1767225600000001-{ordinal}"


def test_an_event_without_a_node_goes_by_its_pool_and_one_without_either_by_all() -> None:
    assert draft(pool_resized("p"), Subjects(), "").order == "pool/p"
    applied = OperatorAction(
        at=node_failed().at, cluster="c", reason="r", code="x", actor="operator:ann", action="freeze"
    )
    drafted = draft(applied, Subjects(prefix="other"), "")
    assert (drafted.order, drafted.subject) == ("pool/_all", "other.events.operator.freeze._all")


def test_an_event_about_no_valid_node_reaches_no_subject() -> None:
    with pytest.raises(InvalidId):
        prepare(Commit(emit=(node_failed("n.*"),)), Subjects())


def test_a_stored_value_comes_apart_as_it_was_put_together() -> None:
    write = encode_write(NODE.key("training-1"), node_record())
    value = split_value(join_value(1_767_225_600_000_001, write.body))
    assert (value.revision, value.schema, value.pool) == (1_767_225_600_000_001, 1, "training")
    assert NODE.decode(value.data) == node_record()


@pytest.mark.parametrize("value", [b"", b"12", b"x 1 - {}", b"1 x - {}", b"1 1 {}", b"1 1 \xff {}"])
def test_a_value_that_no_store_wrote_is_a_bad_record(value: bytes) -> None:
    with pytest.raises(BadRecord, match="stored value"):
        split_value(value)


@pytest.mark.parametrize("id_", ["1767225600000001-3", "0000000000000007-0"])
def test_an_entrys_id_is_two_numbers(id_: str) -> None:
    revision, ordinal = entry_id(id_)
    assert f"{revision:016d}-{ordinal}" == id_


def test_times_keep_their_microseconds() -> None:
    at = datetime(2026, 1, 1, 12, 0, 0, 123_457, tzinfo=UTC)
    assert from_us(to_us(at)) == at
    assert to_us(at + timedelta(microseconds=1)) == to_us(at) + 1
