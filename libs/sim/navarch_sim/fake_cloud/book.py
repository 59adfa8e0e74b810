"""What the fake cloud never forgets: machines, the tokens that made them, and its settings. SQLite, fsynced.

Every method is one transaction: it happens as a whole before it returns, or not at all.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct, structs

from navarch_common.model.node import LaunchRequest
from navarch_provisioner.cloud.base import CloudError, InvalidLaunch, NoCapacity, NotFound
from navarch_provisioner.cloud.fake_wire import CloudSettings, WireTags

Power = Literal["on", "off", "gone"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS machines (
    instance_id TEXT PRIMARY KEY,
    token TEXT NOT NULL UNIQUE,
    cluster TEXT NOT NULL,
    power TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS by_cluster ON machines (cluster, power);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT;
"""


class Kept(Struct, frozen=True, kw_only=True):
    """A machine as the book has it."""

    instance_id: str
    request: LaunchRequest
    gpu_count: int
    power: Power
    boots: int
    boot_id: str
    launched_at: datetime
    boots_at: datetime
    """When the agent of this boot starts."""
    ended_at: datetime | None = None


class Book:
    """One file, one writer. Calls block for as long as the disk takes."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        self._db.close()

    def launch(self, new: Kept, capacity: int | None) -> tuple[Kept, bool]:
        """Keeps a new machine, or returns the one that its token made; tells whether it is new.

        Raises `InvalidLaunch` where the token made another, `NoCapacity` where there is no room.
        """
        with self._transaction():
            before = self._one("token", new.request.token)
            if before is not None:
                if before.request != new.request:
                    raise InvalidLaunch(_differences(before, new))
                return before, False
            if self._one("instance_id", new.instance_id) is not None:
                raise InvalidLaunch(f"machine {new.instance_id} exists already, launched with another token")
            (used,) = self._db.execute("SELECT count(*) FROM machines WHERE power != 'gone'").fetchone()
            if capacity is not None and used >= capacity:
                raise NoCapacity(f"all {capacity} machines are in use", scope="region")
            self._write(new)
            return new, True

    def by_token(self, token: str) -> Kept | None:
        return self._one("token", token)

    def by_id(self, instance_id: str) -> Kept | None:
        return self._one("instance_id", instance_id)

    def of_cluster(self, cluster: str) -> list[Kept]:
        """Those that are not gone, oldest first."""
        rows = self._db.execute(
            "SELECT body FROM machines WHERE cluster = ? AND power != 'gone' ORDER BY rowid", (cluster,)
        )
        return [msgspec.json.decode(body, type=Kept) for (body,) in rows]

    def powered_on(self) -> list[Kept]:
        rows = self._db.execute("SELECT body FROM machines WHERE power = 'on' ORDER BY rowid")
        return [msgspec.json.decode(body, type=Kept) for (body,) in rows]

    def end(self, instance_id: str, tags: WireTags | None, now: datetime) -> Kept | None:
        """Marks a machine as gone; None where there is none. Raises `NotFound` where it carries other tags."""
        with self._transaction():
            found = self._one("instance_id", instance_id)
            if found is None:
                return None
            check_tags(found, tags)
            if found.power == "gone":
                return found
            return self._write(structs.replace(found, power="gone", ended_at=now))

    def switch_off(self, instance_id: str, tags: WireTags) -> Kept:
        """Raises `NotFound` where there is no such machine any more, or it carries other tags."""
        with self._transaction():
            found = self._living(instance_id, tags)
            return found if found.power == "off" else self._write(structs.replace(found, power="off"))

    def boot(self, instance_id: str, tags: WireTags | None, boot_id: str, boots_at: datetime) -> tuple[Kept, bool]:
        """Switches a machine on that is off, as a new boot; tells whether it was. Without `tags` the machine loses power
        and boots again, whatever it did. Raises as `switch_off` does."""
        with self._transaction():
            found = self._living(instance_id, tags)
            if found.power == "on" and tags is not None:
                return found, False
            booted = structs.replace(found, power="on", boots=found.boots + 1, boot_id=boot_id, boots_at=boots_at)
            return self._write(booted), True

    def settings(self, name: Literal["current", "configured"]) -> CloudSettings | None:
        row = self._db.execute("SELECT body FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=CloudSettings)

    def keep_settings(self, settings: CloudSettings, *, configured: bool) -> None:
        body = msgspec.json.encode(settings)
        with self._transaction():
            for name in ("current", "configured") if configured else ("current",):
                self._db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, body))

    def forget_gone(self, before: datetime) -> None:
        """Machines that ended before then, and their tokens."""
        rows = self._db.execute("SELECT body FROM machines WHERE power = 'gone'").fetchall()
        gone = [msgspec.json.decode(body, type=Kept) for (body,) in rows]
        old = [(kept.instance_id,) for kept in gone if kept.ended_at is not None and kept.ended_at < before]
        with self._transaction():
            self._db.executemany("DELETE FROM machines WHERE instance_id = ?", old)

    def _living(self, instance_id: str, tags: WireTags | None) -> Kept:
        found = self._one("instance_id", instance_id)
        if found is None or found.power == "gone":
            raise NotFound(f"there is no machine {instance_id} any more")
        check_tags(found, tags)
        return found

    def _one(self, column: Literal["token", "instance_id"], value: str) -> Kept | None:
        query = {
            "token": "SELECT body FROM machines WHERE token = ?",
            "instance_id": "SELECT body FROM machines WHERE instance_id = ?",
        }[column]
        row = self._db.execute(query, (value,)).fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=Kept)

    def _write(self, kept: Kept) -> Kept:
        row = (kept.instance_id, kept.request.token, kept.request.cluster, kept.power, msgspec.json.encode(kept))
        self._db.execute(
            "INSERT INTO machines VALUES (?, ?, ?, ?, ?) ON CONFLICT (instance_id) "
            "DO UPDATE SET power = excluded.power, body = excluded.body",
            row,
        )
        return kept

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except (CloudError, sqlite3.Error):
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def check_tags(kept: Kept, tags: WireTags | None) -> None:
    """Raises `NotFound` where the machine carries other tags. An empty intent matches any."""
    if tags is None:
        return
    request = kept.request
    carried = WireTags(
        cluster=request.cluster,
        installation=request.installation,
        pool=request.pool,
        node=request.node,
        generation=request.generation,
        intent=request.token if tags.intent else "",
    )
    if carried != tags:
        raise NotFound(f"machine {kept.instance_id} carries other tags: {carried}")


def _differences(before: Kept, new: Kept) -> str:
    one, other = structs.asdict(before.request), structs.asdict(new.request)
    changed = ", ".join(
        f"{name} was {one[name]!r:.60}, is {other[name]!r:.60}" for name in one if one[name] != other[name]
    )
    return f"token {new.request.token} launched {before.instance_id} already, with other parameters: {changed}"
