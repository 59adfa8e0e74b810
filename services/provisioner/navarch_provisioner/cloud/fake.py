"""The fake provider: a thin client of a `navarch-fake-cloud`, the one at `url` or a child of its own.

The child keeps its machines in `DATA_DIR/fake-cloud/<provider>/`. It outlives us, whoever comes next finds it by its
`runtime.json`, and it ends by itself when it is told to leave and no machine is on.
"""

import asyncio
import fcntl
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import msgspec
import structlog

from navarch_common.config.providers import FakeProvider, ProviderConfig
from navarch_common.model.node import LaunchRequest
from navarch_provisioner.cloud.base import (
    CloudProvider,
    Machine,
    NotFound,
    ProviderContext,
    Tags,
    UnknownOutcome,
    Upstream,
)
from navarch_provisioner.cloud.fake_wire import (
    Forecast,
    Leaving,
    MachineList,
    Order,
    Running,
    ShutDown,
    Trouble,
    Weather,
)
from navarch_provisioner.cloud.processes import command_of, inherited_environment, process_of, start_apart

log = structlog.get_logger("navarch.provider.fake")

T = TypeVar("T")

_INSTANCE_ID = re.compile(r"\Afake-[0-9a-f]{16}\Z")
_PROGRAM = ("navarch-fake-cloud", "navarch_sim.fake_cloud.main")
_START_TIMEOUT_S = 20.0
_STARTS_MAX = 5
_START_PAUSE_S = 0.3
_CALL_TIMEOUT_S = 10.0
_CALLS_AT_ONCE = 16
_POLL_S = 0.01
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class _NotHeard(Upstream):
    """The call changed nothing: it did not reach the cloud, or only asked."""


def make(name: str, config: ProviderConfig, context: ProviderContext) -> CloudProvider:
    """The adapter for providers of type `fake`."""
    assert isinstance(config, FakeProvider), f"provider {name} is not fake"
    if config.url is not None:
        return FakeCloud(name, config, None)
    return FakeCloud(name, config, ChildCloud(context.data_dir / "fake-cloud" / name))


