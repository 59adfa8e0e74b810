"""The store in Redis or Valkey, 6.2 or newer.

Everything of a cluster lies under `navarch:{<cluster>}:…`:

    state            hash: revision, fence, incarnation, commits
    record:<path>    one record: `<revision> <schema> <pool> <json>`
    index:<family>[@<pool>]   sorted set of paths by revision: all records of a family, or a pool's
    budget:<bucket>  sorted set of holders by when they took their place
    leases           hash: `<fence> <expires> <owner>` by name
    copies           hash: `<expires> <what it says>` by service and copy
    beats:due, beats:samples  sorted set of deadlines, hash of samples
    outbox           stream of events, its ids the events' ids

A commit is one script (`lua/commit.lua`). Times are the server's. Errors of the connection are `StoreUnavailable`:
what was asked may or may not have been done.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from importlib.resources import files
from typing import Any

import structlog
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError, ResponseError

from navarch_common.cancellation import heeded
from navarch_common.events.codec import event_id
from navarch_common.events.subjects import Subjects
from navarch_common.ids import check_id
from navarch_common.model.base import AnyKey, Family, Key, R
from navarch_common.model.cluster import META
from navarch_common.store.base import (
    Announced,
    BadRecord,
    Beat,
    Commit,
    Committed,
    Lease,
    OutboxEntry,
    Since,
    Standing,
    StateStore,
    Stored,
    StoreError,
    StoreUnavailable,
)
from navarch_common.store.encoding import Bound, decode_stored, entry_id, from_us, prepare, to_us
from navarch_common.store.redis_commit import Names, Pools, commit_call, committed
from navarch_common.store.redis_connect import RedisTls, behind_sentinel, connect, shown
from navarch_common.store.redis_replicas import Replicas
from navarch_common.store.redis_settings import check_settings

log = structlog.get_logger(__name__)

CHUNK = 500
"""Keys in one MGET: a longer one would keep others waiting (100,000 keys: 150 ms)."""
_PASSING = re.compile(
    r"(?:\A|-|\(')(?:BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOREPLICAS|OOM|READONLY|TRYAGAIN|UNKILLABLE)\b"
)
"""Replies that say: not now. The word stands first, or behind what an older server or the client put before it when
the command came from a script or was one of several."""


class RedisStore:
    """One process's connections to the shared state."""

    def __init__(
        self,
        url: str,
        *,
        cluster: str = "default",
        subjects: Subjects | None = None,
        tls: RedisTls | None = None,
        replicas: int | None = None,
        timeout_s: float = 2.0,
        connections_max: int = 32,
    ) -> None:
        """`timeout_s` bounds each answer of the server; a call that waits for a free connection waits as long again.
        `replicas`: how many must have a commit before it counts; None is one behind Sentinels, else none. Raises `StoreError` on a URL that it cannot use."""
        self._names = Names(check_id(cluster, "cluster"))
        self._subjects = subjects or Subjects()
        self._url = shown(url)
        self._timeout_s = timeout_s
        self._redis = connect(url, timeout_s=timeout_s, tls=tls)
        self._replicas = int(behind_sentinel(url)) if replicas is None else replicas
        self._commit = self._redis.register_script(_script("commit"))
        self._replicated = Replicas(self._redis, self._replicas)
        self._lease = self._redis.register_script(_script("lease"))
        self._announce = self._redis.register_script(_script("announce"))
        self._write_beats = self._redis.register_script(_script("beats"))
        self._free = asyncio.Semaphore(connections_max)
        self._bound = Bound()
        self.bad_records = 0
        """Records left out because they could not be decoded."""

    @property
    def incarnation(self) -> str:
        return self._bound.incarnation

    @property
    def commits_seen(self) -> int:
        return self._bound.commits

    def bind(self, incarnation: str, commits: int = 0) -> None:
        self._bound = self._bound.bind(incarnation, commits)

    async def standing(self) -> Standing:
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hget(self._names.state, "commits")
        pipeline.get(self._names.record(META.key().path))
        commits, meta = await self._ask("standing", pipeline.execute)
        return Standing(None if meta is None else decode_stored(META.key(), meta), int(commits or 0))

    # Records

    async def get(self, key: Key[R]) -> Stored[R] | None:
        value = await self._ask("get", self._redis.get, self._names.record(key.path))
        return None if value is None else decode_stored(key, value)

    async def get_many(self, keys: Sequence[AnyKey]) -> list[Stored[Any] | None]:
        values = await self._values([key.path for key in keys])
        return [None if value is None else decode_stored(key, value) for key, value in zip(keys, values, strict=True)]

    async def records(self, family: Family[R], pool: str | None = None) -> list[Stored[R]]:
        [found] = await self.changed([Since(family, 0, pool)])
        return sorted(found, key=lambda stored: stored.key.path)

    async def changed(self, asked: Sequence[Since]) -> list[list[Stored[Any]]]:
        found: list[dict[str, Stored[Any]]] = [{} for _ in asked]
        known = [since.revision for since in asked]
        waiting: Sequence[int] = range(len(asked))
        while waiting:
            named = await self._named(asked, known, waiting)
            values = iter(await self._values([path for paths in named for path, _ in paths]))
            again = []
            for number, paths in zip(waiting, named, strict=True):
                known[number] = max([known[number], *(revision for _, revision in paths)])
                read = self._decoded(asked[number].family, [(path, next(values)) for path, _ in paths])
                found[number].update((stored.key.path, stored) for stored in read)
                # The values were read after the index. Where one is newer than all that it named, something may have been
                # written before that which it did not name, and whoever goes on from the newest would never see it.
                if any(stored.revision > known[number] for stored in read):
                    again.append(number)
            waiting = again
        return [sorted(one.values(), key=lambda stored: (stored.revision, stored.key.path)) for one in found]

    async def _named(
        self, asked: Sequence[Since], known: Sequence[int], which: Iterable[int]
    ) -> list[list[tuple[str, int]]]:
        """By family, what its index names after a revision, each with its own revision."""
        pipeline = self._redis.pipeline(transaction=True)
        for number in which:
            index = self._names.index(asked[number].family.name, asked[number].pool or "")
            pipeline.zrangebyscore(index, f"({known[number]}", "+inf", withscores=True)
        found = await self._ask("changed", pipeline.execute)
        return [[(path.decode(), int(revision)) for path, revision in one] for one in found]

    async def _values(self, paths: Sequence[str]) -> list[bytes | None]:
        values: list[bytes | None] = []
        for start in range(0, len(paths), CHUNK):
            names = [self._names.record(path) for path in paths[start : start + CHUNK]]
            values += await self._ask("get_many", self._redis.mget, names)
        return values

    def _decoded(self, family: Family[R], values: Iterable[tuple[str, bytes | None]]) -> list[Stored[R]]:
        found: list[Stored[R]] = []
        for path, value in values:
            if value is None:
                continue
            try:
                found.append(decode_stored(Key(family, path), value))
            except BadRecord as error:
                self.bad_records += 1
                log.error("record left out", key=path, error=str(error))
        return found

    async def commit(self, commit: Commit) -> Committed:
        prepared = prepare(commit, self._subjects)
        pools: Pools = {}
        bound = self._bound.for_commit(commit)
        for _ in range(4):
            call = commit_call(prepared, self._names, bound, pools)
            if self._replicas:
                reply = await self._ask("commit", self._replicated.run, self._commit, call.keys, call.args)
            else:
                reply = await self._ask("commit", self._commit, keys=call.keys, args=call.args)
            outcome = committed(prepared, bound, reply)
            if isinstance(outcome, Committed):
                self._bound = self._bound.after(bound, outcome.commits)
                return outcome
            pools |= outcome
        raise StoreUnavailable(f"records moved between pools during each of four tries to commit: {pools}")

    async def holders(self, bucket: str, window: timedelta | None = None) -> list[str]:
        since = "-inf" if window is None else f"({to_us(await self.now()) - window // timedelta(microseconds=1)}"
        name = self._names.bucket(bucket)
        return sorted(
            one.decode() for one in await self._ask("holders", self._redis.zrangebyscore, name, since, "+inf")
        )

    # Leases

    async def acquire(self, name: str, owner: str, ttl: timedelta) -> Lease | None:
        return await self._lease_call("acquire", name, 0, owner, ttl)

    async def renew(self, lease: Lease, ttl: timedelta) -> Lease | None:
        return await self._lease_call("renew", lease.name, lease.fence, lease.owner, ttl)

    async def release(self, lease: Lease) -> None:
        await self._lease_call("release", lease.name, lease.fence, lease.owner, timedelta(0))

    async def _lease_call(self, verb: str, name: str, fence: int, owner: str, ttl: timedelta) -> Lease | None:
        keys = [self._names.leases, self._names.state]
        args: list[str | int] = [verb, name, fence, owner, ttl // timedelta(microseconds=1)]
        reply = await self._ask(verb, self._lease, keys=keys, args=args)
        return Lease(name, reply[2].decode(), int(reply[0]), from_us(int(reply[1]))) if reply else None

    async def leases(self, prefix: str = "") -> list[Lease]:
        now, held = await self._at("leases", self._names.leases)
        found = [_lease(name.decode(), value) for name, value in sorted(held.items())]
        return [lease for lease in found if lease.name.startswith(prefix) and lease.expires_at > now]

    # Copies

    async def announce(self, name: str, data: bytes, ttl: timedelta) -> None:
        args: list[str | bytes | int] = [name, ttl // timedelta(microseconds=1), data]
        await self._ask("announce", self._announce, keys=[self._names.copies], args=args)

    async def announced(self, prefix: str = "") -> list[Announced]:
        now, said = await self._at("announced", self._names.copies)
        found = [_announced(name.decode(), value) for name, value in sorted(said.items())]
        return [one for one in found if one.name.startswith(prefix) and one.expires_at > now]

    async def withdraw(self, name: str) -> None:
        await self._ask("withdraw", self._redis.hdel, self._names.copies, name)

    # Beats

    async def write_beats(self, beats: Iterable[Beat]) -> None:
        batch = list(beats)
        for start in range(0, len(batch), CHUNK):
            args: list[str | bytes | int] = []
            for beat in batch[start : start + CHUNK]:
                args += [beat.node, to_us(beat.due_at), _beat_value(beat)]
            await self._ask("write_beats", self._write_beats, keys=[self._names.due, self._names.samples], args=args)

    async def beats(self, nodes: Sequence[str]) -> list[Beat | None]:
        found: list[Beat | None] = []
        for start in range(0, len(nodes), CHUNK):
            chunk = list(nodes[start : start + CHUNK])
            values = await self._ask("beats", self._redis.hmget, self._names.samples, chunk)
            found += [None if value is None else _beat(node, value) for node, value in zip(chunk, values, strict=True)]
        return found

    async def overdue(self, before: datetime, limit: int = 1000) -> list[tuple[str, datetime]]:
        due = await self._ask(
            "overdue",
            self._redis.zrangebyscore,
            self._names.due,
            "-inf",
            f"({to_us(before)}",
            start=0,
            num=limit,
            withscores=True,
            score_cast_func=int,
        )
        return [(node.decode(), from_us(int(at))) for node, at in due]

    async def forget_beats(self, nodes: Sequence[str]) -> None:
        for start in range(0, len(nodes), CHUNK):
            chunk = nodes[start : start + CHUNK]
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.hdel(self._names.samples, *chunk)
            pipeline.zrem(self._names.due, *chunk)
            await self._ask("forget_beats", pipeline.execute)

    # Outbox

    async def outbox(
        self, *, older_than_s: float = 0.0, after_id: str = "", before_id: str = "", limit: int = 1000
    ) -> list[OutboxEntry]:
        now_us = to_us(await self.now())
        first = f"({_stream_id(after_id)}" if after_id else "-"
        last = f"({_stream_id(before_id)}" if before_id else "+"
        aged_us = now_us - int(older_than_s * 1e6)
        if older_than_s > 0 and (not before_id or entry_id(before_id)[0] > aged_us):
            last = str(aged_us)  # as a last id this means the last entry of that number
        found = await self._ask("outbox", self._redis.xrange, self._names.outbox, first, last, count=limit)
        return [_entry(id_, fields, now_us) for id_, fields in found]

    async def outbox_done(self, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), CHUNK):
            chunk = [_stream_id(id_) for id_ in ids[start : start + CHUNK]]
            await self._ask("outbox_done", self._redis.xdel, self._names.outbox, *chunk)

    async def outbox_length(self) -> int:
        return int(await self._ask("outbox_length", self._redis.xlen, self._names.outbox))

    # The server

    async def now(self) -> datetime:
        seconds, us = await self._ask("now", self._redis.time)
        return from_us(int(seconds) * 1_000_000 + int(us))

    async def check(self) -> list[str]:
        info = await self._ask("check", self._redis.info, "server", "replication")
        try:
            settings = await self._ask("check", self._redis.config_get, "*append*", "maxmemory*")
        except StoreUnavailable:
            raise
        except StoreError as error:
            settings = {}
            log.info("the server does not tell its settings", error=str(error))
        return check_settings(info, settings, replicas=self._replicas)

    async def close(self) -> None:
        # Whoever closes has no use for what is wrong with the connections.
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                await self._redis.aclose(close_connection_pool=True)

    async def _at(self, what: str, name: str) -> tuple[datetime, dict[bytes, bytes]]:
        """A hash and the server's time, in one round trip."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.time()
        pipeline.hgetall(name)
        (seconds, us), fields = await self._ask(what, pipeline.execute)
        return from_us(int(seconds) * 1_000_000 + int(us)), fields

    async def _ask(self, what: str, command: Callable[..., Any], *args: Any, **options: Any) -> Any:
        async with self._bounded(what):
            return await command(*args, **options)

    @asynccontextmanager
    async def _bounded(self, what: str) -> AsyncIterator[None]:
        """Bounds a call, waiting for a connection included, and names what can go wrong with it."""
        try:
            async with asyncio.timeout(2 * self._timeout_s), self._free:
                with heeded():
                    yield
        except ResponseError as error:
            if is_read_only(error):
                # A primary that was demoted: the next call asks anew where the primary is.
                await self._redis.connection_pool.disconnect(inuse_connections=False)
            kind = StoreUnavailable if is_passing(error) else StoreError
            raise kind(f"{what} on {self._url}: {error}") from error
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"{what} on {self._url}: {error!s:.300} ({type(error).__name__})") from error


def is_passing(error: ResponseError) -> bool:
    """Whether the server says that it cannot now, rather than that it never will."""
    return isinstance(error, OutOfMemoryError | ReadOnlyError) or _PASSING.search(str(error)) is not None


def is_read_only(error: ResponseError) -> bool:
    """Whether this is no primary any more."""
    return isinstance(error, ReadOnlyError) or "-READONLY " in str(error)


def _script(name: str) -> str:
    return files("navarch_common.store").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


def _lease(name: str, value: bytes) -> Lease:
    fence, expires, owner = value.decode().split(" ", 2)
    return Lease(name, owner, int(fence), from_us(int(expires)))


def _announced(name: str, value: bytes) -> Announced:
    expires, data = value.split(b" ", 1)
    return Announced(name, data, from_us(int(expires)))


def _beat_value(beat: Beat) -> bytes:
    return b"%d %d %s %s" % (to_us(beat.at), to_us(beat.due_at), beat.pool.encode(), beat.sample)


def _beat(node: str, value: bytes) -> Beat:
    at, due_at, pool, sample = value.split(b" ", 3)
    return Beat(node, pool.decode(), from_us(int(at)), from_us(int(due_at)), sample)


def _stream_id(id_: str) -> str:
    revision, ordinal = entry_id(id_)
    return f"{revision}-{ordinal}"


def _entry(id_: bytes, fields: dict[bytes, bytes], now_us: int) -> OutboxEntry:
    revision, ordinal = entry_id(id_.decode())
    return OutboxEntry(
        event_id(revision, ordinal),
        fields[b"s"].decode(),
        fields[b"o"].decode(),
        fields[b"d"],
        fields[b"t"].decode(),
        max(0.0, (now_us - revision) / 1e6),
    )


def _is_a_store(store: RedisStore) -> StateStore:
    """Lets the type checker compare adapter and port."""
    return store
