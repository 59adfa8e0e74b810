"""How records and events become bytes, the same for every adapter.

A record is stored as `<revision> <schema> <pool> <json>`: a commit can check the revision and the schema, and find the
record's index by pool, without reading JSON. An event's id and revision are known only once its commit is applied, so
it is encoded around two gaps that the store fills.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain

import msgspec
from msgspec import structs

from navarch_common.events.audit import Audit
from navarch_common.events.base import POOL_NONE, Event
from navarch_common.events.codec import BadMessage, decode_event, encode, event_id, finish
from navarch_common.events.subjects import Subjects
from navarch_common.model.base import AnyKey, Key, R, Record
from navarch_common.model.cluster import META, MetaRecord
from navarch_common.store.base import BadRecord, Commit, Lease, OutboxEntry, Stored

RECORD_BYTES_MAX = 4 << 20
EVENT_BYTES_MAX = 1_000_000
"""The events' stream takes messages of 1 MiB, headers included."""

_POOL_NONE = b"-"
_PATH = re.compile(r"\A[!-~]{1,512}\Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_GAP = 2**53 - 1
"""Stands for the revision while an event is encoded: the largest one, which no store ever reaches."""


def to_us(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


@dataclass(frozen=True, slots=True)
class Value:
    """A record as it is stored."""

    revision: int
    schema: int
    pool: str
    data: bytes


def split_value(stored: bytes) -> Value:
    """Raises `BadRecord` on what no store of ours wrote."""
    try:
        revision, schema, pool, data = stored.split(b" ", 3)
        return Value(int(revision), int(schema), "" if pool == _POOL_NONE else pool.decode(), data)
    except ValueError as error:
        raise BadRecord(f"a stored value starts with {stored[:40]!r}, not with revision, schema and pool") from error


def join_value(revision: int, body: bytes) -> bytes:
    return b"%016d %s" % (revision, body)


def decode_stored(key: Key[R], stored: bytes) -> Stored[R]:
    """Raises `BadRecord`."""
    value = split_value(stored)
    try:
        record = key.family.decode(value.data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRecord(f"{key} at revision {value.revision} is no {key.family.record.__name__}: {error}") from error
    return Stored(key, record, value.revision)


@dataclass(frozen=True, slots=True)
class Write:
    """A record about to be written."""

    key: AnyKey
    schema: int
    pool: str
    body: bytes
    """All of the stored value but the revision: `<schema> <pool> <json>`."""


@dataclass(frozen=True, slots=True)
class Draft:
    """An event that lacks only its revision."""

    subject: str
    order: str
    trace: str
    head: bytes
    middle: bytes
    tail: bytes

    def entry(self, revision: int, ordinal: int) -> OutboxEntry:
        id_ = event_id(revision, ordinal)
        data = b"%s%s%s%d%s" % (self.head, id_.encode(), self.middle, revision, self.tail)
        return OutboxEntry(id_, self.subject, self.order, data, self.trace, 0.0)


@dataclass(frozen=True, slots=True)
class Bound:
    """What a connection knows of the store: its incarnation, and a count of commits that it has reached."""

    incarnation: str = ""
    commits: int = 0

    def bind(self, incarnation: str, commits: int) -> "Bound":
        """The count rises within one incarnation, and begins anew with another."""
        seen = self.commits if incarnation == self.incarnation else 0
        return Bound(incarnation, max(seen, commits))

    def for_commit(self, commit: Commit) -> "Bound":
        """What this commit is checked against."""
        if commit.new_life:
            return Bound()
        if commit.incarnation in ("", self.incarnation):
            return self
        return Bound(commit.incarnation)

    def after(self, sent: "Bound", commits: int) -> "Bound":
        """After a reply to what was sent as `sent`; one that came late says nothing of another life."""
        if not self.incarnation or sent.incarnation != self.incarnation:
            return self
        return Bound(self.incarnation, max(self.commits, commits))

    def other_text(self, found: str) -> str:
        return f"the store is incarnation {found or 'none'}, not {self.incarnation}"

    def rolled_back_text(self, found: int) -> str:
        return f"the store has seen {found} commits; {self.commits} are known of: it was rolled back"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A commit that has been checked and encoded."""

    commit: Commit
    writes: tuple[Write, ...]
    drafts: tuple[Draft, ...]
    incarnation: str
    """The store's incarnation once this is applied; empty where it stays as it is."""


def prepare(commit: Commit, subjects: Subjects) -> Prepared:
    """Checks what a caller got wrong before anything leaves the process. Raises `BadRecord`, `ValueError`."""
    written = [*commit.put, *commit.touch, *commit.delete]
    for key in chain(written, commit.expect):
        if not _PATH.match(key.path):
            raise ValueError(f"key {key.path!r:.100} is not 1 to 512 printable characters without spaces")
    if len({key.path for key in written}) < len(written):
        raise ValueError(f"a commit writes the same key twice: {sorted(key.path for key in written)}")
    meta = commit.put.get(META.key())
    return Prepared(
        commit,
        tuple(encode_write(key, record) for key, record in chain(commit.put.items(), commit.touch.items())),
        tuple(draft(event, subjects, commit.trace) for event in commit.emit),
        meta.incarnation if isinstance(meta, MetaRecord) else "",
    )


def encode_write(key: AnyKey, record: Record) -> Write:
    """Encodes and decodes, since only decoding checks bounds: what cannot be read must not be written."""
    family = key.family
    if type(record) is not family.record:
        raise BadRecord(f"{key} takes a {family.record.__name__}, not a {type(record).__name__}")
    data = family.encode(record)
    if len(data) > RECORD_BYTES_MAX:
        raise BadRecord(f"{key} is {len(data)} bytes, more than the {RECORD_BYTES_MAX} allowed")
    try:
        family.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRecord(f"{key} could not be read back: {error}") from error
    pool = family.pool_of(record) if family.pool_of else ""
    if " " in pool:
        raise BadRecord(f"{key} has the pool {pool!r:.100}, which is no pool's id")
    return Write(key, family.schema, pool, b"%d %s %s" % (family.schema, pool.encode() or _POOL_NONE, data))


def draft(event: Event, subjects: Subjects, trace: str) -> Draft:
    """Encodes an event around its id and revision, which come right after its type and right after its actor.

    Between these two all fields are strings, in which JSON escapes the quotes, so the first match is the field itself.
    """
    if not event.trace_id and trace.count("-") == 3:
        event = structs.replace(event, trace_id=trace.split("-")[1])
    data = encode(finish(event, _GAP, 0))
    if len(data) > EVENT_BYTES_MAX:
        raise BadRecord(f"{event.KIND} is {len(data)} bytes, more than the {EVENT_BYTES_MAX} allowed")
    try:
        decode_event(data)
    except BadMessage as error:
        raise BadRecord(f"{event.KIND} could not be read back: {error}") from error
    head, middle = _cut(data, b'"id":"', event_id(_GAP, 0).encode(), b'"')
    middle, tail = _cut(middle, b'"rev":', b"%d" % _GAP, b"")
    order = f"node/{event.node}" if event.node else f"pool/{event.pool or POOL_NONE}"
    if isinstance(event, Audit):
        order = f"audit/{event.node or event.pool or POOL_NONE}"
    return Draft(subjects.event(event), order, trace, head, middle, tail)


def _cut(data: bytes, before: bytes, gap: bytes, after: bytes) -> tuple[bytes, bytes]:
    head, found, tail = data.partition(before + gap + after)
    assert found, f"no {before!r} in {data[:200]!r}"
    return head + before, after + tail


def pool_of(stored: bytes | None) -> str:
    """The pool under which a stored value is indexed."""
    return "" if stored is None else split_value(stored).pool


def index_of(family: str, pool: str = "") -> str:
    """Names the index of a family, or of those records of it that belong to a pool."""
    return f"{family}@{pool}" if pool else family


def headers_of(entry: OutboxEntry) -> Mapping[str, str] | None:
    return {"traceparent": entry.trace} if entry.trace else None


def entry_id(id_: str) -> tuple[int, int]:
    """`<rev>-<n>` as numbers, which order as the outbox does."""
    revision, _, ordinal = id_.partition("-")
    return int(revision), int(ordinal or 0)


def written_schemas(prepared: Prepared) -> Iterable[tuple[AnyKey, int]]:
    yield from ((write.key, write.schema) for write in prepared.writes)
    yield from ((key, key.family.schema) for key in prepared.commit.delete)


def fenced_text(lease: Lease, holder: str) -> str:
    now_with = f"{holder} holds it" if holder else "nobody holds it"
    return f"the lease {lease.name} of {lease.owner} with fence {lease.fence} is lost: {now_with}"


def newer_text(key: AnyKey, schema: int) -> str:
    return f"{key} has schema {schema}, and this release writes {key.family.schema}: a later release wrote it"
