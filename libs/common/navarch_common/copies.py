"""Which copies of a service live, and how each is: every copy says so once a second, judged by the store's clock.

A copy that says nothing for three seconds is gone: its pools are divided among the others (`leases`), and `navarch status`
shows it no more. What it says of itself is for people, but for `deaf`: while all of health is away or deaf, no machine can
be found healthy, and none is given up for that.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

import msgspec
import structlog
from msgspec import Struct

from navarch_common.model.base import Service
from navarch_common.reconcile import ReconcileResult
from navarch_common.store.base import Announced, StateStore, StoreError

if TYPE_CHECKING:
    from navarch_common.run import Deps

TTL = timedelta(seconds=3)
"""Shorter than a lease, so that nobody waits for a dead copy to take what it let go of."""
PERIOD_S = 1.0
RESULTS_MAX = 64
"""Results that a copy tells of: failed ones first."""
ERROR_MAX = 300

log = structlog.get_logger(__name__)


class Result(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the last pass of one loop did."""

    name: str
    at: datetime
    took_s: float
    outcome: Literal["done", "failed"]
    error: str = ""
    failures: int = 0
    counts: dict[str, int] = {}


class CopyReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one copy of a service says of itself."""

    service: str
    instance: str
    version: str = ""
    since: datetime
    """When it started, by its own clock."""
    at: datetime
    ready: bool = False
    deaf: str = ""
    """Why it concludes nothing now from what it does not hear; empty where it does. Health's alone."""
    config_generation: int = 0
    results: tuple[Result, ...] = ()
    facts: dict[str, str | int | float | bool | None] = {}
    """What else is worth knowing: `verdicts_suspended` of health, the addresses of a gateway."""


@dataclass(frozen=True, slots=True)
class Member:
    """A service as its announcement sees it."""

    ready: Callable[[], bool]
    results: Callable[[], Iterable[tuple[str, ReconcileResult | None]]]
    """Each loop's name with what its last pass did."""
    facts: Callable[[], Mapping[str, str | int | float | bool | None]] = dict
    deaf: Callable[[], str] = str
    """As `CopyReport.deaf`; never deaf where it is not given."""


class Presence:
    """Announces one copy of one service. Run by the service itself, as a task named `presence`."""

    def __init__(self, deps: "Deps", service: Service, member: Member) -> None:
        self._deps, self._service, self._member = deps, service, member
        self._name = f"{service}/{deps.instance}"
        self._version = version("navarch-common")  # Read once: asking parses the distribution's metadata each time.
        self._since = deps.clock.now()

    async def run(self) -> None:
        """Until cancelled, over outages of the store; withdraws at the end."""
        complained = False
        try:
            while True:
                try:
                    await self.announce()
                except StoreError as error:
                    if not complained:
                        log.warning("copy not announced", copy=self._name, error=str(error))
                    complained = True
                else:
                    complained = False
                await asyncio.sleep(PERIOD_S)
        finally:
            await self._withdraw()

    async def announce(self) -> None:
        """Says once that this copy lives. Raises `StoreError`."""
        await self._deps.store.announce(self._name, msgspec.json.encode(self.report()), TTL)

    def report(self) -> CopyReport:
        return CopyReport(
            service=self._service,
            instance=self._deps.instance,
            version=self._version,
            since=self._since,
            at=self._deps.clock.now(),
            ready=self._member.ready(),
            deaf=self._member.deaf()[:ERROR_MAX],
            config_generation=self._deps.config.current.generation,
            results=_results(self._member.results()),
            facts=dict(self._member.facts()),
        )

    async def _withdraw(self) -> None:
        try:
            async with asyncio.timeout(1.0):
                await self._deps.store.withdraw(self._name)
        except (StoreError, TimeoutError) as error:
            log.debug("copy not withdrawn; it is forgotten by itself", copy=self._name, error=str(error))


async def living(store: StateStore, service: Service | None = None) -> list[CopyReport]:
    """Every copy that lives, of one service or of all. Raises `StoreError`."""
    said = await store.announced(f"{service}/" if service else "")
    return [report for one in said if (report := _read(one)) is not None]


def _read(said: Announced) -> CopyReport | None:
    """A copy of a later release may say things that cannot be read; that it lives is known all the same to `leases`."""
    try:
        return msgspec.json.decode(said.data, type=CopyReport)
    except (msgspec.DecodeError, RecursionError) as error:
        log.warning("a copy says what cannot be read", copy=said.name, error=str(error))
        return None


def _results(last: Iterable[tuple[str, ReconcileResult | None]]) -> tuple[Result, ...]:
    results = [
        Result(
            name=name,
            at=one.at,
            took_s=one.took_s,
            outcome=one.outcome,
            error=one.error[:ERROR_MAX],
            failures=one.failures,
            counts=one.counts,
        )
        for name, one in last
        if one is not None
    ]
    results.sort(key=lambda result: (result.outcome == "done", result.name))
    return tuple(sorted(results[:RESULTS_MAX], key=lambda result: result.name))
