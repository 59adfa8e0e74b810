"""The cloud's memory on disk: SQLite, one writer, every commit forced to the disk.

What changed while one commit was under way goes into the next, so a thousand launches at once cost a few commits. Nobody
is answered before what the answer tells of is on disk (`settled`).
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from navarch_provisioner.cloud.fake_wire import Weather
from navarch_sim.fake_cloud.world import FakeMachine

log = structlog.get_logger("navarch.fake_cloud")

R = TypeVar("R")

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS machines (instance_id TEXT PRIMARY KEY, token TEXT NOT NULL UNIQUE, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS weather (one INTEGER PRIMARY KEY CHECK (one = 1), body BLOB NOT NULL);
"""
_PUT = """
INSERT INTO machines VALUES (?, ?, ?)
ON CONFLICT (instance_id) DO UPDATE SET body = excluded.body
"""


class Ledger:
    """Machines and the weather in one file. All of SQLite happens in one thread of its own."""

    def __init__(self, path: Path, kept: Callable[[FakeMachine], None]) -> None:
        """`kept` hears of each machine once its latest change is on disk."""
        self._path = path
        self._kept = kept
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        self._database: sqlite3.Connection | None = None
        self._machines: dict[str, FakeMachine] = {}
        self._forgotten: list[str] = []
        self._weather: Weather | None = None
        self._changes = self._saved = 0
        self._dirty = asyncio.Event()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self.commits = 0

    async def open(self) -> tuple[list[FakeMachine], Weather | None]:
        """What is on disk. A damaged file is set aside: then the machines that it told of are gone."""
        try:
            return await self._in_thread(self._open)
        except (sqlite3.DatabaseError, msgspec.DecodeError) as error:
            aside = self._path.with_name(f"{self._path.name}.damaged-{time.time_ns()}")
            log.error("the cloud's memory is damaged, begins empty", why=str(error), kept_as=str(aside))
            await self._in_thread(partial(self._set_aside, aside))
        return await self._in_thread(self._open)

    def put(self, machine: FakeMachine) -> None:
        self._machines[machine.instance_id] = machine
        self._touch()

    def put_weather(self, weather: Weather) -> None:
        self._weather = weather
        self._touch()

    def forget(self, instance_ids: list[str]) -> None:
        if instance_ids:
            self._forgotten += instance_ids
            self._touch()

    async def settled(self) -> None:
        """Returns when all that has changed so far is on disk."""
        if self._saved < self._changes:
            saved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((self._changes, saved))
            await saved

    async def run(self) -> None:
        """Writes until cancelled. A disk that refuses ends the process: it would promise what it cannot keep."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await self._flush()

    async def close(self) -> None:
        """Writes what is left."""
        try:
            await self._flush()
        finally:
            await self._in_thread(self._close)
            self._thread.shutdown()

    def _touch(self) -> None:
        self._changes += 1
        self._dirty.set()

    async def _flush(self) -> None:
        if self._saved == self._changes:
            return
        machines, self._machines = self._machines, {}
        forgotten, self._forgotten = self._forgotten, []
        weather, self._weather = self._weather, None
        upto = self._changes
        await asyncio.shield(self._in_thread(partial(self._commit, list(machines.values()), forgotten, weather)))
        self._saved = upto
        self.commits += 1
        for machine in machines.values():
            self._kept(machine)
        for _, saved in [entry for entry in self._waiting if entry[0] <= upto]:
            if not saved.done():
                saved.set_result(None)
        self._waiting = [entry for entry in self._waiting if entry[0] > upto]

    def _in_thread(self, act: Callable[[], R]) -> "asyncio.Future[R]":
        return asyncio.get_running_loop().run_in_executor(self._thread, act)

    def _open(self) -> tuple[list[FakeMachine], Weather | None]:
        database = self._database = sqlite3.connect(self._path, isolation_level=None)
        database.executescript(_SCHEMA)
        (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        rows = database.execute("SELECT body FROM machines ORDER BY rowid").fetchall()
        machines = [msgspec.json.decode(body, type=FakeMachine) for (body,) in rows]
        weather = database.execute("SELECT body FROM weather").fetchone()
        return machines, None if weather is None else msgspec.json.decode(weather[0], type=Weather)

    def _commit(self, machines: list[FakeMachine], forgotten: list[str], weather: Weather | None) -> None:
        assert self._database is not None
        with self._database as database:
            database.execute("BEGIN IMMEDIATE")
            rows = [(m.instance_id, _token(m), msgspec.json.encode(m)) for m in machines]
            database.executemany(_PUT, rows)
            database.executemany("DELETE FROM machines WHERE instance_id = ?", [(name,) for name in forgotten])
            if weather is not None:
                database.execute("INSERT OR REPLACE INTO weather VALUES (1, ?)", (msgspec.json.encode(weather),))

    def _set_aside(self, aside: Path) -> None:
        self._close()
        self._path.rename(aside)
        for suffix in ("-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()


def _token(machine: FakeMachine) -> str:
    """What the table holds to be unique: twins have their tags in common, and so their token."""
    return machine.request.token if machine.copy == 1 else f"{machine.request.token}#{machine.copy}"
