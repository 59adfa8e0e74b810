"""A commit as the arguments of `lua/commit.lua`, and its replies as errors. Nothing here talks to a server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from navarch_common.model.base import AnyKey
from navarch_common.store.base import (
    BadRecord,
    BudgetExhausted,
    Committed,
    Conflict,
    Fenced,
    NewerSchema,
    RolledBack,
    StoreError,
    WrongIncarnation,
)
from navarch_common.store.encoding import (
    Bound,
    Prepared,
    fenced_text,
    index_of,
    newer_text,
    written_schemas,
)

Argument = str | bytes | int
Pools = dict[str, str]
"""Under which pool a record is indexed today, by path, where that is not the pool that the commit gives it."""


@dataclass(frozen=True, slots=True)
class Names:
    """The keys of one cluster. All carry its hash tag, so that a commit may touch any of them."""

    cluster: str

    def __call__(self, *parts: str) -> str:
        return ":".join((f"navarch:{{{self.cluster}}}", *parts))

    @property
    def state(self) -> str:
        return self("state")

    @property
    def leases(self) -> str:
        return self("leases")

    @property
    def copies(self) -> str:
        return self("copies")

    @property
    def outbox(self) -> str:
        return self("outbox")

    @property
    def due(self) -> str:
        return self("beats", "due")

    @property
    def samples(self) -> str:
        return self("beats", "samples")

    def record(self, path: str) -> str:
        return self("record", path)

    def index(self, family: str, pool: str = "") -> str:
        return self("index", index_of(family, pool))

    def bucket(self, bucket: str) -> str:
        return self("budget", bucket)


@dataclass(slots=True)
class Call:
    """Keys and arguments of one script call."""

    names: Names
    keys: list[str] = field(default_factory=list)
    args: list[Argument] = field(default_factory=list)
    _positions: dict[str, int] = field(default_factory=dict)

    def position(self, key: str) -> int:
        """Declares a key and says where it stands, counted from 1 as Lua does."""
        if key not in self._positions:
            self.keys.append(key)
            self._positions[key] = len(self.keys)
        return self._positions[key]

    def index(self, family: str, pool: str) -> int:
        """The index by pool; 0 where there is no pool."""
        return self.position(self.names.index(family, pool)) if pool else 0


def commit_call(prepared: Prepared, names: Names, bound: Bound, pools: Mapping[str, str]) -> Call:
    commit = prepared.commit
    call = Call(names)
    for name in (names.state, names.leases, names.outbox):
        call.position(name)
    lease = commit.lease
    call.args += [bound.incarnation, bound.commits]
    call.args += [lease.name if lease else "", lease.fence if lease else "", prepared.incarnation]
    call.args += [len(commit.expect), len(prepared.writes), len(commit.delete)]
    call.args += [len(commit.refund), len(commit.spend), len(prepared.drafts)]
    for key, revision in commit.expect.items():
        call.args += [call.position(names.record(key.path)), f"{revision:016d}"]
    for write in prepared.writes:
        call.args += _written(call, write.key, write.schema, pools)
        call.args += [write.pool or "-", call.index(write.key.family.name, write.pool), write.body]
    for key in commit.delete:
        call.args += _written(call, key, key.family.schema, pools)
    for refund in commit.refund:
        call.args += [call.position(names.bucket(refund.bucket)), refund.holder]
    for spend in commit.spend:
        window = -1 if spend.window is None else spend.window // timedelta(microseconds=1)
        call.args += [call.position(names.bucket(spend.bucket)), spend.holder, spend.limit, window]
    for draft in prepared.drafts:
        call.args += [draft.subject, draft.order, draft.trace, draft.head, draft.middle, draft.tail]
    return call


def _written(call: Call, key: AnyKey, schema: int, pools: Mapping[str, str]) -> list[Argument]:
    family, hint = key.family.name, pools.get(key.path, "")
    record = call.position(call.names.record(key.path))
    return [record, key.path, schema, call.position(call.names.index(family)), hint, call.index(family, hint)]


def committed(prepared: Prepared, bound: Bound, reply: Sequence[bytes]) -> Committed | Pools:
    """What the script answered: done, or the pools that it has to be told. Raises what `StateStore.commit` does."""
    verdict, *details = (part.decode() for part in reply)
    commit = prepared.commit
    match verdict, details:
        case "ok", [revision, waiting, commits]:
            entries = tuple(draft.entry(int(revision), ordinal) for ordinal, draft in enumerate(prepared.drafts))
            return Committed(int(revision), entries, int(waiting), int(commits))
        case "pools", _:
            paths = [written.path for written, _ in written_schemas(prepared)]
            return {paths[int(item) - 1]: pool for item, pool in zip(details[::2], details[1::2], strict=True)}
        case "conflict", [item, found]:
            key, expected = list(commit.expect.items())[int(item) - 1]
            raise Conflict(key.path, expected, int(found))
        case "fenced", [owner] if commit.lease:
            raise Fenced(fenced_text(commit.lease, owner))
        case "incarnation", [found]:
            raise WrongIncarnation(bound.other_text(found))
        case "rolled-back", [count]:
            raise RolledBack(bound.rolled_back_text(int(count)))
        case "newer", [item, schema]:
            newer = list(written_schemas(prepared))[int(item) - 1][0]
            raise NewerSchema(newer_text(newer, int(schema)))
        case "budget", [item, *holders]:
            spend = commit.spend[int(item) - 1]
            raise BudgetExhausted(spend.bucket, spend.limit, sorted(holders))
        case "rubbish", [name]:
            raise BadRecord(f"{name} holds a value that starts with no revision, schema and pool")
        case _:
            raise StoreError(f"the commit script answered {verdict} {details}")
