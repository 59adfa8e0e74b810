"""Who this store belongs to, and whether it is the one that was there before: asked at every start, and each second.

The meta record (cluster, installation, incarnation, epoch) and the count of commits are mirrored in the JetStream KV
bucket `NAVARCH_STATE`, the installation id also in `DATA_DIR/installation`. A store that is missing, or another, or
further back than its mirror says cannot be trusted to know all machines, so the cluster enters safe mode, in which
nothing is launched or terminated. A store that lost something begins a new life: a new incarnation, so that no commit
that rests on what was read before is accepted. The provisioner takes the cluster out of safe mode, or an operator does.

`Life` is the shell, `doubt` decides.
"""

import asyncio
import random
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog
from msgspec import structs

from navarch_common.bus.base import Bus, BusError, KvConflict
from navarch_common.clock import Clock
from navarch_common.events.kinds import SafeModeEntered, SafeModeLeft
from navarch_common.events.subjects import Subjects
from navarch_common.ids import check_id, new_token
from navarch_common.model.base import Actor, Code, Text
from navarch_common.model.cluster import META, MetaRecord, SafeMode
from navarch_common.model.node import NODE, NodeRecord
from navarch_common.store.base import ABSENT, Beat, Commit, Conflict, Standing, StateStore, Stored, StoreError
from navarch_common.store.committer import Committer
from navarch_common.store.doubt import Doubt, Mirror, doubt, doubt_while_running, mirror_of
from navarch_common.store.installation_file import read_installation, write_installation
from navarch_common.store.mirror import KvMirror, MirrorUnreadable

__all__ = [
    "Doubt",
    "Life",
    "Mirror",
    "doubt",
    "end_first_look",
    "enter_safe_mode",
    "heard_since",
    "leave_safe_mode",
    "open_meta",
    "taken_over",
]

log = structlog.get_logger(__name__)

TRIES = 10
"""How often copies that start together may get in each other's way."""
ACTOR = "navarch"
PERIOD_S = 1.0
LOOK_TIMEOUT_S = 8.0


