"""The store in memory: for tests and simulation. As strict as the real one, and it fails when told to.

Records are encoded and decoded, so that nothing is shared with the caller; every call lets other tasks run before it is
applied and again before its reply arrives, as over a network. `MemoryServer` is the shared state, `MemoryStore` one
connection to it with its own incarnation and its own faults. Nothing here is random.
"""

import asyncio
import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any

import structlog

from navarch_common.clock import Clock
from navarch_common.events.subjects import Subjects
from navarch_common.model.base import AnyKey, Family, Key, R
from navarch_common.model.cluster import META
from navarch_common.store.base import (
    ABSENT,
    Announced,
    BadRecord,
    Beat,
    BudgetExhausted,
    Commit,
    Committed,
    Conflict,
    Fenced,
    Lease,
    NewerSchema,
    OutboxEntry,
    RolledBack,
    Since,
    Standing,
    Stored,
    StoreUnavailable,
    WrongIncarnation,
)
from navarch_common.store.encoding import (
    Bound,
    Prepared,
    decode_stored,
    entry_id,
    fenced_text,
    from_us,
    index_of,
    join_value,
    newer_text,
    pool_of,
    prepare,
    split_value,
    to_us,
    written_schemas,
)

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Contents:
    """Everything that a store holds. Copying it is a backup."""

    values: dict[str, bytes] = field(default_factory=dict)
    indexes: dict[str, dict[str, int]] = field(default_factory=dict)
    """Per index the revision of each record, in the order of revisions."""
    buckets: dict[str, dict[str, int]] = field(default_factory=dict)
    """Per bucket when each holder took its place, in microseconds."""
    leases: dict[str, Lease] = field(default_factory=dict)
    copies: dict[str, Announced] = field(default_factory=dict)
    beats: dict[str, Beat] = field(default_factory=dict)
    outbox: dict[str, OutboxEntry] = field(default_factory=dict)
    """In id order, which is the order of insertion."""
    revision: int = 0
    fence: int = 0
    commits: int = 0
    incarnation: str = ""

    def enter(self, index: str, path: str, revision: int) -> None:
        """Lists a record, last: no later revision was given."""
        paths = self.indexes.setdefault(index, {})
        paths.pop(path, None)
        paths[path] = revision


