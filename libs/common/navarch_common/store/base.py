"""Shared state: records under versions, changed by one kind of commit that applies all or nothing.

What it promises, and every adapter keeps (`tests/contract/test_store.py`):

- A commit checks the incarnation, the fence and every expected revision; takes every budget holder; then writes all
  records with their index entries, appends all events to the outbox and counts itself, or does none of it.
- The count of commits only rises while the store lives: one that is smaller than what was seen before was rolled back,
  and a connection that has seen more is refused (`RolledBack`).
- A revision is max(previous + 1, server time in microseconds): it rises over deletes and rollbacks. All records of one
  commit get the same revision. A fence is max(previous + 1, server time in milliseconds).
- `Conflict` means: read again, decide again; it may be one's own commit whose reply was lost. `Fenced` means: stop,
  someone else holds the pool, and acknowledge nothing. `StoreUnavailable` means unknown: it may have been applied.
- No lease has a TTL, no record has one, and the outbox is never trimmed but after the PubAck.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol

from navarch_common.errors import NavarchError
from navarch_common.events.base import Event
from navarch_common.model.base import AnyKey, Family, Key, R, Record
from navarch_common.model.cluster import MetaRecord

ABSENT = 0
"""The revision of a record that is not there."""


class StoreError(NavarchError):
    """The root of the store's errors."""


class StoreUnavailable(StoreError):
    """No answer, or a broken one. A commit may or may not have been applied: read before deciding again."""


class Conflict(StoreError):
    """A record is not at the expected revision. Nothing was written."""

    def __init__(self, key: str, expected: int, found: int) -> None:
        super().__init__(f"{key} is at revision {found}, expected {expected}")
        self.key, self.expected, self.found = key, expected, found


class Fenced(StoreError):
    """Another copy holds the lease. Nothing was written. Stop working on the pool and acknowledge nothing."""


class WrongIncarnation(StoreError):
    """The store is not the one that this process started with. Nothing was written."""


class RolledBack(WrongIncarnation):
    """The store has forgotten commits that this process knows of. Nothing was written."""


class NewerSchema(StoreError):
    """A later release wrote the record; this one must not overwrite it. Nothing was written."""


class BadRecord(StoreError, ValueError):
    """A stored record that cannot be decoded; or one offered that its own type refuses. Nothing was written."""


class BudgetExhausted(StoreError):
    """A bucket has no room. Nothing was written."""

    def __init__(self, bucket: str, limit: int, holders: Sequence[str]) -> None:
        super().__init__(f"budget {bucket} is used up: {len(holders)} of {limit} held by {', '.join(holders[:5])}")
        self.bucket, self.limit, self.holders = bucket, limit, tuple(holders)


@dataclass(frozen=True, slots=True)
class Stored(Generic[R]):
    """A record with its revision."""

    key: Key[R]
    record: R
    revision: int


@dataclass(frozen=True, slots=True)
class Spend:
    """Takes a place in a bucket for `holder`; the same holder again takes nothing more.

    With `window` the place frees itself that long after it was taken (a rate); without, it is held until refunded.
    """

    bucket: str
    holder: str
    limit: int
    window: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Refund:
    bucket: str
    holder: str


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on something, as the store gave it. The commit checks the fence: a lease that has expired and
    that nobody took since is still good for it."""

    name: str
    owner: str
    fence: int
    expires_at: datetime
    """By the store's clock."""


@dataclass(frozen=True, slots=True)
class Announced:
    """A copy of a service that said not long ago that it lives."""

    name: str
    """`<service>/<instance>`."""
    data: bytes
    """What it says of itself."""
    expires_at: datetime
    """By the store's clock."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything that becomes true together."""

    expect: Mapping[AnyKey, int] = field(default_factory=dict)
    """Each record that the decision rests on, with the revision that was read; `ABSENT` where none may be there."""
    put: Mapping[AnyKey, Record] = field(default_factory=dict)
    delete: tuple[AnyKey, ...] = ()
    touch: Mapping[AnyKey, Record] = field(default_factory=dict)
    """Markers renewed whatever their revision: written like `put`, expected by nobody here."""
    emit: tuple[Event, ...] = ()
    spend: tuple[Spend, ...] = ()
    refund: tuple[Refund, ...] = ()
    lease: Lease | None = None
    trace: str = ""
    """The traceparent that its events carry in their headers."""
    incarnation: str = ""
    """The incarnation that the decision's records were read in; empty: the one that the connection is bound to."""
    new_life: bool = False
    """Begins a new life of a store that was lost or rolled back: neither incarnation nor count is checked."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Which life the store is in, and how far it has come, read at one moment."""

    meta: Stored[MetaRecord] | None
    commits: int
    """Commits applied so far. 0 where the store is empty, or a release before 0.2 wrote it."""


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """An event that is durable and not yet known to be published."""

    id: str
    """`<rev>-<n>`, the event's id."""
    subject: str
    order: str
    """Entries of one order (a node, a pool) are published one after the other."""
    data: bytes
    """The event, finished."""
    trace: str
    age_s: float


