"""Whatever arrives where a message is expected, it is a message or one named error."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navarch_common.events import kinds
from navarch_common.events.codec import BadMessage, decode, decode_event, decode_queue_depth
from navarch_common.events.messages import MESSAGE_BYTES_MAX, MESSAGES, Heartbeat
from support import golden

EVERY_MESSAGE = pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
EVERY_EVENT = pytest.mark.parametrize("kind", kinds.ALL, ids=lambda kind: kind.__name__)
HOSTILE = {
    "nothing": b"",
    "no text": b"\xff\xfe\x00",
    "half a character": b'{"type": "\xc3',
    "half a pair": b'{"type": "\\ud800"}',
    "a hundred thousand arrays": b"[" * 100_000,
    "as many, ended": b"[" * 30_000 + b"]" * 30_000,
    "a hundred thousand objects": b'{"a":' * 100_000,
    "null": b"null",
    "a number beyond any": b"1e999",
    "digits without end": b"9" * 60_000,
    "not a number": b"NaN",
    "two documents": b"{}{}",
    "an unknown type": b'{"type": "no.such.v9"}',
    "a type that is none": b'{"type": 7}',
    "the same key twice": b'{"type": "heartbeat.v1", "type": "heartbeat.v1"}',
}


def sample(kind: type[msgspec.Struct]) -> dict[str, Any]:
    made: dict[str, Any] = golden.golden(kind)["sample"]
    return made


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
@EVERY_MESSAGE
def test_a_hostile_message_is_one_named_error(kind: type[msgspec.Struct], data: bytes) -> None:
    with pytest.raises(BadMessage):
        decode(data, kind)


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_event_or_depth_is_one_named_error(data: bytes) -> None:
    with pytest.raises(BadMessage):
        decode_event(data)
    with pytest.raises(BadMessage):
        decode_queue_depth(data)


@EVERY_MESSAGE
def test_what_is_too_large_is_refused_before_anyone_looks_at_it(kind: type[msgspec.Struct]) -> None:
    """A million readings that are well-formed would hold up everything else while they are decoded."""
    padded = json.dumps(sample(kind)).encode() + b" " * MESSAGE_BYTES_MAX
    with pytest.raises(BadMessage, match="bytes, more than the 65536 allowed"):
        decode(padded, kind)


def test_an_event_that_is_too_large_is_refused_before_anyone_looks_at_it() -> None:
    with pytest.raises(BadMessage, match="bytes, more than"):
        decode_event(json.dumps(sample(kinds.NodeFailed)).encode() + b" " * (1 << 20))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in leaves(inner, (*path, key))]
    if isinstance(value, list):
        return [leaf for number, inner in enumerate(value) for leaf in leaves(inner, (*path, number))]
    return [(path, value)]


def with_leaf(value: Any, path: tuple[Any, ...], leaf: Any) -> Any:
    if not path:
        return leaf
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = with_leaf(value[path[0]], path[1:], leaf)
    return copied


@EVERY_MESSAGE
def test_every_number_of_a_message_has_bounds(kind: type[msgspec.Struct]) -> None:
    """Beyond them it is refused: no NaN ever compares, no sequence ever overflows what counts it."""
    for path, value in leaves(sample(kind)):
        if isinstance(value, bool) or not isinstance(value, int | float) or "metrics" in path:
            continue
        for beyond in ("NaN", "Infinity", "-1e400", "1e400", "9223372036854775808", "-9223372036854775809", "-1e12"):
            text = json.dumps(with_leaf(sample(kind), path, "@@")).replace('"@@"', beyond)
            with pytest.raises(BadMessage):
                decode(text.encode(), kind)


@EVERY_MESSAGE
def test_every_text_of_a_message_has_an_end(kind: type[msgspec.Struct]) -> None:
    for path, value in leaves(sample(kind)):
        if isinstance(value, str):
            with pytest.raises(BadMessage):
                decode(json.dumps(with_leaf(sample(kind), path, "x" * 5000)).encode(), kind)


@pytest.mark.parametrize("node", ["*", ">", "a.b", "é", "n\n", "N", "n" * 64, "", "-n", "n-", " n", "n\x00", "../n"])
def test_a_message_about_no_node_is_refused(node: str) -> None:
    with pytest.raises(BadMessage, match="node"):
        decode(json.dumps(sample(Heartbeat) | {"node": node}).encode(), Heartbeat)


def test_a_list_has_an_end() -> None:
    readings = [{"index": 0}] * 65
    with pytest.raises(BadMessage, match="gpus"):
        decode(json.dumps(sample(Heartbeat) | {"gpus": readings}).encode(), Heartbeat)


@EVERY_EVENT
def test_an_event_of_a_later_release_is_read_and_of_a_later_kind_is_refused(kind: type[msgspec.Struct]) -> None:
    later = sample(kind) | {"a_field_of_a_later_release": {"deep": [1, 2, 3]}}
    assert type(decode_event(json.dumps(later).encode())) is kind
    with pytest.raises(BadMessage):
        decode_event(json.dumps(later | {"type": f"{later['type']}9"}).encode())


def refusal(read: Callable[[bytes], object], data: bytes) -> str:
    """What is said of bytes that are no message; empty where they are one. Any other error is the test's."""
    try:
        read(data)
    except BadMessage as error:
        return str(error)
    return ""


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200))
def test_no_bytes_make_anything_else(data: bytes) -> None:
    for read in (decode_event, decode_queue_depth, partial(decode, as_type=Heartbeat)):
        assert len(refusal(read, data)) < 1000


@settings(max_examples=300, deadline=None)
@given(number=st.integers(min_value=0, max_value=len(MESSAGES) - 1), data=st.data())
def test_no_change_of_a_good_message_makes_anything_else(number: int, data: st.DataObject) -> None:
    kind = MESSAGES[number]
    changed = bytearray(json.dumps(sample(kind)).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    assert len(refusal(partial(decode, as_type=kind), bytes(changed))) < 1000