class MemoryServer:
    """The state that connections share: a commit is applied here, in one go."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.contents = Contents()
        self.up = True
        self.full = False
        """Out of memory: refuses what would need more of it, still answers and still deletes."""

    def check_room(self) -> None:
        if self.full:
            raise StoreUnavailable("told to be out of memory: command not allowed")

    def now_us(self) -> int:
        return to_us(self.clock.now())

    def backup(self) -> Contents:
        return copy.deepcopy(self.contents)

    def roll_back(self, backup: Contents) -> None:
        """Forgets all that was written since `backup`, as a failover to a lagging replica does."""
        self.contents = copy.deepcopy(backup)

    def lose_everything(self) -> None:
        self.contents = Contents()

    def apply(self, prepared: Prepared, bound: Bound) -> Committed:
        self._check(prepared, bound)
        contents, commit = self.contents, prepared.commit
        now = self.now_us()
        revision = contents.revision = max(contents.revision + 1, now)
        waiting = len(contents.outbox)
        for write in prepared.writes:
            self._unindex(write.key)
            contents.values[write.key.path] = join_value(revision, write.body)
            for index in _indexes(write.key, write.pool):
                contents.enter(index, write.key.path, revision)
        for key in commit.delete:
            self._unindex(key)
            contents.values.pop(key.path, None)
        for refund in commit.refund:
            contents.buckets.get(refund.bucket, {}).pop(refund.holder, None)
        for spend in commit.spend:
            live = self.live(spend.bucket, spend.window)
            live.setdefault(spend.holder, now)
            contents.buckets[spend.bucket] = live
        entries = tuple(draft.entry(revision, ordinal) for ordinal, draft in enumerate(prepared.drafts))
        contents.outbox.update({entry.id: entry for entry in entries})
        contents.incarnation = prepared.incarnation or contents.incarnation
        contents.commits += 1
        return Committed(revision, entries, waiting, contents.commits)

    def _check(self, prepared: Prepared, bound: Bound) -> None:
        contents, commit = self.contents, prepared.commit
        if bound.incarnation and contents.incarnation != bound.incarnation:
            raise WrongIncarnation(bound.other_text(contents.incarnation))
        if contents.commits < bound.commits:
            raise RolledBack(bound.rolled_back_text(contents.commits))
        if commit.lease is not None:
            held = contents.leases.get(commit.lease.name)
            if held is None or held.fence != commit.lease.fence:
                raise Fenced(fenced_text(commit.lease, held.owner if held else ""))
        for key, expected in commit.expect.items():
            found = self.revision_of(key)
            if found != expected:
                raise Conflict(key.path, expected, found)
        for key, schema in written_schemas(prepared):
            value = contents.values.get(key.path)
            if value is not None and (stored := split_value(value).schema) > schema:
                raise NewerSchema(newer_text(key, stored))
        self._check_budgets(commit)
        self.check_room()

    def _check_budgets(self, commit: Commit) -> None:
        after: dict[str, set[str]] = {}
        for spend in commit.spend:
            if spend.bucket not in after:
                refunded = {refund.holder for refund in commit.refund if refund.bucket == spend.bucket}
                after[spend.bucket] = self.live(spend.bucket, spend.window).keys() - refunded
            taken = after[spend.bucket]
            if spend.holder not in taken and len(taken) >= spend.limit:
                raise BudgetExhausted(spend.bucket, spend.limit, sorted(taken))
            taken.add(spend.holder)

    def revision_of(self, key: AnyKey) -> int:
        value = self.contents.values.get(key.path)
        return ABSENT if value is None else split_value(value).revision

    def live(self, bucket: str, window: timedelta | None) -> dict[str, int]:
        """The holders whose place has not freed itself, with when they took it."""
        since = -1 if window is None else self.now_us() - window // timedelta(microseconds=1)
        return {holder: at for holder, at in self.contents.buckets.get(bucket, {}).items() if at > since}

    def _unindex(self, key: AnyKey) -> None:
        pool = pool_of(self.contents.values.get(key.path))
        for index in _indexes(key, pool):
            self.contents.indexes.get(index, {}).pop(key.path, None)


def _indexes(key: AnyKey, pool: str) -> tuple[str, ...]:
    family = key.family.name
    return (index_of(family), index_of(family, pool)) if pool else (index_of(family),)


class MemoryStore:
    """One connection. `unavailable`, `refuse` and `lose_replies` make it fail; `delay_s` makes it slow."""

    def __init__(
        self,
        clock: Clock,
        *,
        server: MemoryServer | None = None,
        subjects: Subjects | None = None,
        incarnation: str = "",
    ) -> None:
        self.server = server or MemoryServer(clock)
        self.subjects = subjects or Subjects()
        self.bad_records = 0
        """Records left out because they could not be decoded."""
        self.unavailable = False
        self.delay_s: Callable[[], float] = lambda: 0.0
        """Asked before each call and before each reply."""
        self._bound = Bound(incarnation)
        self._refuse = 0
        self._lose_replies = 0
        self._lose_lease_replies = 0
        self._closed = False

    def connection(self) -> "MemoryStore":
        """Another connection to the same state, as another process would have."""
        return MemoryStore(self.server.clock, server=self.server, subjects=self.subjects)

    @property
    def incarnation(self) -> str:
        return self._bound.incarnation

    @property
    def commits_seen(self) -> int:
        return self._bound.commits

    def bind(self, incarnation: str, commits: int = 0) -> None:
        self._bound = self._bound.bind(incarnation, commits)

    async def standing(self) -> Standing:
        await self._travel()
        meta, commits = self.server.contents.values.get(META.key().path), self.server.contents.commits
        await self._travel_back()
        return Standing(None if meta is None else decode_stored(META.key(), meta), commits)

    # What a test or a simulation may do to it

    def refuse(self, commits: int = 1) -> None:
        """The next commits fail before they are applied."""
        self._refuse = commits

    def lose_replies(self, commits: int = 1) -> None:
        """The next commits are applied, and fail all the same: their reply is lost. Those that are refused don't count."""
        self._lose_replies = commits

    def lose_lease_replies(self, calls: int = 1) -> None:
        """The next calls about leases are carried out, and fail all the same."""
        self._lose_lease_replies = calls

    def plant(self, key: AnyKey, value: bytes) -> None:
        """Puts a value as it is, whatever it is, under the family's index: what another release or a vandal wrote."""
        contents = self.server.contents
        contents.values[key.path] = value
        contents.enter(index_of(key.family.name), key.path, contents.revision)

    # Records

    async def get(self, key: Key[R]) -> Stored[R] | None:
        await self._travel()
        value = self.server.contents.values.get(key.path)
        await self._travel_back()
        return None if value is None else self._decoded(key, value)

    async def get_many(self, keys: Sequence[AnyKey]) -> list[Stored[Any] | None]:
        await self._travel()
        values = [self.server.contents.values.get(key.path) for key in keys]
        await self._travel_back()
        return [None if value is None else self._decoded(key, value) for key, value in zip(keys, values, strict=True)]

    async def records(self, family: Family[R], pool: str | None = None) -> list[Stored[R]]:
        await self._travel()
        index = self.server.contents.indexes.get(index_of(family.name, pool or ""), {})
        found = self._decode(family, sorted(index))
        await self._travel_back()
        return found

    async def changed(self, asked: Sequence[Since]) -> list[list[Stored[Any]]]:
        await self._travel()
        found = [self._changed(since) for since in asked]
        await self._travel_back()
        return found

    def _changed(self, since: Since) -> list[Stored[Any]]:
        index = self.server.contents.indexes.get(index_of(since.family.name, since.pool or ""), {})
        newer = takewhile(lambda path: index[path] > since.revision, reversed(index))
        return self._decode(since.family, [path for _, path in sorted((index[path], path) for path in newer)])

    def _decoded(self, key: Key[R], value: bytes) -> Stored[R]:
        """Raises `BadRecord`."""
        return decode_stored(key, value)

    def _decode(self, family: Family[R], paths: Iterable[str]) -> list[Stored[R]]:
        found: list[Stored[R]] = []
        for path in paths:
            try:
                found.append(self._decoded(Key(family, path), self.server.contents.values[path]))
            except BadRecord as error:
                self.bad_records += 1
                log.error("record left out", key=path, error=str(error))
        return found

    async def commit(self, commit: Commit) -> Committed:
        prepared = prepare(commit, self.subjects)
        await self._travel()
        if self._refuse:
            self._refuse -= 1
            raise StoreUnavailable("told to fail before applying")
        bound = self._bound.for_commit(commit)
        committed = self.server.apply(prepared, bound)
        if self._lose_replies:
            self._lose_replies -= 1
            raise StoreUnavailable("told to lose the reply")
        await self._travel_back()
        self._bound = self._bound.after(bound, committed.commits)
        return committed

    async def _lease_answer(self) -> None:
        if self._lose_lease_replies:
            self._lose_lease_replies -= 1
            raise StoreUnavailable("told to lose the reply")
        await self._travel()

    async def holders(self, bucket: str, window: timedelta | None = None) -> list[str]:
        await self._travel()
        return sorted(self.server.live(bucket, window))

    # Leases

    async def acquire(self, name: str, owner: str, ttl: timedelta) -> Lease | None:
        await self._travel()
        contents, now = self.server.contents, self.server.clock.now()
        held = contents.leases.get(name)
        lease = None
        if held is None or held.owner == owner or held.expires_at <= now:
            self.server.check_room()
            contents.fence = max(contents.fence + 1, self.server.now_us() // 1000)
            lease = contents.leases[name] = Lease(name, owner, contents.fence, now + ttl)
        await self._lease_answer()
        return lease

    async def renew(self, lease: Lease, ttl: timedelta) -> Lease | None:
        await self._travel()
        held = self.server.contents.leases.get(lease.name)
        renewed = None
        if held is not None and held.fence == lease.fence:
            self.server.check_room()
            renewed = replace(held, expires_at=self.server.clock.now() + ttl)
            self.server.contents.leases[lease.name] = renewed
        await self._lease_answer()
        return renewed

    async def release(self, lease: Lease) -> None:
        await self._travel()
        held = self.server.contents.leases.get(lease.name)
        if held is not None and held.fence == lease.fence:
            del self.server.contents.leases[lease.name]
        await self._lease_answer()

    async def leases(self, prefix: str = "") -> list[Lease]:
        await self._travel()
        now = self.server.clock.now()
        held = sorted(self.server.contents.leases.items())
        return [lease for name, lease in held if name.startswith(prefix) and lease.expires_at > now]

    # Copies

    async def announce(self, name: str, data: bytes, ttl: timedelta) -> None:
        await self._travel()
        now, copies = self.server.clock.now(), self.server.contents.copies
        copies[name] = Announced(name, bytes(data), now + ttl)
        for dead in [one for one, said in copies.items() if said.expires_at <= now]:
            del copies[dead]
        await self._travel_back()

    async def announced(self, prefix: str = "") -> list[Announced]:
        await self._travel()
        now = self.server.clock.now()
        copies = sorted(self.server.contents.copies.items())
        found = [said for name, said in copies if name.startswith(prefix) and said.expires_at > now]
        await self._travel_back()
        return found

    async def withdraw(self, name: str) -> None:
        await self._travel()
        self.server.contents.copies.pop(name, None)
        await self._travel_back()

    # Beats

    async def write_beats(self, beats: Iterable[Beat]) -> None:
        batch = list(beats)
        await self._travel()
        self.server.check_room()
        known = self.server.contents.beats
        for beat in batch:
            if beat.node not in known or known[beat.node].due_at < beat.due_at:
                known[beat.node] = beat
        await self._travel_back()

    async def beats(self, nodes: Sequence[str]) -> list[Beat | None]:
        await self._travel()
        return [self.server.contents.beats.get(node) for node in nodes]

    async def overdue(self, before: datetime, limit: int = 1000) -> list[tuple[str, datetime]]:
        await self._travel()
        due = [(beat.due_at, node) for node, beat in self.server.contents.beats.items() if beat.due_at < before]
        return [(node, at) for at, node in sorted(due)[:limit]]

    async def forget_beats(self, nodes: Sequence[str]) -> None:
        await self._travel()
        for node in nodes:
            self.server.contents.beats.pop(node, None)
        await self._travel_back()

    # Outbox

    async def outbox(
        self, *, older_than_s: float = 0.0, after_id: str = "", before_id: str = "", limit: int = 1000
    ) -> list[OutboxEntry]:
        await self._travel()
        after = entry_id(after_id) if after_id else (0, -1)
        before = entry_id(before_id) if before_id else (2**63, 0)
        now = self.server.now_us()
        found: list[OutboxEntry] = []
        for id_, entry in self.server.contents.outbox.items():
            age_s = max(0.0, (now - entry_id(id_)[0]) / 1e6)
            if after < entry_id(id_) < before and age_s >= older_than_s:
                found.append(replace(entry, age_s=age_s))
            if len(found) >= limit:
                break
        await self._travel_back()
        return found

    async def outbox_done(self, ids: Sequence[str]) -> None:
        await self._travel()
        for id_ in ids:
            self.server.contents.outbox.pop(id_, None)
        await self._travel_back()

    async def outbox_length(self) -> int:
        await self._travel()
        return len(self.server.contents.outbox)

    # The server

    async def now(self) -> datetime:
        await self._travel()
        return from_us(self.server.now_us())

    async def check(self) -> list[str]:
        await self._travel()
        return []

    async def close(self) -> None:
        self._closed = True

    async def _travel_back(self) -> None:
        """The reply's way."""
        await self._travel()

    async def _travel(self) -> None:
        """Lets others run, as a network would. Raises `StoreUnavailable` when it does not arrive."""
        await asyncio.sleep(self.delay_s())
        if self._closed:
            raise StoreUnavailable("the connection is closed")
        if self.unavailable or not self.server.up:
            raise StoreUnavailable("told to be unavailable")