async def open_meta(
    store: StateStore,
    bus: Bus,
    clock: Clock,
    rng: random.Random,
    *,
    cluster: str,
    installation: str = "",
    data_dir: Path | None = None,
    subjects: Subjects | None = None,
) -> MetaRecord:
    """Opens the store as `Life.open` does, for whoever does not watch it afterwards."""
    life = Life(
        store, bus, clock, rng, cluster=cluster, installation=installation, data_dir=data_dir, subjects=subjects
    )
    return await life.open()


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look found and made of it."""

    record: MetaRecord
    commits: int
    mirrored: bool
    """The bus knows of this life."""


class Life:
    """This process's knowledge of which life the store is in. `open` it once, then `run` it as a task.

    A process that finds the store in doubt begins the new life itself, unless another was quicker; all others go on in it
    within about a second.
    """

    def __init__(
        self,
        store: StateStore,
        bus: Bus,
        clock: Clock,
        rng: random.Random,
        *,
        cluster: str,
        installation: str = "",
        data_dir: Path | None = None,
        subjects: Subjects | None = None,
    ) -> None:
        """`installation` is the configured one; empty, it is found in the store, its mirror or the data directory, and
        minted at the first start."""
        names = subjects or Subjects()
        self._store, self._bus, self._clock, self._rng = store, bus, clock, rng
        self._committer = Committer(store, bus, names, writer=None, clock=clock)
        self._mirror = KvMirror(bus, names, f"meta.{check_id(cluster, 'cluster')}", Mirror, _newer)
        self._cluster, self._configured = cluster, installation and check_id(installation, "installation")
        self._data_dir, self._on_disk = data_dir, ""
        self._record: MetaRecord | None = None
        self._known: Mirror | None = None
        self._mirrored = False
        self._told = ""

    # --- what others ask of it ---

    @property
    def record(self) -> MetaRecord:
        """The meta record as it was seen last; at most about a second old while store and bus answer."""
        assert self._record is not None, "a life is opened before it is asked about"
        return self._record

    @property
    def installation(self) -> str:
        """Whose machines are ours. Changes when an operator adopts another installation."""
        return self.record.installation

    @property
    def mirrored(self) -> bool:
        """Whether the bus remembers this life, as far as is known. Nothing is launched before it does."""
        return self._mirrored

    async def standing(self) -> tuple[Standing, str]:
        """What the store says of itself now, and why nothing may be launched or destroyed on it; empty where it is the one
        that we know. The last question before a cloud call: the next look may be a second away. Raises `StoreError`."""
        incarnation, seen = self._store.incarnation, self._store.commits_seen
        standing = await self._store.standing()
        found = standing.meta.record.incarnation if standing.meta else ""
        if found != incarnation:
            return standing, f"the store is incarnation {found or 'none'}, not {incarnation}"
        if standing.commits < seen:
            return standing, f"the store has seen {standing.commits} commits, and had seen {seen}: it was rolled back"
        return standing, "" if self._mirrored else "the bus does not remember this life of the store yet"

    @property
    def status(self) -> dict[str, object]:
        known = self._known
        return {
            "incarnation": self.record.incarnation,
            "epoch": self.record.epoch,
            "commits": known.commits if known else 0,
            "mirrored": self._mirrored,
            "error": self._told,
        }

    # --- opening and watching ---

    async def open(self) -> MetaRecord:
        """Makes sure that the store knows whose it is, its mirror too, and binds the store to its incarnation.

        Safe to call from many copies at once. Raises `StoreError` and `BusError` where either cannot be reached, or where
        the configured installation is another than the stored one.
        """
        if self._data_dir:
            self._on_disk = await asyncio.to_thread(read_installation, self._data_dir)
        for _ in range(TRIES):
            try:
                look = await self._look()
            except (Conflict, KvConflict):
                await asyncio.sleep(self._rng.uniform(0.01, 0.1))
                continue
            await self._take(look)
            return look.record
        raise StoreError(f"the meta record and its mirror kept changing under {TRIES} tries to open them")

    async def run(self) -> None:
        """Looks each second, until cancelled: a store that was lost or rolled back while we run begins a new life."""
        while True:
            await asyncio.sleep(PERIOD_S)
            await self.step()

    async def step(self) -> None:
        """One look, over every trouble with store and bus."""
        error = ""
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                await self._take(await self._look(running=True))
        except (Conflict, KvConflict):
            # Another copy was quicker; the next look sees what it has made.
            return
        except (StoreError, BusError, TimeoutError) as failure:
            error = str(failure) or f"no answer within {LOOK_TIMEOUT_S:g} s"
            self._mirrored = self._mirrored and not isinstance(failure, MirrorUnreadable)
        if error != self._told:
            log.warning("the store cannot be watched", error=error) if error else log.info("the store is watched again")
            self._told = error

    async def _take(self, look: _Look) -> None:
        """This process goes on in the life that was found."""
        before, record = self._store.incarnation, look.record
        self._store.bind(record.incarnation, look.commits)
        self._record, self._mirrored = record, look.mirrored
        self._known = mirror_of(record, look.commits)
        if before not in ("", record.incarnation):
            log.warning("the store is in a new life", before=before, now=record.incarnation, epoch=record.epoch)
        if self._data_dir and self._on_disk != record.installation:
            await asyncio.to_thread(write_installation, self._data_dir, record.installation)
            self._on_disk = record.installation

    async def _look(self, *, running: bool = False) -> _Look:
        """One look. Raises `Conflict` or `KvConflict` where another copy was quicker."""
        reachable = True
        known = structs.replace(self._known, commits=self._store.commits_seen) if running and self._known else None
        try:
            # The mirror first: what it says can then not be newer than the store by itself.
            mirror, revision = await self._mirror.read()
        except BusError:
            if not running:
                raise
            # The bus is away. What this process has seen itself must do for a mirror.
            mirror, revision, reachable = known, 0, False
        standing = await self._store.standing()
        stored = standing.meta
        if stored and not running and self._configured not in ("", stored.record.installation):
            raise StoreError(
                f"the configuration says installation {self._configured}, the store belongs to "
                f"{stored.record.installation}: correct the key `installation`, or use another store"
            )
        has_nodes = mirror is None and stored is not None and bool(await self._store.records(NODE))
        found = doubt_while_running(standing, mirror, known, self._on_disk, has_nodes=has_nodes)
        record, commits = (stored.record, standing.commits) if stored else (self._first(mirror or known), 0)
        if found or not stored:
            record, commits = await self._write(record, found, mirror or known, standing)
        wanted = mirror_of(record, commits)
        if reachable:
            return _Look(record, commits, await self._remember(wanted, mirror, revision))
        same = self._known is not None and self._known.names_the_life_of(wanted)
        return _Look(record, commits, self._mirrored and same)

    def _first(self, mirror: Mirror | None) -> MetaRecord:
        """The record of a store that has none."""
        known = self._configured or (mirror.installation if mirror else "") or self._on_disk
        return MetaRecord(
            cluster=self._cluster,
            installation=known or new_token(self._rng),
            incarnation=new_token(self._rng),
            created_at=self._clock.now(),
            first_look=True,
        )

    async def _write(
        self, record: MetaRecord, found: Doubt | None, mirror: Mirror | None, standing: Standing
    ) -> tuple[MetaRecord, int]:
        """Makes durable that this is the first start, or that the store is in doubt."""
        now = self._clock.now()
        expect = {META.key(): standing.meta.revision if standing.meta else ABSENT}
        if found is None:
            await self._committer.commit(Commit(expect=expect, put={META.key(): record}, new_life=True))
            log.info("first start", cluster=record.cluster, installation=record.installation)
            return record, standing.commits + 1
        incarnation = record.incarnation if found.same_life or not standing.meta else new_token(self._rng)
        epoch = max(record.epoch, mirror.epoch if mirror else 0) + 1
        safe = record.safe_mode or SafeMode(since=now, code=found.code, reason=found.reason)
        record = structs.replace(record, incarnation=incarnation, epoch=epoch, safe_mode=safe, first_look=False)
        event = _entered(record, safe, now, ACTOR)
        await self._committer.commit(Commit(expect=expect, put={META.key(): record}, emit=(event,), new_life=True))
        log.error("safe mode entered", code=found.code, reason=found.reason)
        return record, standing.commits + 1

    async def _remember(self, wanted: Mirror, mirror: Mirror | None, revision: int) -> bool:
        """Brings the mirror up to `wanted`. True where it names this life afterwards."""
        if mirror is not None and not mirror.behind(wanted) and mirror.names_the_life_of(wanted):
            return True
        try:
            await self._mirror.write(wanted, revision)
        except KvConflict:
            # Each copy does this each second: of those that only count, one is enough.
            if mirror is None or not mirror.names_the_life_of(wanted):
                raise
        return True


def _newer(one: Mirror, other: Mirror) -> bool:
    return other.behind(one)


async def enter_safe_mode(
    store: StateStore, committer: Committer, *, now: datetime, code: Code, reason: Text, actor: Actor
) -> MetaRecord:
    """Forbids launches and terminations until someone leaves safe mode; nothing where it is in force already.

    Raises `StoreError`; where the meta record is gone too, since then the next start enters it by itself.
    """
    for _ in range(TRIES):
        stored = await _meta(store)
        if stored.record.safe_mode:
            return stored.record
        safe = SafeMode(since=now, code=code, reason=reason)
        record = structs.replace(stored.record, safe_mode=safe, first_look=False)
        commit = Commit(
            expect={META.key(): stored.revision},
            put={META.key(): record},
            emit=(_entered(record, safe, now, actor),),
        )
        try:
            await committer.commit(commit)
        except Conflict:
            continue
        log.error("safe mode entered", code=code, reason=reason)
        return record
    raise StoreError(f"the meta record kept changing under {TRIES} tries to enter safe mode")


def heard_since(record: NodeRecord, beat: Beat | None, since: datetime) -> bool:
    """Whether a node's agent has spoken since `since`, when safe mode began: what is on record from before may have been
    forgotten in part. `beat` is its last heartbeat."""
    registered = record.registration is not None and record.registration.at >= since
    return registered or (beat is not None and beat.at >= since)


async def leave_safe_mode(
    store: StateStore, committer: Committer, *, now: datetime, code: Code, reason: Text, actor: Actor
) -> MetaRecord:
    """Allows launches and terminations again; nothing where they are allowed. Raises `StoreError`."""
    for _ in range(TRIES):
        stored = await _meta(store)
        if stored.record.safe_mode is None:
            return stored.record
        record = structs.replace(stored.record, safe_mode=None, safe_mode_left_at=now)
        event = SafeModeLeft(at=now, cluster=record.cluster, reason=reason, code=code, actor=actor)
        commit = Commit(expect={META.key(): stored.revision}, put={META.key(): record}, emit=(event,))
        try:
            await committer.commit(commit)
        except Conflict:
            continue
        log.info("safe mode left", code=code, reason=reason)
        return record
    raise StoreError(f"the meta record kept changing under {TRIES} tries to leave safe mode")


async def end_first_look(store: StateStore, committer: Committer) -> MetaRecord:
    """A first start may launch: every provider has told what it has, and nothing is unexplained. Raises `StoreError`."""
    for _ in range(TRIES):
        stored = await _meta(store)
        if not stored.record.first_look:
            return stored.record
        record = structs.replace(stored.record, first_look=False)
        try:
            await committer.commit(Commit(expect={META.key(): stored.revision}, put={META.key(): record}))
        except Conflict:
            continue
        return record
    raise StoreError(f"the meta record kept changing under {TRIES} tries to end the first look")


def taken_over(record: MetaRecord, installation: str) -> MetaRecord:
    """The meta record once `installation` is ours. A later epoch, so that nobody takes the change for another store."""
    return structs.replace(record, installation=installation, epoch=record.epoch + 1)


async def _meta(store: StateStore) -> Stored[MetaRecord]:
    stored = await store.get(META.key())
    if stored is None:
        raise StoreError("the store has no meta record: it was lost; restart to let it be found again")
    return stored


def _entered(record: MetaRecord, safe: SafeMode, now: datetime, actor: Actor) -> SafeModeEntered:
    return SafeModeEntered(at=now, cluster=record.cluster, reason=safe.reason, code=safe.code, actor=actor)
