"""What an agent is made of. The composition root puts it together; a simulated fleet shares most of it."""

from __future__ import annotations

import random
from dataclasses import dataclass

from navarch_agent.custom_checks import CheckRunner
from navarch_agent.gpu.base import GpuDriver
from navarch_agent.host import Host
from navarch_agent.host_reading import HostReader
from navarch_agent.identity import Identity
from navarch_agent.log.base import KernelLog
from navarch_agent.spool import Spool
from navarch_common.bus.base import Bus
from navarch_common.clock import Clock
from navarch_common.events.subjects import Subjects
from navarch_common.telemetry import Telemetry


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """One agent's ports, and who it is."""

    identity: Identity
    bus: Bus
    subjects: Subjects
    driver: GpuDriver
    kernel_log: KernelLog
    tracepoints: KernelLog | None = None
    """What the driver tells beside that log. None: nobody looks, as on every simulated machine."""
    spool: Spool
    host: Host
    telemetry: Telemetry
    clock: Clock
    rng: random.Random
    version: str = ""
    """The agent's own version."""
    host_reader: HostReader | None = None
    """Looks at the host's disks, processes and ports. None: nobody does, as on every simulated machine."""
    checks: CheckRunner | None = None
    """The operator's own checks. None: there are none."""
