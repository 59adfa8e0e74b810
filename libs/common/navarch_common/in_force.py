"""The configuration in force: the generation that the gateway committed last, as this process knows it.

A file is only a proposal. Each process reads `config/current` at start, when an event says that another generation was
applied, and every half minute. Before it takes a generation it makes sure that the bus remembers it (`config.<cluster>`
in the bucket `NAVARCH_STATE`): the highest one that store, bus or this process know is in force, so that it outlives the
loss of the store, from which a gateway puts it back. Text that this process cannot use (a variable is missing here, a newer release wrote it)
leaves the generation before in force, and is told once.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from navarch_common.bus.base import Bus, BusError, BusUnavailable
from navarch_common.config import Config
from navarch_common.config.load import Loaded, load_text
from navarch_common.config.problems import ConfigError
from navarch_common.events.subjects import Subjects
from navarch_common.model.cluster import CONFIG, ConfigRecord
from navarch_common.store.base import StateStore, StoreError
from navarch_common.store.mirror import KvMirror

log = structlog.get_logger()

PERIOD_S = 30.0
FIRST_PERIOD_S = 0.5
FIRST_WAIT_S = 60.0
"""How long a service without a gateway beside it waits for a first committed generation."""


@dataclass(frozen=True, slots=True)
class InForce:
    """A configuration and where it comes from."""

    generation: int
    """0: this process's own file, since none has been committed yet."""
    config: Config
    sha256: str


class ConfigWatch:
    """Follows `config/current`. `current` answers at once; `run` it as a task."""

    def __init__(
        self,
        store: StateStore,
        bus: Bus,
        subjects: Subjects,
        own: Loaded,
        env: Mapping[str, str],
        *,
        insecure: bool = False,
    ) -> None:
        """`own` is this process's file: in force until a generation has been committed."""
        self._store, self._bus, self._subjects = store, bus, subjects
        self._env, self._insecure = env, insecure
        self._current = InForce(0, own.config, own.sha256)
        self._record: ConfigRecord | None = None
        """What was taken over last, for a bus that has forgotten it."""
        self.mirror = KvMirror(bus, subjects, f"config.{own.config.cluster}", ConfigRecord, _newer)
        """What the bus remembers."""
        self._refused = 0
        self._changed = asyncio.Event()

    @property
    def current(self) -> InForce:
        return self._current

    async def load(self, text: str, name: str) -> Loaded:
        """`text` as this process reads it, with its own environment. Raises `ConfigError`."""
        return await asyncio.to_thread(load_text, text, name, self._env, insecure=self._insecure)

    async def wait_change(self, generation: int) -> InForce:
        """Returns what is in force once that is another generation than `generation`."""
        while self._current.generation == generation:
            await self._changed.wait()
        return self._current

    async def open(self, wait_s: float = FIRST_WAIT_S) -> InForce:
        """Reads what is in force. Where nothing has been committed it waits `wait_s`, then takes its own file."""
        deadline = asyncio.get_running_loop().time() + wait_s
        await self.refresh()
        if not self._current.generation and wait_s:
            log.info("waiting for the first committed configuration", wait_s=wait_s)
        while not self._current.generation:
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0:
                if wait_s:
                    log.warning("no configuration was committed: using my own file", waited_s=wait_s)
                break
            await asyncio.sleep(min(FIRST_PERIOD_S, left_s))
            await self.refresh()
        return self._current

    async def refresh(self) -> None:
        """Reads `config/current` now. Raises `StoreError`, and `BusError` where the store has none and the bus cannot be
        asked for what it remembers."""
        stored = await self._store.get(CONFIG.key("current"))
        known = [record for record in (stored.record if stored else None, self._record) if record is not None]
        highest = max(known, key=lambda record: record.generation, default=None)
        try:
            record = (await self.mirror.read())[0] if highest is None else await self.mirror.raise_to(highest)
        except BusError as error:
            if highest is None:
                raise
            # An operator's change does not wait for the bus, which whoever committed it has told already.
            log.info("the bus is not told of the configuration in force", error=str(error))
            record = highest
        if record is not None and record.generation not in (self._current.generation, self._refused):
            await self._take(record)

    async def run(self) -> None:
        """Until cancelled. While the bus is away the store is read all the same."""
        subject = f"{self._subjects.prefix}.events.cluster.config-applied.>"
        told = ""
        while True:
            try:
                await self._follow(subject)
            except BusError as error:
                if str(error) != told:
                    log.warning("configuration not followed", error=str(error))
                    told = str(error)
                await self._refresh_quietly()
                await asyncio.sleep(1.0)

    async def _follow(self, subject: str) -> None:
        async with self._bus.subscribe(subject) as applied:
            while True:
                await self._refresh_quietly()
                try:
                    async with asyncio.timeout(PERIOD_S):
                        await anext(applied)
                except TimeoutError:
                    continue
                except StopAsyncIteration:
                    raise BusUnavailable("the bus was closed") from None

    async def _refresh_quietly(self) -> None:
        try:
            await self.refresh()
        except (BusError, StoreError) as error:
            log.warning("configuration not read", error=str(error))

    async def _take(self, record: ConfigRecord) -> None:
        try:
            name = f"generation {record.generation}"
            loaded = await self.load(record.text, name)
        except ConfigError as error:
            self._refused = record.generation
            log.error(
                "committed configuration cannot be used here",
                generation=record.generation,
                in_force=self._current.generation,
                error=str(error),
            )
            return
        self._current, self._record = InForce(record.generation, loaded.config, loaded.sha256), record
        log.info("configuration in force", generation=record.generation, sha256=loaded.sha256[:12])
        self._changed.set()
        self._changed = asyncio.Event()


def _newer(one: ConfigRecord, other: ConfigRecord) -> bool:
    return one.generation > other.generation
