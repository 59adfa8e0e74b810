"""A kernel line with what it means: what it is called, how bad it is, what is advised, and what it is about.

What the driver says in words comes before any table: the recovery action of Xid 154, `RST` and `D-RST`, Fatal and
Non-fatal, the registers of NVLink 5. What Navarch does about it is the health policy's to say.
"""

from __future__ import annotations

import msgspec

from navarch_common.xid.catalogue import CatalogueEntry, Severity, sxid_entry, xid_entry
from navarch_common.xid.lines import KernelFault, parse_line
from navarch_common.xid.nvlink5 import decode_nvlink

RECOVERY: dict[int, tuple[str, str]] = {
    0: ("none", "nothing is to be done any more"),
    1: ("reset_gpu", "reset the GPU"),
    2: ("reboot_node", "reboot the machine"),
    3: ("drain_p2p", "end traffic between GPUs"),
    4: ("drain_and_reset", "reset the GPU once its work has left"),
    5: ("recover_imex", "recover the IMEX domain"),
}
"""What the driver asks for with Xid 154, by its number: our word, and a sentence."""

_OF_GPU = frozenset({"gpu_lost", "gpu_probe_head", "gpu_identity", "rm_init_failed"})
"""Kinds whose PCI address is a GPU's."""

_INFO, _WARNING, _FATAL, _MENDED = Severity.INFO, Severity.WARNING, Severity.FATAL, Severity.RECOVERABLE
MEANINGS: dict[str, tuple[str, Severity, str]] = {
    "gpu_lost": ("GPU fell off the bus", _FATAL, "drain_and_replace"),
    "gpu_lost_probe": ("GPU fell off the bus before the driver had it", _FATAL, "drain_and_replace"),
    "gpu_probe_head": ("the driver looks at a GPU", _INFO, "none"),
    "gpu_identity": ("which GPU is at which PCI address", _INFO, "none"),
    "gpu_serial": ("serial number of a GPU's board", _INFO, "none"),
    "rm_init_failed": ("the driver could not start a GPU", _FATAL, "reboot_node"),
    "gsp_boot_failed": ("a GPU's system processor did not start", _FATAL, "reboot_node"),
    "nvlink_driver": ("the driver complains of NVLink", _WARNING, "check_nvlink"),
    "peermem": ("the module for GPUDirect RDMA complains", _WARNING, "none"),
    "nic_fatal": ("a network card's health is compromised", _FATAL, "drain_and_replace"),
    "nic_power": ("a network card gets too little power", _WARNING, "contact_support"),
    "nic_cable": ("a network cable is unplugged or broken", _WARNING, "contact_support"),
    "nic_cmd": ("a network card does not answer", _WARNING, "none"),
    "nic_tx_timeout": ("a network card sends nothing any more", _WARNING, "none"),
    "ib_carrier_lost": ("an InfiniBand port lost its link", _WARNING, "none"),
    "pcie_aer": ("PCIe bus error", _WARNING, "none"),
    "pcie_aer_root": ("PCIe bus error, told by the root port", _WARNING, "none"),
    "pcie_dpc": ("a PCIe port was shut to contain an error", _MENDED, "reboot_node"),
    "mem_ecc_ce": ("corrected errors of the host's memory", _INFO, "none"),
    "mem_ecc_ue": ("uncorrected errors of the host's memory", _MENDED, "reboot_node"),
    "ghes": ("hardware error, told by the firmware", _WARNING, "none"),
    "mce": ("machine check of a processor", _WARNING, "contact_support"),
    "hung_task": ("a task waits for minutes", _WARNING, "none"),
    "soft_lockup": ("a processor was busy for too long", _WARNING, "none"),
    "oom_kill": ("a process was killed for want of memory", _INFO, "restart_app"),
    "nvme_timeout": ("a disk does not answer in time", _WARNING, "none"),
    "nvme_disabled": ("a disk is gone", _MENDED, "drain_and_replace"),
    "nvme_nopath": ("no path to a disk is left", _WARNING, "none"),
    "raid_fail": ("a disk of an array failed", _WARNING, "contact_support"),
    "fs_readonly": ("a file system turned read-only", _MENDED, "reboot_node"),
    "io_error": ("a disk could not be read or written", _WARNING, "contact_support"),
    "nfs_stall": ("a file server does not answer", _WARNING, "none"),
    "nfs_ok": ("a file server answers again", _INFO, "none"),
    "fd_exhausted": ("no more files can be opened", _WARNING, "restart_app"),
}
"""Of everything that is not an Xid or SXid: what it is called, how bad it is, what is advised."""


