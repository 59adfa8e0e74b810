"""What every event has in common. An event is a fact in the past; outsiders subscribe to them, so names never change.

The `type` on the wire (`node.failed.v1`) is the Struct's tag; the subject follows from it:
`navarch.events.node.failed.<pool>.<node>`. `id` and `rev` are filled in when the commit that tells of it is durable.
"""

from datetime import datetime
from typing import Annotated, ClassVar

from msgspec import Meta, Struct

from navarch_common.model.base import Actor, Code, Name, Revision, Text

POOL_NONE = "_all"
"""Stands in a subject where an event has no pool; never a valid id."""

EventId = Annotated[str, Meta(max_length=64)]


class Event(Struct, frozen=True, kw_only=True, tag_field="type"):
    """A fact that Navarch tells. All fields are always sent."""

    KIND: ClassVar[str] = ""
    """`node.failed`: what the subject says. The tag is `KIND.v1`."""

    id: EventId = ""
    """`<rev>-<n>`: unique for ever, the same on every repeat, also the `Nats-Msg-Id`."""
    at: datetime
    cluster: Name
    pool: Name = ""
    node: Name = ""
    reason: Text
    code: Code
    actor: Actor
    rev: Revision = 0
    """The store's revision of the commit. First copies of one node's events arrive in this order."""
    trace_id: Annotated[str, Meta(max_length=32)] = ""
