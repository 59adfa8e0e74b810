"""`navarch-agent`: puts an agent together from flags and environment, and runs it until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import random
import signal
import ssl
import stat
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from navarch_agent.commands import Periods
from navarch_agent.custom_run import CheckDirectory
from navarch_agent.gpu.fake import FakeGpuDriver
from navarch_agent.gpu.nvml import NvmlDriver
from navarch_agent.host import BootIdUnknown, LinuxHost, read_boot_id
from navarch_agent.host_look import LinuxHostReader
from navarch_agent.identity import Identity
from navarch_agent.inject import Simulation
from navarch_agent.journal import Journal, JournalHeld
from navarch_agent.log import KernelLog
from navarch_agent.log.file import FileKernelLog
from navarch_agent.log.journald import Journald
from navarch_agent.log.kmsg import DEVICE, Kmsg
from navarch_agent.log.tracepoints import Tracepoints
from navarch_agent.parts import Parts
from navarch_agent.service import Agent
from navarch_agent.settings import AgentSettings, SettingsError, parse, unknown_variables
from navarch_agent.spool import Spool
from navarch_common.bus.base import Bus, BusUnavailable
from navarch_common.bus.jetstream import JetStreamBus
from navarch_common.clock import SystemClock
from navarch_common.events.subjects import Subjects
from navarch_common.log import configure
from navarch_common.telemetry import Telemetry

log = structlog.get_logger("navarch.agent")

CONNECT_BACKOFF_S_MAX = 15.0
SHUTDOWN_S = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the agent. Returns 0 after an orderly stop, 1 when it could not run, 2 when a setting is wrong."""
    arguments = sys.argv[1:] if argv is None else argv
    if "--version" in arguments:
        print(f"navarch-agent {version()}")
        return 0
    try:
        settings = parse(arguments, os.environ)
        tls = _tls(settings)
    except SettingsError as error:
        print(f"navarch-agent: {error}", file=sys.stderr)
        return 2
    for sentence in unknown_variables(os.environ):
        print(f"navarch-agent: {sentence}", file=sys.stderr)
    configure(settings.log_level, service="agent")
    try:
        return asyncio.run(_run_until_signalled(settings, tls))
    except* (JournalHeld, BootIdUnknown, BusUnavailable) as group:
        for trouble in group.exceptions:
            print(f"navarch-agent: {trouble}", file=sys.stderr)
    return 1


def version() -> str:
    """Return the agent's version, as installed."""
    return importlib.metadata.version("navarch-agent")


async def _run_until_signalled(settings: AgentSettings, tls: ssl.SSLContext | None) -> int:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None

    def stop() -> None:
        if task.cancelling():
            os._exit(1)  # asked twice: whoever asks has waited long enough
        loop.call_later(SHUTDOWN_S, os._exit, 1)
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await run(settings, tls)
    except asyncio.CancelledError:
        return 0
    return 0


async def run(settings: AgentSettings, tls: ssl.SSLContext | None = None) -> None:
    """Connect, watch, report; ends when cancelled or told to stop. Raises `JournalHeld`, `BootIdUnknown`."""
    host = LinuxHost()
    rng = random.Random()
    boot_id = settings.boot_id or read_boot_id()
    spool = open_spool(settings.data_dir, boot_id, first_sequence=int(host.uptime_s() * 1000))
    log.info("agent starts", node=settings.node, pool=settings.pool, boot_id=boot_id, unsent=spool.count)
    telemetry = Telemetry.open("agent", rng, settings.otlp_endpoint, os.environ)
    bus = await connected(settings, tls, rng)
    try:
        kmsg = settings.kmsg
        if settings.driver == "fake":
            if kmsg == DEVICE:
                kmsg = settings.data_dir / "kmsg"  # a simulated machine never writes into the real one's log
            assert isinstance(kmsg, Path)  # the settings saw to it
            with contextlib.suppress(OSError):  # a file that is there can be watched; one that isn't comes later
                kmsg.touch()
        driver, simulation = _driver(settings, kmsg, rng)
        parts = Parts(
            identity=Identity(node=settings.node, pool=settings.pool, generation=settings.generation, boot_id=boot_id),
            bus=bus,
            subjects=Subjects(settings.subject_prefix),
            driver=driver,
            kernel_log=_kernel_log(kmsg, boot_id, host.uptime_s),
            tracepoints=Tracepoints(SystemClock(), boot_id, uptime_s=host.uptime_s) if simulation is None else None,
            spool=spool,
            host=host,
            telemetry=telemetry,
            clock=SystemClock(),
            rng=rng,
            version=version(),
            host_reader=_host_reader(settings),
            checks=None if settings.checks is None else CheckDirectory(settings.checks),
        )
        periods = Periods(heartbeat_s=settings.heartbeat_interval_s, health_check_s=settings.health_check_interval_s)
        await Agent(parts, periods, simulation=simulation).run()
    finally:
        await bus.close()
        await telemetry.close()


