"""The kernel lines beside Xid and SXid that tell of broken hardware: one pattern for each kind.

Every pattern is matched at the start of a line whose prefix was taken off (see `lines`). A named group says which
field of the fault it fills: `pci`, `pid`, `name` (a process), `uuid`, `serial`. The first pattern that matches wins.
"""

from __future__ import annotations

import re

from navarch_common.xid.pci import PCI_PATTERN

_PCI = rf"(?P<pci>{PCI_PATTERN})"

_PATTERNS: tuple[tuple[str, str], ...] = (
    ("gpu_lost", rf"NVRM: GPU {_PCI}: GPU has fallen off the bus"),
    ("gpu_probe_head", rf"NVRM: The NVIDIA GPU {_PCI}"),
    ("gpu_lost_probe", r"NVRM:\s+fallen off the bus and is not responding"),
    ("gpu_identity", rf"NVRM: GPU at (?:PCI:)?{_PCI}: (?P<uuid>GPU-[0-9A-Fa-f-]{{8,64}})"),
    ("gpu_serial", r"NVRM: GPU Board Serial Number: (?P<serial>[0-9A-Za-z-]{1,64})"),
    ("rm_init_failed", rf"NVRM: GPU {_PCI}: (?:RmInitAdapter failed!|rm_init_adapter failed)"),
    ("gsp_boot_failed", r"NVRM: (?:GPU\d+ )?_kgspBoot\w+: "),
    ("nvlink_driver", r"NVRM: (?:GPU\d+ )?knvlink\w+: "),
    ("peermem", r"nvidia[-_]peermem\b"),
    ("nic_fatal", rf"mlx5_core {_PCI}: poll_health:.*device's health compromised"),
    ("nic_power", rf"mlx5_core {_PCI}: .*insufficient power on the PCIe slot"),
    ("nic_cable", rf"mlx5_core {_PCI}: Port module event(?:\[error\])?: .*Cable (?:unplugged|error)"),
    ("nic_cmd", rf"mlx5_core {_PCI}: (?:mlx5_cmd_\w+:.*failed|wait_func:.*timeout)"),
    ("nic_tx_timeout", rf"[\w-]+ {_PCI}(?: \S+)?: NETDEV WATCHDOG: "),
    ("ib_carrier_lost", r"ib\w*: [Ll]ost carrier"),
    ("pcie_aer", rf"[\w-]+ {_PCI}: (?:AER: )?PCIe Bus Error: severity="),
    ("pcie_aer_root", rf"pcieport {PCI_PATTERN}: AER: [\w() -]*error (?:message )?received(?: from|:) {_PCI}"),
    ("pcie_dpc", rf"pcieport {_PCI}: DPC: containment event"),
    ("mem_ecc_ce", r"EDAC MC\d+: \d+ CE "),
    ("mem_ecc_ue", r"EDAC MC\d+: \d+ UE "),
    ("ghes", r"(?:mce: |\{\d+\})?\[Hardware Error\]: event severity: "),
    ("mce", r"mce: \[Hardware Error\]: "),
    ("hung_task", r"INFO: task (?P<name>.{1,64}):(?P<pid>\d{1,10}) blocked for more than \d+ seconds"),
    (
        "soft_lockup",
        r"(?:watchdog: )?BUG: soft lockup - CPU#\d+ stuck for \d+s!(?: \[(?P<name>.{1,64}):(?P<pid>\d{1,10})\])?",
    ),
    ("oom_kill", r"oom-kill:constraint="),
    ("oom_kill", r"(?:Out of memory|Memory cgroup out of memory): Kill(?:ed)? process (?P<pid>\d{1,10})"),
    ("nvme_timeout", r"nvme nvme\d+: I/O .*timeout"),
    ("nvme_disabled", r"nvme nvme\d+: (?:Disabling|Removing) (?:device )?after (?:reset|probe) failure"),
    ("nvme_nopath", r"block nvme\w+: no available path"),
    ("raid_fail", r"md/raid\S*: ?Disk failure on "),
    ("fs_readonly", r"(?:EXT4-fs|XFS|BTRFS)\b.*Remounting filesystem read-only"),
    ("io_error", r"(?:EXT4-fs|XFS|BTRFS)\b.*I/O error"),
    ("io_error", r"Buffer I/O error on dev "),
    ("io_error", r"(?:blk_update_request: )?I/O error, dev "),
    ("nfs_stall", r"nfs: server \S+ not responding"),
    ("nfs_ok", r"nfs: server \S+ OK"),
    ("fd_exhausted", r"VFS: file-max limit \d+ reached"),
)

PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = tuple((kind, re.compile(text)) for kind, text in _PATTERNS)
"""(kind, pattern), in the order in which they are tried."""

KINDS: frozenset[str] = frozenset(kind for kind, _ in _PATTERNS) | {"xid", "sxid", "sxid_detail"}
"""Every kind that a `KernelFault` can have."""

SIGNS: tuple[str, ...] = (
    "NVRM:",
    "nvidia-nvswitch",
    "peermem",
    "mlx5_core ",
    "NETDEV WATCHDOG: ",
    "ost carrier",
    "PCIe Bus Error: ",
    ": AER: ",
    ": DPC: ",
    "EDAC MC",
    "[Hardware Error]",
    " blocked for more than ",
    "BUG: soft lockup",
    "oom-kill:constraint=",
    ": Kill",
    "nvme nvme",
    "no available path",
    "Disk failure on ",
    "Remounting filesystem read-only",
    "I/O error",
    "nfs: server ",
    "VFS: file-max limit ",
)
"""Words, one of which every line that tells of a fault has: most lines have none, and are done with a single search."""
