"""What the fake cloud and its adapter say to each other: JSON over HTTP on the loopback interface."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from navarch_common.model.base import Count, Generation, Name, Ratio, Seconds
from navarch_common.model.node import LaunchRequest, ProviderState

LOST = "the connection was dropped"


class CloudSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the fake cloud behaves."""

    gpu_count: Annotated[int, Meta(ge=1, le=64)] = 8
    """Of machines launched from now on."""
    boot_time_s: Seconds = 2.0
    """From launch or power-on until the machine's agent starts."""
    capacity: Count | None = None
    """Machines that are not gone, in all. None: without bound."""
    failure_rate: Ratio = 0.0
    """Part of the calls that fail and do nothing."""
    lost_reply_rate: Ratio = 0.0
    """Part of the calls that do what they should, and are not answered."""


class WireTags(Struct, frozen=True, kw_only=True):
    cluster: Name
    installation: Name
    pool: Name
    node: Name
    generation: Generation
    intent: Name
    """Empty: any."""


class WireMachine(Struct, frozen=True, kw_only=True):
    instance_id: Name
    request: LaunchRequest
    state: ProviderState
    boots: Count
    boot_id: Name
    launched_at: datetime
    price_per_hour: float


class WireError(Struct, frozen=True, kw_only=True):
    """`code` is that of a `CloudError`."""

    code: str
    text: str
    retry_after_s: float | None = None


class Address(Struct, frozen=True, kw_only=True):
    """What a running cloud writes into its directory: where it is, and which process."""

    url: str
    pid: int
    started_at: float
