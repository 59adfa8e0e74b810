"""Wishes: what operators and schedulers asked for. Records, so that they outlive their owner's absence."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from navarch_common.ids import Id
from navarch_common.model.base import Actor, Code, Count, Family, Name, Record, Text

NodeVerb = Literal["cordon", "uncordon", "drain", "replace", "terminate"]
ChangeVerb = Literal["approve", "cancel"]
PoolVerb = Literal["scale", "pause", "resume", "close-breaker"]
Outcome = Literal["accepted", "done", "refused", "failed", "expired"]
"""`accepted`: under way. The others are final."""


class Wish(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request. `id` is the caller's request id: the same id again is the same wish."""

    id: Name
    verb: NodeVerb | PoolVerb | ChangeVerb
    actor: Actor
    reason: Text = ""
    at: datetime
    expires_at: datetime
    force: bool = False
    nodes: Count | None = None
    """`scale` alone: the node count that is wanted."""
    hold_until: datetime | None = None
    """`scale` on an autoscaled pool: the strategies are silent until then."""


class Answer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a wish, noted by the service that owns the thing wished for."""

    at: datetime
    outcome: Outcome
    code: Code
    reason: Text


Answers = Annotated[dict[str, Answer], Meta(max_length=64)]
WISHES_MAX = 32


class NodeWishes(Record, frozen=True, kw_only=True, omit_defaults=True):
    """The open wishes about one node, oldest first. Answered ones are taken out by the gateway."""

    node: Id
    pool: Id
    wishes: Annotated[tuple[Wish, ...], Meta(max_length=WISHES_MAX)] = ()


class PoolWish(Record, frozen=True, kw_only=True, omit_defaults=True):
    """The latest wish of one verb about one pool."""

    pool: Id
    wish: Wish


class ChangeWish(Record, frozen=True, kw_only=True, omit_defaults=True):
    """The latest wish about one change that automation holds, or about the replacement of one node."""

    pool: Id
    change: Id
    """Its id; or the node whose replacement is meant."""
    node: Name = ""
    """The node whose replacement is to be stopped; empty where the change is one that waits."""
    wish: Wish


NODE_WISHES = Family("wish/node", NodeWishes, "gateway", pool_of=lambda record: record.pool)
POOL_WISH = Family("wish/pool", PoolWish, "gateway", pool_of=lambda record: record.pool)
CHANGE_WISH = Family("wish/change", ChangeWish, "gateway", pool_of=lambda record: record.pool)
