"""Who this store belongs to, and whether it is the one that was there before.

The meta record (cluster, installation, incarnation, epoch) is mirrored in the JetStream KV bucket `NAVARCH_STATE`, and
the installation id also in `DATA_DIR/installation`. At every start the three are compared: a store that is missing or
another than its mirror says cannot be trusted to know all machines, so the cluster enters safe mode, in which nothing is
launched or terminated. The provisioner takes it out again, or an operator does.
"""

import asyncio
import os
import random
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct, structs

from navarch_common.bus.base import Bus, KvConflict
from navarch_common.clock import Clock
from navarch_common.events.kinds import SafeModeEntered, SafeModeLeft
from navarch_common.events.subjects import Subjects
from navarch_common.ids import Id, check_id, is_id, new_token
from navarch_common.model.base import Actor, Code, Count, Name, Text
from navarch_common.model.cluster import META, MetaRecord, SafeMode
from navarch_common.model.node import NODE
from navarch_common.store.base import ABSENT, Commit, Conflict, StateStore, Stored, StoreError
from navarch_common.store.committer import Committer

log = structlog.get_logger(__name__)

TRIES = 10
"""How often copies that start together may get in each other's way."""
ACTOR = "navarch"


class Mirror(Struct, frozen=True, kw_only=True):
    """What the bus remembers of the store."""

    cluster: Id
    installation: Name
    incarnation: Name
    epoch: Count


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why the store cannot be trusted yet."""

    code: Code
    reason: Text


def doubt(
    stored: MetaRecord | None, mirror: Mirror | None, installation_on_disk: str, *, has_nodes: bool
) -> Doubt | None:
    """Compares the store with its mirror and the data directory. None: it is the one that was there before, or this is
    the first start of all."""
    if stored is None and mirror is None:
        if installation_on_disk:
            return Doubt("state-lost", f"installation {installation_on_disk} was here before; store and bus are empty")
        return None
    if stored is None and mirror is not None:
        return Doubt("store-lost", f"the store is empty; the bus remembers its incarnation {mirror.incarnation}")
    if stored is not None and mirror is None:
        # Without a node nothing can have been launched: a first start was cut short, or is going on elsewhere.
        return Doubt("mirror-lost", "the bus has lost its memory of the store") if has_nodes else None
    assert stored is not None
    assert mirror is not None
    if (stored.incarnation, stored.installation) != (mirror.incarnation, mirror.installation):
        return Doubt(
            "store-different",
            f"the store is incarnation {stored.incarnation} of installation {stored.installation}; the bus remembers "
            f"{mirror.incarnation} of {mirror.installation}",
        )
    if stored.epoch < mirror.epoch:
        return Doubt("store-rolled-back", f"the store is at epoch {stored.epoch}; the bus remembers {mirror.epoch}")
    return None


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
    """Makes sure that the store knows whose it is, its mirror too, and binds `store` to its incarnation.

    `installation` is the configured one; empty, it is found in the store, its mirror or the data directory, and minted
    at the first start. Safe to call from many copies at once. Raises `StoreError` and `BusError` where either cannot be
    reached, or where the configured installation is another than the stored one.
    """
    check_id(cluster, "cluster")
    names = subjects or Subjects()
    opener = _Opener(store, bus, names, clock, rng, cluster, installation and check_id(installation, "installation"))
    opener.on_disk = await asyncio.to_thread(_read_installation, data_dir) if data_dir else ""
    for _ in range(TRIES):
        try:
            record = await opener.open()
        except (Conflict, KvConflict):
            await asyncio.sleep(rng.uniform(0.01, 0.1))
            continue
        store.bind(record.incarnation)
        if data_dir and opener.on_disk != record.installation:
            await asyncio.to_thread(_write_installation, data_dir, record.installation)
        return record
    raise StoreError(f"the meta record and its mirror kept changing under {TRIES} tries to open them")


class _Opener:
    def __init__(
        self,
        store: StateStore,
        bus: Bus,
        subjects: Subjects,
        clock: Clock,
        rng: random.Random,
        cluster: str,
        installation: str,
    ) -> None:
        self._store, self._bus, self._clock, self._rng = store, bus, clock, rng
        self._committer = Committer(store, bus, subjects, writer=None, clock=clock)
        self._bucket, self._key = subjects.stream("STATE"), f"meta.{cluster}"
        self._cluster, self._configured = cluster, installation
        self.on_disk = ""

    async def open(self) -> MetaRecord:
        """One try. Raises `Conflict` or `KvConflict` where another copy was quicker."""
        stored = await self._store.get(META.key())
        entry = await self._bus.kv_get(self._bucket, self._key)
        mirror = _decode_mirror(entry.value) if entry else None
        if stored and self._configured not in ("", stored.record.installation):
            raise StoreError(
                f"the configuration says installation {self._configured}, the store belongs to "
                f"{stored.record.installation}: correct the key `installation`, or use another store"
            )
        has_nodes = mirror is None and stored is not None and bool(await self._store.records(NODE))
        found = doubt(stored.record if stored else None, mirror, self.on_disk, has_nodes=has_nodes)
        record = stored.record if stored else self._first(mirror)
        if found or not stored:
            record = await self._write(record, found, mirror, stored)
        wanted = Mirror(
            cluster=record.cluster,
            installation=record.installation,
            incarnation=record.incarnation,
            epoch=record.epoch,
        )
        if mirror != wanted:
            revision = entry.revision if entry else 0
            await self._bus.kv_put(self._bucket, self._key, msgspec.json.encode(wanted), expected_revision=revision)
        return record

    def _first(self, mirror: Mirror | None) -> MetaRecord:
        known = self._configured or (mirror.installation if mirror else "") or self.on_disk
        return MetaRecord(
            cluster=self._cluster,
            installation=known or new_token(self._rng),
            incarnation=new_token(self._rng),
            created_at=self._clock.now(),
        )

    async def _write(
        self, record: MetaRecord, found: Doubt | None, mirror: Mirror | None, stored: Stored[MetaRecord] | None
    ) -> MetaRecord:
        now = self._clock.now()
        expect = {META.key(): stored.revision if stored else ABSENT}
        if found is None:
            await self._committer.commit(Commit(expect=expect, put={META.key(): record}))
            log.info("first start", cluster=record.cluster, installation=record.installation)
            return record
        epoch = max(record.epoch, mirror.epoch if mirror else 0) + 1
        safe = record.safe_mode or SafeMode(since=now, code=found.code, reason=found.reason)
        record = structs.replace(record, epoch=epoch, safe_mode=safe)
        event = _entered(record, safe, now, ACTOR)
        await self._committer.commit(Commit(expect=expect, put={META.key(): record}, emit=(event,)))
        log.error("safe mode entered", code=found.code, reason=found.reason)
        return record


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
        record = structs.replace(stored.record, safe_mode=safe)
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


async def leave_safe_mode(
    store: StateStore, committer: Committer, *, now: datetime, code: Code, reason: Text, actor: Actor
) -> MetaRecord:
    """Allows launches and terminations again; nothing where they are allowed. Raises `StoreError`."""
    for _ in range(TRIES):
        stored = await _meta(store)
        if stored.record.safe_mode is None:
            return stored.record
        record = structs.replace(stored.record, safe_mode=None)
        event = SafeModeLeft(at=now, cluster=record.cluster, reason=reason, code=code, actor=actor)
        commit = Commit(expect={META.key(): stored.revision}, put={META.key(): record}, emit=(event,))
        try:
            await committer.commit(commit)
        except Conflict:
            continue
        log.info("safe mode left", code=code, reason=reason)
        return record
    raise StoreError(f"the meta record kept changing under {TRIES} tries to leave safe mode")


async def _meta(store: StateStore) -> Stored[MetaRecord]:
    stored = await store.get(META.key())
    if stored is None:
        raise StoreError("the store has no meta record: it was lost; restart to let it be found again")
    return stored


def _entered(record: MetaRecord, safe: SafeMode, now: datetime, actor: Actor) -> SafeModeEntered:
    return SafeModeEntered(at=now, cluster=record.cluster, reason=safe.reason, code=safe.code, actor=actor)


def _decode_mirror(value: bytes) -> Mirror:
    try:
        return msgspec.json.decode(value, type=Mirror)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"the mirror of the meta record is unreadable: {error} in {value[:80]!r}") from error


def _read_installation(data_dir: Path) -> str:
    file = data_dir / "installation"
    try:
        text = file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{file} cannot be read: {error}") from error
    if not is_id(text):
        raise StoreError(f"{file} holds {text!r:.80}, which is no installation id; correct or remove it")
    return text


def _write_installation(data_dir: Path, installation: str) -> None:
    """Whole or not at all: a half-written id would be another one."""
    file = data_dir / "installation"
    half = file.with_name(f".installation.{os.getpid()}")
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        half.write_text(installation + "\n", encoding="utf-8")
        half.replace(file)
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error}") from error
