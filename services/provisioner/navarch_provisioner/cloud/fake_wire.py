"""What the fake provider and its cloud say to each other: JSON over HTTP, under `/v1`.

    POST /v1/machines                          Order -> Machine           launch
    GET  /v1/machines?cluster=&provider=       -> MachineList             all that exist
    GET  /v1/machines/{id}, /v1/tokens?token=  -> Machine, or 404
    POST /v1/machines/{id}/{act}               Tags -> {}                 terminate, power-off, power-on
    GET, PATCH /v1/weather                     Forecast -> Weather        how hostile the cloud is from now on
    POST /v1/shut-down                         ShutDown -> Leaving        power all of them off, then leave
    POST /v1/leave                             -> Leaving                 end yourself, unless a machine is on

What happens to machines by itself, to order, for tests and drills. No weather touches these calls, no tags are asked for:

    POST /v1/machines/{id}/fail                -> {}                      its host burns down
    POST /v1/machines/{id}/reboot              -> {}                      it loses power and boots again: a new boot id
    POST /v1/machines/{id}/return              -> {}                      though ended, it runs again: same tags, same agent
    POST /v1/machines/{id}/twin                -> Machine                 another one with the very same tags

Whatever is refused comes as `Trouble` with a status of 4xx or 5xx.
"""

from datetime import timedelta
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from navarch_common.model.base import Name, Ratio, Seconds
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
    total: int | None = None
    """How many there should be; None from a cloud that does not say."""

    def complete(self) -> list[Machine]:
        """The machines. Raises `Upstream` where some are missing: a short list must never look like machines gone."""
        if self.total is not None and len(self.machines) != self.total:
            raise Upstream(f"the list broke off: {len(self.machines)} of {self.total} machines")
        return self.machines


Places = Annotated[tuple[Name, ...], Meta(max_length=64)]


class Weather(msgspec.Struct, frozen=True, kw_only=True):
    """How this cloud feels today."""

    boot_time_s: Seconds = 2.0
    """From launch to the agent's first word, give or take a tenth."""
    capacity: Capacity | None = None
    """Machines that it has in all; None is no bound."""
    sold_out: Places = ()
    """Zones, regions, instance types and providers (entries of a configuration) that have no room; `*` is all."""
    zones: Places = ()
    """Where it puts, by chance, a machine whose launch names no zone."""
    dark_zones: Places = ()
    """Zones whose network is down: their machines run, say nothing and hear nothing; the cloud shows them running."""
    tokens: bool = True
    """False: a cloud without idempotency tokens, where each launch call makes another machine."""

    failure_rate: Ratio = 0.0
    """Part of the calls that fail and do nothing."""
    lost_reply_rate: Ratio = 0.0
    """Part of the calls that are carried out, but whose connection breaks before the reply."""
    lost_request_rate: Ratio = 0.0
    """Part of the calls whose connection breaks likewise, but that are not carried out."""
    slow_s: Seconds = 0.0
    """How long each call waits before it is carried out, give or take a half; also when its caller has gone by then."""
    stale_list_s: Seconds = 0.0
    """How old is what a list or a search by token shows. A machine asked for by its id is shown as it is."""
    short_list_rate: Ratio = 0.0
    """Part of the lists that break off somewhere."""

    boot_failure_rate: Ratio = 0.0
    """Part of the machines that run and never say a word."""
    die_young_rate: Ratio = 0.0
    """Part of the machines that die within a minute after their first word."""


class Forecast(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change of the weather: what is not named stays."""

    boot_time_s: Seconds | UnsetType = UNSET
    capacity: Capacity | UnsetType | None = UNSET
    sold_out: Places | UnsetType = UNSET
    zones: Places | UnsetType = UNSET
    dark_zones: Places | UnsetType = UNSET
    tokens: bool | UnsetType = UNSET
    failure_rate: Ratio | UnsetType = UNSET
    lost_reply_rate: Ratio | UnsetType = UNSET
    lost_request_rate: Ratio | UnsetType = UNSET
    slow_s: Seconds | UnsetType = UNSET
    stale_list_s: Seconds | UnsetType = UNSET
    short_list_rate: Ratio | UnsetType = UNSET
    boot_failure_rate: Ratio | UnsetType = UNSET
    die_young_rate: Ratio | UnsetType = UNSET

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
