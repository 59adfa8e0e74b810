"""Watches the proposed configuration file and commits what it says. See `proposal`."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import structlog

from navarch_common.bus.base import BusError
from navarch_common.config.load import Loaded, load_file
from navarch_common.config.problems import ConfigError
from navarch_common.config.watch import watch
from navarch_common.model.cluster import ConfigRecord
from navarch_common.run import Deps
from navarch_common.store.base import Commit, Conflict, Stored, StoreError
from navarch_gateway import audits, proposal
from navarch_gateway.config_keeper import LOOK_S, ConfigKeeper, remember
from navarch_gateway.takings import Pools, is_too_much
from navarch_gateway.weighing import weigh

log = structlog.get_logger(__name__)

READ_TIMEOUT_S = 5.0
RETRY_S = 1.0


class Proposer:
    """One file's way into force. Several gateways may propose the same file: the first commits it, the rest see it done."""

    def __init__(self, deps: Deps, path: Path, env: Mapping[str, str], *, insecure: bool = False) -> None:
        self._deps, self._path, self._env, self._insecure = deps, path, env, insecure
        self._keeper = ConfigKeeper(deps)
        self._lock = asyncio.Lock()
        self._said: Loaded | None = None
        """What the file says; None where that is wrong."""
        self._life = ""
        """The life of the store in which the file was looked at last."""
        self.last_error = ""
        """What is wrong with the file as it is now; empty where nothing is."""

    async def first(self) -> None:
        """Brings the file into force at start. Raises `ConfigError` where it is wrong and nothing is in force yet."""
        try:
            loaded = await asyncio.to_thread(load_file, self._path, self._env, insecure=self._insecure)
        except ConfigError as error:
            await self._rejected(error, fatal=True)
            return
        await self._take(loaded)

    async def run(self) -> None:
        """Takes over each change of the file, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(), name="gateway-config-file")
            tasks.create_task(self._propose_again(), name="gateway-config-again")

    async def _propose_again(self) -> None:
        """In a new life of the store, which may have forgotten that the file waits for an operator, or that it does not."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._deps.store.incarnation != self._life:
                try:
                    async with self._lock:
                        if self._said is not None:
                            await self._take(self._said)
                except (BusError, StoreError, TimeoutError) as error:
                    log.warning("the file could not be proposed again", file=str(self._path), error=str(error))

    async def _follow(self) -> None:
        found = await self._current()
        known = found.record.sha256 if found is not None and not self.last_error else None
        told = self.last_error
        async for outcome in watch(self._path, self._env, known_sha256=known, insecure=self._insecure):
            if isinstance(outcome, ConfigError):
                if str(outcome) != told:
                    await self._until_done(outcome)
                told = str(outcome)
            else:
                await self._until_done(outcome)
                told = ""

    async def _until_done(self, outcome: Loaded | ConfigError) -> None:
        """A store that is away delays a change of the file, and loses none."""
        while True:
            try:
                async with self._lock:
                    if isinstance(outcome, ConfigError):
                        await self._rejected(outcome, fatal=False)
                    else:
                        await self._take(outcome)
                return
            except (BusError, StoreError, TimeoutError) as error:
                log.warning("the configuration file waits for the store", file=str(self._path), error=str(error))
                await asyncio.sleep(RETRY_S)

    async def _take(self, loaded: Loaded) -> None:
        self._said = loaded
        while True:
            # What the store has lost is put back first: a file is compared with what is in force, never with nothing.
            found = await self._keeper.kept()
            life = self._deps.store.incarnation
            commit = await self._decide(found, loaded)
            self.last_error = ""
            if commit is None:
                self._life = life
                return
            try:
                revision = await self._deps.committer.commit(commit)
            except Conflict:
                continue
            self._life = life
            record = commit.put.get(proposal.CURRENT)
            if isinstance(record, ConfigRecord):
                await remember(self._deps, record)
                log.info("configuration in force", file=str(self._path), sha256=loaded.sha256[:12], revision=revision)
            elif commit.emit:
                log.warning("configuration held", file=str(self._path), reason=commit.emit[0].reason)
            return

    async def _decide(self, found: Stored[ConfigRecord] | None, loaded: Loaded) -> Commit | None:
        """The commit for the file as it is; None where all is said."""
        deps, source, now = self._deps, str(self._path), self._deps.clock.now()
        async with asyncio.timeout(READ_TIMEOUT_S):
            proposed = await deps.store.get(proposal.PROPOSED)
        if found is None or found.record.sha256 == loaded.sha256:
            commit = proposal.apply(found, loaded, source, deps.cluster, now, proposed=proposed)
            return None if commit is None else _audited(commit, found)
        if proposal.stands(found, proposed, loaded):
            return None
        old = await self._pools_of(found.record.text)
        weighed = await weigh(deps, old, loaded.config.pools)
        if any(is_too_much(one) for one in weighed.takings):
            return proposal.hold(found, loaded, source, deps.cluster, now, old, proposed, weighed.takings)
        applied = proposal.apply(found, loaded, source, deps.cluster, now, old, proposed)
        assert applied is not None, "it is another text than the one in force"
        return _audited(replace(applied, expect={**applied.expect, **weighed.expect}), found)

    async def _pools_of(self, text: str) -> Pools:
        """The pools of the generation in force. None are known where its text cannot be used here any more."""
        try:
            return (await self._deps.config.load(text, str(self._path))).config.pools
        except ConfigError:
            return {}

    async def _rejected(self, error: ConfigError, *, fatal: bool) -> None:
        self.last_error, self._said = str(error), None
        found = await self._current()
        if found is None:
            if fatal:
                raise error
            return
        log.error("configuration refused", file=str(self._path), error=str(error), in_force=found.record.generation)
        while True:
            async with asyncio.timeout(READ_TIMEOUT_S):
                found = await self._deps.store.get(proposal.CURRENT)
                proposed = await self._deps.store.get(proposal.PROPOSED)
            if found is None:
                return
            now = self._deps.clock.now()
            commit = proposal.reject(found, error, str(self._path), self._deps.cluster, now, proposed)
            with suppress(Conflict):
                await self._deps.committer.commit(commit)
                return

    async def _current(self) -> Stored[ConfigRecord] | None:
        async with asyncio.timeout(READ_TIMEOUT_S):
            return await self._deps.store.get(proposal.CURRENT)


def _audited(commit: Commit, found: Stored[ConfigRecord] | None) -> Commit:
    """With the entry of the configuration that comes into force, where one does."""
    if proposal.CURRENT not in commit.put:
        return commit
    before = found.record if found is not None else None
    entry = audits.entry_of(commit.emit[0], before, commit.put[proposal.CURRENT])
    return replace(commit, emit=(*commit.emit, entry))