class Decoded(msgspec.Struct, frozen=True, kw_only=True):
    """One kernel line that tells of a fault."""

    kind: str
    """`xid`, `sxid`, `sxid_detail` (a second row of the same SXid), or one of `MEANINGS`."""
    code: int | None
    pci: str | None
    """`dddd:bb:dd` in lower case; of the device at fault."""
    gpu_instance: int | None
    """MIG: the GPU instance that the driver blames."""
    name: str
    severity: Severity
    action: str
    """What is advised, in one word: `reset_gpu`; `none` where nothing is."""
    entity: str
    """What it is about: `gpu:UUID`, or `gpu:PCI` where no line before said whose it is; `switch:PCI`, `device:PCI`,
    `node`."""
    message: str
    """The line without its prefix; for Xid and SXid what follows the code."""


class Decoder:
    """Decodes one machine's log, line by line. Remembers which GPU is at which PCI address: the driver says so before the
    first Xid of a boot."""

    def __init__(self) -> None:
        self._uuids: dict[str, str] = {}

    def line(self, text: str) -> Decoded | None:
        """None where the line tells of no fault that is known."""
        fault = parse_line(text, anywhere=True)
        if fault is None:
            return None
        if fault.pci is not None and fault.uuid is not None:
            self._uuids[fault.pci] = fault.uuid
        name, severity, action = meaning(fault)
        return Decoded(
            kind=fault.kind,
            code=fault.code,
            pci=fault.pci,
            gpu_instance=fault.gpu_instance,
            name=name,
            severity=severity,
            action=action,
            entity=self._entity(fault),
            message=fault.message,
        )

    def _entity(self, fault: KernelFault) -> str:
        if fault.pci is None:
            return "node"
        if fault.kind == "xid" or fault.kind in _OF_GPU:
            return f"gpu:{self._uuids.get(fault.pci, fault.pci)}"
        return f"{'switch' if fault.kind in ('sxid', 'sxid_detail') else 'device'}:{fault.pci}"


def meaning(fault: KernelFault) -> tuple[str, Severity, str]:
    """What it is called, how bad it is, and what is advised in one word."""
    if fault.kind not in ("xid", "sxid", "sxid_detail"):
        return MEANINGS[fault.kind]
    assert fault.code is not None
    if fault.kind == "sxid_detail":
        return sxid_entry(fault.code).name, _INFO, "none"
    entry = xid_entry(fault.code) if fault.kind == "xid" else sxid_entry(fault.code)
    return entry.name, _severity(fault, entry), _action(fault, entry)


def _severity(fault: KernelFault, entry: CatalogueEntry) -> Severity:
    if fault.recovery_action is not None:
        return _MENDED if fault.recovery_action else _INFO
    if fault.fatal is None or entry.severity is Severity.UNCLASSIFIED:
        return entry.severity
    if fault.fatal:
        return _FATAL
    return _WARNING if entry.severity in (_FATAL, _MENDED) else entry.severity


def _action(fault: KernelFault, entry: CatalogueEntry) -> str:
    if fault.recovery_action is not None:
        return RECOVERY.get(fault.recovery_action, (entry.action, ""))[0]
    if fault.drain_and_reset_required:
        return "drain_and_reset"
    if fault.reset_required:
        return "reset_gpu"
    if fault.kind == "xid" and (rule := decode_nvlink(entry.code, fault.message)) is not None:
        return rule.action
    return entry.action
