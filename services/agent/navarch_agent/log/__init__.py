"""The kernel's log as a port: what the kernel printed, each record once, with its place to resume from."""

from navarch_agent.log.base import KernelLog, KernelLogUnavailable, KernelRecord

__all__ = ["KernelLog", "KernelLogUnavailable", "KernelRecord"]
