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
from typing import Any

import structlog

from navarch_common.clock import Clock
from navarch_common.events.subjects import Subjects
from navarch_common.model.base import AnyKey, Family, Key, R
from navarch_common.store.base import (
    ABSENT,
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
    Stored,
    StoreUnavailable,
    WrongIncarnation,
)
from navarch_common.store.encoding import (
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
    buckets: dict[str, dict[str, int]] = field(default_factory=dict)
    """Per bucket when each holder took its place, in microseconds."""
    leases: dict[str, Lease] = field(default_factory=dict)
    beats: dict[str, Beat] = field(default_factory=dict)
    outbox: dict[str, OutboxEntry] = field(default_factory=dict)
    """In id order, which is the order of insertion."""
    revision: int = 0
    fence: int = 0
    incarnation: str = ""


class MemoryServer:
    """The state that connections share: a commit is applied here, in one go."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.contents = Contents()
        self.up = True

    def now_us(self) -> int:
        return to_us(self.clock.now())

    def backup(self) -> Contents:
        return copy.deepcopy(self.contents)

    def roll_back(self, backup: Contents) -> None:
        """Forgets all that was written since `backup`, as a failover to a lagging replica does."""
        self.contents = copy.deepcopy(backup)

    def lose_everything(self) -> None:
        self.contents = Contents()

    def apply(self, prepared: Prepared, incarnation: str) -> Committed:
        self._check(prepared, incarnation)
        contents, commit = self.contents, prepared.commit
        now = self.now_us()
        revision = contents.revision = max(contents.revision + 1, now)
        waiting = len(contents.outbox)
        for write in prepared.writes:
            self._unindex(write.key)
            contents.values[write.key.path] = join_value(revision, write.body)
            for index in {index_of(write.key.family.name), index_of(write.key.family.name, write.pool)}:
                contents.indexes.setdefault(index, {})[write.key.path] = revision
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
        return Committed(revision, entries, waiting)

    def _check(self, prepared: Prepared, incarnation: str) -> None:
        contents, commit = self.contents, prepared.commit
        if incarnation and contents.incarnation != incarnation:
            raise WrongIncarnation(f"the store is incarnation {contents.incarnation or 'none'}, not {incarnation}")
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
        for index in {index_of(key.family.name), index_of(key.family.name, pool)}:
            self.contents.indexes.get(index, {}).pop(key.path, None)


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
        self._incarnation = incarnation
        self._refuse = 0
        self._lose_replies = 0
        self._closed = False

    def connection(self) -> "MemoryStore":
        """Another connection to the same state, as another process would have."""
        return MemoryStore(self.server.clock, server=self.server, subjects=self.subjects)

    def bind(self, incarnation: str) -> None:
        self._incarnation = incarnation

    # What a test or a simulation may do to it

    def refuse(self, commits: int = 1) -> None:
        """The next commits fail before they are applied."""
        self._refuse = commits

    def lose_replies(self, commits: int = 1) -> None:
        """The next commits are applied, and fail all the same: their reply is lost. Those that are refused don't count."""
        self._lose_replies = commits

    def plant(self, key: AnyKey, value: bytes) -> None:
        """Puts a value as it is, whatever it is, under the family's index: what another release or a vandal wrote."""
        contents = self.server.contents
        contents.values[key.path] = value
        contents.indexes.setdefault(index_of(key.family.name), {})[key.path] = contents.revision

    # Records

    async def get(self, key: Key[R]) -> Stored[R] | None:
        await self._travel()
        value = self.server.contents.values.get(key.path)
        await self._travel()
        return None if value is None else decode_stored(key, value)

    async def get_many(self, keys: Sequence[AnyKey]) -> list[Stored[Any] | None]:
        await self._travel()
        values = [self.server.contents.values.get(key.path) for key in keys]
        await self._travel()
        return [None if value is None else decode_stored(key, value) for key, value in zip(keys, values, strict=True)]

    async def records(self, family: Family[R], pool: str | None = None) -> list[Stored[R]]:
        await self._travel()
        index = self.server.contents.indexes.get(index_of(family.name, pool or ""), {})
        found = self._decode(family, sorted(index))
        await self._travel()
        return found

    async def changed(self, family: Family[R], since: int, pool: str | None = None) -> list[Stored[R]]:
        await self._travel()
        index = self.server.contents.indexes.get(index_of(family.name, pool or ""), {})
        newer = sorted((revision, path) for path, revision in index.items() if revision > since)
        found = self._decode(family, [path for _, path in newer])
        await self._travel()
        return found

    def _decode(self, family: Family[R], paths: Iterable[str]) -> list[Stored[R]]:
        found: list[Stored[R]] = []
        for path in paths:
            try:
                found.append(decode_stored(Key(family, path), self.server.contents.values[path]))
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
        committed = self.server.apply(prepared, self._incarnation)
        if self._lose_replies:
            self._lose_replies -= 1
            raise StoreUnavailable("told to lose the reply")
        await self._travel()
        return committed

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
            contents.fence = max(contents.fence + 1, self.server.now_us() // 1000)
            lease = contents.leases[name] = Lease(name, owner, contents.fence, now + ttl)
        await self._travel()
        return lease

    async def renew(self, lease: Lease, ttl: timedelta) -> Lease | None:
        await self._travel()
        held = self.server.contents.leases.get(lease.name)
        renewed = None
        if held is not None and held.fence == lease.fence:
            renewed = replace(held, expires_at=self.server.clock.now() + ttl)
            self.server.contents.leases[lease.name] = renewed
        await self._travel()
        return renewed

    async def release(self, lease: Lease) -> None:
        await self._travel()
        held = self.server.contents.leases.get(lease.name)
        if held is not None and held.fence == lease.fence:
            del self.server.contents.leases[lease.name]

    async def leases(self, prefix: str = "") -> list[Lease]:
        await self._travel()
        now = self.server.clock.now()
        held = sorted(self.server.contents.leases.items())
        return [lease for name, lease in held if name.startswith(prefix) and lease.expires_at > now]

    # Beats

    async def write_beats(self, beats: Iterable[Beat]) -> None:
        await self._travel()
        known = self.server.contents.beats
        for beat in beats:
            if beat.node not in known or known[beat.node].due_at < beat.due_at:
                known[beat.node] = beat

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
        await self._travel()
        return found

    async def outbox_done(self, ids: Sequence[str]) -> None:
        await self._travel()
        for id_ in ids:
            self.server.contents.outbox.pop(id_, None)

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

    async def _travel(self) -> None:
        """Lets others run, as a network would. Raises `StoreUnavailable` when it does not arrive."""
        await asyncio.sleep(self.delay_s())
        if self._closed:
            raise StoreUnavailable("the connection is closed")
        if self.unavailable or not self.server.up:
            raise StoreUnavailable("told to be unavailable")
