"""The port to a cloud: launch, find, list, terminate. One error taxonomy for all of them.

What it promises, and every adapter keeps (`tests/contract/test_cloud.py`):

- `launch` with a token that was used before returns the same machine, or `InvalidLaunch` where the parameters differ.
  A cloud without tokens leaves that to the caller, who asks `find` before every retry.
- Every machine carries the tags of `Tags`, from the very call that makes it.
- `list_machines` is complete or raises: a short list is an error, never "gone".
- `terminate` acts only where the tags match, and succeeds on what is already gone.
- A call whose outcome is not known raises `UnknownOutcome`, never `Upstream`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from navarch_common.clock import Clock
from navarch_common.errors import NavarchError
from navarch_common.model.node import LaunchRequest, ProviderState


class CloudError(NavarchError):
    """The root of what a cloud may answer. `code` is stable and goes into events."""

    code = "cloud-error"


class NoCapacity(CloudError):
    code = "no-capacity"

    def __init__(
        self, message: str, *, scope: Literal["zone", "region", "type"] = "region", ttl: timedelta | None = None
    ) -> None:
        super().__init__(message)
        self.scope, self.ttl = scope, ttl


class QuotaExceeded(CloudError):
    code = "quota"


class Throttled(CloudError):
    code = "throttled"

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotAuthorized(CloudError):
    code = "auth"


class InvalidLaunch(CloudError):
    """The cloud will never accept this request: trying again is of no use."""

    code = "invalid-config"


class Upstream(CloudError):
    """The cloud failed and made nothing: try again later."""

    code = "upstream"


class NotFound(CloudError):
    code = "not-found"


class UnknownOutcome(CloudError):
    """The call may or may not have had its effect: look before doing anything else."""

    code = "unknown-outcome"


@dataclass(frozen=True, slots=True)
class Tags:
    """Whose a machine is. Only machines of our cluster and installation are ever touched."""

    cluster: str
    installation: str
    pool: str
    node: str
    generation: int
    intent: str
    """The launch's token."""

    def match(self, carried: "Tags") -> bool:
        """Whether a machine that carries those tags is meant. An empty intent means that it is not on record."""
        return carried == (self if self.intent else replace(self, intent=carried.intent))


@dataclass(frozen=True, slots=True)
class ProviderContext:
    """What an adapter is made with besides its settings."""

    data_dir: Path
    """The data directory of the whole installation; an adapter keeps to a directory of its own in it."""
    clock: Clock
    rng: random.Random


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine as its cloud tells it."""

    instance_id: str
    provider_id: str
    tags: Tags
    state: ProviderState
    instance_type: str
    region: str
    zone: str
    address: str
    price_per_hour: float | None
    launched_at: datetime


class CloudProvider(Protocol):
    """One account at one cloud. `name` is its name in the configuration."""

    @property
    def name(self) -> str: ...

    async def launch(self, request: LaunchRequest) -> Machine:
        """Makes the machine, or returns the one that this token made. Raises any `CloudError`."""
        ...

    async def find(self, token: str) -> Machine | None:
        """The machine that this intent made, or None where the cloud is certain that there is none."""
        ...

    async def list_machines(self, cluster: str) -> Sequence[Machine]:
        """Every machine tagged with the cluster, of whatever installation. Complete, or raises."""
        ...

    async def get(self, instance_id: str) -> Machine | None:
        """One machine; None (or state `gone`) where the cloud is certain that it no longer exists."""
        ...

    async def terminate(self, instance_id: str, tags: Tags) -> None:
        """Ends the machine whose tags match. Nothing happens where it is already gone. Raises `NotFound` where a machine
        of that id carries other tags."""
        ...

    async def power_off(self, instance_id: str, tags: Tags) -> None:
        """Stops the machine so that `power_on` can boot it again. Raises `InvalidLaunch` where the cloud cannot."""
        ...

    async def power_on(self, instance_id: str, tags: Tags) -> None: ...

    async def close(self) -> None: ...


@runtime_checkable
class HostedHere(Protocol):
    """What a provider offers besides whose machines may run on this computer, and then go down with a clean stop."""

    @property
    def hosted_here(self) -> bool: ...

    async def shut_down(self, cluster: str) -> None:
        """Powers off all machines of `cluster`, whatever made or ended them a moment ago: when it returns, none of them
        runs, and no earlier call makes another. Machines that were being terminated are ended. Raises `CloudError`."""
        ...
