"""What every record has in common: its type, its family, and how a key names it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

Service = Literal["agent", "health", "autoscaler", "provisioner", "gateway"]
"""The services that exist. Each family of records is written by one of them."""

Text = Annotated[str, Meta(max_length=1024)]
"""A sentence for people."""
Name = Annotated[str, Meta(max_length=256)]
"""A name that the outside gave: a host name, a cloud's instance id, an instance type. Not ours to restrict further."""
Code = Annotated[str, Meta(max_length=64, pattern=r"\A[a-z0-9][a-z0-9._-]*\Z")]
"""A stable, machine-readable word for a reason: `xid-79`, `budget-exhausted`."""
Actor = Annotated[str, Meta(max_length=128, pattern=r"\A[a-z]+(:[^\x00-\x1f\x7f]{1,100})?\Z")]
"""Who did it: a service's name, `operator:NAME`, `kubernetes`, `slurm`."""
Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Generation = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Sequence = Annotated[int, Meta(ge=0, le=2**53)]
Revision = Annotated[int, Meta(ge=0, le=2**53)]
"""A store revision: max(previous + 1, server time in microseconds). 0 means that there is no record."""
Ratio = Annotated[float, Meta(ge=0.0, le=1.0)]
Seconds = Annotated[float, Meta(ge=0.0, le=315_360_000.0)]
"""A duration, at most ten years."""
Dollars = Annotated[float, Meta(ge=0.0, le=1_000_000.0)]
Pci = Annotated[str, Meta(max_length=32)]
"""A PCI address as lower-case `dddd:bb:dd` without function; the domain may be longer than four digits."""
TraceParent = Annotated[str, Meta(max_length=64)]
"""A W3C `traceparent`, or empty."""


class Record(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record: what one service knows about one thing. Stored as JSON beside its revision and its schema number."""


R = TypeVar("R", bound=Record)
R_co = TypeVar("R_co", bound=Record, covariant=True)


@dataclass(frozen=True, slots=True)
class Family(Generic[R]):
    """All records of one type: which service writes them, their schema number, and which pool one belongs to."""

    name: str
    record: type[R]
    writer: Service | None
    """The one service that writes them; None where the commit itself guards them."""
    schema: int = 1
    """Rises when a record gains a meaning that an older release must not overwrite. See ARCHITECTURE.md, Versions."""
    pool_of: Callable[[R], str] | None = None
    """Tells a record's pool, for the index by pool; None where records have none."""

    def key(self, *parts: str) -> "Key[R]":
        return Key(self, "/".join((self.name, *parts)))

    def encode(self, record: R) -> bytes:
        return msgspec.json.encode(record)

    def decode(self, data: bytes) -> R:
        """Raises `msgspec.ValidationError` or `msgspec.DecodeError` on what is no such record. Ignores unknown fields."""
        return msgspec.json.decode(data, type=self.record)


@dataclass(frozen=True, slots=True)
class Key(Generic[R]):
    """Names one record: `node/training-k7x2mpd`."""

    family: Family[R]
    path: str

    def __str__(self) -> str:
        return self.path

    @property
    def name(self) -> str:
        """What follows the family's name: `training-k7x2mpd`."""
        return self.path.removeprefix(self.family.name + "/")


AnyKey = Key[Any]


class Reason(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why something is as it is: what `navarch explain` prints. Written for the operator at 3 am."""

    at: datetime
    code: Code
    text: Text
    actor: Actor
    trace: TraceParent = ""


REASONS_MAX = 20
"""How many reasons a record keeps: the newest."""


def with_reason(reasons: tuple[Reason, ...], reason: Reason) -> tuple[Reason, ...]:
    """Adds `reason`, newest last; the same code and text again only renews nothing, so that a loop cannot flood the list."""
    if reasons and reasons[-1].code == reason.code and reasons[-1].text == reason.text:
        return reasons
    return (*reasons, reason)[-REASONS_MAX:]