class ChildCloud:
    """A `navarch-fake-cloud` of our own: found where one runs in `directory`, else started."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()
        self._starting = asyncio.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._start_under_way: asyncio.Task[str] | None = None
        self._url = ""

    async def url(self) -> str:
        """Where it listens. Raises `Upstream` where it cannot be started."""
        if self._url:
            return self._url
        async with self._starting:
            if not self._url:
                # Not cut off with whoever asked: a cloud that was begun must be known of, or nobody ends it.
                if self._start_under_way is None or self._start_under_way.done():
                    self._start_under_way = asyncio.create_task(self._found_or_started(), name="start fake cloud")
                    self._start_under_way.add_done_callback(_heard)
                self._url = await asyncio.shield(self._start_under_way)
            return self._url

    def lost(self, url: str) -> None:
        """It did not answer there: look again before the next call."""
        if self._url == url:
            self._url = ""

    async def running_soon(self) -> str | None:
        """Where it listens, once a start under way is through; None where it does not run and nobody starts it."""
        if self._start_under_way is not None:
            await asyncio.wait({self._start_under_way})
        while (url := await asyncio.to_thread(self.running)) is None and await asyncio.to_thread(self._occupied):
            await asyncio.sleep(_POLL_S)
        return url

    async def ended(self) -> None:
        """Returns when it runs no more."""
        while await asyncio.to_thread(self._occupied):
            await asyncio.sleep(_POLL_S)
        if self._child is not None:
            await asyncio.to_thread(self._child.wait)

    def _occupied(self) -> bool:
        """Whether a cloud has the directory."""
        try:
            descriptor = os.open(self._directory / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    async def _found_or_started(self) -> str:
        return await asyncio.to_thread(self.running) or await self._started()

    async def _started(self) -> str:
        trouble = "it did not say anything"
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                for _ in range(_STARTS_MAX):  # One that is just ending still holds the directory.
                    self._child = await asyncio.to_thread(self._start)
                    if (url := await self._came_up(self._child)) is not None:
                        return url
                    trouble = f"it ended with status {self._child.returncode}"
                    await asyncio.sleep(_START_PAUSE_S)
        except OSError as error:
            trouble = str(error)
        except TimeoutError:
            trouble = f"it was not there after {_START_TIMEOUT_S:g} s"
        raise Upstream(
            f"the fake cloud cannot be started: {trouble}; {self._directory / 'cloud.log'} may say more"
        ) from None

    async def _came_up(self, child: subprocess.Popen[bytes]) -> str | None:
        """Where the cloud listens, once it does; None where the child has ended and no other runs."""
        while True:
            ended = child.poll() is not None
            if (url := await asyncio.to_thread(self.running)) is not None or ended:
                return url
            await asyncio.sleep(_POLL_S)

    def running(self) -> str | None:
        """Where it listens now; None while it does not run."""
        if self._child is not None:
            self._child.poll()  # Takes leave of it where it has ended.
        try:
            noted = msgspec.json.decode((self._directory / "runtime.json").read_bytes(), type=Running)
        except (OSError, msgspec.DecodeError):
            return None
        return noted.url if process_of(noted.pid, noted.started_at) else None

    def _start(self) -> subprocess.Popen[bytes]:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        arguments = [*command_of(*_PROGRAM), "--data-dir", str(self._directory)]
        return start_apart(arguments, inherited_environment(), self._directory / "cloud.log")


def _heard(start: "asyncio.Task[str]") -> None:
    """Whoever asked may have gone before it failed."""
    if not start.cancelled() and start.exception() is not None:
        log.info("the fake cloud did not start")


class FakeCloud:
    """A `CloudProvider` over the fake cloud's HTTP API."""

    def __init__(self, name: str, config: FakeProvider, child: ChildCloud | None) -> None:
        """Without `child`, `config.url` says where the cloud is."""
        self._name = name
        self._config = config
        self._child = child
        self._told_weather = False
        self._slots = asyncio.Semaphore(_CALLS_AT_ONCE)
        self._http = httpx.AsyncClient(
            timeout=_CALL_TIMEOUT_S,
            limits=httpx.Limits(max_connections=_CALLS_AT_ONCE, keepalive_expiry=15.0),
            trust_env=False,
        )

    @property
    def name(self) -> str:
        return self._name

    async def launch(self, request: LaunchRequest) -> Machine:
        order = Order(request=request, gpu_count=self._config.gpu_count)
        return await self._call("POST", "machines", Machine, order, effect=True)

    async def find(self, token: str) -> Machine | None:
        return await self._one(f"tokens?token={quote(token, safe='')}")

    async def list_machines(self, cluster: str) -> Sequence[Machine]:
        path = f"machines?cluster={quote(cluster, safe='')}&provider={quote(self._name, safe='')}"
        return (await self._call("GET", path, MachineList)).complete()

    async def get(self, instance_id: str) -> Machine | None:
        return await self._one(f"machines/{instance_id}") if _INSTANCE_ID.match(instance_id) else None

    async def terminate(self, instance_id: str, tags: Tags) -> None:
        if _INSTANCE_ID.match(instance_id):
            await self._act(instance_id, "terminate", tags)

    async def power_off(self, instance_id: str, tags: Tags) -> None:
        await self._act(instance_id, "power-off", tags)

    async def power_on(self, instance_id: str, tags: Tags) -> None:
        await self._act(instance_id, "power-on", tags)

    @property
    def hosted_here(self) -> bool:
        return self._child is not None

    async def shut_down(self, cluster: str) -> None:
        """In one call, however many machines there are. The cloud itself ends with the last of them."""
        if self._child is None or (url := await self._child.running_soon()) is None:
            return
        body = ShutDown(cluster=cluster, provider=self._name)
        leaving = await self._send("POST", f"{url}/v1/shut-down", Leaving, body, effect=True)
        if leaving.leaving:
            await self._child.ended()

    async def close(self) -> None:
        """Machines live on. A child that has none to look after ends."""
        try:
            if self._child is not None and (url := await asyncio.to_thread(self._child.running)) is not None:
                await self._send("POST", f"{url}/v1/leave", Leaving, None, effect=False)
        except Upstream as error:
            log.info("the fake cloud stays", why=str(error))
        finally:
            await self._http.aclose()

    async def _one(self, path: str) -> Machine | None:
        try:
            return await self._call("GET", path, Machine)
        except NotFound:
            return None

    async def _act(self, instance_id: str, act: str, tags: Tags) -> None:
        if not _INSTANCE_ID.match(instance_id):
            raise NotFound(f"there is no machine {instance_id!r:.60}")
        await self._call("POST", f"machines/{instance_id}/{act}", dict[str, Any], tags, effect=True)

    async def _call(self, method: str, path: str, kind: type[T], body: object = None, *, effect: bool = False) -> T:
        """One call; a second one where the first certainly changed nothing because there was no cloud to hear it."""
        url = await self._url()
        try:
            return await self._call_at(url, method, path, kind, body, effect=effect)
        except _NotHeard as error:
            if self._child is None:
                raise
            log.info("the fake cloud is not there any more, looking again", why=str(error))
            self._child.lost(url)
        return await self._call_at(await self._url(), method, path, kind, body, effect=effect)

    async def _url(self) -> str:
        return await self._child.url() if self._child is not None else str(self._config.url).rstrip("/")

    async def _call_at(self, url: str, method: str, path: str, kind: type[T], body: object, *, effect: bool) -> T:
        if not self._told_weather:
            await self._send("PATCH", f"{url}/v1/weather", Weather, self._forecast(), effect=False)
            self._told_weather = True
        return await self._send(method, f"{url}/v1/{path}", kind, body, effect=effect)

    def _forecast(self) -> Forecast:
        """What the configuration says of the weather. A cloud that is not ours keeps its own where it says nothing."""
        config, usual = self._config, FakeProvider()
        forecast: dict[str, Any] = {"boot_time_s": config.boot_time.total_seconds()}
        forecast |= {name: getattr(config, name) for name in ("capacity", "failure_rate", "lost_reply_rate")}
        if self._child is None:
            unsaid = {"boot_time_s"} if config.boot_time == usual.boot_time else set()
            unsaid |= {name for name in forecast if name != "boot_time_s" and forecast[name] == getattr(usual, name)}
            forecast = {name: value for name, value in forecast.items() if name not in unsaid}
        return Forecast(**forecast)

    async def _send(self, method: str, url: str, kind: type[T], body: object, *, effect: bool) -> T:
        """One call. `effect` says that it changes something, so that a broken one leaves the outcome unknown."""
        broken = UnknownOutcome if effect else _NotHeard
        content = None if body is None else msgspec.json.encode(body)
        try:
            async with self._slots, asyncio.timeout(_CALL_TIMEOUT_S):
                response = await self._http.request(method, url, content=content)
        except _NOT_SENT as error:
            raise _NotHeard(f"no connection to the fake cloud at {url}: {error!r}") from error
        except (httpx.HTTPError, TimeoutError) as error:
            raise broken(f"{method} {url}: {error!r}") from error
        try:
            if response.is_success:
                return msgspec.json.decode(response.content, type=kind)
            trouble = msgspec.json.decode(response.content, type=Trouble)
        except msgspec.DecodeError as error:
            raise broken(f"{method} {url}: answered {response.status_code} with what is no answer: {error}") from error
        raise trouble.error()