@dataclass(frozen=True, slots=True)
class Committed:
    revision: int
    entries: tuple[OutboxEntry, ...]
    """This commit's own events."""
    waiting_before: int
    """Older entries in the outbox when it was applied."""
    commits: int = 0
    """How many commits the store has seen, this one included."""


@dataclass(frozen=True, slots=True)
class Beat:
    """What the last heartbeat of a node said, and by when the next is due. Hot: batched, never versioned."""

    node: str
    pool: str
    at: datetime
    """When it arrived, by the hearer's clock."""
    due_at: datetime
    """After this the node is silent. The maximum wins."""
    sample: bytes
    """The heartbeat as it came, for readers of utilization and idleness."""


@dataclass(frozen=True, slots=True)
class Since:
    """What is asked about changes: of one family, after one revision, in one pool or in all."""

    family: Family[Any]
    revision: int
    pool: str | None = None


class StateStore(Protocol):
    """One connection to the shared state."""

    @property
    def incarnation(self) -> str:
        """What it is bound to; empty before. Another one than before means: whatever was read before is of another life,
        read whole again."""
        ...

    @property
    def commits_seen(self) -> int:
        """How many commits it is known to have counted, in the incarnation that it is bound to."""
        ...

    def bind(self, incarnation: str, commits: int = 0) -> None:
        """From now on each commit checks that the store is still this incarnation and has counted at least `commits`, and
        as many as any reply told since."""
        ...

    async def standing(self) -> Standing:
        """The meta record with the count of commits. Raises `BadRecord`, `StoreUnavailable`."""
        ...

    async def get(self, key: Key[R]) -> Stored[R] | None:
        """Raises `BadRecord` where the record cannot be decoded."""
        ...

    async def get_many(self, keys: Sequence[AnyKey]) -> list[Stored[Any] | None]:
        """In the order asked for. Not atomic over all keys; `expect` in the commit makes it so."""
        ...

    async def records(self, family: Family[R], pool: str | None = None) -> list[Stored[R]]:
        """All records of a family, or those of one pool, ordered by key. A record that cannot be decoded is left out,
        logged and counted: one bad record stops nobody."""
        ...

    async def changed(self, asked: Sequence[Since]) -> list[list[Stored[Any]]]:
        """For each of `asked`, what was written after its revision. Deleted records do not appear: sweep in full now and
        then. One question to the store, however much is asked."""
        ...

    async def commit(self, commit: Commit) -> Committed:
        """Applies all or nothing. Raises `Conflict`, `Fenced`, `WrongIncarnation`, `NewerSchema`, `BudgetExhausted`
        `BadRecord` (nothing was written), or `StoreUnavailable` (unknown)."""
        ...

    async def holders(self, bucket: str, window: timedelta | None = None) -> list[str]: ...

    async def acquire(self, name: str, owner: str, ttl: timedelta) -> Lease | None:
        """Takes a lease that is free, expired or already this owner's, with a new fence; None while another holds it."""
        ...

    async def renew(self, lease: Lease, ttl: timedelta) -> Lease | None:
        """Extends it; None when it has been lost."""
        ...

    async def release(self, lease: Lease) -> None: ...

    async def leases(self, prefix: str = "") -> list[Lease]:
        """Those that have not expired, for people to see who holds what."""
        ...

    async def announce(self, name: str, data: bytes, ttl: timedelta) -> None:
        """This copy lives, for `ttl` from now by the server's clock. Hot: no version, no incarnation. What expired is
        forgotten on the way."""
        ...

    async def announced(self, prefix: str = "") -> list[Announced]:
        """Those that have not expired, ordered by name."""
        ...

    async def withdraw(self, name: str) -> None:
        """The copy is no more. Harmless twice."""
        ...

    async def write_beats(self, beats: Iterable[Beat]) -> None:
        """One batch. For each node the later `due_at` wins."""
        ...

    async def beats(self, nodes: Sequence[str]) -> list[Beat | None]: ...

    async def overdue(self, before: datetime, limit: int = 1000) -> list[tuple[str, datetime]]:
        """Nodes whose beat was due before `before`, with when it was due, longest overdue first."""
        ...

    async def forget_beats(self, nodes: Sequence[str]) -> None: ...

    async def outbox(
        self, *, older_than_s: float = 0.0, after_id: str = "", before_id: str = "", limit: int = 1000
    ) -> list[OutboxEntry]:
        """Waiting entries in id order, the first `limit` of them; `after_id` and `before_id` not included."""
        ...

    async def outbox_done(self, ids: Sequence[str]) -> None: ...

    async def outbox_length(self) -> int: ...

    async def now(self) -> datetime:
        """The server's time."""
        ...

    async def check(self) -> list[str]:
        """A sentence for each server setting that is weaker than recommended. Raises `StoreError` where it would lose
        records silently (an eviction policy)."""
        ...

    async def close(self) -> None: ...
