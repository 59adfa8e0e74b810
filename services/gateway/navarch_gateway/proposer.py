"""Watches the proposed configuration file and commits what it says. See `proposal`."""

import asyncio
from collections.abc import Collection, Mapping
from pathlib import Path

import structlog

from navarch_common.config.load import Loaded, load_file, load_text
from navarch_common.config.problems import ConfigError
from navarch_common.config.watch import watch
from navarch_common.model.cluster import ConfigRecord
from navarch_common.run import Deps
from navarch_common.store.base import Conflict, Stored, StoreError
from navarch_gateway import proposal

log = structlog.get_logger(__name__)

READ_TIMEOUT_S = 5.0
RETRY_S = 1.0


class Proposer:
    """One file's way into force. Several gateways may propose the same file: the first commits it, the rest see it done."""

    def __init__(self, deps: Deps, path: Path, env: Mapping[str, str], *, insecure: bool = False) -> None:
        self._deps, self._path, self._env, self._insecure = deps, path, env, insecure
        self.last_error = ""
        """Why the file as it is now is not in force; empty when it is."""

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
                if isinstance(outcome, ConfigError):
                    await self._rejected(outcome, fatal=False)
                else:
                    await self._take(outcome)
                return
            except (StoreError, TimeoutError) as error:
                log.warning("the configuration file waits for the store", file=str(self._path), error=str(error))
                await asyncio.sleep(RETRY_S)

    async def _take(self, loaded: Loaded) -> None:
        while True:
            found = await self._current()
            pools = await asyncio.to_thread(self._pools_of, found.record.text) if found is not None else ()
            commit = proposal.apply(found, loaded, str(self._path), self._deps.cluster, self._deps.clock.now(), pools)
            self.last_error = ""
            if commit is None:
                return
            try:
                revision = await self._deps.committer.commit(commit)
            except Conflict:
                continue
            log.info("configuration in force", file=str(self._path), sha256=loaded.sha256[:12], revision=revision)
            return

    def _pools_of(self, text: str) -> Collection[str]:
        """The pools of the generation in force. None are known where its text cannot be used here any more."""
        try:
            return load_text(text, str(self._path), self._env, insecure=self._insecure).config.pools.keys()
        except ConfigError:
            return ()

    async def _rejected(self, error: ConfigError, *, fatal: bool) -> None:
        self.last_error = str(error)
        found = await self._current()
        if found is None:
            if fatal:
                raise error
            return
        log.error("configuration refused", file=str(self._path), error=str(error), in_force=found.record.generation)
        commit = proposal.reject(found, error, str(self._path), self._deps.cluster, self._deps.clock.now())
        await self._deps.committer.commit(commit)

    async def _current(self) -> Stored[ConfigRecord] | None:
        async with asyncio.timeout(READ_TIMEOUT_S):
            return await self._deps.store.get(proposal.CURRENT)
