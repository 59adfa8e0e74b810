"""The strategies of `pools.<pool>.autoscaling`, told apart by `type`.

All of the reference's are known here, so that a file is checked as a whole; which of them this installation can run
is another question (`installed.py`).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from navarch_common.config.section import Count, Hour, Percent, Section, Settings, Text


class Strategy(Section, frozen=True, kw_only=True):
    """What all strategies have in common."""

    later: ClassVar[frozenset[str]] = frozenset({"metrics"})


class ReactiveAutoscaling(Strategy, frozen=True, kw_only=True, tag_field="type", tag="reactive"):
    """One node more above a utilization, one less below another."""

    aliases: ClassVar[dict[str, str]] = {
        "scale_up_threshold": "scale_up_at",
        "scale_down_threshold": "scale_down_at",
    }

    scale_up_at: Percent = 80
    """Percent of GPU utilization, strictly above which a node is added."""
    scale_down_at: Percent = 20
    """Percent, strictly below which a node is taken away. It must be under `scale_up_at`."""


class QueueAutoscaling(Strategy, frozen=True, kw_only=True, tag_field="type", tag="queue"):
    """As many nodes as the queue needs."""

    jobs_per_node: Count = 10
    """Queued jobs that one node takes. 0 switches the strategy off."""


Day = Annotated[
    Literal["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    Meta(
        extra={
            "expected": "a day of the week, such as mon or monday",
            "synonyms": {
                "sunday": "sun",
                "monday": "mon",
                "tuesday": "tue",
                "wednesday": "wed",
                "thursday": "thu",
                "friday": "fri",
                "saturday": "sat",
            },
        }
    ),
]
"""A day of the week; full names are read too, in any case."""


class ScheduleEntry(Section, frozen=True, kw_only=True):
    """Bounds that replace the pool's own at certain hours."""

    aliases: ClassVar[dict[str, str]] = {"start_hour": "start", "end_hour": "end"}

    days: tuple[Day, ...] = ()
    """Days of the week, short or in full. None means every day."""
    start: Hour = 0
    """First hour, inclusive."""
    end: Hour = 0
    """Hour at which it is over; 24 is the end of the day."""
    min_nodes: Count = 0
    """Lower bound while it holds."""
    max_nodes: Count = 0
    """Upper bound while it holds."""


class ScheduledAutoscaling(Strategy, frozen=True, kw_only=True, tag_field="type", tag="scheduled"):
    """Other bounds by day and hour; `fallback` decides between them."""

    schedule: tuple[ScheduleEntry, ...] = ()
    """Checked in order; the first that holds now wins."""
    fallback: Autoscaling | None = None
    """Decides within the bounds. None keeps the count inside them."""


class PredictiveAutoscaling(Strategy, frozen=True, kw_only=True, tag_field="type", tag="predictive"):
    """Follows the trend of the last samples."""

    lookback_window: Annotated[int, Meta(ge=1, le=10_000)] = 10
    """Samples of utilization that the trend is taken from."""
    growth_factor: Annotated[float, Meta(ge=0, le=100)] = 1.2
    """How much of the trend is expected to go on."""
    fallback: Autoscaling | None = None
    """Decides while there are too few samples, or no growth. None keeps the count."""


class CompositeAutoscaling(Strategy, frozen=True, kw_only=True, tag_field="type", tag="composite"):
    """Several strategies at once."""

    aliases: ClassVar[dict[str, str]] = {"strategies": "autoscalers"}

    mode: Literal["max", "min", "avg"] = "max"
    """How their targets become one."""
    autoscalers: tuple[Autoscaling, ...] = ()
    """The strategies."""


class ExternalAutoscaling(Strategy, frozen=True, kw_only=True, tag_field="type", tag="external"):
    """A strategy that another distribution brings through the entry-point group `navarch.autoscalers`."""

    strategy: Text
    """The entry point's name: what stands under `type` in the file."""
    settings: Settings = {}
    """All its other keys, unchecked: plain text, numbers, booleans, lists and mappings."""


Autoscaling = (
    ReactiveAutoscaling
    | QueueAutoscaling
    | ScheduledAutoscaling
    | PredictiveAutoscaling
    | CompositeAutoscaling
    | ExternalAutoscaling
)


def strategy_name(autoscaling: Autoscaling) -> str:
    """What the file calls the strategy."""
    if isinstance(autoscaling, ExternalAutoscaling):
        return autoscaling.strategy
    return str(autoscaling.__struct_config__.tag)


def nested(autoscaling: Autoscaling) -> tuple[tuple[str, Autoscaling], ...]:
    """The strategies inside a strategy, each with its key below it."""
    if isinstance(autoscaling, ScheduledAutoscaling | PredictiveAutoscaling):
        return (("fallback", autoscaling.fallback),) if autoscaling.fallback else ()
    if isinstance(autoscaling, CompositeAutoscaling):
        return tuple((f"autoscalers[{index}]", child) for index, child in enumerate(autoscaling.autoscalers))
    return ()
