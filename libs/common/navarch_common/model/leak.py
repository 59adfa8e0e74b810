"""Machines that no living record explains, as the provisioner sees them at their providers, and what operators want done."""

from datetime import datetime
from typing import Annotated, Literal
from urllib.parse import quote

from msgspec import Meta, Struct

from navarch_common.model.base import Actor, Code, Count, Dollars, Family, Generation, Key, Name, Record, Text
from navarch_common.model.node import ProviderState

LeakKind = Literal["unrecorded", "ended", "duplicate", "foreign"]
"""`unrecorded`: ours by its tags, and nobody remembers it. `ended`: its node is on record as over. `duplicate`: its node
runs on another machine. `foreign`: it carries our cluster's name and another installation."""
Fate = Literal["wait", "report", "adopt", "collect", "leave"]
"""What the next sweep does about it. `wait`: it was not there long enough. `leave`: it is not ours to touch."""


class LeakRecord(Record, frozen=True, kw_only=True, omit_defaults=True):
    """One such machine, from its first sighting until it is explained or gone."""

    provider: Name
    instance_id: Name
    kind: LeakKind
    installation: Name
    pool: Name = ""
    node: Name = ""
    generation: Generation = 0
    intent: Name = ""
    """The machine's own tags, as they were read."""
    instance_type: Name = ""
    region: Name = ""
    zone: Name = ""
    address: Name = ""
    price_per_hour: Dollars | None = None
    state: ProviderState
    launched_at: datetime
    first_at: datetime
    """When it was first seen without a record."""
    sightings: Count = 1
    """Complete lists that it was in since, counted up to two."""
    told_at: datetime | None = None
    """When it was called leaked."""
    fate: Fate
    code: Code = "none"
    text: Text = ""
    """Why that."""
    asked: Name = ""
    """The request about it that was considered last."""

    @property
    def ours(self) -> bool:
        return self.kind != "foreign"


class LeakWish(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An operator wants these machines adopted, or collected. Each is named as `<provider>/<instance>`."""

    id: Name
    verb: Literal["adopt", "gc"]
    machines: Annotated[tuple[Annotated[str, Meta(max_length=600)], ...], Meta(max_length=1000)]
    actor: Actor
    reason: Text = ""
    at: datetime
    expires_at: datetime


class LeakWishes(Record, frozen=True, kw_only=True, omit_defaults=True):
    """The wishes about leaked machines that have not expired, oldest first."""

    wishes: Annotated[tuple[LeakWish, ...], Meta(max_length=32)] = ()


def _pool_of(record: LeakRecord) -> str:
    return record.pool if record.ours else ""


LEAK = Family("leak", LeakRecord, "provisioner", pool_of=_pool_of)
LEAK_WISHES: Family[LeakWishes] = Family("wish/cluster", LeakWishes, "gateway")


def leak_key(provider: str, instance_id: str) -> Key[LeakRecord]:
    """A cloud's own ids may hold anything; keys may not."""
    return LEAK.key(provider, quote(instance_id, safe="")[:400])


def leak_wishes_key() -> Key[LeakWishes]:
    return LEAK_WISHES.key("leaks")


def machine_name(record: LeakRecord) -> str:
    """How an operator names it."""
    return f"{record.provider}/{record.instance_id}"
