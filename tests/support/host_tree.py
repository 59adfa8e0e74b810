"""A host's /proc and /sys as files of a test's own, and a reader that looks at them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from navarch_agent.host_look import LinuxHostReader
from navarch_agent.host_reading import ClockReading

ROOT_MOUNT = "27 1 259:1 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p1 rw"
DATA_MOUNT = "28 27 259:2 / /data rw,relatime - xfs /dev/nvme1n1 rw"


class HostTree:
    """A healthy host with two InfiniBand ports, NVSwitches and peermem. Write into it what is wrong."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.used: dict[str, tuple[float, float]] = {"/": (0.5, 0.1), "/data": (0.2, 0.1)}
        """By mount: how much of its space and of its inodes is used."""
        self.clock = ClockReading(synchronized=True)
        self.unit = "LoadState=loaded\nActiveState=active\n"
        self.asked: list[str] = []
        """Units that systemd was asked about."""
        self.write("proc/self/mountinfo", f"{ROOT_MOUNT}\n{DATA_MOUNT}\n")
        self.write("proc/meminfo", "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 500 kB\n")
        self.write("proc/loadavg", "1.50 1.00 0.50 3/2000 4242\n")
        self.write("proc/modules", "mlx5_core 1 2 mlx5_ib, Live 0x0\nnvidia_peermem 1 0 - Live 0x0\n")
        self.write("proc/driver/nvidia/gpus/0000:3b:00.0/information", "")
        self.write("proc/driver/nvidia-nvswitch/devices/0000:86:00.0", "")
        self.process(1, "S", name="systemd")
        for device in ("mlx5_0", "mlx5_1"):
            self.port(device, "state", "4: ACTIVE\n")
            self.port(device, "phys_state", "5: LinkUp\n")
            self.port(device, "rate", "400 Gb/sec (4X NDR)\n")
            self.port(device, "link_layer", "InfiniBand\n")
            self.port(device, "counters/link_downed", "3\n")
            self.port(device, "counters/symbol_error", "0\n")
            self.port(device, "hw_counters/link_error_recovery", "2\n")

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def port(self, device: str, file: str, text: str) -> None:
        self.write(f"sys/class/infiniband/{device}/ports/1/{file}", text)

    def process(self, pid: int, state: str, *, name: str = "nvidia-smi") -> None:
        self.write(
            f"proc/{pid}/stat", f"{pid} ({name}) {state} 1 1 1 0 -1 4194304 1 0 0 0 17 5 0 0 20 0 9 0 98765 1000 200\n"
        )

    def reader(self, **more: Any) -> LinuxHostReader:
        return LinuxHostReader(
            Path("/data"),
            root=self.root,
            **{"statvfs": self._statvfs, "clock": lambda: self.clock, "unit": self._unit, **more},
        )

    def _statvfs(self, path: str) -> os.statvfs_result:
        if path not in self.used:
            raise OSError(5, "Input/output error")
        used, inodes = self.used[path]
        free, free_inodes = round(1000 * (1 - used)), round(1000 * (1 - inodes))
        return os.statvfs_result((4096, 4096, 1000, free, free, 1000, free_inodes, free_inodes, 0, 255))

    def _unit(self, unit: str) -> str:
        self.asked.append(unit)
        return self.unit
