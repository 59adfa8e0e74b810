"""What a strategy is told, what it answers, and how one is found by the name in the configuration."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.metadata import entry_points

from navarch_common.config.autoscaling import Autoscaling, strategy_name
from navarch_common.errors import NavarchError
from navarch_common.model.pool import Opinion


@dataclass(frozen=True, slots=True)
class Demand:
    """The queue of a pool: its fresh sources added up."""

    queue_depth: int
    sources: int
    """How many sources are fresh."""
    stale: tuple[str, ...] = ()
    """Sources that spoke once and no longer do. Demand with a stale source never lowers a pool."""
    heard_at: datetime | None = field(default=None, compare=False)
    """When the newest of it was heard."""


@dataclass(frozen=True, slots=True)
class Utilization:
    """Mean GPU utilization over the pool's usable nodes."""

    ratio: float
    """0 to 1, the mean over all GPUs that were read."""
    nodes: int
    """Nodes that the mean rests on."""
    silent: int = 0
    """Usable nodes without a fresh reading. With one of them the mean never lowers a pool."""


@dataclass(frozen=True, slots=True)
class Found:
    """What has been found again since the records were lost."""

    nodes: int
    since: datetime
    """When safe mode began."""


@dataclass(frozen=True, slots=True)
class PoolInputs:
    """What is known of a pool when it is sized."""

    pool: str
    now: datetime
    min_nodes: int
    max_nodes: int
    desired: int
    """What is wanted at present."""
    usable: int
    """Active and not cordoned, not draining."""
    coming: int
    """Planned, launching, booting or validating: supply on its way, counted once."""
    demand: Demand | None
    """None: nobody fresh has said anything."""
    utilization: Utilization | None
    """None: no usable node has a fresh reading."""
    found: Found | None = None
    """None: no records were lost."""


Strategy = Callable[[Autoscaling, PoolInputs], Opinion]
"""Answers a target and a reason. A target of None is no opinion: the pool keeps its size. Reads no clock."""


class UnknownStrategy(NavarchError):
    """The configuration names a strategy that is not installed."""


def strategy(autoscaling: Autoscaling) -> Strategy:
    """The function behind a pool's `autoscaling`, from the entry-point group `navarch.autoscalers`."""
    return _installed(strategy_name(autoscaling))


@cache
def _installed(name: str) -> Strategy:
    """Looked for once: what is installed does not change under a process, and asking reads every distribution's files."""
    found = entry_points(group="navarch.autoscalers", name=name)
    if not found:
        installed = ", ".join(sorted(entry_points(group="navarch.autoscalers").names))
        raise UnknownStrategy(f"autoscaling type {name!r} is not installed; installed: {installed}")
    loaded: Strategy = next(iter(found)).load()
    return loaded
