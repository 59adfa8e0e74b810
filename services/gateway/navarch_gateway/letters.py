"""The stream of dead letters, read: letters, servers' advisories and marks of what was put back become one list. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec
from msgspec import Struct, structs

from navarch_api import types as t
from navarch_common import dead
from navarch_common.bus.base import StoredMessage
from navarch_common.events.subjects import MAX_DELIVERIES, MSG_TERMINATED, Subjects
from navarch_common.ids import is_id
from navarch_common.store.encoding import to_us

TEXT_MAX = 2000
MAX_DELIVERIES_CODE, TERMINATED_CODE = "max-deliveries", "terminated"


class _Advisory(Struct, frozen=True):
    stream: str
    consumer: str
    stream_seq: int
    deliveries: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Letter:
    """One letter with what is needed to put it back."""

    view: t.DeadLetter
    data: bytes = b""
    """Empty where the message itself lies in its own stream, or is gone."""
    headers: Mapping[str, str] | None = None


def letters(messages: Iterable[StoredMessage], subjects: Subjects) -> list[Letter]:
    """Oldest first. A letter that was stored twice is one; an advisory about a letter says nothing new."""
    found: dict[tuple[str, int, str], Letter] = {}
    marks: dict[int, StoredMessage] = {}
    advised: list[Letter] = []
    for message in messages:
        if dead.HEADER_REPLAYED in message.headers:
            marks[_number(message.headers[dead.HEADER_REPLAYED])] = message
        elif message.subject.startswith(subjects.dead("")):
            letter = _letter(message)
            key = (letter.view.stream, letter.view.stream_sequence, message.headers.get("Nats-Msg-Id", ""))
            found.setdefault(key if any(key[1:]) else ("", message.sequence, ""), letter)
        elif (letter_told := _advisory(message)) is not None:
            advised.append(letter_told)
    kept = {(letter.view.stream, letter.view.stream_sequence) for letter in found.values()}
    new = [one for one in advised if (one.view.stream, one.view.stream_sequence) not in kept]
    ordered = sorted((*found.values(), *new), key=lambda letter: letter.view.sequence)
    return [_marked(letter, marks.get(letter.view.sequence)) for letter in ordered]


def may_go_back(subject: str, subjects: Subjects) -> bool:
    """Only to where agents send reports. Anyone may publish a dead letter, and must not choose what we publish where."""
    prefix, _, rest = subject.partition(".reports.")
    node, _, kind = rest.partition(".")
    return prefix == subjects.prefix and is_id(node) and kind in ("health", "lifecycle")


def replay_id(letter: t.DeadLetter) -> str:
    """The same for the same letter, whoever puts it back and how often."""
    return f"replay-{letter.sequence}-{to_us(letter.at)}"


def _letter(message: StoredMessage) -> Letter:
    said = message.headers
    subject = said.get(dead.HEADER_SUBJECT, "")
    tokens = subject.split(".")
    view = t.DeadLetter(
        sequence=message.sequence,
        at=message.stored_at,
        code=said.get(dead.HEADER_CODE, dead.UNDECODABLE),
        error=said.get(dead.HEADER_ERROR, ""),
        stream=said.get(dead.HEADER_STREAM, message.subject.rpartition(".")[2]),
        stream_sequence=_number(said.get(dead.HEADER_SEQUENCE, "")),
        subject=subject,
        msg_id=said.get(dead.HEADER_MSG_ID, ""),
        node=tokens[-2] if len(tokens) > 2 and is_id(tokens[-2]) else "",
        by=said.get(dead.HEADER_BY, ""),
        deliveries=_number(said.get(dead.HEADER_DELIVERIES, "")),
        stored_at=_time(said.get(dead.HEADER_STORED_AT, "")),
        size_bytes=len(message.data),
        text=message.data[: 4 * TEXT_MAX].decode("utf-8", "replace")[:TEXT_MAX],
    )
    trace = said.get("traceparent", "")
    return Letter(view, message.data, {"traceparent": trace} if trace else None)


def _advisory(message: StoredMessage) -> Letter | None:
    what = message.subject.split(".")[-3:-2]
    code = {MAX_DELIVERIES: MAX_DELIVERIES_CODE, MSG_TERMINATED: TERMINATED_CODE}.get(what[0] if what else "")
    if code is None:
        return None
    try:
        said = msgspec.json.decode(message.data, type=_Advisory)
    except (msgspec.DecodeError, RecursionError):
        return None
    lies = "it lies in its stream and is delivered no more" if code == MAX_DELIVERIES_CODE else "it is gone"
    view = t.DeadLetter(
        sequence=message.sequence,
        at=message.stored_at,
        code=code,
        error=f"{said.reason}: {lies}" if said.reason else lies,
        stream=said.stream,
        stream_sequence=said.stream_seq,
        by=f"consumer {said.consumer}",
        deliveries=said.deliveries,
    )
    return Letter(view)


def _marked(letter: Letter, mark: StoredMessage | None) -> Letter:
    if mark is None:
        return letter
    by = mark.headers.get(dead.HEADER_BY, "")
    return Letter(structs.replace(letter.view, replayed_at=mark.stored_at, replayed_by=by), letter.data, letter.headers)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 16 else 0


def _time(text: str) -> datetime | None:
    try:
        return msgspec.convert(text, datetime, strict=False) if text else None
    except msgspec.ValidationError:
        return None
