"""The store as one process reaches it: a real in-memory connection, with the air between."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from navarch_common.clock import Clock
from navarch_common.events.subjects import Subjects
from navarch_common.model.base import Family, Key, R
from navarch_common.store.base import Commit, Committed, Stored, StoreError, StoreUnavailable
from navarch_common.store.encoding import Bound, Prepared, prepare, split_value
from navarch_common.store.memory import Contents, MemoryServer, MemoryStore
from navarch_sim.virtual.air import Air, later
from navarch_sim.virtual.process import OWNER, SimProcess

COMMIT_TIMEOUT_S = 5.0
"""As the real client's socket: after it a commit is unknown."""


@dataclass(frozen=True, slots=True)
class Applied:
    """One commit, as it was applied."""

    process: SimProcess | None
    commit: Commit
    committed: Committed


class SimStoreServer(MemoryServer):
    """The shared state, and whoever must hear of each change."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.on_commit: list[Callable[[Applied], None]] = []
        self.before_commit: list[Callable[[SimProcess, Commit], bool]] = []
        """Asked when a process is about to send a commit; True where it stands still first."""
        self.hangs = False
        """Down in the way that answers nothing, instead of refusing connections."""
        self.backups: list[tuple[float, Contents]] = []
        """With the loop's time at which each was made, oldest first."""
        self.backed_up_s = float("-inf")
        self.decoded: dict[str, tuple[bytes, Stored[Any]]] = {}
        """By path, what was decoded last and from which bytes: records are values, so that all who read may share them."""

    def apply_from(self, process: SimProcess | None, prepared: Prepared, bound: Bound) -> Committed:
        committed = self.apply(prepared, bound)
        for listener in self.on_commit:
            listener(Applied(process, prepared.commit, committed))
        return committed

    def all_of(self, family: Family[R]) -> list[R]:
        """Every record of a family, as it is now."""
        prefix = family.name + "/"
        values = self.contents.values.items()
        return [family.decode(split_value(value).data) for path, value in values if path.startswith(prefix)]

    def come_back(self) -> None:
        """The outage is over, and everything is there."""
        self.up = True


class SimStore(MemoryStore):
    """One connection over bad air. Commits arrive, or not, whatever becomes of who sent them."""

    def __init__(self, server: SimStoreServer, subjects: Subjects, air: Air) -> None:
        super().__init__(server.clock, server=server, subjects=subjects)
        self._shared, self._air = server, air

    async def commit(self, commit: Commit) -> Committed:
        prepared = prepare(commit, self.subjects)
        air, process = self._air, OWNER.get()
        if process is not None and any(ask(process, commit) for ask in self._shared.before_commit):
            await asyncio.sleep(0)
        await self._arrives()
        answer: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        bound = self._bound.for_commit(commit)

        def arrive() -> None:
            if not self._shared.up:
                return
            result, error = None, None
            try:
                result = self._shared.apply_from(process, prepared, bound)
            except StoreError as refusal:
                error = refusal
            if not air.strikes(air.lost_reply, "lost-reply"):
                later(air.travel_s(), _answer, answer, result, error)

        if not air.strikes(air.lost_request, "lost-request"):
            late_s = air.rng.uniform(0.0, air.request_late_s) if air.strikes(air.late_request, "late-request") else 0.0
            later(air.travel_s() + late_s, arrive)
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                committed = await answer
        except TimeoutError as error:
            raise StoreUnavailable(f"no answer to a commit within {COMMIT_TIMEOUT_S:g} s") from error
        self._bound = self._bound.after(bound, committed.commits)
        return committed

    def _decoded(self, key: Key[R], value: bytes) -> Stored[R]:
        known = self._shared.decoded.get(key.path)
        if known is None or known[0] is not value:
            known = self._shared.decoded[key.path] = (value, super()._decoded(key, value))
        return known[1]

    async def _travel(self) -> None:
        await self._air.pause()
        await self._arrives()

    async def _travel_back(self) -> None:
        """In good air the reply is here at once; others had their turn on the way there."""
        if self._air.latency_s:
            await self._travel()

    async def _arrives(self) -> None:
        if self._closed:
            raise StoreUnavailable("the connection is closed")
        if self._shared.up:
            return
        if self._shared.hangs:
            await asyncio.sleep(COMMIT_TIMEOUT_S)
        raise StoreUnavailable("the store does not answer")


def _answer(answer: "asyncio.Future[Committed]", result: Committed | None, error: StoreError | None) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        assert result is not None
        answer.set_result(result)
