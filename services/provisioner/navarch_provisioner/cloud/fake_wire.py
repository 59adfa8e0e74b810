"""What the fake provider and its cloud say to each other: JSON over HTTP, under `/v1`.

    POST /v1/machines                          Order -> Machine           launch
    GET  /v1/machines?cluster=&provider=       -> MachineList             all that exist
    GET  /v1/machines/{id}, /v1/tokens?token=  -> Machine, or 404
    POST /v1/machines/{id}/{act}               Tags -> {}                 terminate, power-off, power-on
    POST /v1/machines/{id}/fail                -> {}                      its host burns down: for tests and drills
    GET, PATCH /v1/weather                     Forecast -> Weather
    POST /v1/shut-down                         ShutDown -> Leaving        power all of them off, then leave
    POST /v1/leave                             -> Leaving                 end yourself, unless a machine is on

Whatever is refused comes as `Trouble` with a status of 4xx or 5xx.
"""

from datetime import timedelta
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from navarch_common.model.base import Ratio, Seconds
from navarch_common.model.node import LaunchRequest
from navarch_provisioner.cloud.base import (
    CloudError,
    InvalidLaunch,
    Machine,
    NoCapacity,
    NotAuthorized,
    NotFound,
    QuotaExceeded,
    Throttled,
    Upstream,
)

BODY_BYTES_MAX = 1 << 20

Capacity = Annotated[int, Meta(ge=0, le=1_000_000)]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    request: LaunchRequest
    gpu_count: Annotated[int, Meta(ge=0, le=64)] = 8


class MachineList(msgspec.Struct, frozen=True, kw_only=True):
    machines: list[Machine]


class Weather(msgspec.Struct, frozen=True, kw_only=True):
    """How this cloud feels today."""

    boot_time_s: Seconds = 2.0
    """From launch to the agent's first word, give or take a tenth."""
    capacity: Capacity | None = None
    """Machines that it has in all; None is no bound."""
    failure_rate: Ratio = 0.0
    """Part of the calls that fail and do nothing."""
    lost_reply_rate: Ratio = 0.0
    """Part of the calls that are carried out, but whose connection breaks before the reply."""


class Forecast(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change of the weather: what is not named stays."""

    boot_time_s: Seconds | UnsetType = UNSET
    capacity: Capacity | UnsetType | None = UNSET
    failure_rate: Ratio | UnsetType = UNSET
    lost_reply_rate: Ratio | UnsetType = UNSET

    def over(self, weather: Weather) -> Weather:
        given = {name: getattr(self, name) for name in self.__struct_fields__ if getattr(self, name) is not UNSET}
        return msgspec.structs.replace(weather, **given)


class ShutDown(msgspec.Struct, frozen=True, kw_only=True):
    """Whose machines go off."""

    cluster: Annotated[str, Meta(min_length=1, max_length=63)]
    provider: Annotated[str, Meta(min_length=1, max_length=63)]


class Leaving(msgspec.Struct, frozen=True):
    leaving: bool


class Trouble(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A `CloudError` on the wire."""

    code: str
    message: str
    scope: Literal["zone", "region", "type"] = "region"
    ttl_s: float | None = None
    retry_after_s: float | None = None

    @classmethod
    def of(cls, error: CloudError) -> "Trouble":
        if isinstance(error, NoCapacity):
            ttl_s = None if error.ttl is None else error.ttl.total_seconds()
            return cls(code=error.code, message=str(error), scope=error.scope, ttl_s=ttl_s)
        if isinstance(error, Throttled):
            return cls(code=error.code, message=str(error), retry_after_s=error.retry_after_s)
        return cls(code=error.code, message=str(error))

    def error(self) -> CloudError:
        if self.code == NoCapacity.code:
            ttl = None if self.ttl_s is None else timedelta(seconds=self.ttl_s)
            return NoCapacity(self.message, scope=self.scope, ttl=ttl)
        if self.code == Throttled.code:
            return Throttled(self.message, retry_after_s=self.retry_after_s)
        kinds: tuple[type[CloudError], ...] = (InvalidLaunch, NotAuthorized, NotFound, QuotaExceeded, Upstream)
        return next((kind for kind in kinds if kind.code == self.code), Upstream)(self.message)


STATUS: dict[str, int] = {
    NoCapacity.code: 409,
    QuotaExceeded.code: 409,
    Throttled.code: 429,
    NotAuthorized.code: 403,
    InvalidLaunch.code: 422,
    NotFound.code: 404,
    Upstream.code: 503,
}


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """`runtime.json` in the cloud's directory, while it listens."""

    url: str
    pid: int
    started_at: float
    """When that process started, seconds since 1970: the pid alone may be another's by now."""