def open_spool(directory: Path, boot_id: str, *, first_sequence: int) -> Spool:
    """Open the spool in `directory`. Where the disk refuses, reports are kept in memory. Raises `JournalHeld`."""
    try:
        return Spool(boot_id, Journal(directory), first_sequence=first_sequence)
    except OSError as error:
        log.error(
            "no spool on disk: unsent reports are lost when the agent ends", directory=str(directory), why=str(error)
        )
        return Spool(boot_id, first_sequence=first_sequence)


async def connected(settings: AgentSettings, tls: ssl.SSLContext | None, rng: random.Random) -> Bus:
    """Connect to the bus, however long that takes."""
    backoff_s = 0.5
    while True:
        try:
            return await JetStreamBus.connect(
                settings.server,
                name=f"navarch-agent {settings.node}",
                rng=rng,
                credentials=settings.credentials,
                tls=tls,
            )
        except BusUnavailable as error:
            log.warning("not connected, trying again", why=str(error), in_s=backoff_s)
        await asyncio.sleep(backoff_s * rng.uniform(0.5, 1.0))
        backoff_s = min(backoff_s * 2, CONNECT_BACKOFF_S_MAX)


def _tls(settings: AgentSettings) -> ssl.SSLContext | None:
    """Read what secures the connection. Raises `SettingsError`: a file that is not there will not come by waiting."""
    if settings.credentials is not None and not os.access(settings.credentials, os.R_OK):
        raise SettingsError(f"--credentials: {settings.credentials} cannot be read")
    if settings.tls_ca is None:
        return None
    try:
        return ssl.create_default_context(cafile=str(settings.tls_ca))
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(f"--tls-ca: {settings.tls_ca} holds no certificates that can be read: {error}") from error


def _driver(
    settings: AgentSettings, kmsg: Path | str, rng: random.Random
) -> tuple[NvmlDriver, None] | tuple[FakeGpuDriver, Simulation]:
    if settings.driver == "nvml":
        return NvmlDriver(), None
    fake = FakeGpuDriver(settings.node, rng, gpu_count=settings.gpu_count)
    return fake, Simulation(fake, lambda line: _printk(kmsg, line))


def _host_reader(settings: AgentSettings) -> LinuxHostReader | None:
    """A simulated machine says nothing of the real one that it runs on."""
    real = settings.driver == "nvml"
    return LinuxHostReader(settings.data_dir) if real and settings.host_checks else None


def _printk(path: Path | str, line: str) -> None:
    """Print into a simulated machine's kernel log, just as anyone may append to it: one line, one write."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, f"{line}\n".encode())
    finally:
        os.close(fd)


def _kernel_log(path: Path | str, boot_id: str, uptime_s: Callable[[], float]) -> KernelLog:
    if isinstance(path, str):
        return Journald(SystemClock(), boot_id, uptime_s=uptime_s, kernel_boot_id=read_boot_id())
    if path == DEVICE or (path.exists() and stat.S_ISCHR(path.stat().st_mode)):
        return Kmsg(SystemClock(), boot_id, uptime_s=uptime_s, path=path)
    return FileKernelLog(SystemClock(), boot_id, path)


if __name__ == "__main__":
    sys.exit(main())
