"""The limiter: what keeps `desired` from what a strategy wants. Pure.

In this order: the bounds of the pool, freshness (stale inputs never lower), cooldown, the step. Bounds win over
everything: a pool under its minimum is raised at once.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from navarch_autoscaler.strategies.base import PoolInputs
from navarch_common.config.units import Share, format_duration
from navarch_common.model.pool import Opinion


@dataclass(frozen=True, slots=True)
class Limits:
    cooldown: timedelta
    """Between two scalings, up or down; zero means none."""
    max_step_up: Share
    scaled_at: datetime | None
    """When `desired` last changed; None: never."""
    raised_at: datetime | None = None
    """When it was last raised; None: never."""


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
            inputs.desired, "stale-input", f"{bounded.desired} node(s) would do, but the data is not complete: no less"
        )
    if limits.scaled_at is not None and inputs.now < limits.scaled_at + limits.cooldown:
        rest = limits.scaled_at + limits.cooldown - inputs.now
        return Sized(
            inputs.desired,
            "cooldown",
            f"{bounded.desired} node(s) wanted; the cooldown of {format_duration(limits.cooldown)} "
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
    """At most one step over what is usable: nodes of an earlier raise that have not come yet are no ground to build on,
    so that one message, looked at again and again, moves the pool by one step alone."""
    standing = inputs.desired if limits.raised_at is None else min(inputs.desired, inputs.usable)
    highest = max(inputs.desired, standing + limits.max_step_up.of(standing))
    highest = min(highest, inputs.desired + limits.max_step_up.of(inputs.desired))
    if bounded.desired > highest:
        return Sized(highest, "max-step-up", f"{bounded.desired} node(s) wanted; max_step_up allows {highest} for now")
    return bounded
