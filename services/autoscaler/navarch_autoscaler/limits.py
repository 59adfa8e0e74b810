"""The limiter: what keeps `desired` from what a strategy wants. Pure.

In this order: the bounds of the pool, freshness (stale inputs never lower), cooldown, the step. Bounds win over
everything: a pool under its minimum is raised at once.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from navarch_autoscaler.strategies.base import PoolInputs
from navarch_common.config.units import Share, format_duration
from navarch_common.model.pool import Opinion
from navarch_common.words import counted


@dataclass(frozen=True, slots=True)
class Limits:
    cooldown: timedelta
    """Between two scalings, up or down; zero means none."""
    max_step_up: Share
    scaled_at: datetime | None
    """When `desired` last changed; None: never."""
    raised_at: datetime | None = None
    """When it was last raised; None: never."""
    raised_from: int | None = None
    """What it was before it was first raised on the demand known then; None: not known."""


@dataclass(frozen=True, slots=True)
class Sized:
    """How many nodes there should be, and why it is not what was wanted where it is not."""

    desired: int
    limit: str = ""
    """Code of what bound it; empty where nothing did."""
    limit_reason: str = ""


def limit(opinion: Opinion, inputs: PoolInputs, limits: Limits) -> Sized:
    """The count that the opinion may lead to now."""
    floor = _within_bounds(inputs.desired, inputs)
    if floor.desired != inputs.desired:
        return floor
    if opinion.target is None:
        return Sized(inputs.desired)
    bounded = _within_bounds(opinion.target, inputs)
    if bounded.desired == inputs.desired:
        return Sized(inputs.desired, bounded.limit, bounded.limit_reason)
    if bounded.desired < inputs.desired and not opinion.fresh:
        return Sized(
            inputs.desired,
            "stale-input",
            f"{counted(bounded.desired, 'node')} would do, but the data is not complete: no less",
        )
    if limits.scaled_at is not None and inputs.now < limits.scaled_at + limits.cooldown:
        rest = limits.scaled_at + limits.cooldown - inputs.now
        return Sized(
            inputs.desired,
            "cooldown",
            f"{counted(bounded.desired, 'node')} wanted; the cooldown of {format_duration(limits.cooldown)} "
            f"ends in {format_duration(timedelta(seconds=round(rest.total_seconds())))}",
        )
    return _step(bounded, inputs, limits)


def _within_bounds(target: int, inputs: PoolInputs) -> Sized:
    if target < inputs.min_nodes:
        return Sized(inputs.min_nodes, "min-nodes", f"{target} would be under min_nodes {inputs.min_nodes}")
    if target > inputs.max_nodes:
        return Sized(inputs.max_nodes, "max-nodes", f"{target} would be over max_nodes {inputs.max_nodes}")
    return Sized(target)


def _step(bounded: Sized, inputs: PoolInputs, limits: Limits) -> Sized:
    """At most one step over what is usable: nodes of an earlier raise that have not come yet are no ground to build on.
    And one message, looked at again and again, moves the pool by one step alone."""
    standing = inputs.desired if limits.raised_at is None else min(inputs.desired, inputs.usable)
    highest = max(inputs.desired, standing + limits.max_step_up.of(standing))
    highest = min(highest, inputs.desired + limits.max_step_up.of(inputs.desired))
    if limits.raised_from is not None and already_raised(inputs, limits.raised_at):
        of_message = limits.raised_from + limits.max_step_up.of(limits.raised_from)
        highest = max(inputs.desired, min(highest, of_message))
    if bounded.desired > highest:
        text = f"{counted(bounded.desired, 'node')} wanted; max_step_up allows {highest} until more is heard"
        return Sized(highest, "max-step-up", text)
    return bounded


def already_raised(inputs: PoolInputs, raised_at: datetime | None) -> bool:
    """Whether the pool has been raised since the newest message about its demand came."""
    demand = inputs.demand
    return demand is not None and demand.heard_at is not None and raised_at is not None and raised_at >= demand.heard_at
